package forwarder

import (
	"strings"
	"unsafe"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// pattern is a name in which "*" stands for any number of any bytes, dots
// included. It holds what is between the stars.
type pattern []string

func newPattern(text string) pattern { return strings.Split(text, "*") }

// match reports whether all of name is what the pattern says.
func (p pattern) match(name string) bool {
	first, last := p[0], p[len(p)-1]
	if len(p) == 1 {
		return name == first
	}
	if len(name) < len(first)+len(last) || !strings.HasPrefix(name, first) || !strings.HasSuffix(name, last) {
		return false
	}
	name = name[len(first) : len(name)-len(last)]
	for _, part := range p[1 : len(p)-1] {
		at := strings.Index(name, part)
		if at < 0 {
			return false
		}
		name = name[at+len(part):]
	}
	return true
}

// filter says which points are a destination's. It is used by one goroutine.
type filter struct {
	include, exclude []pattern
	name             []byte // with a suffix: the one that is looked at
	work             priority.Work
}

func newFilter(cfg *DestinationConfig) *filter {
	f := &filter{}
	for _, text := range cfg.Include {
		f.include = append(f.include, newPattern(text))
	}
	for _, text := range cfg.Exclude {
		f.exclude = append(f.exclude, newPattern(text))
	}
	return f
}

// takes reports whether points of a name are wanted: it matches a pattern of
// include, if there is any, and none of exclude.
//
// Hot path: once a point and destination. No allocation; TestFilterDoesNotAllocate
// checks that.
func (f *filter) takes(name, suffix string) bool {
	f.work.Step()
	if suffix != "" {
		f.name = append(append(f.name[:0], name...), suffix...)
		name = unsafe.String(&f.name[0], len(f.name)) // for as long as this call
	}
	for _, p := range f.exclude {
		if p.match(name) {
			return false
		}
	}
	for _, p := range f.include {
		if p.match(name) {
			return true
		}
	}
	return len(f.include) == 0
}

// apply returns the part of b that is wanted: b itself if that is all of it.
func (f *filter) apply(b *metric.Batch) *metric.Batch {
	if len(f.include)+len(f.exclude) == 0 {
		return b
	}
	f.work.Begin()
	defer f.work.End()
	part := *b
	part.Series = keep(b.Series, func(s *metric.Series) bool { return f.takes(b.Context(s).Name(), s.Suffix.String()) })
	part.Sketches = keep(b.Sketches, func(p *metric.SketchPoint) bool { return f.takes(p.Context.Name(), "") })
	part.Events = keep(b.Events, func(e *metric.Event) bool { return f.takes(e.Title, "") })
	part.Checks = keep(b.Checks, func(c *metric.ServiceCheck) bool { return f.takes(c.Name, "") })
	return &part
}

// keep returns the items that are wanted. items stays as it is: other destinations
// have it, too.
func keep[T any](items []T, wanted func(*T) bool) []T {
	same := 0
	for same < len(items) && wanted(&items[same]) {
		same++
	}
	if same == len(items) {
		return items
	}
	kept := items[:same:same] // appending copies
	for i := same + 1; i < len(items); i++ {
		if wanted(&items[i]) {
			kept = append(kept, items[i])
		}
	}
	return kept
}
