package aggregator

import (
	"cmp"
	"math"
	"slices"

	"github.com/weir-agent/weir/metric"
)

// maxKeptSamples is how many samples of a histogram or timer are kept as they
// are in one interval. Beyond it they are folded into bins: from then on median
// and percentiles are within 0.8 % (as long as values are between 1e-9 and 1e211
// and no more than 4,096 bins apart), the other aggregates exact.
const maxKeptSamples = 4096

// histogram is what one reader saw of a histogram or timer in one interval.
type histogram struct {
	values  []float64
	weights []float64 // parallel to values; nil while all of them weigh 1
	folded  *foldedSamples
	unseen  float64 // of a classic timer: how many more events the sample rates stand for
}

// foldedSamples is what is left of samples that were too many to keep.
type foldedSamples struct {
	bins     []bin[float64] // sorted by key
	weight   float64
	sum      compensatedSum
	min, max float64
}

func (h *histogram) empty() bool { return len(h.values) == 0 && h.folded == nil }

// add keeps one sample that stands for weight events.
func (h *histogram) add(v, weight float64) {
	if len(h.values) == maxKeptSamples {
		h.fold()
	}
	if weight != 1 && h.weights == nil {
		h.weights = make([]float64, 0, cap(h.values)+1)
		for range h.values {
			h.weights = append(h.weights, 1)
		}
	}
	h.values = append(h.values, v)
	if h.weights != nil {
		h.weights = append(h.weights, weight)
	}
}

// fold moves the kept samples into bins.
func (h *histogram) fold() {
	if h.folded == nil {
		h.folded = &foldedSamples{min: math.Inf(1), max: math.Inf(-1)}
	}
	f := h.folded
	for i, v := range h.values {
		weight := 1.0
		if h.weights != nil {
			weight = h.weights[i]
		}
		f.bins = addBin(f.bins, metric.SketchKey(v), weight)
		f.weight += weight
		f.sum.add(v * weight)
		f.min, f.max = min(f.min, v), max(f.max, v)
	}
	h.values, h.weights = h.values[:0], nil
}

// merge adds other's samples to h. It may fold either.
func (h *histogram) merge(other *histogram) {
	h.unseen += other.unseen
	if h.folded == nil && other.folded == nil {
		for i, v := range other.values {
			weight := 1.0
			if other.weights != nil {
				weight = other.weights[i]
			}
			h.add(v, weight)
		}
		return
	}
	h.fold()
	other.fold()
	f, o := h.folded, other.folded
	for _, b := range o.bins {
		f.bins = addBin(f.bins, b.key, b.weight)
	}
	f.weight += o.weight
	f.sum.add(o.sum.value())
	f.min, f.max = min(f.min, o.min), max(f.max, o.max)
}

// reset empties h for the next interval and keeps memory that the interval used
// well.
func (h *histogram) reset() {
	values := h.values[:0]
	if cap(values) > 64 && 8*len(h.values) < cap(values) {
		values = nil
	}
	*h = histogram{values: values}
}

// release gives memory back after an interval without a sample.
func (h *histogram) release(all bool) {
	if all || cap(h.values) > keptIdle {
		*h = histogram{}
	}
}

// summary is the outcome of a histogram.
type summary struct {
	min, max, median, avg, sum float64
	weight                     float64   // how many events
	percentiles                []float64 // in the order asked for
}

// summarize computes what the Datadog Agent would, for the given percentiles
// (in percent, ascending), and appends those to into. h is left sorted or
// folded, and is not empty.
func (h *histogram) summarize(percents []int, into []float64) summary {
	if h.folded != nil {
		h.fold()
		return h.folded.summarize(percents, into)
	}
	h.sort()
	n := len(h.values)
	s := summary{min: h.values[0], max: h.values[n-1], percentiles: into}

	// With one weight for all, as one call site in a program sends, the values
	// are summed first: n products would each be rounded.
	var sum compensatedSum
	if h.uniform() {
		for _, v := range h.values {
			sum.add(v)
		}
		s.sum = sum.value() * h.weightOf(0)
	} else {
		for i, v := range h.values {
			sum.add(v * h.weights[i])
		}
		s.sum = sum.value()
	}
	for i := range h.values {
		s.weight += h.weightOf(i)
	}
	s.avg = s.sum / s.weight

	s.rank(n, percents, h.weightOf, func(i int) float64 { return h.values[i] })
	return s
}

