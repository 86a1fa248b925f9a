package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/forwarder"
)

// What may be configured to be large counts, each as often as it is there.
func TestNeeds(t *testing.T) {
	cfg := config.Default()
	cfg.Cardinality.MaxContexts = 1000
	cfg.Forwarder.Forwarders = []forwarder.DestinationConfig{
		{Type: "logs"},
		{Type: "datadog", MaxQueue: 10 << 20, AdditionalEndpoints: make([]forwarder.EndpointConfig, 2)},
		{Type: "dogstatsd"},
		{Type: "statsd"},
	}
	want := []need{{"program", 32 << 20}, {"contexts", 300_000}, {"guards", 48 << 20}, {"queues", (30 + 64 + 64) << 20}, {"sockets", 6 << 20}}
	if diff := cmp.Diff(want, needs(&cfg, 4, 6<<20), cmp.AllowUnexported(need{})); diff != "" {
		t.Errorf("without analytics (-want +got):\n%s", diff)
	}
	cfg.Analytics.Definitions = "somewhere"
	cfg.Analytics.MaxSketches, cfg.Analytics.Raw.Queue = 100, 1024
	want = append(want, need{"analytics", 100*3*16<<10 + 4*1024*24})
	if diff := cmp.Diff(want, needs(&cfg, 4, 6<<20), cmp.AllowUnexported(need{})); diff != "" {
		t.Errorf("with analytics (-want +got):\n%s", diff)
	}
	cfg.Analytics.Raw.Kafka.Brokers, cfg.Analytics.Raw.Kafka.MaxQueued = []string{"k:9092"}, 1<<20
	want[5].bytes += 1 << 20
	if diff := cmp.Diff(want, needs(&cfg, 4, 6<<20), cmp.AllowUnexported(need{})); diff != "" {
		t.Errorf("with Kafka (-want +got):\n%s", diff)
	}
}

// The collector's limit is looked at every minute, and told when it is another one.
func TestMemoryIsToldOnce(t *testing.T) {
	t.Setenv("GOMEMLIMIT", "off") // the limit of this process stays as it is
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	var m memory
	m.look(logger)
	if log.Len() == 0 {
		t.Error("nothing is told at the start")
	}
	log.Reset()
	m.look(logger)
	m.warnIfExhausted(0, logger)
	if log.Len() > 0 {
		t.Errorf("told again: %s", log.String())
	}
	m.container++
	m.look(logger)
	if log.Len() == 0 {
		t.Error("another limit is not told")
	}
}

// When Go holds the collector back, the log says so, once for each time.
func TestMemoryThatIsUsedUpIsTold(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	m := memory{exhausted: lastHeldBack(), soft: 100 << 20}
	for collection, want := range []int{0, 1, 1, 2} {
		m.warnIfExhausted(m.exhausted+uint64(collection%2), logger)
		if got := strings.Count(log.String(), "memory is used up"); got != want {
			t.Fatalf("told %d times, want %d:\n%s", got, want, log.String())
		}
	}
	if !strings.Contains(log.String(), "soft_limit=100MiB") {
		t.Errorf("the limit is not told:\n%s", log.String())
	}
}
