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
	g := &gitlabImport{out: &Imported{}, events: map[string]*Event{}, counted: map[string]bool{}}
	err := eachFile(dir, []string{".yml", ".yaml"}, func(path string, text []byte) {
		var kind struct {
			Action  string `yaml:"action"`
			KeyPath string `yaml:"key_path"`
		}
		switch err := yaml.Unmarshal(text, &kind); {
		case err != nil:
			g.out.note("%s: left out, it is not valid YAML (%v)", path, err)
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
			g.event(e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("import from GitLab: %w", err)
	}
	if len(g.events) == 0 {
		return nil, fmt.Errorf("import from GitLab: there are no events below %s; name a folder with files that have an action", dir)
	}
	g.metricsOfEvents()
	return g.out.prove(g.sorted(), g.made)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(strings.ReplaceAll(err.Error(), "unmarshal errors:\n", ""), "\n")
	return strings.TrimSpace(line)
}

// eachFile hands over the files with these extensions, in the order of their paths,
// but for those of hidden folders, of folders of dependencies and of tests.
func eachFile(dir string, extensions []string, use func(path string, text []byte)) error {
	if info, err := os.Stat(dir); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is a file; name a folder", dir)
	}
	files := 0
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			relative, err := filepath.Rel(dir, path)
			if err == nil && path != dir && (strings.HasPrefix(name, ".") || name == "node_modules" || strings.Count(relative, string(filepath.Separator)) >= maxImportDepth) {
				return fs.SkipDir
			}
			return err
		}
		if !entry.Type().IsRegular() || !slices.Contains(extensions, filepath.Ext(name)) {
			return nil
		}
		if files++; files > maxImportFiles {
			return fmt.Errorf("there are more than %d files; name the folder with the definitions", maxImportFiles)
		}
		text, err := readAtMost(path, maxImportFile)
		if err != nil {
			return err
		}
		if len(text) <= maxImportFile {
			use(path, text)
		}
		return nil
	})
}

type gitlabImport struct {
	out     *Imported
	events  map[string]*Event
	metrics []gitlabMetric
	made    []*Metric
	counted map[string]bool // key paths
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
	if e.Description == "" {
		e.Description = "Imported from GitLab: " + name
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
	if from.Additional.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(from.Additional.Content); i += 2 {
			g.property(e, from, from.Additional.Content[i].Value, from.Additional.Content[i+1])
		}
	}
	g.events[name] = e
	g.out.Events++
}

func (g *gitlabImport) property(e *Event, from gitlabEvent, key string, value *yaml.Node) {
	var property struct {
		Description string `yaml:"description"`
	}
	_ = value.Decode(&property) // a description that cannot be read is none
	name := plain(key)
	a := Attribute{Name: name, Description: property.Description, Type: String, Role: RawOnly, Privacy: Privacy{Kind: None}}
	if key == "value" {
		a.Type, a.Role = Float, Number
	}
	if namesIdentity(name) {
		a.Role, a.Identity, a.Privacy = Identity, defaultIdentity(name), Privacy{Kind: HMAC}
	}
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
		if m, why := g.metric(from); why != "" {
			g.out.note("%s: left out, %s", from.path, why)
		} else {
			g.counted[m.KeyPath] = true
			g.made = append(g.made, m)
			g.out.Metrics++
		}
	}
	for source, n := range others {
		g.out.note("%d metrics are left out, since they are made of no events (data_source %s)", n, short(source))
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
	if m.Description == "" {
		m.Description = "Imported from GitLab: " + m.KeyPath
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
	for _, selected := range from.Events {
		if (selected.Unique != "") != unique {
			return nil, "some of its rules count who and others how often"
		}
		e := g.events[dotted(selected.Name, maxEventName)]
		if e == nil {
			return nil, "there is no event " + short(selected.Name)
		}
		r := Rule{Event: e, Unique: selected.Unique}
		if selected.Operator != "" {
			of, ok := summed(selected.Operator)
			if !ok {
				return nil, "the operator " + short(selected.Operator) + " is not known"
			}
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

// prove writes what was imported, and reads it: what an import hands out is sound. A
// metric with a fault is left out with a note; a fault of an event is an error.
func (i *Imported) prove(events []*Event, metrics []*Metric) (*Imported, error) {
	var files []File
	for _, e := range events {
		files = append(files, File{e.FileName(), e.YAML()})
	}
	byFile := map[string]File{}
	for _, m := range metrics {
		f := File{m.FileName(), m.YAML()}
		byFile[f.Name] = f
		files = append(files, f)
	}
	for {
		faults := &faultList{}
		parseFiles(files, DefaultOptions(), faults)
		if len(faults.list) == 0 {
			i.Files = files
			return i, nil
		}
		before := len(files)
		for _, fault := range faults.list {
			if _, isMetric := byFile[fault.File]; !isMetric {
				continue
			}
			delete(byFile, fault.File)
			files = slices.DeleteFunc(files, func(f File) bool { return f.Name == fault.File })
			i.Metrics--
			i.note("%v: left out", fault)
		}
		if len(files) == before {
			return nil, errors.Join(errors.New("what is imported would have faults"), faults.all())
		}
	}
}
