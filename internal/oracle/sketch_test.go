package oracle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/DataDog/datadog-agent/pkg/util/quantile"
	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/metric"
)

// The sketches are the Agent's, bin by bin, in this domain:
//
//   - The Agent's sketch has no more than 4,096 rows (a key takes a row for each
//     65,535 events), or it has more keys than that but none with more than 65,534
//     events. Beyond, the Agent counts rows where Weir counts keys, collapses
//     earlier, and may leave full rows at keys it has collapsed.
//   - A sample weighs less than 2^62 events, and all of them at most 268 million.
//     The Agent's bins know no bound; Weir's are clipped, its count and sum not.
//   - Sum and average stay finite. The Agent sends infinities; Weir sends nothing.
//   - Rates are in (0, 1], values finite. The Agent takes other rates for 1.
const mostRows = 4096

// agentSketch is what the Agent makes of samples.
func agentSketch(samples []sample) *quantile.Sketch {
	var a quantile.Agent
	for _, s := range samples {
		a.Insert(s.value, s.rate)
	}
	return a.Finish()
}

// inDomain reports whether Weir promises the same keys and counts.
func inDomain(s *quantile.Sketch) bool {
	_, counts := s.Cols()
	return len(counts) < mostRows || len(counts) == mostRows && !slices.Contains(counts, metric.MaxBinCount)
}

// compareSketches sends samples through Weir and the Agent and compares all of the
// sketches. It returns the Agent's rows.
func compareSketches(t *testing.T, r *rand.Rand, samples []sample, readers int) (keys []int32, counts []uint32) {
	t.Helper()
	want := agentSketch(samples)
	if !inDomain(want) {
		t.Fatal("the samples are beyond the domain")
	}
	batch := aggregate(t, linesOf(r, "size", "d", samples), readers, r.IntN)
	if len(batch.Sketches) != 1 || len(batch.Series) != 0 {
		t.Fatalf("%d sketches and %d series, want one sketch", len(batch.Sketches), len(batch.Series))
	}
	got := batch.Sketches[0].Sketch

	keys, counts = want.Cols()
	if diff := cmp.Diff(keys, got.Keys); diff != "" {
		t.Errorf("keys (-agent +weir):\n%s", diff)
	}
	if diff := cmp.Diff(counts, got.Counts); diff != "" {
		t.Errorf("counts (-agent +weir):\n%s", diff)
	}
	if got.Count != want.Basic.Cnt || got.Min != want.Basic.Min || got.Max != want.Basic.Max {
		t.Errorf("count, min, max: got %d %v %v, the agent has %d %v %v", got.Count, got.Min, got.Max,
			want.Basic.Cnt, want.Basic.Min, want.Basic.Max)
	}
	// One reader adds in the order of the Agent. Several add parts of the sum and
	// of the average, which rounds otherwise: relative to what was added, since
	// values of both signs may cancel out.
	var sumTolerance, avgTolerance float64
	if readers > 1 {
		for _, s := range samples {
			sumTolerance += 1e-12 * math.Abs(s.value*s.weight())
			avgTolerance = max(avgTolerance, 1e-12*math.Abs(s.value))
		}
	}
	if !within(got.Sum, want.Basic.Sum, sumTolerance) {
		t.Errorf("sum: got %v, the agent has %v (off by %g, may be off by %g)", got.Sum, want.Basic.Sum, got.Sum-want.Basic.Sum, sumTolerance)
	}
	if !within(got.Avg, want.Basic.Avg, avgTolerance) {
		t.Errorf("avg: got %v, the agent has %v (off by %g, may be off by %g)", got.Avg, want.Basic.Avg, got.Avg-want.Basic.Avg, avgTolerance)
	}
	return keys, counts
}

func TestSketchIsTheAgents(t *testing.T) {
	forEachSeed(t, func(t *testing.T, r *rand.Rand) {
		samples := randomSamples(r, 4000, 1e-6, 1e300)
		if !inDomain(agentSketch(samples)) {
			t.Skip("more than 4,096 rows, some of them full")
		}
		compareSketches(t, r, samples, 1+r.IntN(4))
	})
}

