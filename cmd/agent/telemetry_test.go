package main

import (
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/metric"
)

// docs/TELEMETRY.md lists what the agent measures: every metric with its kind and
// its tags, and every reason.
func TestTelemetryIsDocumented(t *testing.T) {
	cfg := config.Default()
	cfg.Listen.UDP, cfg.Listen.TCP = "127.0.0.1:0", "127.0.0.1:0"
	folder := t.TempDir()
	cfg.Listen.UnixDatagram, cfg.Listen.UnixStream = folder+"/d", folder+"/s"
	cfg.Forwarder.StateDir = folder
	cfg.Analytics.Definitions = "../../analytics/plan/testdata/sound"
	cfg.Analytics.Keys, cfg.Analytics.Redis.Addresses = "000102030405060708090a0b0c0d0e0f", []string{"127.0.0.1:1"}
	cfg.Forwarder.Forwarders = []forwarder.DestinationConfig{{Type: "logs", Output: "stderr"}, {Type: "datadog", APIKey: "k"}, {Type: "dogstatsd", Address: "127.0.0.1:1"}, {Type: "discard"}}
	cfg.Forwarder.Resolve(forwarder.Defaults{})
	a, err := newAgent(cfg, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer a.listener.Close()

	type row struct {
		Kind string
		Tags []string
	}
	want, reasons := map[string]row{}, map[string]bool{}
	for _, r := range a.readings(nil) {
		kind := "total"
		if r.Level {
			kind = "level"
		}
		var tags []string
		for _, tag := range r.Tags {
			key, value, _ := strings.Cut(tag, ":")
			tags = append(tags, key)
			if key == "reason" {
				reasons[value] = true
			}
		}
		want["weir."+r.Name] = row{kind, tags}
	}
	for why := metric.Accepted + 1; why < metric.Reasons; why++ {
		if !reasons[why.String()] {
			t.Errorf("no metric counts the reason %s", why)
		}
	}

	text, err := os.ReadFile("../../docs/TELEMETRY.md")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]row{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(weir\\.[a-z_.]+)` \\| (\\w+) \\|([^|]*)\\|").FindAllStringSubmatch(string(text), -1) {
		got[m[1]] = row{m[2], regexp.MustCompile("[a-z_]+").FindAllString(m[3], -1)}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/TELEMETRY.md differs (-code +document):\n%s", diff)
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		if !strings.Contains(string(text), "`"+reason+"`") {
			t.Errorf("docs/TELEMETRY.md does not explain the reason %s", reason)
		}
	}
}
