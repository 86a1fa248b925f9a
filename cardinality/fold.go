package cardinality

import (
	"bytes"
	"slices"
	"time"
	"unsafe"

	"github.com/weir-agent/weir/metric"
)

// otherValue is what the values of a folded key become.
const otherValue = "_other_"

// Keys that are none of a tag: what does not have a colon has the key "", and all
// keys beyond those that are told apart are together one, with a name that no key has.
const (
	bareKey   = ""
	pooledKey = ":"
)

// Host and device are folded like tags of these keys.
const (
	hostKey   = "host"
	deviceKey = "device"
)

// resourceKey is never folded: what a metric belongs to is no tag in Datadog.
const resourceKey = "dd.internal.resource"

const (
	// maxKeyBytes is the longest key that is told apart. Longer ones are pooled, so that
	// what is kept of folds is small.
	maxKeyBytes = 256
	// maxKeptBytes is the longest tag of which the text is kept, for the state.
	maxKeptBytes = 512
)

// folded is what is known of a metric of which tag keys are folded.
type folded struct {
	version uint64 // differs from that of any other state of any metric
	dry     bool   // only reported
	folds   []*fold
	demand  *window       // the contexts there would be without folds
	known   int           // its last estimate
	partial time.Duration // when one of several folds was lifted
	base    int           // about how many contexts there would be if no value kept its own series
}

// fold is one folded tag key.
type fold struct {
	key       string
	prefix    []byte // of its tags
	other     []byte // what they become
	otherHash uint64
	kept      map[uint64]*keptValue // by the hash of the tag
	apart     map[string]bool       // of the pooled key: the keys that are none of it
	heavy     *heavy                // nil: no memory
	values    *window               // distinct tags
	alone     *window               // the contexts there would be with all folds but this one, if there are others
	began     time.Duration
	until     time.Duration // not lifted before: what it is about was seen by an earlier process

	valuesKnown, saved int // when it began
}

// keptValue is a value that keeps its own series.
type keptValue struct {
	value string // "" until it is met
	count uint32 // samples, aged
}

func (g *Guard) newFold(key string) *fold {
	f := &fold{key: key, kept: map[uint64]*keptValue{}, began: g.elapsed}
	f.name(g)
	if g.take(foldBytes) {
		f.heavy, f.values, f.alone = new(heavy), newWindow(valuePrecision), newWindow(valuePrecision)
	}
	return f
}

// foldBytes is how much memory the sketches of a fold take.
var foldBytes = 2*windowBytes(valuePrecision) + heavyBytes

// name makes what the tags of a fold begin with and become.
func (f *fold) name(g *Guard) {
	switch f.key {
	case bareKey:
		f.other = []byte(otherValue)
	case pooledKey:
		f.other = []byte(otherValue + ":" + otherValue)
	default:
		f.prefix = []byte(f.key + ":")
		f.other = append(slices.Clone(f.prefix), otherValue...)
	}
	f.otherHash = g.hash.bytes(f.other)
}

// release gives back the memory of a fold's sketches.
func (g *Guard) release(f *fold) {
	if f.heavy != nil {
		g.memory.Add(-foldBytes)
	}
}

// is reports whether a tag has the key of the fold.
func (f *fold) is(tag []byte) bool {
	if n := len(f.prefix); n > 0 {
		return len(tag) >= n && tag[0] == f.prefix[0] && bytes.Equal(tag[:n], f.prefix)
	}
	key := keyOf(tag)
	if f.key == bareKey {
		return len(key) == 0
	}
	return len(key) > 0 && !f.apart[stringOf(key)]
}

// keyOf returns the key of a tag.
func keyOf(tag []byte) []byte { return tag[:max(0, bytes.IndexByte(tag, ':'))] }

// stringOf returns bytes as a string that is valid as long as they are not written.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// forOther calls tag for the host and the device of a candidate, as if they were
// tags.
func forOther(c *metric.Candidate, tag func([]byte)) {
	if c.Host.Explicit && len(c.Host.Name) > 0 {
		tag(append([]byte(hostKey+":"), c.Host.Name...))
	}
	if len(c.Device) > 0 {
		tag(append([]byte(deviceKey+":"), c.Device...))
	}
}

