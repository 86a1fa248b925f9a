package analytics

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/weir-agent/weir/analytics/fleet"
	"github.com/weir-agent/weir/analytics/plan"
)

// voice is what one host says for all, while it may.
type voice struct {
	from, until time.Time
	values      []Value
}

// base is what Redis has of the days of a rule that change no more.
type base struct {
	registers *fleet.Registers
	total     float64
	at        time.Time
	used      bool
}

// errForeignKey says that a window cannot be read.
var errForeignKey = errors.New("a key in Redis holds something else than a count")

// fleetValues returns the metrics' values for all hosts if this one may tell them.
func (e *Engine) fleetValues(now time.Time) []Value {
	if e.share == nil {
		return nil
	}
	v := e.share.voice.Load()
	if !v.speaks(now) {
		return nil
	}
	return v.values
}

// speaks reports whether this host may speak for all now; v may be nil.
func (v *voice) speaks(now time.Time) bool {
	return v != nil && !now.Before(v.from) && fleet.Lasts(now, v.until)
}

// speak brings the values for all hosts up to date.
func (s *sharer) speak(ctx context.Context, now time.Time) error {
	from, until, ok := s.lease.Speaks()
	if !ok {
		s.voice.Store(nil)
		return nil
	}
	if s.settled.After(from) {
		from = s.settled
	}
	if s.lost || time.Now().Before(from) {
		s.voice.Store(nil)
		return nil
	}
	next := &voice{from: from, until: until}
	before := s.voice.Load()
	sameDay := now.UTC().Format(time.DateOnly) == s.computed.UTC().Format(time.DateOnly)
	if since := now.Sub(s.computed); before != nil && sameDay && 0 <= since && since < s.cfg.RefreshInterval {
		next.values = before.values
		s.voice.Store(next)
		return nil
	}
	for _, b := range s.bases {
		b.used = false
	}
	for _, m := range s.plan.metrics {
		if !m.shared() {
			continue
		}
		for _, f := range m.frames {
			v, err := s.valueOf(ctx, m, f.frame, now, now)
			if err != nil {
				return err
			}
			next.values = append(next.values, *v)
		}
	}
	for name, b := range s.bases {
		if !b.used {
			delete(s.bases, name)
		}
	}
	s.computed = now
	s.voice.Store(next)
	return nil
}

// valueOf finds the number of a metric for all hosts, as of a moment, which is now or
// earlier.
func (s *sharer) valueOf(ctx context.Context, m *metricState, frame plan.TimeFrame, at, now time.Time) (*Value, error) {
	g := s.plan
	today := dayOf(now.Unix(), g.zones[m.zone])
	w := windowOf(m.def.Window, frame, dayOf(at.Unix(), g.zones[m.zone]), g.cfg.IncludeToday)
	v := g.blank(m, frame, w, today)
	v.Scope, v.Emitted = string(plan.Fleet), m.def.Emit.Gauge
	since := w.First
	var rules []*sharedRule
	for _, r := range m.chosen(w, s.since) {
		one := s.byRule[r.rule]
		if one == nil {
			v.Status = StatusOverflow
			return v, nil
		}
		rules = append(rules, one)
		since = max(since, one.since)
		v.Sampled = v.Sampled || r.summarize(w).incomplete
		v.Keys = append(v.Keys, one.prefix)
		if s.weekly(m, one) {
			v.Keys[len(v.Keys)-1] = one.weekly
		}
	}
	v.Observed = max(0, int(w.Last-since)+1)
	if m.def.Status == plan.Broken {
		v.Status = StatusBroken
		return v, nil
	}
	n, relative, err := s.evaluate(ctx, m, rules, w, today, now)
	switch {
	case errors.Is(err, errForeignKey):
		v.Status = StatusUnreadable
	case errors.Is(err, fleet.ErrTooManyHosts):
		v.Status = StatusOverflow
	case err != nil:
		return nil, err
	case math.IsInf(relative, 1):
		v.Status = StatusUncertain
	default:
		v.Value, v.Error = &n, relative
	}
	return v, nil
}

func (s *sharer) since(r *selection) day {
	if one := s.byRule[r.rule]; one != nil {
		return one.since
	}
	return r.since
}

// weekly reports whether a metric is read from GitLab's own keys.
func (s *sharer) weekly(m *metricState, r *sharedRule) bool {
	return m.def.Window == plan.GitLabWeeks && r.weekly != ""
}

