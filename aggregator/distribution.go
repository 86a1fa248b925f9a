package aggregator

import (
	"math"
	"slices"

	"github.com/weir-agent/weir/metric"
)

// maxBufferedKeys is how many samples a distribution holds as keys before it
// counts them in bins.
const maxBufferedKeys = 512

// maxSketchCount bounds what one sample may weigh in the bins of a sketch, and
// all samples of one: it is what fits into full bins of the wire format. (The
// Datadog Agent has no such bound and allocates a bin for each 65,535 that a
// sample weighs.) The count and the sum know no bound.
const maxSketchCount = metric.MaxSketchBins * metric.MaxBinCount

// distribution is a sketch under construction.
type distribution struct {
	count              int64
	min, max, sum, avg float64
	clipped            uint64        // events that the bins do not count
	keys               []int16       // samples of weight 1 that bins do not count yet
	bins               []bin[uint32] // sorted by key
}

func (d *distribution) empty() bool { return d.count == 0 }

// add counts one sample that was not sampled.
func (d *distribution) add(v float64) {
	d.summarize(v, v, 1)
	if len(d.keys) == maxBufferedKeys {
		d.compact()
	}
	d.keys = append(d.keys, metric.SketchKey(v))
}

// wholeEvents returns the whole part of a number of events.
func wholeEvents(n float64) int64 {
	const most = 1 << 62 // fits an int64
	return int64(min(n, most))
}

// addWeighted counts one sample that stands for weight events, 1 or more: in the sum
// all of the weight, in the counts n, which for a rate of the client's is its whole
// part, as in the Datadog Agent.
func (d *distribution) addWeighted(v, weight float64, n int64) {
	d.summarize(v, v*weight, n)
	inBin := min(n, maxSketchCount)
	d.clipped += uint64(n - inBin)
	d.bins = addBin(d.bins, metric.SketchKey(v), uint32(inBin))
}

// summarize updates the exact part of the sketch with n samples of value v.
func (d *distribution) summarize(v, sum float64, n int64) {
	if d.count == 0 {
		d.min, d.max, d.avg = v, v, v
	} else {
		d.min, d.max = min(d.min, v), max(d.max, v)
	}
	d.count += n
	d.sum += sum
	// Step by step, as the Agent does: sum/count would lose digits the sum has
	// already lost, and is not the average of sampled values.
	d.avg += (v - d.avg) * float64(n) / float64(d.count)
}

// compact counts the buffered keys in bins, run by run.
func (d *distribution) compact() {
	slices.Sort(d.keys)
	for i := 0; i < len(d.keys); {
		run := i
		for i < len(d.keys) && d.keys[i] == d.keys[run] {
			i++
		}
		d.bins = addBin(d.bins, d.keys[run], uint32(i-run))
	}
	d.keys = d.keys[:0]
}

// merge adds other's samples to d; neither is empty. It compacts other.
func (d *distribution) merge(other *distribution) {
	d.min, d.max = min(d.min, other.min), max(d.max, other.max)
	d.count += other.count
	d.clipped += other.clipped
	d.sum += other.sum
	d.avg += (other.avg - d.avg) * float64(other.count) / float64(d.count)
	other.compact()
	for _, b := range other.bins {
		d.bins = addBin(d.bins, b.key, b.weight)
	}
}

// sketch returns the distribution in the form of the wire, and how many events its
// bins have no room for: the lowest ones, as when bins are too many.
func (d *distribution) sketch() (s metric.Sketch, clipped uint64) {
	d.compact()
	room := uint32(maxSketchCount)
	rows := 0
	for i := len(d.bins) - 1; i >= 0; i-- {
		b := &d.bins[i]
		n := min(b.weight, room)
		d.clipped += uint64(b.weight - n)
		b.weight = n
		room -= n
		rows += 1 + int(n/metric.MaxBinCount)
	}
	s = metric.Sketch{
		Count: d.count, Min: d.min, Max: d.max, Sum: d.sum, Avg: d.avg,
		Keys:   make([]int32, 0, rows),
		Counts: make([]uint32, 0, rows),
	}
	for _, b := range d.bins {
		// What does not fill a bin comes first, as the Agent writes it.
		if rest := b.weight % metric.MaxBinCount; rest > 0 {
			s.Keys = append(s.Keys, int32(b.key))
			s.Counts = append(s.Counts, rest)
		}
		for range b.weight / metric.MaxBinCount {
			s.Keys = append(s.Keys, int32(b.key))
			s.Counts = append(s.Counts, metric.MaxBinCount)
		}
	}
	return s, d.clipped
}

// reset empties d for the next interval and keeps memory that the interval used
// well.
func (d *distribution) reset() {
	keys, bins := d.keys[:0], d.bins[:0]
	if cap(keys) > 64 && 8*d.count < int64(cap(keys)) {
		keys = nil
	}
	if cap(bins) > 64 && 8*d.count < int64(cap(bins)) {
		bins = nil
	}
	*d = distribution{keys: keys, bins: bins}
}

// release gives memory back after an interval without a sample.
func (d *distribution) release(all bool) {
	if all || cap(d.keys) > keptIdle || cap(d.bins) > keptIdle {
		*d = distribution{}
	}
}

// finite reports whether the summary can be sent.
func (d *distribution) finite() bool {
	return !math.IsInf(d.sum, 0) && !math.IsNaN(d.sum) && !math.IsNaN(d.avg) && !math.IsInf(d.avg, 0)
}
