package oracle

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/DataDog/datadog-agent/pkg/config/model"
	"github.com/DataDog/datadog-agent/pkg/metrics"

	"github.com/weir-agent/weir/metric"
)

// Everything that can be had of a histogram, in both configurations.
var (
	aggregates  = []string{"max", "min", "median", "avg", "sum", "count"}
	percentiles = []float64{0.01, 0.29, 0.5, 0.75, 0.95, 0.99, 1}
)

// agentSettings is all that a histogram asks of the Agent's configuration.
type agentSettings struct{ model.Config }

func (agentSettings) GetStringSlice(key string) []string {
	switch key {
	case "histogram_aggregates":
		return aggregates
	case "histogram_percentiles":
		var texts []string
		for _, p := range percentiles {
			texts = append(texts, strconv.FormatFloat(p, 'g', -1, 64))
		}
		return texts
	}
	panic("the agent asks for " + key)
}

// agentSeries is what the Agent makes of samples in one interval of ten seconds.
func agentSeries(t *testing.T, kind metrics.MetricType, unit string, samples []metrics.MetricSample) []*metrics.Serie {
	t.Helper()
	all := metrics.MakeContextMetrics()
	for _, s := range samples {
		s.Mtype, s.Unit = kind, unit
		if err := all.AddSample(1, &s, 0, 10, nil, agentSettings{}); err != nil {
			t.Fatal(err)
		}
	}
	series, faults := all.Flush(0)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return series
}

func forAgent(samples []sample) []metrics.MetricSample {
	var all []metrics.MetricSample
	for _, s := range samples {
		all = append(all, metrics.MetricSample{Value: s.value, SampleRate: s.rate})
	}
	return all
}

// typeOf is the Agent's word for a type, in Weir's.
func typeOf(kind metrics.APIMetricType) metric.SeriesType {
	return map[metrics.APIMetricType]metric.SeriesType{
		metrics.APICountType: metric.Count, metrics.APIRateType: metric.Rate, metrics.APIGaugeType: metric.GaugeType,
	}[kind]
}

// compareSeries compares what the two made of one context; equal says whether two
// values of a suffix are the same.
func compareSeries(t *testing.T, b *metric.Batch, want []*metrics.Serie, equal func(suffix string, got, want float64) bool) {
	t.Helper()
	if len(b.Series) != len(want) {
		t.Fatalf("%d series, the agent has %d", len(b.Series), len(want))
	}
	for i, w := range want {
		g := &b.Series[i]
		unit := g.Unit(b.Context(g))
		if g.Suffix.String() != w.NameSuffix || g.Type != typeOf(w.MType) || unit != w.Unit {
			t.Errorf("got %q, %v, in %q; the agent has %q, %v, in %q", g.Suffix.String(), g.Type, unit, w.NameSuffix, w.MType, w.Unit)
		}
		if v := w.Points[0].Value; !equal(g.Suffix.String(), g.Value, v) {
			t.Errorf("%s: got %v, the agent has %v", g.Suffix.String(), g.Value, v)
		}
	}
}

// The aggregates are the Agent's in this domain:
//
//   - Up to 4,096 samples an interval. Beyond, Weir folds them into bins: median
//     and percentiles are then within 0.8 %.
//   - With weights that are not whole, a cumulative weight that equals a rank but
//     for rounding may end up on either side of it; the value is then the sample's
//     on that side.
//   - Weights are small enough that 1 more makes a difference (below 10^15 in all).
//     Beyond, the Agent sends no 100th percentile.
func TestHistogramIsTheAgents(t *testing.T) {
	forEachSeed(t, func(t *testing.T, r *rand.Rand) {
		compareHistograms(t, r, randomSamples(r, 4096, 1e-6, 1e290), 1+r.IntN(3), 0)
	})
}

// Sums of which next to nothing is left are right to the last digit.
func TestHistogramSumsAreTheAgents(t *testing.T) {
	for _, values := range [][]float64{
		{1, 1e100, 1, -1e100},
		{1e16, 1, -1e16, 1, 1e-3},
		{0.1, 0.2, -0.3},
		{-1e-300, 1e300, -1e300},
	} {
		for _, rate := range []float64{1, 0.3} {
			t.Run(fmt.Sprint(values, "@", rate), func(t *testing.T) {
				var samples []sample
				for _, v := range values {
					samples = append(samples, sample{v, rate})
				}
				r := rand.New(rand.NewPCG(7, 7))
				got := aggregate(t, linesOf(r, "query.time", "h", samples), 1, r.IntN)
				want := agentSeries(t, metrics.HistogramType, "", forAgent(samples))
				compareSeries(t, got, want, func(_ string, got, want float64) bool { return got == want })
			})
		}
	}
}

// Beyond 4,096 samples: all but ranks is the same, and these are near.
func TestFoldedHistogramIsNearTheAgents(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			rate := rateShape(r, 0.01)
			samples := make([]sample, 5000+r.IntN(20_000))
			for i := range samples {
				samples[i] = sample{r.NormFloat64() * 100, rate()}
			}
			compareHistograms(t, r, samples, 1+r.IntN(3), 0.008)
		})
	}
}

