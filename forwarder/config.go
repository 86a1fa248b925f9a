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

	StateDir string      `yaml:"state_dir"` // what must outlive the process; "": see StateDir()
	Spool    SpoolConfig `yaml:"spool"`
}

// SpoolConfig says what of the disk what cannot be delivered may take. The bounds are
// those of each endpoint.
type SpoolConfig struct {
	Enabled  bool          `yaml:"enabled"`
	After    time.Duration `yaml:"after"` // in memory, while requests fail
	MaxBytes metric.Bytes  `yaml:"max_bytes"`
	MaxAge   time.Duration `yaml:"max_age"`  // since the start of the interval
	MinFree  metric.Bytes  `yaml:"min_free"` // of the file system, for others
}

// DestinationConfig is one destination. Which fields count depends on the type.
type DestinationConfig struct {
	Type string `yaml:"type"` // one of the Type constants

	// Patterns of the names of what goes there: "*" stands for anything.
	Include []string `yaml:"include"` // none: everything
	Exclude []string `yaml:"exclude"` // goes before Include

	Output   string        `yaml:"output"`    // logs: stdout, stderr or a file's path
	Format   string        `yaml:"format"`    // logs: json or text
	MaxBytes metric.Bytes  `yaml:"max_bytes"` // logs: of a file before it is renamed; 0: any
	MaxAge   time.Duration `yaml:"max_age"`   // logs: of a file before it is renamed; 0: any
	Keep     int           `yaml:"keep"`      // logs: renamed files

	APIKey metric.Secret `yaml:"api_key"` // datadog
	Site   string        `yaml:"site"`    // datadog: datadoghq.com, datadoghq.eu, …
	URL    string        `yaml:"url"`     // datadog: another base URL than the site's

	AdditionalEndpoints []EndpointConfig `yaml:"additional_endpoints"` // datadog
	Compression         string           `yaml:"compression"`          // datadog: one of the Compress constants
	Series              string           `yaml:"series"`               // datadog: one of the Series constants
	Proxy               metric.Secret    `yaml:"proxy"`                // datadog: a URL, perhaps with a password; "": the environment's
	NoProxy             []string         `yaml:"no_proxy"`             // datadog: hosts to which no proxy leads, besides those of NO_PROXY
	CAFile              string           `yaml:"ca_file"`              // datadog: certificates in PEM, besides the system's
	Concurrency         int              `yaml:"concurrency"`          // datadog: requests at once, to each endpoint
	MaxQueue            metric.Bytes     `yaml:"max_queue"`            // datadog: payloads waiting in memory, for each endpoint

	Address   string       `yaml:"address"`    // dogstatsd, statsd: see addressSchemes
	MaxPacket metric.Bytes `yaml:"max_packet"` // dogstatsd, statsd; 0: what suits the network
	TagStyle  string       `yaml:"tag_style"`  // statsd: one of the Tags constants
}

// EndpointConfig is a further place that the datadog destination sends to.
type EndpointConfig struct {
	APIKey metric.Secret `yaml:"api_key"`
	Site   string        `yaml:"site"`
	URL    string        `yaml:"url"` // another base URL than the site's
}

// The types of destinations.
const (
	TypeLogs      = "logs"
	TypeDatadog   = "datadog"
	TypeDogStatsD = "dogstatsd"
	TypeStatsD    = "statsd"
	TypeDiscard   = "discard"
)

var destinationTypes = []string{TypeLogs, TypeDatadog, TypeDogStatsD, TypeStatsD, TypeDiscard}

// Outputs and formats of the logs destination.
const (
	OutputStdout = "stdout"
	OutputStderr = "stderr"
	FormatJSON   = "json"
	FormatText   = "text"
)

// What the queue and the requests of an endpoint may be bounded to.
const (
	mostConcurrent = 64
	leastQueue     = 8 << 20 // the largest payload, a few times
)

// Forms that series are sent in.
const (
	SeriesProtobuf = "protobuf"
	SeriesJSON     = "json"
)

// leastSpool holds the largest payload a few times.
const leastSpool = 16 << 20

const (
	defaultSite = "datadoghq.com"
	defaultKeep = 5
	mostKept    = 1000
)

// What a packet of a relay may be bounded to. Above it is no UDP datagram.
const (
	leastPacket = 256
	mostPacket  = 65_467
)

