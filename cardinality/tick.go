package cardinality

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/weir-agent/weir/internal/holds"
	"github.com/weir-agent/weir/metric"
)

const (
	// A value gets its own series if it is one in keptShare of the samples, and came so
	// often since it is looked for.
	keptShare   = 1000
	keptSamples = 8
	// keptLead is how many times as often as the least of those that keep their series a
	// value must come to take its place.
	keptLead = 2

	// Beyond crowdedShare of the whole agent's limit, in tenths, the largest metrics are
	// folded harder, until all together want calmShare.
	crowdedShare = 8
	calmShare    = 7
	minLevel     = 100 // contexts that any metric may have
	foldsAtOnce  = 16  // by the limit of the whole agent, in an interval
)

// Wanted returns the metrics of which the contexts that had samples since the given
// number of intervals are to be told to Alive before the next Tick; nil if none is.
func (g *Guard) Wanted(interval time.Duration) (metrics map[uint32]bool, intervals uint32) {
	rotating := g.rotates(interval)
	if g.counts.watched.Load() == 0 {
		return nil, 0
	}
	g.each(func(_ *shard, m *tracked) {
		if w := m.watch; w != nil && (rotating || !w.fed) {
			if metrics == nil {
				metrics = map[uint32]bool{}
			}
			metrics[m.number] = true
			w.fed = true
		}
	})
	part := g.cfg.Load().Window / windowParts
	return metrics, uint32(max(1, (part+interval-1)/interval))
}

func (g *Guard) rotates(interval time.Duration) bool {
	return g.elapsed+interval-g.rotated >= g.cfg.Load().Window/windowParts
}

// lockedAtOnce is how many metrics are looked at before readers that wait for the lock
// get a turn, of those that have no sketches.
const lockedAtOnce = 64

// each calls do for all metrics, with the lock of their shard held. Readers get their turn
// in between.
func (g *Guard) each(do func(*shard, *tracked)) {
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		for j, since := 0, 0; j < len(s.metrics); j++ {
			m := s.metrics[j]
			if m == nil {
				continue
			}
			sketched := m.watch != nil || m.folded != nil
			do(s, m)
			if since++; sketched || since == lockedAtOnce {
				since = 0
				holds.EndTurn(&s.mu)
				s.mu.Lock()
			}
		}
		s.mu.Unlock()
	}
}

// Alive sketches a context of a metric that is near its limit.
func (g *Guard) Alive(number uint32, context *metric.Context) {
	s, m := g.lock(number)
	defer s.mu.Unlock()
	if m == nil || m.watch == nil || !g.keeps(m, context) {
		return
	}
	var sum uint64
	hint := 0
	eachTag(context, func(tag []byte) {
		h := g.hash.bytes(tag)
		sum += h
		hint = g.watchValue(m.watch, tag, h, hint)
	})
	m.watch.contexts.insert(sum)
	m.watch.demand.insert(sum)
}

// Tick ends an interval: folds that are no longer needed are lifted, values that have
// become frequent get their own series, the window moves on. It returns what was
// decided since it was last called, at most so many events as are worth reading.
func (g *Guard) Tick(now time.Time, interval time.Duration) []metric.Event {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	rotating := g.rotates(interval)
	g.elapsed += interval
	g.now.Store(now.Unix())
	if rotating {
		g.rotated = g.elapsed
	}
	changed := g.changed.Swap(false)
	g.each(func(s *shard, m *tracked) {
		if changed || m.rebudgeted {
			m.rebudgeted = false
			g.obey(s, m)
		}
		if f := m.folded; f != nil && !f.dry {
			g.chooseKept(m, rotating)
		}
		if rotating {
			g.rotate(s, m)
		}
	})
	g.relieve()
	if g.folding() && rotating {
		g.saveSoon()
	}
	return g.takeEvents()
}

