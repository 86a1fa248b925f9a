package metric

import "math"

// Parameters of the sketch that Datadog's intake expects: a DDSketch with a
// relative accuracy of 1/128, as the Datadog Agent builds it.
//
// A key k > 0 stands for the values around gamma^(k-sketchBias); -k for their
// negatives, 0 for everything closer to zero than sketchMin.
const (
	sketchGamma = 1 + 2.0/128
	sketchBias  = 1338 // 1 - floor(log_gamma(1e-9)), so that 1e-9 has key 1

	// MaxSketchKey is the largest finite key; ±(MaxSketchKey+1) stand for what
	// is too large to tell apart (beyond about 4e211).
	MaxSketchKey = 1<<15 - 2

	// MaxSketchBins is how many bins a sketch keeps; beyond it the lowest ones
	// are collapsed into the next.
	MaxSketchBins = 4096

	// MaxBinCount is how many samples one bin of the wire format may hold; a
	// fuller key takes several bins.
	MaxBinCount = 1<<16 - 1
)

var (
	logGamma  = math.Log1p(2.0 / 128)
	sketchMin = math.Pow(sketchGamma, 1-sketchBias)
)

// SketchKey returns the key of a finite value.
func SketchKey(v float64) int16 {
	if v < 0 {
		return -SketchKey(-v)
	}
	if v < sketchMin {
		return 0
	}
	k := int(math.RoundToEven(math.Log(v)/logGamma)) + sketchBias
	return int16(max(1, min(k, MaxSketchKey+1)))
}

// SketchKeyValue returns the value a key stands for.
func SketchKeyValue(k int16) float64 {
	switch {
	case k < 0:
		return -SketchKeyValue(-k)
	case k == 0:
		return 0
	case k > MaxSketchKey:
		return math.Inf(1)
	}
	return math.Pow(sketchGamma, float64(int(k)-sketchBias))
}

// Sketch is a finished distribution in the form the intake takes it. It is not
// empty.
type Sketch struct {
	Count              int64 // samples, each weighted by the whole part of 1/rate
	Min, Max, Sum, Avg float64
	Keys               []int32  // ascending; a key repeats if its count needs several bins
	Counts             []uint32 // at Keys, each in 1..MaxBinCount
}

// Quantile estimates the value below which a share q of the samples lies, q in
// [0, 1]: by rank, linear within a bin, and never beyond the exact ends.
func (s *Sketch) Quantile(q float64) float64 {
	switch {
	case q <= 0:
		return s.Min
	case q >= 1:
		return s.Max
	}
	var total float64
	for _, n := range s.Counts {
		total += float64(n)
	}
	want := math.RoundToEven(q * (total - 1))
	var seen float64
	for i, n := range s.Counts {
		seen += float64(n)
		if seen <= want {
			continue
		}
		switch key := s.Keys[i]; {
		case key > MaxSketchKey:
			return s.Max
		case key < -MaxSketchKey:
			return s.Min
		}
		share := (seen - want) / float64(n)
		low := SketchKeyValue(int16(s.Keys[i]))
		high := low * sketchGamma
		v := low*share + high*(1-share)
		// Bins know their values to 0.8 %; the ends are known exactly.
		return max(s.Min, min(v, s.Max))
	}
	return s.Max
}
