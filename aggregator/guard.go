package aggregator

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/weir-agent/weir/internal/holds"
	"github.com/weir-agent/weir/metric"
)

// Guard decides which contexts are made. Its methods may be called by several workers
// at once, those that the flusher calls by one. A Guard's metric has a number.
type Guard interface {
	// Meet rewrites a candidate by what was decided before and reports whether its
	// metric is folded. If that is undecided, the candidate is to be met again.
	Meet(*metric.Candidate) (folded, undecided bool)
	// Admit is asked before a context is made. It may rewrite the candidate, too, or say
	// that it is to be met again.
	Admit(*metric.Candidate) (changed, undecided bool, why metric.Reason)
	// Decide decides at once what is undecided.
	Decide()
	// Withdraw says that a context that was admitted was not made.
	Withdraw(number uint32)
	// SetMembers says how to look at the contexts of a metric.
	SetMembers(func(kind metric.Kind, number uint32, yield func(metric.Member)))

	// Gone says that a context is forgotten, if stale because it was folded.
	Gone(number uint32, stale bool)
	// Observe counts samples that came for a candidate of a folded metric.
	Observe(s *metric.Sighting, samples uint32)
	// Wanted returns of which metrics Alive is to be told the contexts that had samples
	// in so many last intervals.
	Wanted(interval time.Duration) (metrics map[uint32]bool, intervals uint32)
	Alive(number uint32, context *metric.Context)
	// Tick ends an interval and returns what is to be told.
	Tick(now time.Time, interval time.Duration) []metric.Event
	// Changed returns the metrics whose folds changed since it was last called.
	Changed() []uint32
	// Keeps reports whether a context is what the folds make of it.
	Keeps(number uint32, context *metric.Context) bool
	// Renamed says that all contexts there are get other tags, so that for a while there
	// will be twice as many; keep is how long a silent one is kept.
	Renamed(keep time.Duration)
	// Settled says that all that a change of folds made stale is forgotten.
	Settled(number uint32)
}

// guarded is what is kept of a context for the guard.
type guarded struct {
	metric uint32 // twice the number of its metric, and 1 if the folds make it another context: to be forgotten
	active uint32 // intervals in which it had samples; atomic: the flusher counts. Of a free slot: see supply
}

func newGuarded(number uint32) guarded { return guarded{metric: number << 1} }

func (g *guarded) number() uint32 { return g.metric >> 1 }
func (g *guarded) stale() bool    { return g.metric&1 != 0 }
func (g *guarded) setStale()      { g.metric |= 1 }

// freeAfter is what is kept of a slot without a context: the one that was free before it.
func freeAfter(before uint32) guarded { return guarded{active: before} }
func (g *guarded) nextFree() uint32   { return g.active }

func (g *guarded) wasActive() { atomic.StoreUint32(&g.active, g.active+1) }

// sightedRef is where samples of a folded metric go, and what the guard is to know of
// them.
type sightedRef struct {
	ref      ref
	samples  uint32 // since the guard was told; of a free one, whose ref is 0, the one that was free before it
	sighting metric.Sighting
}

// onceLen is how many identities of folded metrics a worker holds in mind as met once.
// Only those that come again while they are are remembered: so values that come only
// once, by the million, take no memory and push nothing out.
const onceLen = 1 << 16

// shortcut leads from what a guard made of a candidate to the place of its samples,
// without the key of its context: the hash of its tags is 64 bits under a key that
// nobody knows, and one metric has few folded contexts.
type shortcut struct {
	sum     uint64
	version uint64 // of the folds, which no other metric has; 0: free
	profile *metric.Profile
	ref     ref
}

const shortcuts = 1024

// shortcutOf returns the place of a candidate in the table, one of four.
func (w *Worker) shortcutOf(c *metric.Candidate) *shortcut {
	if w.shortcuts == nil {
		w.shortcuts = new([shortcuts]shortcut)
	}
	at := c.Sighting.Folded + c.Sighting.Version*0x9e3779b97f4a7c15 // metrics may have the same tags
	first := at % shortcuts &^ 3
	four := w.shortcuts[first : first+4]
	for i := range four {
		if s := &four[i]; s.version == 0 || s.version == c.Sighting.Version && s.sum == c.Sighting.Folded {
			return s
		}
	}
	return &four[at>>32&3]
}

func (s *shortcut) leads(c *metric.Candidate, p *metric.Profile) bool {
	return s.version == c.Sighting.Version && s.sum == c.Sighting.Folded && s.profile == p
}

// recurs reports whether the identity of a folded metric was met not long ago.
func (w *Worker) recurs(hash uint64) bool {
	if w.once == nil {
		w.once = make([]uint32, onceLen)
	}
	at, rest := &w.once[hash%onceLen], uint32(hash>>32)
	if *at == rest {
		return true
	}
	*at = rest
	return false
}

// sight returns a ref that counts samples for the guard on their way to r.
func (w *Worker) sight(r ref) ref {
	to := sightedRef{ref: r, sighting: w.scratch.made.Sighting}
	to.sighting.Values = append([]uint64(nil), to.sighting.Values...)
	i := w.freeSight
	if i > 0 {
		w.freeSight = w.sighted.at(i).samples
	} else {
		w.lastSight++
		i = w.lastSight
	}
	*w.sighted.at(i) = to
	w.sights++
	return makeRef(opSighted, i)
}

// addSighted adds a sample of what is remembered of a folded metric. It is kept out of
// add, which is smaller for it (BenchmarkAdd).
//
//go:noinline
func (w *Worker) addSighted(index uint32, s *metric.Sample) {
	to := w.sighted.at(index)
	to.samples++
	w.add(to.ref, s)
}

