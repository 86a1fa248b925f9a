package plan

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of what a folder may hold. Beyond them there is a fault, and no plan.
const (
	maxFiles      = 4096      // definitions in a folder
	maxFile       = 256 << 10 // bytes of one
	maxDepth      = 4         // folders below events/ and metrics/
	maxFaults     = 1000      // that are told; the rest is a number
	maxName       = 64        // bytes of the name of an attribute or of a value of an enum
	maxEventName  = 120
	maxKeyPath    = 180
	maxText       = 500 // bytes of a word, a URL, an owner
	maxProse      = 4000
	maxAttributes = 32
	maxValues     = 100 // of an enum
	maxConsent    = 16  // categories of an event
	maxRules      = 32  // of a metric
	maxLength     = 4096

	defaultLength = 200 // of a value
)

// Options are what the configuration says about a plan.
type Options struct {
	// Mode is for events that have none of their own.
	Mode Mode

	// Context are tags that clients or their libraries add to all lines. They are no
	// attributes, unless an event declares them.
	Context []string

	// Collected are the categories of data that may be collected; empty for all.
	Collected []DataCategory
}

// DefaultOptions returns what is true unless the configuration says otherwise.
func DefaultOptions() Options {
	return Options{Mode: Warn, Context: []string{"env", "service", "version", "host"}}
}

// Empty returns a plan without definitions.
func Empty(options Options) *Plan { return &Plan{options: options, byName: map[string]*Event{}} }

// Load reads the definitions in dir: events from the files *.yml and *.yaml below
// events/, metrics from those below metrics/. The error is Faults if the files can be
// read but are not a plan.
func Load(dir string, options Options) (*Plan, error) {
	p, faults, err := read(dir, options)
	if err != nil {
		return nil, err
	}
	if len(faults.list) > 0 {
		return nil, faults.all()
	}
	return p, nil
}

// faultList collects faults up to a limit.
type faultList struct {
	list Faults
	more int
}

// read is Load that returns what could be read together with its faults.
func read(dir string, options Options) (*Plan, *faultList, error) {
	faults := &faultList{}
	p := Empty(options)
	if info, err := os.Stat(dir); err != nil {
		return nil, nil, fmt.Errorf("read the definitions: %w", err)
	} else if !info.IsDir() {
		return nil, nil, fmt.Errorf("read the definitions: %s is a file; name the folder that has events/ and metrics/", dir)
	}
	var files int
	var metrics []*rawMetric
	for _, kind := range []string{"events", "metrics"} {
		paths, err := definitionFiles(filepath.Join(dir, kind), maxDepth, maxFiles+1-files)
		if err != nil {
			return nil, nil, fmt.Errorf("read the definitions: %w", err)
		}
		if files += len(paths); files > maxFiles {
			faults.add(Fault{File: dir, Message: fmt.Sprintf("it holds more than %d definitions; remove what is not used", maxFiles)})
			break
		}
		for _, path := range paths {
			text, err := readAtMost(path, maxFile)
			if err != nil {
				return nil, nil, fmt.Errorf("read the definitions: %w", err)
			}
			metrics = p.parse(path, kind, text, metrics, faults)
		}
	}
	if files == 0 {
		faults.add(Fault{File: dir, Message: "it holds no definitions; put events into events/ as *.yml, and metrics into metrics/"})
	}
	p.finish(metrics, faults)
	return p, faults, nil
}

// parse takes one file into the plan; metrics are linked when all events are known.
func (p *Plan) parse(path, kind string, text []byte, metrics []*rawMetric, faults *faultList) []*rawMetric {
	d := &document{file: path, faults: faults}
	switch {
	case len(text) > maxFile:
		d.fault(0, "", "it is larger than %d KiB; is it a definition?", maxFile>>10)
	case kind == "events":
		p.addEvent(d, d.event(text))
	default:
		if m := d.metric(text); m != nil {
			metrics = append(metrics, m)
		}
	}
	return metrics
}

func (p *Plan) finish(metrics []*rawMetric, faults *faultList) {
	slices.SortFunc(p.Events, func(a, b *Event) int { return strings.Compare(a.Name, b.Name) })
	p.link(metrics)
	for _, e := range p.Events {
		e.plainTags(faults)
	}
	faults.list.sort()
}

// plainTags finds tags that are not to be written as they are: a tag of the counter is.
func (e *Event) plainTags(faults *faultList) {
	for i := range e.Attributes {
		a := &e.Attributes[i]
		if a.Role != Tag || a.Plain() {
			continue
		}
		key := "attributes." + a.Name + ".privacy"
		file, line := e.where(key)
		faults.add(Fault{File: file, Line: line, Key: key, Message: "a tag of the counter has its value as it is; set role to raw or identity, or privacy to none"})
	}
}

// parseFiles is Load for files that are not on disk.
func parseFiles(files []File, options Options, faults *faultList) *Plan {
	p := Empty(options)
	var metrics []*rawMetric
	for _, f := range files {
		kind, _, _ := strings.Cut(f.Name, "/")
		metrics = p.parse(f.Name, kind, f.Text, metrics, faults)
	}
	p.finish(metrics, faults)
	return p
}

// definitionFiles lists the YAML files of a folder and the folders in it, sorted, but
// no more than most. A folder that is not there has none.
func definitionFiles(dir string, depth, most int) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		name := entry.Name()
		path := filepath.Join(dir, name)
		extension := filepath.Ext(name)
		switch {
		case strings.HasPrefix(name, "."): // of editors, of version control, of mounted volumes
		case entry.IsDir() && depth > 0:
			below, err := definitionFiles(path, depth-1, most-len(all))
			if err != nil {
				return nil, err
			}
			all = append(all, below...)
		case entry.IsDir():
			return nil, fmt.Errorf("%s is too deep; put it %d folders below events/ or metrics/ at most", path, maxDepth)
		case entry.Type()&fs.ModeSymlink != 0 && isFolder(path): // it may lead back to where we are
			return nil, fmt.Errorf("%s is a link to a folder, which is not followed; put the folder there, or links to its files", path)
		case extension == ".yml" || extension == ".yaml":
			all = append(all, path)
		}
		if len(all) >= most {
			return all[:most], nil
		}
	}
	return all, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// readAtMost reads a regular file, and one byte beyond most if there is one.
func readAtMost(path string, most int) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, int64(most)+1))
}

func (f *faultList) add(fault Fault) {
	if len(f.list) >= maxFaults {
		f.more++
		return
	}
	f.list = append(f.list, fault)
}

// all returns the faults and, as one of them, how many more there are.
func (f *faultList) all() Faults {
	if f.more == 0 {
		return f.list
	}
	return append(slices.Clone(f.list), Fault{Message: fmt.Sprintf("and %d more faults", f.more)})
}

func (p *Plan) addEvent(d *document, e *Event) {
	if e == nil {
		return
	}
	if other := p.byName[e.Name]; other != nil {
		d.fault(e.lines["event"], "event", "%s is defined in %s as well; remove one", e.Name, other.File)
		return
	}
	p.byName[e.Name] = e
	p.Events = append(p.Events, e)
	for _, category := range e.Consent {
		if i, known := slices.BinarySearch(p.categories, category); !known {
			p.categories = slices.Insert(p.categories, i, category)
		}
	}
}
