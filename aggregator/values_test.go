package aggregator

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/metric"
)

// referenceSummary is the Datadog Agent's definition of a histogram's outcome,
// over samples expanded into (value, weight) pairs.
func referenceSummary(values, weights []float64, percents []int) summary {
	order := make([]int, len(values))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case values[a] < values[b]:
			return -1
		case values[a] > values[b]:
			return 1
		}
		return 0
	})
	s := summary{min: values[order[0]], max: values[order[len(order)-1]]}
	for i := range values {
		s.weight += weights[i]
		s.sum += values[i] * weights[i]
	}
	s.avg = s.sum / s.weight
	at := func(target float64) float64 {
		var seen float64
		for _, i := range order {
			seen += weights[i]
			if seen > target {
				return values[i]
			}
		}
		return s.max
	}
	s.median = at((s.weight - 1) / 2)
	for _, p := range percents {
		s.percentiles = append(s.percentiles, at((float64(p)*s.weight-1)/100))
	}
	return s
}

func near(a, b, relative float64) bool {
	return a == b || math.Abs(a-b) <= relative*math.Max(math.Abs(a), math.Abs(b))
}

func compareSummaries(t *testing.T, got, want summary, exact, rank float64) {
	t.Helper()
	if got.min != want.min || got.max != want.max || !near(got.weight, want.weight, 1e-12) {
		t.Errorf("min max weight = %v %v %v, want %v %v %v", got.min, got.max, got.weight, want.min, want.max, want.weight)
	}
	if !near(got.sum, want.sum, exact) || !near(got.avg, want.avg, exact) {
		t.Errorf("sum avg = %v %v, want %v %v", got.sum, got.avg, want.sum, want.avg)
	}
	if !near(got.median, want.median, rank) {
		t.Errorf("median = %v, want %v", got.median, want.median)
	}
	for i := range want.percentiles {
		if !near(got.percentiles[i], want.percentiles[i], rank) {
			t.Errorf("percentile %d = %v, want %v", i, got.percentiles[i], want.percentiles[i])
		}
	}
}

func TestHistogramAgreesWithItsDefinition(t *testing.T) {
	percents := []int{1, 50, 75, 95, 99, 100}
	for seed := range uint64(300) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			n := 1 + random.IntN(200)
			if seed%10 == 0 {
				n = maxKeptSamples + random.IntN(3*maxKeptSamples)
			}
			parts := make([]histogram, 1+random.IntN(3))
			var values, weights []float64
			for range n {
				v := math.Exp(random.NormFloat64() * 3)
				if seed%3 == 0 {
					v = float64(random.IntN(50)) // many equal ones
				}
				weight := 1.0
				if seed%4 != 0 && random.IntN(2) == 0 {
					weight = 1 / []float64{0.3, 0.5, 0.1}[random.IntN(3)]
				}
				values, weights = append(values, v), append(weights, weight)
				parts[random.IntN(len(parts))].add(v, weight)
			}
			pointers := make([]*histogram, len(parts))
			for i := range parts {
				pointers[i] = &parts[i]
			}
			all := united(pointers, (*histogram).empty, (*histogram).merge)
			want := referenceSummary(values, weights, percents)
			kept := all.folded == nil
			if kept != (n <= maxKeptSamples) {
				t.Fatalf("kept = %v with %d samples", kept, n)
			}
			rank := 0.0
			if !kept {
				rank = 0.0079 // half a bin of gamma 1.015625
			}
			compareSummaries(t, all.summarize(percents, nil), want, 1e-9, rank)
		})
	}
}

// A sum that loses every digit without compensation.
func TestHistogramSumIsCompensated(t *testing.T) {
	var h histogram
	for _, v := range []float64{1, 1e100, 1, -1e100} {
		h.add(v, 1)
	}
	if got := h.summarize(nil, nil).sum; got != 2 {
		t.Errorf("sum = %v, want 2", got)
	}
}

