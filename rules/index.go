package rules

import (
	"cmp"
	"slices"
	"strings"
)

// index finds the rules that a name may match by what their patterns begin with.
type index struct {
	entries []entry // sorted by prefix
}

// entry is the rules whose patterns begin with a prefix.
type entry struct {
	prefix string
	rules  []int32
	regex  bool // there is one among them
	parent int  // the entry of the longest shorter prefix that this one begins with, -1 if there is none
}

func newIndex(rules []*rule) index {
	byPrefix := map[string]*entry{}
	for i, r := range rules {
		e := byPrefix[r.match.prefix]
		if e == nil {
			e = &entry{prefix: r.match.prefix, parent: -1}
			byPrefix[e.prefix] = e
		}
		e.rules = append(e.rules, int32(i))
		e.regex = e.regex || r.match.regex != nil
	}
	var x index
	for _, e := range byPrefix {
		x.entries = append(x.entries, *e)
	}
	slices.SortFunc(x.entries, func(a, b entry) int { return cmp.Compare(a.prefix, b.prefix) })
	for i := range x.entries {
		// Whatever a prefix begins with is sorted before it, the longest last.
		parent := i - 1
		for parent >= 0 && !strings.HasPrefix(x.entries[i].prefix, x.entries[parent].prefix) {
			parent = x.entries[parent].parent
		}
		x.entries[i].parent = parent
	}
	return x
}

// candidates appends the rules that name may match to dst, in order, and reports
// whether comparing them is cheap.
//
// Of all prefixes that sort before the name the last has, among itself and its
// parents, all that the name begins with: what sorts between a prefix and a name that
// begins with it begins with it, too.
func (x *index) candidates(name []byte, dst []int32) (rules []int32, cheap bool) {
	low, high := 0, len(x.entries)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if x.entries[middle].prefix <= string(name) {
			low = middle + 1
		} else {
			high = middle
		}
	}
	cheap, lists := true, 0
	for i := low - 1; i >= 0; i = x.entries[i].parent {
		e := &x.entries[i]
		if len(name) >= len(e.prefix) && string(name[:len(e.prefix)]) == e.prefix {
			dst = append(dst, e.rules...)
			cheap = cheap && !e.regex
			lists++
		}
	}
	if lists > 1 {
		slices.Sort(dst)
	}
	return dst, cheap && len(dst) <= cheapRules
}
