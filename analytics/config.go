package analytics

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/analytics/fleet"
	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/raw"
	"github.com/weir-agent/weir/analytics/report"
	"github.com/weir-agent/weir/metric"
)

// Config says what becomes of analytics events.
type Config struct {
	Definitions        string            `yaml:"definitions"` // a folder; "": no event is special
	Prefixes           []string          `yaml:"prefixes"`    // of the names of events, with their dots
	Mode               string            `yaml:"mode"`        // warn or strict
	ContextTags        []string          `yaml:"context_tags"`
	Collect            []string          `yaml:"collect"`  // categories of data; empty: all
	KeyFile            string            `yaml:"key_file"` // "": Keys
	Keys               metric.Secret     `yaml:"keys"`     // "": one that is kept in the state folder
	IncludeToday       bool              `yaml:"include_today"`
	SaveInterval       time.Duration     `yaml:"save_interval"`
	Retention          time.Duration     `yaml:"retention"` // of days of counts
	MaxSketches        int               `yaml:"max_sketches"`
	MaxValuesPerFilter int               `yaml:"max_values_per_filter"`
	UnplannedBuckets   int               `yaml:"unplanned_buckets"`
	DeadLetters        DeadLettersConfig `yaml:"dead_letters"`
	Redis              fleet.Config      `yaml:"redis"`
	Raw                raw.Config        `yaml:"raw"`
	Reports            []report.Config   `yaml:"reports"`

	StateDir string `yaml:"-"` // the folder for everything kept; set by the wiring
	Host     string `yaml:"-"` // the agent's; set by the wiring
}

// DeadLettersConfig bounds the file of lines that were no valid events.
type DeadLettersConfig struct {
	Enabled  bool         `yaml:"enabled"`
	MaxBytes metric.Bytes `yaml:"max_bytes"` // of both files, the current one and the one before it
	MaxRate  int          `yaml:"max_rate"`  // lines a second
}

const (
	// lateDays is how many days after its own an event is still taken into it.
	lateDays = 2
	// futureAllowed is how many seconds an event may be ahead of the agent's clock.
	futureAllowed = 5 * 60

	oneDay = secondsPerDay * time.Second
	// leastRetention: four ISO weeks end up to a week ago, and late events are awaited.
	leastRetention = (28 + 7 + lateDays + 1) * oneDay
	mostRetention  = 400 * oneDay
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	options := plan.DefaultOptions()
	return Config{
		Prefixes:           []string{"analytics."},
		Mode:               string(options.Mode),
		ContextTags:        options.Context,
		Collect:            []string{},
		SaveInterval:       30 * time.Second,
		Retention:          40 * oneDay,
		MaxSketches:        1000,
		MaxValuesPerFilter: 100,
		UnplannedBuckets:   64,
		DeadLetters:        DeadLettersConfig{Enabled: true, MaxBytes: 16 << 20, MaxRate: 10},
		Redis:              fleet.DefaultConfig(),
		Raw:                raw.DefaultConfig(),
		Reports:            []report.Config{},
	}
}

// Enabled reports whether there are definitions at all.
func (c *Config) Enabled() bool { return c.Definitions != "" }

// Options returns how the definitions are to be read.
func (c *Config) Options() plan.Options {
	options := plan.Options{Mode: plan.Mode(c.Mode), Context: c.ContextTags}
	for _, category := range c.Collect {
		options.Collected = append(options.Collected, plan.DataCategory(category))
	}
	return options
}

// Validate returns all faults of the configuration, each naming its key. The
// definitions are another matter.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("analytics.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if len(c.Prefixes) == 0 {
		fault("prefixes", "there is none; write one such as analytics.")
	}
	for i, prefix := range c.Prefixes {
		key := fmt.Sprintf("prefixes[%d]", i)
		switch {
		case prefix == "" || strings.ContainsAny(prefix, ":|\n"):
			fault(key, "%q begins no name; write one such as analytics.", prefix)
		case strings.HasPrefix(prefix, "weir."):
			fault(key, "%q is what weir's own metrics begin with; use another", prefix)
		case slices.Index(c.Prefixes, prefix) < i:
			fault(key, "%s is there twice; remove one", prefix)
		}
	}
	if c.Mode != string(plan.Warn) && c.Mode != string(plan.Strict) {
		fault("mode", "there is no mode %q; use %s or %s", c.Mode, plan.Warn, plan.Strict)
	}
	for i, category := range c.Collect {
		if !slices.Contains(plan.DataCategories, category) {
			fault(fmt.Sprintf("collect[%d]", i), "there is no category %q; use some of %s", category, strings.Join(plan.DataCategories, ", "))
		}
	}
	if c.Keys != "" && c.KeyFile != "" {
		fault("keys", "there is a key_file as well; remove one")
	} else if c.Keys != "" {
		if _, err := parseKeys(c.Keys.Reveal()); err != nil {
			faults = append(faults, err)
		}
	}
	if c.SaveInterval < time.Second || c.SaveInterval > time.Hour {
		fault("save_interval", "%v is out of range; use 1s to 1h", c.SaveInterval)
	}
	if c.Retention < leastRetention || c.Retention > mostRetention {
		fault("retention", "%v is out of range; use %v to %v", c.Retention, leastRetention, mostRetention)
	}
	for _, number := range []struct {
		key            string
		n, least, most int
	}{
		{"max_sketches", c.MaxSketches, 1, 100_000},
		{"max_values_per_filter", c.MaxValuesPerFilter, 1, 100_000},
		{"unplanned_buckets", c.UnplannedBuckets, 1, 10_000},
		{"dead_letters.max_rate", c.DeadLetters.MaxRate, 1, 100_000},
	} {
		if number.n < number.least || number.n > number.most {
			fault(number.key, "%d is out of range; use %d to %d", number.n, number.least, number.most)
		}
	}
	if c.DeadLetters.MaxBytes < 64<<10 {
		fault("dead_letters.max_bytes", "%v is too little; use 64KiB or more", c.DeadLetters.MaxBytes)
	}
	if err := c.Redis.Validate(); err != nil {
		faults = append(faults, err)
	}
	if c.Redis.Enabled() && c.Redis.Element == fleet.HMAC && c.Keys == "" && c.KeyFile == "" {
		fault("redis.addresses", "hosts that share counts must agree on who somebody is; set analytics.key_file, or WEIR_ANALYTICS_KEYS, to the same key on all of them")
	}
	faults = append(faults, c.Raw.Validate("analytics.raw."), report.Validate("analytics.reports", c.Reports))
	return errors.Join(faults...)
}

// keep takes over from another configuration what a change of the definitions leaves as
// it is.
func (c *Config) keep(from *Config) {
	c.StateDir, c.Host, c.Redis, c.Raw, c.Reports = from.StateDir, from.Host, from.Redis, from.Raw, from.Reports
}
