package forwarder

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Config says where batches go. Its fields stand at the top level of the
// configuration file.
type Config struct {
	ShutdownTimeout time.Duration       `yaml:"shutdown_timeout"`
	Forwarders      []DestinationConfig `yaml:"forwarders"` // empty: see Resolve
}

// DestinationConfig is one destination. Which fields count depends on the type.
type DestinationConfig struct {
	Type string `yaml:"type"` // logs or datadog

	Output string `yaml:"output"` // logs: stdout, stderr or a file's path
	Format string `yaml:"format"` // logs: json or text

	APIKey metric.Secret `yaml:"api_key"` // datadog
	Site   string        `yaml:"site"`    // datadog: datadoghq.com, datadoghq.eu, …
	URL    string        `yaml:"url"`     // datadog: another base URL than the site's
}

// The types of destinations.
const (
	TypeLogs    = "logs"
	TypeDatadog = "datadog"
)

var destinationTypes = []string{TypeLogs, TypeDatadog}

// Outputs and formats of the logs destination.
const (
	OutputStdout = "stdout"
	OutputStderr = "stderr"
	FormatJSON   = "json"
	FormatText   = "text"
)

const defaultSite = "datadoghq.com"

// DefaultConfig returns the defaults. There is no destination in it: Resolve
// chooses.
func DefaultConfig() Config {
	return Config{ShutdownTimeout: 10 * time.Second, Forwarders: []DestinationConfig{}}
}

// Defaults are what the environment says for destinations that do not say it
// themselves.
type Defaults struct {
	APIKey metric.Secret
	Site   string
	URL    string
}

// minShutdown leaves what is healthy the time to take the last interval.
const minShutdown = 100 * time.Millisecond

// Resolve fills in what the destinations leave open. Without any destination it
// adds one: Datadog if there is an API key, logs on standard output if not.
func (c *Config) Resolve(d Defaults) {
	if len(c.Forwarders) == 0 {
		only := DestinationConfig{Type: TypeLogs}
		if d.APIKey != "" {
			only.Type = TypeDatadog
		}
		c.Forwarders = []DestinationConfig{only}
	}
	orElse := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	for i := range c.Forwarders {
		f := &c.Forwarders[i]
		switch f.Type {
		case TypeLogs:
			orElse(&f.Output, OutputStdout)
			orElse(&f.Format, FormatJSON)
		case TypeDatadog:
			if f.APIKey == "" {
				f.APIKey = d.APIKey
			}
			if f.Site == "" { // a site of its own is not to be overruled by the environment's URL
				orElse(&f.URL, d.URL)
			}
			orElse(&f.Site, d.Site)
			orElse(&f.Site, defaultSite)
		}
	}
}

// Validate returns all faults of the configuration, each naming its key. The
// configuration must have been resolved.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.ShutdownTimeout < minShutdown {
		fault("shutdown_timeout", "%v is too short for any delivery; use %v or more", c.ShutdownTimeout, minShutdown)
	}
	stdout := -1
	for i := range c.Forwarders {
		f := &c.Forwarders[i]
		key := func(name string) string { return fmt.Sprintf("forwarders[%d].%s", i, name) }
		switch f.Type {
		case TypeLogs:
			if f.Format != FormatJSON && f.Format != FormatText {
				fault(key("format"), "there is no format %q; use json or text", f.Format)
			}
			if f.Output == OutputStdout {
				if stdout >= 0 {
					fault(key("output"), "forwarders[%d] writes to stdout already; write one of them to a file", stdout)
				}
				stdout = i
			}
		case TypeDatadog:
			if f.APIKey == "" {
				fault(key("api_key"), "there is no API key; set it here or in the environment as DD_API_KEY")
			}
			if strings.ContainsFunc(f.APIKey.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
				fault(key("api_key"), "it has a blank, a line break or another odd character in it; copy it again")
			}
			if !isHostName(f.Site) {
				fault(key("site"), "%q is not a site; use datadoghq.com, us3.datadoghq.com, datadoghq.eu or the like, and url for anything else", f.Site)
			}
			if f.URL != "" && !isBaseURL(f.URL) {
				// Not quoted: a password may be in it.
				fault(key("url"), "it is not a base URL; write one such as https://intake.example.org, without ? and #")
			}
		case "":
			fault(key("type"), "it is missing; use one of %s", strings.Join(destinationTypes, ", "))
		default:
			fault(key("type"), "there is no forwarder of type %q; use one of %s", f.Type, strings.Join(destinationTypes, ", "))
		}
	}
	return errors.Join(faults...)
}

func isHostName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool {
		return r != '-' && r != '.' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

func isBaseURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https") && u.RawQuery == "" && u.Fragment == "" && !strings.ContainsAny(text, "?#")
}

// fieldsOf returns the keys that a type of destination heeds, for the error
// about one it does not.
func fieldsOf(kind string) []string {
	switch kind {
	case TypeLogs:
		return []string{"type", "output", "format"}
	case TypeDatadog:
		return []string{"type", "api_key", "site", "url"}
	}
	return nil
}

// Heeds reports whether a destination of the given type looks at a key.
func Heeds(kind, key string) bool {
	fields := fieldsOf(kind)
	return fields == nil || slices.Contains(fields, key)
}
