package aggregator

import (
	"slices"

	"github.com/weir-agent/weir/internal/holds"
)

// expire forgets contexts that have been silent for too long, and identities
// that nobody uses any more; both give their memory to new ones.
//
// A reader may get a sample of a silent context at any moment, so forgetting
// goes in steps: the contexts are marked (doom); each worker's table is swept of
// the identities that lead to them, one segment at a time; then the marked
// contexts that have a fresh sample in its columns are spared (revive), whether it
// came by a remembered identity or not. After that the worker can reach a marked
// context only by asking for it anew, which takes the mark away; what is still
// marked in the end is forgotten (bury).
func (f *flusher) expire() {
	doomed := f.silent()
	refolded, stale := f.refold()
	doomed = append(doomed, stale...)
	aging := f.intervals%max(f.expiry, 1) == 0
	if len(doomed) == 0 && refolded == nil && !aging {
		return
	}
	contexts := f.a.contexts
	contexts.doom(doomed)
	var isDoomed marks
	for _, id := range doomed {
		isDoomed.set(id)
	}
	for _, w := range f.a.workers {
		w.sweep(aging, func(id slotID) bool {
			return refolded != nil && refolded.has(id) || isDoomed.has(id) && !w.active.touched(id.family, id.slot)
		})
		w.revive(doomed)
	}
	contexts.bury(doomed, func(id slotID, was guarded) {
		if f.a.guard != nil {
			f.a.guard.Gone(was.number(), was.stale())
		}
		f.seen[id.family][id.slot] = 0
		if id.family == keptGauges {
			f.kept[id.slot] = 0
		}
	})
}

// revive takes the mark from contexts that have a sample in the open interval.
func (w *Worker) revive(doomed []slotID) {
	for some := range slices.Chunk(doomed, lockedAtOnce) {
		w.mu.Lock()
		for _, id := range some {
			if w.active.touched(id.family, id.slot) {
				w.aggregator.contexts.revive(id)
			}
		}
		holds.EndTurn(&w.mu)
		w.aggregator.contexts.work.Yield()
	}
}

// silent returns the contexts without a sample for as long as they are kept. A
// counter is kept while it is sent as zero.
//
// Kept gauges are kept for long, but not if they take the room of others.
func (f *flusher) silent() []slotID {
	var ids []slotID
	live, _, _ := f.a.contexts.count()
	crowded := live > f.a.cfg.MaxContexts/5*4
	for fam := range families {
		keep := f.expiry
		switch fam {
		case counters:
			keep = max(keep, f.zeroFill)
		case keptGauges:
			if !crowded {
				keep = f.keptExpiry
			}
		}
		for slot, last := range f.seen[fam] {
			if last != 0 && f.intervals-last >= keep {
				ids = append(ids, slotID{fam, uint32(slot)})
			}
			f.work.Step()
		}
	}
	return ids
}

// sweep removes from the table of identities those whose context is to be
// forgotten and, with aging, those that no sample had since the last sweep with
// aging. The reader gets its turn after every segment.
func (w *Worker) sweep(aging bool, forget func(slotID) bool) {
	w.mu.Lock()
	w.shortcuts = nil
	w.mu.Unlock()
	for hash, more := uint64(0), true; more; more = hash != 0 {
		w.mu.Lock()
		hash = w.identities.sweepSegment(hash, aging, func(r ref, unused bool) bool {
			to := w.destination(r)
			if !unused && (to == 0 || !forget(slotID{familyOfOp(to.op()), to.index()})) {
				return false
			}
			w.free(r)
			return true
		})
		holds.EndTurn(&w.mu)
		w.aggregator.contexts.work.Yield()
	}
}

// destination returns the ref of the context that a ref leads to, 0 if it leads to none.
func (w *Worker) destination(r ref) ref {
	if r.op() == opEvent {
		r = w.eventRefs.at(r.index()).to
	}
	if r.op() == opSighted && r != 0 {
		r = w.sighted.at(r.index()).ref
	}
	if r.op() == opWeighted {
		r = w.weighted.at(r.index()).ref
	}
	return r
}

// free gives back what a ref leads through on its way to a context.
func (w *Worker) free(r ref) {
	if r.op() == opEvent {
		i := r.index()
		r = w.eventRefs.at(i).to
		w.forgetEvent(i)
	}
	if r.op() == opSighted && r != 0 {
		i := r.index()
		r = w.sighted.at(i).ref
		w.forgetSighted(i)
	}
	if r.op() == opWeighted && r.index() >= fixedWeighted {
		w.forgetWeight(r.index())
	}
}