func TestPercentOf(t *testing.T) {
	for p, want := range map[float64]int{0.95: 95, 0.29: 29, 0.5: 50, 0.999: 100, 0.01: 1, 1: 100} {
		if got := percentOf(p); got != want {
			t.Errorf("percentOf(%v) = %d, want %d", p, got, want)
		}
	}
}

func sketchOf(values []float64, weight float64) metric.Sketch {
	var d distribution
	for _, v := range values {
		if weight == 1 {
			d.add(v)
		} else {
			d.addWeighted(v, weight, wholeEvents(weight))
		}
	}
	s, _ := d.sketch()
	return s
}

// What the Datadog Agent's own library makes of these was observed.
func TestSketchGolden(t *testing.T) {
	var to100 []float64
	for v := 1; v <= 100; v++ {
		to100 = append(to100, float64(v))
	}
	s := sketchOf(to100, 1)
	if len(s.Keys) != 93 || s.Count != 100 || s.Sum != 5050 || s.Min != 1 || s.Max != 100 || !near(s.Avg, 50.5, 1e-14) {
		t.Errorf("1..100: %d bins, count %d, sum %v, min %v, max %v, avg %v", len(s.Keys), s.Count, s.Sum, s.Min, s.Max, s.Avg)
	}

	s = sketchOf(slices.Repeat([]float64{1}, 70_000), 1)
	if diff := cmp.Diff([]int32{1338, 1338}, s.Keys); diff != "" {
		t.Errorf("70,000 ones: keys (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint32{4465, 65535}, s.Counts); diff != "" {
		t.Errorf("70,000 ones: counts (-want +got):\n%s", diff)
	}

	// Rates are variables: the compiler would divide constants without rounding.
	oneInThree, oneInManyThousands := 0.3, 1e-5
	s = sketchOf([]float64{5}, 1/oneInThree)
	if s.Count != 3 || !near(s.Sum, 16.666666666666668, 1e-15) || s.Avg != 5 || s.Counts[0] != 3 {
		t.Errorf("5 at 0.3: %+v", s)
	}

	s = sketchOf([]float64{1}, 1/oneInManyThousands)
	var inBins uint64
	for _, n := range s.Counts {
		inBins += uint64(n)
	}
	if inBins != 99_999 {
		t.Errorf("1 at 1e-5: bins hold %d, want 99999 (1/1e-5 is a little less than 100,000)", inBins)
	}
}

func TestSketchKeyGolden(t *testing.T) {
	for v, want := range map[float64]int16{
		0: 0, 1e-10: 0, 1e-9: 1, 0.001: 892, 0.5: 1293, 1: 1338, 1.0078125: 1339, 2: 1383, 3.14159: 1412, 5: 1442,
		10: 1487, 100: 1635, 1000: 1784, 1e6: 2229, 1e9: 2675, 1e15: 3566, 1e100: 16189, 1e211: 32674, 1e300: 32767,
		-1: -1338, -100: -1635, math.MaxFloat64: 32767, -math.MaxFloat64: -32767, math.SmallestNonzeroFloat64: 0,
	} {
		if got := metric.SketchKey(v); got != want {
			t.Errorf("SketchKey(%v) = %d, want %d", v, got, want)
		}
	}
	for key := int16(-32766); key < 32767; key++ {
		if v := metric.SketchKeyValue(key); metric.SketchKey(v) != key {
			t.Fatalf("key %d stands for %v, which has key %d", key, v, metric.SketchKey(v))
		}
	}
}

func TestSketchQuantiles(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	var values []float64
	for range 50_000 {
		values = append(values, math.Exp(random.NormFloat64())-0.5)
	}
	s := sketchOf(values, 1)
	slices.Sort(values)
	for _, q := range []float64{0, 0.01, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1} {
		want := values[int(math.RoundToEven(q*float64(len(values)-1)))]
		if got := s.Quantile(q); math.Abs(got-want) > 0.016*math.Abs(want) {
			t.Errorf("quantile %v = %v, want %v within 1.6 %%", q, got, want)
		}
	}
}

// However the samples are spread over readers and however large they are, the
// sketch counts each of them, and has no more bins than the intake is meant to
// get.
func TestSketchCountsEverything(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 4))
		parts := []*distribution{new(distribution), new(distribution)}
		var count int64
		var sum float64
		for range 1 + random.IntN(30_000) {
			v := math.Exp((random.Float64() - 0.5) * 1000)
			if random.IntN(2) == 0 {
				v = -v
			}
			d := parts[random.IntN(2)]
			if random.IntN(4) == 0 {
				weight := 1 + 100*random.Float64()
				d.addWeighted(v, weight, wholeEvents(weight))
				count += int64(weight)
				sum += v * weight
			} else {
				d.add(v)
				count++
				sum += v
			}
		}
		s, clipped := united(parts, (*distribution).empty, (*distribution).merge).sketch()
		var inBins int64
		keys := len(slices.Compact(slices.Clone(s.Keys)))
		for i, n := range s.Counts {
			inBins += int64(n)
			if i > 0 && s.Keys[i] < s.Keys[i-1] {
				t.Fatalf("seed %d: keys are not in order: %v", seed, s.Keys)
			}
			if n == 0 || n > metric.MaxBinCount {
				t.Fatalf("seed %d: a bin holds %d", seed, n)
			}
		}
		if s.Count != count || inBins != count || clipped != 0 {
			t.Errorf("seed %d: count %d, in bins %d, clipped %d, want %d", seed, s.Count, inBins, clipped, count)
		}
		if keys > metric.MaxSketchBins {
			t.Errorf("seed %d: %d keys", seed, keys)
		}
	}
}