// summarizeClassic is summarize with the definitions of Etsy's statsd: the median
// is the mean of the two in the middle, a percentile the greatest of so many of the
// lowest, and a sample rate changes only how many events there were. Samples that
// rules drew at several rates are weighted as ever.
func (h *histogram) summarizeClassic(percents []int, into []float64) summary {
	s := h.summarize(percents, into)
	s.weight += h.unseen
	if h.folded != nil || !h.uniform() {
		return s // these are estimates anyhow
	}
	n := len(h.values)
	s.median = h.values[n/2]
	if n%2 == 0 {
		s.median = (h.values[n/2-1] + h.values[n/2]) / 2
	}
	for i, percent := range percents {
		// Halves are rounded up, as JavaScript does. The conversion keeps compilers from
		// fusing product and sum, which would round only once.
		share := int(math.Floor(float64(float64(percent)/100*float64(n)) + 0.5))
		s.percentiles[i] = h.values[max(1, min(share, n))-1]
	}
	return s
}

// rank fills in the median and the percentiles from n values in ascending order.
func (s *summary) rank(n int, percents []int, weightOf, valueOf func(i int) float64) {
	i, seen := 0, weightOf(0)
	valueAt := func(target float64) float64 { // the first with more than target at or below it
		for seen <= target && i < n-1 {
			i++
			seen += weightOf(i)
		}
		return valueOf(i)
	}
	s.median = valueAt((s.weight - 1) / 2)
	i, seen = 0, weightOf(0)
	for _, percent := range percents {
		s.percentiles = append(s.percentiles, valueAt((float64(percent)*s.weight-1)/100))
	}
}

func (h *histogram) weightOf(i int) float64 {
	if h.weights == nil {
		return 1
	}
	return h.weights[i]
}

func (h *histogram) uniform() bool {
	for _, w := range h.weights {
		if w != h.weights[0] {
			return false
		}
	}
	return true
}

func (h *histogram) sort() {
	if h.weights == nil || h.uniform() {
		slices.Sort(h.values)
		return
	}
	type pair struct{ value, weight float64 }
	pairs := make([]pair, len(h.values))
	for i := range pairs {
		pairs[i] = pair{h.values[i], h.weights[i]}
	}
	slices.SortStableFunc(pairs, func(a, b pair) int { return cmp.Compare(a.value, b.value) })
	for i, p := range pairs {
		h.values[i], h.weights[i] = p.value, p.weight
	}
}

func (f *foldedSamples) summarize(percents []int, into []float64) summary {
	s := summary{min: f.min, max: f.max, sum: f.sum.value(), weight: f.weight, percentiles: into}
	s.avg = s.sum / s.weight
	s.rank(len(f.bins), percents,
		func(i int) float64 { return f.bins[i].weight },
		func(i int) float64 { return max(f.min, min(metric.SketchKeyValue(f.bins[i].key), f.max)) })
	return s
}

// compensatedSum adds floats with the rounding errors carried along (Neumaier,
// "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen",
// 1974).
type compensatedSum struct{ sum, lost float64 }

func (c *compensatedSum) add(v float64) {
	t := c.sum + v
	if math.Abs(c.sum) >= math.Abs(v) {
		c.lost += (c.sum - t) + v
	} else {
		c.lost += (v - t) + c.sum
	}
	c.sum = t
}

func (c *compensatedSum) value() float64 { return c.sum + c.lost }

// percentOf turns a percentile as configured (0.95) into whole percent, as the
// Datadog Agent does: names of metrics are made of it.
func percentOf(percentile float64) int { return int(percentile*100 + 0.5) }
