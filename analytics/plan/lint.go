package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// maxTagSets is how many combinations of the tags of a counter there may be.
const maxTagSets = 1000

// Finding is something about a definition that Load takes, and that is wrong or
// unwise all the same.
type Finding struct {
	Fault
	Error bool // else a warning
}

// Lint holds the plan against the rules that keep it useful: docs/ANALYTICS.md has
// them. What Load refuses is not told again.
func (p *Plan) Lint() []Finding {
	l := &linter{plan: p, counters: map[string]*Event{}}
	for _, e := range p.Events {
		l.event(e)
	}
	for _, m := range p.Metrics {
		l.metric(m)
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return l.findings
}

type linter struct {
	plan     *Plan
	findings []Finding
	counters map[string]*Event // by the name of the counter
}

func (l *linter) find(isError bool, file string, line int, key, format string, args ...any) {
	l.findings = append(l.findings, Finding{Fault{file, line, key, fmt.Sprintf(format, args...)}, isError})
}

func (l *linter) event(e *Event) {
	find := func(isError bool, key, format string, args ...any) {
		file, line := e.where(key)
		l.find(isError, file, line, key, format, args...)
	}
	l.common(e.Status, e.Description, e.Owner, e.IntroducedByURL, e.RemovedByURL, e.MilestoneRemoved, find)
	if e.Status == Removed {
		return
	}
	if e.Raw.SampleRate < 1 && e.unique {
		find(true, "raw.sample_rate", "raw events are sampled, and a metric counts who caused them; keep all (1), or do not count who")
	}
	if e.Counter.Emit {
		if other := l.counters[e.Counter.Name]; other != nil {
			find(true, "metric.name", "%s has a counter of that name as well (%s); give one of them another", other.Name, other.File)
		}
		l.counters[e.Counter.Name] = e
	}
	sets := 1
	for i := range e.Attributes {
		a := &e.Attributes[i]
		key := "attributes." + a.Name
		if a.Role == Tag {
			sets *= l.tag(e, a, func(isError bool, format string, args ...any) { find(isError, key, format, args...) })
		}
		if why := personal(a.Name); why != "" && a.Privacy.Kind == None && a.Role != Drop {
			find(true, key, "%s, and is kept as it is; set privacy to hmac, truncate(8) or drop, or role drop", why)
		}
		if secret(a.Name) && a.Role != Drop && a.Privacy.Kind != DropValue {
			find(true, key, "it looks like a secret, and secrets do not belong into events; set role to drop")
		}
	}
	if e.Counter.Emit && sets > maxTagSets {
		find(true, "attributes", "the tags of the counter have %d combinations, and %d are allowed; give some of them role raw", sets, maxTagSets)
	}
}

// tag looks at an attribute that is a tag and returns how many values it has.
func (l *linter) tag(e *Event, a *Attribute, find func(isError bool, format string, args ...any)) int {
	switch {
	case namesIdentity(a.Name):
		find(true, "an identity is a tag: each value would be a time series; set role to identity or raw")
	case a.Type == Enum:
		return len(a.Values) + 2 // other and none
	case a.Type == Bool:
		return 3
	default:
		find(e.Counter.Emit, "a tag of type %s can have any number of values; make it an enum, or set role to raw", a.Type)
	}
	return 1
}

func (l *linter) metric(m *Metric) {
	find := func(isError bool, key, format string, args ...any) {
		l.find(isError, m.File, m.lines[key], key, format, args...)
	}
	l.common(m.Status, m.Description, m.Owner, m.IntroducedByURL, m.RemovedByURL, m.MilestoneRemoved, find)
	if m.Status == Broken && m.RepairIssueURL == "" {
		find(true, "status", "a broken metric names the issue in which it is repaired; add repair_issue_url")
	}
	if m.Status == Removed {
		return
	}
	for i := range m.Rules {
		if e := m.Rules[i].Event; e.Status == Deprecated && m.Status == Active {
			find(false, "events", "the event %s is deprecated; deprecate the metric as well, or count another event", e.Name)
		}
	}
	seen := map[string]bool{}
	for i := range m.Rules {
		if first, r := &m.Rules[0], &m.Rules[i]; m.Unique() && first.Event.Attributes[first.By].Type != r.Event.Attributes[r.By].Type {
			find(true, "events", "%s is of type %s in %s and of type %s in %s, so that one identity may be counted twice; give both one type",
				r.Unique, first.Event.Attributes[first.By].Type, first.Event.Name, r.Event.Attributes[r.By].Type, r.Event.Name)
		}
		key := m.Rules[i].Key()
		if seen[key] {
			find(true, "events", "two rules select the same; remove one")
		}
		seen[key] = true
	}
}

// common looks at what events and metrics have in common.
func (l *linter) common(s Status, description, owner, introduced, removedBy, removedIn string, find func(isError bool, key, format string, args ...any)) {
	if err := CheckDescription(description); err != nil {
		_, message, _ := strings.Cut(err.Error(), ": ")
		find(true, "description", "%s", message)
	}
	if owner == "" {
		find(false, "owner", "nobody is named who knows what it means; name a team")
	}
	if introduced == "" {
		find(false, "introduced_by_url", "it is missing; name the change that introduced it")
	}
	if s == Removed && (removedBy == "" || removedIn == "") {
		find(true, "status", "what is removed says when and by what; add removed_by_url and milestone_removed")
	}
	if s != Removed && (removedBy != "" || removedIn != "") {
		find(true, "status", "it says by what it was removed, and is %s; set status to removed or take that out", s)
	}
}

// Words of names, between underscores, that say what a value is.
var (
	personalWords = map[string]string{
		"email": "it looks like a mail address", "mail": "it looks like a mail address",
		"phone": "it looks like a telephone number", "mobile": "it looks like a telephone number",
		"ip": "it looks like an address of a machine", "ipaddr": "it looks like an address of a machine",
		"username": "it looks like a person's name", "login": "it looks like a person's name",
		"firstname": "it looks like a person's name", "lastname": "it looks like a person's name",
		"surname": "it looks like a person's name", "birthday": "it looks like a date of birth",
		"birthdate": "it looks like a date of birth", "dob": "it looks like a date of birth",
		"street": "it looks like a postal address", "postcode": "it looks like a postal address",
		"address": "it looks like an address", "ssn": "it looks like a number of a person",
		"passport": "it looks like a number of a person", "iban": "it looks like a bank account",
	}
	personalPairs = map[string]string{
		"first_name": "it looks like a person's name", "last_name": "it looks like a person's name",
		"full_name": "it looks like a person's name", "user_name": "it looks like a person's name",
		"display_name": "it looks like a person's name", "birth_date": "it looks like a date of birth",
		"card_number": "it looks like a bank card", "zip_code": "it looks like a postal address",
		"user_agent": "it tells browsers apart",
	}
	secretWords = []string{"password", "passwd", "secret", "token", "apikey", "cvv", "cvc"}
)

// personal says why a name looks like personal data, "" if it does not.
func personal(name string) string {
	for pair, why := range personalPairs {
		if strings.Contains("_"+name+"_", "_"+pair+"_") {
			return why
		}
	}
	for word := range strings.SplitSeq(name, "_") {
		if why := personalWords[word]; why != "" {
			return why
		}
	}
	return ""
}

func secret(name string) bool {
	for word := range strings.SplitSeq(name, "_") {
		if slices.Contains(secretWords, word) {
			return true
		}
	}
	return strings.Contains("_"+name+"_", "_api_key_")
}
