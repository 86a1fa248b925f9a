package plan

import (
	"fmt"
	"slices"
	"strings"
)

// Change is one difference between two plans.
type Change struct {
	Subject  string // "event team.created" or "metric usage.teams.users"
	Message  string
	Breaking bool // what was counted would no longer compare, or readers could not tell
}

func (c Change) String() string {
	if c.Breaking {
		return "breaking: " + c.Subject + ": " + c.Message
	}
	return c.Subject + ": " + c.Message
}

// Diff returns what is different in p, compared with what was published before.
// Immutable are a metric's events, filters, identities, time frames, windows and
// zone, and an event's counter; an event's attributes change with its version. What
// was defined stays on file, removed or not.
func (p *Plan) Diff(before *Plan) []Change {
	d := &differ{}
	for _, old := range before.Events {
		d.subject = "event " + old.Name
		if now := p.Event(old.Name); now != nil {
			d.event(old, now)
		} else {
			d.breaking("its definition is gone; keep it with status: removed, so that nobody uses the name again")
		}
	}
	for _, now := range p.Events {
		if before.Event(now.Name) == nil {
			d.subject = "event " + now.Name
			d.note("new, version %v", now.Version)
		}
	}
	for _, old := range before.Metrics {
		d.subject = "metric " + old.KeyPath
		if now := p.Metric(old.KeyPath); now != nil {
			d.metric(old, now)
		} else {
			d.breaking("its definition is gone; keep it with status: removed, so that nobody uses the key path again")
		}
	}
	for _, now := range p.Metrics {
		if before.Metric(now.KeyPath) == nil {
			d.subject = "metric " + now.KeyPath
			d.note("new")
		}
	}
	return d.changes
}

type differ struct {
	subject string
	changes []Change
	level   level // the largest that the event at hand needs
	why     string
}

func (d *differ) note(format string, args ...any) {
	d.changes = append(d.changes, Change{d.subject, fmt.Sprintf(format, args...), false})
}

func (d *differ) breaking(format string, args ...any) {
	d.changes = append(d.changes, Change{d.subject, fmt.Sprintf(format, args...), true})
}

// text notes that a word changed that nothing is computed from.
func (d *differ) text(key, old, now string) {
	if old != now {
		d.note("%s: %q is now %q", key, short(old), short(now))
	}
}

// level is the part of a version that a change raises.
type level int

const (
	nothing level = iota
	addition
	revision
	model
)

// needs notes a change of the schema.
func (d *differ) needs(l level, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	d.note("%s", message)
	if l > d.level {
		d.level, d.why = l, message
	}
}

// next is the least version that says that there was such a change.
func (v Version) next(l level) Version {
	switch l {
	case model:
		return Version{v.Model + 1, 0, 0}
	case revision:
		return Version{v.Model, v.Revision + 1, 0}
	case addition:
		return Version{v.Model, v.Revision, v.Addition + 1}
	}
	return v
}

func (d *differ) event(old, now *Event) {
	d.level, d.why = nothing, ""
	d.status(old.Status, now.Status)
	d.text("description", old.Description, now.Description)
	d.text("owner", old.Owner, now.Owner)
	d.text("introduced_by_url", old.IntroducedByURL, now.IntroducedByURL)
	d.text("milestone", old.Milestone, now.Milestone)
	d.text("removed_by_url", old.RemovedByURL, now.RemovedByURL)
	d.text("milestone_removed", old.MilestoneRemoved, now.MilestoneRemoved)
	d.text("data_category", string(old.DataCategory), string(now.DataCategory))
	d.text("consent", list(old.Consent), list(now.Consent))
	d.text("mode", string(old.Mode), string(now.Mode))
	d.text("raw.sink", old.Raw.Sink, now.Raw.Sink)
	if old.Raw.SampleRate != now.Raw.SampleRate {
		d.note("raw.sample_rate: %v is now %v", old.Raw.SampleRate, now.Raw.SampleRate)
	}
	if old.Counter.Emit && old.Counter != now.Counter {
		d.breaking("its counter %s would end; keep it, or define another event", old.Counter.Name)
	}
	if old.Additional != now.Additional {
		d.needs(revision, "additional_attributes: %q is now %q", old.Additional, now.Additional)
	}
	for i := range old.Attributes {
		a := &old.Attributes[i]
		if j := now.Attribute(a.Name); j >= 0 {
			d.attribute(a, &now.Attributes[j])
		} else {
			d.needs(model, "%s: the attribute is gone", a.Name)
		}
	}
	for i := range now.Attributes {
		a := &now.Attributes[i]
		switch {
		case old.Attribute(a.Name) >= 0:
		case a.Required:
			d.needs(model, "%s: new, and required", a.Name)
		default:
			d.needs(addition, "%s: new", a.Name)
		}
	}
	least := old.Version.next(d.level)
	switch c := now.Version.Compare(least); {
	case now.Version.Compare(old.Version) < 0:
		d.breaking("version %v is before %v; a version only rises", now.Version, old.Version)
	case c < 0:
		d.breaking("version %v must be %v or later, because of %s", now.Version, least, d.why)
	case now.Version != old.Version:
		d.note("version %v is now %v", old.Version, now.Version)
	}
}

