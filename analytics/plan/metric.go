package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a metric's zone must not depend on the machine

	"go.yaml.in/yaml/v3"

	"github.com/weir-agent/weir/internal/spelling"
)

var (
	metricKeys = []string{
		"key_path", "description", "owner", "value_type", "status", "repair_issue_url", "introduced_by_url",
		"milestone", "removed_by_url", "milestone_removed", "data_category", "time_frame", "window", "timezone",
		"events", "operator", "emit",
	}
	ruleKeys = []string{"name", "unique", "filter", "operator"}
	emitKeys = []string{"gauge", "scope"}
)

// rawMetric is a metric whose rules still name events and attributes.
type rawMetric struct {
	*Metric
	*document
	rules []rawRule
}

type rawRule struct {
	event, unique, operator string
	filter                  []rawCondition
	path                    string
	line                    int
	lines                   map[string]int
}

type rawCondition struct {
	attribute, value string
	line             int
}

// metric reads a definition; nil if it has no key path.
func (d *document) metric(text []byte) *rawMetric {
	m := d.root(text, metricKeys)
	if m == nil {
		return nil
	}
	r := &Metric{File: d.file, lines: maps.Clone(m.at)}
	r.KeyPath = m.required("key_path", maxKeyPath)
	if r.KeyPath != "" && !dottedName.MatchString(r.KeyPath) {
		m.wrong("key_path", "%q is not a key path; use %s, and dots between", short(r.KeyPath), wordsOfNames)
	}
	r.Description = m.required("description", maxProse)
	r.Owner = m.text("owner", maxText)
	r.ValueType = m.choice("value_type", []string{"number"}, "number")
	r.Status = Status(m.choice("status", metricStates, string(Active)))
	r.RepairIssueURL = m.text("repair_issue_url", maxText)
	r.IntroducedByURL = m.text("introduced_by_url", maxText)
	r.Milestone = m.text("milestone", maxText)
	r.RemovedByURL = m.text("removed_by_url", maxText)
	r.MilestoneRemoved = m.text("milestone_removed", maxText)
	r.DataCategory = DataCategory(m.choice("data_category", DataCategories, string(Optional)))
	r.frames(m)
	r.Timezone = m.text("timezone", maxName)
	if r.Timezone == "" {
		r.Timezone = "UTC"
	}
	if _, err := time.LoadLocation(r.Timezone); err != nil || r.Timezone == "Local" {
		m.wrong("timezone", "there is no zone %q; use UTC or a name such as Europe/Berlin", short(r.Timezone))
	}
	r.Operator = Operator(m.choice("operator", operators, string(Or)))
	r.Emit = Emit{Gauge: true, Scope: Fleet}
	if e := m.section("emit", emitKeys); e != nil {
		r.Emit.Gauge = e.boolean("gauge", true)
		r.Emit.Scope = Scope(e.choice("scope", scopes, string(Fleet)))
	}
	raw := &rawMetric{Metric: r, document: d, rules: m.rules()}
	if r.KeyPath == "" {
		return nil
	}
	return raw
}

// frames reads time frames and window, which depend on each other.
func (r *Metric) frames(m *mapping) {
	given := m.words("time_frame", len(timeFrames))
	var known []string
	for _, frame := range given {
		if slices.Contains(timeFrames, frame) {
			known = append(known, frame)
			continue
		}
		hint := "use " + list(timeFrames)
		if near := spelling.Nearest(short(frame), timeFrames); near != "" && len(frame) > 2 {
			hint = "did you mean " + near + "?"
		}
		m.wrong("time_frame", "there is no %q; %s", short(frame), hint)
	}
	if m.of["time_frame"] == nil {
		m.missing("time_frame", "write a list such as [7d, 28d]")
	} else if len(given) == 0 && m.of["time_frame"].Kind == yaml.SequenceNode && len(m.of["time_frame"].Content) == 0 {
		m.wrong("time_frame", "it is empty; write a list such as [7d, 28d]")
	}
	otherwise := Rolling
	if slices.Contains(known, string(FrameWeek)) || slices.Contains(known, string(FrameMonth)) {
		otherwise = Calendar
	}
	r.Window = Window(m.choice("window", windows, string(otherwise)))
	for _, frame := range known {
		if !slices.Contains(framesOf[r.Window], frame) {
			m.wrong("time_frame", "window %s has no %s; it has %s", r.Window, frame, list(framesOf[r.Window]))
		}
		r.TimeFrames = append(r.TimeFrames, TimeFrame(frame))
	}
}

