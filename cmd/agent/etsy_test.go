package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// etsyFlush is what Etsy's statsd made of an interval.
type etsyFlush struct {
	Counters map[string]float64            `json:"counters"`
	Gauges   map[string]float64            `json:"gauges"`
	Sets     map[string]float64            `json:"sets"` // how many members
	Timers   map[string]map[string]float64 `json:"timers"`
}

// etsy is a running statsd of Etsy's.
type etsy struct {
	cmd   *exec.Cmd
	conn  net.Conn
	sent  int          // packets that are not empty
	log   bytes.Buffer // complete once it ended
	ended chan struct{}

	mu      sync.Mutex // guards the fields below
	ready   bool
	packets int // not empty ones
	flushes []etsyFlush
}

// startEtsy runs Etsy's statsd, which flushes every interval and when it ends.
// sanitize says whether it changes names, which it does by default.
func startEtsy(t *testing.T, interval time.Duration, sanitize bool) *etsy {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node; .ci/run installs it (apt-get install nodejs)")
	}
	program := filepath.Join(clientsFolder, "statsd", "stats.js")
	if _, err := os.Stat(program); err != nil {
		t.Skip("npm's statsd is not installed; .ci/run installs it (npm install --prefix .ci --no-save --no-package-lock statsd@0.9.0 hot-shots@17.1.1)")
	}
	backend, err := filepath.Abs("testdata/etsy_backend.js")
	if err != nil {
		t.Fatal(err)
	}
	address := freePort(t)
	_, port, _ := net.SplitHostPort(address)
	management, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	management.Close()
	config, err := json.Marshal(map[string]any{
		"address":               "127.0.0.1",
		"port":                  json.Number(port),
		"mgmt_address":          "127.0.0.1",
		"mgmt_port":             management.Addr().(*net.TCPAddr).Port,
		"backends":              []string{backend},
		"flushInterval":         interval.Milliseconds(),
		"percentThreshold":      []int{90, 95, 50},
		"deleteIdleStats":       false,
		"keyNameSanitize":       sanitize,
		"automaticConfigReload": false,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "etsy.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}

	e := &etsy{cmd: exec.Command(node, program, file), ended: make(chan struct{})}
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	reports, backendsEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	e.cmd.ExtraFiles = []*os.File{backendsEnd}
	err = e.cmd.Start()
	backendsEnd.Close()
	if err != nil {
		reports.Close()
		t.Fatal(err)
	}
	go e.read(reports)
	t.Cleanup(func() {
		_ = e.cmd.Process.Kill()
		<-e.ended
		if t.Failed() {
			t.Logf("the log of Etsy's statsd:\n%.4000s", e.log.String())
		}
	})
	if e.conn, err = net.Dial("udp", address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.conn.Close() })
	eventually(t, "Etsy's statsd takes a packet", func() bool {
		_, _ = e.conn.Write(nil) // refused while nobody listens
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.ready
	})
	return e
}

// read takes what the backend reports until the process ends.
func (e *etsy) read(reports *os.File) {
	defer close(e.ended)
	defer reports.Close()
	for decoder := json.NewDecoder(reports); ; {
		var report struct {
			Ready   bool
			Packets int
			Flush   *etsyFlush
		}
		if err := decoder.Decode(&report); err != nil {
			_ = e.cmd.Process.Kill() // if it has not ended, it is not understood
			_ = e.cmd.Wait()
			return
		}
		e.mu.Lock()
		switch {
		case report.Flush != nil:
			e.flushes = append(e.flushes, *report.Flush)
		case report.Ready:
			e.ready = true
		default:
			e.packets = report.Packets
		}
		e.mu.Unlock()
	}
}

func (e *etsy) received() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.packets
}

func (e *etsy) flushed() []etsyFlush {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.flushes)
}

// stop ends the process, which flushes.
func (e *etsy) stop(t *testing.T) []etsyFlush {
	t.Helper()
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("Etsy's statsd does not end")
	}
	return e.flushed()
}

