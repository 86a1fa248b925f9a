package aggregator

import (
	"sync"
	"time"

	"github.com/weir-agent/weir/metric"
)

// window is how many samples are looked up before the first of them is added:
// at a million contexts nearly every lookup misses the cache, and the misses of
// a window overlap.
const window = 128

// maxIdentitiesPerContext bounds a worker's table of identities by the limit on
// contexts. One context has several identities if clients spell it in several
// ways (the order of tags, sample rates).
const maxIdentitiesPerContext = 2

// Worker aggregates what one reader receives. Its methods are called by that
// reader only; the flusher takes the values away at the end of an interval.
type Worker struct {
	aggregator *Aggregator
	number     int

	// Scratch, to be reused.
	id      metric.Identity
	scratch identityScratch
	hashes  [window]uint64
	checks  [window]uint32
	refs    [window]ref

	mu         sync.Mutex // guards the fields below; taken once for a batch of packets
	identities *identities
	weighted   []weightedRef // by the index of an opWeighted ref
	freeWeight []uint32      // indexes of weighted that are free
	active     *columns      // filled by the reader
	spare      *columns      // read and emptied by the flusher, without mu
	stats      workerStats
}

// weightedRef is where samples sent at a rate below 1 go.
type weightedRef struct {
	ref    ref
	weight float64 // 1/rate
}

// workerStats counts what became of a worker's lines. All of a batch is counted
// under one lock, so that the sums are right whenever one looks.
type workerStats struct {
	lines        uint64
	samples      uint64 // accepted lines; aggregated + refused
	refused      [metric.Reasons]uint64
	rejected     [metric.Reasons]uint64
	resolved     uint64 // identities met for the first time
	unremembered uint64 // of these, how many the table had no room for
}

func newWorker(a *Aggregator, number int) *Worker {
	return &Worker{
		aggregator: a,
		number:     number,
		identities: newIdentities(),
		active:     newColumns(),
		spare:      newColumns(),
	}
}

// Add takes all of lines into the open interval. It keeps no reference to them.
//
// Hot path: once per batch of packets. No allocation for identities that are
// known; TestAddDoesNotAllocate checks.
func (w *Worker) Add(lines *metric.Lines) {
	now := int64(time.Since(w.aggregator.started)) + 1
	w.mu.Lock()
	defer w.mu.Unlock()

	w.stats.lines += lines.Count
	w.stats.samples += uint64(len(lines.Samples)) // less what resolve rejects
	for why, n := range lines.Rejected {
		w.stats.rejected[why] += n
	}
	if lines.ExampleReason != metric.Accepted {
		w.aggregator.example(lines.ExampleReason, lines.Example)
	}
	for samples := lines.Samples; len(samples) > 0; {
		n := min(window, len(samples))
		w.addWindow(samples[:n], now)
		samples = samples[n:]
	}
}

// addWindow adds up to window samples in three passes: hash, look up, add. Each
// pass has no branch that depends on the memory it waits for, so the processor
// works on many samples at once (BenchmarkAdd, 1 M contexts).
//
// Hot path.
func (w *Worker) addWindow(samples []metric.Sample, now int64) {
	hashes, checks, refs := w.hashes[:len(samples)], w.checks[:len(samples)], w.refs[:len(samples)]
	for i := range samples {
		s := &samples[i]
		hashes[i], checks[i] = w.aggregator.hasher.identity(s.Name(), s.TailBytes())
	}
	for i := range refs {
		refs[i] = w.identities.lookup(hashes[i], checks[i])
	}
	for i, r := range refs {
		s := &samples[i]
		if r == 0 {
			w.addUnknown(s, hashes[i], checks[i], now)
			continue
		}
		w.add(r, s, now)
	}
}

// add adds the values of one sample whose place is known.
//
// Hot path: once per sample.
func (w *Worker) add(r ref, s *metric.Sample, now int64) {
	switch r.op() {
	case opCounter:
		sum := w.active.counters.at(r.index())
		*sum += s.Value
		for _, v := range s.More {
			*sum += v
		}
	case opGauge:
		v := s.Value
		if n := len(s.More); n > 0 {
			v = s.More[n-1]
		}
		*w.active.gauges.at(r.index()) = gauge{v, now}
	case opSet:
		w.active.sets.at(r.index()).add(w.aggregator.hasher.bytes(s.Member()))
	case opHistogram:
		h := w.active.histograms.at(r.index())
		h.add(s.Value, 1)
		for _, v := range s.More {
			h.add(v, 1)
		}
	case opDistribution:
		d := w.active.distributions.at(r.index())
		d.add(s.Value)
		for _, v := range s.More {
			d.add(v)
		}
	case opWeighted:
		to := w.weighted[r.index()]
		w.addWeighted(to.ref, s, to.weight)
	}
}

// addWeighted adds the values of a sample of which each stands for weight
// events.
func (w *Worker) addWeighted(r ref, s *metric.Sample, weight float64) {
	switch r.op() {
	case opCounter:
		sum := w.active.counters.at(r.index())
		*sum += s.Value * weight
		for _, v := range s.More {
			*sum += v * weight
		}
	case opHistogram:
		h := w.active.histograms.at(r.index())
		h.add(s.Value, weight)
		for _, v := range s.More {
			h.add(v, weight)
		}
	case opDistribution:
		d := w.active.distributions.at(r.index())
		d.addWeighted(s.Value, weight)
		for _, v := range s.More {
			d.addWeighted(v, weight)
		}
	default:
		panic("BUG: a weight on a kind that ignores rates")
	}
}

// swap ends the worker's interval: what was filled so far is in spare until the
// next swap.
func (w *Worker) swap() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active, w.spare = w.spare, w.active
}
