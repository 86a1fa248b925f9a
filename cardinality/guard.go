// Package cardinality bounds how many contexts there are. It finds the tag key whose
// values make too many contexts of a metric and folds it: the most frequent values
// keep their own series, the rest become one.
//
//	new context ──▶ its metric has room?   yes: admitted
//	                │
//	                └ no: which keys, folded, leave the fewest contexts? fold them:
//	                  request_id:4f1c… ──▶ request_id:_other_
//
// A metric is a name with its kind. What counts is how many distinct contexts it had
// in a sliding window. Far below its limit only a number is kept for it; from half of
// the limit on, HyperLogLog sketches say how many distinct values each tag key had. A
// fold is lifted when the window would have less than half of the limit without it.
//
// Which keys to fold is a question about all contexts of a metric, which takes some
// milliseconds for ten thousand. While Run runs no reader waits for the answer, and no
// lock is held for it: samples of the metric that are met for the first time wait with
// their worker until it is there, and then count as if they had come after it.
//
// In: Candidates, before their contexts are looked for, and how many samples came for
// those of folded metrics. Out: Candidates rewritten, admitted or refused; events
// about what was decided. It sees no values and does not run per sample.
package cardinality

import (
	"log/slog"
	"math"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-agent/weir/internal/holds"
	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

const (
	shards    = 64
	shardBits = 6

	// maxTracked is how many metrics are told apart. Of further ones only the limit of
	// the whole agent is kept. Their names may be long, but not all of them.
	maxTracked      = 1 << 18
	maxTrackedBytes = 64 << 20
	// maxSketchBytes bounds all sketches. A metric that gets none is folded all the same,
	// and its fold is lifted after a window, to be tried anew.
	maxSketchBytes = 48 << 20
)

// Guard decides which contexts are made. Its methods may be called by several
// goroutines at once, Tick by one.
type Guard struct {
	log     *slog.Logger
	hash    hasher
	file    string // of the state; "": none
	save    chan struct{}
	cfg     atomic.Pointer[settings]
	shards  [shards]shard
	live    atomic.Int64 // contexts, those about to be forgotten included
	tracked atomic.Int64 // metrics
	names   atomic.Int64 // bytes of their names
	memory  atomic.Int64 // of sketches
	level   atomic.Int64 // what the limit of the whole agent leaves to a metric
	version atomic.Uint64
	crowded bool          // by Tick: the limit of the whole agent presses
	elapsed time.Duration // by Tick: since the start
	rotated time.Duration // by Tick: when the current part of the window began
	now     atomic.Int64  // Unix seconds of the last Tick
	full    atomic.Bool   // the whole agent's limit refused a context since the last Tick
	changed atomic.Bool   // the configuration, since the last Tick
	members Members

	renaming atomic.Pointer[renaming] // the last; nil: there was none

	deciding  sync.Mutex    // held for an answer, and for a Tick: one at a time; taken before that of a shard
	work      priority.Work // what is done with it held, and no lock besides
	running   atomic.Bool   // what Admit asks is answered by Run, and not by itself
	asked     chan struct{} // there are questions
	askedMu   sync.Mutex    // guards the field below
	questions []question

	changesMu sync.Mutex // guards the field below
	changes   []uint32

	reports
}

// settings is a configuration made ready.
type settings struct {
	Config
	protected map[string]bool
}

// shard is a share of the metrics.
type shard struct {
	mu      holds.Mutex
	byHash  map[uint64]uint32 // of kind and name, to the index in metrics
	metrics []*tracked
	free    []uint32
}

// tracked is what is known of a metric, or of those of its contexts that meet a rule
// for some tags.
type tracked struct {
	kind   metric.Kind
	name   string
	rule   string             // what it asks of tags; "": nothing
	hash   uint64             // of all three
	number uint32             // 0 is that of metrics that are not told apart
	live   int32              // contexts, those to be forgotten left out
	stale  int32              // of live, how many a fold will make be forgotten
	gone   [windowParts]int32 // contexts forgotten, by part of the window
	part   uint8              // the current one
	budget *metric.Budget
	watch  *watch  // near its limit; nil: not
	folded *folded // nil: no fold

	refusing  bool // until the next part of the window
	observed  bool // that fold would decide something, in this part of the window
	undecided bool // which keys to fold: candidates wait

	renaming *renaming // that renamed is of
	renamed  int       // contexts there were when all got other tags: they do not count for a while

	rebudgeted bool // the budget is another one since the last Tick
}

// watch is what is kept of a metric near its limit.
type watch struct {
	contexts *window // as they are after folding
	demand   *window // with those refused; nil: none was
	keys     []keyWatch
	known    int  // the estimate of contexts when it was last made
	since    int  // admitted since then
	next     int  // admitted until it is to be made again
	told     bool // that it is refused; until the demand is below half of the limit
	fed      bool // with the contexts there were before
}

// keyWatch counts the distinct values of a tag key.
type keyWatch struct {
	key    string
	values *window
}

const (
	maxWatchedKeys = 16
	// fewContexts is the share of the limit that a metric may have whatever the window
	// says, so that there is something to find the guilty key in.
	fewContexts = 8
)

// New returns a Guard that has decided nothing; cfg must have passed Validate.
func New(cfg Config, log *slog.Logger) *Guard {
	g := &Guard{log: log, hash: newHasher(), save: make(chan struct{}, 1), asked: make(chan struct{}, 1)}
	g.level.Store(math.MaxInt32)
	for i := range g.shards {
		g.shards[i].byHash = map[uint64]uint32{}
	}
	g.SetConfig(cfg)
	g.now.Store(time.Now().Unix())
	return g
}

// SetConfig changes the limits; cfg must have passed Validate. At the next Tick folds
// begin and end that the new ones ask for. If nothing is new, nothing happens.
func (g *Guard) SetConfig(cfg Config) {
	if before := g.cfg.Load(); before != nil && reflect.DeepEqual(before.Config, cfg) {
		return
	}
	s := &settings{Config: cfg, protected: map[string]bool{resourceKey: true}}
	for _, key := range cfg.Protect {
		s.protected[key] = true
	}
	g.cfg.Store(s)
	g.changed.Store(true)
}

// Members yields the contexts of a metric.
type Members func(kind metric.Kind, number uint32, yield func(metric.Member))

// SetMembers says how to look at the contexts there are, before the first candidate
// comes. It may be called with a lock of the Guard held.
func (g *Guard) SetMembers(members func(metric.Kind, uint32, func(metric.Member))) {
	g.members = members
}

// shardOf returns where the metric of a candidate is, and its hash.
func (g *Guard) shardOf(c *metric.Candidate) (*shard, uint64) {
	hash := g.hash.bytes(c.Name) + uint64(c.Kind)
	if rule := partOf(c); rule != "" {
		hash += g.hash.bytes(bytesOf(rule))
	}
	return &g.shards[hash%shards], hash
}

func partOf(c *metric.Candidate) string {
	if c.Budget == nil {
		return ""
	}
	return c.Budget.Part
}

// find returns the metric of a candidate, nil if it is not known. The lock is held.
func (s *shard) find(hash uint64, c *metric.Candidate) *tracked {
	i, known := s.byHash[hash]
	if !known {
		return nil
	}
	if m := s.metrics[i]; m.kind == c.Kind && m.name == string(c.Name) && m.rule == partOf(c) {
		return m
	}
	return nil
}

// setBudget notes what rules say of a metric.
func (m *tracked) setBudget(b *metric.Budget) {
	if m.budget != b {
		m.rebudgeted = m.rebudgeted || m.budget == nil || b == nil || *m.budget != *b
		m.budget = b
		if m.watch != nil {
			m.watch.next = 0 // how much room there is is another question now
		}
	}
}

// at returns the metric of a number, nil if it is untracked; the lock is held.
func (g *Guard) lock(number uint32) (*shard, *tracked) {
	s := &g.shards[number&(shards-1)]
	s.mu.Lock()
	if i := number >> shardBits; i > 0 && int(i) <= len(s.metrics) {
		return s, s.metrics[i-1]
	}
	return s, nil
}

// track begins to tell a metric apart; nil if there are too many.
func (g *Guard) track(s *shard, hash uint64, c *metric.Candidate) *tracked {
	if _, taken := s.byHash[hash]; taken || g.tracked.Load() >= maxTracked || g.names.Load()+int64(len(c.Name)) > maxTrackedBytes {
		g.counts.untracked.Add(1)
		return nil
	}
	m := &tracked{kind: c.Kind, name: string(c.Name), rule: strings.Clone(partOf(c)), hash: hash, budget: c.Budget}
	i := uint32(len(s.metrics))
	if n := len(s.free); n > 0 {
		i, s.free = s.free[n-1], s.free[:n-1]
		s.metrics[i] = m
	} else {
		s.metrics = append(s.metrics, m)
	}
	m.number = (i+1)<<shardBits | uint32(hash%shards)
	s.byHash[hash] = i
	g.tracked.Add(1)
	g.names.Add(int64(len(m.name)))
	return m
}

// limitOf returns how many contexts a metric may have.
func (g *Guard) limitOf(m *tracked) int {
	limit := g.cfg.Load().MaxContextsPerMetric
	if m.budget != nil && m.budget.MaxContexts > 0 {
		limit = m.budget.MaxContexts
	}
	return min(limit, int(g.level.Load()))
}

// overflowOf returns what happens at the limit: fold, drop or observe.
func (g *Guard) overflowOf(m *tracked) string {
	if m.budget != nil && m.budget.Overflow != "" {
		return m.budget.Overflow
	}
	return g.cfg.Load().Overflow
}

// foldable reports whether the contexts of a metric may become one.
func (g *Guard) foldable(m *tracked) bool {
	gauge := m.kind == metric.Gauge || m.kind == metric.KeptGauge
	return !gauge || g.cfg.Load().Gauges == GaugesLatest
}

// Meet applies the folds in force to a candidate, and reports whether there are any:
// then its Sighting is to be remembered. If it is undecided what to fold, the candidate is
// to be met again when that is decided.
func (g *Guard) Meet(c *metric.Candidate) (folded, undecided bool) {
	s, hash := g.shardOf(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.Sighting.Version = 0
	m := s.find(hash, c)
	if m == nil {
		return false, false
	}
	m.setBudget(c.Budget)
	if m.undecided {
		return false, true
	}
	if m.folded == nil || m.folded.dry {
		return false, false
	}
	g.apply(m, c)
	g.observe(m, &c.Sighting, 1)
	return true, false
}

// Observe counts samples that came for a candidate since it was met.
func (g *Guard) Observe(seen *metric.Sighting, samples uint32) {
	s, m := g.lock(seen.Metric)
	defer s.mu.Unlock()
	if m != nil && m.folded != nil && m.folded.version == seen.Version {
		g.observe(m, seen, samples)
	}
}

// Admit is asked before the context of a candidate is made. The answer is Accepted, or
// why it is refused. It may begin a fold: then changed is true, the candidate is
// another one, and its context may exist already. The caller calls Withdraw if it did
// not make the context after all. If it is undecided what to fold, the candidate is to be
// met again when that is decided.
func (g *Guard) Admit(c *metric.Candidate) (changed, undecided bool, why metric.Reason) {
	if g.live.Load() >= int64(g.cfg.Load().MaxContexts) {
		g.full.Store(true)
		return false, false, metric.ContextLimit
	}
	s, hash := g.shardOf(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(hash, c)
	if m == nil {
		if m = g.track(s, hash, c); m == nil {
			c.Sighting = metric.Sighting{Values: c.Sighting.Values[:0]}
			g.live.Add(1)
			return false, false, metric.Accepted
		}
	}
	c.Sighting.Metric = m.number
	m.setBudget(c.Budget)
	if m.undecided {
		return false, true, metric.Accepted
	}
	g.noteRenaming(m)
	limit := g.limitOf(m)
	if m.watch == nil && m.count() >= limit/2 {
		g.beginWatch(m)
	}
	if g.isFull(m, limit+m.renamed) {
		if changed, undecided, why = g.overflow(s, m, c, limit); undecided || why != metric.Accepted {
			return changed, undecided, why
		}
	}
	m.live++
	g.live.Add(1)
	if !changed && m.watch != nil {
		g.watchCandidate(m, c)
	}
	return changed, false, metric.Accepted
}

// count returns how many contexts a metric had in the window, those that came back
// counted twice.
func (m *tracked) count() int {
	n := int(m.live) - int(m.stale)
	for _, gone := range m.gone {
		n += int(gone)
	}
	return n
}

// isFull reports whether a metric may have no further context. With sketches those
// that came back count once.
func (g *Guard) isFull(m *tracked, limit int) bool {
	w := m.watch
	live := int(m.live) - int(m.stale)
	switch {
	case m.refusing:
		return true
	case live >= limit || w == nil:
		return m.count() >= limit
	case live < limit/fewContexts:
		return false
	}
	if w.since >= w.next {
		w.known, w.since = w.contexts.estimate(), 0
		w.next = max(limit-w.known, limit/64, 1)
	}
	return w.known >= limit
}

// Gone says that a context of a metric is forgotten, or was not made; of stale ones
// that a fold did it.
func (g *Guard) Gone(number uint32, stale bool) {
	g.live.Add(-1)
	s, m := g.lock(number)
	defer s.mu.Unlock()
	if m == nil {
		return
	}
	m.live--
	if stale {
		m.stale = max(0, m.stale-1)
	} else {
		m.gone[m.part]++
	}
}

// Withdraw says that a context that was admitted was not made.
func (g *Guard) Withdraw(number uint32) {
	g.live.Add(-1)
	s, m := g.lock(number)
	defer s.mu.Unlock()
	if m != nil {
		m.live--
	}
}

// Renamed says that a reload gave other tags to all contexts there are: for a while there
// will be twice as many, and no key is to blame. keep is how long a silent context is
// kept.
//
// All readers wait while it is called: a metric takes notice when it is asked for more.
func (g *Guard) Renamed(keep time.Duration) {
	g.renaming.Store(&renaming{until: g.elapsed + keep + g.cfg.Load().Window})
}

// renaming is a moment at which all contexts got other tags.
type renaming struct {
	until time.Duration // how long those there were do not count
}

// noteRenaming lets the contexts that a metric has not count, if all of them got other
// tags since it was last called. The lock is held.
func (g *Guard) noteRenaming(m *tracked) {
	if last := g.renaming.Load(); last != m.renaming {
		m.renaming, m.renamed = last, min(m.count(), g.limitOf(m))
	}
}

// Settled says that all that a change of folds made stale is forgotten.
func (g *Guard) Settled(number uint32) {
	s, m := g.lock(number)
	defer s.mu.Unlock()
	if m != nil {
		m.stale = 0
	}
}

// beginWatch begins to sketch a metric, if there is memory for it. What it has already
// is sketched at the end of the interval.
func (g *Guard) beginWatch(m *tracked) {
	if !g.take(windowBytes(contextPrecision)) {
		return
	}
	m.watch = &watch{contexts: newWindow(contextPrecision)}
	m.watch.next = max(1, g.limitOf(m)-m.count())
	g.counts.watched.Add(1)
}

func (g *Guard) endWatch(m *tracked) {
	w := m.watch
	if w == nil {
		return
	}
	g.memory.Add(-w.contexts.bytes() - w.demand.bytes())
	for i := range w.keys {
		g.memory.Add(-w.keys[i].values.bytes())
	}
	m.watch = nil
	g.counts.watched.Add(-1)
}

// take reserves memory for sketches.
func (g *Guard) take(bytes int64) bool {
	if g.memory.Add(bytes) <= maxSketchBytes {
		return true
	}
	g.memory.Add(-bytes)
	g.counts.unsketched.Add(1)
	return false
}

// watchCandidate sketches a candidate that is admitted.
func (g *Guard) watchCandidate(m *tracked, c *metric.Candidate) {
	w := m.watch
	var sum uint64
	hint := 0
	tag := func(tag []byte) {
		h := g.hash.bytes(tag)
		sum += h
		hint = g.watchValue(w, tag, h, hint)
	}
	for _, t := range c.Tags {
		tag(t)
	}
	forOther(c, tag)
	w.contexts.insert(sum)
	w.demand.insert(sum)
	w.since++
}

// watchValue sketches the value of a tag. Tags come sorted, so its key is most often
// the one after the last.
func (g *Guard) watchValue(w *watch, tag []byte, hash uint64, hint int) int {
	key := keyOf(tag)
	for i := range w.keys {
		at := hint + i
		if at >= len(w.keys) {
			at -= len(w.keys)
		}
		if w.keys[at].key == string(key) {
			w.keys[at].values.insert(hash)
			return at + 1
		}
	}
	if len(w.keys) < maxWatchedKeys && len(key) <= maxKeyBytes && g.take(windowBytes(valuePrecision)) {
		w.keys = append(w.keys, keyWatch{string(key), newWindow(valuePrecision)})
		w.keys[len(w.keys)-1].values.insert(hash)
	}
	return len(w.keys)
}
