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
	if bytes.HasPrefix(w.id.Name, ownPrefixBytes) {
		w.stats.refused[metric.ReservedName]++
		return
	}
	event, counts := w.eventOf(s)
	if !counts {
		return
	}
	if event != nil && !event.Metered() {
		if to, ok := w.withEvent(event, 0); ok && w.identities.count < w.aggregator.maxIdentities {
			w.identities.insert(hash, check, to)
		}
		return
	}
	if w.id.Time != 0 {
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
	if remember && w.identities.count >= w.aggregator.maxIdentities {
		remember = false
		w.stats.unremembered++
	}
	if weight := 1 / w.id.Rate; weight != 1 && heedsRate(r.op()) {
		to := weightedRef{r, weight, w.id.Kind == metric.ClassicTimer}
		if remember && event == nil { // of an event that is sampled each line is resolved
			w.identities.insert(hash, check, w.weigh(to))
		}
		w.addWeighted(to, s)
		return
	}
	if remember {
		if to, ok := w.withEvent(event, r); ok {
			w.identities.insert(hash, check, to)
		}
	}
	w.add(r, s)
}

// heedsRate reports whether a sample rate changes what a sample counts for.
func heedsRate(o op) bool {
	return o == opCounter || o == opHistogram || o == opDistribution
}

// weigh returns a ref that adds with a weight.
func (w *Worker) weigh(to weightedRef) ref {
	if n := len(w.freeWeight); n > 0 {
		i := w.freeWeight[n-1]
		w.freeWeight = w.freeWeight[:n-1]
		w.weighted[i] = to
		return makeRef(opWeighted, i)
	}
	w.weighted = append(w.weighted, to)
	return makeRef(opWeighted, uint32(len(w.weighted)-1))
}

// resolve finds or makes the context of an identity; ok is false if there are too
// many.
func (w *Worker) resolve(id *metric.Identity) (r ref, ok bool) {
	key := w.scratch.contextKey(id, w.lines.Sender, &w.aggregator.naming)
	f := familyOf(id.Kind)
	slot, ok := w.aggregator.contexts.slotOf(f, key, w.number)
	if !ok {
		return 0, false
	}
	return makeRef(opOf(f), slot), true
}
