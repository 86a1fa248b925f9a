package forwarder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
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
	return &metric.Batch{
		Start: start, Interval: 10 * time.Second, AgentHost: "web-1",
		Series: []metric.Series{
			{Context: contextOf(metric.Counter, "page.views", metric.Host{}, "", "env:prod"), Value: 1.2, Type: metric.Rate},
			{Context: contextOf(metric.Gauge, "load", elsewhere, "sda"), Value: 0, Type: metric.GaugeType},
			{Context: contextOf(metric.Timer, "query.time", nowhere, "", "a", "b:1,2"), Suffix: ".avg", Value: -3, Type: metric.GaugeType},
			{Context: contextOf(metric.Timer, "query.time", nowhere, "", "a", "b:1,2"), Suffix: ".count", Value: 1e21, Type: metric.Rate},
		},
		Sketches: []metric.SketchPoint{{
			Context: contextOf(metric.Distribution, "size", metric.Host{}, "sdb", "env:prod"),
			Sketch: metric.Sketch{
				Count: 4, Min: -1, Max: 2, Sum: 2.5, Avg: 0.625,
				Keys: []int32{-1338, 0, 1383}, Counts: []uint32{1, 1, 2},
			},
		}},
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// deliver runs a forwarder over batches and returns what it logged.
func deliver(t *testing.T, cfg Config, batches ...*metric.Batch) (*Forwarder, string) {
	t.Helper()
	cfg.Resolve(Defaults{})
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	f, err := New(cfg, "weir/1.2.3", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	queue := make(chan *metric.Batch)
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.Run(queue)
	}()
	for _, b := range batches {
		queue <- b
	}
	close(queue)
	<-done
	checkBooks(t, f)
	return f, log.String()
}

func checkBooks(t *testing.T, f *Forwarder) {
	t.Helper()
	for _, s := range f.Stats() {
		if s.Produced != s.Delivered+s.Queued+s.DroppedInAll() {
			t.Errorf("%s: produced %d != delivered %d + queued %d + dropped %v", s.Name, s.Produced, s.Delivered, s.Queued, s.Dropped)
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

func toDatadog(url string) Config {
	cfg := DefaultConfig()
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
		b.Series = append(b.Series, metric.Series{
			Context: contextOf(metric.Gauge, name, metric.Host{}, "", tags...), Value: random.Float64(), Type: metric.GaugeType,
		})
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
			limits = sketchLimits
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
	b.Series[1].Context = contextOf(metric.Gauge, "monster", metric.Host{}, "", monster.String())
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
	for _, status := range []int{400, 403, 413} {
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
		w.WriteHeader(http.StatusForbidden)
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
	cfg.ShutdownTimeout = 200 * time.Millisecond
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
		d, err := openDatadog(DestinationConfig{APIKey: "k", Site: test.site, URL: test.url}, "datadog", "weir/1", discard())
		if err != nil {
			t.Fatal(err)
		}
		request, err := d.(*datadog).request(t.Context(), payload{route: &seriesRoute})
		if err != nil || request.URL.String() != test.want {
			t.Errorf("%+v: %v, %v", test, request.URL, err)
		}
	}
}

func TestQueueDropsTheOldest(t *testing.T) {
	q := payloadQueue{}
	q.wake = sync.NewCond(&q.mu)
	for i := range 5 {
		p := waiting{payload: payload{body: make([]byte, maxQueuedBytes/3), points: uint64(i)}}
		for j, old := range q.put(p) {
			if i < 3 || j > 0 || old.points != uint64(i-3) {
				t.Errorf("payload %d pushed out %d", i, old.points)
			}
		}
	}
	for want := uint64(2); want < 5; want++ {
		if p, ok := q.take(); !ok || p.points != want {
			t.Errorf("took %d, %v; want %d", p.points, ok, want)
		}
		q.done()
	}
	q.finish()
	if _, ok := q.take(); ok {
		t.Error("took a payload from an empty queue")
	}
}

func TestLogsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	cfg := DefaultConfig()
	cfg.Forwarders = []DestinationConfig{{Type: TypeLogs, Output: path}}
	f, _ := deliver(t, cfg, example())
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-11-21T10:00:10Z","metric":"page.views","type":"rate","value":1.2,"interval":10,"host":"web-1","tags":["env:prod"]}
{"time":"2026-11-21T10:00:10Z","metric":"load","type":"gauge","value":0,"interval":10,"host":"db-1","device":"sda","tags":[]}
{"time":"2026-11-21T10:00:10Z","metric":"query.time.avg","type":"gauge","value":-3,"interval":10,"host":"","tags":["a","b:1,2"]}
{"time":"2026-11-21T10:00:10Z","metric":"query.time.count","type":"rate","value":1e+21,"interval":10,"host":"","tags":["a","b:1,2"]}
{"time":"2026-11-21T10:00:10Z","metric":"size","type":"distribution","count":4,"sum":2.5,"min":-1,"max":2,"avg":0.625,"p50":2,"p75":2,"p90":2,"p95":2,"p99":2,"interval":10,"host":"web-1","device":"sdb","tags":["env:prod"]}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if s := f.Stats()[0]; s.Delivered != 5 || s.Bytes != uint64(len(want)) {
		t.Errorf("stats = %+v", s)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("mode = %v, %v; others must not read it", info.Mode(), err)
	}
}

func TestLogsText(t *testing.T) {
	b := example()
	b.Series[0].Context = contextOf(metric.Counter, "evil\x1b[2J\u2028\xff", metric.Host{}, "", "env:prod")
	got, n := appendTextLines(nil, b, 0)
	want := `2026-11-21T10:00:10Z rate evil'\x1b'[2J'\u2028''\ufffd' 1.2 host=web-1 env:prod
2026-11-21T10:00:10Z gauge load 0 host=db-1 device=sda
2026-11-21T10:00:10Z gauge query.time.avg -3 a b:1,2
2026-11-21T10:00:10Z rate query.time.count 1e+21 a b:1,2
2026-11-21T10:00:10Z distribution size count=4 sum=2.5 min=-1 max=2 avg=0.625 p50=2 p75=2 p90=2 p95=2 p99=2 host=web-1 device=sdb env:prod
`
	if diff := cmp.Diff(want, string(got)); diff != "" || n != 5 {
		t.Errorf("%d lines (-want +got):\n%s", n, diff)
	}
}

// halfWriter takes half of what it is given, once.
type halfWriter struct {
	bytes.Buffer
	full bool
}

func (w *halfWriter) Write(p []byte) (int, error) {
	if !w.full {
		w.full = true
		n, _ := w.Buffer.Write(p[:len(p)/2])
		return n, errors.New("no space left on device")
	}
	return w.Buffer.Write(p)
}

// A disk that was full for a while costs the lines that were not written, and no
// other.
func TestATornLineCostsOnlyItself(t *testing.T) {
	out := &halfWriter{}
	l := &logs{label: "logs", out: out, format: appendJSONLines, log: discard()}
	f := &Forwarder{destinations: []destination{l}, timeout: time.Minute, log: discard()}
	batches := make(chan *metric.Batch, 2)
	batches <- example()
	batches <- example()
	close(batches)
	f.Run(batches)
	checkBooks(t, f)
	whole := 0
	for _, line := range strings.Split(out.String(), "\n") {
		if json.Valid([]byte(line)) {
			whole++
		}
	}
	if s := f.Stats()[0]; s.Delivered != uint64(whole) || whole != 7 || s.Dropped[DroppedWrite] != 3 {
		t.Errorf("%d whole lines, stats = %+v\n%s", whole, s, out.String())
	}
}

type brokenWriter struct{ after int }

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestLogsThatCannotBeWrittenAreCounted(t *testing.T) {
	b := &metric.Batch{Start: start, Interval: time.Second}
	for range 3 * linesAtOnce {
		b.Series = append(b.Series, example().Series[0])
	}
	var log lockedBuffer
	l := &logs{label: "logs", out: &brokenWriter{after: 1}, format: appendJSONLines, log: slog.New(slog.NewTextHandler(&log, nil))}
	f := &Forwarder{destinations: []destination{l}, timeout: time.Minute, log: discard()}
	batches := make(chan *metric.Batch, 1)
	batches <- b
	close(batches)
	f.Run(batches)
	checkBooks(t, f)
	if s := f.Stats()[0]; s.Delivered != linesAtOnce || s.Dropped[DroppedWrite] != 2*linesAtOnce {
		t.Errorf("stats = %+v", s)
	}
	if !strings.Contains(log.String(), "no space left") {
		t.Errorf("log: %s", log.String())
	}
}

// A reader of standard output that does not read must not keep the agent from
// stopping.
func TestABlockedPipeIsLeftBehind(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	l := &logs{label: "logs", out: w, format: appendJSONLines, log: discard()}
	f := &Forwarder{destinations: []destination{l}, timeout: 10 * time.Millisecond, log: discard()}
	batches := make(chan *metric.Batch, 1)
	batches <- example()
	close(batches)
	f.Run(batches)
	checkBooks(t, f)
	if s := f.Stats()[0]; s.Dropped[DroppedShutdown] != 5 {
		t.Errorf("stats = %+v", s)
	}
}

func FuzzJSONString(f *testing.F) {
	for _, s := range []string{"", "plain", "quo\"te", "back\\slash", "\x00\x1f\x7f", "\xff\xfe", "\u2028\u2029", "♬†øU", "\xe2\x28\xa1", "tail\xc3"} {
		f.Add(s, ".avg")
	}
	f.Fuzz(func(t *testing.T, s, more string) {
		encoded := appendJSONString(nil, s, more)
		var got string
		if err := json.Unmarshal(encoded, &got); err != nil {
			t.Fatalf("%q is encoded as %s: %v", s+more, encoded, err)
		}
		var want string
		for _, part := range []string{s, more} {
			text, err := json.Marshal(part)
			if err != nil {
				t.Fatal(err)
			}
			var decoded string
			if err := json.Unmarshal(text, &decoded); err != nil {
				t.Fatal(err)
			}
			want += decoded
		}
		if got != want {
			t.Errorf("%q is read back as %q, want %q", s+more, got, want)
		}
	})
}

func FuzzJSONNumber(f *testing.F) {
	for _, v := range []float64{0, 1, -1.5, 1e21, 1e-7, math.MaxFloat64, math.SmallestNonzeroFloat64, 123456789.125} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v float64) {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return
		}
		var got float64
		if err := json.Unmarshal(appendJSONNumber(nil, v), &got); err != nil || got != v {
			t.Errorf("%v is read back as %v, %v", v, got, err)
		}
	})
}

