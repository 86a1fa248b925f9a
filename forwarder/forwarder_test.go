package forwarder

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/internal/testkit"
	"github.com/weir-agent/weir/metric"
)

var start = time.Date(2026, 11, 21, 10, 0, 10, 0, time.UTC)

func contextOf(kind metric.Kind, name string, host metric.Host, device string, tags ...string) *metric.Context {
	var raw [][]byte
	for _, tag := range tags {
		raw = append(raw, []byte(tag))
	}
	return metric.NewContext(metric.AppendContextKey(nil, kind, []byte(name), host, []byte(device), raw))
}

// example is a batch with one of everything.
func example() *metric.Batch {
	elsewhere := metric.Host{Explicit: true, Name: []byte("db-1")}
	nowhere := metric.Host{Explicit: true}
	b := &metric.Batch{
		Start: start, Interval: 10 * time.Second, AgentHost: "web-1",
		Sketches: []metric.SketchPoint{{
			Context: contextOf(metric.Distribution, "size", metric.Host{}, "sdb", "env:prod"),
			Sketch: metric.Sketch{
				Count: 4, Min: -1, Max: 2, Sum: 2.5, Avg: 0.625,
				Keys: []int32{-1338, 0, 1383}, Counts: []uint32{1, 1, 2},
			},
		}},
	}
	b.Add(contextOf(metric.Counter, "page.views", metric.Host{}, "", "env:prod"), metric.Series{Value: 1.2, Type: metric.Rate})
	b.Add(contextOf(metric.Gauge, "load", elsewhere, "sda"), metric.Series{Value: 0, Type: metric.GaugeType})
	b.Add(contextOf(metric.Timer, "query.time", nowhere, "", "a", "b:1,2"), metric.Series{Suffix: metric.AggregateSuffix("avg"), Value: -3, Type: metric.GaugeType})
	b.Add(contextOf(metric.Timer, "query.time", nowhere, "", "a", "b:1,2"), metric.Series{Suffix: metric.AggregateSuffix("count"), Value: 1e21, Type: metric.Rate})
	return b
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// deliver runs a forwarder over batches and returns what it logged.
func deliver(t *testing.T, cfg Config, batches ...*metric.Batch) (*Forwarder, string) {
	t.Helper()
	f, queue, end := runForTest(t, cfg)
	for _, b := range batches {
		queue <- b
	}
	close(queue)
	return f, end()
}

// runForTest runs a forwarder until queue is closed; end waits for that and returns
// what was logged.
func runForTest(t *testing.T, cfg Config) (f *Forwarder, queue chan<- *metric.Batch, end func() (log string)) {
	t.Helper()
	cfg.Resolve(Defaults{})
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	f, err := New(cfg, "weir/1.2.3", slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	batches := make(chan *metric.Batch)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(batches)
	}()
	return f, batches, func() string {
		t.Helper()
		<-done
		checkBooks(t, f)
		return log.String()
	}
}

func checkBooks(t *testing.T, f *Forwarder) {
	t.Helper()
	for _, s := range f.Stats() {
		if s.Produced+s.Restored != s.Delivered+s.Queued+s.Spooled+s.HandedOver+s.DroppedInAll() {
			t.Errorf("%s: produced %d + restored %d != delivered %d + queued %d + spooled %d + handed over %d + dropped %v",
				s.Name, s.Produced, s.Restored, s.Delivered, s.Queued, s.Spooled, s.HandedOver, s.Dropped)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = bytes.Buffer{}
}

func toDatadog(url string) Config {
	cfg := DefaultConfig()
	cfg.ShutdownTimeout = time.Minute // a machine may be slow
	cfg.Spool.Enabled = false
	cfg.Forwarders = []DestinationConfig{{Type: TypeDatadog, APIKey: testkit.APIKey, URL: url}}
	return cfg
}

func TestDatadogUnderstandsWhatIsSent(t *testing.T) {
	intake := testkit.NewIntake(t)
	f, _ := deliver(t, toDatadog(intake.URL), example())

	origin := [3]uint64{10, 10, 0}
	wantPoints := []testkit.Point{
		{Metric: "page.views", Type: "rate", Time: start.Unix(), Value: 1.2, Interval: 10, Host: "web-1", Tags: []string{"env:prod"}, Origin: origin},
		{Metric: "load", Type: "gauge", Time: start.Unix(), Value: 0, Interval: 10, Host: "db-1", Device: "sda", Origin: origin},
		{Metric: "query.time.avg", Type: "gauge", Time: start.Unix(), Value: -3, Interval: 10, Unit: "millisecond", Tags: []string{"a", "b:1,2"}, Origin: origin},
		{Metric: "query.time.count", Type: "rate", Time: start.Unix(), Value: 1e21, Interval: 10, Tags: []string{"a", "b:1,2"}, Origin: origin},
	}
	if diff := cmp.Diff(wantPoints, intake.Points()); diff != "" {
		t.Errorf("points (-want +got):\n%s", diff)
	}
	wantSketches := []testkit.Sketch{{
		Metric: "size", Time: start.Unix(), Count: 4, Sum: 2.5, Min: -1, Max: 2, Avg: 0.625,
		Keys: []int32{-1338, 0, 1383}, Counts: []uint32{1, 1, 2},
		Host: "web-1", Tags: []string{"device:sdb", "env:prod"}, Origin: origin,
	}}
	if diff := cmp.Diff(wantSketches, intake.Sketches()); diff != "" {
		t.Errorf("sketches (-want +got):\n%s", diff)
	}
	for _, r := range intake.Requests() {
		for name, want := range map[string]string{
			"User-Agent": "weir/1.2.3", "Content-Encoding": "zstd", "Content-Type": "application/x-protobuf",
			"Dd-Agent-Version": "1.2.3", "Dd-Agent-Payload": payloadVersion, "Dd-Api-Key": testkit.APIKey,
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: header %s = %q, want %q", r.Path, name, got, want)
			}
		}
	}
	if problems := intake.Problems(); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
	if s := f.Stats()[0]; s.Delivered != 5 || s.Payloads != 2 {
		t.Errorf("stats = %+v", s)
	}
}

// A batch far beyond every limit arrives whole, in payloads within them: with
// text that hardly compresses, the guess of how much fits is wrong at first.
// Clients send any bytes; a payload holds UTF-8, or the intake may refuse the whole
// of it.
func TestPayloadsAreUTF8(t *testing.T) {
	intake := testkit.NewIntake(t)
	odd := "odd\xff\xc3("
	host := metric.Host{Explicit: true, Name: []byte(odd)}
	b := &metric.Batch{
		Start: start, Interval: 10 * time.Second,
		Sketches: []metric.SketchPoint{{Context: contextOf(metric.Distribution, odd, host, odd, odd), Sketch: metric.Sketch{Count: 1, Keys: []int32{0}, Counts: []uint32{1}}}},
		Events:   []metric.Event{{Title: odd, Text: odd, Time: 1, Priority: "normal", AlertType: "info", Host: odd, Tags: []string{odd}}},
		Checks:   []metric.ServiceCheck{{Name: odd, Time: 1, Host: odd, Message: odd, Tags: []string{odd}}},
	}
	b.Add(contextOf(metric.Gauge, odd, host, odd, odd, "dd.internal.resource:"+odd+":"+odd), metric.Series{Type: metric.GaugeType})
	f, _ := deliver(t, toDatadog(intake.URL), b)
	if s := f.Stats()[0]; s.Delivered != 4 {
		t.Errorf("stats = %+v", s)
	}
	if problems := intake.Problems(); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
	const want = "odd\ufffd("
	for _, p := range intake.Points() {
		if p.Metric != want || p.Host != want || p.Device != want || p.Tags[0] != want {
			t.Errorf("point = %+v", p)
		}
	}
	if len(intake.Points()) != 1 || len(intake.Sketches()) != 1 {
		t.Errorf("%d points, %d sketches arrived", len(intake.Points()), len(intake.Sketches()))
	}
}

func TestPayloadsAreSplitWithinTheLimits(t *testing.T) {
	intake := testkit.NewIntake(t)
	b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "web-1"}
	random := rand.New(rand.NewPCG(1, 1))
	want := map[string]bool{}
	for i := range 30_000 {
		name := fmt.Sprintf("metric.%d", i)
		tags := []string{"env:prod"}
		if i < 10_000 {
			tags = []string{fmt.Sprintf("noise:%x%x%x%x", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())}
		}
		b.Add(contextOf(metric.Gauge, name, metric.Host{}, "", tags...), metric.Series{Value: random.Float64(), Type: metric.GaugeType})
		want[name] = true
	}
	for i := range 3000 {
		sketch := metric.Sketch{Count: 1000, Max: 1, Sum: 1, Avg: 1}
		for key := range int32(1000) {
			sketch.Keys = append(sketch.Keys, key)
			sketch.Counts = append(sketch.Counts, 1+random.Uint32N(60_000))
		}
		name := fmt.Sprintf("sketch.%d", i)
		b.Sketches = append(b.Sketches, metric.SketchPoint{Context: contextOf(metric.Distribution, name, metric.Host{}, ""), Sketch: sketch})
		want[name] = true
	}
	deliver(t, toDatadog(intake.URL), b)

	for _, p := range intake.Points() {
		if !want[p.Metric] {
			t.Errorf("%s came twice, or was never sent", p.Metric)
		}
		delete(want, p.Metric)
	}
	for _, s := range intake.Sketches() {
		if !want[s.Metric] {
			t.Errorf("%s came twice, or was never sent", s.Metric)
		}
		delete(want, s.Metric)
	}
	if len(want) > 0 {
		t.Errorf("%d points did not arrive", len(want))
	}
	for _, r := range intake.Requests() {
		limits := seriesLimits
		if r.Path == sketchRoute.path {
			limits = otherLimits
		}
		if r.Status != http.StatusAccepted || r.Compressed > limits.compressed || r.Uncompressed > limits.uncompressed {
			t.Errorf("%s: %d bytes, %d uncompressed, status %d", r.Path, r.Compressed, r.Uncompressed, r.Status)
		}
	}
	if n := len(intake.Requests()); n > 40 {
		t.Errorf("%d requests are too many: the guess of how much fits is far off", n)
	}
}

// A point that alone is too large is dropped, counted and named; its neighbours
// arrive.
func TestOnePointTooLarge(t *testing.T) {
	intake := testkit.NewIntake(t)
	random := rand.New(rand.NewPCG(2, 2))
	var monster strings.Builder
	for monster.Len() < 2_000_000 {
		fmt.Fprintf(&monster, "%x", random.Uint64())
	}
	b := example()
	b.Series[1].Context = b.Contexts.Add(contextOf(metric.Gauge, "monster", metric.Host{}, "", monster.String()))
	f, log := deliver(t, toDatadog(intake.URL), b)
	if got := len(intake.Points()); got != 3 {
		t.Errorf("%d points arrived, want 3", got)
	}
	if s := f.Stats()[0]; s.Dropped[DroppedTooLarge] != 1 || s.Delivered != 4 {
		t.Errorf("stats = %+v", s)
	}
	if !strings.Contains(log, "monster") {
		t.Errorf("the log does not name the metric:\n%s", log)
	}
}

func TestDatadogRetriesWhatMayPass(t *testing.T) {
	for _, status := range []int{500, 503, 429, 408, 404, 302} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			intake := testkit.NewIntake(t)
			var asked atomic.Int32
			intake.Fault = func(*http.Request) int {
				if asked.Add(1) <= 1 {
					return status
				}
				return 0
			}
			b := example()
			b.Start, b.Sketches = time.Now(), nil
			f, _ := deliver(t, toDatadog(intake.URL), b)
			if got := len(intake.Points()); got != len(b.Series) {
				t.Errorf("%d points arrived, want %d", got, len(b.Series))
			}
			if s := f.Stats()[0]; s.Retries != 1 || s.DroppedInAll() != 0 {
				t.Errorf("stats = %+v", s)
			}
		})
	}
}

