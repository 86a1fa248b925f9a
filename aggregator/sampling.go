package aggregator

import (
	"math"

	"github.com/weir-agent/weir/metric"
)

// weightedRef is where samples go whose values stand for other than one event each,
// or of which not all values count.
type weightedRef struct {
	weight float64 // of a value
	events float64 // that a value stands for: the weight, but in a classic timer
	ref    ref     // 0: nothing of it counts
	skip   uint32  // values to pass over before the next that counts; of a free one, the one that was free before it
	gap    float32 // mean of what skip is drawn from; 0: all values count
	carry  float32 // fraction of an event not yet counted, in [0, 1]; below 0: fractions are cut off
}

// The first of a worker's weighted refs are of samples that do not count: one for
// each reason, and one for those sampled out.
const (
	sampledOutIndex = uint32(metric.Reasons)
	fixedWeighted   = uint32(metric.Reasons) + 1
	sampledOutRef   = ref(opWeighted)<<indexBits | ref(sampledOutIndex)
)

func refusedRef(why metric.Reason) ref { return makeRef(opWeighted, uint32(why)) }

// heedsRate reports whether a sample rate changes what a sample counts for.
func heedsRate(o op) bool {
	return o == opCounter || o == opHistogram || o == opDistribution
}

// weightOf returns how samples of w.id are weighted on their way to r, and whether
// they are.
//
// The rate that the client sampled at and the share that a rule lets through
// multiply. The values that count are drawn one by one, each with the probability
// share: a line may hold all that a client saw in an interval. What is drawn is the
// number of values to pass over, which has a geometric distribution, so that a value
// that does not count costs no random number.
func (w *Worker) weightOf(r ref) (to weightedRef, weighted bool) {
	rate, share := w.id.Rate, w.treatment.Sample
	if rate == 1 && share == 1 || !heedsRate(r.op()) {
		return to, false
	}
	events := min(1/rate/share, math.MaxFloat64)
	to = weightedRef{weight: events, events: events, ref: r, carry: -1}
	if w.id.Kind == metric.ClassicTimer {
		to.weight = 1 / share // the client's rate counts events, and nothing else
	}
	if share < 1 {
		to.carry = w.random.Float32()
		if !w.treatment.BySelf {
			to.gap = float32(-1 / math.Log1p(-share))
			to.skip = w.drawSkip(to.gap)
		}
	}
	return to, true
}

// drawSkip returns how many values are passed over before the next that counts.
func (w *Worker) drawSkip(gap float32) uint32 {
	return uint32(min(w.random.ExpFloat64()*float64(gap), math.MaxUint32))
}

// weigh returns a ref that adds with a weight.
func (w *Worker) weigh(to weightedRef) ref {
	i := w.freeWeight
	if i > 0 {
		w.freeWeight = w.weighted.at(i).skip
	} else {
		i = w.weights
		w.weights++
	}
	*w.weighted.at(i) = to
	return makeRef(opWeighted, i)
}

func (w *Worker) forgetWeight(i uint32) {
	*w.weighted.at(i) = weightedRef{skip: w.freeWeight}
	w.freeWeight = i
}

// addByIndex adds a sample by a remembered weighted ref.
//
// Hot path: once per sample that has a rate or that a rule samples or drops.
func (w *Worker) addByIndex(index uint32, s *metric.Sample) {
	to := w.weighted.at(index)
	switch {
	case to.ref != 0:
		w.addWeighted(to, s)
	case index == sampledOutIndex:
		w.stats.sampledOut++
	default:
		w.stats.refused[index]++
	}
}

// addWeighted adds those values of a sample that count.
func (w *Worker) addWeighted(to *weightedRef, s *metric.Sample) {
	if to.gap == 0 {
		w.addOne(to, s.Value)
		for _, v := range w.packed(s) {
			w.addOne(to, v)
		}
		return
	}
	some := w.addDrawn(to, s.Value)
	for _, v := range w.packed(s) {
		some = w.addDrawn(to, v) || some
	}
	if !some {
		w.stats.sampledOut++
	}
}

// addDrawn adds a value if it is one of those that count, and reports whether.
func (w *Worker) addDrawn(to *weightedRef, v float64) bool {
	if to.skip > 0 {
		to.skip--
		return false
	}
	to.skip = w.drawSkip(to.gap)
	w.addOne(to, v)
	return true
}

// addOne adds a value of which each stands for several events.
func (w *Worker) addOne(to *weightedRef, v float64) {
	index := to.ref.index()
	switch to.ref.op() {
	case opCounter:
		*w.active.counters.at(index) += v * to.weight
	case opHistogram:
		h := w.active.histograms.at(index)
		h.unseen += to.events - to.weight
		h.add(v, to.weight)
	case opDistribution:
		d := w.active.distributions.at(index)
		if to.carry < 0 {
			d.addWeighted(v, to.weight, wholeEvents(to.weight))
			return
		}
		// The fraction goes to the next value, and began at chance, so that in the mean
		// nothing is lost.
		n := wholeEvents(to.weight + float64(to.carry))
		to.carry = float32(max(0, min(to.weight+float64(to.carry)-float64(n), 1)))
		d.addWeighted(v, to.weight, n)
	default:
		panic("BUG: a weight on a kind that ignores rates")
	}
}
