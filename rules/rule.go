package rules

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"github.com/weir-agent/weir/metric"
)

// rule is one compiled rule.
type rule struct {
	index int // in the configuration

	match     *pattern
	kinds     kindSet
	matchTags []tagPattern

	drop, final bool

	sample         float64 // 0: it says nothing about sampling
	sampleBy       string
	sampled        kindSet
	aggregates     []string
	percentiles    []float64
	budget         *metric.Budget
	asDistribution bool

	dropTags, keepTags keyPatterns
	renameTags         []renameTag
	tagValues          []tagValue
	set, add           []tagTemplate
	name               template
	captures           bool // some template has captures
}

type renameTag struct{ from, to string }

type tagValue struct {
	key      keyPatterns
	match    *pattern
	value    template
	truncate int // 0: replace by value
}

// tagTemplate is a tag to be written, and its key.
type tagTemplate struct {
	text template
	key  string
}

// kindSet has the bit 1<<kind of each kind in it.
type kindSet uint32

const allKinds = kindSet(^uint32(0))

func (k kindSet) has(kind metric.Kind) bool { return k>>kind&1 != 0 }

// concerns reports whether kind and tags are those the rule is for.
func (r *rule) concerns(id *metric.Identity) bool {
	if !r.kinds.has(id.Kind) {
		return false
	}
	for i := range r.matchTags {
		if !r.matchTags[i].matches(id.Tags) {
			return false
		}
	}
	return true
}

// apply does what the rule says, and reports whether the name is another one now.
func (s *Session) apply(r *rule, id *metric.Identity, to *metric.Treatment) (renamed bool) {
	if r.drop {
		to.Refused = metric.DroppedByRule
		return false
	}
	s.captures = s.captures[:0]
	if r.captures {
		s.captures, _ = r.match.capture(id.Name, s.captures)
	}
	r.count(s.rules, id, to)

	switch {
	case len(r.dropTags) > 0:
		id.Tags = slices.DeleteFunc(id.Tags, func(tag []byte) bool { return r.dropTags.match(keyOf(tag)) })
	case len(r.keepTags) > 0:
		id.Tags = slices.DeleteFunc(id.Tags, func(tag []byte) bool {
			key := keyOf(tag)
			return !isPlaceKey(key) && !r.keepTags.match(key)
		})
	}
	for i := range r.renameTags {
		r.renameTags[i].apply(id)
	}
	for i := range r.tagValues {
		s.mapValues(&r.tagValues[i], id)
	}
	for i := range r.set {
		t := &r.set[i]
		id.Tags = slices.DeleteFunc(id.Tags, func(tag []byte) bool { return string(keyOf(tag)) == t.key })
	}
	for i := range r.set {
		id.Tags = append(id.Tags, write(id, func(dst []byte) []byte { return r.set[i].text.appendTo(dst, s.captures) }))
	}
	for i := range r.add {
		id.Tags = append(id.Tags, write(id, func(dst []byte) []byte { return r.add[i].text.appendTo(dst, s.captures) }))
	}
	if r.name == nil {
		return false
	}
	name := write(id, func(dst []byte) []byte { return r.name.appendTo(dst, s.captures) })
	if len(name) == 0 || bytes.Equal(name, id.Name) {
		return false // nobody could tell a metric without a name
	}
	id.Name = name
	return true
}

// write writes a text behind what backs id so far, and returns it.
func write(id *metric.Identity, appendText func([]byte) []byte) []byte {
	start := len(id.Styled)
	id.Styled = appendText(id.Styled)
	return id.Styled[start:len(id.Styled):len(id.Styled)]
}

// count does what the rule says about how values count.
func (r *rule) count(all *Rules, id *metric.Identity, to *metric.Treatment) {
	if r.sample != 0 && r.sampled.has(id.Kind) {
		to.Sample, to.BySelf, to.SampledOut = r.sample, false, false
		if r.sampleBy != "" {
			if value, found := leastValue(id.Tags, r.sampleBy); found {
				to.BySelf, to.SampledOut = true, !drawn(value, r.sample)
			}
		}
	}
	if r.budget != nil {
		to.Budget = all.budget(to.Budget, r.budget)
	}
	if r.aggregates != nil || r.percentiles != nil {
		to.Profile = all.profile(to.Profile, r)
	}
	if r.asDistribution && becomeDistributions.has(id.Kind) {
		id.Kind = metric.Distribution
	}
}

// leastValue returns the value of a tag: of several the least, in whatever order they
// are written.
func leastValue(tags [][]byte, key string) (least []byte, found bool) {
	for _, tag := range tags {
		if k := keyOf(tag); string(k) == key {
			value := tag[min(len(k)+1, len(tag)):]
			if !found || bytes.Compare(value, least) < 0 {
				least, found = value, true
			}
		}
	}
	return least, found
}

// drawn reports whether a value is one of those a share of all values that are
// sampled. It is the same on every host and for every metric: a user is in all of
// them or in none.
//
// The hash is FNV-1a (RFC 9923); the finalizer of MurmurHash3 spreads it.
func drawn(value []byte, share float64) bool {
	h := uint64(14695981039346656037)
	for _, b := range value {
		h = (h ^ uint64(b)) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	return float64(h>>11)/(1<<53) < share
}

func (t *renameTag) apply(id *metric.Identity) {
	for i, tag := range id.Tags {
		if key := keyOf(tag); string(key) == t.from {
			id.Tags[i] = write(id, func(dst []byte) []byte { return append(append(dst, t.to...), tag[len(key):]...) })
		}
	}
}

// mapValues replaces or cuts the values of tags.
func (s *Session) mapValues(v *tagValue, id *metric.Identity) {
	for i, tag := range id.Tags {
		key := keyOf(tag)
		if len(key) == len(tag) || !v.key.match(key) {
			continue
		}
		value := tag[len(key)+1:]
		if v.truncate > 0 {
			id.Tags[i] = tag[:len(key)+1+cut(value, v.truncate)]
			continue
		}
		captures, ok := v.match.capture(value, s.values[:0])
		s.values = captures
		if !ok {
			continue
		}
		id.Tags[i] = write(id, func(dst []byte) []byte {
			return v.value.appendTo(append(dst, tag[:len(key)+1]...), captures)
		})
	}
}

// cut returns how much of a text of at most so many bytes can be kept without
// breaking a character.
func cut(text []byte, most int) int {
	if len(text) <= most {
		return len(text)
	}
	for i := most; i > 0 && i > most-utf8.UTFMax; i-- {
		if utf8.RuneStart(text[i]) {
			return i
		}
	}
	return most // it is no UTF-8
}