func (m *mapping) rules() []rawRule {
	node := m.of["events"]
	switch {
	case node == nil:
		m.missing("events", "write - name: and the name of an event")
		return nil
	case node.Kind != yaml.SequenceNode:
		m.wrong("events", "it takes a list; write - name: and the name of an event")
		return nil
	case len(node.Content) == 0:
		m.wrong("events", "there are none; write - name: and the name of an event")
		return nil
	case len(node.Content) > maxRules:
		m.wrong("events", "there are %d; a metric has %d at most", len(node.Content), maxRules)
		return nil
	}
	var all []rawRule
	for i, item := range node.Content {
		path := fmt.Sprintf("events[%d]", i)
		if item.Kind == yaml.AliasNode || item.Anchor != "" {
			m.fault(item.Line, path, "anchors and aliases are not read here; write the value itself")
			continue
		}
		e := m.document.mapping(item, path, ruleKeys)
		if e == nil {
			continue
		}
		r := rawRule{path: path, line: item.Line, lines: e.at}
		r.event = e.required("name", maxEventName)
		r.unique = e.text("unique", maxName)
		r.operator = e.text("operator", maxText)
		if filter := e.section("filter", nil); filter != nil {
			if len(filter.at) > maxAttributes {
				e.wrong("filter", "there are %d conditions; %d are allowed", len(filter.at), maxAttributes)
				continue
			}
			for _, attribute := range slices.Sorted(maps.Keys(filter.at)) {
				r.filter = append(r.filter, rawCondition{attribute, filter.required(attribute, maxLength), filter.at[attribute]})
			}
		}
		all = append(all, r)
	}
	return all
}

// link connects metrics with the events they name, and keeps those that are sound.
func (p *Plan) link(metrics []*rawMetric) {
	byPath := map[string]*Metric{}
	// Roles that a metric gives come first: what one metric counts, others may filter by.
	for _, m := range metrics {
		for i := range m.rules {
			p.promote(&m.rules[i])
		}
	}
	for _, m := range metrics {
		if other := byPath[m.KeyPath]; other != nil {
			m.fault(m.lines["key_path"], "key_path", "%s is defined in %s as well; remove one", m.KeyPath, other.File)
			continue
		}
		byPath[m.KeyPath] = m.Metric
		for i := range m.rules {
			if rule, sound := p.rule(m, &m.rules[i]); sound {
				m.Rules = append(m.Rules, rule)
			}
		}
		m.agree()
		if m.Status != Removed && m.Unique() {
			for i := range m.Rules {
				m.Rules[i].Event.unique = true
			}
		}
		p.Metrics = append(p.Metrics, m.Metric)
	}
	slices.SortFunc(p.Metrics, func(a, b *Metric) int { return strings.Compare(a.KeyPath, b.KeyPath) })
}

// promote gives an attribute without a role of its own the one a rule needs.
func (p *Plan) promote(r *rawRule) {
	e := p.byName[r.event]
	if e == nil {
		return
	}
	if r.unique != "" {
		if i := e.Identity(r.unique); i >= 0 && !e.Attributes[i].explicitRole && e.Attributes[i].Role != Identity {
			a := &e.Attributes[i]
			a.Role, a.Identity = Identity, defaultIdentity(a.Name)
			if !a.explicitPrivacy {
				a.Privacy = Privacy{Kind: HMAC}
			}
		}
	}
	if of, ok := summed(r.operator); ok {
		if i := e.Attribute(of); i >= 0 && !e.Attributes[i].explicitRole && e.Attributes[i].Role == RawOnly {
			e.Attributes[i].Role = Number
		}
	}
}

// summed returns the attribute of "sum(attribute)".
func summed(operator string) (attribute string, ok bool) {
	inner, ok := strings.CutPrefix(operator, "sum(")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(inner, ")")
}

