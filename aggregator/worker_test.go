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
	"github.com/weir-agent/weir/parser"
)

var dogstatsd = parser.New(parser.DefaultConfig())

// describers returns the describers of so many workers.
func describers(workers int) []aggregator.Describe {
	return slices.Repeat([]aggregator.Describe{dogstatsd.Describe}, workers)
}

func TestAddDoesNotAllocate(t *testing.T) {
	for _, kind := range []string{"c", "g", "s", "h", "ms", "d", "c|@0.5", "h|@0.5", "d|@0.5"} {
		t.Run(kind, func(t *testing.T) {
			a := aggregator.New(aggregator.DefaultConfig(), describers(1), slog.New(slog.DiscardHandler))
			var lines metric.Lines
			var packet strings.Builder
			for i := range 50 {
				fmt.Fprintf(&packet, "metric.%d:%d|%s|#env:prod,team:web\n", i%10, i, kind)
			}
			dogstatsd.Packet([]byte(packet.String()), false, &lines)
			w := a.Worker(0)
			// Histograms keep their samples until the interval ends: let them grow.
			for range 2000 {
				w.Add(&lines)
			}
			if n := testing.AllocsPerRun(100, func() { w.Add(&lines) }); n > 0 {
				t.Errorf("%v allocations for 50 samples, want 0", n)
			}
		})
	}
}

// Nothing is lost or counted twice between readers that send and a flusher that
// swaps, expires and reuses contexts under them; and whenever one looks, the
// books close.
func TestTotalsUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := aggregator.DefaultConfig()
		cfg.FlushInterval = time.Second
		cfg.Expiry.Context = 2 * time.Second
		cfg.Expiry.ZeroFill = time.Second
		cfg.MaxContexts = 3000
		const readers, packets, perPacket = 3, 2000, 20
		a := aggregator.New(cfg, describers(readers), slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		batches := make(chan *metric.Batch, 1)
		go func() {
			defer close(batches)
			a.Run(ctx, nil, batches)
		}()

		var senders sync.WaitGroup
		sent := make([]float64, readers)
		for reader := range readers {
			senders.Go(func() {
				random := rand.New(rand.NewPCG(uint64(reader), 6))
				var lines metric.Lines
				for packet := range packets {
					var text strings.Builder
					for range perPacket {
						// Names come and go, so that contexts expire while others are sent.
						n := packet/100*40 + random.IntN(60)
						tags := []string{"a:1,b:2", "b:2,a:1"}[random.IntN(2)]
						switch random.IntN(5) {
						case 0:
							fmt.Fprintf(&text, "count.%d:1|c|@0.5|#%s\n", n, tags)
							sent[reader] += 2
						case 1:
							fmt.Fprintf(&text, "dist.%d:1|d|#%s\n", n, tags)
							sent[reader]++
						case 2:
							fmt.Fprintf(&text, "hist.%d:1|h|#%s\n", n, tags)
							sent[reader]++
						case 3:
							fmt.Fprintf(&text, "bad.%d:1|zz|#%s\n", n, tags)
						default:
							fmt.Fprintf(&text, "count.%d:1|c|#%s\n", n, tags)
							sent[reader]++
						}
					}
					lines.Reset()
					dogstatsd.Packet([]byte(text.String()), false, &lines)
					a.Worker(reader).Add(&lines)
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
					if packet%10 == 0 {
						checkBooks(t, a.Stats())
					}
				}
			})
		}
		go func() {
			senders.Wait()
			time.Sleep(5 * time.Second)
			cancel()
		}()

		var received float64
		for b := range batches {
			seen := map[string]bool{}
			for i := range b.Series {
				s := &b.Series[i]
				id := b.Context(s).Key() + s.Suffix.String()
				if seen[id] {
					t.Fatalf("%s has two points in one batch", b.Context(s).Name())
				}
				seen[id] = true
				if s.Type == metric.Rate {
					received += s.Value * b.Interval.Seconds()
				}
			}
			for _, p := range b.Sketches {
				received += float64(p.Sketch.Count)
			}
		}
		var want float64
		for _, n := range sent {
			want += n
		}
		stats := a.Stats()
		checkBooks(t, stats)
		if received != want {
			t.Errorf("%v events came out, %v went in", received, want)
		}
		if stats.Lines != readers*packets*perPacket {
			t.Errorf("%d lines counted, %d sent", stats.Lines, readers*packets*perPacket)
		}
		if stats.Rejected[metric.UnknownKind] == 0 || stats.Expired == 0 || stats.Created <= 60*3 {
			t.Errorf("the test did not test what it should: %+v", stats)
		}
	})
}