// DefaultConfig returns the defaults. There is no destination in it: Resolve
// chooses.
func DefaultConfig() Config {
	return Config{
		ShutdownTimeout: 10 * time.Second,
		Forwarders:      []DestinationConfig{},
		Spool:           SpoolConfig{Enabled: true, After: 15 * time.Second, MaxBytes: 1 << 30, MaxAge: oldestPoints, MinFree: 256 << 20},
	}
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
			if f.Keep == 0 {
				f.Keep = defaultKeep
			}
		case TypeStatsD:
			orElse(&f.TagStyle, TagsNone)
		case TypeDatadog:
			if f.APIKey == "" {
				f.APIKey = d.APIKey
			}
			if f.Site == "" { // a site of its own is not to be overruled by the environment's URL
				orElse(&f.URL, d.URL)
			}
			orElse(&f.Site, d.Site)
			orElse(&f.Site, defaultSite)
			orElse(&f.Compression, CompressZstd)
			if f.Concurrency == 0 {
				f.Concurrency = defaultConcurrency
			}
			if f.MaxQueue == 0 {
				f.MaxQueue = defaultMaxQueue
			}
			orElse(&f.Series, SeriesProtobuf)
			for j := range f.AdditionalEndpoints {
				orElse(&f.AdditionalEndpoints[j].Site, defaultSite)
			}
		}
	}
}

// MaxQueued returns how much memory payloads may take that wait, at all endpoints
// together. The configuration must have been resolved.
func (c *Config) MaxQueued() metric.Bytes {
	sum := metric.Bytes(0)
	for i := range c.Forwarders {
		switch f := &c.Forwarders[i]; f.Type {
		case TypeDatadog:
			sum += f.MaxQueue * metric.Bytes(1+len(f.AdditionalEndpoints))
		case TypeDogStatsD, TypeStatsD:
			sum += defaultMaxQueue
		}
	}
	return sum
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
	if c.Spool.Enabled && c.Spool.MaxBytes < leastSpool {
		fault("spool.max_bytes", "%v is too little for a payload; use %v or more, or spool.enabled: false", c.Spool.MaxBytes, metric.Bytes(leastSpool))
	}
	if c.Spool.Enabled && c.Spool.After < 0 {
		fault("spool.after", "%v is negative; use 0s for at once", c.Spool.After)
	}
	if c.Spool.Enabled && c.Spool.MaxAge <= 0 {
		fault("spool.max_age", "%v leaves nothing to keep; use 1h, as long as the intake takes points, or spool.enabled: false", c.Spool.MaxAge)
	}
	writers := map[string]int{} // by output
	for i := range c.Forwarders {
		f := &c.Forwarders[i]
		of := func(name, format string, args ...any) {
			fault(fmt.Sprintf("forwarders[%d].%s", i, name), format, args...)
		}
		f.validatePatterns(of)
		switch f.Type {
		case TypeLogs:
			f.validateLogs(of)
			if first, taken := writers[f.Output]; taken {
				of("output", "forwarders[%d] writes to %s already; write one of them to another file", first, f.Output)
			} else {
				writers[f.Output] = i
			}
		case TypeDatadog:
			f.validateDatadog(of)
		case TypeDogStatsD, TypeStatsD:
			f.validateRelay(of)
		case TypeDiscard:
		case "":
			of("type", "it is missing; use one of %s", strings.Join(destinationTypes, ", "))
		default:
			of("type", "there is no forwarder of type %q; use one of %s", f.Type, strings.Join(destinationTypes, ", "))
		}
	}
	return errors.Join(faults...)
}

func (f *DestinationConfig) validatePatterns(fault func(name, format string, args ...any)) {
	for name, patterns := range map[string][]string{"include": f.Include, "exclude": f.Exclude} {
		for i, text := range patterns {
			if text == "" {
				fault(fmt.Sprintf("%s[%d]", name, i), "it is empty and matches nothing; write a name, or * for all of them")
			}
		}
	}
}

func (f *DestinationConfig) validateLogs(fault func(name, format string, args ...any)) {
	if f.Format != FormatJSON && f.Format != FormatText {
		fault("format", "there is no format %q; use json or text", f.Format)
	}
	if f.MaxAge < 0 {
		fault("max_age", "%v is negative; use 0s for any age", f.MaxAge)
	}
	if f.Keep < 1 || f.Keep > mostKept {
		fault("keep", "%d is out of range; use 1 to %d", f.Keep, mostKept)
	}
	if f.Output == OutputStdout || f.Output == OutputStderr {
		for name, set := range map[string]bool{"max_bytes": f.MaxBytes != 0, "max_age": f.MaxAge != 0} {
			if set {
				fault(name, "%s cannot be rotated; remove it, or write to a file", f.Output)
			}
		}
	}
}

