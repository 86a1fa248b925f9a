package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/weir-agent/weir/internal/testkit"
)

// datadogGoClients are Datadog's client for Go by every network it speaks, with
// every way to aggregate before it sends.
func datadogGoClients(to endpoints) map[string]func(t *testing.T) expected {
	clients := map[string]func(t *testing.T) expected{}
	for network, address := range map[string]string{
		"udp":           to["udp"],
		"unix":          statsd.UnixAddressPrefix + to["unix_datagram"], // it finds out which kind it is
		"unix_datagram": statsd.UnixAddressDatagramPrefix + to["unix_datagram"],
		"unix_stream":   statsd.UnixAddressStreamPrefix + to["unix_stream"],
	} {
		for mode, options := range map[string][]statsd.Option{
			"without_aggregation":       {statsd.WithoutClientSideAggregation()},
			"with_aggregation":          {statsd.WithClientSideAggregation(), statsd.WithAggregationInterval(50 * time.Millisecond)},
			"with_extended_aggregation": {statsd.WithExtendedClientSideAggregation(), statsd.WithAggregationInterval(50 * time.Millisecond)},
		} {
			prefix := "go." + network + "." + mode
			clients[network+" "+mode] = func(t *testing.T) expected { return datadogGo(t, address, prefix, options) }
		}
	}
	clients["udp sampled"] = func(t *testing.T) expected { return datadogGoSampled(t, to["udp"]) }
	return clients
}

// datadogGo sends every kind, event and check, with all they can have.
func datadogGo(t *testing.T, address, prefix string, options []statsd.Option) expected {
	// A Unix datagram socket has its writers wait, and the client drops what waits
	// for too long.
	options = append(slices.Clone(options), statsd.WithWriteTimeout(10*time.Second),
		statsd.WithTags([]string{"client:go"}), statsd.WithNamespace(prefix+"."))
	client, err := statsd.New(address, options...)
	if err != nil {
		t.Fatal(err)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tags := []string{"env:test", "kind:x"}
	var values []float64
	const n = 500
	for i := range n {
		v := 0.1 + float64(i*i%977)
		values = append(values, v)
		must(client.Incr("hits", tags, 1))
		must(client.Count("bytes", int64(i), tags, 1))
		must(client.Decr("balance", tags, 1))
		must(client.Gauge("level", float64(i)/3, tags, 1))
		must(client.Set("users", fmt.Sprintf("user-%d", i%50), tags, 1))
		must(client.Histogram("size", v, tags, 1))
		must(client.Distribution("latency", v, tags, 1))
		must(client.TimeInMilliseconds("took", v, tags, 1))
		must(client.Timing("waited", time.Duration(i)*time.Microsecond, nil, 1))
	}
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	must(client.GaugeWithTimestamp("past.level", 7.5, tags, 1, at(1700000000)))
	must(client.GaugeWithTimestamp("past.level", 8.5, tags, 1, at(1700000001)))
	must(client.CountWithTimestamp("past.hits", 3, nil, 1, at(1700000002)))
	must(client.Event(&statsd.Event{
		Title: prefix + "\nin two lines", Text: "one\ntwo | three: 4\n", Timestamp: at(1700000003), Hostname: "other-host",
		AggregationKey: "deploys", Priority: statsd.Low, SourceTypeName: "ci", AlertType: statsd.Error, Tags: []string{"env:test"},
	}))
	must(client.SimpleEvent(prefix+" simple", "text"))
	must(client.ServiceCheck(&statsd.ServiceCheck{
		Name: prefix + ".up", Status: statsd.Critical, Timestamp: at(1700000004), Hostname: "other-host",
		Message: "one\nm: two", Tags: []string{"env:test"},
	}))
	must(client.SimpleServiceCheck(prefix+".simple", statsd.Ok))
	must(client.Close())

	suffix := " client:go env:test kind:x"
	waited := make([]float64, n)
	for i := range waited {
		waited[i] = float64(i) / 1000
	}
	return expected{
		counts: map[string]float64{
			prefix + ".hits" + suffix: n, prefix + ".bytes" + suffix: n * (n - 1) / 2, prefix + ".balance" + suffix: -n,
		},
		gauges: map[string]float64{prefix + ".level" + suffix: float64(n-1) / 3},
		sets:   map[string]float64{prefix + ".users" + suffix: 50},
		timers: map[string][]float64{
			prefix + ".size" + suffix: values, prefix + ".took" + suffix: values, prefix + ".waited client:go": waited,
		},
		dists: map[string][]float64{prefix + ".latency" + suffix: slices.Clone(values)},
		points: []testkit.Point{
			{Metric: prefix + ".past.level", Tags: strings.Fields(suffix), Type: "gauge", Time: 1700000000, Value: 7.5},
			{Metric: prefix + ".past.level", Tags: strings.Fields(suffix), Type: "gauge", Time: 1700000001, Value: 8.5},
			{Metric: prefix + ".past.hits", Tags: []string{"client:go"}, Type: "rate", Time: 1700000002, Value: 3},
		},
		events: []testkit.Event{
			{
				Title: prefix + "\nin two lines", Text: "one\ntwo | three: 4\n", Time: 1700000003, Host: "other-host", AggregationKey: "deploys",
				Priority: "low", SourceType: "ci", AlertType: "error", Tags: []string{"client:go", "env:test"},
			},
			{Title: prefix + " simple", Text: "text", Priority: "normal", AlertType: "info", Tags: []string{"client:go"}},
		},
		checks: []testkit.Check{
			{ // the message goes on as the client escaped it
				Name: prefix + ".up", Status: 2, Time: 1700000004, Host: "other-host", Message: `one\nm\: two`,
				Tags: []string{"client:go", "env:test"},
			},
			{Name: prefix + ".simple", Tags: []string{"client:go"}},
		},
	}
}

// datadogGoSampled sends a quarter of its samples, and says so.
func datadogGoSampled(t *testing.T, address string) expected {
	client, err := statsd.New(address, statsd.WithoutClientSideAggregation())
	if err != nil {
		t.Fatal(err)
	}
	const n = 40_000
	for i := range n {
		if err := client.Incr("go.sampled", nil, 0.25); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			time.Sleep(time.Millisecond) // the client drops what its queue has no room for
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	return expected{sampled: map[string]float64{"go.sampled": n}}
}
