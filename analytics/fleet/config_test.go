package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

func TestValidate(t *testing.T) {
	tests := map[string]struct {
		change func(*Config)
		want   string // begins the fault; "": there is none
	}{
		"defaults":               {func(*Config) {}, ""},
		"an address":             {func(c *Config) { c.Addresses = []string{"redis:6379"} }, ""},
		"a socket":               {func(c *Config) { c.Addresses = []string{"unix:///run/redis.sock"} }, ""},
		"a cluster":              {func(c *Config) { c.Addresses, c.Cluster = []string{"a:1", "b:2"}, true }, ""},
		"no port":                {func(c *Config) { c.Addresses = []string{"redis"} }, "analytics.redis.addresses[0]: \"redis\" is no address; write host:port"},
		"a URL":                  {func(c *Config) { c.Addresses = []string{"redis://user:sesame@redis:6379"} }, "analytics.redis.addresses[0]: it is no host:port; a password goes into password_file"},
		"a name":                 {func(c *Config) { c.Addresses = []string{"user:sesame@redis:6379"} }, "analytics.redis.addresses[0]: it is no host:port; a password goes into password_file"},
		"a cluster on a socket":  {func(c *Config) { c.Addresses, c.Cluster = []string{"unix:///s"}, true }, "analytics.redis.addresses[0]: a cluster has no Unix sockets"},
		"several and no cluster": {func(c *Config) { c.Addresses = []string{"a:1", "b:2"} }, "analytics.redis.addresses: there are 2; several are those of a cluster"},
		"a cluster's database":   {func(c *Config) { c.Cluster, c.Database = true, 1 }, "analytics.redis.database: a cluster has database 0 only"},
		"database":               {func(c *Config) { c.Database = -1 }, "analytics.redis.database: -1 is no number of a database"},
		"two passwords":          {func(c *Config) { c.Password, c.PasswordFile = metric.Secret("sesame"), "f" }, "analytics.redis.password: there is a password_file as well"},
		"a name only":            {func(c *Config) { c.Username = "weir" }, "analytics.redis.username: there is no password to it"},
		"TLS is off":             {func(c *Config) { c.CAFile = "f" }, "analytics.redis.tls: there are files for it, and it is off"},
		"half a certificate":     {func(c *Config) { c.TLS, c.CertFile = true, "f" }, "analytics.redis.cert_file: a certificate and its key belong together"},
		"prefix":                 {func(c *Config) { c.KeyPrefix = "{a}" }, "analytics.redis.key_prefix: \"{a}\" begins no key"},
		"element":                {func(c *Config) { c.Element = "plain" }, "analytics.redis.element: there is no \"plain\"; use hmac or raw"},
		"flush":                  {func(c *Config) { c.FlushInterval = time.Millisecond }, "analytics.redis.flush_interval: 1ms is out of range; use 100ms to 10m0s"},
		"refresh":                {func(c *Config) { c.RefreshInterval = time.Second }, "analytics.redis.refresh_interval: 1s is out of range; use 5s to 1h0m0s"},
		"repair":                 {func(c *Config) { c.RepairInterval = time.Second }, "analytics.redis.repair_interval: 1s is out of range; use 1m0s to 24h0m0s"},
		"lease":                  {func(c *Config) { c.Lease = time.Second }, "analytics.redis.lease: 1s is out of range; use 10s to 1h0m0s"},
		"timeout":                {func(c *Config) { c.Timeout = time.Hour }, "analytics.redis.timeout: 1h0m0s is out of range; use 100ms to 30s"},
		"hosts":                  {func(c *Config) { c.MaxHosts = 0 }, "analytics.redis.max_hosts: 0 is out of range; use 1 to 1000000"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := DefaultConfig()
			test.change(&c)
			got := ""
			if err := c.Validate(); err != nil {
				got = err.Error()
			}
			if (test.want == "") != (got == "") || !strings.HasPrefix(got, test.want) || strings.Contains(got, "sesame") || strings.Contains(got, "\n") {
				t.Errorf("the fault is %q, want %q", got, test.want)
			}
		})
	}
}
