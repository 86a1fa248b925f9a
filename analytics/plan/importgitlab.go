package plan

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of what is read for an import.
const (
	maxImportFiles = 20_000
	maxImportFile  = 1 << 20
	maxImportDepth = 12

	// maxImportProperties is how many properties of an event are looked at: beyond
	// maxAttributes all are left out with a note.
	maxImportProperties = 1000
)

// Imported is what came out of an import.
type Imported struct {
	Files   []File
	Events  int
	Metrics int
	Notes   []string // what was left out or changed, and why
}

func (i *Imported) note(format string, args ...any) {
	i.Notes = append(i.Notes, fmt.Sprintf(format, args...))
}

// gitlabEvent is what is read of a GitLab event. Keys that mean nothing here are left
// out by the decoder.
type gitlabEvent struct {
	Action           string    `yaml:"action"`
	Description      string    `yaml:"description"`
	ProductGroup     string    `yaml:"product_group"`
	Status           string    `yaml:"status"`
	IntroducedByURL  string    `yaml:"introduced_by_url"`
	Milestone        string    `yaml:"milestone"`
	RemovedByURL     string    `yaml:"removed_by_url"`
	MilestoneRemoved string    `yaml:"milestone_removed"`
	Identifiers      []string  `yaml:"identifiers"`
	Additional       yaml.Node `yaml:"additional_properties"`

	// Of events that were there before internal_events.
	Label    string `yaml:"label_description"`
	Property string `yaml:"property_description"`
	Value    string `yaml:"value_description"`

	path string
}

type gitlabMetric struct {
	KeyPath          string    `yaml:"key_path"`
	Description      string    `yaml:"description"`
	ProductGroup     string    `yaml:"product_group"`
	Status           string    `yaml:"status"`
	RepairIssueURL   string    `yaml:"repair_issue_url"`
	IntroducedByURL  string    `yaml:"introduced_by_url"`
	Milestone        string    `yaml:"milestone"`
	RemovedByURL     string    `yaml:"removed_by_url"`
	MilestoneRemoved string    `yaml:"milestone_removed"`
	ValueType        string    `yaml:"value_type"`
	DataSource       string    `yaml:"data_source"`
	DataCategory     string    `yaml:"data_category"`
	TimeFrame        yaml.Node `yaml:"time_frame"`
	Events           []struct {
		Name     string            `yaml:"name"`
		Unique   string            `yaml:"unique"`
		Operator string            `yaml:"operator"`
		Filter   map[string]string `yaml:"filter"`
	} `yaml:"events"`

	path string
}

// ImportGitLab reads the definitions of GitLab's internal events below dir, which is
// a checkout or a part of one. What comes out behaves as GitLab's: faults are told
// and do not stop an event, properties that nobody declared are kept, and weeks are
// GitLab's.
func ImportGitLab(dir string) (*Imported, error) {
	g := &gitlabImport{out: &Imported{}, leftOut: map[string]string{}}
	err := g.out.eachFile(dir, []string{".yml", ".yaml"}, func(path string, text []byte) {
		var kind struct {
			Action  string `yaml:"action"`
			KeyPath string `yaml:"key_path"`
		}
		switch err := yaml.Unmarshal(text, &kind); {
		case err != nil:
			g.out.note("%s: left out, it is not valid YAML (%s)", path, firstLine(err))
		case kind.KeyPath != "":
			m := gitlabMetric{path: path}
			if err := yaml.Unmarshal(text, &m); err != nil {
				g.out.note("%s: left out, it is no metric (%s)", path, firstLine(err))
				return
			}
			g.metrics = append(g.metrics, m)
		case kind.Action != "":
			e := gitlabEvent{path: path}
			if err := yaml.Unmarshal(text, &e); err != nil {
				g.out.note("%s: left out, it is no event (%s)", path, firstLine(err))
				return
			}
			g.recorded = append(g.recorded, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("import from GitLab: %w", err)
	}
	if len(g.recorded) == 0 {
		return nil, fmt.Errorf("import from GitLab: there are no events below %s; name a folder with files that have an action", dir)
	}
	// A metric with a fault leaves no trace at the events that it counts: without it
	// everything is made anew.
	for {
		out := g.make()
		left := len(g.leftOut)
		faults := out.prove(g.sorted(), g.made)
		for _, fault := range faults {
			if from := g.from[fault.File]; from != "" {
				g.leftOut[from] = strings.TrimPrefix(fault.Key+": "+fault.Message, ": ")
			}
		}
		switch {
		case len(faults) == 0:
			return out, nil
		case len(g.leftOut) == left:
			return nil, errors.Join(errors.New("what is imported would have faults"), faults)
		}
	}
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), "unmarshal errors:\n", ""), "\n")
	return strings.Join(strings.Fields(line), " ")
}