func (w *Worker) forgetSighted(i uint32) {
	*w.sighted.at(i) = sightedRef{samples: w.freeSight}
	w.freeSight = i
	if w.sights--; w.sights == 0 {
		w.sighted, w.freeSight, w.lastSight = column[sightedRef]{}, 0, 0
	}
}

// tell says to the guard how many samples came for what is remembered of folded
// metrics. The reader gets its turn between some of them.
func (w *Worker) tell(guard Guard) {
	for from, more := uint32(1), true; more; from += lockedAtOnce {
		w.mu.Lock()
		end := min(from+lockedAtOnce, w.lastSight+1)
		for i := from; i < end; i++ {
			if to := w.sighted.at(i); to.ref != 0 && to.samples > 0 {
				guard.Observe(&to.sighting, to.samples)
				to.samples = 0
			}
		}
		more = end <= w.lastSight
		holds.EndTurn(&w.mu)
	}
}

// askGuard tells the guard what happened in the interval, and the batch what the guard
// decided.
func (f *flusher) askGuard(start time.Time, b *metric.Batch) {
	guard := f.a.guard
	if guard == nil {
		return
	}
	for _, w := range f.a.workers {
		w.tell(guard)
	}
	interval := f.length
	if wanted, intervals := guard.Wanted(interval); len(wanted) > 0 {
		f.tellAlive(wanted, intervals)
	}
	for _, e := range guard.Tick(start.Add(interval), interval) {
		e.Host, e.Tags = messageTags(f.a.cfg.Hostname, e.Tags, e.Origin, "", &f.policy.naming)
		b.Events = append(b.Events, e)
	}
	for _, number := range guard.Changed() {
		if f.refolding == nil {
			f.refolding = map[uint32]int{}
		}
		f.refolding[number] = refoldPasses
	}
}

func (f *flusher) tellAlive(wanted map[uint32]bool, intervals uint32) {
	for fam := range families {
		all := f.a.contexts.snapshot(fam)
		for slot, last := range f.seen[fam] {
			if last == 0 || f.intervals-last >= intervals {
				continue
			}
			if number := all.guarded[slot/chunkLen][slot%chunkLen].number(); wanted[number] {
				f.a.guard.Alive(number, all.context(uint32(slot)))
			}
		}
	}
}

// refoldPasses is how often the contexts of a metric are looked through when its folds
// changed, if nothing is found: a reader that was at work may have made one by the folds
// there were before.
const refoldPasses = 2

// refold returns the slots of metrics whose folds changed, nil for none: what leads to
// them is to be asked anew. Of these, stale are the contexts to be forgotten.
func (f *flusher) refold() (all *marks, stale []slotID) {
	if len(f.refolding) == 0 {
		return nil, nil
	}
	all = new(marks)
	found := map[uint32]bool{}
	for fam := range families {
		for _, m := range f.a.contexts.slotsOf(fam, f.refolding) {
			all.set(m.id)
			if m.stale || !f.a.guard.Keeps(m.number, m.context) {
				stale = append(stale, m.id)
				found[m.number] = true
			}
		}
	}
	f.a.contexts.setStale(stale)
	for number, passes := range f.refolding {
		switch {
		case found[number]:
			f.refolding[number] = refoldPasses
		case passes > 1:
			f.refolding[number]--
		default:
			delete(f.refolding, number)
			f.a.guard.Settled(number)
		}
	}
	return all, stale
}

// member is a context of one of some metrics.
type member struct {
	id      slotID
	context *metric.Context
	number  uint32
	age     uint32 // intervals in which it had samples
	stale   bool
}

// slotsOf returns the contexts of some metrics.
func (c *contexts) slotsOf(f family, numbers map[uint32]int) (all []member) {
	wanted := func(number uint32) bool {
		_, is := numbers[number]
		return is
	}
	c.eachOf(f, c.endTurn, wanted, func(m member) { all = append(all, m) })
	return all
}

// eachOf yields the contexts of some metrics of a family, without the lock. Readers get
// their turn between chunks, when endTurn unlocks it.
func (c *contexts) eachOf(f family, endTurn func(), wanted func(number uint32) bool, yield func(member)) {
	some := make([]member, 0, chunkLen)
	for i := 0; ; i++ {
		c.mu.Lock()
		if i >= len(c.guarded[f].chunks) {
			c.mu.Unlock()
			return
		}
		some = some[:0]
		if chunk := c.guarded[f].chunks[i]; chunk != nil {
			for j := range chunk {
				g, at := &chunk[j], c.bySlot[f].chunks[i][j]
				if at != 0 && wanted(g.number()) {
					age := atomic.LoadUint32(&g.active)
					some = append(some, member{slotID{f, uint32(i*chunkLen + j)}, c.texts.at(at), g.number(), age, g.stale()})
				}
			}
		}
		endTurn()
		for _, m := range some {
			yield(m)
		}
	}
}

func (c *contexts) setStale(ids []slotID) {
	for some := range slices.Chunk(ids, lockedAtOnce) {
		c.mu.Lock()
		for _, id := range some {
			c.guarded[id.family].at(id.slot).setStale()
		}
		c.endTurn()
	}
}

// members yields the contexts of one metric. It does not sleep: where no guard runs, a
// reader asks, with a lock that others wait for.
func (c *contexts) members(kind metric.Kind, number uint32, yield func(metric.Member)) {
	endTurn := func() { holds.EndTurn(&c.mu) }
	c.eachOf(familyOf(kind), endTurn, func(other uint32) bool { return other == number }, func(m member) {
		yield(metric.Member{Context: m.context, Age: m.age, Stale: m.stale})
	})
}
