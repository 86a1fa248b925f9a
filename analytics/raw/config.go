package raw

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Config says where raw events go.
type Config struct {
	Format     string        `yaml:"format"`       // ndjson, parquet or none
	Dir        string        `yaml:"dir"`          // "": events in the state folder; filled in by the wiring
	MaxFile    metric.Bytes  `yaml:"max_file"`     // compressed; a file of this size is finished
	MaxFileAge time.Duration `yaml:"max_file_age"` // so is one of this age
	MaxBytes   metric.Bytes  `yaml:"max_bytes"`    // of all files; the oldest are removed
	MaxAge     time.Duration `yaml:"max_age"`      // of a file
	MinFree    metric.Bytes  `yaml:"min_free"`     // of the file system, for others: below it rows are dropped
	Queue      int           `yaml:"queue"`        // rows of a reader that wait
	Kafka      KafkaConfig   `yaml:"kafka"`
}

// KafkaConfig says where rows go besides files.
type KafkaConfig struct {
	Brokers   []string      `yaml:"brokers"` // host:port; none: rows do not go to Kafka
	Topic     string        `yaml:"topic"`
	Key       string        `yaml:"key"` // identity or event_id
	MaxQueued metric.Bytes  `yaml:"max_queued"`
	Timeout   time.Duration `yaml:"timeout"` // until a row that cannot be delivered is dropped
	TLS       bool          `yaml:"tls"`
	CAFile    string        `yaml:"ca_file"`
	SASL      string        `yaml:"sasl"` // "", plain, scram-sha-256 or scram-sha-512
	User      string        `yaml:"user"`
	Password  metric.Secret `yaml:"password"`
}

// The formats of files.
const (
	FormatNDJSON  = "ndjson"
	FormatParquet = "parquet"
	FormatNone    = "none"
)

// What a record of Kafka has for a key.
const (
	KeyIdentity = "identity"
	KeyEventID  = "event_id"
)

var (
	formats    = []string{FormatNDJSON, FormatParquet, FormatNone}
	keyKinds   = []string{KeyIdentity, KeyEventID}
	mechanisms = []string{"", "plain", "scram-sha-256", "scram-sha-512"}
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Format: FormatNDJSON, MaxFile: 64 << 20, MaxFileAge: 5 * time.Minute,
		MaxBytes: 1 << 30, MaxAge: 30 * 24 * time.Hour, MinFree: 256 << 20, Queue: 1 << 16,
		Kafka: KafkaConfig{Brokers: []string{}, Topic: "weir.events", Key: KeyIdentity, MaxQueued: 32 << 20, Timeout: time.Minute},
	}
}

// Enabled reports whether rows go anywhere.
func (c *Config) Enabled() bool { return c.Format != FormatNone || len(c.Kafka.Brokers) > 0 }

// Validate returns all faults of the configuration, each naming its key below prefix.
func (c *Config) Validate(prefix string) error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s%s: %s", prefix, key, fmt.Sprintf(format, args...)))
	}
	between := func(key string, v, least, most any, outside bool) {
		if outside {
			fault(key, "%v is out of range; use %v to %v", v, least, most)
		}
	}
	if !slices.Contains(formats, c.Format) {
		fault("format", "there is no format %q; use %s", c.Format, strings.Join(formats, ", "))
	}
	const leastFile, mostFile = metric.Bytes(64 << 10), metric.Bytes(1 << 30)
	between("max_file", c.MaxFile, leastFile, mostFile, c.MaxFile < leastFile || c.MaxFile > mostFile)
	between("max_file_age", c.MaxFileAge, time.Second, 24*time.Hour, c.MaxFileAge < time.Second || c.MaxFileAge > 24*time.Hour)
	if c.MaxBytes < 2*c.MaxFile {
		fault("max_bytes", "%v is too little; use twice max_file or more", c.MaxBytes)
	}
	between("max_age", c.MaxAge, time.Hour, 10_000*time.Hour, c.MaxAge < time.Hour || c.MaxAge > 10_000*time.Hour)
	between("queue", c.Queue, 1024, 1<<22, c.Queue < 1024 || c.Queue > 1<<22)
	c.Kafka.validate(func(key, format string, args ...any) { fault("kafka."+key, format, args...) })
	return errors.Join(faults...)
}

func (c *KafkaConfig) validate(fault func(key, format string, args ...any)) {
	for i, broker := range c.Brokers {
		if _, port, err := net.SplitHostPort(broker); err != nil || port == "" {
			fault(fmt.Sprintf("brokers[%d]", i), "%q is no address; write host:port", broker)
		}
	}
	if len(c.Brokers) > 0 && c.Topic == "" {
		fault("topic", "there is none; name one")
	}
	if !slices.Contains(keyKinds, c.Key) {
		fault("key", "there is no key %q; use %s", c.Key, strings.Join(keyKinds, " or "))
	}
	if c.MaxQueued < 1<<20 || c.MaxQueued > 1<<30 {
		fault("max_queued", "%v is out of range; use 1MiB to 1GiB", c.MaxQueued)
	}
	if c.Timeout < time.Second || c.Timeout > time.Hour {
		fault("timeout", "%v is out of range; use 1s to 1h", c.Timeout)
	}
	if !slices.Contains(mechanisms, c.SASL) {
		fault("sasl", "there is no mechanism %q; use %s, or none", c.SASL, strings.Join(mechanisms[1:], ", "))
	} else if c.SASL != "" && (c.User == "" || c.Password == "") {
		fault("sasl", "it needs user and password; set both")
	}
	if c.CAFile != "" {
		if _, err := os.Stat(c.CAFile); err != nil {
			fault("ca_file", "%v", err)
		}
	}
}