// rule resolves what a rule names. It may be unsound only after a fault.
func (p *Plan) rule(m *rawMetric, r *rawRule) (rule Rule, sound bool) {
	sound = true
	wrong := func(key, format string, args ...any) {
		line, known := r.lines[key]
		if !known {
			line = r.line
		}
		m.fault(line, r.path+"."+key, format, args...)
		sound = false
	}
	e := p.byName[r.event]
	if e == nil {
		if r.event != "" {
			wrong("name", "there is no event %s%s", short(r.event), p.suggestEvent(r.event))
		}
		return rule, false
	}
	rule = Rule{Event: e, Unique: r.unique, By: -1, Of: -1}
	if e.Status == Removed && m.Status != Removed {
		wrong("name", "the event %s is removed; remove the metric as well (status: removed) or use another event", e.Name)
	}
	if r.unique != "" {
		rule.By = e.Identity(r.unique)
		switch {
		case rule.By < 0:
			wrong("unique", "%s has no attribute %s and none of that type of identity%s", e.Name, short(r.unique), suggestAttribute(e, r.unique, true))
		case e.Attributes[rule.By].Role != Identity:
			wrong("unique", "%s of %s has role %s; only what has role identity can be counted", e.Attributes[rule.By].Name, e.Name, e.Attributes[rule.By].Role)
		}
	}
	if r.operator != "" {
		of, ok := summed(r.operator)
		rule.Sum, rule.Of = of, e.Attribute(of)
		switch {
		case !ok:
			wrong("operator", "there is no %q; use sum(value), with the name of an attribute", short(r.operator))
		case rule.Of < 0:
			wrong("operator", "%s has no attribute %s%s", e.Name, short(of), suggestAttribute(e, of, false))
		case e.Attributes[rule.Of].Role != Number:
			wrong("operator", "%s of %s has type %s and role %s; only a number of role value can be added up", of, e.Name, e.Attributes[rule.Of].Type, e.Attributes[rule.Of].Role)
		case r.unique != "":
			wrong("operator", "a rule counts who or adds up, not both; remove unique or operator")
		}
	}
	for _, c := range r.filter {
		i := e.Attribute(c.attribute)
		fault := func(format string, args ...any) {
			m.fault(c.line, r.path+".filter."+short(c.attribute), format, args...)
			sound = false
		}
		if i < 0 {
			fault("%s has no such attribute%s", e.Name, suggestAttribute(e, c.attribute, false))
			continue
		}
		a := &e.Attributes[i]
		if a.Role == Drop {
			fault("the attribute has role drop; give it another role to filter by it")
			continue
		}
		var v Value
		if outcome := a.parse([]byte(c.value), &v, nil); outcome != OK {
			fault("%q is no value of the attribute, which is %s", short(c.value), a.expects())
			continue
		}
		rule.Filter = append(rule.Filter, Condition{c.attribute, i, string(v.Text)})
	}
	return rule, sound
}

// agree checks what the rules of a metric must have in common.
func (m *rawMetric) agree() {
	if len(m.Rules) == 0 {
		return
	}
	wrong := func(key, format string, args ...any) {
		line, known := m.lines[key]
		if !known {
			line = 1
		}
		m.fault(line, key, format, args...)
	}
	first := &m.Rules[0]
	for i := range m.Rules[1:] {
		r := &m.Rules[i+1]
		switch {
		case (r.Unique == "") != (first.Unique == ""):
			wrong("events", "some rules count who and others how often; make two metrics of it")
			return
		case (r.Sum == "") != (first.Sum == ""):
			wrong("events", "some rules add up and others count; make two metrics of it")
			return
		case r.Unique != "" && r.Event.Attributes[r.By].Identity != first.Event.Attributes[first.By].Identity:
			wrong("events", "the rules count different identities, %s and %s; make two metrics of it",
				first.Event.Attributes[first.By].Identity, r.Event.Attributes[r.By].Identity)
			return
		}
	}
	if m.Unique() && slices.Contains(m.TimeFrames, FrameAll) {
		wrong("time_frame", "who did it is counted over days, not over all time; remove all")
	}
	if m.Operator == And && !m.Unique() {
		wrong("operator", "only who did it can be counted by and; give the rules unique, or use or")
	}
}

func (p *Plan) suggestEvent(name string) string {
	names := make([]string, len(p.Events))
	for i, e := range p.Events {
		names[i] = e.Name
	}
	if near := spelling.Nearest(name, names); near != "" {
		return "; did you mean " + near + "?"
	}
	return "; define it in events/"
}

func suggestAttribute(e *Event, name string, identities bool) string {
	var names []string
	for i := range e.Attributes {
		if identities && e.Attributes[i].Role == Identity {
			names = append(names, e.Attributes[i].Identity)
		}
		names = append(names, e.Attributes[i].Name)
	}
	if near := spelling.Nearest(short(name), names); near != "" {
		return "; did you mean " + near + "?"
	}
	if len(names) == 0 {
		return "; it has none"
	}
	return "; it has " + list(names)
}
