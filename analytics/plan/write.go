package plan

import (
	"bytes"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// File is a file to be written.
type File struct {
	Name string // relative, with slashes
	Text []byte
}

// entries are the keys of a mapping that is written; what is empty is left out.
type entries struct{ node yaml.Node }

func newEntries(style yaml.Style) *entries {
	return &entries{yaml.Node{Kind: yaml.MappingNode, Style: style}}
}

func (e *entries) add(key string, value *yaml.Node) {
	e.node.Content = append(e.node.Content, scalar(key), value)
}

// text adds a word; it is quoted if YAML would take it for something else.
func (e *entries) text(key, value string) {
	if value != "" {
		e.add(key, scalar(value))
	}
}

// otherThan adds a word that is not the default.
func (e *entries) otherThan(otherwise, key, value string) {
	if value != otherwise {
		e.text(key, value)
	}
}

func (e *entries) list(key string, values []string) {
	if len(values) == 0 {
		return
	}
	list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
	for _, value := range values {
		list.Content = append(list.Content, scalar(value))
	}
	e.add(key, list)
}

func (e *entries) literal(key, value string) {
	e.add(key, &yaml.Node{Kind: yaml.ScalarNode, Value: value})
}

func (e *entries) encode() []byte {
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(&e.node); err != nil {
		panic("BUG: a definition cannot be written: " + err.Error())
	}
	return b.Bytes()
}

func scalar(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
}

// YAML writes a definition. Load reads the same from it.
func (e *Event) YAML() []byte {
	w := newEntries(0)
	w.text("event", e.Name)
	w.text("description", e.Description)
	w.text("owner", e.Owner)
	w.text("status", string(e.Status))
	w.text("introduced_by_url", e.IntroducedByURL)
	w.text("milestone", e.Milestone)
	w.text("removed_by_url", e.RemovedByURL)
	w.text("milestone_removed", e.MilestoneRemoved)
	w.text("version", e.Version.String())
	w.otherThan(string(Optional), "data_category", string(e.DataCategory))
	w.list("consent", e.Consent)
	w.text("additional_attributes", string(e.Additional))
	w.text("mode", string(e.Mode))
	if len(e.Attributes) > 0 {
		all := newEntries(0)
		for i := range e.Attributes {
			all.add(e.Attributes[i].Name, e.Attributes[i].entry())
		}
		w.add("attributes", &all.node)
	}
	if e.Counter != (Counter{true, e.Name}) {
		c := newEntries(yaml.FlowStyle)
		c.literal("emit", strconv.FormatBool(e.Counter.Emit))
		c.otherThan(e.Name, "name", e.Counter.Name)
		w.add("metric", &c.node)
	}
	if e.Raw != (Raw{SinkEvents, 1}) {
		r := newEntries(yaml.FlowStyle)
		r.text("sink", e.Raw.Sink)
		r.literal("sample_rate", strconv.FormatFloat(e.Raw.SampleRate, 'g', -1, 64))
		w.add("raw", &r.node)
	}
	return w.encode()
}

func (a *Attribute) entry() *yaml.Node {
	w := newEntries(yaml.FlowStyle)
	w.text("type", string(a.Type))
	if a.Required {
		w.literal("required", "true")
	}
	w.text("role", string(a.Role))
	w.text("identity", a.Identity)
	if a.Privacy.Kind != None || a.Role == Identity {
		w.text("privacy", a.Privacy.String())
	}
	w.list("values", a.Values)
	if a.MaxLength != defaultLength {
		w.literal("max_length", strconv.Itoa(a.MaxLength))
	}
	w.text("description", a.Description)
	return &w.node
}

// YAML writes a definition. Load reads the same from it, if it knows the events.
func (m *Metric) YAML() []byte {
	w := newEntries(0)
	w.text("key_path", m.KeyPath)
	w.text("description", m.Description)
	w.text("owner", m.Owner)
	w.text("value_type", m.ValueType)
	w.text("status", string(m.Status))
	w.text("repair_issue_url", m.RepairIssueURL)
	w.text("introduced_by_url", m.IntroducedByURL)
	w.text("milestone", m.Milestone)
	w.text("removed_by_url", m.RemovedByURL)
	w.text("milestone_removed", m.MilestoneRemoved)
	w.otherThan(string(Optional), "data_category", string(m.DataCategory))
	frames := make([]string, len(m.TimeFrames))
	for i, frame := range m.TimeFrames {
		frames[i] = string(frame)
	}
	w.list("time_frame", frames)
	w.text("window", string(m.Window))
	w.otherThan("UTC", "timezone", m.Timezone)
	rules := &yaml.Node{Kind: yaml.SequenceNode}
	for i := range m.Rules {
		r := &m.Rules[i]
		rule := newEntries(yaml.FlowStyle)
		rule.text("name", r.Event.Name)
		rule.text("unique", r.Unique)
		if len(r.Filter) > 0 {
			filter := newEntries(yaml.FlowStyle)
			for _, c := range r.Filter {
				filter.text(c.Attribute, c.Value)
			}
			rule.add("filter", &filter.node)
		}
		if r.Sum != "" {
			rule.text("operator", "sum("+r.Sum+")")
		}
		rules.Content = append(rules.Content, &rule.node)
	}
	w.add("events", rules)
	w.otherThan(string(Or), "operator", string(m.Operator))
	if m.Emit != (Emit{true, Fleet}) {
		e := newEntries(yaml.FlowStyle)
		e.literal("gauge", strconv.FormatBool(m.Emit.Gauge))
		e.text("scope", string(m.Emit.Scope))
		w.add("emit", &e.node)
	}
	return w.encode()
}

// FileName is where a definition belongs below the folder.
func (e *Event) FileName() string { return "events/" + e.Name + ".yml" }

// FileName is where a definition belongs below the folder.
func (m *Metric) FileName() string { return "metrics/" + m.KeyPath + ".yml" }