// rotate moves the window of a metric on, and decides what the new count asks for.
func (g *Guard) rotate(s *shard, m *tracked) {
	m.part = (m.part + 1) % windowParts
	m.gone[m.part] = 0
	m.refusing, m.observed = false, false
	g.noteRenaming(m)
	if m.renaming != nil && g.elapsed > m.renaming.until {
		m.renamed = 0
	}
	limit := g.limitOf(m)
	if w := m.watch; w != nil {
		w.contexts.rotate()
		w.demand.rotate()
		for i := range w.keys {
			w.keys[i].values.rotate()
		}
		w.known, w.since, w.next = w.contexts.estimate(), 0, 0
		demand := w.known
		if w.demand != nil {
			demand = w.demand.estimate()
		}
		if w.told && demand < limit/2 {
			w.told = false
			g.memory.Add(-w.demand.bytes())
			w.demand = nil
			g.reportEnd(m)
		}
	}
	if f := m.folded; f != nil {
		f.demand.rotate()
		for _, one := range f.folds {
			one.values.rotate()
			one.alone.rotate()
			one.heavy.age()
			for _, k := range one.kept {
				k.count /= 2
			}
		}
		g.lift(m, limit/2)
	}
	if w := m.watch; w != nil && m.folded == nil && !w.told && max(w.known, m.count()) < limit/4 {
		g.endWatch(m)
	}
	if m.live == 0 && m.count() == 0 && m.folded == nil && m.watch == nil {
		i := s.byHash[m.hash]
		delete(s.byHash, m.hash)
		s.metrics[i] = nil
		s.free = append(s.free, i)
		g.tracked.Add(-1)
		g.names.Add(-int64(len(m.name)))
	}
}

// obey does with a metric what a new configuration asks for.
func (g *Guard) obey(s *shard, m *tracked) {
	limit := g.limitOf(m)
	folding := g.overflowOf(m) == metric.OverflowFold && g.foldable(m)
	if m.folded != nil {
		enough := limit * foldTarget / 4
		if m.folded.dry == folding { // it folds no more, or does not only say so
			enough = math.MaxInt
		}
		g.lift(m, enough)
	}
	if m.folded == nil && folding && int(m.live)-int(m.stale) > limit {
		if m.watch == nil {
			g.beginWatch(m)
		}
		g.decide(s, m, limit, false, true)
	}
	if m.watch != nil {
		m.watch.next = 0
	}
	m.refusing, m.observed = false, false
}

// lift ends folds without which a metric would have fewer contexts than enough: all at
// once, or one of several.
func (g *Guard) lift(m *tracked, enough int) {
	f := m.folded
	window := g.cfg.Load().Window
	for _, one := range f.folds {
		if enough < math.MaxInt && (one.until > g.elapsed || f.demand == nil && one.began+window > g.elapsed) {
			return
		}
	}
	f.known = f.demand.estimate()
	if f.dry && m.watch != nil {
		f.known = m.watch.contexts.estimate()
	}
	if f.known < enough {
		for _, one := range f.folds {
			g.release(one)
			g.reportLift(m, one, f.dry)
		}
		if m.watch != nil && f.demand != nil && !f.dry {
			m.watch.contexts, f.demand = f.demand, m.watch.contexts // what counts is not folded from here on
		}
		g.memory.Add(-f.demand.bytes())
		dry := f.dry
		m.folded = nil
		if !dry {
			m.stale = 0
			g.change(m.number)
		}
		return
	}
	if f.dry || len(f.folds) == 1 || g.elapsed-f.partial < window {
		return
	}
	for i, one := range f.folds {
		if one.heavy == nil || g.elapsed-one.began < window || one.alone.estimate() >= enough {
			continue
		}
		// What the others' sketches say is true again after a window.
		g.release(one)
		g.reportLift(m, one, false)
		f.folds = slices.Delete(slices.Clone(f.folds), i, i+1)
		f.partial, f.version = g.elapsed, g.version.Add(1)
		g.change(m.number)
		return
	}
}

