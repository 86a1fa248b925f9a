package plan

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

var (
	eventKeys = []string{
		"event", "description", "owner", "status", "introduced_by_url", "milestone",
		"removed_by_url", "milestone_removed", "version", "data_category", "consent",
		"additional_attributes", "mode", "attributes", "metric", "raw",
	}
	attributeKeys = []string{"type", "description", "required", "role", "identity", "privacy", "values", "max_length"}
	counterKeys   = []string{"emit", "name"}
	rawKeys       = []string{"sink", "sample_rate"}

	dottedName   = regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)*$`)
	plainName    = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	wordsOfNames = "lower-case letters, digits and _"
)

// event reads a definition; nil if it has no name.
func (d *document) event(text []byte) *Event {
	m := d.root(text, eventKeys)
	if m == nil {
		return nil
	}
	e := &Event{File: d.file, lines: maps.Clone(m.at)}
	e.Name = m.required("event", maxEventName)
	if e.Name != "" && !dottedName.MatchString(e.Name) {
		m.wrong("event", "%q is not a name of an event; use %s, and dots between", short(e.Name), wordsOfNames)
	}
	e.Description = m.required("description", maxProse)
	e.Owner = m.text("owner", maxText)
	e.Status = Status(m.choice("status", eventStates, string(Active)))
	e.IntroducedByURL = m.text("introduced_by_url", maxText)
	e.Milestone = m.text("milestone", maxText)
	e.RemovedByURL = m.text("removed_by_url", maxText)
	e.MilestoneRemoved = m.text("milestone_removed", maxText)
	e.Version = Version{1, 0, 0}
	if text := m.text("version", maxText); text != "" {
		v, ok := ParseVersion(text)
		if !ok {
			m.wrong("version", "%q is not a version; write MODEL-REVISION-ADDITION, such as 1-0-0", short(text))
		}
		e.Version = v
	}
	e.DataCategory = DataCategory(m.choice("data_category", DataCategories, string(Optional)))
	e.Consent = m.words("consent", maxConsent)
	for _, category := range e.Consent {
		if !plainName.MatchString(category) || len(category) > maxName {
			m.wrong("consent", "%q is not a name of a category; use %s", short(category), wordsOfNames)
		}
	}
	e.Additional = Additional(m.choice("additional_attributes", additionals, string(AdditionalDefault)))
	e.Mode = Mode(m.choice("mode", modes, string(Inherit)))
	d.attributes(e, m)

	e.Counter = Counter{Emit: true, Name: e.Name}
	if c := m.section("metric", counterKeys); c != nil {
		e.Counter.Emit = c.boolean("emit", true)
		if name := c.text("name", maxEventName); name != "" {
			e.Counter.Name = name
			if !dottedName.MatchString(name) {
				c.wrong("name", "%q is not a name of a metric; use %s, and dots between", short(name), wordsOfNames)
			}
		}
		e.remember("metric", c)
	}
	e.Raw = Raw{Sink: SinkEvents, SampleRate: 1}
	if r := m.section("raw", rawKeys); r != nil {
		e.Raw.Sink = r.choice("sink", []string{SinkEvents, SinkNone}, SinkEvents)
		e.Raw.SampleRate = r.share("sample_rate", 1)
		e.remember("raw", r)
	}
	if e.Name == "" {
		return nil
	}
	return e
}

// remember keeps where the keys of a section stand.
func (e *Event) remember(path string, m *mapping) {
	for key, line := range m.at {
		e.lines[path+"."+key] = line
	}
}

func (d *document) attributes(e *Event, m *mapping) {
	e.index = map[string]int{}
	node := m.of["attributes"]
	if node == nil {
		return
	}
	section := m.section("attributes", nil)
	if section == nil {
		return
	}
	e.remember("attributes", section)
	if n := len(section.at); n > maxAttributes {
		m.wrong("attributes", "there are %d; an event has %d at most", n, maxAttributes)
		return
	}
	for i := 0; i < len(node.Content); i += 2 {
		name := node.Content[i].Value
		if _, sound := section.at[name]; !sound || e.Attribute(name) >= 0 {
			continue
		}
		if !plainName.MatchString(name) || len(name) > maxName {
			section.wrong(name, "%q is not a name of an attribute; begin with a letter, use %s, %d at most", short(name), wordsOfNames, maxName)
			continue
		}
		a := mapping{document: d, path: section.join(name), line: section.at[name]}
		if value := section.of[name]; value != nil {
			inner := d.mapping(value, section.join(name), attributeKeys)
			if inner == nil {
				continue
			}
			a = *inner
			e.remember("attributes."+name, inner)
		}
		e.index[name] = len(e.Attributes)
		e.Attributes = append(e.Attributes, a.attribute(name))
	}
	seen := map[string]string{}
	for i := range e.Attributes {
		a := &e.Attributes[i]
		if a.Role != Identity {
			continue
		}
		if other, twice := seen[a.Identity]; twice {
			section.wrong(a.Name, "%s is an identity of type %s as well; give one of them another type or role", other, a.Identity)
		}
		seen[a.Identity] = a.Name
	}
}

func (m *mapping) attribute(name string) Attribute {
	a := Attribute{Name: name, Description: m.text("description", maxProse)}
	a.Type = Type(m.choice("type", types, string(String)))
	a.Required = m.boolean("required", false)
	a.Role = Role(m.choice("role", roles, string(defaultRole(name, a.Type))))
	a.explicitRole = m.of["role"] != nil
	a.Identity = m.text("identity", maxText)
	switch {
	case a.Identity != "" && !a.explicitRole:
		a.Role, a.explicitRole = Identity, true
	case a.Identity != "" && a.Role != Identity:
		m.wrong("identity", "the attribute has role %s; only one of role identity has a type of identity", a.Role)
	}
	if a.Identity != "" && (!dottedName.MatchString(a.Identity) || len(a.Identity) > maxName) {
		m.wrong("identity", "%q is not a type of identity; write one such as user.id", short(a.Identity))
	}
	if a.Role == Identity && a.Identity == "" {
		a.Identity = defaultIdentity(name)
	}
	if a.Role == Number && a.Type != Int && a.Type != Float {
		m.wrong("role", "a value is a number; use type int or float, or another role")
	}
	a.Privacy = Privacy{Kind: None}
	if a.Role == Identity {
		a.Privacy = Privacy{Kind: HMAC}
	}
	if text := m.text("privacy", maxText); text != "" {
		p, ok := parsePrivacy(text)
		if !ok {
			m.wrong("privacy", "there is no %q; use %s", short(text), privacyForms)
		} else {
			a.Privacy, a.explicitPrivacy = p, true
		}
	}
	a.Values = m.words("values", maxValues)
	for i, value := range a.Values {
		if len(value) > maxName {
			m.wrong("values", "value %d is longer than %d bytes; shorten it", i+1, maxName)
		}
	}
	switch {
	case a.Type == Enum && len(a.Values) == 0 && m.of["values"] == nil:
		m.wrong("values", "an enum needs its values; write [one, two]")
	case a.Type == Enum && len(a.Values) == 0:
		m.wrong("values", "there are none; write [one, two]")
	case a.Type != Enum && m.of["values"] != nil:
		m.wrong("values", "only an enum has values; use type enum or remove them")
	}
	a.MaxLength = m.integer("max_length", 1, maxLength, defaultLength)
	return a
}

// identityNames are names that say who it was without ending in _id.
var identityNames = []string{"event", "project", "group", "user", "email", "ip", "session"}

func namesIdentity(name string) bool {
	return strings.HasSuffix(name, "_id") && len(name) > len("_id") || slices.Contains(identityNames, name)
}

// defaultRole is the role of an attribute that says nothing else. A number that a
// metric adds up is a value, but that is for link to say.
func defaultRole(name string, t Type) Role {
	switch {
	case namesIdentity(name):
		return Identity
	case t == Enum || t == Bool:
		return Tag
	}
	return RawOnly
}

// defaultIdentity is user.id for user_id and user.
func defaultIdentity(name string) string {
	if of, ok := strings.CutSuffix(name, "_id"); ok && of != "" {
		return of + ".id"
	}
	if slices.Contains(identityNames, name) && name != "email" && name != "ip" {
		return name + ".id"
	}
	return name
}

// where is a place of an event's file, for a fault that is found later.
func (e *Event) where(key string) (file string, line int) {
	for key != "" {
		if line, known := e.lines[key]; known {
			return e.File, line
		}
		key = key[:max(0, strings.LastIndexByte(key, '.'))]
	}
	return e.File, 0
}