// A sample rate may be tiny; the sketch stays small, its count is exact, and what
// the bins have no room for is taken from the lowest.
func TestSketchOfHugeWeightsIsBounded(t *testing.T) {
	var d distribution
	for range 1000 {
		d.addWeighted(1, 1e300, wholeEvents(1e300))
		d.addWeighted(2, 1e300, wholeEvents(1e300))
	}
	s, clipped := d.sketch()
	if len(s.Keys) > metric.MaxSketchBins+1 || clipped == 0 {
		t.Errorf("%d bins, clipped %d", len(s.Keys), clipped)
	}

	d = distribution{}
	d.addWeighted(1, 1e9, wholeEvents(1e9))
	d.addWeighted(2, 1000, wholeEvents(1000))
	s, clipped = d.sketch()
	if s.Count != 1_000_001_000 || clipped != 1_000_001_000-maxSketchCount {
		t.Errorf("count %d, clipped %d", s.Count, clipped)
	}
	high, inBins := uint32(0), uint64(0)
	for i, n := range s.Counts {
		inBins += uint64(n)
		if s.Keys[i] == int32(metric.SketchKey(2)) {
			high += n
		}
	}
	if high != 1000 || inBins != maxSketchCount {
		t.Errorf("%d of 1000 samples left in the highest bin; %d in all, want %d", high, inBins, maxSketchCount)
	}
}

func TestSetCounts(t *testing.T) {
	for _, n := range []int{1, 5, 100, maxSetMembers, maxSetMembers + 1, 50_000, 100_000, 100_000, 100_000} {
		hasher := newHasher()
		parts := []*set{new(set), new(set), new(set)}
		random := rand.New(rand.NewPCG(uint64(n), 5))
		for i := range n {
			member := hasher.bytes([]byte("member" + strconv.Itoa(i)))
			for range 1 + random.IntN(2) { // repeats, on several readers
				parts[random.IntN(len(parts))].add(member)
			}
		}
		got := united(parts, (*set).empty, (*set).merge).size()
		if n <= maxSetMembers && got != float64(n) {
			t.Errorf("%d members are counted as %v", n, got)
		}
		if !near(got, float64(n), 0.03) {
			t.Errorf("%d members are estimated as %v", n, got)
		}
	}
}
