// Package config reads the configuration: a YAML file, the environment, and the
// rooms' defaults below them.
//
// In: a file and the environment. Out: a Config made of the rooms' own Config
// structs, or all faults at once, each with its line and what to write instead; and
// word that the file has changed.
// It has no setting of its own but those of the log, which belongs to no room.
package config

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/listener"
	"github.com/weir-agent/weir/parser"
	"github.com/weir-agent/weir/rules"
)

// Config is the whole configuration. The keys of a field marked squash stand at
// the level of its parent.
type Config struct {
	Listen      listener.Config    `yaml:"listen"`
	Parser      parser.Config      `yaml:",squash"`
	Aggregator  aggregator.Config  `yaml:",squash"`
	Cardinality cardinality.Config `yaml:"cardinality"`
	Rules       rules.Config       `yaml:",squash"`
	Forwarder   forwarder.Config   `yaml:",squash"`
	Log         LogConfig          `yaml:"log"`
}

// LogConfig says what the agent says of itself, on standard error.
type LogConfig struct {
	Level  string `yaml:"level"`  // debug, info, warn or error
	Format string `yaml:"format"` // text or json
}

// Default returns the defaults of all rooms.
func Default() Config {
	return Config{
		Listen:      listener.DefaultConfig(),
		Parser:      parser.DefaultConfig(),
		Aggregator:  aggregator.DefaultConfig(),
		Cardinality: cardinality.DefaultConfig(),
		Rules:       rules.DefaultConfig(),
		Forwarder:   forwarder.DefaultConfig(),
		Log:         LogConfig{Level: "info", Format: "text"},
	}
}

// connect tells rooms what others are configured to do.
func (c *Config) connect() {
	c.Aggregator.MaxContexts = c.Cardinality.MaxContexts
	c.Cardinality.SeriesPerHistogram = len(c.Aggregator.Histogram.Aggregates) + len(c.Aggregator.Histogram.Percentiles)
}

// faults returns what is wrong with the configuration.
func (c *Config) faults() []error {
	var all []error
	for _, err := range []error{c.Listen.Validate(), c.Parser.Validate(), c.Aggregator.Validate(), c.Cardinality.Validate(), c.Rules.Validate(), c.Forwarder.Validate()} {
		all = append(all, flatten(err)...)
	}
	for i, socket := range c.Listen.More {
		lines := parser.Config{Dialect: socket.Dialect, TagStyle: socket.TagStyle}.Or(parser.DefaultConfig())
		for _, err := range flatten(lines.Validate()) {
			all = append(all, fmt.Errorf("listen.more[%d].%w", i, err))
		}
	}
	for i, f := range c.Forwarder.Forwarders {
		if f.Address != "" && c.listensOn(f.Address) {
			all = append(all, fmt.Errorf("forwarders[%d].address: this agent listens on %s itself, and would send itself ever more; use another server's", i, f.Address))
		}
	}
	if _, err := c.Log.SlogLevel(); err != nil {
		all = append(all, err)
	}
	if !slices.Contains([]string{"text", "json"}, c.Log.Format) {
		all = append(all, fmt.Errorf("log.format: there is no format %q; use text or json", c.Log.Format))
	}
	return all
}

// listensOn reports whether a forwarder's address, as host:port or SCHEME://ADDRESS,
// is one of the agent's own, as far as that can be told by comparing them.
func (c *Config) listensOn(address string) bool {
	if scheme, rest, found := strings.Cut(address, "://"); found {
		address = rest
		if scheme == listener.TCP {
			return c.listens(address, c.Listen.TCP, listener.TCP)
		}
		if scheme == "unix" {
			return c.listens(address, c.Listen.UnixDatagram, listener.UnixDatagram) || c.listens(address, c.Listen.UnixStream, listener.UnixStream)
		}
	}
	return c.listens(address, c.Listen.UDP, listener.UDP)
}

func (c *Config) listens(address, own, network string) bool {
	return address == own || slices.ContainsFunc(c.Listen.More, func(s listener.Socket) bool {
		return s.Network == network && s.Address == address
	})
}

// SlogLevel returns the level in the terms of log/slog.
func (c *LogConfig) SlogLevel() (slog.Level, error) {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	level, known := levels[c.Level]
	if !known {
		return 0, fmt.Errorf("log.level: there is no level %q; use debug, info, warn or error", c.Level)
	}
	return level, nil
}

// flatten takes joined errors apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, one := range joined.Unwrap() {
		all = append(all, flatten(one)...)
	}
	return all
}

// Fault is one thing wrong with the configuration.
type Fault struct {
	File    string // "" if it is not in the file
	Line    int    // 0 if it has none
	Key     string // "listen.udp", or the name of an environment variable; "" for the file as a whole
	Message string // what is wrong and what to write instead
}

func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Message
}

// Faults are all things wrong with a configuration, in the order of the file.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].String()
	}
	return strings.Join(lines, "\n")
}