func TestDatadogGivesUpWhatIsRefused(t *testing.T) {
	for _, status := range []int{400} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			intake := testkit.NewIntake(t)
			intake.Fault = func(*http.Request) int { return status }
			f, log := deliver(t, toDatadog(intake.URL), example())
			if s := f.Stats()[0]; s.Dropped[DroppedRejected] != 5 || s.Retries != 0 {
				t.Errorf("stats = %+v", s)
			}
			if !strings.Contains(log, fmt.Sprint(status)) || !strings.Contains(log, "points=4") {
				t.Errorf("the log does not tell it:\n%s", log)
			}
		})
	}
}

// What is older than the intake takes is not tried for ever.
func TestDatadogGivesUpWhatIsTooOld(t *testing.T) {
	intake := testkit.NewIntake(t)
	intake.Fault = func(*http.Request) int { return 503 }
	b := example()
	b.Start = time.Now().Add(-oldestPoints - time.Second)
	f, _ := deliver(t, toDatadog(intake.URL), b)
	if s := f.Stats()[0]; s.Dropped[DroppedTooOld] != 5 {
		t.Errorf("stats = %+v", s)
	}
}

// A dead intake costs the shutdown timeout, and everything that waited is in the
// books.
func TestShutdownWithADeadIntake(t *testing.T) {
	cfg := toDatadog("http://127.0.0.1:1")
	cfg.ShutdownTimeout = 100 * time.Millisecond
	b := example()
	b.Start = time.Now()
	f, log := deliver(t, cfg, b, b)
	if s := f.Stats()[0]; s.Dropped[DroppedShutdown] != 10 || s.Queued != 0 {
		t.Errorf("stats = %+v", s)
	}
	if strings.Contains(log, testkit.APIKey) {
		t.Errorf("the log shows the API key:\n%s", log)
	}
}

