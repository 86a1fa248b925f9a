package aggregator

import (
	"bytes"

	"github.com/weir-agent/weir/metric"
)

// addUnknown adds a sample whose identity is not in the table: it finds out
// where samples of this identity go and remembers it. What is an analytics event takes
// the sample first; the rules, the guard and the table see the event's counter.
//
// Slow path: once per identity, and once per sample of identities that are
// rejected, refused, have a time or find no room in the table, none of which is
// remembered.
func (w *Worker) addUnknown(s *metric.Sample, hash uint64, check uint32) {
	// An earlier sample of the same window may have been the first.
	if w.identities.inserted != w.inserted {
		if r := w.identities.lookup(hash, check); r != 0 {
			w.add(r, s)
			return
		}
	}
	w.addNew(s, hash, check)
}

// addNew is addUnknown for what is not in the table, or has waited.
func (w *Worker) addNew(s *metric.Sample, hash uint64, check uint32) {
	if why := w.describe(s, &w.id); why != metric.Accepted {
		w.stats.samples--
		w.stats.rejected[why]++
		w.aggregator.example(why, s.Line)
		return
	}
	if bytes.HasPrefix(w.id.Name, ownPrefixBytes) {
		w.stats.refused[metric.ReservedName]++
		return
	}
	event, counts := w.eventOf(s)
	if !counts {
		return
	}
	if event != nil && !event.Metered() {
		w.rememberEvent(event, hash, check)
		return
	}
	w.treatIdentity()
	if bytes.HasPrefix(w.id.Name, ownPrefixBytes) {
		w.stats.refused[metric.ReservedName]++
		return
	}
	if w.id.Time != 0 && w.treatment.Refused == metric.Accepted {
		switch k := w.id.Kind; {
		case k == metric.Counter, k == metric.Gauge, k == metric.KeptGauge && !changes(s):
			w.pass(s)
			return
		}
		if w.waiting.resuming == nil {
			w.stats.ignoredTimes++
		}
	}
	r, undecided, why := w.resolve(&w.id)
	if undecided && w.wait(s, hash, check, event != nil) {
		return
	}
	w.stats.resolved++
	if undecided {
		why = metric.MetricLimit
	}
	if why != metric.Accepted {
		w.stats.refused[why]++
		return
	}
	w.addResolved(r, s, event, hash, check)
}

// addResolved adds a sample of w.id, whose context r leads to, and remembers the way if
// the identity may come again and there is room.
func (w *Worker) addResolved(r ref, s *metric.Sample, event Event, hash uint64, check uint32) {
	remember := w.id.Time == 0 // or else it will hardly come again
	folded := w.scratch.made.Sighting.Version != 0
	if folded && remember {
		remember = w.recurs(hash)
	}
	if remember && w.identities.count >= w.policy.maxIdentities {
		remember = false
		w.stats.unremembered++
	}
	if remember && event != nil {
		event, remember = w.keep(event)
	}
	to, weighted := w.weightOf(r)
	switch {
	case weighted && remember:
		r = w.weigh(to)
	case weighted:
		w.addWeighted(&to, s)
		return
	}
	direct := r // past the guard, which has counted this sample, and the event, likewise
	if remember {
		if folded {
			r = w.sight(r)
		}
		if event != nil {
			r = w.withEvent(event, r)
		}
		w.identities.insert(hash, check, r)
	}
	if !w.isOvertaken(direct) {
		w.add(direct, s)
	}
}

// treatIdentity applies the rules to w.id, which has its origin among its tags then.
func (w *Worker) treatIdentity() {
	w.treatment = metric.Treatment{Sample: 1}
	locate(&w.id, w.lines.Sender, &w.policy.naming)
	if w.treat != nil {
		w.treat(&w.id, &w.treatment)
	}
}

// resolve finds or makes the context of an identity, or says why its samples are
// refused. What does not count needs none. undecided says that the guard cannot tell yet.
func (w *Worker) resolve(id *metric.Identity) (r ref, undecided bool, why metric.Reason) {
	w.scratch.made.Sighting.Version = 0
	switch {
	case w.treatment.Refused != metric.Accepted:
		return refusedRef(w.treatment.Refused), false, metric.Accepted
	case w.treatment.SampledOut:
		return sampledOutRef, false, metric.Accepted
	}
	if w.goesLast() {
		return 0, true, metric.Accepted
	}
	k, contexts, guard := &w.scratch, w.aggregator.contexts, w.aggregator.guard
	c := k.candidate(id, &w.policy.naming)
	c.Budget = w.treatment.Budget
	var short *shortcut
	if guard != nil {
		folded, undecided := guard.Meet(c)
		if undecided {
			return 0, true, metric.Accepted
		}
		if folded && !c.Host.Explicit {
			if short = w.shortcutOf(c); short.leads(c, w.treatment.Profile) {
				return short.ref, false, metric.Accepted
			}
		}
	}
	k.key = c.AppendKey(k.key[:0])
	f := familyOf(id.Kind)
	slot, known := contexts.find(f, k.key, w.treatment.Profile)
	if !known {
		if slot, undecided, why = w.newContext(f, c); undecided || why != metric.Accepted {
			return 0, undecided, why
		}
	}
	r = makeRef(opOf(f), slot)
	if short != nil {
		*short = shortcut{c.Sighting.Folded, c.Sighting.Version, w.treatment.Profile, r}
	}
	return r, false, metric.Accepted
}

// newContext makes a context, if the guard admits it.
func (w *Worker) newContext(f family, c *metric.Candidate) (slot uint32, undecided bool, why metric.Reason) {
	k, guard := &w.scratch, w.aggregator.guard
	if guard != nil {
		changed, undecided, why := guard.Admit(c)
		if undecided || why != metric.Accepted {
			return 0, undecided, why
		}
		if changed {
			k.key = c.AppendKey(k.key[:0])
		}
	}
	slot, made, ok := w.aggregator.contexts.make(f, k.key, w.number, w.treatment.Profile, c.Sighting.Metric)
	if guard != nil && !made {
		guard.Withdraw(c.Sighting.Metric)
	}
	if !ok {
		return 0, false, metric.ContextLimit
	}
	return slot, false, metric.Accepted
}
