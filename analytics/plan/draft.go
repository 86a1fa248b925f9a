package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// minDescription is how many characters a description has, so that it says more than
// the name.
const minDescription = 20

// Draft is what somebody wants to be defined, in the words of the command line.
type Draft struct {
	Event        string
	Description  string
	Owner        string
	URL          string
	Milestone    string
	DataCategory string
	Attributes   []string // NAME[:TYPE][:required][:ROLE]; an enum is NAME:enum(a|b)
	Unique       []string // identities or attributes to count, a metric each
	Sum          []string // attributes to add up, a metric each
	Total        bool     // count the events
	TimeFrames   []string
	KeyPath      string // of the one metric; "" for one made of what it counts
}

// Make returns the files of a draft and the event they define. It refuses what is
// defined already and what Load or Lint would refuse. The error joins all that is
// wrong.
func (p *Plan) Make(d Draft) ([]File, *Event, error) {
	var faults []error
	wrong := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	for _, err := range []error{p.CheckName(d.Event), CheckDescription(d.Description)} {
		if err != nil {
			faults = append(faults, err)
		}
	}
	if d.URL == "" {
		wrong("url: it is missing; name the change that introduces the event, such as https://git.example.com/shop/pulls/71")
	}
	if d.Owner == "" {
		wrong("owner: it is missing; name the team that knows what the event means")
	}
	if d.DataCategory != "" && !slices.Contains(DataCategories, d.DataCategory) {
		wrong("data-category: there is no %q; use %s", short(d.DataCategory), list(DataCategories))
	}
	e := &Event{
		Name: d.Event, Description: d.Description, Owner: d.Owner, Status: Active, IntroducedByURL: d.URL,
		Milestone: d.Milestone, Version: Version{1, 0, 0}, DataCategory: Optional, index: map[string]int{},
		Counter: Counter{true, d.Event}, Raw: Raw{SinkEvents, 1},
	}
	if d.DataCategory != "" {
		e.DataCategory = DataCategory(d.DataCategory)
	}
	for _, text := range d.Attributes {
		a, err := ParseAttribute(text)
		if err == nil && e.Attribute(a.Name) >= 0 {
			err = fmt.Errorf("attr: %s is there twice; remove one", a.Name)
		}
		if err != nil {
			faults = append(faults, err)
			continue
		}
		e.index[a.Name] = len(e.Attributes)
		e.Attributes = append(e.Attributes, a)
	}
	metrics := d.metrics(e, wrong)
	if len(faults) > 0 {
		return nil, nil, errors.Join(faults...)
	}
	return p.prove(e, metrics)
}

// CheckName says what is wrong with the name of a new event.
func (p *Plan) CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("event: it has no name; write what is done to what, such as team.created")
	case len(name) > maxEventName || !dottedName.MatchString(name):
		return fmt.Errorf("event: %q is not a name of an event; use %s, and dots between", short(name), wordsOfNames)
	}
	if e := p.byName[name]; e != nil {
		return fmt.Errorf("event: %s is defined in %s already; use that or another name", name, e.File)
	}
	return nil
}

// CheckDescription says what is wrong with a description.
func CheckDescription(text string) error {
	if n := utf8.RuneCountInString(strings.TrimSpace(text)); n < minDescription {
		return fmt.Errorf("description: it has %d characters and needs %d; say who does what, and when it is sent", n, minDescription)
	}
	return nil
}

// ParseAttribute reads NAME[:TYPE][:required][:ROLE].
func ParseAttribute(text string) (Attribute, error) {
	name, rest, more := strings.Cut(text, ":")
	a := Attribute{Name: name, Type: String, MaxLength: defaultLength}
	if !plainName.MatchString(name) || len(name) > maxName {
		return a, fmt.Errorf("attr: %q is not a name of an attribute; begin with a letter, use %s", short(name), wordsOfNames)
	}
	role := ""
	for more {
		var word string
		word, rest, more = strings.Cut(rest, ":")
		values, isEnum := strings.CutPrefix(word, "enum(")
		values, closed := strings.CutSuffix(values, ")")
		switch {
		case isEnum && closed:
			a.Type, a.Values = Enum, strings.Split(values, "|")
		case word == string(Enum):
			return a, fmt.Errorf("attr: %s is an enum and needs its values; write %s:enum(one|two)", name, name)
		case slices.Contains(types, word):
			a.Type = Type(word)
		case word == "required":
			a.Required = true
		case slices.Contains(roles, word):
			role = word
		default:
			return a, fmt.Errorf("attr: in %q there is no %q; a type is %s or enum(one|two), a role %s, and required stands alone",
				short(text), short(word), list(plainTypes), list(roles))
		}
	}
	a.Role = defaultRole(name, a.Type)
	if role != "" {
		a.Role, a.explicitRole = Role(role), true
	}
	a.Privacy = Privacy{Kind: None}
	if a.Role == Identity {
		a.Identity, a.Privacy = defaultIdentity(name), Privacy{Kind: HMAC}
	}
	return a, nil
}