// sendBoth sends packets to both, no faster than Etsy's statsd takes them.
func sendBoth(t *testing.T, e *etsy, weir net.Conn, packets []string) {
	t.Helper()
	for some := range slices.Chunk(packets, 50) {
		for _, packet := range some {
			for _, conn := range []net.Conn{e.conn, weir} {
				if _, err := conn.Write([]byte(packet)); err != nil {
					t.Fatal(err)
				}
			}
		}
		e.sent += len(some)
		eventually(t, "Etsy's statsd took all packets", func() bool { return e.received() == e.sent })
	}
}

// asEtsy are the settings with which Weir is to compute what Etsy's statsd does.
func asEtsy(intake *testkit.Intake, interval time.Duration) []string {
	return append(toIntake(intake),
		"WEIR_DIALECT=statsd",
		"WEIR_FLUSH_INTERVAL="+interval.String(),
		"WEIR_EXPIRY_CONTEXT=1h",
		"WEIR_HISTOGRAM_AGGREGATES=max min avg median sum count",
		"WEIR_HISTOGRAM_PERCENTILES=0.9 0.95 0.5")
}

// etsyAggregates are the names that Weir gives to what Etsy's statsd computes of
// timers.
var etsyAggregates = map[string]string{
	"upper": ".max", "lower": ".min", "mean": ".avg", "median": ".median", "sum": ".sum", "count": ".count",
	"upper_90": ".90percentile", "upper_95": ".95percentile", "upper_50": ".50percentile",
}

// weirKey is a name of Etsy's, "name;key=value;tag", as totals spells it, with
// suffix behind the name.
func weirKey(key, suffix string) string {
	name, tags, _ := strings.Cut(key, ";")
	list := strings.Split(tags, ";")
	for i, tag := range list {
		list[i] = strings.Replace(tag, "=", ":", 1)
	}
	slices.Sort(list)
	return strings.TrimSpace(name + suffix + " " + strings.Join(list, " "))
}

// points is a value for each series, "rate name tag tag" or "gauge name tag tag".
type points map[string]float64

// points returns what Weir is to send for a flush. Rates are counts.
func (f *etsyFlush) points() points {
	all := points{}
	for key, v := range f.Counters {
		if !strings.HasPrefix(key, "statsd.") {
			all["rate "+weirKey(key, "")] = v
		}
	}
	for key, v := range f.Gauges {
		if !strings.HasPrefix(key, "statsd.") {
			all["gauge "+weirKey(key, "")] = v
		}
	}
	for key, n := range f.Sets {
		all["gauge "+weirKey(key, "")] = n
	}
	for key, data := range f.Timers {
		for name, suffix := range etsyAggregates {
			if v, computed := data[name]; computed {
				kind := "gauge "
				if name == "count" {
					kind = "rate "
				}
				all[kind+weirKey(key, suffix)] = v
			}
		}
	}
	return all
}

// points returns the totals without what Weir says of itself.
func (t *totals) points() points {
	all := points{}
	for kind, values := range map[string]map[string]float64{"rate ": t.counts, "gauge ": t.gauges} {
		for key, v := range values {
			if !strings.HasPrefix(key, "weir.") {
				all[kind+key] = v
			}
		}
	}
	return all
}

// compare wants the same series with values that differ by no more than 1e-9 of
// themselves, or of what was added up to get them.
func (want points) compare(t *testing.T, got points, added map[string]float64) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		v, there := got[key]
		scale := max(math.Abs(want[key]), added[key])
		if !there || !(math.Abs(v-want[key]) <= 1e-9*scale) {
			t.Errorf("%s = %v (sent: %v), Etsy's statsd says %v", key, v, there, want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, there := want[key]; !there {
			t.Errorf("%s = %v is unknown to Etsy's statsd", key, got[key])
		}
	}
}