func (s *sharer) evaluate(ctx context.Context, m *metricState, rules []*sharedRule, w window, today day, now time.Time) (n, relative float64, err error) {
	if !m.def.Unique() {
		for _, r := range rules {
			total, err := s.total(ctx, r, w, today, now)
			if err != nil {
				return 0, 0, err
			}
			n += total
		}
		return n, 0, nil
	}
	and := m.def.Operator == plan.And && len(rules) > 1
	if and && len(rules) > maxIntersected {
		return 0, math.Inf(1), nil
	}
	each := make([]*fleet.Registers, len(rules))
	for i, r := range rules {
		if each[i], err = s.registers(ctx, r, w, s.weekly(m, r), today, now); err != nil {
			return 0, 0, err
		}
	}
	union := func(subset uint) float64 {
		all := new(fleet.Registers)
		for i := range each {
			if subset&(1<<i) != 0 {
				all.Raise(each[i])
			}
		}
		return all.Estimate()
	}
	if and {
		n, relative = intersect(len(each), union)
		return n, relative, nil
	}
	return union(1<<len(each) - 1), relativeError, nil
}

// spans returns the windows of the keys that a window is made of, apart by whether
// they can change yet.
func spans(w window, weekly bool, today day) (over, recent []window) {
	if w.First == forever {
		return nil, []window{everWindow}
	}
	step := day(1)
	if weekly {
		step = 7
	}
	for first := w.First; first <= w.Last; first += step {
		one := window{first, first + step - 1}
		if one.Last < today-lateDays {
			over = append(over, one)
		} else {
			recent = append(recent, one)
		}
	}
	return over, recent
}

// baseOf returns what is remembered of the days that are over; fresh says that it is to
// be filled.
func (s *sharer) baseOf(r *sharedRule, over []window, now time.Time) (b *base, fresh bool) {
	if len(over) == 0 {
		return &base{registers: new(fleet.Registers)}, false
	}
	name := fmt.Sprint(r.number, over[0], over[len(over)-1])
	b = s.bases[name]
	if b == nil || now.Sub(b.at) >= s.cfg.RepairInterval || now.Before(b.at) {
		b, fresh = &base{registers: new(fleet.Registers), at: now}, true
	}
	b.used = true
	return b, fresh
}

func (s *sharer) keepBase(r *sharedRule, over []window, b *base) {
	s.bases[fmt.Sprint(r.number, over[0], over[len(over)-1])] = b
}

// registers returns those of everybody whom any host counted for a rule in a window.
func (s *sharer) registers(ctx context.Context, r *sharedRule, w window, weekly bool, today day, now time.Time) (*fleet.Registers, error) {
	over, recent := spans(w, weekly, today)
	b, fresh := s.baseOf(r, over, now)
	if fresh {
		for some := range slices.Chunk(over, batch) {
			var keys []string
			for _, one := range some {
				keys = append(keys, r.keyOf(one, weekly))
			}
			found, err := s.client.Fetch(ctx, keys)
			if err != nil {
				return nil, err
			}
			s.stats.fetches.Add(uint64(len(keys)))
			for i, f := range found {
				if f.Foreign {
					s.tellForeign(keys[i])
					return nil, errForeignKey
				}
				if f.Registers != nil {
					b.registers.Raise(f.Registers)
				}
			}
		}
		s.keepBase(r, over, b)
	}
	all := *b.registers
	for _, one := range recent {
		c := r.cells[one]
		if c == nil || c.foreign || c.known == nil {
			return nil, errForeignKey
		}
		all.Raise(c.known)
	}
	return &all, nil
}

// total returns what all hosts counted for a rule in a window.
func (s *sharer) total(ctx context.Context, r *sharedRule, w window, today day, now time.Time) (float64, error) {
	over, recent := spans(w, false, today)
	sum := func(windows []window) (all float64, err error) {
		for some := range slices.Chunk(windows, batch) {
			var keys []string
			for _, one := range some {
				keys = append(keys, r.keyOf(one, false))
			}
			totals, err := s.client.Totals(ctx, keys)
			if err != nil {
				return 0, err
			}
			for _, total := range totals {
				all += total
			}
		}
		return all, nil
	}
	b, fresh := s.baseOf(r, over, now)
	if fresh {
		var err error
		if b.total, err = sum(over); err != nil {
			return 0, err
		}
		s.keepBase(r, over, b)
	}
	changing, err := sum(recent)
	return b.total + changing, err
}

// readings tells the sharer's own metrics.
func (s *sharer) readings(total func(string, uint64, ...string), level func(string, float64, ...string)) {
	total("redis.rounds", s.stats.rounds.Load())
	total("redis.rounds.failed", s.stats.failed.Load())
	level("redis.round.seconds", time.Duration(s.stats.roundNanoseconds.Load()).Seconds())
	level("redis.healthy", float64(s.stats.healthy.Load()))
	level("redis.pending", float64(s.stats.pending.Load()))
	total("redis.elements", s.stats.elements.Load())
	total("redis.uploads", s.stats.uploads.Load())
	total("redis.fetches", s.stats.fetches.Load())
	total("redis.repairs", s.stats.repairs.Load())
	level("redis.foreign_keys", float64(s.stats.foreign.Load()))
	level("redis.hosts", float64(s.stats.hosts.Load()))
	level("redis.keys", float64(s.stats.keys.Load()))
	level("redis.leader", float64(s.stats.leader.Load()))
	total("redis.takeovers", s.stats.takeovers.Load())
}
