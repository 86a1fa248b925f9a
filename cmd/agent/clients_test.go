package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/weir-agent/weir/internal/testkit"
)

// clientsFolder is where .ci/run installs clients that are not written in Go.
const clientsFolder = "../../.ci/node_modules"

// expected is what the intake is to have in the end. Keys are the metric and its
// tags in order, separated by blanks.
type expected struct {
	counts map[string]float64
	gauges map[string]float64   // sets, too
	timers map[string][]float64 // values of a histogram or timer
	dists  map[string][]float64
}

func (want expected) compare(t *testing.T, intake *testkit.Intake) {
	t.Helper()
	checkNoPointTwice(t, intake)
	if problems := intake.Problems(); len(problems) > 0 {
		t.Errorf("the intake found: %q", problems)
	}
	got := newTotals(intake)
	for key, n := range want.counts {
		if !near(got.counts[key], n) {
			t.Errorf("%s = %v, want %v", key, got.counts[key], n)
		}
	}
	for key, v := range want.gauges {
		if last, seen := got.gauges[key]; !seen || last != v {
			t.Errorf("%s = %v, %v; want %v", key, last, seen, v)
		}
	}
	for key, values := range want.timers {
		// All samples are sent within one interval, or the largest of several
		// intervals is compared.
		name, tags, _ := strings.Cut(key, " ")
		with := func(suffix string) string { return strings.TrimSpace(name + suffix + " " + tags) }
		if n := got.counts[with(".count")]; !near(n, float64(len(values))) {
			t.Errorf("%s = %v, want %d", with(".count"), n, len(values))
		}
		largest := math.Inf(-1)
		for _, p := range intake.Points() {
			if strings.TrimSpace(p.Metric+" "+strings.Join(p.Tags, " ")) == with(".max") {
				largest = max(largest, p.Value)
			}
		}
		if want := slices.Max(values); largest != want {
			t.Errorf("%s = %v, want %v", with(".max"), largest, want)
		}
	}
	for key, values := range want.dists {
		compareDistribution(t, key, got.sketches[key], values)
	}
}

func compareDistribution(t *testing.T, key string, sketches []testkit.Sketch, values []float64) {
	t.Helper()
	var count int64
	var sum float64
	low, high := math.Inf(1), math.Inf(-1)
	bins := map[int32]uint64{}
	for _, s := range sketches {
		count += s.Count
		sum += s.Sum
		low, high = min(low, s.Min), max(high, s.Max)
		for i, k := range s.Keys {
			bins[k] += uint64(s.Counts[i])
		}
	}
	slices.Sort(values)
	total := 0.0
	for _, v := range values {
		total += v
	}
	if count != int64(len(values)) || low != values[0] || high != values[len(values)-1] || math.Abs(sum-total) > 1e-9*math.Abs(total) {
		t.Errorf("%s: count %d, min %v, max %v, sum %v; want %d, %v, %v, %v", key, count, low, high, sum,
			len(values), values[0], values[len(values)-1], total)
		return
	}
	for _, q := range []float64{0.5, 0.9, 0.95, 0.99} {
		want := values[int(math.RoundToEven(q*float64(len(values)-1)))]
		keys := make([]int32, 0, len(bins))
		for k := range bins {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		rank := uint64(math.RoundToEven(q * float64(count-1)))
		var seen uint64
		for _, k := range keys {
			if seen += bins[k]; seen > rank {
				// The sketch's definition: gamma = 1 + 2/128, bias 1338.
				got := math.Pow(1+2.0/128, float64(k-1338))
				if math.Abs(got-want) > want/128 {
					t.Errorf("%s: quantile %v = %v, want %v within 1/128", key, q, got, want)
				}
				break
			}
		}
	}
}

func TestDatadogGo(t *testing.T) {
	for name, options := range map[string][]statsd.Option{
		"without aggregation":       {statsd.WithoutClientSideAggregation()},
		"with aggregation":          {statsd.WithClientSideAggregation(), statsd.WithAggregationInterval(50 * time.Millisecond)},
		"with extended aggregation": {statsd.WithExtendedClientSideAggregation(), statsd.WithAggregationInterval(50 * time.Millisecond)},
	} {
		t.Run(name, func(t *testing.T) {
			intake := testkit.NewIntake(t)
			p := start(t, build(t), toIntake(intake)...)
			client, err := statsd.New(p.address, append(options, statsd.WithTags([]string{"client:go"}), statsd.WithNamespace("dg."))...)
			if err != nil {
				t.Fatal(err)
			}
			var values []float64
			tags := []string{"env:test", "kind:x"}
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
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
			}
			must(client.SimpleEvent("title", "text"))
			must(client.SimpleServiceCheck("check", statsd.Ok))
			must(client.Close())
			eventually(t, "the last metrics arrived", func() bool { return len(intake.Events()) == 1 && len(intake.Checks()) == 1 })
			if code := p.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			suffix := " client:go env:test kind:x"
			expected{
				counts: map[string]float64{
					"dg.hits" + suffix: n, "dg.bytes" + suffix: n * (n - 1) / 2, "dg.balance" + suffix: -n,
				},
				gauges: map[string]float64{"dg.level" + suffix: float64(n-1) / 3},
				timers: map[string][]float64{"dg.size" + suffix: values, "dg.took" + suffix: values},
				dists:  map[string][]float64{"dg.latency" + suffix: slices.Clone(values)},
			}.compare(t, intake)
		})
	}
}

