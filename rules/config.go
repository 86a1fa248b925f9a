package rules

import (
	"errors"
)

// Config is the ordered list of rules. Its field stands at the top level of the
// configuration file.
type Config struct {
	Rules []Rule `yaml:"rules"`
}

// Rule says what becomes of the metrics it matches. What is not said stays as it is.
type Rule struct {
	// Which it concerns: all conditions have to hold.
	Match     string   `yaml:"match"`      // a pattern for names
	Kinds     []string `yaml:"kinds"`      // none: all of them
	MatchTags []string `yaml:"match_tags"` // patterns for whole tags: one tag must match each, none may match one with "!"

	Drop bool `yaml:"drop"`

	// How values count. A later rule's goes before an earlier one's.
	Sample      *float64  `yaml:"sample"`    // the share of values that count
	SampleBy    string    `yaml:"sample_by"` // all or none of those with one value of this tag
	Aggregates  []string  `yaml:"aggregates"`
	Percentiles []float64 `yaml:"percentiles"`
	MaxContexts *int      `yaml:"max_contexts"`
	Overflow    string    `yaml:"overflow"`
	As          string    `yaml:"as"` // distribution

	// What becomes of name and tags, in this order.
	DropTags   []string   `yaml:"drop_tags"` // patterns for keys
	KeepTags   []string   `yaml:"keep_tags"` // patterns for keys
	RenameTags []string   `yaml:"rename_tags"`
	TagValues  []TagValue `yaml:"tag_values"`
	Tags       []string   `yaml:"tags"`     // set: in place of those with the same key
	AddTags    []string   `yaml:"add_tags"` // added to what is there
	Name       string     `yaml:"name"`

	Final bool `yaml:"final"` // no later rule concerns what this one does
}

// TagValue says what becomes of the values of a tag.
type TagValue struct {
	Key      string `yaml:"key"`      // a pattern
	Match    string `yaml:"match"`    // a pattern for the value
	Value    string `yaml:"value"`    // takes the place of a value that matches
	Truncate int    `yaml:"truncate"` // bytes to keep of it
}

// DefaultConfig returns the default: no rules.
func DefaultConfig() Config { return Config{Rules: []Rule{}} }

// Validate returns all faults of the configuration, each naming its key.
func (c *Config) Validate() error {
	var faults []error
	for i := range c.Rules {
		compiler := compiler{rule: &rule{index: i}, cfg: &c.Rules[i]}
		compiler.compile()
		faults = append(faults, compiler.faults...)
	}
	return errors.Join(faults...)
}
