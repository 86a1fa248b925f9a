package aggregator

import (
	"bytes"

	"github.com/weir-agent/weir/metric"
)

// addUnknown adds a sample whose identity is not in the table: it finds out
// where samples of this identity go and remembers it.
//
// Slow path: once per identity, and once per sample of identities that are
// rejected, refused or find no room in the table, none of which is remembered.
func (w *Worker) addUnknown(s *metric.Sample, hash uint64, check uint32, now int64) {
	// An earlier sample of the same window may have been the first.
	if r := w.identities.lookup(hash, check); r != 0 {
		w.add(r, s, now)
		return
	}
	if why := w.aggregator.describe(s, &w.id); why != metric.Accepted {
		w.stats.samples--
		w.stats.rejected[why]++
		w.aggregator.example(why, s.Line)
		return
	}
	w.stats.resolved++
	r, why := w.resolve(&w.id)
	if why != metric.Accepted {
		w.stats.refused[why]++
		return
	}

	remember := w.identities.count < w.aggregator.maxIdentities
	if !remember {
		w.stats.unremembered++
	}
	if weight := 1 / w.id.Rate; weight != 1 && heedsRate(r.op()) {
		if remember {
			w.identities.insert(hash, check, w.weigh(r, weight))
		}
		w.addWeighted(r, s, weight)
		return
	}
	if remember {
		w.identities.insert(hash, check, r)
	}
	w.add(r, s, now)
}

// heedsRate reports whether a sample rate changes what a sample counts for.
func heedsRate(o op) bool {
	return o == opCounter || o == opHistogram || o == opDistribution
}

// weigh returns a ref that adds to r with a weight.
func (w *Worker) weigh(r ref, weight float64) ref {
	if n := len(w.freeWeight); n > 0 {
		i := w.freeWeight[n-1]
		w.freeWeight = w.freeWeight[:n-1]
		w.weighted[i] = weightedRef{r, weight}
		return makeRef(opWeighted, i)
	}
	w.weighted = append(w.weighted, weightedRef{r, weight})
	return makeRef(opWeighted, uint32(len(w.weighted)-1))
}

// resolve finds or makes the context of an identity.
func (w *Worker) resolve(id *metric.Identity) (ref, metric.Reason) {
	if bytes.HasPrefix(id.Name, ownPrefixBytes) {
		return 0, metric.ReservedName
	}
	a := w.aggregator
	key := w.scratch.contextKey(id, a.cfg.Hostname, a.namespace, a.tags)
	f := familyOf(id.Kind)
	slot, ok := a.contexts.slotOf(f, key, w.number)
	if !ok {
		return 0, metric.ContextLimit
	}
	return makeRef(opOf(f), slot), metric.Accepted
}
