package main

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/parser"
)

// packets returns datagrams of up to 1,432 bytes, filled with counters of tags
// tags, in which contexts contexts appear in random order, and the number of
// lines in all of them.
func packets(contexts, tags int) (packets [][]byte, lines int) {
	const datagram, bytesInAll = 1432, 64 << 20
	random := rand.New(rand.NewPCG(1, 2))
	var packet []byte
	for size := 0; size < bytesInAll && lines < 2*contexts+100_000; lines++ {
		i := random.IntN(contexts)
		line := fmt.Appendf(nil, "web.requests.%d:%d|c", i, i%9+1)
		if tags > 0 {
			line = fmt.Appendf(nil, "web.requests.%d:%d|c|#env:prod", i%100, i%9+1)
			for tag := 1; tag < tags; tag++ {
				line = fmt.Appendf(line, ",tag%d:%d", tag, i/100)
			}
		}
		line = append(line, '\n')
		if len(packet)+len(line) > datagram {
			packets = append(packets, packet)
			size += len(packet)
			packet = nil
		}
		packet = append(packet, line...)
	}
	return append(packets, packet), lines
}

// BenchmarkSample is what one sample costs from the packet to its column: parse,
// hash, look up, add.
func BenchmarkSample(b *testing.B) {
	for _, tags := range []int{0, 3, 8} {
		for _, contexts := range []int{10, 10_000, 1_000_000} {
			b.Run(fmt.Sprintf("tags=%d/contexts=%d", tags, contexts), func(b *testing.B) {
				datagrams, lines := packets(contexts, tags)
				cfg := aggregator.DefaultConfig()
				dogstatsd := parser.New(parser.DefaultConfig())
				a := aggregator.New(cfg, []aggregator.Describe{dogstatsd.Describe}, slog.New(slog.DiscardHandler))
				in := intake{parser: dogstatsd, worker: a.Worker(0)}
				run := func() {
					for i, packet := range datagrams {
						in.packet(packet, false, "")
						if i%64 == 63 {
							in.end()
						}
					}
					in.end()
				}
				run() // all contexts are known from here on
				b.ReportAllocs()
				b.ResetTimer()
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(lines), "ns/sample")
			})
		}
	}
}
