package aggregator

import (
	"bytes"

	"github.com/weir-agent/weir/metric"
)

// addUnknown adds a sample whose identity is not in the table: it finds out
// where samples of this identity go and remembers it.
//
// Slow path: once per identity, and once per sample of identities that are
// rejected, refused, have a time or find no room in the table, none of which is
// remembered.
func (w *Worker) addUnknown(s *metric.Sample, hash uint64, check uint32) {
	// An earlier sample of the same window may have been the first.
	if r := w.identities.lookup(hash, check); r != 0 {
		w.add(r, s)
		return
	}
	if why := w.describe(s, &w.id); why != metric.Accepted {
		w.stats.samples--
		w.stats.rejected[why]++
		w.aggregator.example(why, s.Line)
		return
	}
	reserved := bytes.HasPrefix(w.id.Name, ownPrefixBytes)
	if !reserved {
		w.treatIdentity()
		reserved = bytes.HasPrefix(w.id.Name, ownPrefixBytes)
	}
	if reserved {
		w.stats.refused[metric.ReservedName]++
		return
	}
	if w.id.Time != 0 && w.treatment.Refused == metric.Accepted {
		switch k := w.id.Kind; {
		case k == metric.Counter, k == metric.Gauge, k == metric.KeptGauge && !changes(s):
			w.pass(s)
			return
		}
		w.stats.ignoredTimes++
	}
	w.stats.resolved++
	r, ok := w.resolve(&w.id)
	if !ok {
		w.stats.refused[metric.ContextLimit]++
		return
	}

	remember := w.id.Time == 0 // or else it will hardly come again
	if remember && w.identities.count >= w.policy.maxIdentities {
		remember = false
		w.stats.unremembered++
	}
	if to, weighted := w.weightOf(r); weighted {
		if !remember {
			w.addWeighted(&to, s)
			return
		}
		r = w.weigh(to)
	}
	if remember {
		w.identities.insert(hash, check, r)
	}
	w.add(r, s)
}

// treatIdentity applies the rules to w.id, which has its origin among its tags then.
func (w *Worker) treatIdentity() {
	w.treatment = metric.Treatment{Sample: 1}
	locate(&w.id, w.lines.Sender, &w.policy.naming)
	if w.treat != nil {
		w.treat(&w.id, &w.treatment)
	}
}

// resolve finds or makes the context of an identity; ok is false if there are too
// many. What does not count needs none.
func (w *Worker) resolve(id *metric.Identity) (r ref, ok bool) {
	switch {
	case w.treatment.Refused != metric.Accepted:
		return refusedRef(w.treatment.Refused), true
	case w.treatment.SampledOut:
		return sampledOutRef, true
	}
	key := w.scratch.contextKey(id, &w.policy.naming)
	f := familyOf(id.Kind)
	slot, ok := w.aggregator.contexts.slotOf(f, key, w.number, w.treatment.Profile)
	if !ok {
		return 0, false
	}
	return makeRef(opOf(f), slot), true
}
