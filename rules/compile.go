package rules

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// compiler makes a rule of its configuration.
type compiler struct {
	cfg    *Rule
	rule   *rule
	faults []error
}

// fault notes what is wrong with a key of the rule.
func (c *compiler) fault(key, format string, args ...any) {
	c.faults = append(c.faults, fmt.Errorf("rules[%d].%s: %s", c.rule.index, key, fmt.Sprintf(format, args...)))
}

func (c *compiler) compile() {
	cfg, r := c.cfg, c.rule
	r.drop, r.final = cfg.Drop, cfg.Final
	c.conditions()
	c.counting()
	c.tags()
	if cfg.Name != "" {
		r.name = c.template("name", cfg.Name, ":|\n")
	}
	if strings.HasPrefix(cfg.Name, "weir.") {
		c.fault("name", "names that begin with weir. are weir's own; use another")
	}
	r.captures = r.match != nil && c.usesCaptures()
	switch {
	case cfg.Drop && c.changes():
		c.fault("drop", "what is dropped cannot be changed, too; make two rules")
	case !cfg.Drop && !cfg.Final && !c.changes():
		c.faults = append(c.faults, fmt.Errorf("rules[%d]: it changes nothing; say what to do, such as drop: true, or remove it", r.index))
	}
}

// changes reports whether the rule does anything but drop or end the list.
func (c *compiler) changes() bool {
	cfg := c.cfg
	return cfg.Sample != nil || cfg.SampleBy != "" || cfg.Aggregates != nil || cfg.Percentiles != nil ||
		cfg.MaxContexts != nil || cfg.Overflow != "" || cfg.As != "" || cfg.Name != "" ||
		len(cfg.DropTags)+len(cfg.KeepTags)+len(cfg.RenameTags)+len(cfg.TagValues)+len(cfg.Tags)+len(cfg.AddTags) > 0
}

func (c *compiler) usesCaptures() bool {
	uses := func(t template) bool {
		return slices.ContainsFunc(t, func(p piece) bool { return p.capture > 0 })
	}
	return uses(c.rule.name) ||
		slices.ContainsFunc(c.rule.set, func(t tagTemplate) bool { return uses(t.text) }) ||
		slices.ContainsFunc(c.rule.add, func(t tagTemplate) bool { return uses(t.text) })
}

// kinds by the names that the configuration has for them.
var kindsOf = map[string]kindSet{
	"counter":      1 << metric.Counter,
	"gauge":        1<<metric.Gauge | 1<<metric.KeptGauge,
	"set":          1 << metric.Set,
	"histogram":    1 << metric.Histogram,
	"timer":        1<<metric.Timer | 1<<metric.ClassicTimer,
	"distribution": 1 << metric.Distribution,
}

var kindNames = []string{"counter", "gauge", "set", "histogram", "timer", "distribution"}

func (c *compiler) conditions() {
	cfg, r := c.cfg, c.rule
	if cfg.Match == "" {
		c.fault("match", `it is missing; write a pattern for names, such as "debug.*", or "*" for all`)
	} else {
		r.match = c.pattern("match", cfg.Match)
	}
	for i, name := range cfg.Kinds {
		set, known := kindsOf[name]
		if !known {
			c.fault(fmt.Sprintf("kinds[%d]", i), "there is no kind %q; use some of %s", name, strings.Join(kindNames, ", "))
		}
		r.kinds |= set
	}
	if len(cfg.Kinds) == 0 {
		r.kinds = allKinds
	}
	for i, text := range cfg.MatchTags {
		t, err := newTagPattern(text)
		if err != nil {
			c.fault(fmt.Sprintf("match_tags[%d]", i), "%v", err)
		}
		r.matchTags = append(r.matchTags, t)
	}
}

// minSample is the least share: a value then stands for a million.
const minSample = 1e-6

const (
	asDistribution = "distribution"
	// unsampled are the kinds that cannot be sampled.
	unsampled = kindSet(1<<metric.Gauge | 1<<metric.KeptGauge | 1<<metric.Set)
	// sampledByDefault are those that a rule samples unless it names others.
	sampledByDefault = kindSet(1<<metric.Histogram | 1<<metric.Timer | 1<<metric.ClassicTimer | 1<<metric.Distribution)
	// becomeDistributions are those that can.
	becomeDistributions = sampledByDefault
	// profiled are those of which aggregates and percentiles are computed.
	profiled = kindSet(1<<metric.Histogram | 1<<metric.Timer | 1<<metric.ClassicTimer)
)

