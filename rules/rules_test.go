package rules

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// parse reads a list of rules as the configuration writes it.
func parse(t testing.TB, text string) Config {
	t.Helper()
	var cfg Config
	if err := yaml.Unmarshal([]byte(text), &cfg.Rules); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return cfg
}

// compile is parse and New.
func compile(t testing.TB, text string) *Rules {
	t.Helper()
	cfg := parse(t, text)
	if err := cfg.Validate(); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return New(cfg)
}

var (
	dogstatsd = parser.New(parser.DefaultConfig())
	statsd    = parser.New(parser.Config{Dialect: parser.DialectStatsD, TagStyle: parser.TagsDogStatsD})
)

// identity is what a line says apart from its value.
func identity(t testing.TB, line string) *metric.Identity {
	t.Helper()
	var lines metric.Lines
	dogstatsd.Packet([]byte(line), false, &lines)
	id := &metric.Identity{}
	if len(lines.Samples) != 1 {
		t.Fatalf("%q is no metric", line)
	}
	if why := dogstatsd.Describe(&lines.Samples[0], id); why != metric.Accepted {
		t.Fatalf("%q is rejected: %v", line, why)
	}
	return id
}

// treated writes what rules make of an identity: kind, name, tags, and the treatment
// as far as there is one.
func treated(s *Session, id *metric.Identity) string {
	to := metric.Treatment{Sample: 1}
	s.Apply(id, &to)
	if to.Refused != metric.Accepted {
		return to.Refused.String()
	}
	text := fmt.Sprintf("%v %s %s", id.Kind, id.Name, tagsOf(id))
	if to.Sample != 1 {
		text += fmt.Sprintf(" sample=%v", to.Sample)
	}
	if to.BySelf {
		text += fmt.Sprintf(" out=%v", to.SampledOut)
	}
	if p := to.Profile; p != nil {
		text += fmt.Sprintf(" aggregates=%v percentiles=%v", p.Aggregates, p.Percentiles)
	}
	if b := to.Budget; b != nil {
		text += fmt.Sprintf(" budget=%d/%d/%s", b.Rule, b.MaxContexts, b.Overflow)
		if b.Part != "" {
			text += " of " + b.Part
		}
	}
	return text
}

func tagsOf(id *metric.Identity) string {
	var tags []string
	for _, tag := range id.Tags {
		tags = append(tags, string(tag))
	}
	return "[" + strings.Join(tags, " ") + "]"
}

