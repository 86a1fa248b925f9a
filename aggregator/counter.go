package aggregator

import "math"

// untouched is what a counter holds before its first sample. It is -0: adding
// it changes nothing, and no sum of samples is -0, since no sample is. That
// spares the hot path a flag for each counter.
var untouched = math.Copysign(0, -1)

func isUntouched(sum float64) bool {
	return math.Float64bits(sum) == 1<<63
}