// quietInterval is an interval, at most 10 minutes long, that does not end soon.
func quietInterval() time.Duration {
	now, best, left := time.Now().Unix(), int64(0), int64(0)
	for seconds := int64(540); seconds <= 600; seconds++ {
		if l := seconds - now%seconds; l > left {
			best, left = seconds, l
		}
	}
	return time.Duration(best) * time.Second
}

// dialWeir returns a socket that sends to the agent.
func dialWeir(t *testing.T, p *process) net.Conn {
	t.Helper()
	conn, err := net.Dial("udp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// In one interval, all that Etsy's statsd computes of all kinds comes out the same.
func TestEtsyOneInterval(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			interval := quietInterval()
			e := startEtsy(t, interval, false)
			intake := testkit.NewIntake(t)
			p := start(t, build(t), asEtsy(intake, interval)...)
			r := newTraffic(seed)
			packets := r.packets(4000)
			sendBoth(t, e, dialWeir(t, p), packets)

			flushes := e.stop(t)
			if code := p.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if len(flushes) != 1 {
				t.Fatalf("%d flushes of Etsy's statsd, want the one at its end", len(flushes))
			}
			own := flushes[0].Counters
			if own["statsd.metrics_received"] != float64(r.lines) || own["statsd.bad_lines_seen"] != float64(r.bad) {
				t.Fatalf("Etsy's statsd had %v lines and rejected %v; want %d and %d",
					own["statsd.metrics_received"], own["statsd.bad_lines_seen"], r.lines, r.bad)
			}
			account := fmt.Sprintf("datagrams=%d received=%d rejected=%d samples=%d", len(packets), r.metrics+r.bad, r.bad, r.metrics)
			if !strings.Contains(p.log(), account) {
				t.Fatalf("Weir's account is not %s:\n%s", account, p.log())
			}
			totals := newTotals(intake)
			flushes[0].points().compare(t, totals.points(), r.added)
		})
	}
}

// Over many intervals counters add up to the same, and so do the counts and sums of
// timers; gauges change from one interval to the next, and keep their values when
// nothing comes any more.
func TestEtsyManyIntervals(t *testing.T) {
	const interval = time.Second
	e := startEtsy(t, interval, false)
	intake := testkit.NewIntake(t)
	p := start(t, build(t), asEtsy(intake, interval)...)
	conn := dialWeir(t, p)
	r := newTraffic(100)
	intervals := func() int { return len(e.flushed()) }
	for range 3 {
		sendBoth(t, e, conn, r.packets(1500))
		n := intervals()
		eventually(t, "another flush of Etsy's statsd", func() bool { return intervals() > n })
	}
	sendBoth(t, e, conn, []string{"the.end:1|c"})
	eventually(t, "the end arrived", func() bool { return newTotals(intake).counts["the.end"] == 1 })
	n, last := intervals(), latest(intake)
	eventually(t, "two more flushes of Etsy's statsd", func() bool { return intervals() >= n+2 })
	eventually(t, "two more flushes", func() bool { return latest(intake) >= last+2 })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	want, got, sets := points{}, points{}, map[string]bool{}
	for _, flush := range e.stop(t) {
		for key := range flush.Sets {
			sets["gauge "+weirKey(key, "")] = true
		}
		for key, v := range flush.points() {
			want.accumulate(key, v)
		}
	}
	later := map[string]int{} // points after everything had come
	sent := intake.Points()
	slices.SortStableFunc(sent, func(a, b testkit.Point) int { return cmp.Compare(a.Time, b.Time) })
	for _, point := range sent {
		key, v := strings.TrimSpace(point.Type+" "+point.Metric+" "+strings.Join(point.Tags, " ")), point.Value
		if strings.HasPrefix(point.Metric, "weir.") {
			continue
		}
		if point.Type == "rate" {
			v *= float64(point.Interval)
		}
		got.accumulate(key, v)
		if point.Time > last {
			later[key]++
		}
	}
	for key := range sets { // members that came in two intervals count twice
		delete(want, key)
		delete(got, key)
	}
	want.compare(t, got, r.added)
	for key := range want {
		if strings.HasPrefix(key, "gauge ") && !isAggregate(key) && later[key] < 2 {
			t.Errorf("%s was sent %d times after its last sample, want at least 2", key, later[key])
		}
	}
}