// compareHistograms compares histograms and timers; ranks may be off by a share of
// the value.
func compareHistograms(t *testing.T, r *rand.Rand, samples []sample, readers int, rankTolerance float64) {
	t.Helper()
	var magnitude, weight float64
	uniform, whole := true, true
	for _, s := range samples {
		magnitude += math.Abs(s.value * s.weight())
		weight += s.weight()
		uniform = uniform && s.rate == samples[0].rate
		whole = whole && s.weight() == math.Trunc(s.weight())
	}
	// Both carry the rounding errors of sums along, so that only those of the
	// products remain, of which there is one if all samples weigh the same.
	products := 1e-15 * magnitude
	if uniform && rankTolerance == 0 {
		products = 1e-27 * magnitude
	}
	for _, kind := range []struct{ letter, unit string }{{"h", ""}, {"ms", metrics.UnitMilliseconds}} {
		want := agentSeries(t, metrics.HistogramType, kind.unit, forAgent(samples))
		batch := aggregate(t, linesOf(r, "query.time", kind.letter, samples), readers, r.IntN)
		compareSeries(t, batch, want, func(suffix string, got, want float64) bool {
			switch suffix {
			case ".max", ".min":
				return got == want
			case ".count":
				return within(got, want, 1e-12*want)
			case ".sum":
				return within(got, want, 1e-9*math.Abs(want)+products)
			case ".avg":
				return within(got, want, 1e-9*math.Abs(want)+products/weight)
			}
			return within(got, want, rankTolerance*math.Abs(want)) || rankTolerance == 0 && !whole && onEdge(samples, weight, got, want)
		})
	}
}

// onEdge reports whether no sample lies between two values, and the weight up to
// the lower one is the rank of a median or percentile but for rounding.
func onEdge(samples []sample, weight, a, b float64) bool {
	low, high := min(a, b), max(a, b)
	var below float64
	for _, s := range samples {
		if s.value > low && s.value < high {
			return false
		}
		if s.value <= low {
			below += s.weight()
		}
	}
	ranks := []float64{(weight - 1) / 2}
	for _, p := range percentiles {
		ranks = append(ranks, (100*p*weight-1)/100)
	}
	return slices.ContainsFunc(ranks, func(rank float64) bool { return within(below, rank, 1e-11*weight) })
}

// Where Weir differs on purpose: the Agent looks for a weight above all of the
// weight there is, less 0.01, and does not find it where that is the same number.
func TestHistogramBeyondTheAgentsDomain(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	samples := []sample{{5, 1e-17}}
	got := aggregate(t, linesOf(r, "query.time", "h", samples), 1, r.IntN)
	want := agentSeries(t, metrics.HistogramType, "", forAgent(samples))
	if len(want) != len(got.Series)-1 {
		t.Fatalf("%d series, the agent has %d; want one more", len(got.Series), len(want))
	}
	last := got.Series[len(want)]
	got.Series = got.Series[:len(want)]
	compareSeries(t, got, want, func(_ string, got, want float64) bool { return got == want })
	if last.Suffix != metric.PercentileSuffix(100) || last.Value != 5 {
		t.Errorf("the last series is %s = %v, want .100percentile = 5", last.Suffix, last.Value)
	}
}

func TestCounterAndGaugeAreTheAgents(t *testing.T) {
	forEachSeed(t, func(t *testing.T, r *rand.Rand) {
		samples := randomSamples(r, 2000, 1e-6, 1e290)
		exactly := func(_ string, got, want float64) bool { return got == want }
		batch := aggregate(t, linesOf(r, "page.views", "c", samples), 1, r.IntN)
		compareSeries(t, batch, agentSeries(t, metrics.CounterType, "", forAgent(samples)), exactly)
		batch = aggregate(t, linesOf(r, "load", "g", samples), 1, r.IntN)
		compareSeries(t, batch, agentSeries(t, metrics.GaugeType, "", forAgent(samples)), exactly)
	})
}

// Up to 4,096 members; beyond, Weir estimates.
func TestSetIsTheAgents(t *testing.T) {
	forEachSeed(t, func(t *testing.T, r *rand.Rand) {
		var lines []string
		var samples []metrics.MetricSample
		pool := 1 + r.IntN(4096)
		for range 1 + r.IntN(5000) {
			member := strconv.Itoa(r.IntN(pool)) + []string{"", ":", ":a", "é", " "}[r.IntN(5)]
			if r.IntN(4) > 0 {
				member = strconv.Itoa(r.IntN(pool))
			}
			lines = append(lines, "users:"+member+"|s")
			samples = append(samples, metrics.MetricSample{RawValue: member, SampleRate: 1})
		}
		want := agentSeries(t, metrics.SetType, "", samples)
		if want[0].Points[0].Value > 4096 {
			t.Skip("more than 4,096 members")
		}
		batch := aggregate(t, lines, 1+r.IntN(3), r.IntN)
		compareSeries(t, batch, want, func(_ string, got, want float64) bool { return got == want })
	})
}
