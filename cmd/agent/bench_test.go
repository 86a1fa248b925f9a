package main

import (
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/parser"
	"github.com/weir-agent/weir/rules"
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

// mixedPackets returns what bench/load sends with -kinds mix -contexts 10000: datagrams of
// up to 1,432 bytes of lines with three tags, each context once and then at random, 60 %
// counters, 20 % gauges, 5 % each of timers, histograms, distributions and sets.
func mixedPackets() (packets [][]byte, lines int) {
	const datagram, contexts, names, all = 1432, 10_000, 1000, 100_000
	random := rand.New(rand.NewPCG(1, 1))
	first := random.Perm(contexts)
	var packet []byte
	for ; lines < all; lines++ {
		context := random.IntN(contexts)
		if lines < contexts {
			context = first[lines]
		}
		name, member := context%names, context/names
		var line []byte
		switch share := name * 37 % 100; {
		case share < 60:
			line = fmt.Appendf(nil, "load.requests.%d:%d|c", name, 1+random.Uint64N(9))
		case share >= 95:
			line = fmt.Appendf(nil, "load.users.%d:user-%d|s", name, random.IntN(10_000))
		default:
			kind := [][2]string{{"connections", "g"}, {"connections", "g"}, {"connections", "g"}, {"connections", "g"}, {"latency", "ms"}, {"size", "h"}, {"duration", "d"}}[(share-60)/5]
			line = fmt.Appendf(nil, "load.%s.%d:%d.%d|%s", kind[0], name, random.IntN(1000), random.IntN(10), kind[1])
		}
		line = fmt.Appendf(line, "|#env:production,region:eu-west-1%c,endpoint:checkout-%04d", 'a'+member%3, member)
		if len(packet)+1+len(line) > datagram {
			packets, packet = append(packets, packet), nil
		}
		if len(packet) > 0 {
			packet = append(packet, '\n')
		}
		packet = append(packet, line...)
	}
	return append(packets, packet), lines
}

// BenchmarkMix is what a sample of a mix of kinds costs from a packet that the kernel has
// just written to the point, flushes included: by how many samples a context has in an
// interval, which for timers are kept (4,000 are 4 million a second for 10 s).
func BenchmarkMix(b *testing.B) {
	for _, samples := range []int{100, 4000} {
		b.Run(fmt.Sprintf("samples=%d", samples), func(b *testing.B) {
			datagrams, lines := mixedPackets()
			dogstatsd := parser.New(parser.DefaultConfig())
			a := aggregator.New(aggregator.DefaultConfig(), []aggregator.Describe{dogstatsd.Describe}, slog.New(slog.DiscardHandler))
			in := intake{parser: dogstatsd, worker: a.Worker(0)}
			const atOnce, stride = 64, 8<<10 + 64 // as a reader's memory
			memory := make([]byte, atOnce*stride)
			passes := 0
			run := func() {
				for batch := range slices.Chunk(datagrams, atOnce) {
					for i, packet := range batch {
						copy(memory[i*stride:], packet)
					}
					for i, packet := range batch {
						in.packet(memory[i*stride:][:len(packet):len(packet)], false, "")
					}
					in.end()
				}
				if passes++; passes%(samples/10) == 0 {
					a.Flush(time.Unix(0, 0))
				}
			}
			for range 2 * samples / 10 { // both columns have grown from here on
				run()
			}
			b.ResetTimer()
			for b.Loop() {
				run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(lines), "ns/sample")
		})
	}
}

// manyRules returns so many rules, none of which concerns the lines of packets, but the
// last: globs and regular expressions, with and without a literal beginning.
func manyRules(n int) (list []rules.Rule) {
	for i := range n - 1 {
		match := fmt.Sprintf([]string{"app%d.*.time", "db%d.query", "web.requests.x%d*", "regex:jobs%d\\.(\\w+)\\.time", "*.debug%d"}[i%5], i)
		list = append(list, rules.Rule{Match: match, DropTags: []string{"id"}, AddTags: []string{"rule:" + strconv.Itoa(i)}})
	}
	return append(list, rules.Rule{Match: "web.*", DropTags: []string{"request_id"}})
}

// BenchmarkRules is what rules cost: a known sample the same with a thousand as with
// none, a new one what it takes to find those that concern it.
func BenchmarkRules(b *testing.B) {
	for _, count := range []int{0, 1, 1000} {
		cfg := config.Default()
		if count > 0 {
			cfg.Rules.Rules = manyRules(count)
		}
		if err := cfg.Rules.Validate(); err != nil {
			b.Fatal(err)
		}
		dogstatsd := parser.New(cfg.Parser)
		newIntake := func() *intake {
			guard := cardinality.New(cfg.Cardinality, slog.New(slog.DiscardHandler))
			a := newAggregator(cfg, []aggregator.Describe{dogstatsd.Describe}, guard, slog.New(slog.DiscardHandler))
			return &intake{parser: dogstatsd, worker: a.Worker(0)}
		}
		run := func(in *intake, datagrams [][]byte) {
			for i, packet := range datagrams {
				in.packet(packet, false, "")
				if i%64 == 63 {
					in.end()
				}
			}
			in.end()
		}
		b.Run(fmt.Sprintf("known/rules=%d", count), func(b *testing.B) {
			datagrams, lines := packets(10_000, 3)
			in := newIntake()
			run(in, datagrams)
			b.ReportAllocs()
			for b.Loop() {
				run(in, datagrams)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(lines), "ns/sample")
		})
		for _, tags := range []int{3, 8} {
			b.Run(fmt.Sprintf("new/tags=%d/rules=%d", tags, count), func(b *testing.B) {
				const lines = 100_000
				var datagrams [][]byte
				var packet []byte
				for i := range lines {
					packet = fmt.Appendf(packet, "web.requests.%d:1|c|#env:prod,request_id:%d", i%100, i)
					for tag := 2; tag < tags; tag++ {
						packet = fmt.Appendf(packet, ",tag%d:%d", tag, i%7)
					}
					if packet = append(packet, '\n'); len(packet) > 1300 {
						datagrams, packet = append(datagrams, packet), nil
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					b.StopTimer()
					in := newIntake()
					b.StartTimer()
					run(in, datagrams)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/lines, "ns/sample")
			})
		}
	}
}

// hostileLines kill or fool other agents, or try to be expensive.
func hostileLines() map[string]string {
	long := func(piece string, n int) string { return strings.Repeat(piece, n/len(piece)) }
	const most = 60_000 // of a datagram
	return map[string]string{
		"no_value":          "a:|g",
		"infinite_rate":     "a:1|c|@Infinity",
		"tiny_rate":         "a:1|ms|@0.000001",
		"prototype":         "__proto__:1|ms",
		"huge_lengths":      "_e{99999999999999999999,1}:a|b",
		"one_line":          long("x", most),
		"many_tags":         "a:1|c|#" + long("t5:v5,", most),
		"many_values":       "a:1" + long(":1", most) + "|c",
		"many_timers":       "a:1" + long(":7", most) + "|ms",
		"many_bad_values":   "a:1" + long(":1", most) + ":x|c",
		"many_fields":       "a:1|c" + long("|x", most),
		"many_rates":        "a:1|c" + long("|@0.5", most),
		"many_metrics":      "a:1|c" + long(":1|c", most),
		"metrics_and_tags":  "a" + long(":1|c", 500) + "|#" + long("t5:v5,", 7000) + "|T1700000000",
		"metrics_and_rates": "a" + long(":1|c|@0.5", 500) + "|#" + long("t5:v5,", 7000),
		"long_name_twice":   long("n", most/2) + ":1|c:1|c:1|c|#" + long("t", most/2),
		"nuls":              long("\x00", most),
		"not_utf8":          "\xff\xfe:1|c|#\xc3\x28",
		"many_events":       long("_e{1,1}:a|b\n", most),
		"events_that_fail":  long("_e{9,99999}:a|b\n", most),
		"long_event_tags":   "_e{1,1}:a|b|#" + long("t,", most),
		"many_checks":       long("_sc|a|0\n", most),
		"new_contexts":      long("a%d:1|c\n", most/2), // the benchmark numbers them
		"times":             long("a:1|c|T1700000000\n", most),
		"empty_lines":       long("\n", most),
		"colons":            long(":", most),
		"pipes":             long("|", most),
	}
}

// BenchmarkHostile is what lines that try to be expensive cost a byte, in both
// dialects; "normal" is a packet like any other.
func BenchmarkHostile(b *testing.B) {
	lines := hostileLines()
	normal, _ := packets(1000, 3)
	lines["normal"] = string(normal[0])
	for _, name := range slices.Sorted(maps.Keys(lines)) {
		for _, dialect := range []string{parser.DialectDogStatsD, parser.DialectStatsD} {
			b.Run(name+"/"+dialect, func(b *testing.B) {
				p := parser.New(parser.Config{Dialect: dialect, TagStyle: parser.TagsDogStatsD})
				cfg := aggregator.DefaultConfig()
				a := aggregator.New(cfg, []aggregator.Describe{p.Describe}, slog.New(slog.DiscardHandler))
				in := intake{parser: p, worker: a.Worker(0)}
				packet := []byte(lines[name])
				n := 0
				for b.Loop() {
					if name == "new_contexts" {
						b.StopTimer()
						n++
						packet = []byte(strings.ReplaceAll(lines[name], "%d", strconv.Itoa(n)))
						b.StartTimer()
					}
					in.packet(packet, false, "")
					in.end()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(packet)), "ns/byte")
			})
		}
	}
}
