package aggregator_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/aggregator"
)

func TestDefaultConfigIsValid(t *testing.T) {
	cfg := aggregator.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateReportsAllFaults(t *testing.T) {
	cfg := aggregator.DefaultConfig()
	cfg.FlushInterval = 1500 * time.Millisecond
	cfg.Tags = []string{"fine", "two,tags", "host:x", ""}
	cfg.Namespace = "a|b"
	cfg.Histogram.Aggregates = []string{"max", "mean"}
	cfg.Histogram.Percentiles = []float64{95}
	cfg.Expiry.ZeroFill = -1
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, key := range []string{
		"flush_interval:", "tags[1]:", "tags[2]:", "tags[3]:", "namespace:", "histogram.aggregates[1]:",
		"histogram.percentiles[0]:", "expiry.zero_fill:",
	} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("no fault for %s in:\n%v", key, err)
		}
	}
}