// Values so spread that the lowest keys are collapsed, over and over.
func TestSketchOfManyBinsIsTheAgents(t *testing.T) {
	for _, readers := range []int{1, 3} {
		for _, order := range []string{"ascending", "descending", "random", "weighted"} {
			t.Run(fmt.Sprintf("readers=%d/%s", readers, order), func(t *testing.T) {
				r := rand.New(rand.NewPCG(uint64(readers), 1))
				samples := make([]sample, 20_000)
				for i := range samples {
					key := i*7 - 70_000 // some 9,000 keys of each sign and both ends
					samples[i] = sample{math.Copysign(math.Exp(math.Abs(float64(key))*math.Log(1.015625)/7), float64(key)), 1}
					if order == "weighted" && i%3 == 0 {
						samples[i].rate = 0.3
					}
				}
				switch order {
				case "descending":
					slices.Reverse(samples)
				case "random", "weighted":
					r.Shuffle(len(samples), func(i, j int) { samples[i], samples[j] = samples[j], samples[i] })
				}
				keys, _ := compareSketches(t, r, samples, readers)
				if len(keys) != mostRows {
					t.Errorf("%d rows, want %d: nothing was collapsed", len(keys), mostRows)
				}
			})
		}
	}
}

// More events in one key than a row holds, at the counts where a row fills.
func TestSketchOfFullBinsIsTheAgents(t *testing.T) {
	const full = metric.MaxBinCount
	for _, readers := range []int{1, 2} {
		for _, n := range []int{full - 1, full, full + 1, 2*full - 1, 2 * full, 2*full + 1, 200_000} {
			for _, rate := range []float64{1, 0.5, 0.3} {
				t.Run(fmt.Sprintf("readers=%d/n=%d/rate=%v", readers, n, rate), func(t *testing.T) {
					r := rand.New(rand.NewPCG(uint64(n), 2))
					samples := make([]sample, 0, n+n/50)
					for i := range n {
						samples = append(samples, sample{3, rate})
						if i%50 == 0 {
							samples = append(samples, sample{float64(i % 1000), 1})
						}
					}
					_, counts := compareSketches(t, r, samples, readers)
					if n > full && !slices.Contains(counts, full) {
						t.Errorf("no row is full: %v", counts)
					}
				})
			}
		}
	}
}

// Single samples that stand for very many.
func TestSketchOfHeavySamplesIsTheAgents(t *testing.T) {
	const full = metric.MaxBinCount
	for _, weight := range []float64{1.5, full - 0.5, full, full + 1, 10*full + 7, 4090 * full} {
		t.Run(fmt.Sprint(weight), func(t *testing.T) {
			r := rand.New(rand.NewPCG(3, 3))
			compareSketches(t, r, []sample{{-2, 1 / weight}, {7, 1}, {7, 0.5}}, 1)
		})
	}
}

// Where Weir differs on purpose: what the Agent counts without bound is clipped,
// and what no intake takes is not sent.
func TestSketchBeyondTheAgentsDomain(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	t.Run("clipped", func(t *testing.T) {
		samples := []sample{{5, 1e-9}}
		want := agentSketch(samples)
		got := aggregate(t, linesOf(r, "size", "d", samples), 1, r.IntN).Sketches[0].Sketch
		if got.Count != want.Basic.Cnt || got.Sum != want.Basic.Sum {
			t.Errorf("count %d and sum %v, the agent has %d and %v", got.Count, got.Sum, want.Basic.Cnt, want.Basic.Sum)
		}
		if keys, _ := want.Cols(); len(keys) <= mostRows || len(got.Keys) != mostRows {
			t.Errorf("%d rows, the agent has %d; want %d and more", len(got.Keys), len(keys), mostRows)
		}
	})
	t.Run("infinite", func(t *testing.T) {
		samples := []sample{{1.7e308, 1}, {1.7e308, 1}}
		if want := agentSketch(samples); !math.IsInf(want.Basic.Sum, 1) {
			t.Errorf("the agent's sum is %v, want +Inf", want.Basic.Sum)
		}
		if batch := aggregate(t, linesOf(r, "size", "d", samples), 1, r.IntN); batch.Points() != 0 {
			t.Errorf("%d points, want none", batch.Points())
		}
	})
}