// What rules make of a line. Each case is a list of rules, and lines with what becomes
// of them.
func TestApply(t *testing.T) {
	tests := map[string]struct {
		rules string
		lines map[string]string
	}{
		"a glob stands for anything": {
			`[{match: "debug.*", drop: true}, {match: "*.tmp", drop: true}, {match: "a.*.z", name: z}]`,
			map[string]string{
				"debug.x.y:1|c": "dropped_by_rule", "debug.:1|c": "dropped_by_rule", "debug:1|c": "counter debug []",
				"a.b.tmp:1|c": "dropped_by_rule", "xdebug.x:1|c": "counter xdebug.x []",
				"a.b.c.z:1|c": "counter z []", "a.z:1|c": "counter a.z []", "a..z:1|c": "counter z []",
			},
		},
		"captures": {
			`[{match: "airflow.*.duration.*", name: "airflow.$$.${2}x", tags: ["dag:$1", "task:$2$1"]}]`,
			map[string]string{"airflow.a.duration.b:1|ms|#x": "timer airflow.$.bx [x dag:a task:ba]"},
		},
		"captures take as little as they can": {
			`[{match: "*.a.*", name: "n", add_tags: ["$1:$2"]}]`,
			map[string]string{"x.a.a.a.y:1|c": "counter n [x:a.a.y]"},
		},
		"a regular expression matches all of the name": {
			`[{match: 'regex:(web|api)\.(\d+)(\.x)?', name: "$1", tags: ["n:$2", "x:$3"]}]`,
			map[string]string{"web.12:1|c": "counter web [n:12 x:]", "my.web.12:1|c": "counter my.web.12 []", "api.1.x:1|c": "counter api [n:1 x:.x]"},
		},
		"kinds": {
			`[{match: "*", kinds: [gauge, timer], add_tags: [hit]}]`,
			map[string]string{"a:1|c": "counter a []", "a:1|g": "gauge a [hit]", "a:1|ms": "timer a [hit]", "a:1|h": "histogram a []", "a:1|s": "set a []"},
		},
		"tags as conditions": {
			`[{match: "*", match_tags: ["env:prod", "!debug", "path:/api/*"], drop: true}]`,
			map[string]string{
				"a:1|c|#env:prod,path:/api/x/y":       "dropped_by_rule",
				"a:1|c|#path:/x,path:/api/,env:prod":  "dropped_by_rule",
				"a:1|c|#env:prod,path:/api/x,debug":   "counter a [env:prod path:/api/x debug]",
				"a:1|c|#env:prod,path:/api/x,debug:1": "dropped_by_rule",
				"a:1|c|#env:prod":                     "counter a [env:prod]",
				"a:1|c":                               "counter a []",
			},
		},
		"tags are dropped and kept by their keys": {
			`[{match: "d.*", drop_tags: [id, "tmp_*"]}, {match: "k.*", keep_tags: [env, 'regex:k8s_\w+']}]`,
			map[string]string{
				"d.x:1|c|#id:1,ids:2,tmp_a:1,tmp_,a:id,id": "counter d.x [ids:2 a:id]",
				"k.x:1|c|#env:1,k8s_pod:a:b,k8s_,env2:1":   "counter k.x [env:1 k8s_pod:a:b]",
			},
		},
		"what a metric belongs to is dropped only by its name": {
			`[{match: "k", keep_tags: [env]}, {match: "d", drop_tags: ["*"]}, {match: "h", drop_tags: [host]}]`,
			map[string]string{
				"k:1|c|#host:a,device:b,c:d":                 "counter k [host:a device:b]",
				"d:1|c|#host:a,c:d,dd.internal.resource:a:b": "counter d [host:a dd.internal.resource:a:b]",
				"h:1|c|#host:a,device:b":                     "counter h [device:b]",
			},
		},
		"tags are renamed": {
			`[{match: "*", rename_tags: ["svc:service", "a:b", "b:c"]}]`,
			map[string]string{"x:1|c|#svc:web,svc,a:1,svcs:1": "counter x [service:web service c:1 svcs:1]"},
		},
		"values are mapped and cut": {
			`[{match: "*", tag_values: [{key: status, match: 'regex:(\d)\d\d', value: "${1}xx"}, {key: "*", match: "*secret*", value: ""}, {key: path, truncate: 5}]}]`,
			map[string]string{
				"x:1|c|#status:503,status:5033,code:503,status": "counter x [status:5xx status:5033 code:503 status]",
				"x:1|c|#path:/äöü,path:1234567,path:/a":         "counter x [path:/äö path:12345 path:/a]",
				"x:1|c|#a:my secret b":                          "counter x [a:]",
			},
		},
		"tags sets, add_tags adds": {
			`[{match: "*", tags: ["env:new"], add_tags: ["env:old", more]}]`,
			map[string]string{"x:1|c|#env:was,a:1,env": "counter x [a:1 env:new env:old more]"},
		},
		"a later rule sees what an earlier one made": {
			`
- {match: "old.*", name: "new.$1", rename_tags: ["a:b"]}
- {match: "old.x", drop: true}
- {match: "new.*", match_tags: ["b:1"], drop_tags: [b], name: "newer.$1"}
- {match: "newer.*", match_tags: ["!b:*"], tags: ["seen:$1"]}
- {match: "new.*", name: never}`,
			map[string]string{"old.x:1|c|#a:1": "counter newer.x [seen:x]", "new.x:1|c": "counter never []", "old.y:1|c|#a:2": "counter never [b:2]"},
		},
		"a rule is not applied again to what it made": {
			`[{match: "*", name: "x.$1"}, {match: "x.x.*", name: "y"}]`,
			map[string]string{"x.a:1|c": "counter y []", "a:1|c": "counter x.a []"},
		},
		"final ends the list for what it concerns": {
			`[{match: "a.*", kinds: [counter], final: true}, {match: "*", drop: true}]`,
			map[string]string{"a.b:1|c": "counter a.b []", "a.b:1|g": "dropped_by_rule", "b:1|c": "dropped_by_rule"},
		},
		"only what has a weight is sampled": {
			`[{match: "*", sample: 0.25}, {match: "c.*", kinds: [counter, timer], sample: 0.5}]`,
			map[string]string{
				"a:1|c": "counter a []", "a:1|g": "gauge a []", "a:1|s": "set a []", "a:1|h": "histogram a [] sample=0.25",
				"a:1|ms": "timer a [] sample=0.25", "a:1|d": "distribution a [] sample=0.25",
				"c.a:1|c": "counter c.a [] sample=0.5", "c.a:1|ms": "timer c.a [] sample=0.5", "c.a:1|h": "histogram c.a [] sample=0.25",
			},
		},
		"a later share goes before an earlier one": {
			`[{match: "*", sample: 0.25, sample_by: user}, {match: "b", sample: 1}]`,
			map[string]string{"b:1|d|#user:1": "distribution b [user:1]"},
		},
		"what is computed": {
			`[{match: "*", aggregates: [sum]}, {match: "b*", percentiles: [0.5]}, {match: "bc", aggregates: []}]`,
			map[string]string{
				"a:1|h": "histogram a [] aggregates=[sum] percentiles=[]", "b:1|h": "histogram b [] aggregates=[sum] percentiles=[0.5]",
				"bc:1|h": "histogram bc [] aggregates=[] percentiles=[0.5]",
			},
		},
		"a budget": {
			`[{match: "a*", max_contexts: 5, overflow: fold}, {match: "ab", overflow: observe}]`,
			map[string]string{"a:1|c": "counter a [] budget=0/5/fold", "ab:1|c": "counter ab [] budget=0/5/observe"},
		},
		"a budget for some tags": {
			`[{match: "*", overflow: drop}, {match: "a", match_tags: ["env:dev"], max_contexts: 5}]`,
			map[string]string{"a:1|c": "counter a [] budget=0/0/drop", "a:1|c|#env:dev": "counter a [env:dev] budget=1/5/drop of env:dev"},
		},
		"as a distribution": {
			`[{match: "*", as: distribution}, {match: "*", kinds: [timer], drop: true}]`,
			map[string]string{"a:1|ms": "distribution a []", "a:1|h": "distribution a []", "a:1|c": "counter a []"},
		},
		"a name that comes to nothing stays": {
			`[{match: "a*", name: "$1"}]`,
			map[string]string{"a:1|c": "counter a []", "ab:1|c": "counter b []"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := compile(t, test.rules).NewSession()
			for line, want := range test.lines {
				if got := treated(s, identity(t, line)); got != want {
					t.Errorf("%s\n got %s\nwant %s", line, got, want)
				}
			}
		})
	}
}

