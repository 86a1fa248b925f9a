package forwarder

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-agent/weir/metric"
)

// fleet is a batch of rates as a large host has them: 200 names, 3 to 5 tags each, of
// which one has a value of its own for every few hundred series.
func fleet(n int) *metric.Batch {
	r := rand.New(rand.NewPCG(7, 7))
	b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "ip-10-12-7-31.eu-west-1.compute.internal"}
	areas := []string{"http.server", "http.client", "grpc.server", "postgres.query", "redis.command", "kafka.consumer", "cache", "queue.worker"}
	facts := []string{"requests", "errors", "bytes.sent", "bytes.received", "retries", "timeouts", "hits", "misses"}
	for i := range n {
		name := fmt.Sprintf("shop.%s.%s", areas[i/8%8], facts[i%8])
		if i%3 == 0 {
			name += []string{".total", ".slow", ".rejected"}[i/64%3]
		}
		tags := []string{
			"env:production", fmt.Sprintf("pod:web-%08x-%05x", i/300*2654435761%(1<<32), r.Uint32N(1<<20)),
			fmt.Sprintf("service:checkout-%d", i/1000%40),
		}
		if i%2 == 0 {
			tags = append(tags, fmt.Sprintf("status:%d", 200+i%5*100))
		}
		if i%4 < 2 {
			tags = append(tags, fmt.Sprintf("zone:eu-west-1%c", 'a'+i%3))
		}
		b.Add(contextOf(metric.Counter, name, metric.Host{}, "", tags...), metric.Series{
			Value: float64(r.IntN(1+r.IntN(10_000))) / 10, Type: metric.Rate,
		})
	}
	return b
}

// latencies is a batch of distributions of 100 bins.
func latencies(n int) *metric.Batch {
	b := fleet(n)
	r := rand.New(rand.NewPCG(8, 8))
	for i := range b.Series {
		s := metric.Sketch{Min: 0.1, Max: 900, Sum: r.Float64() * 1e6, Avg: r.Float64() * 100}
		key := int32(1300 + r.IntN(50))
		for range 100 {
			key += 1 + r.Int32N(3)
			count := 1 + r.Uint32N(1+r.Uint32N(300))
			s.Keys, s.Counts, s.Count = append(s.Keys, key), append(s.Counts, count), s.Count+int64(count)
		}
		b.Sketches = append(b.Sketches, metric.SketchPoint{Context: b.Context(&b.Series[i]), Sketch: s})
	}
	b.Series = nil
	return b
}

// benchmarkPack reports what a point costs, and how large it is on the wire.
func benchmarkPack(b *testing.B, batch *metric.Batch, compression string, asJSON bool) {
	p, err := newPacker(compression, discard())
	if err != nil {
		b.Fatal(err)
	}
	p.seriesAsJSON = asJSON
	bytes, payloads := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		bytes, payloads = 0, 0
		p.pack(batch, func(p payload) { bytes += len(p.body); payloads++ }, func(uint64, DropReason) { b.Fatal("dropped a point") })
	}
	points := float64(batch.Points())
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/points, "ns/point")
	b.ReportMetric(float64(bytes)/points, "B/point")
	b.ReportMetric(float64(payloads), "payloads")
}

// The difference to compression=none is what compressing costs.
func BenchmarkPack(b *testing.B) {
	batch := fleet(1_000_000)
	for _, form := range []string{SeriesProtobuf, SeriesJSON} {
		for _, compression := range []string{CompressNone, CompressZstd, CompressDeflate, CompressGzip} {
			b.Run(form+"/"+compression, func(b *testing.B) { benchmarkPack(b, batch, compression, form == SeriesJSON) })
		}
	}
}

// BenchmarkPackFloor copies the texts of the series that BenchmarkPack encodes;
// compressing has none but what the same encoder takes for text that lies ready.
func BenchmarkPackFloor(b *testing.B) {
	batch := fleet(1_000_000)
	var text []byte
	gather := func() {
		text = text[:0]
		for i := range batch.Series {
			c := batch.Context(&batch.Series[i])
			text = append(text, c.Name()...)
			for tag := range c.Tags() {
				text = append(text, tag...)
			}
		}
	}
	b.Run("encode", func(b *testing.B) {
		gather() // its memory is there from then on, as a packer's is
		for b.Loop() {
			gather()
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch.Points()), "ns/point")
	})
	b.Run("compress", func(b *testing.B) {
		gather()
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		if err != nil {
			b.Fatal(err)
		}
		var out []byte
		for b.Loop() {
			out = e.EncodeAll(text, out[:0])
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch.Points()), "ns/point")
	})
}

func BenchmarkPackSketches(b *testing.B) {
	batch := latencies(20_000)
	for _, compression := range []string{CompressNone, CompressZstd} {
		b.Run(compression, func(b *testing.B) { benchmarkPack(b, batch, compression, false) })
	}
}

// A packer that has packed before allocates for its payloads, and nothing for a point.
func TestPackDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("one goroutine, which the race detector makes allocate")
	}
	for name, batch := range map[string]*metric.Batch{"series": fleet(11_000), "sketches": latencies(1000)} {
		for _, compression := range compressions {
			for _, asJSON := range []bool{false, true} {
				if asJSON && name == "sketches" {
					continue // there is no such form
				}
				p, err := newPacker(compression, discard())
				if err != nil {
					t.Fatal(err)
				}
				p.seriesAsJSON = asJSON
				payloads := 0
				pack := func() {
					payloads = 0
					p.pack(batch, func(payload) { payloads++ }, func(uint64, DropReason) { t.Error("dropped a point") })
				}
				pack()
				// A few for the sections, and for each payload its body and what its
				// compressor takes to begin. What else runs in the process may allocate
				// beside a run, and is not in each.
				got := testing.AllocsPerRun(1, pack)
				most := float64(20 + 4*payloads)
				for runs := 1; got > most && runs < 10; runs++ {
					got = testing.AllocsPerRun(1, pack)
				}
				if got > most {
					t.Errorf("%s, %s, JSON %t: %v allocations for %d payloads, want at most %v", name, compression, asJSON, got, payloads, most)
				}
			}
		}
	}
}

// Payloads are handed on one by one: what the packer holds does not grow with the
// batch.
func TestPackHoldsOnePayload(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	p, err := newPacker(CompressZstd, discard())
	if err != nil {
		t.Fatal(err)
	}
	batch := fleet(100_000)
	held := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, most := held(), uint64(0)
	p.pack(batch, func(payload) { most = max(most, held()) }, func(uint64, DropReason) { t.Error("dropped a point") })
	if got := int64(most - before); got > 8<<20 {
		t.Errorf("packing held %d bytes, want no more than 8 MiB", got)
	} else {
		t.Logf("packing held %d KiB at most", got>>10)
	}
	runtime.KeepAlive(batch)
}
