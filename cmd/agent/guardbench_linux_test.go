package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// attack is packets of counters with a tag whose value can be made new everywhere.
type attack struct {
	packets [][]byte
	ids     [][]byte // in the packets: 16 hexadecimal digits
	next    uint64
}

// newAttack returns lines counters of 10 metrics with so many tags.
func newAttack(lines, tags int) *attack {
	const datagram, id = 1432, "0000000000000000"
	a := &attack{}
	var packet []byte
	var at []int
	end := func() {
		for _, i := range at {
			a.ids = append(a.ids, packet[i:i+len(id)])
		}
		a.packets = append(a.packets, packet)
		packet, at = nil, nil
	}
	for i := range lines {
		line := fmt.Appendf(nil, "web.requests.%d:%d|c|#env:prod", i%10, i%9+1)
		for tag := 2; tag < tags; tag++ {
			line = fmt.Appendf(line, ",tag%d:%d", tag, i%100/10)
		}
		line = append(line, ",request_id:4d2c-"...)
		place := len(packet) + len(line)
		line = append(line, id+"-8f3a\n"...)
		if len(packet)+len(line) > datagram {
			end()
			place = len(line) - len(id) - len("-8f3a\n")
		}
		at = append(at, place)
		packet = append(packet, line...)
	}
	end()
	a.renew()
	return a
}

// renew gives every line an id that none had before.
func (a *attack) renew() {
	const digits = "0123456789abcdef"
	for _, id := range a.ids {
		a.next++
		n := a.next * 0x9e3779b97f4a7c15
		for i := range id {
			id[i] = digits[n>>(4*i)&15]
		}
	}
}

// BenchmarkAttack compares lines that were all seen before with lines of which every
// one has a tag value that is new.
func BenchmarkAttack(b *testing.B) {
	const lines = 10_000
	for _, tags := range []int{3, 8} {
		for _, fresh := range []bool{false, true} {
			name := "known"
			if fresh {
				name = "new"
			}
			b.Run(fmt.Sprintf("tags=%d/%s", tags, name), func(b *testing.B) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				a := newAttack(lines, tags)
				p := parser.New(parser.DefaultConfig())
				log := slog.New(slog.DiscardHandler)
				cfg := config.Default()
				agg := newAggregator(cfg, []aggregator.Describe{p.Describe}, cardinality.New(cfg.Cardinality, log), log)
				in := intake{parser: p, worker: agg.Worker(0)}
				run := func() {
					for _, packet := range a.packets {
						in.packet(packet, false, "")
					}
					in.end()
				}
				for range 20 { // until each metric is folded
					run()
					if fresh {
						a.renew()
					}
				}
				for range 3 { // and what it had is forgotten
					flushOnce(agg)
				}
				made := agg.Stats().Created
				var used time.Duration
				for b.Loop() {
					before := threadTime()
					run()
					used += threadTime() - before
					if fresh {
						a.renew()
					}
				}
				if n := agg.Stats().Created - made; n > 0 {
					b.Fatalf("%d contexts were made by folded metrics", n)
				}
				b.ReportMetric(0, "ns/op") // with the time it takes to make the lines
				b.ReportMetric(float64(used.Nanoseconds())/float64(b.N)/lines, "cpu-ns/line")
			})
		}
	}
}

func init() { readerTime = threadTime }

// threadTime returns the CPU time of the thread, which others on the machine do not
// change as they do the clock's.
func threadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil { // what getrusage says may be a tick old
		panic(err)
	}
	return time.Duration(now.Nano())
}

// flushOnce ends the interval of an aggregator that does not run.
func flushOnce(a *aggregator.Aggregator) *metric.Batch {
	stopped, stop := context.WithCancel(context.Background())
	stop()
	batches := make(chan *metric.Batch, 1)
	a.Run(stopped, nil, batches)
	return <-batches
}
