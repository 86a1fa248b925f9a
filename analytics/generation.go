package analytics

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
)

// generation is a plan and what counts its events. It does not change, but for the period
// under way: for a new plan there is a new one. What has been counted outlives it: two
// generations share the rules, and the books of the events, that both have.
type generation struct {
	serial   int
	cfg      Config
	plan     *plan.Plan
	prefixes [][]byte         // longest first
	zones    []*time.Location // those of earlier generations first, so that a zone keeps its index

	events    map[*plan.Event]*event
	unplanned *event
	books     []*book // of all events there ever were, those of the plan first
	rules     []*selection
	metrics   []*metricState
	sketches  int // rules that have one for each day

	current atomic.Pointer[period]
}

// today returns the date in the zone of a rule.
func (g *generation) today(r *rule) day { return g.current.Load().days[r.zone] }

// Change is a plan that is about to come into force.
type Change struct {
	engine     *Engine
	generation *generation
}

// Prepare makes ready to count by another plan, and by what the configuration says of
// it. Where state is kept, the keys, the dead letters, Redis and where raw events go stay as
// they are. cfg must
// have passed Validate. If it fails, nothing has changed, and nothing does before Commit.
func (e *Engine) Prepare(cfg Config, p *plan.Plan) (*Change, error) {
	return e.prepareAt(cfg, p, time.Now())
}

func (e *Engine) prepareAt(cfg Config, p *plan.Plan, now time.Time) (*Change, error) {
	cfg.keep(&e.cfg)
	e.mu.Lock()
	defer e.mu.Unlock()
	g, fresh, err := e.compile(cfg, p, e.generation.Load())
	if err != nil {
		return nil, err
	}
	g.current.Store(periodAt(now.Unix(), g.zones))
	if err := e.recallRules(fresh, g); err != nil {
		return nil, err
	}
	e.settled = false
	e.rules = append(e.rules, fresh...)
	return &Change{e, g}, nil
}

// Commit lets identities be resolved by the new plan from now on. It is quick, and the
// caller sees to it that no reader is at work meanwhile.
func (c *Change) Commit() {
	c.engine.generation.Store(c.generation)
	if c.engine.raw != nil {
		c.engine.raw.SetPlan(c.generation.plan)
	}
}

// Settle is to be called when no reader has anything left that was resolved before
// Commit. What that counted is taken in, and what the plan does not have any more will be
// forgotten once it is saved.
func (c *Change) Settle() { c.settleAt(time.Now()) }

func (c *Change) settleAt(now time.Time) {
	e := c.engine
	e.drainUntil(now, c.generation.serial)
	e.mu.Lock()
	e.settled = e.generation.Load() == c.generation
	e.mu.Unlock()
	e.compute(now)
	e.logPlan(e.log)
}

// Counts reports whether the plan in force is p, and cfg says the same of it.
func (e *Engine) Counts(cfg Config, p *plan.Plan) bool {
	g := e.generation.Load()
	cfg.keep(&g.cfg)
	return reflect.DeepEqual(cfg, g.cfg) && reflect.DeepEqual(p, g.plan)
}

// recallRules gives rules what was saved of them before they were forgotten, or else
// notes that they count from today on. e.mu is held.
func (e *Engine) recallRules(rules []*rule, g *generation) error {
	packer := newPacker()
	for _, r := range rules {
		r.disk = e.store
		id := ruleKey(r.text, r.keyID)
		err := e.store.recordsOf(id, func(rec *record) error { return r.restore(rec, g.today(r)-lateDays, packer) })
		if errors.Is(err, errDamaged) {
			e.stats.damaged.Add(1)
			e.log.Error("a count was damaged, and is lost", "file", e.store.path, "record", fmt.Sprintf("%x", id), "error", err)
		} else if err != nil {
			return fmt.Errorf("read the counts of %s: %w", r.text, err)
		}
	}
	e.orphans = slices.DeleteFunc(e.orphans, func(o *record) bool {
		return slices.ContainsFunc(rules, func(r *rule) bool { return r.text == o.rule && r.keyID == o.keyID })
	})
	return e.begin(rules, g)
}

// forgetRules drops from memory the rules that the plan does not have any more, once
// they are saved. e.mu is held.
func (e *Engine) forgetRules() {
	g := e.generation.Load()
	if !e.settled || len(e.rules) == len(g.rules) {
		return
	}
	inForce := map[*rule]bool{}
	for _, s := range g.rules {
		inForce[s.rule] = true
	}
	e.rules = slices.DeleteFunc(e.rules, func(r *rule) bool {
		if inForce[r] {
			return false
		}
		left, clean := r.left()
		if clean {
			e.orphans = append(e.orphans, left...)
		}
		return clean
	})
}

// left returns which days of a rule are on disk; clean is false if that is not all.
func (r *rule) left() (days []*record, clean bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, c := range r.days {
		if c.version != c.saved {
			return nil, false
		}
		days = append(days, &record{rule: r.text, keyID: r.keyID, day: d})
	}
	if r.past.version > 0 {
		days = append(days, &record{rule: r.text, keyID: r.keyID, day: forever})
	}
	return days, true
}

func prefixesOf(cfg *Config) (all [][]byte) {
	for _, prefix := range cfg.Prefixes {
		all = append(all, []byte(prefix))
	}
	slices.SortFunc(all, func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
	return all
}

// cutPrefix returns the longest of the prefixes that a name has and what follows it, be
// it nothing; a nil name if it has none.
func (g *generation) cutPrefix(full []byte) (prefix, name []byte) {
	for _, p := range g.prefixes { // longest first
		if bytes.HasPrefix(full, p) {
			return full[:len(p)], full[len(p):]
		}
	}
	return nil, nil
}
