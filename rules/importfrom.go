package rules

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// datadogProfile is an item of dogstatsd_mapper_profiles.
type datadogProfile struct {
	Name     string           `yaml:"name"`
	Prefix   string           `yaml:"prefix"`
	Mappings []datadogMapping `yaml:"mappings"`
}

type datadogMapping struct {
	Match     string            `yaml:"match"`
	MatchType string            `yaml:"match_type"`
	Name      string            `yaml:"name"`
	Tags      map[string]string `yaml:"tags"`
}

// datadog converts the mapper profiles of the Datadog Agent. Of the profiles only the
// first whose prefix a name has is tried, of its mappings the first that matches
// counts; "*" stands for anything but dots, and tags are added.
func (w *importWriter) datadog(text []byte) error {
	var file struct {
		Profiles []datadogProfile `yaml:"dogstatsd_mapper_profiles"`
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		if yaml.Unmarshal(text, &file.Profiles) != nil { // the list alone will do, too
			return fmt.Errorf("read dogstatsd_mapper_profiles: %w", err)
		}
	}
	if len(file.Profiles) == 0 {
		return fmt.Errorf("there is no dogstatsd_mapper_profiles in it; give the Datadog Agent's datadog.yaml")
	}
	w.comment("", "Converted from dogstatsd_mapper_profiles. As there, the first mapping that matches counts:\nput rules of your own before these.")
	for i, p := range file.Profiles {
		w.comment("  ", "profile %s, prefix %s", p.Name, p.Prefix)
		if p.Prefix == "" {
			w.comment("  ", "not converted: it has no prefix, and the Datadog Agent refuses that")
			continue
		}
		for _, m := range p.Mappings {
			w.datadogMapping(&p, &m)
		}
		if p.Prefix == "*" {
			if rest := len(file.Profiles) - i - 1; rest > 0 {
				w.comment("  ", "not converted: %d profiles behind this one, which the Datadog Agent never tries", rest)
			}
			break
		}
		shadowed := slices.ContainsFunc(file.Profiles[i+1:], func(later datadogProfile) bool {
			return later.Prefix == "*" || strings.HasPrefix(later.Prefix, p.Prefix) || strings.HasPrefix(p.Prefix, later.Prefix)
		})
		if shadowed {
			w.comment("  ", "names of this profile meet no later one")
			w.rule(&Rule{Match: regexPrefix + regexp.QuoteMeta(p.Prefix) + "(?s:.*)", Final: true}, "the end of the profile")
		}
	}
	return nil
}

var datadogGlob = regexp.MustCompile(`^[a-zA-Z0-9\-_*.]+$`)

func (w *importWriter) datadogMapping(p *datadogProfile, m *datadogMapping) {
	about := fmt.Sprintf("match %q", m.Match)
	expression := m.Match
	switch {
	case m.MatchType == "regex":
	case m.MatchType != "" && m.MatchType != "wildcard":
		w.comment("  ", "not converted: %s: the Datadog Agent knows no match_type %q", about, m.MatchType)
		return
	case !datadogGlob.MatchString(m.Match) || strings.Contains(m.Match, "**"):
		w.comment("  ", "not converted: %s: the Datadog Agent refuses it", about)
		return
	default:
		expression = strings.TrimPrefix(segments(m.Match), regexPrefix)
		if !strings.Contains(m.Match, "*") {
			expression = regexp.QuoteMeta(m.Match)
		}
	}
	expression = "^" + expression + "$" // without parentheses, as there
	re, err := regexp.Compile(expression)
	if err != nil || m.Name == "" {
		w.comment("  ", "not converted: %s: the Datadog Agent refuses it", about)
		return
	}
	templates := append(slices.Collect(maps.Values(m.Tags)), m.Name)
	whole := usesWhole(templates...)
	parsed, _ := syntax.Parse(expression, syntax.Perl)
	r := Rule{Match: somewhere(parsed, expression, whole), Final: true}
	if m.MatchType != "regex" && !whole {
		r.Match = segments(m.Match)
	}
	shift := 0
	if whole {
		shift = 1
	}
	r.Name = expansion(m.Name, re, shift)
	for _, key := range slices.Sorted(maps.Keys(m.Tags)) {
		r.AddTags = append(r.AddTags, strings.ReplaceAll(key, "$", "$$")+":"+expansion(m.Tags[key], re, shift))
	}
	if p.Prefix != "*" {
		literal := literalPrefix(parsed.Simplify())
		switch {
		case strings.HasPrefix(literal, p.Prefix):
		case !strings.HasPrefix(p.Prefix, literal):
			w.comment("  ", "not converted: %s: no name with the profile's prefix matches it", about)
			return
		default:
			w.comment("  ", "not converted: %s: it matches names without the profile's prefix, too; begin it with %q", about, p.Prefix)
			return
		}
	}
	w.rule(&r, about)
}