func (d *differ) status(old, now Status) {
	switch {
	case old == Removed && now != Removed:
		d.breaking("it was removed and is %s; use another name, since the old one meant something else", now)
	case old != now:
		d.note("status: %s is now %s", old, now)
	}
}

func (d *differ) attribute(old, now *Attribute) {
	d.text(now.Name+".description", old.Description, now.Description)
	if old.Type != now.Type {
		d.needs(model, "%s: type %s is now %s", now.Name, old.Type, now.Type)
	}
	if old.Role != now.Role || old.Identity != now.Identity {
		d.needs(model, "%s: role %s is now %s", now.Name, roleText(old), roleText(now))
	}
	if old.Privacy != now.Privacy {
		d.needs(revision, "%s: privacy %v is now %v", now.Name, old.Privacy, now.Privacy)
	}
	switch {
	case now.Required && !old.Required:
		d.needs(revision, "%s: it is required now", now.Name)
	case old.Required && !now.Required:
		d.needs(addition, "%s: it is not required any more", now.Name)
	}
	for _, value := range old.Values {
		if !slices.Contains(now.Values, value) {
			d.needs(revision, "%s: the value %s is gone", now.Name, value)
		}
	}
	for _, value := range now.Values {
		if !slices.Contains(old.Values, value) {
			d.needs(addition, "%s: the value %s is new", now.Name, value)
		}
	}
	switch {
	case now.MaxLength < old.MaxLength:
		d.needs(revision, "%s: max_length %d is now %d", now.Name, old.MaxLength, now.MaxLength)
	case now.MaxLength > old.MaxLength:
		d.needs(addition, "%s: max_length %d is now %d", now.Name, old.MaxLength, now.MaxLength)
	}
}

func roleText(a *Attribute) string {
	if a.Role == Identity {
		return string(a.Role) + " " + a.Identity
	}
	return string(a.Role)
}

func (d *differ) metric(old, now *Metric) {
	d.status(old.Status, now.Status)
	d.text("description", old.Description, now.Description)
	d.text("owner", old.Owner, now.Owner)
	d.text("introduced_by_url", old.IntroducedByURL, now.IntroducedByURL)
	d.text("milestone", old.Milestone, now.Milestone)
	d.text("removed_by_url", old.RemovedByURL, now.RemovedByURL)
	d.text("milestone_removed", old.MilestoneRemoved, now.MilestoneRemoved)
	d.text("repair_issue_url", old.RepairIssueURL, now.RepairIssueURL)
	d.text("data_category", string(old.DataCategory), string(now.DataCategory))
	if now.Status == Removed {
		return // there are no numbers left that could change their meaning
	}
	immutable := func(key, old, now string) {
		if old != now {
			d.breaking("%s: %s is now %s, and the numbers would not compare; define another metric", key, old, now)
		}
	}
	for _, frame := range old.TimeFrames {
		if !slices.Contains(now.TimeFrames, frame) {
			d.breaking("time_frame: %s is gone; keep it, or remove the metric as a whole", frame)
		}
	}
	for _, frame := range now.TimeFrames {
		if !slices.Contains(old.TimeFrames, frame) {
			d.note("time_frame: %s is new", frame)
		}
	}
	immutable("value_type", old.ValueType, now.ValueType)
	immutable("window", string(old.Window), string(now.Window))
	immutable("timezone", old.Timezone, now.Timezone)
	immutable("operator", string(old.Operator), string(now.Operator))
	immutable("events", old.selects(), now.selects())
	immutable("emit.scope", string(old.Emit.Scope), string(now.Emit.Scope))
	if old.Emit.Gauge != now.Emit.Gauge {
		d.note("emit.gauge: %v is now %v", old.Emit.Gauge, now.Emit.Gauge)
	}
}

// selects names what a metric counts, in one way whatever the order of its rules.
func (m *Metric) selects() string {
	keys := make([]string, len(m.Rules))
	for i := range m.Rules {
		keys[i] = m.Rules[i].Key()
	}
	slices.Sort(keys)
	return strings.Join(keys, " | ")
}
