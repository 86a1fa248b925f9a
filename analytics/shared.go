package analytics

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/axiomhq/hyperloglog"

	"github.com/weir-agent/weir/analytics/fleet"
	"github.com/weir-agent/weir/analytics/plan"
)

// sharedRule is a rule whose counts are shared, and what Redis has of it.
type sharedRule struct {
	*rule
	prefix string // of its keys
	weekly string // raw: of GitLab's keys; "" without
	keep   day    // for how many days
	ever   bool   // a metric asks for all time
	since  day    // the first day any host counted
	cells  map[window]*cell
}

// cell is what Redis has under one key: a day, a week, or all time of a rule.
type cell struct {
	of      window
	key     string
	expire  time.Time // zero: never
	known   *fleet.Registers
	sent    uint64 // version of the count that Redis has all of; 0: of none
	local   uint64 // version of the count
	fetched time.Time
	checked bool // it was there at the last repair
	foreign bool // something else is there
}

// adopt shares by another plan from now on. What Redis has of the rules that both plans
// have stays known.
func (s *sharer) adopt(g *generation) {
	before := s.byRule
	s.plan, s.rules, s.byRule = g, nil, map[*rule]*sharedRule{}
	for _, m := range g.metrics {
		if !m.shared() {
			continue
		}
		for _, keys := range m.rules {
			for _, r := range keys {
				s.share(r, m.def)
			}
		}
	}
	for _, r := range s.rules {
		known := before[r.rule]
		if known == nil {
			s.sinceDays = false
			continue
		}
		r.since = known.since
		if r.keep == known.keep { // or else all of it expires at another time
			r.cells = known.cells
		}
		if !r.ever {
			delete(r.cells, everWindow)
		}
	}
	s.computed = time.Time{}
}

// share makes a rule one whose counts are shared, because a metric needs it.
func (s *sharer) share(r *selection, m *plan.Metric) {
	if r.overflow {
		return
	}
	one := s.byRule[r.rule]
	if one == nil {
		kind := "t"
		if r.unique {
			kind = "u"
		}
		sum := sha256.Sum256([]byte(r.keyID + "\n" + r.fingerprint + "\n" + r.text))
		one = &sharedRule{
			rule: r.rule, prefix: fmt.Sprintf("%s{%s:%x}:", s.cfg.KeyPrefix, kind, sum[:idBytes]),
			keep: day(s.plan.cfg.Retention / oneDay), since: r.since, cells: map[window]*cell{},
		}
		if s.cfg.Element == fleet.Raw && r.unique && r.zone == 0 {
			one.weekly = gitLabName(&r.Rule)
		}
		s.byRule[r.rule] = one
		s.rules = append(s.rules, one)
	}
	for _, frame := range m.TimeFrames {
		one.ever = one.ever || frame == plan.FrameAll
		if frame == plan.FrameMonth {
			one.keep = max(one.keep, longestMonth)
		}
	}
}

// fingerprint tells secrets apart that have one id.
func (k key) fingerprint() string {
	if k.secret == nil {
		return ""
	}
	return hex.EncodeToString(k.mac("fleet")[:8])
}

// gitLabName returns what the keys of GitLab's own unique counters begin with.
func gitLabName(r *plan.Rule) string {
	name := "{hll_counters}_" + r.Event.Name
	if len(r.Filter) > 0 {
		var conditions []string
		for _, c := range r.Filter { // sorted by attribute
			conditions = append(conditions, c.Attribute+":"+c.Value)
		}
		name += "-filter:[" + strings.Join(conditions, ",") + "]"
	}
	return name + "-" + strings.TrimSuffix(r.Event.Attributes[r.By].Identity, ".id") + "-"
}

// cell returns that of a window, and makes it.
func (r *sharedRule) cell(w window, weekly bool, zone *time.Location) *cell {
	if c := r.cells[w]; c != nil {
		return c
	}
	c := &cell{of: w, key: r.keyOf(w, weekly)}
	if w != everWindow {
		keep := r.keep
		if weekly {
			keep = max(keep, gitLabKeeps)
		}
		c.expire = time.Unix(w.Last.end(zone), 0).Add(time.Duration(keep) * oneDay)
	}
	r.cells[w] = c
	return c
}

func (r *sharedRule) keyOf(w window, weekly bool) string {
	switch {
	case w == everWindow:
		return r.prefix + "all"
	case weekly:
		year, week := w.First.utc().ISOWeek()
		return fmt.Sprintf("%s%04d-%02d", r.weekly, year, week)
	}
	return r.prefix + w.First.utc().Format("20060102")
}

// versions brings the cells of what this host counted up to date, and forgets those of
// days that are erased.
func (r *sharedRule) versions(zone *time.Location, today day) {
	for w, c := range r.cells {
		c.local = 0
		if w.Last < today-r.keep {
			delete(r.cells, w)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, count := range r.days {
		if count.version == 0 || d < today-r.keep {
			continue
		}
		mixed := (uint64(uint32(d))<<32 ^ count.version) * 0x9e3779b97f4a7c15
		r.cell(window{d, d}, false, zone).local = count.version
		if r.weekly != "" {
			r.cell(window{d.monday(), d.monday() + 6}, true, zone).local += mixed | 1
		}
		if r.ever {
			r.cell(everWindow, false, zone).local += mixed | 1
		}
	}
	if r.ever && r.past.version > 0 {
		r.cell(everWindow, false, zone).local += r.past.version*0x9e3779b97f4a7c15 | 1
	}
}

// everWindow is that of the cell for all time.
var everWindow = window{forever, 1<<31 - 1}

// local returns the registers that this host counted in a window, in Redis's order.
func (r *sharedRule) local(w window) (*fleet.Registers, error) {
	all := new(fleet.Registers)
	err := r.sketches(w, func(blob []byte) error {
		here, err := registersIn(blob)
		if err != nil {
			return err
		}
		for i, rho := range here {
			if rho > 0 {
				at := fleet.Number(i)
				all[at] = max(all[at], rho)
			}
		}
		return nil
	})
	return all, err
}

// registersIn returns the registers of an encoded sketch, sparse or not.
func registersIn(blob []byte) (*[registers]uint8, error) {
	sk, err := decode(blob)
	if err != nil {
		return nil, err
	}
	if r := registersOf(blob); r != nil {
		return r, nil
	}
	dense := hyperloglog.NewNoSparse()
	if err := dense.Merge(sk); err != nil {
		return nil, err
	}
	return registersOf(encode(dense)), nil
}
