package analytics

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
)

// compiler turns a plan into what counts it.
type compiler struct {
	e      *Engine
	byText map[string][]*rule // one for each key
	values map[string]int     // of a filter, by event, what is counted and attributes
}

// compile makes the events, rules and metrics of the plan. Each event has, whether a
// metric asks for it or not, a count of its occurrences and of each identity without a
// filter, in UTC days: a metric that comes later finds its past there.
func (e *Engine) compile(p *plan.Plan) error {
	e.plan = p
	e.zones = []*time.Location{time.UTC}
	e.events = map[*plan.Event]*event{}
	e.unplanned = &event{name: "(unplanned)"} // no event is called so
	e.allEvents = []*event{e.unplanned}
	c := compiler{e: e, byText: map[string][]*rule{}, values: map[string]int{}}
	for _, def := range p.Events {
		ev := &event{def: def, name: def.Name, number: len(e.allEvents), counter: []byte(def.Counter.Name), raw: e.rawOf(def)}
		e.events[def] = ev
		e.allEvents = append(e.allEvents, ev)
	}
	for _, m := range p.Metrics {
		if m.Status == plan.Removed {
			continue
		}
		zone, err := c.zone(m.Timezone)
		if err != nil {
			return fmt.Errorf("%s: timezone: %w", m.File, err)
		}
		state := &metricState{def: m, zone: zone}
		for i := range m.Rules {
			state.rules = append(state.rules, c.rules(m.Rules[i], zone))
		}
		for _, frame := range m.TimeFrames {
			state.frames = append(state.frames, &frameState{frame: frame})
		}
		e.metrics = append(e.metrics, state)
	}
	for _, def := range p.Events {
		if def.Status == plan.Removed {
			continue
		}
		c.rules(plan.Rule{Event: def, By: -1, Of: -1}, 0)
		for i := range def.Attributes {
			if a := &def.Attributes[i]; a.Role == plan.Identity {
				c.rules(plan.Rule{Event: def, Unique: a.Name, By: i, Of: -1}, 0)
			}
		}
	}
	if n := c.overflowing(); n > 0 {
		e.log.Error("more is to be counted than analytics.max_sketches or analytics.max_values_per_filter allow: the metrics that need it have no value",
			"rules", n, "max_sketches", e.cfg.MaxSketches, "max_values_per_filter", e.cfg.MaxValuesPerFilter)
	}
	return nil
}

// rawOf returns how the raw events of an event are chosen.
func (e *Engine) rawOf(def *plan.Event) rawEvents {
	r := rawEvents{on: e.cfg.Raw.Enabled() && def.Raw.Sink == plan.SinkEvents && def.Raw.SampleRate > 0, share: def.Raw.SampleRate, by: -1}
	for i := range def.Attributes {
		if a := &def.Attributes[i]; a.Role == plan.Identity {
			r.by, r.sip = i, e.keys[0].sip("raw "+a.Identity)
			break
		}
	}
	return r
}

func (c *compiler) zone(name string) (int, error) {
	if name == "" {
		return 0, nil
	}
	for i, zone := range c.e.zones {
		if zone.String() == name {
			return i, nil
		}
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return 0, err
	}
	c.e.zones = append(c.e.zones, zone)
	return len(c.e.zones) - 1, nil
}

// rules returns the counts of a selection rule: one, or of a sketch one for each key.
func (c *compiler) rules(r plan.Rule, zone int) []*rule {
	text := r.Key()
	if zone > 0 {
		text += " in " + c.e.zones[zone].String()
	}
	if known := c.byText[text]; known != nil {
		return known
	}
	keys := c.e.keys[:1]
	if r.Unique != "" {
		keys = c.e.keys
	}
	ev := c.e.events[r.Event]
	full := c.tooManyValues(&r, zone)
	var made []*rule
	for _, k := range keys {
		one := &rule{
			Rule: r, text: text, zone: zone, number: len(c.e.rules), overflow: full,
			days: map[day]*dayCount{},
		}
		if r.Unique != "" {
			one.key, one.sip = k, k.sip(r.Event.Attributes[r.By].Identity)
			if c.e.sketches++; c.e.sketches > c.e.cfg.MaxSketches {
				one.overflow = true
			}
		}
		made = append(made, one)
		c.e.rules = append(c.e.rules, one)
		ev.rules = append(ev.rules, one)
	}
	c.byText[text] = made
	return made
}

// tooManyValues reports whether a filter has more values than may be counted apart.
func (c *compiler) tooManyValues(r *plan.Rule, zone int) bool {
	if len(r.Filter) == 0 {
		return false
	}
	var attributes []string
	for _, condition := range r.Filter {
		attributes = append(attributes, condition.Attribute)
	}
	slices.Sort(attributes)
	at := fmt.Sprintf("%s %s %s %d %s", r.Event.Name, r.Unique, r.Sum, zone, strings.Join(attributes, ","))
	c.values[at]++
	return c.values[at] > c.e.cfg.MaxValuesPerFilter
}

func (c *compiler) overflowing() (n int) {
	for _, r := range c.e.rules {
		if r.overflow {
			n++
		}
	}
	return n
}

// cutPrefix returns the longest of the prefixes that a name has and what follows it;
// a nil name if it has none.
func (e *Engine) cutPrefix(full []byte) (prefix, name []byte) {
	for _, p := range e.prefixes { // longest first
		if len(full) > len(p) && string(full[:len(p)]) == string(p) {
			return full[:len(p)], full[len(p):]
		}
	}
	return nil, nil
}

func (e *Engine) logPlan(log *slog.Logger) {
	log.Info("analytics events are counted", "events", len(e.plan.Events), "metrics", len(e.metrics), "sketches", e.sketches, "state", e.cfg.StateDir)
}
