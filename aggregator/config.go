package aggregator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Config says how samples become points. Its fields stand at the top level of
// the configuration file.
type Config struct {
	FlushInterval time.Duration   `yaml:"flush_interval"`
	Hostname      string          `yaml:"hostname"` // "": the machine's, filled in when the configuration is loaded
	Namespace     string          `yaml:"namespace"`
	Tags          []string        `yaml:"tags"`
	Histogram     HistogramConfig `yaml:"histogram"`
	Expiry        ExpiryConfig    `yaml:"expiry"`
	MaxContexts   int             `yaml:"-"` // there may be at once
	Origin        OriginConfig    `yaml:"origin"`
	Overload      OverloadConfig  `yaml:"overload"`
}

// OriginConfig says what is made of what is known of the containers that lines
// come from.
type OriginConfig struct {
	Detect bool     `yaml:"detect"`  // ask Unix sockets for the sending process
	AsTags []string `yaml:"as_tags"` // some of metric.OriginTags
}

// HistogramConfig says what is computed from histograms and timers.
type HistogramConfig struct {
	Aggregates  []string  `yaml:"aggregates"`
	Percentiles []float64 `yaml:"percentiles"`
}

// ExpiryConfig says what happens to contexts that are no longer sampled.
type ExpiryConfig struct {
	Context  time.Duration `yaml:"context"`   // silent this long, a context is forgotten
	ZeroFill time.Duration `yaml:"zero_fill"` // silent less than this, a counter is sent as 0
	// KeptGauge is Context for the gauges of the statsd dialect, which are sent all
	// the time.
	KeptGauge time.Duration `yaml:"kept_gauge"`
}

const (
	// maxInterval: the intake takes no points older than an hour, and one carries
	// the start of its interval.
	maxInterval = 10 * time.Minute
	maxExpiry   = 30 * 24 * time.Hour
)

// DefaultConfig returns the defaults, which are the Datadog Agent's where it
// has them.
func DefaultConfig() Config {
	return Config{
		FlushInterval: 10 * time.Second,
		Tags:          []string{},
		Histogram: HistogramConfig{
			Aggregates:  []string{"max", "median", "avg", "count"},
			Percentiles: []float64{0.95},
		},
		Expiry:      ExpiryConfig{Context: 5 * time.Minute, ZeroFill: 5 * time.Minute, KeptGauge: 24 * time.Hour},
		MaxContexts: 1_000_000,
		Origin:      OriginConfig{AsTags: []string{}},
	}
}

// Validate returns all faults of the configuration, each naming its key.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.FlushInterval < time.Second || c.FlushInterval > maxInterval || c.FlushInterval%time.Second != 0 {
		fault("flush_interval", "%v will not do; use whole seconds, from 1s to %v", c.FlushInterval, maxInterval)
	}
	if strings.ContainsAny(c.Namespace, ":|\n") {
		fault("namespace", "%q has a character that no metric name can have; use letters, digits, '_' and '.'", c.Namespace)
	}
	if strings.ContainsAny(c.Hostname, "\n") {
		fault("hostname", "it has a line break; write it on one line")
	}
	for i, tag := range c.Tags {
		key := fmt.Sprintf("tags[%d]", i)
		switch {
		case tag == "":
			fault(key, "the tag is empty; remove it or write key:value")
		case strings.ContainsAny(tag, ",|\n"):
			fault(key, "%q has a comma, pipe or line break; write one tag an item, without them", tag)
		case strings.HasPrefix(tag, "host:"):
			fault(key, "%q would move every metric to another host; set hostname instead", tag)
		}
	}
	for i, name := range c.Histogram.Aggregates {
		if !slices.Contains(metric.Aggregates, name) {
			fault(fmt.Sprintf("histogram.aggregates[%d]", i), "there is no aggregate %q; use some of %s", name, strings.Join(metric.Aggregates, ", "))
		}
		if slices.Index(c.Histogram.Aggregates, name) < i {
			fault(fmt.Sprintf("histogram.aggregates[%d]", i), "%s is there twice; remove one", name)
		}
	}
	for i, p := range c.Histogram.Percentiles {
		if !(p >= 0.01 && p <= 1) {
			fault(fmt.Sprintf("histogram.percentiles[%d]", i), "%v is outside 0.01 to 1; write 0.95 for the 95th percentile", p)
		}
	}
	if c.Expiry.Context < c.FlushInterval {
		fault("expiry.context", "%v is shorter than flush_interval (%v); use a multiple of it", c.Expiry.Context, c.FlushInterval)
	}
	if c.Expiry.Context > maxExpiry {
		fault("expiry.context", "%v is too long; use up to %v", c.Expiry.Context, maxExpiry)
	}
	if c.Expiry.KeptGauge < c.FlushInterval || c.Expiry.KeptGauge > maxExpiry {
		fault("expiry.kept_gauge", "%v is out of range; use flush_interval (%v) to %v", c.Expiry.KeptGauge, c.FlushInterval, maxExpiry)
	}
	for i, name := range c.Origin.AsTags {
		if !slices.Contains(metric.OriginTags, name) {
			fault(fmt.Sprintf("origin.as_tags[%d]", i), "there is no tag %q; use some of %s", name, strings.Join(metric.OriginTags, ", "))
		}
	}
	if c.Expiry.ZeroFill < 0 || c.Expiry.ZeroFill > maxExpiry {
		fault("expiry.zero_fill", "%v is out of range; use up to %v, and 0s to send no zeros", c.Expiry.ZeroFill, maxExpiry)
	}
	return errors.Join(faults...)
}