// counting compiles how values count.
func (c *compiler) counting() {
	cfg, r := c.cfg, c.rule
	c.sampling()
	for i, name := range cfg.Aggregates {
		if !slices.Contains(metric.Aggregates, name) {
			c.fault(fmt.Sprintf("aggregates[%d]", i), "there is no aggregate %q; use some of %s", name, strings.Join(metric.Aggregates, ", "))
		}
		if slices.Index(cfg.Aggregates, name) < i {
			c.fault(fmt.Sprintf("aggregates[%d]", i), "%s is there twice; remove one", name)
		}
	}
	for i, p := range cfg.Percentiles {
		if !(p >= 0.01 && p <= 1) {
			c.fault(fmt.Sprintf("percentiles[%d]", i), "%v is outside 0.01 to 1; write 0.95 for the 95th percentile", p)
		}
	}
	r.aggregates, r.percentiles = cfg.Aggregates, cfg.Percentiles
	for key, given := range map[string]bool{"aggregates": cfg.Aggregates != nil, "percentiles": cfg.Percentiles != nil} {
		if given && r.kinds&profiled == 0 {
			c.fault(key, "only histograms and timers have them; remove it, or name these kinds")
		}
	}
	switch cfg.As {
	case "":
	case asDistribution:
		r.asDistribution = true
		if r.kinds&^becomeDistributions != 0 && len(cfg.Kinds) > 0 {
			c.fault("as", "only histograms and timers can become distributions; name no other kinds")
		}
	default:
		c.fault("as", "there is no kind %q to become; use distribution", cfg.As)
	}
	if cfg.MaxContexts != nil || cfg.Overflow != "" {
		r.budget = &metric.Budget{Rule: r.index, Part: strings.Join(cfg.MatchTags, ","), Overflow: cfg.Overflow}
	}
	if cfg.MaxContexts != nil {
		if *cfg.MaxContexts < 1 {
			c.fault("max_contexts", "%d is too few; use 1 or more, or drop: true", *cfg.MaxContexts)
		}
		r.budget.MaxContexts = *cfg.MaxContexts
	}
	overflows := []string{metric.OverflowFold, metric.OverflowDrop, metric.OverflowObserve}
	if cfg.Overflow != "" {
		if !slices.Contains(overflows, cfg.Overflow) {
			c.fault("overflow", "there is no way %q; use one of %s", cfg.Overflow, strings.Join(overflows, ", "))
		}
	}
}

func (c *compiler) sampling() {
	cfg, r := c.cfg, c.rule
	if cfg.SampleBy != "" {
		if cfg.Sample == nil {
			c.fault("sample_by", "it needs a share; add sample, such as sample: 0.1")
		}
		c.key("sample_by", cfg.SampleBy)
		r.sampleBy = cfg.SampleBy
	}
	if cfg.Sample == nil {
		return
	}
	r.sample = *cfg.Sample
	switch {
	case !(r.sample > 0 && r.sample <= 1):
		c.fault("sample", "%v is outside (0, 1]; write 0.1 to count one value of ten, and drop: true to count none", r.sample)
	case r.sample < minSample:
		c.fault("sample", "%v is below %v, the least share; use that, or drop: true", r.sample, minSample)
	}
	r.sampled = sampledByDefault
	if len(cfg.Kinds) > 0 {
		r.sampled = r.kinds
		for i, name := range cfg.Kinds {
			if kindsOf[name]&unsampled != 0 {
				c.fault(fmt.Sprintf("kinds[%d]", i),
					"a %s cannot be sampled: no weight makes up for a value that is left out; name no gauges and sets, or remove sample", name)
			}
		}
	}
}