func checkBooks(t *testing.T, s aggregator.Stats) {
	t.Helper()
	var rejected, refused uint64
	for why := range metric.Reasons {
		rejected += s.Rejected[why]
		refused += s.Refused[why]
	}
	if s.Lines != s.Samples+s.Events+s.Checks+rejected {
		t.Errorf("lines %d != samples %d + rejected %d", s.Lines, s.Samples, rejected)
	}
	if s.Samples != s.Aggregated+s.Passed+refused {
		t.Errorf("samples %d != aggregated %d + refused %d", s.Samples, s.Aggregated, refused)
	}
}

// Lines that are never twice the same must not grow the process: contexts and
// identities are bounded, and the rest is counted.
func TestFloodOfNewContextsIsBounded(t *testing.T) {
	cfg := aggregator.DefaultConfig()
	cfg.MaxContexts = 1000
	a := aggregator.New(cfg, describers(1), slog.New(slog.DiscardHandler))
	var lines metric.Lines
	for i := range 10_000 {
		lines.Reset()
		dogstatsd.Packet(fmt.Appendf(nil, "flood:1|c|#request_id:%d", i), false, &lines)
		a.Worker(0).Add(&lines)
	}
	for i := range 10_000 { // one context, spelled in ever new ways
		lines.Reset()
		dogstatsd.Packet(fmt.Appendf(nil, "flood:1|c|#request_id:1|x%d", i), false, &lines)
		a.Worker(0).Add(&lines)
	}
	s := a.Stats()
	checkBooks(t, s)
	if s.Contexts != 1000 || s.Refused[metric.ContextLimit] != 9000 {
		t.Errorf("%d contexts, %d samples refused; want 1000, 9000", s.Contexts, s.Refused[metric.ContextLimit])
	}
	if s.Identities > 2000 || s.Unremembered == 0 {
		t.Errorf("%d identities, %d not remembered", s.Identities, s.Unremembered)
	}
}

// Of two points with one name and time Datadog keeps one: clients must not be able
// to overwrite what the agent says of itself.
func TestOwnNamesAreRefused(t *testing.T) {
	a := aggregator.New(aggregator.DefaultConfig(), describers(1), slog.New(slog.DiscardHandler))
	var lines metric.Lines
	dogstatsd.Packet([]byte("weir.lines:1|c\nweir.lines:2|g|#a:b\nweird:1|c"), false, &lines)
	a.Worker(0).Add(&lines)
	s := a.Stats()
	checkBooks(t, s)
	if s.Refused[metric.ReservedName] != 2 || s.Contexts != 1 {
		t.Errorf("%d samples refused, %d contexts; want 2, 1", s.Refused[metric.ReservedName], s.Contexts)
	}
}

// What the agent says of itself comes out with everything else: totals as rates,
// levels as they are, under its own prefix and with the configured tags.
func TestOwnReadingsBecomeSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := aggregator.DefaultConfig()
		cfg.Namespace = "shop"
		cfg.Tags = []string{"env:prod"}
		cfg.Expiry.ZeroFill = 2 * cfg.FlushInterval
		a := aggregator.New(cfg, describers(1), slog.New(slog.DiscardHandler))
		flushes, total := 0, 0.0
		own := func(dst []metric.Reading) []metric.Reading {
			if flushes++; flushes == 2 || flushes == 3 {
				total += 50
			}
			return append(dst,
				metric.Reading{Name: "test.total", Tags: []string{"reason:x"}, Value: total},
				metric.Reading{Name: "test.level", Value: 7, Level: true})
		}
		ctx, cancel := context.WithCancel(t.Context())
		batches := make(chan *metric.Batch, 1)
		go a.Run(ctx, own, batches)
		const level = "gauge weir.test.level 7 env:prod"
		for i, want := range []string{ // a total is sent from when it first grows, and as zero for a while after
			"[" + level + "]",
			"[rate weir.test.total 5 env:prod reason:x " + level + "]",
			"[rate weir.test.total 5 env:prod reason:x " + level + "]",
			"[rate weir.test.total 0 env:prod reason:x " + level + "]",
			"[rate weir.test.total 0 env:prod reason:x " + level + "]",
			"[" + level + "]",
		} {
			b := <-batches
			var got []string
			for i := range b.Series {
				s := &b.Series[i]
				tags := ""
				for tag := range b.Context(s).Tags() {
					tags += " " + tag
				}
				got = append(got, fmt.Sprint(s.Type, " ", b.Context(s).Name(), " ", s.Value, tags))
			}
			if fmt.Sprint(got) != want {
				t.Errorf("flush %d: got %v, want %s", i+1, got, want)
			}
		}
		cancel()
		<-batches
	})
}