// eachFile hands over the files with these extensions, in the order of their paths,
// but for those of hidden folders and of folders of dependencies. Links to files are
// followed, those to folders are not, but for dir itself. What is too much has a note.
func (i *Imported) eachFile(dir string, extensions []string, use func(path string, text []byte)) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	if !isFolder(root) {
		return fmt.Errorf("%s is a file; name a folder", dir)
	}
	files := 0
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		shown := filepath.Join(dir, relative)
		if entry.IsDir() {
			switch {
			case path == root:
			case strings.HasPrefix(name, "."), name == "node_modules":
				return fs.SkipDir
			case strings.Count(relative, string(filepath.Separator)) >= maxImportDepth:
				i.note("%s: left out, it is more than %d folders deep", shown, maxImportDepth)
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains(extensions, filepath.Ext(name)) {
			return nil
		}
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
			return nil // a link to nothing, a pipe
		}
		if files++; files > maxImportFiles {
			return fmt.Errorf("there are more than %d files; name the folder with the definitions", maxImportFiles)
		}
		text, err := readAtMost(path, maxImportFile)
		if err != nil {
			return err
		}
		if len(text) > maxImportFile {
			i.note("%s: left out, it is larger than %d KiB", shown, maxImportFile>>10)
			return nil
		}
		use(shown, text)
		return nil
	})
}

type gitlabImport struct {
	out      *Imported // with the notes of reading only
	recorded []gitlabEvent
	metrics  []gitlabMetric
	leftOut  map[string]string // files of metrics with faults, and which

	// What make makes.
	events  map[string]*Event
	made    []*Metric
	counted map[string]bool   // key paths
	from    map[string]string // the files that files of metrics are made of
}

// make makes events and metrics of what was read.
func (g *gitlabImport) make() *Imported {
	read := g.out
	g.out = &Imported{Notes: slices.Clone(read.Notes)}
	g.events, g.made, g.counted, g.from = map[string]*Event{}, nil, map[string]bool{}, map[string]string{}
	for _, e := range g.recorded {
		g.event(e)
	}
	g.metricsOfEvents()
	made := g.out
	g.out = read
	return made
}

var notPlain = regexp.MustCompile(`[^a-z0-9_]+`)

// plain makes a name of what may stand in one.
func plain(name string) string {
	name = strings.Trim(notPlain.ReplaceAllString(snake(name), "_"), "_")
	if name != "" && (name[0] < 'a' || name[0] > 'z') {
		name = "x_" + name
	}
	return name[:min(len(name), maxName)]
}