// chooseKept gives values their own series that have become frequent, where there is
// room, or, when the window moves on, in place of others.
//
// A value that keeps its series has as many contexts as those that do not have
// together, in the mean: so much room it needs, or another key would have to be folded
// for it.
func (g *Guard) chooseKept(m *tracked, rotating bool) {
	keep, changed := g.cfg.Load().KeepTop, false
	contexts := m.folded.product()
	if base := (int(m.live) - int(m.stale) + contexts - 1) / contexts; rotating || base > m.folded.base {
		m.folded.base = base
	}
	contexts *= m.folded.base
	room := g.limitOf(m) * foldTarget / 4
	for _, f := range m.folded.folds {
		if f.heavy == nil {
			continue
		}
		total := f.heavy.total
		for hash, k := range f.kept {
			total += uint64(k.count)
			if rotating && k.count == 0 {
				delete(f.kept, hash)
				changed = true
			}
		}
		for len(f.kept) > keep {
			weakest, _ := f.weakest()
			delete(f.kept, weakest)
			changed = true
		}
		least := uint32(min(max(total/keptShare, keptSamples), math.MaxUint32))
		for _, e := range f.heavy.top(keep, least) {
			more := contexts / (1 + len(f.kept))
			if len(f.kept) >= keep || contexts+more > room {
				weakest, count := f.weakest()
				if !rotating || len(f.kept) == 0 || uint64(e.sure()) < keptLead*uint64(count) {
					break
				}
				delete(f.kept, weakest)
				contexts -= more
			}
			contexts += more
			f.kept[e.hash] = &keptValue{count: f.heavy.remove(e.hash)}
			changed = true
		}
	}
	if changed {
		m.folded.version = g.version.Add(1)
		g.change(m.number)
	}
}

// product returns how many combinations there are of values that keep their own series
// and the others of each key.
func (m *folded) product() int {
	n := 1
	for _, f := range m.folds {
		n = min(n*(1+len(f.kept)), math.MaxInt32)
	}
	return n
}

// weakest returns the value that came least often of those that keep their series.
func (f *fold) weakest() (hash uint64, count uint32) {
	count = math.MaxUint32
	for h, k := range f.kept {
		if k.count < count || k.count == count && h < hash {
			hash, count = h, k.count
		}
	}
	return hash, count
}

// relieve keeps the whole agent from its limit: it finds the number of contexts that,
// if no metric had more, would leave enough room for all, and folds those that do. So
// the largest pay, and not those that come late.
func (g *Guard) relieve() {
	most := int64(g.cfg.Load().MaxContexts)
	full := g.full.Swap(false)
	if !g.crowded && !full && g.live.Load() <= most/10*crowdedShare {
		return
	}
	type large struct {
		number uint32
		kind   metric.Kind
		wants  int
		has    int
	}
	all := make([]large, 0, g.tracked.Load()) // or it would be copied with a lock held
	others := g.live.Load()                   // of metrics that are not told apart
	g.each(func(_ *shard, m *tracked) {
		has := int(m.live) - int(m.stale)
		others -= int64(m.live)
		wants := has
		if m.folded != nil && !m.folded.dry {
			wants = max(wants, m.folded.known)
		}
		own := g.cfg.Load().MaxContextsPerMetric
		if m.budget != nil && m.budget.MaxContexts > 0 {
			own = m.budget.MaxContexts
		}
		all = append(all, large{m.number, m.kind, min(wants, own), has})
	})
	slices.SortFunc(all, func(a, b large) int { return cmp.Compare(b.wants, a.wants) })
	room := most*calmShare/10 - max(0, others)
	rest := int64(0)
	for _, l := range all {
		rest += int64(l.wants)
	}
	if rest <= room {
		g.crowded = false
		g.level.Store(math.MaxInt32)
		return
	}
	// Of the largest n each gets as much as the n-th wants, or what is left for it.
	level := int64(minLevel)
	for n, l := range all {
		rest -= int64(l.wants)
		next := int64(0)
		if n+1 < len(all) {
			next = int64(all[n+1].wants)
		}
		if share := (room - rest) / int64(n+1); share >= next {
			level = max(share, minLevel)
			break
		}
	}
	if !g.crowded {
		g.reportCrowded(level)
	}
	g.crowded = true
	g.level.Store(level)
	if full {
		g.counts.full.Add(1)
	}
	slices.SortFunc(all, func(a, b large) int { return cmp.Compare(b.has, a.has) })
	for _, l := range all[:min(foldsAtOnce, len(all))] {
		if int64(l.has) <= level {
			break
		}
		s, m := g.lock(l.number)
		if m != nil && g.foldable(m) && g.overflowOf(m) == metric.OverflowFold {
			g.decide(s, m, int(level), false, true)
		}
		s.mu.Unlock()
	}
}

// folding reports whether there is anything to remember over a restart.
func (g *Guard) folding() bool { return g.counts.watched.Load()+g.counts.folds.Load() > 0 }
