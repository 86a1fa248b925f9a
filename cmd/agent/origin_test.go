package main

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/weir-agent/weir/internal/testkit"
)

const (
	testContainer = "c0ffee5ca1ab1e"
	containerTag  = "container_id:" + testContainer
)

// origins are what clients say of where they are, and which of it an agent that is
// asked for the container's id and name and the pod's uid makes tags of.
var origins = []struct {
	name     string
	settings []string
	tags     []string
	high     []string // of the metric that asks for high cardinality itself; nil: the same
}{
	{name: "container", tags: []string{containerTag}},
	{
		name:     "entity",
		settings: []string{"DD_ENTITY_ID=pod-1", "DD_EXTERNAL_ENV=it-false,cn-web"},
		tags:     []string{containerTag, "container_name:web", "pod_uid:pod-1"},
	},
	{
		name:     "external",
		settings: []string{"DD_EXTERNAL_ENV=it-false,cn-web,pu-pod-2", "DD_CARDINALITY=low"},
		tags:     []string{containerTag, "container_name:web", "pod_uid:pod-2"},
	},
	{
		name:     "none",
		settings: []string{"DD_ENTITY_ID=pod-1", "DD_EXTERNAL_ENV=it-false,cn-web", "DD_CARDINALITY=none"},
		high:     []string{containerTag, "container_name:web", "pod_uid:pod-1"},
	},
	{name: "no_entity", settings: []string{"DD_ENTITY_ID=none", "DD_EXTERNAL_ENV=it-false,cn-web"}},
}

// Where a client is becomes tags if the agent is asked for them and the client does
// not object, and never anything else.
func TestOriginOfClients(t *testing.T) {
	for _, asked := range []string{"container_id pod_uid container_name", "pod_uid", ""} {
		t.Run("as_tags "+asked, func(t *testing.T) {
			intake := testkit.NewIntake(t)
			settings := append(toIntake(intake), "WEIR_FLUSH_INTERVAL=10m", "WEIR_EXPIRY_CONTEXT=1h")
			if asked != "" {
				settings = append(settings, "WEIR_ORIGIN_AS_TAGS="+asked)
			}
			p := start(t, build(t), settings...)
			notAsked := func(tag string) bool {
				key, _, _ := strings.Cut(tag, ":")
				return !slices.Contains(strings.Fields(asked), key)
			}
			all := map[string]expected{}
			for _, o := range origins {
				if !strings.Contains(asked, " ") && o.name != "entity" {
					continue // this one says everything
				}
				tags, high := o.tags, o.high
				if high == nil {
					high = tags
				}
				tags, high = without(tags, notAsked), without(high, notAsked)
				t.Run(o.name+" datadog-go", func(t *testing.T) {
					cmd := exec.Command(os.Args[0])
					cmd.Env = environ(append(o.settings, originClientVariable+"="+p.address+" go."+o.name)...)
					if out, err := cmd.CombinedOutput(); err != nil {
						t.Fatalf("%v\n%s", err, out)
					}
					all[o.name+" datadog-go"] = originExpected("go."+o.name, tags, high)
				})
				t.Run(o.name+" hot-shots", func(t *testing.T) {
					runScript(t, hotShots(t, "udp"), "hotshots_origin.js", o.settings, p.address, "node."+o.name, testContainer)
					all[o.name+" hot-shots"] = hotShotsOriginExpected("node."+o.name, tags)
				})
			}
			if code := p.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			for name, want := range all {
				t.Run("arrived/"+name, func(t *testing.T) { want.compare(t, intake) })
			}
			checkNothingIsWrong(t, intake)
		})
	}
}

// without returns the tags that are not unwanted, nil for none.
func without(tags []string, unwanted func(string) bool) []string {
	var left []string
	for _, tag := range tags {
		if !unwanted(tag) {
			left = append(left, tag)
		}
	}
	return left
}

// originClientVariable makes of the test binary a client: "ADDRESS PREFIX".
const originClientVariable = "TEST_ORIGIN_CLIENT"

// originClient is a client in a container, in a process of its own, since Datadog's
// client keeps one container for the process.
func originClient(to string) {
	address, prefix, _ := strings.Cut(to, " ")
	client, err := statsd.NewEx(address, statsd.WithContainerID(testContainer), statsd.WithNamespace(prefix+"."),
		statsd.WithoutTelemetry(),
		statsd.WithoutClientSideAggregation()) // of what it aggregates it does not send the external data
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(err)
	at := time.Unix(1700000000, 0)
	must(client.Incr("hits", nil, 1))
	must(client.Gauge("level", 1.5, nil, 1))
	must(client.Set("users", "ann", nil, 1))
	must(client.Histogram("size", 2, nil, 1))
	must(client.Distribution("latency", 3, nil, 1))
	must(client.GaugeWithTimestamp("past.level", 4, nil, 1, at))
	must(client.Incr("hits.high", []string{"env:x"}, 1, statsd.CardinalityHigh))
	must(client.Incr("hits.none", []string{"env:x"}, 1, statsd.CardinalityNone))
	must(client.SimpleEvent(prefix+" deployed", "text"))
	// Behind a message the origin still counts.
	must(client.ServiceCheck(&statsd.ServiceCheck{Name: prefix + ".up", Message: "fine"}))
	must(client.Close())
}

func originExpected(prefix string, tags, high []string) expected {
	with := func(name string, tags ...string) string {
		return keyOf(prefix+name, slices.Sorted(slices.Values(tags)))
	}
	return expected{
		counts: map[string]float64{
			with(".hits", tags...):                                     1,
			with(".hits.none", "env:x"):                                1,
			with(".hits.high", append(slices.Clone(high), "env:x")...): 1,
		},
		gauges: map[string]float64{with(".level", tags...): 1.5},
		sets:   map[string]float64{with(".users", tags...): 1},
		timers: map[string][]float64{with(".size", tags...): {2}},
		dists:  map[string][]float64{with(".latency", tags...): {3}},
		points: []testkit.Point{{Metric: prefix + ".past.level", Tags: tags, Type: "gauge", Time: 1700000000, Value: 4}},
		events: []testkit.Event{{Title: prefix + " deployed", Text: "text", Priority: "normal", AlertType: "info", Tags: tags}},
		checks: []testkit.Check{{Name: prefix + ".up", Message: "fine", Tags: tags}},
	}
}

func hotShotsOriginExpected(prefix string, tags []string) expected {
	return expected{
		counts: map[string]float64{keyOf(prefix+".hits", tags): 1},
		events: []testkit.Event{{Title: prefix + ".deployed", Text: "text", Priority: "normal", AlertType: "info", Tags: tags}},
		checks: []testkit.Check{{Name: prefix + ".up", Message: "fine", Tags: tags}},
	}
}
