package forwarder

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/internal/testkit"
	"github.com/weir-agent/weir/metric"
)

// randomText draws text that may be hostile, and is no longer than the wire allows.
func randomText(r *rand.Rand) string {
	if r.IntN(3) == 0 {
		return strings.ReplaceAll(hostile[r.IntN(len(hostile))], "\n", "")
	}
	return []string{"web.requests", "env:prod", "größe", "a,b:c"}[r.IntN(4)] + strings.Repeat("x", r.IntN(40))
}

// randomSeries draws a batch of series with every kind of field.
func randomSeries(r *rand.Rand, n int) *metric.Batch {
	b := &metric.Batch{
		Start: time.Unix(1+r.Int64N(4e9), 0).UTC(), Interval: time.Duration(1+r.IntN(600)) * time.Second,
		AgentHost: []string{"web-1", "", "odd\xff\xfehost"}[r.IntN(3)],
	}
	values := []func() float64{
		func() float64 { return 0 },
		func() float64 { return math.Copysign(0, -1) },
		func() float64 { return float64(r.IntN(1000)) / 10 },
		func() float64 { return []float64{math.MaxFloat64, 5e-324, 1e21, -1e-7, 1 << 60}[r.IntN(5)] },
		func() float64 { return r.NormFloat64() * 1e9 },
	}
	kinds := []metric.Kind{metric.Counter, metric.Gauge, metric.Set, metric.Histogram, metric.Timer}
	for i := range n {
		host := []metric.Host{{}, {Explicit: true}, {Explicit: true, Name: []byte(randomText(r))}}[r.IntN(3)]
		var tags []string
		for range r.IntN(6) {
			tags = append(tags, []string{"", "", "", resourcePrefix, resourcePrefix + "pod:"}[r.IntN(5)]+randomText(r))
		}
		device := []string{"", "sda", randomText(r)}[r.IntN(3)]
		b.Add(contextOf(kinds[r.IntN(len(kinds))], fmt.Sprintf("%d.%s", i, randomText(r)), host, device, tags...), metric.Series{
			Suffix: []metric.Suffix{0, metric.AggregateSuffix("avg"), metric.PercentileSuffix(95)}[r.IntN(3)],
			Value:  values[r.IntN(len(values))](),
			Type:   []metric.SeriesType{metric.Count, metric.Rate, metric.GaugeType}[r.IntN(3)],
			Time:   []int64{0, 0, 1 + r.Int64N(4e9)}[r.IntN(3)],
		})
	}
	return b
}

// Whatever is in a batch, the intake understands the same by JSON as by protobuf.
func TestSeriesAsJSONSayTheSame(t *testing.T) {
	for seed := range uint64(6) {
		b := randomSeries(rand.New(rand.NewPCG(seed, 9)), 700)
		var points [2][]testkit.Point
		for i, form := range []string{SeriesProtobuf, SeriesJSON} {
			intake := testkit.NewIntake(t)
			cfg := toDatadog(intake.URL)
			cfg.Forwarders[0].Series = form
			f, _ := deliver(t, cfg, b)
			if problems := intake.Problems(); len(problems) > 0 {
				t.Fatalf("seed %d, %s: problems: %.2000q", seed, form, problems)
			}
			if s := f.Stats()[0]; s.Delivered != uint64(len(b.Series)) {
				t.Fatalf("seed %d, %s: stats = %+v", seed, form, s)
			}
			for _, r := range intake.Requests() {
				want := [2]string{"application/x-protobuf", payloadVersion}
				if form == SeriesJSON {
					want = [2]string{"application/json", ""}
				}
				if got := [2]string{r.Header.Get("Content-Type"), r.Header.Get("DD-Agent-Payload")}; r.Path != "/api/v2/series" || got != want {
					t.Errorf("%s: %s %q, want %q", form, r.Path, got, want)
				}
			}
			points[i] = intake.Points()
			slices.SortFunc(points[i], func(a, b testkit.Point) int { return strings.Compare(a.Metric, b.Metric) })
		}
		if diff := cmp.Diff(points[0], points[1]); diff != "" {
			t.Fatalf("seed %d (-protobuf +json):\n%s", seed, diff)
		}
	}
}

// A payload of JSON that the intake found too large is sent in halves.
func TestSeriesAsJSONAreSplit(t *testing.T) {
	b := randomSeries(rand.New(rand.NewPCG(1, 9)), 101)
	p, err := newPacker(CompressGzip, discard())
	if err != nil {
		t.Fatal(err)
	}
	p.seriesAsJSON = true
	var whole payload
	p.pack(b, func(made payload) { whole = made }, func(uint64, DropReason) { t.Error("dropped a point") })
	halves, _, err := split(&whole)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := decompress(whole.encoding, whole.body, maxRecordBody)
	if err != nil {
		t.Fatal(err)
	}
	joined := ""
	for i, half := range halves {
		text, err := decompress(half.encoding, half.body, maxRecordBody)
		if err != nil {
			t.Fatal(err)
		}
		if half.points != uint64(50+i) || half.route != &seriesJSONRoute {
			t.Errorf("half %d has %d points and goes to %s", i, half.points, half.route.path)
		}
		joined += string(text)
	}
	if got := strings.Replace(joined, `]}{"series":[`, ",", 1); got != string(raw) {
		t.Errorf("the halves are not the whole:\n%s\n%s", joined, raw)
	}
	whole = payload{}
	b.Series = b.Series[:1]
	p.pack(b, func(made payload) { whole = made }, func(uint64, DropReason) { t.Error("dropped a point") })
	if _, alone, err := split(&whole); err != nil || !strings.HasPrefix(alone, "0.") {
		t.Errorf("alone = %q, %v", alone, err)
	}
}

// What was spooled as JSON is sent as JSON by the next agent, whatever it is configured
// to make.
func TestSeriesAsJSONComeBackFromTheSpool(t *testing.T) {
	intake := testkit.NewIntake(t)
	var down atomic.Bool
	down.Store(true)
	intake.Fault = func(*http.Request) int {
		if down.Load() {
			return http.StatusServiceUnavailable
		}
		return 0
	}
	cfg := toDatadog(intake.URL)
	cfg.StateDir, cfg.Spool.Enabled, cfg.ShutdownTimeout = t.TempDir(), true, time.Second
	cfg.Forwarders[0].Series = SeriesJSON
	b := example()
	b.Start, b.Sketches = time.Now().UTC(), nil
	if f, _ := deliver(t, cfg, b); f.Stats()[0].Spooled != uint64(len(b.Series)) {
		t.Fatalf("stats = %+v", f.Stats()[0])
	}
	down.Store(false)
	cfg.ShutdownTimeout, cfg.Forwarders[0].Series = time.Minute, SeriesProtobuf
	cfg.Resolve(Defaults{})
	f, err := New(cfg, "weir/1.2.3", discard())
	if err != nil {
		t.Fatal(err)
	}
	batches, done := make(chan *metric.Batch), make(chan struct{})
	go func() {
		defer close(done)
		f.Run(batches)
	}()
	for f.Stats()[0].Spooled > 0 {
		time.Sleep(time.Millisecond)
	}
	close(batches)
	<-done
	if s := f.Stats()[0]; s.Delivered != uint64(len(b.Series)) || len(intake.Points()) != len(b.Series) || len(intake.Problems()) > 0 {
		t.Errorf("%d points arrived, problems %q, stats = %+v", len(intake.Points()), intake.Problems(), s)
	}
	for _, r := range intake.Requests() {
		if got := r.Header.Get("Content-Type"); got != typeJSON {
			t.Errorf("Content-Type = %q", got)
		}
	}
}
