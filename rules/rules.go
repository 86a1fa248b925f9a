// Package rules changes names, kinds and tags of identities, and says which of them
// count and how, by an ordered list from the configuration.
//
// In: an Identity as a client sent it, once for each. Out: the same Identity,
// changed in place, and a Treatment. It never sees values, and nothing here runs once
// per sample.
package rules

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/weir-agent/weir/metric"
)

// Rules are compiled rules, for any number of goroutines. A Session applies them.
type Rules struct {
	rules []*rule
	index index

	mu       sync.Mutex // guards the fields below
	profiles map[profileKey]*metric.Profile
	keys     map[*metric.Profile]profileKey
	budgets  map[metric.Budget]*metric.Budget
}

// profileKey names the rules that a profile's parts come from, -1 for none.
type profileKey struct{ aggregates, percentiles int }

// New compiles the rules of a configuration that has passed Validate.
func New(cfg Config) *Rules {
	r := &Rules{profiles: map[profileKey]*metric.Profile{}, keys: map[*metric.Profile]profileKey{nil: {-1, -1}}, budgets: map[metric.Budget]*metric.Budget{}}
	for i := range cfg.Rules {
		c := compiler{rule: &rule{index: i}, cfg: &cfg.Rules[i]}
		c.compile()
		if len(c.faults) > 0 {
			panic(fmt.Sprintf("BUG: rules that were not validated: %v", errors.Join(c.faults...)))
		}
		r.rules = append(r.rules, c.rule)
	}
	r.index = newIndex(r.rules)
	return r
}

// Session applies rules for one goroutine, and remembers for some names which rules
// match them.
type Session struct {
	// OnRule, if it is set, is called after each rule that applies to an identity.
	OnRule func(rule int, id *metric.Identity, to *metric.Treatment)

	rules    *Rules
	known    map[string][]int32 // by name: the rules that match it
	knownLen int                // bytes in known, about
	captures [][]byte           // scratch
	values   [][]byte           // scratch
	matching []int32            // scratch
}

// NewSession returns a Session without a memory.
func (r *Rules) NewSession() *Session {
	return &Session{rules: r, known: map[string][]int32{}}
}

// maxWritten is how many bytes rules may write for one identity. A pattern that
// doubles a name, a few times over, would write gigabytes.
const maxWritten = 64 << 10

// Apply applies all rules, in order, to an identity: each sees what those before it
// made of it. to is what is known of its treatment so far. What is written anew is
// backed by id.Styled or by the rules, and valid as long as id is.
//
// Slow path: once per identity, with the worker's lock held.
func (s *Session) Apply(id *metric.Identity, to *metric.Treatment) {
	for next := s.matchingRules(id.Name); len(next) > 0; {
		r := s.rules.rules[next[0]]
		next = next[1:]
		if !r.concerns(id) {
			continue
		}
		renamed := s.apply(r, id, to)
		if len(id.Styled) > maxWritten && to.Refused == metric.Accepted {
			to.Refused = metric.TooLong
		}
		if s.OnRule != nil {
			s.OnRule(r.index, id, to)
		}
		if r.final || to.Refused != metric.Accepted {
			return
		}
		if renamed {
			next = s.matchingRules(id.Name)
			at, _ := slices.BinarySearch(next, int32(r.index+1))
			next = next[at:]
		}
	}
}

const (
	// cheapRules is how many patterns are compared anew with each name: a memory
	// costs more.
	cheapRules = 8
	// maxKnownBytes is how much a Session remembers before it forgets everything.
	maxKnownBytes = 4 << 20
)

// matchingRules returns the rules whose pattern a name matches, in order. The result
// is valid until the next call.
func (s *Session) matchingRules(name []byte) []int32 {
	if rules, found := s.known[string(name)]; found {
		return rules
	}
	candidates, cheap := s.rules.index.candidates(name, s.matching[:0])
	s.matching = candidates
	matching := slices.DeleteFunc(candidates, func(i int32) bool {
		return !s.rules.rules[i].match.matches(name)
	})
	if cheap {
		return matching
	}
	const perName = 64
	size := perName + len(name) + 4*len(matching)
	if s.knownLen+size > maxKnownBytes {
		clear(s.known)
		s.knownLen = 0
	}
	if size <= maxKnownBytes/4 {
		s.known[string(name)] = slices.Clone(matching)
		s.knownLen += size
	}
	return matching
}

// profile returns what a rule makes of the profile before it: of the same ones always
// the same.
func (r *Rules) profile(before *metric.Profile, by *rule) *metric.Profile {
	r.mu.Lock()
	defer r.mu.Unlock()
	key, made := r.keys[before], metric.Profile{}
	if before != nil {
		made = *before
	}
	if by.aggregates != nil {
		key.aggregates, made.Aggregates = by.index, by.aggregates
	}
	if by.percentiles != nil {
		key.percentiles, made.Percentiles = by.index, by.percentiles
	}
	if known := r.profiles[key]; known != nil {
		return known
	}
	r.profiles[key], r.keys[&made] = &made, key
	return &made
}

// budget returns what a rule makes of the budget before it, likewise: what the rule does
// not say stays.
func (r *Rules) budget(before, by *metric.Budget) *metric.Budget {
	if before == nil {
		return by
	}
	made := *by
	if by.MaxContexts == 0 && before.MaxContexts > 0 {
		made.Rule, made.MaxContexts = before.Rule, before.MaxContexts
	}
	if by.Overflow == "" {
		made.Overflow = before.Overflow
	}
	if made == *by {
		return by
	}
	if before.Part != "" && before.Part != by.Part {
		made.Part = before.Part + "," + by.Part
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known := r.budgets[made]; known != nil {
		return known
	}
	r.budgets[made] = &made
	return &made
}
