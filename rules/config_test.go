package rules

import (
	"strings"
	"testing"
)

// Each fault is reported with its key, all of them at once, and says what to do.
func TestValidate(t *testing.T) {
	for rule, want := range map[string]string{
		`{drop: true}`:                                              "rules[0].match: it is missing; write a pattern",
		`{match: a}`:                                                "rules[0]: it changes nothing; say what to do",
		`{match: "regex:(", drop: true}`:                            `rules[0].match: "(" is no regular expression (missing closing ))`,
		`{match: "regex:a)|(b", drop: true}`:                        `rules[0].match: "a)|(b" is no regular expression (unexpected ))`,
		`{match: a, kinds: [counters], drop: true}`:                 `rules[0].kinds[0]: there is no kind "counters"; use some of counter, gauge`,
		`{match: a, match_tags: [""], drop: true}`:                  "rules[0].match_tags[0]: the pattern is empty",
		`{match: a, drop: true, name: b}`:                           "rules[0].drop: what is dropped cannot be changed, too; make two rules",
		`{match: a, sample: 0}`:                                     "rules[0].sample: 0 is outside (0, 1]; write 0.1",
		`{match: a, sample: 1.5}`:                                   "rules[0].sample: 1.5 is outside (0, 1]",
		`{match: a, sample: .nan}`:                                  "rules[0].sample: NaN is outside (0, 1]",
		`{match: a, sample: 0.0000001}`:                             "rules[0].sample: 1e-07 is below 1e-06, the least share; use that, or drop: true",
		`{match: a, kinds: [timer, gauge], sample: 0.5}`:            "rules[0].kinds[1]: a gauge cannot be sampled: no weight makes up",
		`{match: a, kinds: [set], sample: 0.5}`:                     "rules[0].kinds[0]: a set cannot be sampled",
		`{match: a, sample_by: user}`:                               "rules[0].sample_by: it needs a share; add sample",
		`{match: a, sample: 0.5, sample_by: "user*"}`:               `rules[0].sample_by: "user*" is a pattern; name one key`,
		`{match: a, sample: 0.5, sample_by: "a:b"}`:                 `rules[0].sample_by: "a:b" has a character that cannot stand there`,
		`{match: a, aggregates: [mean]}`:                            `rules[0].aggregates[0]: there is no aggregate "mean"; use some of max, min`,
		`{match: a, aggregates: [sum, sum]}`:                        "rules[0].aggregates[1]: sum is there twice; remove one",
		`{match: a, percentiles: [95]}`:                             "rules[0].percentiles[0]: 95 is outside 0.01 to 1; write 0.95",
		`{match: a, kinds: [distribution], percentiles: [0.5]}`:     "rules[0].percentiles: only histograms and timers have them",
		`{match: a, as: gauge}`:                                     `rules[0].as: there is no kind "gauge" to become; use distribution`,
		`{match: a, kinds: [counter, timer], as: distribution}`:     "rules[0].as: only histograms and timers can become distributions",
		`{match: a, max_contexts: 0}`:                               "rules[0].max_contexts: 0 is too few; use 1 or more",
		`{match: a, overflow: refuse}`:                              `rules[0].overflow: there is no way "refuse"; use one of fold, drop, observe`,
		`{match: a, keep_tags: [x], drop_tags: [y]}`:                "rules[0].keep_tags: it drops all others anyway",
		`{match: a, drop_tags: ["env:prod"]}`:                       `rules[0].drop_tags[0]: "env:prod" has a colon, which no key has; write the key alone`,
		`{match: a, rename_tags: [svc]}`:                            `rules[0].rename_tags[0]: "svc" is no pair of keys; write old:new`,
		`{match: a, rename_tags: ["a:b:c"]}`:                        `rules[0].rename_tags[0]: "a:b:c" is no pair of keys`,
		`{match: a, rename_tags: ["a*:b"]}`:                         `rules[0].rename_tags[0]: "a*" is a pattern; name one key`,
		`{match: a, tag_values: [{match: x}]}`:                      "rules[0].tag_values[0].key: it is missing",
		`{match: a, tag_values: [{key: x}]}`:                        "rules[0].tag_values[0].match: it is missing",
		`{match: a, tag_values: [{key: x, truncate: -1}]}`:          "rules[0].tag_values[0].truncate: -1 is too short; use 1 or more",
		`{match: a, tag_values: [{key: x, match: y, truncate: 1}]}`: "rules[0].tag_values[0].truncate: a value is either replaced or cut",
		`{match: a, tag_values: [{key: x, match: y, value: $1}]}`:   "rules[0].tag_values[0].value: there is no capture $1: the pattern has 0",
		`{match: "a.*", name: "b.$2"}`:                              "rules[0].name: there is no capture $2: the pattern has 1; a * or a group",
		`{match: "a.*", name: "b.$x"}`:                              `rules[0].name: a "$" stands before no number; write $1`,
		`{match: "a.*", name: "b.${1"}`:                             `rules[0].name: a "$" stands before no number`,
		`{match: a, name: "b\nc"}`:                                  `rules[0].name: "b\nc" has a character that cannot stand there`,
		`{match: a, name: "b:c"}`:                                   `rules[0].name: "b:c" has a character`,
		`{match: a, name: weir.x}`:                                  "rules[0].name: names that begin with weir. are weir's own",
		`{match: a, tags: ["a,b"]}`:                                 `rules[0].tags[0]: "a,b" has a character that cannot stand there`,
		`{match: "*", tags: ["$1:b"]}`:                              `rules[0].tags[0]: the key of "$1:b" is a capture; use add_tags for that`,
		`{match: a, add_tags: [""]}`:                                "rules[0].add_tags[0]: the tag is empty",
	} {
		cfg := parse(t, "["+rule+"]")
		err := cfg.Validate()
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s\n got %v\nwant %s", rule, err, want)
		}
	}
	cfg := parse(t, `[{match: a, drop: true}, {match: "*", sample: 2, name: "$2", aggregates: [x]}]`)
	if err := cfg.Validate(); err == nil || strings.Count(err.Error(), "rules[1].") != 3 {
		t.Errorf("got %v, want three faults of rule 1", err)
	}
	cfg = parse(t, `[{match: a, sample: 1}, {match: "*", kinds: [counter], sample: 0.000001, max_contexts: 1, overflow: drop, final: true}]`)
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}