// apply rewrites a candidate by the folds of its metric, and fills in its Sighting.
// The lock is held.
//
// It runs once for each sample of an attack: a tag is hashed once, and its hash tells
// its value, its share in the context, and whether it is kept.
func (g *Guard) apply(m *tracked, c *metric.Candidate) {
	s := &c.Sighting
	s.Metric, s.Version, s.Raw, s.Folded = m.number, m.folded.version, 0, 0
	s.Values = s.Values[:0]
	for range m.folded.folds {
		s.Values = append(s.Values, 0)
	}
	last, unsorted := -1, false
	for i, tag := range c.Tags {
		h := g.hash.bytes(tag)
		s.Raw += h
		at := m.folded.foldOf(tag)
		if at < 0 {
			s.Folded += h
			last = at
			continue
		}
		f := m.folded.folds[at]
		if h == f.otherHash { // as a folded candidate has it, or a client that hears of folds
			s.Folded += h
			last = at
			continue
		}
		s.Values[at] = h
		unsorted = unsorted || at == last || len(f.prefix) == 0
		if f.keeps(h, tag) {
			s.Folded += h
		} else {
			s.Folded += f.otherHash
			c.Tags[i] = f.other
		}
		last = at
	}
	if c.Host.Explicit || len(c.Device) > 0 {
		g.applyToOther(m, c)
	}
	if unsorted {
		sortTags(c)
	}
}

// sortTags restores the order of tags and removes repeats.
func sortTags(c *metric.Candidate) {
	if !slices.IsSortedFunc(c.Tags, bytes.Compare) {
		slices.SortFunc(c.Tags, bytes.Compare)
	}
	c.Tags = slices.CompactFunc(c.Tags, bytes.Equal)
}

// applyToOther folds host and device.
func (g *Guard) applyToOther(m *tracked, c *metric.Candidate) {
	s := &c.Sighting
	forOther(c, func(tag []byte) {
		h := g.hash.bytes(tag)
		s.Raw += h
		at := m.folded.foldOf(tag)
		if at < 0 || m.folded.folds[at].key == pooledKey {
			s.Folded += h
			return
		}
		f := m.folded.folds[at]
		s.Values[at] = h
		switch {
		case f.keeps(h, tag):
			s.Folded += h
			return
		case f.key == hostKey:
			c.Host.Name = []byte(otherValue)
		case f.key == deviceKey:
			c.Device = []byte(otherValue)
		}
		s.Folded += f.otherHash
	})
}

// foldOf returns which fold a tag meets, -1 if none.
func (m *folded) foldOf(tag []byte) int {
	for i, f := range m.folds {
		if f.is(tag) {
			return i
		}
	}
	return -1
}

// keeps reports whether a tag keeps its own series.
func (f *fold) keeps(hash uint64, tag []byte) bool {
	if len(f.kept) == 0 {
		return false
	}
	k := f.kept[hash]
	if k == nil {
		return false
	}
	if k.value == "" && len(tag) <= maxKeptBytes {
		k.value = string(tag)
	}
	return true
}

// observe counts n samples of a candidate. The lock is held.
func (g *Guard) observe(m *tracked, s *metric.Sighting, n uint32) {
	m.folded.demand.insert(s.Raw)
	several := len(s.Values) > 1
	for i, h := range s.Values {
		f := m.folded.folds[i]
		if h == 0 {
			continue
		}
		f.values.insert(h)
		if k := f.kept[h]; k != nil {
			k.count = addClipped(k.count, n)
			if several {
				f.alone.insert(s.Folded)
			}
			continue
		}
		f.heavy.add(h, n)
		if several {
			f.alone.insert(s.Folded - f.otherHash + h)
		}
	}
}

// Keeps reports whether a context of a metric is what the folds in force make of it:
// if not, it is to be forgotten.
func (g *Guard) Keeps(number uint32, context *metric.Context) bool {
	s, m := g.lock(number)
	defer s.mu.Unlock()
	return m == nil || g.keeps(m, context)
}

func (g *Guard) keeps(m *tracked, context *metric.Context) bool {
	if m.folded == nil || m.folded.dry {
		return true
	}
	keeps := true
	eachTag(context, func(tag []byte) {
		at := m.folded.foldOf(tag)
		if at < 0 {
			return
		}
		f := m.folded.folds[at]
		keeps = keeps && (bytes.Equal(tag, f.other) || f.keeps(g.hash.bytes(tag), tag))
	})
	return keeps
}

// eachTag yields the tags of a context, and its host and device as if they were some.
func eachTag(context *metric.Context, yield func(tag []byte)) {
	for tag := range context.Tags() {
		yield(bytesOf(tag))
	}
	if host, explicit := context.ExplicitHost(); explicit && host != "" {
		yield([]byte(hostKey + ":" + host))
	}
	if device := context.Device(); device != "" {
		yield([]byte(deviceKey + ":" + device))
	}
}
