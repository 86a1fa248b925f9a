package rules

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
)

var referenceRegexps = map[string]*regexp.Regexp{}

// referenceMatch compares a text with a pattern in the most obvious way, and returns
// what the captures hold.
func referenceMatch(pattern, text string) (captures []string, ok bool) {
	expression, isRegex := strings.CutPrefix(pattern, "regex:")
	if !isRegex {
		expression = strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `((?s:.*?))`)
	}
	re := referenceRegexps[expression]
	if re == nil {
		re = regexp.MustCompile(`^(?:` + expression + `)$`)
		referenceRegexps[expression] = re
	}
	found := re.FindStringSubmatch(text)
	if found == nil {
		return nil, false
	}
	return found[1:], true
}

func referenceExpand(text string, captures []string) string {
	const dollar = "\x00"
	text = strings.ReplaceAll(text, "$$", dollar)
	for i := len(captures); i > 0; i-- {
		text = strings.ReplaceAll(text, "${"+strconv.Itoa(i)+"}", captures[i-1])
		text = strings.ReplaceAll(text, "$"+strconv.Itoa(i), captures[i-1])
	}
	return strings.ReplaceAll(text, dollar, "$")
}

// referenceIdentity is an identity in plain words.
type referenceIdentity struct {
	kind, name string
	tags       []string
	sample     float64
	dropped    bool
	budget     int
	part       string // of the budget
}

func (id *referenceIdentity) String() string {
	if id.dropped {
		return "dropped_by_rule"
	}
	text := fmt.Sprintf("%s %s [%s]", id.kind, id.name, strings.Join(id.tags, " "))
	if id.sample != 1 {
		text += fmt.Sprintf(" sample=%v", id.sample)
	}
	if id.budget > 0 {
		text += fmt.Sprintf(" budget=%d/%d/", id.budget-1, id.budget-1+1)
		if id.part != "" {
			text += " of " + id.part
		}
	}
	return text
}

func (r *Rule) referenceConcerns(id *referenceIdentity) bool {
	if _, ok := referenceMatch(r.Match, id.name); !ok {
		return false
	}
	if len(r.Kinds) > 0 && !slices.Contains(r.Kinds, id.kind) {
		return false
	}
	for _, condition := range r.MatchTags {
		pattern, not := strings.CutPrefix(condition, "!")
		some := false
		for _, tag := range id.tags {
			_, ok := referenceMatch(pattern, tag)
			some = some || ok
		}
		if some == not {
			return false
		}
	}
	return true
}

func referenceKeyMatch(patterns []string, tag string) bool {
	key, _, _ := strings.Cut(tag, ":")
	for _, p := range patterns {
		if slices.Contains([]string{"host", "device"}, key) && p != key {
			continue
		}
		if _, ok := referenceMatch(p, key); ok {
			return true
		}
	}
	return false
}

// referenceApply applies one rule after the other, and reads each from its
// configuration every time.
func referenceApply(rules []Rule, id *referenceIdentity) {
	for i, r := range rules {
		if !r.referenceConcerns(id) {
			continue
		}
		if r.Drop {
			id.dropped = true
			return
		}
		captures, _ := referenceMatch(r.Match, id.name)
		if r.Sample != nil {
			sampled := []string{"timer", "histogram", "distribution"}
			if len(r.Kinds) > 0 {
				sampled = r.Kinds
			}
			if slices.Contains(sampled, id.kind) {
				id.sample = *r.Sample
			}
		}
		if r.MaxContexts != nil {
			id.budget, id.part = i+1, strings.Join(r.MatchTags, ",")
		}
		if r.As != "" && (id.kind == "timer" || id.kind == "histogram") {
			id.kind = "distribution"
		}
		var tags []string
		for _, tag := range id.tags {
			key, value, valued := strings.Cut(tag, ":")
			if len(r.DropTags) > 0 && referenceKeyMatch(r.DropTags, tag) {
				continue
			}
			if len(r.KeepTags) > 0 && !referenceKeyMatch(r.KeepTags, tag) && key != "host" && key != "device" {
				continue
			}
			for _, pair := range r.RenameTags {
				if from, to, _ := strings.Cut(pair, ":"); key == from {
					key = to
				}
			}
			for _, v := range r.TagValues {
				if !valued || !referenceKeyMatch([]string{v.Key}, key) {
					continue
				}
				if v.Truncate > 0 {
					value = value[:min(v.Truncate, len(value))]
				} else if found, ok := referenceMatch(v.Match, value); ok {
					value = referenceExpand(v.Value, found)
				}
			}
			replaced := slices.ContainsFunc(r.Tags, func(set string) bool { return strings.HasPrefix(set, key+":") })
			switch {
			case replaced:
			case valued:
				tags = append(tags, key+":"+value)
			default:
				tags = append(tags, key)
			}
		}
		for _, tag := range slices.Concat(r.Tags, r.AddTags) {
			tags = append(tags, referenceExpand(tag, captures))
		}
		id.tags = tags
		if name := referenceExpand(r.Name, captures); name != "" {
			id.name = name
		}
		if r.Final {
			return
		}
	}
}

