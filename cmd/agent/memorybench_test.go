package main

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/parser"
)

// BenchmarkMemory is what a counter's context with three tags takes of the heap: live
// after a flush and a collection, its objects, and what a batch takes besides.
func BenchmarkMemory(b *testing.B) {
	const contexts = 1_000_000
	for b.Loop() {
		var before, live, batch runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		cfg := aggregator.DefaultConfig()
		cfg.MaxContexts = 2 * contexts
		limits := cardinality.DefaultConfig()
		limits.MaxContexts = 2 * contexts
		dogstatsd := parser.New(parser.DefaultConfig())
		a := aggregator.New(cfg, []aggregator.Describe{dogstatsd.Describe}, slog.New(slog.DiscardHandler))
		a.SetGuard(cardinality.New(limits, slog.New(slog.DiscardHandler)))
		in := intake{parser: dogstatsd, worker: a.Worker(0)}
		line := make([]byte, 0, 200)
		send := func() {
			for i := range contexts {
				line = fmt.Appendf(line[:0], "load.requests.%d:%d|c|#env:production,region:eu-west-1%c,endpoint:checkout-%04d", i%1000, 1+i%9, 'a'+i/1000%3, i/1000)
				in.packet(line, false, "")
				in.end()
			}
		}
		start := time.Now().Truncate(cfg.FlushInterval)
		send()
		a.Flush(start)
		send() // the other columns
		began := time.Now()
		made := a.Flush(start.Add(cfg.FlushInterval))
		took := time.Since(began)
		runtime.GC()
		runtime.ReadMemStats(&batch)
		if made.Points() != contexts {
			b.Fatalf("%d points of %d contexts", made.Points(), contexts)
		}
		made = nil
		runtime.GC()
		runtime.ReadMemStats(&live)
		per := func(of, less uint64) float64 { return float64(of-less) / contexts }
		b.ReportMetric(per(live.HeapAlloc, before.HeapAlloc), "B/context")
		b.ReportMetric(per(live.HeapObjects, before.HeapObjects), "objects/context")
		b.ReportMetric(per(batch.HeapAlloc, live.HeapAlloc), "B/point")
		b.ReportMetric(float64(took.Milliseconds()), "flush-ms")
		runtime.KeepAlive(a)
	}
}
