package analytics

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/analytics/fleet"
	"github.com/weir-agent/weir/analytics/plan"
)

// compiler turns a plan into what counts it.
type compiler struct {
	e      *Engine
	g      *generation
	known  map[[idBytes]byte]*rule // of the engine
	fresh  []*rule
	byText map[string][]*selection // one for each key
	values map[string]int          // of a filter, by event, what is counted and attributes
}

// compile makes the events, rules and metrics of the plan. Each event has, whether a
// metric asks for it or not, a count of its occurrences and of each identity without a
// filter, in UTC days: a metric that comes later finds its past there.
//
// It takes what the engine has of an earlier plan, before; fresh are the rules that it has
// not. e.mu is held.
func (e *Engine) compile(cfg Config, p *plan.Plan, before *generation) (g *generation, fresh []*rule, err error) {
	g = &generation{cfg: cfg, plan: p, prefixes: prefixesOf(&cfg), zones: []*time.Location{time.UTC}, events: map[*plan.Event]*event{}}
	c := compiler{e: e, g: g, known: map[[idBytes]byte]*rule{}, byText: map[string][]*selection{}, values: map[string]int{}}
	for _, r := range e.rules {
		c.known[ruleKey(r.text, r.keyID)] = r
	}
	books := map[string]*book{}
	if before != nil {
		g.serial, g.zones = before.serial+1, slices.Clone(before.zones)
		for _, b := range before.books {
			books[b.name] = b
		}
	}
	bookOf := func(name string) *book {
		b := books[name]
		if b == nil {
			b = &book{name: name}
		}
		delete(books, name)
		g.books = append(g.books, b)
		return b
	}
	g.unplanned = &event{book: bookOf("(unplanned)")} // no event is called so
	for i, def := range p.Events {
		g.events[def] = &event{def: def, book: bookOf(def.Name), number: i + 1, counter: []byte(def.Counter.Name), raw: e.rawOf(def)}
	}
	for _, name := range slices.Sorted(maps.Keys(books)) {
		bookOf(name) // of events that the plan does not have any more
	}
	for _, m := range p.Metrics {
		if m.Status == plan.Removed {
			continue
		}
		zone, err := c.zone(m.Timezone)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: timezone: %w", m.File, err)
		}
		state := &metricState{def: m, zone: zone}
		for i := range m.Rules {
			state.rules = append(state.rules, c.rules(m.Rules[i], zone))
		}
		for _, frame := range m.TimeFrames {
			state.frames = append(state.frames, &frameState{frame: frame})
		}
		g.metrics = append(g.metrics, state)
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
			"rules", n, "max_sketches", cfg.MaxSketches, "max_values_per_filter", cfg.MaxValuesPerFilter)
	}
	return g, c.fresh, nil
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
	for i, zone := range c.g.zones {
		if zone.String() == name {
			return i, nil
		}
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return 0, err
	}
	c.g.zones = append(c.g.zones, zone)
	return len(c.g.zones) - 1, nil
}

// rules returns the counts of a selection rule: one, or of a sketch one for each key.
func (c *compiler) rules(r plan.Rule, zone int) []*selection {
	text := r.Key()
	if zone > 0 {
		text += " in " + c.g.zones[zone].String()
	}
	if known := c.byText[text]; known != nil {
		return known
	}
	keys := c.e.keys[:1]
	raw := c.g.cfg.Redis.Enabled() && c.g.cfg.Redis.Element == fleet.Raw
	switch {
	case r.Unique != "" && raw: // as anybody hashes it who writes to Redis
		keys = keyring{{id: rawKeyID}}
	case r.Unique != "":
		keys = c.e.keys
	}
	ev := c.g.events[r.Event]
	full := c.tooManyValues(&r, zone)
	var made []*selection
	for _, k := range keys {
		one := &selection{Rule: r, rule: c.rule(&r, text, zone, k, raw), overflow: full}
		if one.unique {
			if c.g.sketches++; c.g.sketches > c.g.cfg.MaxSketches {
				one.overflow = true
			}
		}
		made = append(made, one)
		c.g.rules = append(c.g.rules, one)
		ev.rules = append(ev.rules, one)
	}
	c.byText[text] = made
	return made
}

// rule returns the count of what a text names, the one there is or a fresh one.
func (c *compiler) rule(r *plan.Rule, text string, zone int, k key, raw bool) *rule {
	made := &rule{text: text, zone: zone, number: c.e.numbers, unique: r.Unique != "", days: map[day]*dayCount{}}
	if made.unique {
		made.keyID, made.fingerprint, made.raw = k.id, k.fingerprint(), raw
		if !raw {
			made.sip = k.sip(r.Event.Attributes[r.By].Identity)
		}
	}
	if known := c.known[ruleKey(text, made.keyID)]; known != nil {
		return known
	}
	c.e.numbers++
	c.fresh = append(c.fresh, made)
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
	return c.values[at] > c.g.cfg.MaxValuesPerFilter
}

func (c *compiler) overflowing() (n int) {
	for _, r := range c.g.rules {
		if r.overflow {
			n++
		}
	}
	return n
}

func (e *Engine) logPlan(log *slog.Logger) {
	g := e.generation.Load()
	log.Info("analytics events are counted", "events", len(g.plan.Events), "metrics", len(g.metrics), "sketches", g.sketches, "state", e.cfg.StateDir)
}
