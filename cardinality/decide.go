package cardinality

import (
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// maxFolds is how many keys of a metric may be folded.
const maxFolds = 16

// overflow does what is to be done when a metric has no room for a candidate. The
// lock is held. After a fold the candidate is rewritten and has room.
func (g *Guard) overflow(s *shard, m *tracked, c *metric.Candidate, limit int) (changed bool, why metric.Reason) {
	policy := g.overflowOf(m)
	switch {
	case policy == metric.OverflowObserve:
		if !m.observed && m.folded == nil {
			m.observed = true
			if !g.foldable(m) || !g.decide(s, m, limit, true) {
				g.tellRefusal(s, m, limit, true)
			}
		}
		return false, metric.Accepted
	case m.refusing:
		g.refuse(m, c)
		return false, metric.MetricLimit
	case policy == metric.OverflowDrop || !g.foldable(m):
		g.beginRefusing(s, m, c, limit)
		return false, metric.MetricLimit
	}
	if !g.decide(s, m, limit, false) {
		g.beginRefusing(s, m, c, limit)
		return false, metric.MetricLimit
	}
	met, raw := c.Sighting.Version != 0, c.Sighting.Raw
	g.apply(m, c)
	if met { // by the folds there were before: it is rewritten and counted already
		c.Sighting.Raw = raw
	} else {
		g.observe(m, &c.Sighting, 1)
	}
	return true, metric.Accepted
}

// beginRefusing refuses further contexts of a metric until the next part of the
// window, and tells it once.
func (g *Guard) beginRefusing(s *shard, m *tracked, c *metric.Candidate, limit int) {
	m.refusing = true
	if w := m.watch; w != nil && w.demand == nil && g.take(windowBytes(contextPrecision)) {
		w.demand = newWindow(contextPrecision)
		for i, part := range w.contexts.parts {
			if part != nil {
				w.demand.parts[i] = part.Clone()
			}
		}
		w.demand.current = w.contexts.current
	}
	g.tellRefusal(s, m, limit, false)
	g.refuse(m, c)
}

// tellRefusal tells once that a metric gets no further contexts, or would get none. If
// there is no memory to remember that, it tells nothing.
func (g *Guard) tellRefusal(s *shard, m *tracked, limit int, dry bool) {
	if m.watch == nil || m.watch.told {
		return
	}
	m.watch.told = true
	g.load(&s.scratch, m)
	g.reportRefusal(m, &s.scratch, limit, dry)
	s.scratch.forget()
}

// refuse counts a candidate that is refused, and that there was a demand for it.
func (g *Guard) refuse(m *tracked, c *metric.Candidate) {
	g.counts.refused.Add(1)
	if m.watch == nil || m.watch.demand == nil {
		return
	}
	var sum uint64
	tag := func(tag []byte) { sum += g.hash.bytes(tag) }
	for _, t := range c.Tags {
		tag(t)
	}
	forOther(c, tag)
	m.watch.demand.insert(sum)
}

// decide folds further keys of a metric, and reports whether that makes room. With
// dry it only says what it would do.
func (g *Guard) decide(s *shard, m *tracked, limit int, dry bool) bool {
	c := &s.scratch
	g.load(c, m)
	defer c.forget()
	before, room := len(c.rows), maxFolds
	if m.folded != nil {
		room -= len(m.folded.folds)
	}
	// Those that the window counts and that are forgotten are taken to be like the others.
	share := 1.0
	if m.watch != nil && m.watch.known > before {
		share = float64(before) / float64(m.watch.known)
	}
	target, most := int(share*float64(limit)*foldTarget/4), max(2, int(share*float64(limit)))
	if m.folded != nil && !dry && g.keepNone(m, c, target) {
		return true
	}
	keep := g.cfg.Load().KeepTop
	chosen, left := c.find(target, keep, room)
	if (left >= most || len(chosen) == 0) && keep > 0 {
		chosen, left = c.find(target, 0, room)
	}
	if len(chosen) == 0 || left >= most {
		return false
	}
	slices.SortFunc(chosen, func(a, b int) int { return strings.Compare(c.keys[a].name, c.keys[b].name) })
	state := &folded{dry: dry, demand: newWindowIn(g)}
	if m.folded != nil {
		state.folds, state.demand, state.partial = slices.Clone(m.folded.folds), m.folded.demand, m.folded.partial
	}
	deeper := len(state.folds) > 0
	for _, i := range chosen {
		f := g.newFold(c.keys[i].name)
		for h := range c.keys[i].kept {
			f.kept[h] = &keptValue{count: 1}
		}
		if f.key == pooledKey {
			f.apart = map[string]bool{hostKey: true, deviceKey: true}
			for _, k := range c.keys {
				f.apart[k.name] = true
			}
			for key := range g.cfg.Load().protected {
				f.apart[key] = true
			}
		}
		f.valuesKnown, f.saved = max(c.keys[i].values, m.valuesOf(f.key)), before-c.left([]int{i})
		state.folds = append(state.folds, f)
	}
	state.version = g.version.Add(1)
	g.seed(m, c, state, chosen)
	m.folded = state
	for i := range chosen {
		g.reportFold(m, state.folds[len(state.folds)-len(chosen)+i], before, left, deeper, dry)
	}
	if !dry {
		m.stale += int32(g.countStale(c, chosen))
		g.change(m.number)
	}
	return true
}

// keepNone folds the values that keep their own series with the others, and reports
// whether that makes room. They go before another key is folded.
func (g *Guard) keepNone(m *tracked, c *choice, target int) bool {
	var again []int
	for _, f := range m.folded.folds {
		if i, known := c.byKey[f.key]; known && len(f.kept) > 0 {
			again = append(again, i)
		}
	}
	left := c.left(again)
	if len(again) == 0 || left > target {
		return false
	}
	values := 0
	for _, f := range m.folded.folds {
		values += len(f.kept)
		clear(f.kept)
	}
	m.folded.version, m.folded.base = g.version.Add(1), left
	g.countAnew(m, c, again)
	m.stale += int32(g.countStale(c, again))
	g.log.Info("values of folded tag keys lose their own series: there is no room", "metric", m.name, "kind", m.kind,
		"values", values, "contexts", len(c.rows), "contexts_left", left)
	g.change(m.number)
	return true
}

// countAnew lets the contexts count that there are when keys are folded, and no others.
func (g *Guard) countAnew(m *tracked, c *choice, chosen []int) {
	if m.watch == nil {
		return
	}
	m.watch.contexts = newWindow(contextPrecision)
	m.watch.known, m.watch.since, m.watch.next = 0, 0, 0
	for row := range c.rows {
		m.watch.contexts.insert(c.foldedSum(row, chosen))
	}
}

func newWindowIn(g *Guard) *window {
	if g.take(windowBytes(contextPrecision)) {
		return newWindow(contextPrecision)
	}
	return nil
}

// seed puts the contexts there are into the sketches of new folds.
func (g *Guard) seed(m *tracked, c *choice, state *folded, chosen []int) {
	if !state.dry {
		g.countAnew(m, c, chosen)
	}
	first := m.folded == nil
	for row := range c.rows {
		sum := c.foldedSum(row, chosen)
		if first {
			state.demand.insert(c.rows[row].sum)
		}
		for at, i := range chosen {
			f := state.folds[len(state.folds)-len(chosen)+at]
			h := c.value(row, i)
			if h == 0 {
				continue
			}
			f.values.insert(h)
			if c.keys[i].kept[h] {
				f.alone.insert(sum)
			} else {
				f.alone.insert(sum - c.keys[i].other + h)
			}
		}
	}
}

// countStale returns how many contexts are not what new folds make of them.
func (g *Guard) countStale(c *choice, chosen []int) (stale int) {
	for row := range c.rows {
		if c.foldedSum(row, chosen) != c.rows[row].sum {
			stale++
		}
	}
	return stale
}

// valuesOf returns the estimate of a key's distinct values in the window.
func (m *tracked) valuesOf(key string) int {
	if m.watch == nil {
		return 0
	}
	for i := range m.watch.keys {
		if m.watch.keys[i].key == key {
			return m.watch.keys[i].values.estimate()
		}
	}
	return 0
}

// change notes that what a metric's tags become is another than before.
func (g *Guard) change(number uint32) {
	g.changesMu.Lock()
	defer g.changesMu.Unlock()
	g.changes = append(g.changes, number)
	g.saveSoon()
}

// Changed returns the metrics whose folds changed since it was last called: where
// their samples go is to be asked anew.
func (g *Guard) Changed() []uint32 {
	g.changesMu.Lock()
	defer g.changesMu.Unlock()
	changes := g.changes
	g.changes = nil
	return changes
}