// metrics makes the metrics of a draft.
func (d *Draft) metrics(e *Event, wrong func(format string, args ...any)) []*Metric {
	if !d.Total && len(d.Unique)+len(d.Sum) == 0 {
		if len(d.TimeFrames) > 0 || d.KeyPath != "" {
			wrong("time-frames: there is nothing to count; name what, with --unique, --sum or --total")
		}
		return nil
	}
	frames, window := d.frames(wrong)
	var all []*Metric
	add := func(key, description string, r Rule) {
		r.Event = e
		m := &Metric{
			KeyPath: "usage." + key, Description: description, Owner: d.Owner, ValueType: "number", Status: Active,
			IntroducedByURL: d.URL, Milestone: d.Milestone, DataCategory: e.DataCategory, Window: window, Timezone: "UTC",
			Rules: []Rule{r}, Operator: Or, Emit: Emit{true, Fleet},
		}
		for _, frame := range frames {
			if r.Unique != "" && frame == FrameAll {
				wrong("time-frames: who did it is counted over days, not over all time; remove all, or --unique")
				continue
			}
			m.TimeFrames = append(m.TimeFrames, frame)
		}
		all = append(all, m)
	}
	flat := strings.ReplaceAll(e.Name, ".", "_")
	for _, unique := range d.Unique {
		i := e.Identity(unique)
		if i < 0 {
			wrong("unique: the event has no identity %s%s; declare it with --attr", short(unique), suggestAttribute(e, unique, true))
			continue
		}
		a := &e.Attributes[i]
		if a.Role != Identity && a.explicitRole {
			wrong("unique: %s has role %s; only what has role identity can be counted", a.Name, a.Role)
			continue
		}
		if a.Role != Identity {
			a.Role, a.Identity, a.Privacy = Identity, defaultIdentity(a.Name), Privacy{Kind: HMAC}
		}
		what := strings.ReplaceAll(strings.TrimSuffix(a.Identity, ".id"), ".", "_")
		add("count_distinct_"+what+"_from_"+flat, fmt.Sprintf("How many different %s there are in events %s.", a.Identity, e.Name), Rule{Unique: a.Identity})
	}
	for _, sum := range d.Sum {
		i := e.Attribute(sum)
		if i < 0 || e.Attributes[i].Type != Int && e.Attributes[i].Type != Float {
			wrong("sum: the event has no number %s; declare it with --attr %[1]s:int or :float", short(sum))
			continue
		}
		if a := &e.Attributes[i]; !a.explicitRole && a.Role == RawOnly {
			a.Role = Number
		}
		add("sum_of_"+sum+"_from_"+flat, fmt.Sprintf("The sum of %s over all events %s.", sum, e.Name), Rule{Sum: sum})
	}
	if d.Total {
		add("count_total_"+flat, fmt.Sprintf("How many events %s there are.", e.Name), Rule{})
	}
	switch {
	case d.KeyPath != "" && len(all) > 1:
		wrong("key-path: there are %d metrics; leave it out, or define one at a time", len(all))
	case d.KeyPath != "" && len(all) == 1:
		all[0].KeyPath = d.KeyPath
	}
	return all
}

// frames reads the time frames of a draft, and which window has them all.
func (d *Draft) frames(wrong func(format string, args ...any)) (frames []TimeFrame, window Window) {
	given := d.TimeFrames
	if len(given) == 0 {
		given = []string{string(Frame7d), string(Frame28d)}
	}
	for _, frame := range given {
		if !slices.Contains(timeFrames, frame) {
			wrong("time-frames: there is no %q; use %s", short(frame), list(timeFrames))
			return nil, Rolling
		}
		if slices.Contains(frames, TimeFrame(frame)) {
			continue
		}
		frames = append(frames, TimeFrame(frame))
	}
	for _, window := range []Window{Rolling, Calendar} {
		if !slices.ContainsFunc(frames, func(f TimeFrame) bool { return !slices.Contains(framesOf[window], string(f)) }) {
			return frames, window
		}
	}
	wrong("time-frames: %s are of different windows; rolling has %s, calendar has %s",
		list(given), list(framesOf[Rolling]), list(framesOf[Calendar]))
	return nil, Rolling
}

// prove writes the definitions and reads them with the rest of the plan, so that what
// is handed out is sound.
func (p *Plan) prove(e *Event, metrics []*Metric) ([]File, *Event, error) {
	files := []File{{e.FileName(), e.YAML()}}
	for _, m := range metrics {
		if other := p.Metric(m.KeyPath); other != nil {
			return nil, nil, fmt.Errorf("key-path: %s is defined in %s already; use another", m.KeyPath, other.File)
		}
		files = append(files, File{m.FileName(), m.YAML()})
	}
	faults := &faultList{}
	read := parseFiles(files, p.options, faults)
	if len(faults.list) > 0 {
		return nil, nil, faults.all()
	}
	for _, finding := range read.Lint() {
		if finding.Error {
			faults.add(finding.Fault)
		}
	}
	if len(faults.list) > 0 {
		return nil, nil, faults.all()
	}
	return files, read.Event(e.Name), nil
}