// tags compiles what becomes of tags.
func (c *compiler) tags() {
	cfg, r := c.cfg, c.rule
	if len(cfg.KeepTags) > 0 && len(cfg.DropTags) > 0 {
		c.fault("keep_tags", "it drops all others anyway; remove it or drop_tags, or make two rules")
	}
	for i, text := range cfg.DropTags {
		r.dropTags = append(r.dropTags, c.keyPattern(fmt.Sprintf("drop_tags[%d]", i), text))
	}
	for i, text := range cfg.KeepTags {
		r.keepTags = append(r.keepTags, c.keyPattern(fmt.Sprintf("keep_tags[%d]", i), text))
	}
	for i, text := range cfg.RenameTags {
		key := fmt.Sprintf("rename_tags[%d]", i)
		from, to, found := strings.Cut(text, ":")
		if !found || from == "" || to == "" || strings.Contains(to, ":") {
			c.fault(key, "%q is no pair of keys; write old:new", text)
			continue
		}
		c.key(key, from)
		c.key(key, to)
		r.renameTags = append(r.renameTags, renameTag{from, to})
	}
	for i := range cfg.TagValues {
		c.tagValue(fmt.Sprintf("tag_values[%d]", i), &cfg.TagValues[i])
	}
	for i, text := range cfg.Tags {
		key := fmt.Sprintf("tags[%d]", i)
		if strings.Contains(string(keyOf([]byte(text))), "$") {
			c.fault(key, "the key of %q is a capture; use add_tags for that", text)
		}
		r.set = append(r.set, c.tagTemplate(key, text))
	}
	for i, text := range cfg.AddTags {
		r.add = append(r.add, c.tagTemplate(fmt.Sprintf("add_tags[%d]", i), text))
	}
}

func (c *compiler) tagValue(at string, cfg *TagValue) {
	v := tagValue{truncate: cfg.Truncate}
	if cfg.Key == "" {
		c.fault(at+".key", "it is missing; write the key of the tag")
	} else {
		v.key = keyPatterns{c.keyPattern(at+".key", cfg.Key)}
	}
	switch {
	case cfg.Truncate < 0:
		c.fault(at+".truncate", "%d is too short; use 1 or more", cfg.Truncate)
	case cfg.Truncate > 0 && (cfg.Match != "" || cfg.Value != ""):
		c.fault(at+".truncate", "a value is either replaced or cut; make two items")
	case cfg.Truncate > 0:
	case cfg.Match == "":
		c.fault(at+".match", `it is missing; write a pattern for the value, such as "regex:5\d\d", or truncate`)
	default:
		if v.match = c.pattern(at+".match", cfg.Match); v.match != nil {
			t, err := newTemplate(cfg.Value, v.match.captures())
			if err != nil {
				c.fault(at+".value", "%v", err)
			}
			v.value = t
		}
		c.literal(at+".value", cfg.Value, ",|\n")
	}
	c.rule.tagValues = append(c.rule.tagValues, v)
}

func (c *compiler) pattern(key, text string) *pattern {
	p, err := newPattern(text)
	if err != nil {
		c.fault(key, "%v", err)
		return nil
	}
	return p
}

// keyPattern compiles a pattern for keys of tags.
func (c *compiler) keyPattern(key, text string) *pattern {
	if !strings.HasPrefix(text, regexPrefix) && strings.Contains(text, ":") {
		c.fault(key, "%q has a colon, which no key has; write the key alone, or match_tags for whole tags", text)
	}
	return c.pattern(key, text)
}

// key checks the key of a tag.
func (c *compiler) key(key, text string) {
	c.literal(key, text, ":,|\n")
	if strings.Contains(text, "*") || strings.HasPrefix(text, regexPrefix) {
		c.fault(key, "%q is a pattern; name one key", text)
	}
}

func (c *compiler) literal(key, text, forbidden string) {
	if strings.ContainsAny(text, forbidden) {
		c.fault(key, "%q has a character that cannot stand there; leave out %q", text, forbidden)
	}
}

// template compiles a text with captures of the rule's match.
func (c *compiler) template(key, text, forbidden string) template {
	c.literal(key, text, forbidden)
	if c.rule.match == nil {
		return nil // a fault already
	}
	t, err := newTemplate(text, c.rule.match.captures())
	if err != nil {
		c.fault(key, "%v", err)
	}
	return t
}

func (c *compiler) tagTemplate(key, text string) tagTemplate {
	if text == "" {
		c.fault(key, "the tag is empty; remove it or write key:value")
	}
	return tagTemplate{text: c.template(key, text, ",|\n"), key: string(keyOf([]byte(text)))}
}