func (f *DestinationConfig) validateDatadog(fault func(name, format string, args ...any)) {
	first := EndpointConfig{APIKey: f.APIKey, Site: f.Site, URL: f.URL}
	first.validate("; set it here or in the environment as DD_API_KEY", fault)
	for i := range f.AdditionalEndpoints {
		f.AdditionalEndpoints[i].validate("; set it here", func(name, format string, args ...any) {
			fault(fmt.Sprintf("additional_endpoints[%d].%s", i, name), format, args...)
		})
	}
	if !slices.Contains(compressions, f.Compression) {
		fault("compression", "there is no compression %q; use one of %s", f.Compression, strings.Join(compressions, ", "))
	}
	if f.Concurrency < 1 || f.Concurrency > mostConcurrent {
		fault("concurrency", "%d is out of range; use 1 to %d", f.Concurrency, mostConcurrent)
	}
	if f.MaxQueue < leastQueue {
		fault("max_queue", "%v is too little for a few payloads; use %v or more", f.MaxQueue, metric.Bytes(leastQueue))
	}
	if f.Series != SeriesProtobuf && f.Series != SeriesJSON {
		fault("series", "there is no form %q; use protobuf or json", f.Series)
	}
	if f.Proxy != "" && !isProxyURL(f.Proxy.Reveal()) {
		// Not quoted: a password may be in it.
		fault("proxy", "it is not the URL of a proxy; write one such as http://proxy.example.org:3128")
	}
	for i, host := range f.NoProxy {
		if host == "" || strings.ContainsAny(host, ", ") {
			fault(fmt.Sprintf("no_proxy[%d]", i), "%q is not a host; write one such as intake.example.org, .example.org or 10.0.0.0/8, each in an item of its own", host)
		}
	}
	if f.CAFile != "" {
		if _, err := certificates(f.CAFile); err != nil {
			fault("ca_file", "%v", err)
		}
	}
}

func (c *EndpointConfig) validate(remedy string, fault func(name, format string, args ...any)) {
	if c.APIKey == "" {
		fault("api_key", "there is no API key%s", remedy)
	}
	if strings.ContainsFunc(c.APIKey.Reveal(), func(r rune) bool { return r <= ' ' || r > '~' }) {
		fault("api_key", "it has a blank, a line break or another odd character in it; copy it again")
	}
	if !isHostName(c.Site) {
		fault("site", "%q is not a site; use datadoghq.com, us3.datadoghq.com, datadoghq.eu or the like, and url for anything else", c.Site)
	}
	if c.URL != "" && !isBaseURL(c.URL) {
		// Not quoted: a password may be in it.
		fault("url", "it is not a base URL; write one such as https://intake.example.org, without ? and #")
	}
}

func isProxyURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Host != "" && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)
}

func (f *DestinationConfig) validateRelay(fault func(name, format string, args ...any)) {
	if f.Address == "" {
		fault("address", "it is missing; write where the server listens, such as %s", addressExamples[f.Type])
	} else if err := checkRelayAddress(f.Type, f.Address); err != nil {
		fault("address", "%v", err)
	}
	if f.MaxPacket != 0 && (f.MaxPacket < leastPacket || f.MaxPacket > mostPacket) {
		fault("max_packet", "%v is out of range; use %v to %v, or 0 for what suits the network", f.MaxPacket, metric.Bytes(leastPacket), metric.Bytes(mostPacket))
	}
	if f.Type == TypeStatsD && !slices.Contains(tagStyles, f.TagStyle) {
		fault("tag_style", "there is no style %q; use one of %s", f.TagStyle, strings.Join(tagStyles, ", "))
	}
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
	common := []string{"type", "include", "exclude"}
	switch kind {
	case TypeLogs:
		return append(common, "output", "format", "max_bytes", "max_age", "keep")
	case TypeDatadog:
		return append(common, "api_key", "site", "url", "additional_endpoints", "compression", "series", "proxy", "no_proxy", "ca_file", "concurrency", "max_queue")
	case TypeDogStatsD:
		return append(common, "address", "max_packet")
	case TypeStatsD:
		return append(common, "address", "max_packet", "tag_style")
	case TypeDiscard:
		return common
	}
	return nil
}

// Heeds reports whether a destination of the given type looks at a key.
func Heeds(kind, key string) bool {
	fields := fieldsOf(kind)
	return fields == nil || slices.Contains(fields, key)
}
