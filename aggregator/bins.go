package aggregator

import (
	"cmp"
	"math"
	"slices"

	"github.com/weir-agent/weir/metric"
)

// bin is what a sketch knows of all samples with one key: how many there were,
// or how much they weigh.
type bin[W uint32 | float64] struct {
	key    int16
	weight W
}

// addBin adds weight to a key in bins, which are sorted by key.
func addBin[W uint32 | float64](bins []bin[W], key int16, weight W) []bin[W] {
	i, found := slices.BinarySearchFunc(bins, key, func(b bin[W], key int16) int { return cmp.Compare(b.key, key) })
	if found {
		bins[i].weight = addWeights(bins[i].weight, weight)
		return bins
	}
	return trimLeft(slices.Insert(bins, i, bin[W]{key, weight}))
}

// trimLeft keeps the number of bins within the sketch's limit by adding the
// lowest ones to their neighbour above, so that high quantiles stay exact.
func trimLeft[W uint32 | float64](bins []bin[W]) []bin[W] {
	excess := len(bins) - metric.MaxSketchBins
	if excess <= 0 {
		return bins
	}
	for i := range excess {
		bins[excess].weight = addWeights(bins[excess].weight, bins[i].weight)
	}
	return slices.Delete(bins, 0, excess)
}

// addWeights is a+b, for integers at most the largest one.
func addWeights[W uint32 | float64](a, b W) W {
	sum := a + b
	if sum < a && b > 0 { // wrapped
		top := uint32(math.MaxUint32)
		return W(top)
	}
	return sum
}