// The kinds of the statsd dialect have the names of those of DogStatsD.
func TestKindsOfTheStatsdDialect(t *testing.T) {
	s := compile(t, `[{match: "*", kinds: [gauge], drop: true}, {match: "*", kinds: [timer], as: distribution}]`).NewSession()
	for line, want := range map[string]string{"a:1|g": "dropped_by_rule", "a:1|ms": "distribution a []", "a:1|h": "distribution a []"} {
		var lines metric.Lines
		statsd.Packet([]byte(line), false, &lines)
		id := &metric.Identity{}
		statsd.Describe(&lines.Samples[0], id)
		if got := treated(s, id); got != want {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

// What is sampled by a tag is so whole, in all metrics and by all agents alike, and
// about the share of its values.
func TestSampleByATag(t *testing.T) {
	const rules = `[{match: "*", sample: 0.25, sample_by: user, drop_tags: [user]}]`
	one, other := compile(t, rules).NewSession(), compile(t, rules).NewSession()
	in, n := 0, 4000
	for i := range n {
		got := treated(one, identity(t, fmt.Sprintf("a:1|d|#user:%d", i)))
		again := treated(other, identity(t, fmt.Sprintf("b:1|d|#user:x,user:%d", i))) // digits sort before x
		if strings.Replace(again, " b ", " a ", 1) != got {
			t.Fatalf("user %d: %s here and %s there", i, got, again)
		}
		if got == "distribution a [] sample=0.25 out=false" {
			in++
		} else if got != "distribution a [] sample=0.25 out=true" {
			t.Fatalf("user %d: %s", i, got)
		}
	}
	if in < n*22/100 || in > n*28/100 {
		t.Errorf("%d of %d users are in, want a quarter", in, n)
	}
	if got := treated(one, identity(t, "a:1|d|#users:1")); got != "distribution a [users:1] sample=0.25" {
		t.Errorf("without the tag: %s", got)
	}
}

// The same profile is asked for by the same address, whatever came before.
func TestProfilesAreFew(t *testing.T) {
	r := compile(t, `[{match: "a*", aggregates: [sum]}, {match: "*", percentiles: [0.5]}, {match: "*c", aggregates: [max]}]`)
	profiles := map[*metric.Profile]string{}
	for range 3 {
		s := r.NewSession()
		for _, name := range []string{"a", "ab", "b", "ac", "c"} {
			to := metric.Treatment{Sample: 1}
			s.Apply(identity(t, name+":1|h"), &to)
			profiles[to.Profile] = fmt.Sprint(to.Profile.Aggregates, to.Profile.Percentiles)
		}
	}
	if len(profiles) != 3 {
		t.Errorf("%d profiles, want 3: %v", len(profiles), profiles)
	}
}

// Rules that write ever longer names come to an end.
func TestWhatRulesWriteIsBounded(t *testing.T) {
	var list strings.Builder
	for range 60 {
		fmt.Fprintln(&list, `- {match: "*", name: "$1$1", add_tags: ["t:$1"]}`)
	}
	s := compile(t, list.String()).NewSession()
	id := identity(t, "abc:1|c")
	if got := treated(s, id); got != "too_long" {
		t.Errorf("got %.100s, want too_long", got)
	}
	if len(id.Styled) > 4*maxWritten {
		t.Errorf("%d bytes were written", len(id.Styled))
	}
}

// With many rules, and with names that a session remembers, forgets and meets again,
// the outcome is that of the rules one by one.
func TestTheIndexFindsAllRules(t *testing.T) {
	var list strings.Builder
	for i := range 400 {
		fmt.Fprintf(&list, "- {match: %q, add_tags: [\"r%d\"]}\n", []string{"a.%d", "a.%d*", "a*%d", "*%d", "regex:a.%d.*", "regex:(a|b).%d"}[i%6], i)
	}
	text := list.String()
	for i := range 400 {
		text = strings.Replace(text, "%d", fmt.Sprint(i%37), 1)
	}
	cfg := parse(t, text)
	s := New(cfg).NewSession()
	for round := range 3 {
		for i := range 120 {
			name := []string{"a.", "b.", "a.x", ""}[i%4] + fmt.Sprint(i%41+round)
			var want []string
			for j := range cfg.Rules {
				p, err := newPattern(cfg.Rules[j].Match)
				if err != nil {
					t.Fatal(err)
				}
				if p.matches([]byte(name)) {
					want = append(want, fmt.Sprintf("r%d", j))
				}
			}
			got := treated(s, identity(t, name+":1|c"))
			if got != fmt.Sprintf("counter %s [%s]", name, strings.Join(want, " ")) {
				t.Fatalf("%s: got %s, want %v", name, got, want)
			}
		}
		if round == 1 {
			if len(s.known) == 0 {
				t.Fatal("nothing is remembered")
			}
			s.knownLen = maxKnownBytes // and now everything is forgotten
		}
	}
}

// A session remembers no more than it may, however many names come.
func TestASessionForgets(t *testing.T) {
	s := compile(t, `[{match: "regex:.*x", drop: true}]`).NewSession()
	for i := range 3000 {
		treated(s, identity(t, fmt.Sprintf("%s%d:1|c", strings.Repeat("n", 5000), i)))
	}
	bytes := 0
	for name := range s.known {
		bytes += len(name)
	}
	if bytes > maxKnownBytes || len(s.known) == 0 {
		t.Errorf("%d bytes of %d names are remembered", bytes, len(s.known))
	}
}

// OnRule is told each rule that applies, in order.
func TestOnRule(t *testing.T) {
	s := compile(t, `[{match: "b", drop: true}, {match: "a", name: b}, {match: "*", kinds: [gauge], drop: true}, {match: "b", add_tags: [t]}]`).NewSession()
	var got []string
	s.OnRule = func(rule int, id *metric.Identity, _ *metric.Treatment) {
		got = append(got, fmt.Sprintf("%d:%s%s", rule, id.Name, tagsOf(id)))
	}
	treated(s, identity(t, "a:1|c"))
	if want := []string{"1:b[]", "3:b[t]"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