func TestResolve(t *testing.T) {
	tests := map[string]struct {
		cfg  []DestinationConfig
		env  Defaults
		want []DestinationConfig
	}{
		"nothing at all": {
			want: []DestinationConfig{{Type: "logs", Output: "stdout", Format: "json"}},
		},
		"an API key in the environment": {
			env:  Defaults{APIKey: "k"},
			want: []DestinationConfig{{Type: "datadog", APIKey: "k", Site: "datadoghq.com"}},
		},
		"a site and a URL in the environment": {
			env:  Defaults{APIKey: "k", Site: "datadoghq.eu", URL: "http://proxy"},
			want: []DestinationConfig{{Type: "datadog", APIKey: "k", Site: "datadoghq.eu", URL: "http://proxy"}},
		},
		"what the file says comes first": {
			cfg:  []DestinationConfig{{Type: "datadog", APIKey: "f", Site: "us3.datadoghq.com"}, {Type: "logs", Format: "text"}},
			env:  Defaults{APIKey: "k", Site: "datadoghq.eu", URL: "http://proxy"},
			want: []DestinationConfig{{Type: "datadog", APIKey: "f", Site: "us3.datadoghq.com"}, {Type: "logs", Output: "stdout", Format: "text"}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := Config{ShutdownTimeout: time.Second, Forwarders: test.cfg}
			cfg.Resolve(test.env)
			if diff := cmp.Diff(test.want, cfg.Forwarders); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := cfg.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	cfg := Config{ShutdownTimeout: -1, Forwarders: []DestinationConfig{
		{Type: "datadog", Site: "https://datadoghq.com", URL: "datadoghq.com"},
		{Type: "datdog"},
		{},
		{Type: "logs", Output: "stdout", Format: "xml"},
		{Type: "logs", Output: "stdout", Format: "json"},
		{Type: "datadog", APIKey: "k\n", Site: "datadoghq.com"},
	}}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{
		"shutdown_timeout:", "forwarders[0].api_key:", "forwarders[0].site:", "forwarders[0].url:", `forwarders[1].type: there is no forwarder of type "datdog"`,
		"forwarders[2].type:", "forwarders[3].format:", "forwarders[4].output:", "forwarders[5].api_key:",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no fault %q in:\n%v", want, err)
		}
	}
}

func BenchmarkPack(b *testing.B) {
	batch := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "web-1"}
	for i := range 100_000 {
		batch.Series = append(batch.Series, metric.Series{
			Context: contextOf(metric.Counter, fmt.Sprintf("web.requests.%d", i%100), metric.Host{}, "", "env:prod", fmt.Sprintf("route:%d", i), "status:200"),
			Value:   float64(i%1000) / 10, Type: metric.Rate,
		})
	}
	p, err := newPacker(discard())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.pack(batch, func(payload) {}, func(uint64, DropReason) {})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(batch.Series)), "ns/series")
}
