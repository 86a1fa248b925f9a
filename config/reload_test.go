package config

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/forwarder"
)

func TestAdopt(t *testing.T) {
	running := Default()
	running.Aggregator.Hostname = "web-1"
	running.Analytics.Definitions = "a"
	for name, test := range map[string]struct {
		change           func(*Config)
		changed, restart []string
	}{
		"nothing":         {func(*Config) {}, nil, nil},
		"a list":          {func(c *Config) { c.Aggregator.Tags = []string{"a"} }, []string{"tags"}, nil},
		"an equal list":   {func(c *Config) { c.Aggregator.Tags = []string{} }, nil, nil},
		"below a section": {func(c *Config) { c.Aggregator.Expiry.ZeroFill++ }, []string{"expiry.zero_fill"}, nil},
		"a whole section": {func(c *Config) { c.Aggregator.Histogram = aggregator.HistogramConfig{} }, []string{"histogram.aggregates", "histogram.percentiles"}, nil},
		"a forwarder":     {func(c *Config) { c.Forwarder.Forwarders = []forwarder.DestinationConfig{{Type: "discard"}} }, []string{"forwarders"}, nil},
		"where to listen": {func(c *Config) { c.Listen.UDP, c.Listen.Readers = "", 7 }, nil, []string{"listen.udp", "listen.readers"}},
		"the log":         {func(c *Config) { c.Log = LogConfig{Level: "warn", Format: "json"} }, []string{"log.level"}, []string{"log.format"}},
		"a dialect":       {func(c *Config) { c.Parser.Dialect = "statsd" }, nil, []string{"dialect"}},
		"where state is":  {func(c *Config) { c.Forwarder.StateDir = "/var/lib/weir" }, nil, []string{"state_dir"}},
		"a Redis": {func(c *Config) {
			c.Analytics.Redis.Addresses, c.Analytics.Redis.Lease = []string{"127.0.0.1:6379"}, time.Minute
			c.Analytics.IncludeToday = true
		}, []string{"analytics.include_today"}, []string{"analytics.redis.addresses", "analytics.redis.lease"}},
		"origins": {func(c *Config) {
			c.Aggregator.Origin = aggregator.OriginConfig{Detect: true, AsTags: []string{"pod_uid"}}
		}, []string{"origin.as_tags"}, []string{"origin.detect"}},
		"of events": {func(c *Config) {
			c.Analytics.Definitions, c.Analytics.Mode, c.Analytics.KeyFile = "b", "strict", "key"
			c.Analytics.DeadLetters.MaxRate++
		}, []string{"analytics.definitions", "analytics.mode"}, []string{"analytics.key_file", "analytics.dead_letters.max_rate"}},
		"no events any more": {func(c *Config) { c.Analytics.Definitions = "" }, nil, []string{"analytics.definitions"}},
		"set by the wiring":  {func(c *Config) { c.Listen.OriginDetection = true }, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			loaded := Default()
			loaded.Aggregator.Hostname, loaded.Analytics.Definitions = "web-1", "a"
			test.change(&loaded)
			next, changed, restart := Adopt(running, loaded)
			if diff := cmp.Diff(test.changed, changed); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.restart, restart); diff != "" {
				t.Errorf("needs a restart (-want +got):\n%s", diff)
			}
			// What it returns differs from what runs in what has changed and nothing else.
			if _, again, still := Adopt(running, next); !slices.Equal(again, changed) || still != nil {
				t.Errorf("of what is adopted %v changes and %v needs a restart", again, still)
			}
		})
	}
}

// A key that needs a restart is a key.
func TestKeysThatNeedARestart(t *testing.T) {
	for _, of := range needsRestart {
		found := false
		rootSchema.leaf("", func(path string, _ *schema) {
			found = found || path == of || len(path) > len(of) && path[:len(of)+1] == of+"."
		})
		if !found {
			t.Errorf("there is no key %s", of)
		}
	}
}

func TestStateOfTheConfiguration(t *testing.T) {
	r := NewReloads()
	r.Succeeded(Unchanged, []string{"listen.udp"})
	first := r.State()
	r.Failed(errors.New("one"))
	since := r.State().Since
	r.Failed(errors.New("two"))
	s := r.State()
	if !s.Stale || s.Fault != "two" || s.Since != since || s.Loaded != first.Loaded || !slices.Equal(s.Restart, []string{"listen.udp"}) {
		t.Errorf("%+v", s)
	}
	r.Succeeded(Applied, nil)
	if s := r.State(); s.Stale || s.Fault != "" || !s.Since.IsZero() || s.Restart != nil || s.Loaded.Before(first.Loaded) {
		t.Errorf("%+v", s)
	}
	got := map[string]float64{}
	for _, reading := range r.Readings(nil) {
		key := reading.Name
		for _, tag := range reading.Tags {
			key += " " + tag
		}
		got[key] = reading.Value
	}
	want := map[string]float64{
		"config.reloads result:applied": 1, "config.reloads result:unchanged": 1, "config.reloads result:rejected": 2,
		"config.stale": 0, "config.restart_needed": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
