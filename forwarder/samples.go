package forwarder

import (
	"math"

	"github.com/weir-agent/weir/metric"
)

// weighted is a value that n samples have.
type weighted struct {
	value float64
	n     int64
}

// appendSamples appends samples of which a server with the same parameters makes the
// same sketch: the same bins, count, minimum and maximum, and the same sum but for
// rounding. There is one for each bin, and one for each end. Within its bin a value
// is free; all are moved by the same share, less than half a bin, so that the sum
// comes out. What the bins do not count (Sketch.Count beyond 268 million) and what
// was merged into the lowest of 4,096 bins has its place there no more.
func appendSamples(dst []weighted, s *metric.Sketch) []weighted {
	var total int64
	from := len(dst)
	for i, key := range s.Keys {
		n := int64(s.Counts[i])
		total += n
		if i > 0 && key == s.Keys[i-1] {
			dst[len(dst)-1].n += n
			continue
		}
		dst = append(dst, weighted{keyValue(key), n})
	}
	if s.Min == s.Max || total == 1 {
		return append(dst[:from], weighted{s.Min, total})
	}
	bins := dst[from:]
	bins[0].n--
	bins[len(bins)-1].n--
	scale := fit(bins, s)
	kept := dst[:from]
	for _, bin := range bins {
		if bin.n > 0 {
			kept = append(kept, weighted{move(bin.value, scale, s), bin.n})
		}
	}
	return append(kept, weighted{s.Min, 1}, weighted{s.Max, 1})
}

// keyValue is metric.SketchKeyValue for all keys of a sketch.
func keyValue(key int32) float64 {
	if key < 0 {
		return -metric.SketchKeyValue(int16(-key))
	}
	return metric.SketchKeyValue(int16(key))
}

// move moves a value up by a factor, but not beyond the ends of the sketch.
func move(value, scale float64, s *metric.Sketch) float64 {
	if value < 0 {
		scale = 1 / scale
	}
	return max(s.Min, min(value*scale, s.Max))
}

// fit returns the factor, within half a bin, by which the values are to be moved
// for the sum to be the sketch's.
func fit(bins []weighted, s *metric.Sketch) float64 {
	const (
		halfABin = 0.49999 // a bit less, so that no value falls into the next bin
		steps    = 45      // to halve a bin until float64 ends
	)
	gamma := math.Log(metric.SketchKeyValue(1339) / metric.SketchKeyValue(1338))
	low, high := -halfABin, halfABin
	for range steps {
		middle := (low + high) / 2
		scale := math.Exp(middle * gamma)
		sum := s.Min + s.Max
		for _, bin := range bins {
			sum += move(bin.value, scale, s) * float64(bin.n)
		}
		if sum < s.Sum {
			low = middle
		} else {
			high = middle
		}
	}
	return math.Exp((low + high) / 2 * gamma)
}

// rateOf returns a sample rate that stands for n events, 1/n: a server takes the
// whole part of its inverse.
func rateOf(n int64) float64 {
	rate := 1 / float64(n)
	if int64(1/rate) < n {
		rate = math.Nextafter(rate, 0)
	}
	return rate
}