// The key is nowhere to be read, even if the intake repeats it.
func TestTheKeyIsNotLogged(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "bad key %s", r.Header.Get("DD-Api-Key"))
	})
	intake := testkit.NewIntake(t)
	intake.Config.Handler = echo
	_, log := deliver(t, toDatadog(intake.URL), example())
	if !strings.Contains(log, "bad key") || strings.Contains(log, testkit.APIKey) {
		t.Errorf("log:\n%s", log)
	}
	cfg := toDatadog(intake.URL)
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), string(text)} {
		if strings.Contains(shown, testkit.APIKey) {
			t.Errorf("shown: %s", shown)
		}
	}
}

// A destination that hangs costs the others nothing and never blocks the sender.
func TestASlowDestinationDelaysNobody(t *testing.T) {
	release := make(chan struct{})
	slow, fast := testkit.NewIntake(t), testkit.NewIntake(t)
	slow.Fault = func(*http.Request) int { <-release; return 0 }
	cfg := toDatadog(slow.URL)
	cfg.Forwarders = append(cfg.Forwarders, toDatadog(fast.URL).Forwarders...)
	cfg.Resolve(Defaults{})
	f, err := New(cfg, "weir/1.2.3", discard())
	if err != nil {
		t.Fatal(err)
	}
	batches := make(chan *metric.Batch)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(batches)
	}()
	const n = 20
	for range n {
		batches <- example() // would block for good if the forwarder did
		checkBooks(t, f)
	}
	for len(fast.Sketches()) < 1 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	close(batches)
	<-done
	checkBooks(t, f)
	for _, s := range f.Stats() {
		if s.Produced != n*5 || s.Queued != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// What fails does not keep what would succeed from being sent.
func TestOneRouteThatFailsDoesNotStopTheOther(t *testing.T) {
	intake := testkit.NewIntake(t)
	intake.Fault = func(r *http.Request) int {
		if r.URL.Path == sketchRoute.path {
			return http.StatusNotFound
		}
		return 0
	}
	cfg := toDatadog(intake.URL)
	cfg.ShutdownTimeout = 2 * time.Second // enough for the series on a busy machine
	b := example()
	b.Start = time.Now()
	const n = 20 // more than there are senders
	batches := slices.Repeat([]*metric.Batch{b}, n)
	f, _ := deliver(t, cfg, batches...)
	if s := f.Stats()[0]; s.Delivered != n*4-4*s.Dropped[DroppedQueueFull]/5 || s.Dropped[DroppedShutdown] == 0 {
		t.Errorf("stats = %+v; all series should have been delivered", s)
	}
}

// A redirect is no delivery, and takes the key nowhere.
func TestRedirectsAreNotFollowed(t *testing.T) {
	elsewhere := testkit.NewIntake(t)
	intake := testkit.NewIntake(t)
	intake.Config.Handler = http.RedirectHandler(elsewhere.URL+"/api/v2/series", http.StatusTemporaryRedirect)
	cfg := toDatadog(intake.URL)
	cfg.ShutdownTimeout = 200 * time.Millisecond
	b := example()
	b.Start = time.Now()
	deliver(t, cfg, b)
	if n := len(elsewhere.Requests()); n != 0 {
		t.Errorf("%d requests were redirected", n)
	}
}

func TestWhereTheSitesAre(t *testing.T) {
	for _, test := range []struct{ site, url, want string }{
		{"datadoghq.com", "", "https://api.datadoghq.com/api/v2/series"},
		{"us3.datadoghq.com", "", "https://api.us3.datadoghq.com/api/v2/series"},
		{"datadoghq.com", "http://127.0.0.1:8080/prefix/", "http://127.0.0.1:8080/prefix/api/v2/series"},
	} {
		cfg := DestinationConfig{APIKey: "k", Site: test.site, URL: test.url, Compression: CompressZstd}
		d, err := openDatadog(&cfg, "datadog", "weir/1", time.Second, &spools{}, discard())
		if err != nil {
			t.Fatal(err)
		}
		request, err := d.intakes[0].request(t.Context(), &payload{route: &seriesRoute})
		if err != nil || request.URL.String() != test.want {
			t.Errorf("%+v: %v, %v", test, request.URL, err)
		}
	}
}
