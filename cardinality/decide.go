package cardinality

import (
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// maxFolds is how many keys of a metric may be folded.
const maxFolds = 16

// overflow does what is to be done when a metric has no room for a candidate. The
// lock is held. After a fold the candidate is rewritten and has room. undecided says that
// this was asked, and not answered yet.
func (g *Guard) overflow(s *shard, m *tracked, c *metric.Candidate, limit int) (changed, undecided bool, why metric.Reason) {
	policy := g.overflowOf(m)
	switch {
	case policy == metric.OverflowObserve:
		if !m.observed && m.folded == nil {
			m.observed = true
			if !g.ask(m, wouldFold) {
				g.observeOverflow(s, m, limit, false)
			}
		}
		return false, false, metric.Accepted
	case m.refusing:
		g.refuse(m, c)
		return false, false, metric.MetricLimit
	case policy == metric.OverflowDrop || !g.foldable(m):
		g.beginRefusing(s, m, limit, false)
		g.refuse(m, c)
		return false, false, metric.MetricLimit
	}
	if g.ask(m, whatToFold) {
		m.undecided = true
		return false, true, metric.Accepted
	}
	if !g.decide(s, m, limit, false, false) {
		g.beginRefusing(s, m, limit, false)
		g.refuse(m, c)
		return false, false, metric.MetricLimit
	}
	met, raw := c.Sighting.Version != 0, c.Sighting.Raw
	g.apply(m, c)
	if met { // by the folds there were before: it is rewritten and counted already
		c.Sighting.Raw = raw
	} else {
		g.observe(m, &c.Sighting, 1)
	}
	return true, false, metric.Accepted
}

// observeOverflow says what would become of a metric that has as many contexts as it may
// have. The lock is held; with apart it is given up meanwhile.
func (g *Guard) observeOverflow(s *shard, m *tracked, limit int, apart bool) {
	if !g.foldable(m) || !g.decide(s, m, limit, true, apart) {
		g.tellRefusal(s, m, limit, true, apart)
	}
}

// beginRefusing refuses further contexts of a metric until the next part of the
// window, and tells it once.
func (g *Guard) beginRefusing(s *shard, m *tracked, limit int, apart bool) {
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
	g.tellRefusal(s, m, limit, false, apart)
}

// tellRefusal tells once that a metric gets no further contexts, or would get none. If
// there is no memory to remember that, it tells nothing. With apart the lock is given up
// meanwhile.
func (g *Guard) tellRefusal(s *shard, m *tracked, limit int, dry, apart bool) {
	if m.watch == nil || m.watch.told {
		return
	}
	q := refusal
	if dry {
		q = wouldRefuse
	}
	m.watch.told = true
	if !apart && g.ask(m, q) {
		return
	}
	g.describeRefusal(s, m, limit, dry, apart)
}

func (g *Guard) describeRefusal(s *shard, m *tracked, limit int, dry, apart bool) {
	var c choice
	if apart {
		c.work = &g.work
		s.mu.Unlock()
	}
	g.load(&c, m, nil)
	for i := range c.keys {
		c.rank(i, 0)
	}
	if apart {
		s.mu.Lock()
	}
	g.reportRefusal(m, &c, limit, dry)
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

// decision is which keys of a metric are to be folded. It is made of the contexts there
// are without a lock, prepared, and put into force at once.
type decision struct {
	choice
	metric *tracked
	folded *folded // in force before; nil: none
	known  int     // contexts in the window; 0: there is no sketch
	limit  int
	dry    bool

	chosen []int   // keys to fold; of keepNone those that are folded already
	state  *folded // to be in force; nil: values lose their own series, and that is all
	left   int     // contexts, after it
	stale  int     // contexts that will be others
	anew   *window // those there will be
}

// decide folds further keys of a metric, and reports whether that makes room. With
// dry it only says what it would do. The lock is held; with apart it is given up while the
// contexts are looked at, and candidates of the metric wait: then g.deciding is held, so
// that nobody else changes the metric's folds.
func (g *Guard) decide(s *shard, m *tracked, limit int, dry, apart bool) bool {
	d := &decision{metric: m, folded: m.folded, limit: limit, dry: dry}
	if m.watch != nil {
		d.known = m.watch.known
	}
	if apart {
		d.work = &g.work
		m.undecided = m.undecided || !dry
		s.mu.Unlock()
	}
	made := g.choose(d)
	if apart {
		s.mu.Lock()
		m.undecided = m.undecided && dry
	}
	if !made {
		return false
	}
	g.enforce(d)
	return true
}

// choose finds out which keys are to be folded, and prepares that; false if it would make
// no room.
func (g *Guard) choose(d *decision) bool {
	c := &d.choice
	g.load(c, d.metric, d.folded)
	before, room := len(c.rows), maxFolds
	if d.folded != nil {
		room -= len(d.folded.folds)
	}
	// Those that the window counts and that are forgotten are taken to be like the others.
	share := 1.0
	if d.known > before {
		share = float64(before) / float64(d.known)
	}
	target, most := int(share*float64(d.limit)*foldTarget/4), max(2, int(share*float64(d.limit)))
	if d.folded != nil && !d.dry && d.keepNone(target) {
		d.count()
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
	d.chosen, d.left = chosen, left
	g.prepare(d)
	d.count()
	return true
}

// prepare makes the folds of the keys that are chosen.
func (g *Guard) prepare(d *decision) {
	c := &d.choice
	state := &folded{dry: d.dry, demand: newWindowIn(g)}
	if d.folded != nil {
		state.folds, state.demand, state.partial = slices.Clone(d.folded.folds), d.folded.demand, d.folded.partial
	}
	for _, i := range d.chosen {
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
		f.valuesKnown, f.saved = c.keys[i].values, len(c.rows)-c.left([]int{i})
		state.folds = append(state.folds, f)
	}
	d.state = state
	d.seed()
}

// enforce puts a decision into force. The lock is held.
func (g *Guard) enforce(d *decision) {
	m := d.metric
	if d.state == nil {
		g.enforceNone(d)
		return
	}
	folds := d.state.folds[len(d.state.folds)-len(d.chosen):]
	for _, f := range folds {
		f.valuesKnown = max(f.valuesKnown, m.valuesOf(f.key))
	}
	d.state.version = g.version.Add(1)
	if !d.dry {
		m.countAnew(d.anew)
	}
	m.folded = d.state
	for _, f := range folds {
		g.reportFold(m, f, len(d.rows), d.left, d.folded != nil && len(d.folded.folds) > 0, d.dry)
	}
	if !d.dry {
		m.stale += int32(d.stale)
		g.change(m.number)
	}
}

// keepNone folds the values that keep their own series with the others, and reports
// whether that makes room. They go before another key is folded.
func (d *decision) keepNone(target int) bool {
	var again []int
	for _, f := range d.folded.folds {
		if i, known := d.byKey[f.key]; known && len(f.kept) > 0 {
			again = append(again, i)
		}
	}
	left := d.choice.left(again)
	if len(again) == 0 || left > target {
		return false
	}
	d.chosen, d.left = again, left
	return true
}

// enforceNone lets no value keep its own series. The lock is held.
func (g *Guard) enforceNone(d *decision) {
	m, values := d.metric, 0
	for _, f := range m.folded.folds {
		values += len(f.kept)
		clear(f.kept)
	}
	m.folded.version, m.folded.base = g.version.Add(1), d.left
	m.countAnew(d.anew)
	m.stale += int32(d.stale)
	g.log.Info("values of folded tag keys lose their own series: there is no room", "metric", m.name, "kind", m.kind,
		"values", values, "contexts", len(d.rows), "contexts_left", d.left)
	g.change(m.number)
}

// count notes the contexts there will be, and how many are others than before.
func (d *decision) count() {
	d.anew = newWindow(contextPrecision)
	for row := range d.rows {
		sum := d.foldedSum(row, d.chosen)
		d.anew.insert(sum)
		if sum != d.rows[row].sum {
			d.stale++
		}
	}
}

// countAnew lets the contexts count that there are when keys are folded, and no others.
func (m *tracked) countAnew(contexts *window) {
	if m.watch == nil {
		return
	}
	m.watch.contexts = contexts
	m.watch.known, m.watch.since, m.watch.next = 0, 0, 0
}

func newWindowIn(g *Guard) *window {
	if g.take(windowBytes(contextPrecision)) {
		return newWindow(contextPrecision)
	}
	return nil
}

// seed puts the contexts there are into the sketches of new folds.
func (d *decision) seed() {
	c, state := &d.choice, d.state
	first := d.folded == nil
	for row := range c.rows {
		sum := c.foldedSum(row, d.chosen)
		if first {
			state.demand.insert(c.rows[row].sum)
		}
		for at, i := range d.chosen {
			f := state.folds[len(state.folds)-len(d.chosen)+at]
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