// Sampled by the client, counts are right on average; with a rate of which the
// client keeps everything they are right.
func TestDatadogGoSampled(t *testing.T) {
	intake := testkit.NewIntake(t)
	p := start(t, build(t), toIntake(intake)...)
	client, err := statsd.New(p.address, statsd.WithoutClientSideAggregation())
	if err != nil {
		t.Fatal(err)
	}
	const n = 40_000
	for i := range n {
		if err := client.Incr("sampled", nil, 0.25); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 {
			time.Sleep(time.Millisecond) // the client drops what its queue has no room for
		}
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the metric arrived", func() bool { return newTotals(intake).counts["sampled"] > 0 })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	// Binomial: the deviation of the estimate is sqrt(n·(1-p)/p) = 346.
	if got := newTotals(intake).counts["sampled"]; math.Abs(got-n) > 6*346 {
		t.Errorf("sampled = %v, want about %d", got, n)
	}
}

// script runs a client's script with the agent's port as its argument and
// compares.
func script(t *testing.T, interpreter []string, text string, want expected) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "client.script")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	intake := testkit.NewIntake(t)
	p := start(t, build(t), toIntake(intake)...)
	_, port, _ := strings.Cut(p.address, ":")
	folder, err := filepath.Abs(clientsFolder)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter[0], append(interpreter[1:], file, port)...)
	cmd.Env = environ("NODE_PATH=" + folder)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	eventually(t, "the client's last line arrived", func() bool { return newTotals(intake).counts["the.end"] == 1 })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	want.compare(t, intake)
}

func TestHotShots(t *testing.T) {
	if _, err := os.Stat(clientsFolder + "/hot-shots"); err != nil {
		t.Skip("npm's hot-shots is not installed; .ci/run installs it (npm install --prefix .ci --no-save --no-package-lock hot-shots)")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node")
	}
	const text = `
const StatsD = require('hot-shots');
const fail = (error) => { if (error) { console.error(error); process.exit(1); } };
const c = new StatsD({host: '127.0.0.1', port: Number(process.argv[2]), prefix: 'hs.', globalTags: {client: 'node'}, errorHandler: fail, maxBufferSize: 1200});
for (let i = 0; i < 300; i++) {
  c.increment('hits');
  c.increment('hits', 2, {route: 'a', env: 'x'});
  c.decrement('balance');
  c.gauge('level', i / 4);
  c.histogram('size', i + 1);
  c.timing('took', i + 1);
  c.distribution('latency', i + 1);
  c.set('users', 'user' + (i % 20));
}
c.close((error) => {
  fail(error);
  const end = new StatsD({host: '127.0.0.1', port: Number(process.argv[2]), errorHandler: fail});
  end.increment('the.end', () => end.close(() => process.exit(0)));
});
`
	values := make([]float64, 300)
	for i := range values {
		values[i] = float64(i + 1)
	}
	script(t, []string{node}, text, expected{
		counts: map[string]float64{"hs.hits client:node": 300, "hs.hits client:node env:x route:a": 600, "hs.balance client:node": -300},
		gauges: map[string]float64{"hs.level client:node": 299.0 / 4},
		timers: map[string][]float64{"hs.size client:node": values, "hs.took client:node": values},
		dists:  map[string][]float64{"hs.latency client:node": slices.Clone(values)},
	})
}

func TestPythonStatsd(t *testing.T) {
	// Debian's package belongs to Debian's Python, which need not be the first in
	// the path.
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import statsd").Run(); err != nil {
		t.Skip("Debian's python3-statsd is not installed; .ci/run installs it (apt-get install python3-statsd)")
	}
	const text = `
import statsd, sys
port = int(sys.argv[1])
c = statsd.StatsClient('127.0.0.1', port, prefix='py', maxudpsize=1400)
for i in range(300):
    c.incr('hits')
    c.decr('balance', 2)
    c.gauge('level', i / 4)
    c.timing('took', i + 1)
    c.set('users', 'user%d' % (i % 20))
with c.pipeline() as pipe:
    for i in range(100):
        pipe.incr('piped', 3)
c.gauge('negative', -5)
statsd.StatsClient('127.0.0.1', port).incr('the.end')
`
	values := make([]float64, 300)
	for i := range values {
		values[i] = float64(i + 1)
	}
	script(t, []string{python}, text, expected{
		counts: map[string]float64{"py.hits": 300, "py.balance": -600, "py.piped": 300},
		gauges: map[string]float64{"py.level": 299.0 / 4, "py.negative": -5},
		timers: map[string][]float64{"py.took": values},
	})
}
