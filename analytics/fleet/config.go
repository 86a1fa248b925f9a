package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Config says where counts are shared, and how.
type Config struct {
	Addresses       []string      `yaml:"addresses"` // host:port or unix:///path; empty: counts are not shared
	Cluster         bool          `yaml:"cluster"`
	Username        string        `yaml:"username"`
	Password        metric.Secret `yaml:"password"`
	PasswordFile    string        `yaml:"password_file"` // read for each connection
	Database        int           `yaml:"database"`
	TLS             bool          `yaml:"tls"`
	CAFile          string        `yaml:"ca_file"`
	CertFile        string        `yaml:"cert_file"`
	KeyFile         string        `yaml:"key_file"`
	KeyPrefix       string        `yaml:"key_prefix"`
	Element         string        `yaml:"element"`          // hmac or raw
	FlushInterval   time.Duration `yaml:"flush_interval"`   // how often changes are sent
	RefreshInterval time.Duration `yaml:"refresh_interval"` // how often is read what others sent
	RepairInterval  time.Duration `yaml:"repair_interval"`  // how often is looked whether all is there
	Lease           time.Duration `yaml:"lease"`            // for how long one host leads
	Timeout         time.Duration `yaml:"timeout"`          // of connecting, and of an answer
	MaxHosts        int           `yaml:"max_hosts"`        // whose totals are added up
}

// What an element is made of.
const (
	HMAC = "hmac"
	Raw  = "raw"
)

// DefaultConfig returns the defaults.
func DefaultConfig() Config {
	return Config{
		Addresses:       []string{},
		KeyPrefix:       "weir:",
		Element:         HMAC,
		FlushInterval:   5 * time.Second,
		RefreshInterval: time.Minute,
		RepairInterval:  5 * time.Minute,
		Lease:           15 * time.Second,
		Timeout:         3 * time.Second,
		MaxHosts:        10_000,
	}
}

// Enabled reports whether counts are shared.
func (c *Config) Enabled() bool { return len(c.Addresses) > 0 }

// Validate returns all faults of the configuration, each naming its key.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("analytics.redis.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	for i, address := range c.Addresses {
		if _, _, err := endpoint(address); err != nil {
			fault(fmt.Sprintf("addresses[%d]", i), "%v", err)
		} else if c.Cluster && strings.HasPrefix(address, unixScheme) {
			fault(fmt.Sprintf("addresses[%d]", i), "a cluster has no Unix sockets; use host:port")
		}
	}
	if len(c.Addresses) > 1 && !c.Cluster {
		fault("addresses", "there are %d; several are those of a cluster, which takes cluster: true", len(c.Addresses))
	}
	if c.Database < 0 || c.Database > 1_000_000 {
		fault("database", "%d is no number of a database; use 0 or more", c.Database)
	}
	if c.Cluster && c.Database != 0 {
		fault("database", "a cluster has database 0 only")
	}
	if c.Password != "" && c.PasswordFile != "" {
		fault("password", "there is a password_file as well; remove one")
	}
	if c.Username != "" && c.Password == "" && c.PasswordFile == "" {
		fault("username", "there is no password to it; set password_file, or WEIR_ANALYTICS_REDIS_PASSWORD")
	}
	if !c.TLS && (c.CAFile != "" || c.CertFile != "" || c.KeyFile != "") {
		fault("tls", "there are files for it, and it is off; set it to true")
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		fault("cert_file", "a certificate and its key belong together; set both cert_file and key_file")
	}
	if strings.ContainsAny(c.KeyPrefix, "{}\r\n ") || len(c.KeyPrefix) > 100 {
		fault("key_prefix", "%q begins no key; use up to 100 letters, digits and \":\"", c.KeyPrefix)
	}
	if c.Element != HMAC && c.Element != Raw {
		fault("element", "there is no %q; use %s or %s", c.Element, HMAC, Raw)
	}
	for _, d := range []struct {
		key            string
		d, least, most time.Duration
	}{
		{"flush_interval", c.FlushInterval, 100 * time.Millisecond, 10 * time.Minute},
		{"refresh_interval", c.RefreshInterval, c.FlushInterval, time.Hour},
		{"repair_interval", c.RepairInterval, c.RefreshInterval, 24 * time.Hour},
		{"lease", c.Lease, 2 * c.FlushInterval, time.Hour},
		{"timeout", c.Timeout, 100 * time.Millisecond, 30 * time.Second},
	} {
		if d.d < d.least || d.d > d.most {
			fault(d.key, "%v is out of range; use %v to %v", d.d, d.least, d.most)
		}
	}
	if c.MaxHosts < 1 || c.MaxHosts > 1_000_000 {
		fault("max_hosts", "%d is out of range; use 1 to 1000000", c.MaxHosts)
	}
	return errors.Join(faults...)
}

const unixScheme = "unix://"

// endpoint takes an address apart.
func endpoint(address string) (network, at string, err error) {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		if path == "" {
			return "", "", errors.New("there is no path; write one such as unix:///run/redis/redis.sock")
		}
		return "unix", path, nil
	}
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		if strings.Contains(address, "@") { // a URL with a password in it: it must not get into a log
			return "", "", errors.New("it is no host:port; a password goes into password_file")
		}
		return "", "", fmt.Errorf("%q is no address; write host:port, or unix:///path of a socket", address)
	}
	if strings.ContainsAny(address, "@/") {
		return "", "", errors.New("it is no host:port; a password goes into password_file, and TLS is tls: true")
	}
	return "tcp", address, nil
}

// tlsConfig returns how TLS is spoken, nil if it is not.
func (c *Config) tlsConfig() (*tls.Config, error) {
	if !c.TLS {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		text, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("analytics.redis.ca_file: %w", err)
		}
		if t.RootCAs, err = x509.SystemCertPool(); err != nil {
			t.RootCAs = x509.NewCertPool()
		}
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("analytics.redis.ca_file: %s holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("analytics.redis.cert_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// maxPasswordFile bounds what is read of a password's file.
const maxPasswordFile = 64 << 10

// credentials returns name and password. A file is read each time, so that a password
// may change while the agent runs.
func (c *Config) credentials() (username, password string, err error) {
	if c.PasswordFile == "" {
		return c.Username, c.Password.Reveal(), nil
	}
	file, err := os.Open(c.PasswordFile)
	if err != nil {
		return "", "", fmt.Errorf("analytics.redis.password_file: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxPasswordFile))
	if err != nil {
		return "", "", fmt.Errorf("analytics.redis.password_file: %w", err)
	}
	password = strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", "", fmt.Errorf("analytics.redis.password_file: %s is empty", c.PasswordFile)
	}
	return c.Username, password, nil
}
