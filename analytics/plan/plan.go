// Package plan is the tracking plan: which analytics events there are, what they
// carry, and which counts are made of them.
//
// In: a folder of YAML definitions, and what a line says apart from its value.
// Out: a Plan or all its faults at once, each with file and line; for a line, typed
// values and named outcomes. It keeps no state between lines, counts nothing and
// sends nothing.
package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// Plan is what a folder defines. It does not change after Load and may be read by
// many goroutines.
type Plan struct {
	Events  []*Event  // by name
	Metrics []*Metric // by key path

	options    Options
	byName     map[string]*Event
	categories []string // of consent, over all events, sorted
}

// Event returns a definition by its name, nil if there is none.
func (p *Plan) Event(name string) *Event { return p.byName[name] }

// Metric returns a definition by its key path, nil if there is none.
func (p *Plan) Metric(keyPath string) *Metric {
	for _, m := range p.Metrics {
		if m.KeyPath == keyPath {
			return m
		}
	}
	return nil
}

// Event defines one event.
type Event struct {
	Name             string // "team.created"
	Description      string
	Owner            string
	Status           Status
	IntroducedByURL  string
	Milestone        string
	RemovedByURL     string
	MilestoneRemoved string
	Version          Version
	DataCategory     DataCategory
	Consent          []string // categories that must all be granted
	Additional       Additional
	Mode             Mode
	Attributes       []Attribute // in the order of the file
	Counter          Counter
	Raw              Raw

	File string // it was read from

	index  map[string]int // of Attributes, by name
	lines  map[string]int // by key
	unique bool           // a metric counts who did it
}

// Attribute returns the index of an attribute, -1 if there is none of that name.
func (e *Event) Attribute(name string) int {
	if i, known := e.index[name]; known {
		return i
	}
	return -1
}

// Identity returns the index of the attribute that says who it was: the one with
// that identity type, or else of that name; -1 if there is none.
func (e *Event) Identity(of string) int {
	for i := range e.Attributes {
		if e.Attributes[i].Role == Identity && e.Attributes[i].Identity == of {
			return i
		}
	}
	return e.Attribute(of)
}

// Attribute defines one attribute of an event.
type Attribute struct {
	Name        string
	Description string
	Type        Type
	Required    bool
	Role        Role
	Identity    string // type of an identity, "user.id"; "" for other roles
	Privacy     Privacy
	Values      []string // of an enum
	MaxLength   int      // bytes, of the value after it was unescaped

	explicitRole, explicitPrivacy bool
}

// Counter says whether an event is a metric of the ordinary pipeline as well.
type Counter struct {
	Emit bool
	Name string // without the prefix the client sent
}

// Raw says what becomes of each single event.
type Raw struct {
	Sink       string  // Events or None
	SampleRate float64 // share of the identities whose events are kept, in [0, 1]
}

// The sinks of raw events.
const (
	SinkEvents = "events"
	SinkNone   = "none"
)

// Metric defines a count of events, or of those who caused them.
type Metric struct {
	KeyPath          string
	Description      string
	Owner            string
	ValueType        string // "number"
	Status           Status
	RepairIssueURL   string
	IntroducedByURL  string
	Milestone        string
	RemovedByURL     string
	MilestoneRemoved string
	DataCategory     DataCategory
	TimeFrames       []TimeFrame
	Window           Window
	Timezone         string // of the IANA database
	Rules            []Rule
	Operator         Operator
	Emit             Emit

	File string

	lines map[string]int
}

// Gauge returns the name of the metric's gauge for one of its time frames.
func (m *Metric) Gauge(frame TimeFrame) string { return m.KeyPath + "." + string(frame) }

// Unique reports whether the metric counts who, and not how often. All rules of a
// metric agree on it.
func (m *Metric) Unique() bool { return len(m.Rules) > 0 && m.Rules[0].Unique != "" }

// Rule selects events.
type Rule struct {
	Event  *Event
	Unique string      // identity type or name of an attribute; "" to count events
	By     int         // index of the attribute of Unique, -1 without
	Filter []Condition // all must hold; sorted by attribute
	Sum    string      // attribute to add up; "" to count
	Of     int         // index of the attribute of Sum, -1 without
}

// Key names what a rule selects: rules with the same key may share a count.
func (r *Rule) Key() string {
	var b strings.Builder
	b.WriteString(r.Event.Name)
	for i, c := range r.Filter {
		separator := ","
		if i == 0 {
			separator = "["
		}
		fmt.Fprintf(&b, "%s%s=%s", separator, c.Attribute, strconv.Quote(c.Value))
	}
	if len(r.Filter) > 0 {
		b.WriteByte(']')
	}
	switch {
	case r.Unique != "":
		attribute := &r.Event.Attributes[r.By]
		b.WriteString(" unique " + attribute.Name + " as " + attribute.Identity)
	case r.Sum != "":
		b.WriteString(" sum " + r.Sum)
	}
	return b.String()
}

// Matches reports whether values, by attribute of the rule's event, are selected.
func (r *Rule) Matches(values []Value) bool {
	for i := range r.Filter {
		c := &r.Filter[i]
		if v := &values[c.Index]; v.Null() || string(v.Text) != c.Value {
			return false
		}
	}
	return true
}

// Condition asks that an attribute has a value.
type Condition struct {
	Attribute string
	Index     int    // of the attribute
	Value     string // in the canonical form of the attribute's type
}

// Emit says what a metric becomes.
type Emit struct {
	Gauge bool
	Scope Scope
}

// Version is a schema's version in the terms of SchemaVer: a new model breaks all
// readers, a revision some, an addition none.
type Version struct{ Model, Revision, Addition int }

func (v Version) String() string { return string(v.Append(nil)) }

// Append appends the version as String has it.
func (v Version) Append(dst []byte) []byte {
	dst = append(strconv.AppendInt(dst, int64(v.Model), 10), '-')
	dst = append(strconv.AppendInt(dst, int64(v.Revision), 10), '-')
	return strconv.AppendInt(dst, int64(v.Addition), 10)
}

// Compare returns -1, 0 or 1.
func (v Version) Compare(w Version) int {
	for _, d := range [...]int{v.Model - w.Model, v.Revision - w.Revision, v.Addition - w.Addition} {
		if d != 0 {
			return max(-1, min(1, d))
		}
	}
	return 0
}

// ParseVersion reads MODEL-REVISION-ADDITION. A model is 1 or more.
func ParseVersion(text string) (v Version, ok bool) {
	rest, more := text, len(text) <= 20
	for _, into := range [...]*int{&v.Model, &v.Revision, &v.Addition} {
		part, after, found := strings.Cut(rest, "-")
		n, err := strconv.ParseUint(part, 10, 16)
		if !more || err != nil || len(part) > 1 && part[0] == '0' {
			return v, false
		}
		*into, rest, more = int(n), after, found
	}
	return v, !more && v.Model >= 1
}
