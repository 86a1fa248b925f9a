package rules

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/weir-agent/weir/metric"
)

// imported converts a file and returns the rules as the configuration reads them.
func imported(t testing.TB, from, file string) (text string, r *Rules) {
	t.Helper()
	text, err := Import(from, []byte(file))
	if err != nil {
		t.Fatalf("%v in\n%s", err, file)
	}
	var cfg Config
	if err := yaml.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return text, New(cfg)
}

func TestImport(t *testing.T) {
	for _, test := range []struct {
		name, from, file string
		want             string
	}{
		{
			"datadog", "datadog", `
api_key: x
dogstatsd_mapper_profiles:
  - name: airflow
    prefix: "airflow."
    mappings:
      - match: "airflow.*.duration.*"
        name: "airflow.duration"
        tags: {dag: "$1", task: "${2}s", "it's": "$$"}
      - match: 'airflow\.(?P<dag>\w+)\.(x|y)'
        match_type: regex
        name: "airflow.$dag.$0"
      - {match: "airflow.plain", name: plain}
      - {match: "*.other", name: other}
      - {match: "kafka.x", name: never}
      - {match: "air flow", name: refused}
  - name: all
    prefix: "*"
    mappings: [{match: "*.x", name: "x"}]
  - {name: late, prefix: late, mappings: []}
`,
			`# Converted from dogstatsd_mapper_profiles. As there, the first mapping that matches counts:
# put rules of your own before these.
  # profile airflow, prefix airflow.
rules:
  - match: 'regex:airflow\.([^.]*)\.duration\.([^.]*)'
    add_tags: ['dag:${1}', 'it''s:$$', 'task:${2}s']
    name: 'airflow.duration'
    final: true
  - match: 'regex:(^airflow\.(?P<dag>\w+)\.(x|y)$)'
    name: 'airflow.${2}.${1}'
    final: true
  - match: 'airflow.plain'
    name: 'plain'
    final: true
  # not converted: match "*.other": it matches names without the profile's prefix, too; begin it with "airflow."
  # not converted: match "kafka.x": no name with the profile's prefix matches it
  # not converted: match "air flow": the Datadog Agent refuses it
  # names of this profile meet no later one
  - match: 'regex:airflow\.(?s:.*)'
    final: true
  # profile all, prefix *
  - match: 'regex:([^.]*)\.x'
    name: 'x'
    final: true
  # not converted: 1 profiles behind this one, which the Datadog Agent never tries
`,
		},
		{
			"statsd_exporter", "statsd_exporter", `
defaults: {ttl: 1h, match_type: glob}
mappings:
  - {match: 'client_(.*)_failed', match_type: regex, name: failed, labels: {client: "$1"}}
  - match: "test.*.*.counter"
    name: "${1}_total"
    help: text
    labels: {provider: "$2", job: "test$3_x"}
    match_metric_type: counter
    ttl: 5m
  - {match: "noise.*", name: dropped, action: drop}
  - {match: "part*.x", name: x}
`,
			`# Converted from a mapping file of statsd_exporter. As there, globs go before regular
# expressions, and the first mapping that matches counts: put rules of your own before
# these. Names are not rewritten for Prometheus: what matches nothing keeps its dots.
# not converted: defaults.ttl
  # not converted: match "test.*.*.counter": ttl
rules:
  - match: 'regex:test\.([^.]*)\.([^.]*)\.counter'
    kinds: [counter]
    tags: ['job:test', 'provider:${2}']
    name: '${1}_total'
    final: true
  - match: 'regex:noise\.([^.]*)'
    drop: true
  # not converted: match "part*.x": to statsd_exporter a * is a whole part between dots
  - match: 'regex:(?s:.*?)(?:client_(.*)_failed)(?s:.*)'
    tags: ['client:${1}']
    name: 'failed'
    final: true
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, _ := imported(t, test.from, test.file); got != test.want {
				t.Errorf("got\n%s\nwant\n%s", got, test.want)
			}
		})
	}
	for from, file := range map[string]string{"datadog": "a: 1", "statsd_exporter": "{}", "telegraf": "x: 1"} {
		if text, err := Import(from, []byte(file)); err == nil {
			t.Errorf("%s of %q: %q, want an error", from, file, text)
		}
	}
}

// referenceDatadog maps a name as the Datadog Agent does.
func referenceDatadog(profiles []datadogProfile, name string) (string, []string) {
	for _, p := range profiles {
		if p.Prefix != "*" && !strings.HasPrefix(name, p.Prefix) {
			continue
		}
		for _, m := range p.Mappings {
			expression := m.Match
			if m.MatchType != "regex" {
				expression = strings.ReplaceAll(strings.ReplaceAll(expression, ".", `\.`), "*", "([^.]*)")
			}
			re := regexp.MustCompile("^" + expression + "$")
			at := re.FindStringSubmatchIndex(name)
			if at == nil {
				continue
			}
			var tags []string
			for _, key := range slices.Sorted(maps.Keys(m.Tags)) {
				tags = append(tags, key+":"+string(re.ExpandString(nil, m.Tags[key], name, at)))
			}
			return string(re.ExpandString(nil, m.Name, name, at)), tags
		}
		break
	}
	return name, nil
}

// What the rules make of names is what the Datadog Agent makes of them, in all that was
// converted.
func TestImportAgreesWithTheDatadogAgent(t *testing.T) {
	mapped := 0
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 6))
		pick := func(of ...string) string { return of[random.IntN(len(of))] }
		template := func() string {
			return pick("n", "n.$1", "${2}", "$1_x", "$0", "${0}y", "$$1", "a$", "$9", "$01", "${g}z", "$1$1-${3}", "a.${", "$-", "x$2.y")
		}
		var profiles []datadogProfile
		for range 1 + random.IntN(4) {
			p := datadogProfile{Name: "p", Prefix: pick("a.", "a.b", "b", "*", "a", "c.d.")}
			for range random.IntN(4) {
				m := datadogMapping{Match: p.Prefix + pick("", "x", "*.x", "*", "b.*.*", ".*", "*a*", "*-*")}
				if random.IntN(2) == 0 {
					m.MatchType, m.Match = "regex", regexp.QuoteMeta(p.Prefix)+pick("", "(x|y)", "(?P<g>[a-z]*).*", ".*?(b)?(.*)", "x|b.*(.)", "(?i)B", "(a(b)?)*")
					if p.Prefix == "*" {
						m.Match = pick("x|y", "(.)(.*)", "(?P<g>.*)x")
					}
				} else if strings.Contains(m.Match, "**") {
					m.Match = "*"
				}
				if m.Name = template(); random.IntN(2) == 0 {
					m.Tags = map[string]string{"t": template(), "u": template()}
				}
				p.Mappings = append(p.Mappings, m)
			}
			profiles = append(profiles, p)
		}
		file, err := yaml.Marshal(map[string]any{"dogstatsd_mapper_profiles": profiles})
		if err != nil {
			t.Fatal(err)
		}
		text, r := imported(t, "datadog", string(file))
		if strings.Contains(text, "not converted") {
			for _, line := range strings.Split(text, "\n") {
				// Only what the Agent never reaches, or what has no counterpart, and says so.
				if strings.Contains(line, "not converted") && !strings.Contains(line, "never tries") && !strings.Contains(line, "without the profile's prefix") {
					t.Fatalf("seed %d: %s", seed, line)
				}
			}
			if strings.Contains(text, "without the profile's prefix") {
				continue
			}
		}
		s := r.NewSession()
		for range 60 {
			name := pick("a.", "a.b", "b", "", "c.d.", "a", "A.") + pick("", "x", "y", "b", "b.c.d", ".x", "q.x", "aba", "a-b-c", "x.y.z", "B", "ab", "..")
			if name == "" {
				continue
			}
			wantName, wantTags := referenceDatadog(profiles, name)
			if wantName == "" {
				wantName = name // no metric is without a name
			}
			id := &metric.Identity{Name: []byte(name), Kind: metric.Counter, Rate: 1}
			s.Apply(id, &metric.Treatment{Sample: 1})
			if string(id.Name) != wantName || tagsOf(id) != fmt.Sprint(wantTags) {
				t.Fatalf("seed %d: %q becomes %q %s, want %q %v\n%s\n%s", seed, name, id.Name, tagsOf(id), wantName, wantTags, file, text)
			}
			if wantName != name {
				mapped++
			}
		}
	}
	if mapped < 500 {
		t.Errorf("only %d names were mapped", mapped)
	}
}

// referenceExporter maps a name as statsd_exporter does.
func referenceExporter(mappings []map[string]any, kind, name string) (string, []string, bool) {
	text := func(m map[string]any, key string) string { s, _ := m[key].(string); return s }
	for _, wanted := range []string{"glob", "regex"} {
		for _, m := range mappings {
			if text(m, "match_type") != wanted || text(m, "match_metric_type") != "" && text(m, "match_metric_type") != kind {
				continue
			}
			var expand func(string) string
			if wanted == "glob" {
				parts, fields := strings.Split(text(m, "match"), "."), strings.Split(name, ".")
				var captures []string
				ok := len(parts) == len(fields)
				for i := 0; ok && i < len(parts); i++ {
					if parts[i] == "*" {
						captures = append(captures, fields[i])
					} else {
						ok = parts[i] == fields[i]
					}
				}
				if !ok {
					continue
				}
				expand = func(template string) string {
					return regexp.MustCompile(`\$\{?([a-zA-Z0-9_\$]+)\}?`).ReplaceAllStringFunc(template, func(found string) string {
						n, err := strconv.Atoi(strings.Trim(found, "${}"))
						if err != nil || n < 1 || n > len(captures) {
							return ""
						}
						return captures[n-1]
					})
				}
			} else {
				re := regexp.MustCompile(text(m, "match"))
				at := re.FindStringSubmatchIndex(name)
				if at == nil {
					continue
				}
				expand = func(template string) string { return string(re.ExpandString(nil, template, name, at)) }
			}
			if text(m, "action") == "drop" {
				return "", nil, false
			}
			var labels []string
			given := m["labels"].(map[string]any)
			for _, key := range slices.Sorted(maps.Keys(given)) {
				labels = append(labels, key+":"+expand(given[key].(string)))
			}
			return expand(text(m, "name")), labels, true
		}
	}
	return name, []string{"job:sent"}, true
}

// What the rules make of names is what statsd_exporter makes of them.
func TestImportAgreesWithStatsdExporter(t *testing.T) {
	kinds := map[string]metric.Kind{"counter": metric.Counter, "gauge": metric.Gauge, "observer": metric.Timer}
	for seed := range uint64(150) {
		random := rand.New(rand.NewPCG(seed, 7))
		pick := func(of ...string) string { return of[random.IntN(len(of))] }
		var mappings []map[string]any
		for range 1 + random.IntN(8) {
			m := map[string]any{
				"match_type": "glob", "match": pick("a.*", "*.b", "a.*.*", "a.b", "*.*.c", "b.*"),
				"name":   pick("n", "n_$1", "${1}_$2", "x_${9}"),
				"labels": map[string]any{"job": pick("$1", "v", "${2}x", "a$b"), "k": pick("$1$2", "")},
			}
			if random.IntN(2) == 0 {
				m["match_type"], m["match"] = "regex", pick("a", "^a\\.(.*)$", "(b)|(c)", "^(a|b)", "\\.(.)$", "a.*?(\\.|b)", "(?i)A\\.(.)")
			}
			if random.IntN(3) == 0 {
				m["match_metric_type"] = pick("counter", "gauge", "observer")
			}
			if random.IntN(6) == 0 {
				m["action"] = "drop"
			}
			mappings = append(mappings, m)
		}
		file, err := yaml.Marshal(map[string]any{"mappings": mappings})
		if err != nil {
			t.Fatal(err)
		}
		text, r := imported(t, "statsd_exporter", string(file))
		if strings.Contains(text, "not converted") {
			t.Fatalf("seed %d:\n%s", seed, text)
		}
		s := r.NewSession()
		for range 60 {
			name := pick("a.b", "a.c", "b.b", "a.b.c", "c.b", "a", "b", "a..c", "x.a.y", "bb.c", "A.b")
			kind := pick("counter", "gauge", "observer")
			wantName, wantTags, keep := referenceExporter(mappings, kind, name)
			id := &metric.Identity{Name: []byte(name), Kind: kinds[kind], Rate: 1, Tags: [][]byte{[]byte("job:sent")}}
			to := metric.Treatment{Sample: 1}
			s.Apply(id, &to)
			if keep != (to.Refused == metric.Accepted) || keep && (string(id.Name) != wantName || tagsOf(id) != fmt.Sprint(wantTags)) {
				t.Fatalf("seed %d: %s %q becomes %v %q %s, want %v %q %v\n%s\n%s", seed, kind, name, to.Refused, id.Name, tagsOf(id), keep, wantName, wantTags, file, text)
			}
		}
	}
}

// No file of another agent makes Import crash or write what the configuration does not
// take.
func FuzzImport(f *testing.F) {
	f.Add("dogstatsd_mapper_profiles: [{name: a, prefix: \"*\", mappings: [{match: \"a*\", name: \"b$1\", tags: {k: \"$1\"}}]}]")
	f.Add("mappings: [{match: \"a.*\", name: \"b\\n$1\", labels: {k: \"'$1\"}}, {match: \"a\u0085# b\", match_type: regex, name: x, action: drop}]")
	f.Fuzz(func(t *testing.T, file string) {
		for _, from := range ImportFormats {
			if _, err := Import(from, []byte(file)); err == nil {
				imported(t, from, file)
			}
		}
	})
}
