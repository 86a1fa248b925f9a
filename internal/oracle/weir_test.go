// Package oracle asks the Datadog Agent's own libraries what Weir should have
// made of the same samples, and what a reader of Weir's payloads understands.
//
// It is a module of its own, because these libraries depend on a hundred others.
//
// In: random samples. Out: failures where Weir and the Agent disagree and do not
// mean to. It is no product code.
package oracle

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

var dogstatsd = parser.New(parser.DefaultConfig())

var (
	seeds     = flag.Int("seeds", 60, "how many random streams each test compares")
	firstSeed = flag.Uint64("first-seed", 1, "the seed of the first one")
)

// sample is one value that a client sends, and the share of such values it sends.
type sample struct {
	value float64
	rate  float64 // 1: the line names none
}

// weight is how many events a sample stands for, the fraction included.
func (s sample) weight() float64 { return 1 / s.rate }

// linesOf writes samples as lines of the given kind ("d"). Neighbours with one
// rate share a line now and then.
func linesOf(r *rand.Rand, name, kind string, samples []sample) []string {
	var lines []string
	for len(samples) > 0 {
		packed := 1
		if r.IntN(4) == 0 {
			for packed < len(samples) && packed < 40 && samples[packed].rate == samples[0].rate {
				packed++
			}
		}
		var line strings.Builder
		line.WriteString(name)
		for _, s := range samples[:packed] {
			// All three forms give the same number back.
			form := []byte{'g', 'f', 'e'}[r.IntN(3)]
			line.WriteString(":" + strconv.FormatFloat(s.value, form, -1, 64))
		}
		line.WriteString("|" + kind)
		if samples[0].rate != 1 {
			line.WriteString("|@" + strconv.FormatFloat(samples[0].rate, 'g', -1, 64))
		}
		lines = append(lines, line.String())
		samples = samples[packed:]
	}
	return lines
}

// aggregate sends lines through Weir and returns what one interval made of them.
// Each packet goes to a reader that choose picks out of the given number.
func aggregate(t *testing.T, lines []string, readers int, choose func(readers int) int) *metric.Batch {
	t.Helper()
	cfg := aggregator.DefaultConfig()
	cfg.Hostname = "web-1"
	cfg.Histogram.Aggregates = aggregates
	cfg.Histogram.Percentiles = percentiles
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	var batch *metric.Batch
	synctest.Test(t, func(t *testing.T) { // time stands still: everything falls into one interval
		a := aggregator.New(cfg, slices.Repeat([]aggregator.Describe{dogstatsd.Describe}, readers), slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		batches := make(chan *metric.Batch, 1)
		go a.Run(ctx, nil, batches)
		for len(lines) > 0 {
			n := min(len(lines), 20)
			var parsed metric.Lines
			dogstatsd.Packet([]byte(strings.Join(lines[:n], "\n")), false, &parsed)
			if parsed.ExampleReason != metric.Accepted {
				t.Fatalf("rejected %q: %v", parsed.Example, parsed.ExampleReason)
			}
			a.Worker(choose(readers)).Add(&parsed)
			lines = lines[n:]
		}
		stop()
		batch = <-batches
	})
	return batch
}

// forEachSeed runs one as a subtest for each seed. The random numbers are the
// seed's and the test's.
func forEachSeed(t *testing.T, one func(t *testing.T, r *rand.Rand)) {
	for i := range *seeds {
		seed := *firstSeed + uint64(i)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			one(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

// randomSamples draws up to most samples: of one shape of values or of all
// shapes, with one rate or with many, none below lowestRate.
func randomSamples(r *rand.Rand, most int, lowestRate, largest float64) []sample {
	samples := make([]sample, 1+r.IntN(most))
	value, rate := valueShape(r, largest), rateShape(r, lowestRate)
	mixed := r.IntN(4) == 0
	for i := range samples {
		if mixed && i%16 == 0 {
			value = valueShape(r, largest)
		}
		samples[i] = sample{value(), rate()}
	}
	return samples
}

// valueShape picks a way to draw values, all of them within ±largest.
func valueShape(r *rand.Rand, largest float64) func() float64 {
	signed := func(v float64) float64 {
		if r.IntN(2) == 0 {
			return -v
		}
		return v
	}
	few := []float64{0, signed(r.ExpFloat64()), signed(100 * r.Float64()), 1e-9, 5e-324}
	center := signed(math.Exp(20 * r.NormFloat64()))
	shapes := []func() float64{
		func() float64 { return math.Exp(2 * r.NormFloat64()) },                                  // latencies
		func() float64 { return float64(r.IntN(1000)) },                                          // sizes
		func() float64 { return r.NormFloat64() },                                                // both signs, around zero
		func() float64 { return center },                                                         // always the same
		func() float64 { return center * (1 + 1e-3*r.NormFloat64()) },                            // nearly
		func() float64 { return few[r.IntN(len(few))] },                                          // repeats
		func() float64 { return signed(1e-9 * math.Exp(r.NormFloat64())) },                       // where keys begin
		func() float64 { return signed(math.Exp(-700 * r.Float64())) },                           // towards zero
		func() float64 { return signed(math.Exp(math.Log(largest) * r.Float64())) },              // towards infinity
		func() float64 { return signed(math.Pow(1.015625, float64(r.IntN(28_000)-1400))) },       // on keys
		func() float64 { return signed(math.Pow(1.015625, float64(r.IntN(28_000)-1400)+0.5)) },   // between keys
		func() float64 { return float64(int(100*r.NormFloat64())) / 100 },                        // decimals
		func() float64 { return signed(float64(r.Uint64N(1 << 53))) },                            // 53 bits
		func() float64 { return math.Float64frombits(math.Float64bits(center) + r.Uint64N(64)) }, // neighbours
	}
	shape := shapes[r.IntN(len(shapes))]
	return func() float64 { return max(-largest, min(shape(), largest)) }
}

// rateShape picks a way to draw sample rates.
func rateShape(r *rand.Rand, lowest float64) func() float64 {
	usual := []float64{1, 0.5, 0.1, 0.3, 1.0 / 3, 0.25, 0.01, 0.999999, 1 - 1.0/(1<<53), 0.001, 1e-5}
	one := max(lowest, usual[r.IntN(len(usual))])
	switch r.IntN(4) {
	case 0:
		return func() float64 { return 1 }
	case 1:
		return func() float64 { return one }
	case 2:
		return func() float64 { return max(lowest, usual[r.IntN(len(usual))]) }
	default:
		return func() float64 { return max(lowest, 1-r.Float64()) }
	}
}

// within reports whether got is want but for a rounding error of tolerance.
func within(got, want, tolerance float64) bool {
	return got == want || math.Abs(got-want) <= tolerance
}