// snake writes userId as user_id.
func snake(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if before := name[max(0, i-1)]; i > 0 && (before >= 'a' && before <= 'z' || before >= '0' && before <= '9') {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// dotted makes a name with dots of what may stand in one.
func dotted(name string, longest int) string {
	var parts []string
	for part := range strings.SplitSeq(name, ".") {
		if part = strings.Trim(notPlain.ReplaceAllString(snake(part), "_"), "_"); part != "" {
			parts = append(parts, part)
		}
	}
	name = strings.Join(parts, ".")
	return strings.Trim(name[:min(len(name), longest)], ".")
}

// clip shortens a text that is longer than a definition may hold.
func clip(text string, longest int) string {
	return strings.ToValidUTF8(text[:min(len(text), longest)], "")
}

func newEvent(name, description string) *Event {
	return &Event{
		Name: name, Description: clip(strings.TrimSpace(description), maxProse), Status: Active, Version: Version{1, 0, 0},
		DataCategory: Optional, Counter: Counter{true, name}, Raw: Raw{SinkEvents, 1}, index: map[string]int{},
	}
}

// declare adds an attribute, if there is none of its name.
func (e *Event) declare(a Attribute) bool {
	if _, known := e.index[a.Name]; known || a.Name == "" || len(e.Attributes) >= maxAttributes {
		return false
	}
	if a.Role == Identity && slices.ContainsFunc(e.Attributes, func(b Attribute) bool { return b.Role == Identity && b.Identity == a.Identity }) {
		a.Role, a.Identity = RawOnly, "" // there is one who it was already; this one stays a pseudonym
	}
	a.MaxLength = defaultLength
	a.Description = clip(strings.TrimSpace(a.Description), maxProse)
	e.index[a.Name] = len(e.Attributes)
	e.Attributes = append(e.Attributes, a)
	return true
}

// protect keeps what looks personal, or like a secret, from being written as it came.
func (a *Attribute) protect() {
	if personal(a.Name) != "" {
		a.Privacy = Privacy{Kind: HMAC}
		if a.Role == Tag { // of which the counter has the value as it is
			a.Role = RawOnly
		}
	}
	if secret(a.Name) {
		a.Role, a.Identity, a.Privacy = Drop, "", Privacy{Kind: None}
	}
}

func identityOf(name string, t Type) Attribute {
	return Attribute{Name: name, Type: t, Role: Identity, Identity: defaultIdentity(name), Privacy: Privacy{Kind: HMAC}}
}

func (g *gitlabImport) event(from gitlabEvent) {
	name := dotted(from.Action, maxEventName)
	if name == "" || g.events[name] != nil {
		g.out.note("%s: left out, there is an event %s already", from.path, name)
		return
	}
	if name != from.Action {
		g.out.note("%s: %s is called %s", from.path, short(from.Action), name)
	}
	e := newEvent(name, from.Description)
	if CheckDescription(e.Description) != nil {
		e.Description = clip(strings.TrimSpace("Imported from GitLab as "+name+": "+e.Description), maxProse)
	}
	e.Owner = clip(from.ProductGroup, maxText)
	e.IntroducedByURL, e.Milestone = clip(from.IntroducedByURL, maxText), clip(from.Milestone, maxText)
	e.RemovedByURL, e.MilestoneRemoved = clip(from.RemovedByURL, maxText), clip(from.MilestoneRemoved, maxText)
	if from.Status == string(Removed) {
		e.Status = Removed
	}
	e.Additional, e.Mode = AdditionalKeep, Warn
	for _, identifier := range from.Identifiers {
		switch identifier {
		case "user", "project", "namespace":
			e.declare(identityOf(identifier+"_id", Int))
		default:
			e.declare(Attribute{Name: plain(identifier), Type: String, Role: RawOnly, Privacy: Privacy{Kind: None}})
		}
	}
	for _, p := range properties(&from.Additional, nil) {
		g.property(e, from, p.key, p.description)
	}
	for _, p := range []gitlabProperty{{"label", from.Label}, {"property", from.Property}, {"value", from.Value}} {
		if p.description != "" && e.Attribute(p.key) < 0 {
			g.property(e, from, p.key, p.description)
		}
	}
	g.events[name] = e
	g.out.Events++
}

// gitlabProperty is an additional property of an event.
type gitlabProperty struct{ key, description string }

// properties appends those of a mapping, what is merged into it first.
func properties(node *yaml.Node, all []gitlabProperty) []gitlabProperty {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind == yaml.SequenceNode { // several that are merged
		for _, item := range node.Content {
			if item.Kind == yaml.AliasNode && item.Alias.Kind == yaml.MappingNode {
				all = properties(item, all)
			}
		}
	}
	if node.Kind != yaml.MappingNode {
		return all
	}
	for i := 0; i+1 < len(node.Content) && len(all) <= maxImportProperties; i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Tag == "!!merge" {
			all = properties(value, all)
			continue
		}
		var property struct {
			Description string `yaml:"description"`
		}
		_ = value.Decode(&property) // a description that cannot be read is none
		all = slices.DeleteFunc(all, func(p gitlabProperty) bool { return p.key == key.Value })
		all = append(all, gitlabProperty{key.Value, property.Description})
	}
	return all
}

func (g *gitlabImport) property(e *Event, from gitlabEvent, key, description string) {
	name := plain(key)
	a := Attribute{Name: name, Description: description, Type: String, Role: RawOnly, Privacy: Privacy{Kind: None}}
	if key == "value" {
		a.Type, a.Role = Float, Number
	}
	if namesIdentity(name) {
		a.Role, a.Identity, a.Privacy = Identity, defaultIdentity(name), Privacy{Kind: HMAC}
	}
	a.protect()
	if !e.declare(a) {
		g.out.note("%s: the property %s is left out", from.path, short(key))
	} else if name != key {
		g.out.note("%s: the property %s is called %s", from.path, short(key), name)
	}
}

// metricsOfEvents makes the metrics whose events are known.
func (g *gitlabImport) metricsOfEvents() {
	others := map[string]int{}
	for _, from := range g.metrics {
		if from.DataSource != "internal_events" {
			others[from.DataSource]++
			continue
		}
		if why := g.leftOut[from.path]; why != "" {
			g.out.note("%s: left out, %s", from.path, why)
		} else if m, why := g.metric(from); why != "" {
			g.out.note("%s: left out, %s", from.path, why)
		} else {
			g.counted[m.KeyPath], g.from[m.FileName()] = true, from.path
			g.made = append(g.made, m)
			g.out.Metrics++
		}
	}
	for source, n := range others {
		g.out.note("metrics of data_source %s: %d left out, since they are made of no events", short(source), n)
	}
	slices.Sort(g.out.Notes)
}

func (g *gitlabImport) metric(from gitlabMetric) (m *Metric, why string) {
	m = &Metric{
		KeyPath: dotted(from.KeyPath, maxKeyPath), Description: clip(strings.TrimSpace(from.Description), maxProse),
		Owner: clip(from.ProductGroup, maxText), ValueType: "number", Status: Active, RepairIssueURL: clip(from.RepairIssueURL, maxText),
		IntroducedByURL: clip(from.IntroducedByURL, maxText), Milestone: clip(from.Milestone, maxText),
		RemovedByURL: clip(from.RemovedByURL, maxText), MilestoneRemoved: clip(from.MilestoneRemoved, maxText),
		DataCategory: Optional, Window: GitLabWeeks, Timezone: "UTC", Operator: Or, Emit: Emit{true, Fleet},
	}
	if CheckDescription(m.Description) != nil {
		m.Description = clip(strings.TrimSpace("Imported from GitLab as "+m.KeyPath+": "+m.Description), maxProse)
	}
	switch {
	case m.KeyPath == "" || g.counted[m.KeyPath]:
		return nil, "there is a metric " + m.KeyPath + " already"
	case from.ValueType != "" && from.ValueType != "number":
		return nil, "its value is no number but " + short(from.ValueType)
	case len(from.Events) == 0:
		return nil, "it names no events"
	case len(from.Events) > maxRules:
		return nil, fmt.Sprintf("it has more than %d events", maxRules)
	}
	if slices.Contains(metricStates, from.Status) {
		m.Status = Status(from.Status)
	}
	if slices.Contains(DataCategories, from.DataCategory) {
		m.DataCategory = DataCategory(from.DataCategory)
	}
	unique := from.Events[0].Unique != ""
	if why := m.gitlabFrames(&from.TimeFrame, unique); why != "" {
		return nil, why
	}
	for _, selected := range from.Events { // before any event is changed for it
		switch _, sums := summed(selected.Operator); {
		case (selected.Unique != "") != unique:
			return nil, "some of its rules count who and others how often"
		case g.events[dotted(selected.Name, maxEventName)] == nil:
			return nil, "there is no event " + short(selected.Name)
		case selected.Operator != "" && !sums:
			return nil, "the operator " + short(selected.Operator) + " is not known"
		}
	}
	for _, selected := range from.Events {
		e := g.events[dotted(selected.Name, maxEventName)]
		r := Rule{Event: e, Unique: selected.Unique}
		if of, sums := summed(selected.Operator); sums {
			e.declare(Attribute{Name: plain(of), Type: Float, Role: Number, Privacy: Privacy{Kind: None}})
			r.Sum = plain(of)
		}
		r.Unique = e.countable(selected.Unique)
		for attribute, value := range selected.Filter {
			e.declare(Attribute{Name: plain(attribute), Type: String, Role: RawOnly, Privacy: Privacy{Kind: None}})
			r.Filter = append(r.Filter, Condition{Attribute: plain(attribute), Value: value})
		}
		slices.SortFunc(r.Filter, func(a, b Condition) int { return strings.Compare(a.Attribute, b.Attribute) })
		m.Rules = append(m.Rules, r)
	}
	return m, ""
}

// gitlabFrames takes over the time frames that there are here.
func (m *Metric) gitlabFrames(node *yaml.Node, unique bool) (why string) {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	given := []string{node.Value}
	if node.Kind == yaml.SequenceNode {
		given = nil
		for _, item := range node.Content {
			given = append(given, item.Value)
		}
	}
	for _, frame := range given {
		if !slices.Contains(framesOf[GitLabWeeks], frame) || slices.Contains(m.TimeFrames, TimeFrame(frame)) || unique && frame == string(FrameAll) {
			continue
		}
		m.TimeFrames = append(m.TimeFrames, TimeFrame(frame))
	}
	if len(m.TimeFrames) == 0 {
		return "it has no time frame that is known here"
	}
	return ""
}

// countable makes sure that an event has the identity that a rule counts. It is
// required: a rule that does not find it is passed over, and that is told.
func (e *Event) countable(unique string) string {
	if unique == "" {
		return ""
	}
	name := plain(strings.TrimSuffix(unique, ".id"))
	if strings.HasSuffix(unique, ".id") {
		name += "_id"
		e.declare(identityOf(name, Int))
	} else {
		e.declare(identityOf(name, String))
	}
	i := e.Attribute(name)
	if i < 0 {
		return unique // there are too many attributes; prove says so
	}
	a := &e.Attributes[i]
	a.Role, a.Identity, a.Required = Identity, defaultIdentity(name), true
	if a.Privacy.Kind == None {
		a.Privacy = Privacy{Kind: HMAC}
	}
	return a.Identity
}

func (g *gitlabImport) sorted() []*Event {
	var all []*Event
	for _, e := range g.events {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *Event) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// prove writes what was imported, and reads it: what an import hands out is sound, or
// these are its faults.
func (i *Imported) prove(events []*Event, metrics []*Metric) Faults {
	for _, e := range events {
		i.Files = append(i.Files, File{e.FileName(), e.YAML()})
	}
	for _, m := range metrics {
		i.Files = append(i.Files, File{m.FileName(), m.YAML()})
	}
	faults := &faultList{}
	parseFiles(i.Files, DefaultOptions(), faults)
	return faults.all()
}