// randomRule draws a rule that Validate takes.
func randomRule(random *rand.Rand, index int) Rule {
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	some := func(of ...string) (chosen []string) {
		for _, one := range of {
			if random.IntN(3) == 0 {
				chosen = append(chosen, one)
			}
		}
		return chosen
	}
	r := Rule{
		Match: pick("*", "a*", "a.*", "*.b", "*b*", "a.b", "b", "a.*.*", "*a*b*", "**", "regex:a\\.(b|c)(.*)", "regex:[ab]+(?:\\.(c))?", "regex:.*b(.)",
			"regex:(?i)A.*", "regex:a|b|a\\.c", "regex:^a\\.b(\\.c)*$"),
		Kinds: some("counter", "timer", "distribution"),
	}
	if random.IntN(3) == 0 {
		r.MatchTags = some("k:*", "!k:1", "l", "!*:2", "regex:[kl](:.)?", "host:*")
	}
	if random.IntN(12) == 0 {
		r.Drop = true
		return r
	}
	p, _ := newPattern(r.Match)
	expand := func(text string) string {
		if n := p.captures(); n > 0 && random.IntN(2) == 0 {
			text += pick("$", "${") + strconv.Itoa(1+random.IntN(n))
			if strings.Contains(text, "{") {
				text += "}"
			}
		}
		return text
	}
	key := func() string { return pick("k", "l", "host", "device", "m") }
	keys := func() string { return pick("k", "l", "*", "k*", "host", "h*", "regex:[lm]", "m") }
	switch random.IntN(4) {
	case 0:
		r.DropTags = []string{keys()}
	case 1:
		r.KeepTags = []string{keys(), keys()}
	}
	if random.IntN(4) == 0 {
		r.RenameTags = []string{key() + ":" + key(), key() + ":" + key()}
	}
	if random.IntN(3) == 0 {
		r.TagValues = append(r.TagValues, TagValue{Key: keys(), Match: pick("1*", "*2*", "regex:(\\d)\\d*"), Value: pick("$$x", "y$1", "")})
	}
	if random.IntN(4) == 0 {
		r.TagValues = append(r.TagValues, TagValue{Key: keys(), Truncate: 1 + random.IntN(3)})
	}
	if random.IntN(4) == 0 {
		r.Tags = []string{key() + ":" + expand("s"), key() + ":" + expand("t")}
	}
	if random.IntN(4) == 0 {
		r.AddTags = []string{expand(key() + ":"), expand("$$")}
	}
	if random.IntN(3) == 0 {
		r.Name = expand(pick("a.", "b", "a.c.", "$$b"))
	}
	if random.IntN(4) == 0 {
		share := float64(1+random.IntN(9)) / 10
		r.Sample = &share
	}
	if random.IntN(5) == 0 {
		n := index + 1
		r.MaxContexts = &n
	}
	if random.IntN(6) == 0 && !slices.Contains(r.Kinds, "counter") && !slices.Contains(r.Kinds, "distribution") {
		r.As = "distribution"
	}
	r.Final = random.IntN(8) == 0
	return r
}