// accumulate adds the point of a later interval: what can be added up is, and of
// gauges the last counts.
func (p points) accumulate(key string, v float64) {
	before, known := p[key]
	switch {
	case strings.HasPrefix(key, "rate "), isNamed(key, ".sum"):
		p[key] = before + v
	case isNamed(key, ".max") && known:
		p[key] = max(before, v)
	case isNamed(key, ".min") && known:
		p[key] = min(before, v)
	case isNamed(key, ".max"), isNamed(key, ".min"), !isAggregate(key):
		p[key] = v
	}
}

// isNamed reports whether the name in a key ends in suffix.
func isNamed(key, suffix string) bool { return strings.Contains(key+" ", suffix+" ") }

func isAggregate(key string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(etsyAggregates)), func(suffix string) bool { return isNamed(key, suffix) })
}

// latest returns the time of the last interval that the intake knows of, in
// seconds.
func latest(intake *testkit.Intake) int64 {
	last := int64(0)
	for _, p := range intake.Points() {
		last = max(last, p.Time)
	}
	return last
}

// What docs/PROTOCOL.md says of lines that the two read differently. "N" is a name
// of the row's own; of a timer's aggregates only count and max are shown.
func TestEtsyDifferences(t *testing.T) {
	rows := []struct{ packet, etsy, weir string }{
		{"N:2|q", "rate N = 2", ""},
		{"N:320|h", "rate N = 320", "gauge N.max = 320, rate N.count = 1"},
		{"N:320|d", "rate N = 320", ""}, // a distribution is no point of a series
		{"N a/b!é:1|c", "rate N_a-b = 1", "rate N a/b!é = 1"},
		{"N|x:1|c", "rate Nx = 1", ""},
		{":1|c|#N", "rate N = 1", ""},
		{"N: |g", "gauge N = 0", ""},
		{"N:1:2|c", "rate N = 2", "rate N = 3"},
		{"N:x:y|s\nN:z:y|s", "gauge N = 1", "gauge N = 2"},
		{"N:1|c|@1e-3", "rate N = 1", "rate N = 1000"},
		{"N:1|c|@0", "rate N = +Inf", ""},
		{"N:1|c|@2", "rate N = 0.5", ""},
		{"N:Infinity|g", "gauge N = +Inf", ""},
		{"N:1e999|c", "rate N = +Inf", ""},
		{"N:0x10000000000000000|g", "gauge N = 1.84467440737096e+19", ""},
		{"N:-1| ms", "gauge N.max = -1, rate N.count = 1", ""},
		{"N:1|c|#x|@0.5", "rate N x0.5 = 1", "rate N x = 2"},
		{"N:1|c|#x,y\nN:2|c|#x,x,y", "rate N x x y = 2, rate N x y = 1", "rate N x y = 3"},
		{"N:1|c|#host:db", "rate N host:db = 1", "rate N = 1"},
		{"N:1|c|@1|x:2|c", "rate N = 3", "rate N = 1"},
		{"N" + strings.Repeat(":1|c", 200), "rate N = 200", "rate N = 128"},
		{"N:\xff|s\nN:\xfe|s", "gauge N = 1", "gauge N = 2"},
		{"N:__proto__|s", "gauge N = 0", "gauge N = 1"},
		{"N:1|c|", "", "rate N = 1"},
		{"N:1|c|c:ci-1", "", "rate N = 1"},
		{"N:x| s", "", "gauge N = 1"},
		{"N:x|s\r\n", "", "gauge N = 1"},
		{"N:1|c|#x\r\n", "rate N x_ = 1", "rate N x = 1"},
	}
	interval := quietInterval()
	e := startEtsy(t, interval, true)
	intake := testkit.NewIntake(t)
	p := start(t, build(t), asEtsy(intake, interval)...)
	var packets []string
	for i, row := range rows {
		packets = append(packets, strings.ReplaceAll(row.packet, "N", fmt.Sprintf("row%02d", i)))
	}
	sendBoth(t, e, dialWeir(t, p), packets)
	flushes := e.stop(t)
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	etsy, totals := flushes[0].points(), newTotals(intake)
	weir := totals.points()
	for i, row := range rows {
		name := fmt.Sprintf("row%02d", i)
		if got := etsy.of(name); got != row.etsy {
			t.Errorf("%q: Etsy's statsd\n got %s\nwant %s", row.packet, got, row.etsy)
		}
		if got := weir.of(name); got != row.weir {
			t.Errorf("%q: Weir\n got %s\nwant %s", row.packet, got, row.weir)
		}
	}
}

