package analytics

import (
	"encoding/json"
	"math"
	"math/bits"
	"strings"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
)

// Status says whether a metric has a value.
type Status string

// The states of a value.
const (
	StatusOK         Status = "ok"
	StatusOverflow   Status = "overflow"   // max_sketches or max_values_per_filter did not allow it
	StatusUncertain  Status = "uncertain"  // who is in all rules is lost in the error of the estimate
	StatusBroken     Status = "broken"     // the definition says that the numbers are wrong
	StatusUnreadable Status = "unreadable" // its days cannot be read
	StatusExpired    Status = "expired"    // its days are erased
)

// Value is what a metric has for one time frame. Of days the first and the last count.
type Value struct {
	KeyPath  string   `json:"key_path"`
	Frame    string   `json:"time_frame"`
	Name     string   `json:"name"` // of the gauge
	Window   string   `json:"window"`
	Timezone string   `json:"timezone"`
	First    *day     `json:"first,omitempty"` // nil: since ever
	Last     day      `json:"last"`
	Value    *float64 `json:"value"` // nil: there is none
	Status   Status   `json:"status"`

	Final    bool     `json:"final"`                // late events can change it no more
	Days     int      `json:"days,omitempty"`       // in the window
	Observed int      `json:"days_observed"`        // of these, those since this agent counts it
	Sampled  bool     `json:"sampled"`              // some lines did not say all: somebody is missing
	Revision uint32   `json:"revision"`             // how often a day of it changed after it was over
	Error    float64  `json:"relative_error"`       // standard error of an estimate, 0 of a total
	Scope    string   `json:"scope"`                // whose events
	Emitted  bool     `json:"emitted"`              // it is a gauge
	Operator string   `json:"operator"`             // of several rules
	Unique   bool     `json:"unique"`               // it counts who
	Keys     []string `json:"redis_keys,omitempty"` // what the keys begin with, of a value for all hosts
}

// metricState is a metric with its rules and values.
type metricState struct {
	def    *plan.Metric
	zone   int
	rules  [][]*selection // for each rule of the definition one for each key
	frames []*frameState
}

// frameState is the value of one time frame, and what it was made of.
type frameState struct {
	frame     plan.TimeFrame
	asked     bool // for a report: what it amounts to is not kept
	signature uint64
	value     *Value

	// With the running day in the window, the union of those before it stays.
	baseSignature uint64
	base          *union
}

// maxIntersected is how many rules operator and takes: it needs a union for each
// combination of them.
const maxIntersected = 4

// leastShare is the share of all that those in every rule must be for their number to
// mean something: it is a difference of estimates, and has their errors.
const leastShare = 0.05

// compute brings the values of all metrics up to date.
func (e *Engine) compute(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Value
	g := e.generation.Load()
	for _, m := range g.metrics {
		for _, f := range m.frames {
			all = append(all, *e.computeFrame(g, m, f, now))
		}
	}
	e.values.Store(&all)
}

// Values returns the metrics' values as they were computed last.
func (e *Engine) Values() []Value { return *e.values.Load() }

func (e *Engine) computeFrame(g *generation, m *metricState, f *frameState, now time.Time) *Value {
	zone := g.zones[m.zone]
	today := dayOf(now.Unix(), zone)
	w := windowOf(m.def.Window, f.frame, today, g.cfg.IncludeToday)
	rules := m.chosen(w, func(s *selection) day { return s.since })
	signature := uint64(uint32(w.First))<<32 ^ uint64(uint32(w.Last)) ^ uint64(today)<<20
	for i, r := range rules {
		signature = (signature + uint64(i+1)) * 0xff51afd7ed558ccd
		if r != nil {
			signature ^= r.summarize(w).signature + uint64(r.number)
		}
	}
	if f.value != nil && f.signature == signature {
		return f.value
	}
	v := g.blank(m, f.frame, w, today)
	since := w.First
	for _, r := range rules {
		s := r.summarize(w)
		v.Sampled = v.Sampled || s.incomplete
		v.Revision += s.revision
		since = max(since, r.since)
		if r.overflow {
			v.Status = StatusOverflow
		}
	}
	v.Observed = max(0, int(w.Last-since)+1)
	if m.def.Status == plan.Broken {
		v.Status = StatusBroken
	}
	e.evaluate(m, f, rules, w, today, v)
	f.value, f.signature = v, signature
	return v
}

// blank returns a value of this host that is not computed yet.
func (g *generation) blank(m *metricState, frame plan.TimeFrame, w window, today day) *Value {
	v := &Value{
		KeyPath: m.def.KeyPath, Frame: string(frame), Name: m.def.Gauge(frame), Window: string(m.def.Window),
		Timezone: g.zones[m.zone].String(), Last: w.Last, Status: StatusOK, Final: w.Last < today-lateDays,
		Scope: string(plan.Host), Operator: string(m.def.Operator), Unique: m.def.Unique(),
		// Where hosts share a metric, one of them emits it for all.
		Emitted: m.def.Emit.Gauge && !(g.cfg.Redis.Enabled() && m.shared()),
	}
	if w.First != forever {
		first := w.First
		v.First, v.Days = &first, w.days()
	}
	return v
}

// chosen returns one count for each rule of the definition: of those of several keys
// the newest that covers the window, since before its first day, or else the one that
// counts for longest.
func (m *metricState) chosen(w window, since func(*selection) day) []*selection {
	rules := make([]*selection, 0, len(m.rules))
	for _, keys := range m.rules {
		best := keys[0]
		for _, r := range keys[1:] {
			if since(best) >= w.First && since(r) < since(best) {
				best = r
			}
		}
		rules = append(rules, best)
	}
	return rules
}

