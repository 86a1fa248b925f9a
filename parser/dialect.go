package parser

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// Config says how clients write lines. Its fields stand at the top level of the
// configuration file, and each listener may have its own.
type Config struct {
	Dialect  string `yaml:"dialect"`   // dogstatsd or statsd
	TagStyle string `yaml:"tag_style"` // dogstatsd, influx, graphite or signalfx
}

// The dialects.
const (
	DialectDogStatsD = "dogstatsd" // as the Datadog Agent reads lines
	DialectStatsD    = "statsd"    // as Etsy's statsd does: signed gauges are changes, a line holds several metrics
)

// The styles of tags. With all of them "|#tag,tag" is understood, too.
const (
	TagsDogStatsD = "dogstatsd" // none in the name
	TagsInflux    = "influx"    // name,tag=value,tag=value:1|c
	TagsGraphite  = "graphite"  // name;tag=value;tag=value:1|c
	TagsSignalFx  = "signalfx"  // name[tag=value,tag=value]:1|c
)

var (
	dialects  = []string{DialectDogStatsD, DialectStatsD}
	tagStyles = []string{TagsDogStatsD, TagsInflux, TagsGraphite, TagsSignalFx}
)

// DefaultConfig returns the defaults: what Datadog's clients write.
func DefaultConfig() Config {
	return Config{Dialect: DialectDogStatsD, TagStyle: TagsDogStatsD}
}

// Validate returns all faults of the configuration, each naming its key.
func (c *Config) Validate() error {
	var faults []error
	if !slices.Contains(dialects, c.Dialect) {
		faults = append(faults, fmt.Errorf("dialect: there is no dialect %q; use %s", c.Dialect, strings.Join(dialects, " or ")))
	}
	if !slices.Contains(tagStyles, c.TagStyle) {
		faults = append(faults, fmt.Errorf("tag_style: there is no style %q; use one of %s", c.TagStyle, strings.Join(tagStyles, ", ")))
	}
	return errors.Join(faults...)
}

// Or returns c with what it leaves open taken from defaults.
func (c Config) Or(defaults Config) Config {
	if c.Dialect == "" {
		c.Dialect = defaults.Dialect
	}
	if c.TagStyle == "" {
		c.TagStyle = defaults.TagStyle
	}
	return c
}

// Parser reads the lines of one dialect and style of tags. It has no state, so
// any number of goroutines may use it.
type Parser struct {
	statsd bool
	// splitName takes tags out of a name; nil if there are none in it.
	splitName func(name []byte, id *metric.Identity) metric.Reason
}

// New returns a parser; cfg must have passed Validate.
func New(cfg Config) *Parser {
	p := &Parser{statsd: cfg.Dialect == DialectStatsD}
	switch cfg.TagStyle {
	case TagsInflux:
		p.splitName = splitInflux
	case TagsGraphite:
		p.splitName = splitGraphite
	case TagsSignalFx:
		p.splitName = splitSignalFx
	}
	return p
}