// of returns the points of series that have a name in them, which becomes "N".
func (p points) of(name string) string {
	var shown []string
	for key, v := range p {
		if !strings.Contains(key, name) || isAggregate(key) && !isNamed(key, ".max") && !isNamed(key, ".count") {
			continue
		}
		v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 15, 64), 64) // a rate's rounding
		shown = append(shown, fmt.Sprintf("%s = %v", strings.ReplaceAll(key, name, "N"), v))
	}
	slices.Sort(shown)
	return strings.Join(shown, ", ")
}

// Lines that end Etsy's statsd or that would upset a language in which everything
// is an object: Weir takes or rejects them, and their neighbours stay as they are.
func TestEtsyKillers(t *testing.T) {
	interval := quietInterval()
	intake := testkit.NewIntake(t)
	p := start(t, build(t), asEtsy(intake, interval)...)
	killers := []struct {
		line string
		want points // nil: rejected
	}{
		{"a:1|c|@Infinity", nil},
		{"b:1|c|@+0.5", points{"rate b": 2}},
		{"a:1|c|@0x1", nil},
		{"a:1e400|ms", nil},
		{"__proto__:1|ms", points{"gauge __proto__.max": 1, "rate __proto__.count": 1}},
		{"constructor:1|ms", points{"gauge constructor.max": 1, "rate constructor.count": 1}},
		{"hasOwnProperty:3|c", points{"rate hasOwnProperty": 3}},
		{"valueOf:+3|g", points{"gauge valueOf": 3}},
		{"toString:1|s", points{"gauge toString": 1}},
		{"a:1|ms|@0.000001", points{"gauge a.max": 1, "gauge a.sum": 1, "rate a.count": 1e6}},
	}
	conn := dialWeir(t, p)
	rejected := 0
	for i, killer := range killers {
		packet := fmt.Sprintf("near:1|c\nnear:%d|ms\n%s\nnear:+2|g\nmembers:%d|s", i, killer.line, i)
		for _, text := range []string{packet, "near:1|c\n" + killer.line} {
			if _, err := conn.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if killer.want == nil {
			rejected += 2
		}
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	n := float64(len(killers))
	want := points{
		"rate near": 2 * n, "rate near.count": n, "gauge near.max": n - 1, "gauge near.min": 0, "gauge near.sum": n * (n - 1) / 2,
		"gauge near": 2 * n, "gauge members": n,
	}
	for _, killer := range killers {
		for key, v := range killer.want {
			if strings.HasPrefix(key, "rate ") || strings.HasPrefix(key, "gauge valueOf") || strings.HasSuffix(key, ".sum") {
				v *= 2 // it was sent twice
			}
			want[key] = v
		}
	}
	totals := newTotals(intake)
	got := totals.points()
	for key, v := range want {
		if !near(got[key], v) {
			t.Errorf("%s = %v, want %v", key, got[key], v)
		}
	}
	if !strings.Contains(p.log(), fmt.Sprintf(" rejected=%d ", rejected)) {
		t.Errorf("the account does not say rejected=%d:\n%s", rejected, p.log())
	}
}