// evaluate finds the number.
func (e *Engine) evaluate(m *metricState, f *frameState, rules []*selection, w window, today day, v *Value) {
	if v.Status != StatusOK {
		return
	}
	if w.First != forever && w.First < e.erased {
		e.recall(v)
		return
	}
	if !m.def.Unique() {
		sum := 0.0
		for _, r := range rules {
			sum += r.summarize(w).total
		}
		v.Value = &sum
		e.remember(f, v)
		return
	}
	v.Error = relativeError
	var n float64
	var err error
	if m.def.Operator == plan.And && len(rules) > 1 {
		n, v.Error, err = e.intersection(rules, w)
		if err == nil && math.IsInf(v.Error, 1) {
			v.Status, v.Error = StatusUncertain, 0
			return
		}
	} else {
		n, err = e.union(f, rules, w, today)
	}
	if err != nil {
		e.stats.unreadable.Add(1)
		e.log.Error("the days of a metric cannot be read", "metric", v.Name, "error", err)
		v.Status, v.Error = StatusUnreadable, 0
		return
	}
	v.Value = &n
	e.remember(f, v)
}

// union estimates how many any of the rules counted.
func (e *Engine) union(f *frameState, rules []*selection, w window, today day) (float64, error) {
	past := window{w.First, min(w.Last, today-1)}
	running := w.Last >= today
	baseSignature := uint64(uint32(past.First))<<32 ^ uint64(uint32(past.Last))
	for _, r := range rules {
		baseSignature = baseSignature*31 + r.summarize(past).signature
	}
	if f.base == nil || f.baseSignature != baseSignature {
		base, err := unite(rules, past)
		if err != nil {
			return 0, err
		}
		f.base, f.baseSignature = base, baseSignature
	}
	all := f.base
	if running {
		all = f.base.clone()
		for _, r := range rules {
			if err := r.sketches(window{today, w.Last}, all.add); err != nil {
				return 0, err
			}
		}
	}
	n := all.estimate()
	if !running {
		f.base = nil // it will not be needed before the days have changed
	}
	return n, nil
}

func unite(rules []*selection, w window) (*union, error) {
	u := newUnion()
	for _, r := range rules {
		if err := r.sketches(w, u.add); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// intersection estimates how many all of the rules counted.
func (e *Engine) intersection(rules []*selection, w window) (n, relative float64, err error) {
	if len(rules) > maxIntersected {
		return 0, math.Inf(1), nil
	}
	each := make([]*union, len(rules))
	for i := range rules {
		if each[i], err = unite(rules[i:i+1], w); err != nil {
			return 0, 0, err
		}
	}
	n, relative = intersect(len(rules), func(subset uint) float64 {
		u := newUnion()
		for i := range each {
			if subset&(1<<i) != 0 {
				u.merge(each[i])
			}
		}
		return u.estimate()
	})
	return n, relative, nil
}

// intersect estimates how many are in all of some sets, by inclusion and exclusion of
// the sizes of their unions, and the relative error of that; it is infinite if they are
// too small a share. A subset has a bit for each set.
func intersect(sets int, sizeOfUnion func(subset uint) float64) (n, relative float64) {
	variance, whole := 0.0, 0.0
	for subset := uint(1); subset < 1<<sets; subset++ {
		size := sizeOfUnion(subset)
		variance += size * size * relativeError * relativeError
		if bits.OnesCount(subset)%2 == 0 {
			size = -size
		}
		n += size
		whole = max(whole, math.Abs(size))
	}
	n = max(n, 0)
	switch {
	case whole == 0:
		return 0, 0
	case n < leastShare*whole:
		return 0, math.Inf(1)
	}
	return n, math.Sqrt(variance) / n
}

const resultPrefix = "result "

func resultName(v *Value) string {
	first := "ever"
	if v.First != nil {
		first = v.First.String()
	}
	return strings.Join([]string{resultPrefix + v.Last.String(), first, v.KeyPath, v.Frame, v.Timezone}, " ")
}

// remember keeps a final value, since its days will be erased.
func (e *Engine) remember(f *frameState, v *Value) {
	if f.asked || !v.Final || v.First == nil || e.generation.Load().cfg.IncludeToday {
		return
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic("BUG: a value cannot be written as JSON: " + err.Error())
	}
	if err := e.store.setMeta(map[string]string{resultName(v): string(text)}); err != nil {
		e.log.Error("a value cannot be kept", "metric", v.Name, "error", err)
	}
}

// recall takes the value of days that are erased from what was kept.
func (e *Engine) recall(v *Value) {
	text, err := e.store.meta(resultName(v))
	var kept struct {
		Value    *float64 `json:"value"`
		Revision uint32   `json:"revision"`
		Sampled  bool     `json:"sampled"`
		Observed int      `json:"days_observed"`
		Error    float64  `json:"relative_error"`
	}
	if err != nil || text == "" || json.Unmarshal([]byte(text), &kept) != nil || kept.Value == nil {
		v.Status = StatusExpired
		return
	}
	v.Value, v.Revision, v.Sampled, v.Observed, v.Error = kept.Value, kept.Revision, kept.Sampled, kept.Observed, kept.Error
}

// eraseResults forgets kept values after mostRetention.
func (e *Engine) eraseResults(now time.Time) {
	names, err := e.store.names(resultPrefix)
	if err != nil {
		return
	}
	old := map[string]string{}
	limit := resultPrefix + now.Add(-mostRetention).UTC().Format(time.DateOnly)
	for _, name := range names {
		if name < limit {
			old[name] = ""
		}
	}
	if err := e.store.setMeta(old); err != nil {
		e.log.Error("old values cannot be erased", "file", e.store.path, "error", err)
	}
}
