package aggregator

import (
	"math/rand/v2"
	"time"

	"github.com/weir-agent/weir/internal/holds"
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
	describe   Describe

	resolveEvent ResolveEvent // nil: there are no analytics events

	// Scratch, to be reused with the lock.
	id        metric.Identity
	treatment metric.Treatment // of id
	scratch   identityScratch
	lines     *metric.Lines // under way, their packed values
	now       int64         // when they came
	salt      uint64        // of their sender
	wall      int64         // Unix seconds, at the moment wallAt of now
	wallAt    int64
	hashes    [window]uint64
	checks    [window]uint32
	refs      [window]ref
	inserted  uint64 // of identities, when the refs were looked up

	mu holds.Mutex // guards the fields below; taken once for a batch of packets
	view
	random  *rand.Rand                   // draws samples
	passing map[string]metric.ContextRef // of points that are passed on in this interval, in active.passing
	waiting waiting                      // samples, for the guard
	active  *columns                     // filled by the reader
	spare   *columns                     // read and emptied by the flusher, without mu
	stats   workerStats
	loss    loss // of the open interval
}

// workerStats counts what became of a worker's lines. All of a batch is counted
// under one lock, so that the sums are right whenever one looks.
type workerStats struct {
	lines                        uint64
	samples                      uint64 // accepted metric lines; aggregated + sampled out + passed + refused
	sampledOut                   uint64 // samples of which no value was drawn
	passed                       uint64 // samples with a time of their own
	ignoredTimes                 uint64 // samples aggregated as if they had none
	events                       uint64 // those refused included
	checks                       uint64 // those refused included
	refusedEvents, refusedChecks uint64
	refused                      [metric.Reasons]uint64
	rejected                     [metric.Reasons]uint64
	resolved                     uint64 // identities met for the first time
	unremembered                 uint64 // of these, how many the table had no room for
	eventSamples                 uint64 // samples of analytics events, those refused included
	unrememberedEvents           uint64 // identities of events beyond maxEventIdentities
}

func newWorker(a *Aggregator, number int, describe Describe, p *policy) *Worker {
	return &Worker{
		aggregator: a,
		number:     number,
		describe:   describe,
		passing:    map[string]metric.ContextRef{},
		random:     rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		view:       newView(p, nil),
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

	if len(w.waiting.pieces) > 0 {
		w.resume(resumedAtOnce)
	}
	w.lines = lines
	w.now = now
	w.salt = 0
	if lines.Sender != "" && w.policy.saltSenders {
		w.salt = w.aggregator.hasher.bytes([]byte(lines.Sender))
	}
	w.loss.received += lines.Packets
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
		w.addWindow(samples[:n])
		samples = samples[n:]
	}
	if len(lines.Events)+len(lines.Checks) > 0 {
		w.addMessages(lines)
	}
}

// addWindow adds up to window samples in three passes: hash, look up, add. Each
// pass has no branch that depends on the memory it waits for, so the processor
// works on many samples at once (BenchmarkSample, 1 M contexts).
//
// Hot path.
func (w *Worker) addWindow(samples []metric.Sample) {
	hashes, checks, refs := w.hashes[:len(samples)], w.checks[:len(samples)], w.refs[:len(samples)]
	salt := w.salt
	for i := range samples {
		s := &samples[i]
		hashes[i], checks[i] = w.aggregator.hasher.identity(s.Name(), s.TailBytes(), salt)
	}
	for i := range refs {
		refs[i] = w.identities.lookup(hashes[i], checks[i])
	}
	w.inserted = w.identities.inserted
	for i, r := range refs {
		s := &samples[i]
		if r == 0 {
			w.addUnknown(s, hashes[i], checks[i])
			continue
		}
		w.add(r, s)
	}
}

// packed returns the values of a sample after the first.
func (w *Worker) packed(s *metric.Sample) []float64 {
	if s.MoreEnd == 0 { // as nearly always: spare the loads
		return nil
	}
	return w.lines.Packed(s)
}

// add adds the values of one sample whose place is known.
//
// Hot path: once per sample.
func (w *Worker) add(r ref, s *metric.Sample) {
	switch r.op() {
	case opCounter:
		sum := w.active.counters.at(r.index())
		*sum += s.Value
		for _, v := range w.packed(s) {
			*sum += v
		}
	case opGauge:
		v := s.Value
		if packed := w.packed(s); len(packed) > 0 {
			v = packed[len(packed)-1]
		}
		*w.active.gauges.at(r.index()) = gauge{v, w.now}
	case opSet:
		w.active.sets.at(r.index()).add(w.aggregator.hasher.bytes(s.Member()))
	case opHistogram:
		h := w.active.histograms.at(r.index())
		h.add(s.Value, 1)
		for _, v := range w.packed(s) {
			h.add(v, 1)
		}
	case opDistribution:
		d := w.active.distributions.at(r.index())
		d.add(s.Value)
		for _, v := range w.packed(s) {
			d.add(v)
		}
	case opKeptGauge:
		w.active.keptGauges.at(r.index()).add(s, w.packed(s), w.now)
	case opWeighted:
		w.addByIndex(r.index(), s)
	case opSighted:
		w.addSighted(r.index(), s)
	case opEvent:
		w.addEvent(r.index(), s)
	}
}

// swap ends the worker's interval: what was filled so far is in spare until the
// next swap. It returns what the worker's socket lost meanwhile.
func (w *Worker) swap() loss {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active, w.spare = w.spare, w.active
	if len(w.passing) > 0 {
		w.passing = map[string]metric.ContextRef{}
	}
	total := w.loss.total
	if w.aggregator.dropped != nil {
		total = w.aggregator.dropped(w.number)
	}
	return w.loss.end(total)
}