// Whatever the rules and the lines, what becomes of a line is what the rules say when
// they are read one by one.
func TestAgreesWithTheReference(t *testing.T) {
	for seed := range uint64(120) {
		random := rand.New(rand.NewPCG(seed, 5))
		var cfg Config
		for i := range 1 + random.IntN(25) {
			r := randomRule(random, i)
			one := Config{Rules: []Rule{r}}
			if one.Validate() == nil { // or else it does nothing
				if r.MaxContexts != nil {
					n := len(cfg.Rules) + 1
					r.MaxContexts = &n
				}
				cfg.Rules = append(cfg.Rules, r)
			}
		}
		s := New(cfg).NewSession()
		for range 100 {
			kinds := map[string]string{"c": "counter", "ms": "timer", "h": "histogram", "d": "distribution", "g": "gauge"}
			letter := []string{"c", "ms", "h", "d", "g"}[random.IntN(5)]
			names := []string{"a", "b", "a.b", "a.c", "a.b.c", "ab", "A.b", "a.b.c.d", "bb", "c", "a.$b", "b.c"}
			want := referenceIdentity{kind: kinds[letter], name: names[random.IntN(len(names))], sample: 1}
			for range random.IntN(5) {
				tags := []string{"k:1", "k:2", "k:123", "l", "l:1:2", "m:", "host:web", "host", "device:22", "kk:1", "k"}
				want.tags = append(want.tags, tags[random.IntN(len(tags))])
			}
			line := fmt.Sprintf("%s:1|%s", want.name, letter)
			if len(want.tags) > 0 {
				line += "|#" + strings.Join(want.tags, ",")
			}
			referenceApply(cfg.Rules, &want)
			if got := treated(s, identity(t, line)); got != want.String() {
				t.Fatalf("seed %d: %s\n got %s\nwant %s\nrules %+v", seed, line, got, want.String(), cfg.Rules)
			}
		}
	}
}

// No pattern and no name makes a rule crash, write without bound or do something else
// than its parts say.
func FuzzRule(f *testing.F) {
	for _, seed := range [][4]string{
		{"a.*.b", "a.x.b", "n.$1", "k:1"},
		{"regex:(a+)+$", "aaaaaaaaaaaaaaaaaaaaaaaa!", "${1}", "x"},
		{"**", "a", "$1$2", "a:b"},
		{"regex:(?i)é", "É", "$$", ":"},
		{"regex:\\x{10FFFF}*", "\xff", "a", ""},
		{"regex:a{1000}", "a", "a", "a"},
		{"regex:^a|b$", "xb", "c", "d"},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, match, name, text, tag string) {
		share := 0.5
		cfg := Config{Rules: []Rule{
			{Match: match, Name: text, Tags: []string{text}, AddTags: []string{text}},
			{Match: "*", MatchTags: []string{match}, Sample: &share, SampleBy: tag},
			{Match: "*", TagValues: []TagValue{{Key: match, Match: match, Value: text}, {Key: tag, Truncate: 3}}},
			{Match: match, DropTags: []string{tag}, RenameTags: []string{tag}},
		}}
		var valid Config
		for _, r := range cfg.Rules {
			if (&Config{Rules: []Rule{r}}).Validate() == nil {
				valid.Rules = append(valid.Rules, r)
			}
		}
		id := &metric.Identity{Name: []byte(name), Kind: metric.Timer, Rate: 1, Tags: [][]byte{[]byte(tag), []byte("k:" + name)}}
		var to metric.Treatment
		New(valid).NewSession().Apply(id, &to)
		if len(id.Styled) > maxWritten+8*(len(name)+len(text)+len(tag))*(len(text)+1) {
			t.Errorf("%d bytes were written", len(id.Styled))
		}
		p, err := newPattern(match)
		if err != nil {
			return
		}
		if _, wanted := p.capture([]byte(name), nil); wanted != p.matches([]byte(name)) {
			t.Errorf("%q matches %q when captured: %v, else not", match, name, wanted)
		}
		if p.matches([]byte(name)) && !strings.HasPrefix(name, p.prefix) {
			t.Errorf("%q matches %q, which does not begin with %q", match, name, p.prefix)
		}
		index := newIndex([]*rule{{match: p}})
		if candidates, _ := index.candidates([]byte(name), nil); p.matches([]byte(name)) && len(candidates) == 0 {
			t.Errorf("the index does not find %q for %q", match, name)
		}
	})
}
