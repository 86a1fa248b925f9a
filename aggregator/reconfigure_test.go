package aggregator_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/metric"
)

// Whatever the configuration changes to while readers send, everything they send comes
// out once: under the names and tags of the one configuration or the other.
func TestTotalsOverReloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const readers, packets, perPacket, names, reloads = 3, 1000, 20, 40, 100
		one := aggregator.DefaultConfig()
		one.FlushInterval = time.Second
		one.Expiry = aggregator.ExpiryConfig{Context: 2 * time.Second, ZeroFill: time.Second, KeptGauge: time.Minute}
		other := one
		other.FlushInterval = 3 * time.Second
		other.Expiry.Context = 6 * time.Second
		other.Tags = []string{"env:prod"}
		other.Origin.AsTags = []string{metric.TagContainerID}
		other.Histogram = aggregator.HistogramConfig{Aggregates: []string{"count", "min"}, Percentiles: []float64{0.5}}
		other.MaxContexts = 500_000

		a := aggregator.New(one, describers(readers), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		batches := make(chan *metric.Batch, 1)
		go func() {
			defer close(batches)
			a.Run(ctx, nil, batches)
		}()
		var working sync.WaitGroup
		sent := make([]map[string]float64, readers)
		for reader := range readers {
			sent[reader] = map[string]float64{}
			working.Go(func() {
				random := rand.New(rand.NewPCG(uint64(reader), 7))
				for range packets {
					var text strings.Builder
					for range perPacket {
						name := fmt.Sprintf("%s.%d", []string{"count", "dist", "hist"}[random.IntN(3)], random.IntN(names))
						kind := map[byte]string{'c': "c", 'd': "d", 'h': "h"}[name[0]]
						rate, weight := "", 1.0
						if random.IntN(2) == 0 {
							rate, weight = "|@0.5", 2
						}
						fmt.Fprintf(&text, "%s:1|%s%s|#t:%d\n", name, kind, rate, random.IntN(3))
						sent[reader][name] += weight
					}
					lines := metric.Lines{Sender: "box"}
					dogstatsd.Packet([]byte(text.String()), false, &lines)
					a.Worker(reader).Add(&lines)
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				}
			})
		}
		working.Go(func() {
			for i := range reloads {
				a.Reconfigure([]aggregator.Config{other, one}[i%2], nil, nil)
				checkBooks(t, a.Stats())
				time.Sleep(97 * time.Millisecond)
			}
		})
		go func() {
			working.Wait()
			time.Sleep(5 * time.Second)
			cancel()
		}()

		received := map[string]float64{}
		var tagged, untagged, last int64
		for b := range batches {
			if b.Start.Unix() <= last {
				t.Errorf("two intervals start at %v", b.Start)
			}
			last = b.Start.Unix()
			for i := range b.Series {
				s := &b.Series[i]
				if s.Type == metric.Rate {
					received[b.Context(s).Name()] += s.Value * b.Interval.Seconds()
				}
				if slices.Contains(slices.Collect(b.Context(s).Tags()), "container_id:box") {
					tagged++
				} else {
					untagged++
				}
			}
			for _, p := range b.Sketches {
				received[p.Context.Name()] += float64(p.Sketch.Count)
			}
		}
		want := map[string]float64{}
		for _, some := range sent {
			for name, n := range some {
				want[name] += n
			}
		}
		for name := range want {
			if got := received[name]; got-want[name] > 1e-6 || want[name]-got > 1e-6 {
				t.Errorf("%s: %v events came out, %v went in", name, got, want[name])
			}
		}
		if len(received) != len(want) || tagged == 0 || untagged == 0 {
			t.Errorf("%d metrics, want %d; %d points of one configuration, %d of the other", len(received), len(want), untagged, tagged)
		}
	})
}

// Rules are part of what changes, and so is what was decided by them.
func TestRulesChangeWithTheConfiguration(t *testing.T) {
	a := aggregator.New(aggregator.DefaultConfig(), describers(1), slog.New(slog.DiscardHandler))
	send := func() {
		var lines metric.Lines
		dogstatsd.Packet([]byte("a:1|c\nb:1|c|@0.5"), false, &lines)
		a.Worker(0).Add(&lines)
	}
	drop := func() aggregator.Treat {
		return func(id *metric.Identity, t *metric.Treatment) {
			if string(id.Name) == "a" {
				t.Refused = metric.DroppedByRule
			}
		}
	}
	for _, rules := range []func() aggregator.Treat{nil, drop, nil} {
		a.Reconfigure(aggregator.DefaultConfig(), rules, nil)
		send()
		send()
	}
	s := a.Stats()
	checkBooks(t, s)
	if s.Refused[metric.DroppedByRule] != 2 || s.Aggregated != 10 {
		t.Errorf("%d samples dropped, %d aggregated; want 2, 10", s.Refused[metric.DroppedByRule], s.Aggregated)
	}
	if s.Resolved != 6 || s.Identities != 2 {
		t.Errorf("%d identities resolved, %d remembered; want 6, 2", s.Resolved, s.Identities)
	}
}
