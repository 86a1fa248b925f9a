package cardinality

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// What happens to gauges where other kinds are folded.
const (
	GaugesRefuse = "refuse" // samples of further contexts are refused
	GaugesLatest = "latest" // they are folded: of all gauges that become one the latest value counts
)

// Config bounds how many contexts there are.
type Config struct {
	MaxContexts          int           `yaml:"max_contexts"`            // of the whole agent
	MaxContextsPerMetric int           `yaml:"max_contexts_per_metric"` // of a name with its kind
	Overflow             string        `yaml:"overflow"`
	Window               time.Duration `yaml:"window"` // contexts of so long count
	KeepTop              int           `yaml:"keep_top"`
	Gauges               string        `yaml:"gauges"`
	Protect              []string      `yaml:"protect"` // tag keys that are never folded
	Cost                 CostConfig    `yaml:"cost"`

	// SeriesPerHistogram is how many series Datadog counts for a context of a histogram
	// or timer.
	SeriesPerHistogram int `yaml:"-"`
}

// CostConfig is what estimates of costs assume.
type CostConfig struct {
	Per100MetricsMonth float64 `yaml:"per_100_metrics_month"`
}

const (
	// maxContextsLimit is what the aggregator's table of identities can address.
	maxContextsLimit = 100_000_000
	minWindow        = time.Minute
	maxWindow        = 24 * time.Hour
	maxKeepTop       = 1000
	maxPrice         = 1e6
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		MaxContexts:          1_000_000,
		MaxContextsPerMetric: 10_000,
		Overflow:             metric.OverflowFold,
		Window:               10 * time.Minute,
		KeepTop:              20,
		Gauges:               GaugesRefuse,
		Protect:              []string{"env", "service"},
		Cost:                 CostConfig{Per100MetricsMonth: 5},
		SeriesPerHistogram:   5,
	}
}

// Validate returns all faults of the configuration, each naming its key.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("cardinality.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.MaxContexts < 1 || c.MaxContexts > maxContextsLimit {
		fault("max_contexts", "%d is out of range; use 1 to %d", c.MaxContexts, maxContextsLimit)
	}
	if c.MaxContextsPerMetric < 1 || c.MaxContextsPerMetric > maxContextsLimit {
		fault("max_contexts_per_metric", "%d is out of range; use 1 to %d", c.MaxContextsPerMetric, maxContextsLimit)
	}
	if !slices.Contains([]string{metric.OverflowFold, metric.OverflowDrop, metric.OverflowObserve}, c.Overflow) {
		fault("overflow", "there is no %q; use fold, drop or observe", c.Overflow)
	}
	if c.Window < minWindow || c.Window > maxWindow {
		fault("window", "%v is out of range; use %v to %v", c.Window, minWindow, maxWindow)
	}
	if c.KeepTop < 0 || c.KeepTop > maxKeepTop {
		fault("keep_top", "%d is out of range; use 0 to %d", c.KeepTop, maxKeepTop)
	}
	if !slices.Contains([]string{GaugesRefuse, GaugesLatest}, c.Gauges) {
		fault("gauges", "there is no %q; use refuse or latest", c.Gauges)
	}
	for i, key := range c.Protect {
		if key == "" || strings.ContainsAny(key, ":,|\n") {
			fault(fmt.Sprintf("protect[%d]", i), "%q is no key of a tag; write what stands before the ':'", key)
		}
	}
	if p := c.Cost.Per100MetricsMonth; !(p >= 0 && p <= maxPrice) {
		fault("cost.per_100_metrics_month", "%v is out of range; use 0 to %v", p, maxPrice)
	}
	return errors.Join(faults...)
}
