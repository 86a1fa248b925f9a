package cardinality_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/cardinality"
)

func TestValidateReportsAllFaults(t *testing.T) {
	cfg := cardinality.DefaultConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	cfg = cardinality.Config{Overflow: "explode", Window: time.Second, KeepTop: -1, Gauges: "x", Protect: []string{"a:b"}}
	cfg.Cost.Per100MetricsMonth = -1
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, key := range []string{
		"max_contexts:", "max_contexts_per_metric:", "overflow:", "window:", "keep_top:", "gauges:", "protect[0]:", "cost.per_100_metrics_month:",
	} {
		if !strings.Contains(err.Error(), "cardinality."+key) {
			t.Errorf("no fault for %s in:\n%v", key, err)
		}
	}
}