// exporterFile is a mapping file of statsd_exporter.
type exporterFile struct {
	Defaults map[string]any   `yaml:"defaults"`
	Mappings []map[string]any `yaml:"mappings"`
}

// exporterKinds are the kinds of samples by match_metric_type.
var exporterKinds = map[string][]string{
	"":         nil,
	"counter":  {"counter"},
	"gauge":    {"gauge"},
	"observer": {"timer", "histogram", "distribution"},
	"timer":    {"timer", "histogram", "distribution"},
}

// statsdExporter converts a mapping file of statsd_exporter. All globs are tried before
// the regular expressions, each in their order, and the first that matches counts; in
// a glob "*" stands for a whole part between dots, an expression need only match some
// of the name; labels go before tags with the same key.
func (w *importWriter) statsdExporter(text []byte) error {
	var file exporterFile
	if err := yaml.Unmarshal(text, &file); err != nil {
		return fmt.Errorf("read the mappings: %w", err)
	}
	if len(file.Mappings) == 0 {
		return fmt.Errorf("there are no mappings in it; give the file of statsd_exporter's --statsd.mapping-config")
	}
	w.comment("", "Converted from a mapping file of statsd_exporter. As there, globs go before regular\n"+
		"expressions, and the first mapping that matches counts: put rules of your own before\n"+
		"these. Names are not rewritten for Prometheus: what matches nothing keeps its dots.")
	if ordering, _ := file.Defaults["glob_disable_ordering"].(bool); ordering {
		w.comment("", "not converted: glob_disable_ordering; of several globs that match the first counts")
	}
	for _, key := range slices.Sorted(maps.Keys(file.Defaults)) {
		if key != "match_type" && key != "glob_disable_ordering" {
			w.comment("", "not converted: defaults.%s", key)
		}
	}
	typeOf := func(m map[string]any) string {
		for _, from := range []map[string]any{m, file.Defaults} {
			if name, _ := from["match_type"].(string); name != "" {
				return name
			}
		}
		return "glob"
	}
	for _, globs := range []bool{true, false} {
		for _, m := range file.Mappings {
			if (typeOf(m) == "glob") == globs {
				w.exporterMapping(m, typeOf(m))
			}
		}
	}
	return nil
}

func (w *importWriter) exporterMapping(m map[string]any, matchType string) {
	text := func(key string) string {
		if m[key] == nil {
			return ""
		}
		return fmt.Sprint(m[key])
	}
	match := text("match")
	about := fmt.Sprintf("match %q", match)
	kinds, known := exporterKinds[text("match_metric_type")]
	if !known {
		w.comment("  ", "not converted: %s: there is no match_metric_type %q", about, text("match_metric_type"))
		return
	}
	labels := map[string]string{}
	if given, ok := m["labels"].(map[string]any); ok {
		for key, value := range given {
			labels[key] = fmt.Sprint(value)
		}
	}
	r := Rule{Kinds: kinds, Drop: text("action") == "drop", Final: text("action") != "drop"}
	var expand func(string) string
	switch matchType {
	case "glob":
		if slices.ContainsFunc(strings.Split(match, "."), func(part string) bool { return part != "*" && strings.Contains(part, "*") }) {
			w.comment("  ", "not converted: %s: to statsd_exporter a * is a whole part between dots", about)
			return
		}
		r.Match = segments(match)
		captures := strings.Count(match, "*")
		expand = func(template string) string {
			return convertTemplate(template, `\$\{?([a-zA-Z0-9_\$]+)\}?`, func(name string) string {
				n, err := strconv.Atoi(name)
				if err != nil || n < 1 || n > captures {
					return ""
				}
				return fmt.Sprintf("${%d}", n)
			})
		}
	case "regex":
		re, err := regexp.Compile(match)
		if err != nil {
			w.comment("  ", "not converted: %s: statsd_exporter refuses it", about)
			return
		}
		whole := usesWhole(append(slices.Collect(maps.Values(labels)), text("name"))...)
		parsed, _ := syntax.Parse(match, syntax.Perl)
		r.Match = somewhere(parsed, match, whole)
		shift := 0
		if whole {
			shift = 1
		}
		expand = func(template string) string { return expansion(template, re, shift) }
	default:
		w.comment("  ", "not converted: %s: there is no match_type %q", about, matchType)
		return
	}
	if !r.Drop {
		r.Name = expand(text("name"))
		for _, key := range slices.Sorted(maps.Keys(labels)) {
			r.Tags = append(r.Tags, key+":"+expand(labels[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains([]string{"match", "match_type", "match_metric_type", "name", "labels", "action", "help"}, key) {
			w.comment("  ", "not converted: %s: %s", about, key)
		}
	}
	w.rule(&r, about)
}
