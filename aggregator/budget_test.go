package aggregator

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

// The stages of docs/PERFORMANCE.md that happen here, each beside a floor that touches
// the same memory and does nothing else.

// traffic is samples of n contexts of a kind, in random order, and their refs.
func traffic(b *testing.B, n int, kind string) (w *Worker, samples []metric.Sample, refs []ref) {
	b.Helper()
	w = newForTest(DefaultConfig(), 1).Worker(0)
	random := rand.New(rand.NewPCG(1, 2))
	var lines metric.Lines
	order := random.Perm(n)
	for i := range max(n, 100_000) {
		context := random.IntN(n)
		if i < n {
			context = order[i]
		}
		line := fmt.Appendf(nil, "web.requests.%d:%d|%s|#env:production,region:eu-west-1%c,endpoint:checkout-%04d",
			context%1000, i%900+1, kind, 'a'+context%3, context/1000)
		lines.Reset()
		dogstatsd.Packet(line, false, &lines)
		samples = append(samples, lines.Samples...)
		if i < n {
			w.Add(&lines)
		}
	}
	for i := range samples {
		refs = append(refs, w.identities.lookup(w.aggregator.hasher.identity(samples[i].Name(), samples[i].TailBytes(), 0)))
		if refs[i] == 0 {
			b.Fatal("an identity is unknown")
		}
	}
	return w, samples, refs
}

func perSample(b *testing.B, samples int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(samples), "ns/sample")
}

// BenchmarkIdentify hashes and looks up as addWindow does. The floor reads the same bytes
// and as many entries of a table.
func BenchmarkIdentify(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		// Only for those that run: bench/budget asks for one at a time.
		var w *Worker
		var samples []metric.Sample
		prepare := sync.OnceFunc(func() { w, samples, _ = traffic(b, n, "c") })
		b.Run(fmt.Sprintf("contexts=%d", n), func(b *testing.B) {
			prepare()
			for b.Loop() {
				for rest := samples; len(rest) > 0; {
					part := rest[:min(window, len(rest))]
					for i := range part {
						w.hashes[i], w.checks[i] = w.aggregator.hasher.identity(part[i].Name(), part[i].TailBytes(), 0)
					}
					for i := range part {
						w.refs[i] = w.identities.lookup(w.hashes[i], w.checks[i])
					}
					rest = rest[len(part):]
				}
			}
			perSample(b, len(samples))
		})
		b.Run(fmt.Sprintf("contexts=%d/floor", n), func(b *testing.B) {
			prepare()
			table := make([]identity, n)
			sum := uint64(0)
			for b.Loop() {
				for rest := samples; len(rest) > 0; {
					part := rest[:min(window, len(rest))]
					for i := range part {
						x := uint64(0)
						for _, text := range [2][]byte{part[i].Name(), part[i].TailBytes()} {
							for ; len(text) >= 8; text = text[8:] {
								x ^= binary.LittleEndian.Uint64(text)
							}
						}
						w.hashes[i] = x * 0x9e3779b97f4a7c15
					}
					for i := range part {
						sum += table[(w.hashes[i]>>32)*uint64(n)>>32].hash
					}
					rest = rest[len(part):]
				}
			}
			perSample(b, len(samples))
			sink = float64(sum)
		})
	}
}

var sink float64

// BenchmarkAdd adds samples whose places are known. The floor adds to a plain array.
func BenchmarkAdd(b *testing.B) {
	for _, kind := range []string{"c", "g", "s", "ms", "h", "d"} {
		const n = 10_000
		var w *Worker
		var samples []metric.Sample
		var refs []ref
		prepare := sync.OnceFunc(func() { w, samples, refs = traffic(b, n, kind) })
		b.Run(kind, func(b *testing.B) {
			prepare()
			w.lines = &metric.Lines{}
			for b.Loop() {
				for i, r := range refs {
					w.add(r, &samples[i])
				}
				b.StopTimer()
				w.aggregator.Flush(time.Unix(0, 0)) // histograms keep their samples
				b.StartTimer()
			}
			perSample(b, len(samples))
		})
		if kind != "c" {
			continue
		}
		b.Run("floor", func(b *testing.B) {
			prepare()
			sums := make([]float64, n)
			for b.Loop() {
				for i, r := range refs {
					sums[int(r.index())%n] += samples[i].Value
				}
			}
			perSample(b, len(samples))
			sink = sums[0]
		})
	}
}

// BenchmarkMerge is a flush of counters that two readers share, until there is a Batch.
// The floor goes through both arrays once and writes as many series.
func BenchmarkMerge(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("contexts=%d", n), func(b *testing.B) {
			cfg := DefaultConfig()
			cfg.MaxContexts = 2 * n
			a := newForTest(cfg, 2)
			for i := range n {
				a.sendForTest(0, fmt.Sprintf("web.requests.%d:1|c|#env:production,endpoint:checkout-%04d", i%1000, i/1000))
			}
			for b.Loop() {
				b.StopTimer()
				for _, w := range a.workers {
					for slot := range uint32(n) {
						*w.active.counters.at(slot) = 1
					}
				}
				b.StartTimer()
				if batch := a.Flush(time.Unix(0, 0)); len(batch.Series) < n {
					b.Fatalf("%d series, want %d", len(batch.Series), n)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/context")
		})
		b.Run(fmt.Sprintf("contexts=%d/floor", n), func(b *testing.B) {
			one, two := make([]float64, n), make([]float64, n)
			contexts := make([]metric.ContextRef, n)
			for b.Loop() {
				series := make([]metric.Series, 0, n)
				for i := range one {
					if v := one[i] + two[i]; !math.Signbit(v) {
						series = append(series, metric.Series{Context: contexts[i], Value: v})
					}
					one[i], two[i] = 0, 0
				}
				sink = series[0].Value
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/context")
		})
	}
}
