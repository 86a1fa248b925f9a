package forwarder

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/internal/testkit"
	"github.com/weir-agent/weir/metric"
)

// hostile are strings that break careless encoders.
var hostile = []string{
	"", "a\nb\r\n", "quote\" back\\slash", "\x00\x1b[2J\x7f", "\xff\xfe tail\xc3", "\u2028\u2029", `","type":"gauge`, "]},", "<&>", "♬†øU",
}

// messages is a batch with events and service checks that have every field, and
// some that have none.
func messages() *metric.Batch {
	return &metric.Batch{
		Start: start, Interval: 10 * time.Second, AgentHost: "web-1",
		Events: []metric.Event{
			{
				Title: "Deployed", Text: "version 7\nby \"ann\"", Time: start.Unix() + 1, Priority: "low", AlertType: "success",
				Host: "db-1", Tags: []string{"env:prod", "b"}, AggregationKey: "deploy", SourceType: "jenkins",
			},
			{Title: "Restarted", Time: start.Unix() + 2, Priority: "normal", AlertType: "info", Host: "web-1"},
		},
		Checks: []metric.ServiceCheck{
			{
				Name: "db.up", Status: metric.CheckCritical, Time: start.Unix() + 3, Host: "db-1", Message: "no\nanswer",
				Tags: []string{"env:prod", "b"},
			},
			{Name: "cache.up", Status: metric.CheckOK, Time: start.Unix() + 4},
		},
	}
}

func TestDatadogUnderstandsMessages(t *testing.T) {
	intake := testkit.NewIntake(t)
	f, _ := deliver(t, toDatadog(intake.URL), messages())

	wantEvents := []testkit.Event{
		{Title: "Restarted", Time: start.Unix() + 2, Priority: "normal", AlertType: "info", Host: "web-1", AgentHost: "web-1"},
		{
			Title: "Deployed", Text: "version 7\nby \"ann\"", Time: start.Unix() + 1, Priority: "low", AlertType: "success",
			Host: "db-1", Tags: []string{"env:prod", "b"}, AggregationKey: "deploy", SourceType: "jenkins", AgentHost: "web-1",
		},
	}
	if diff := cmp.Diff(wantEvents, intake.Events()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	wantChecks := []testkit.Check{
		{Name: "db.up", Status: 2, Time: start.Unix() + 3, Host: "db-1", Message: "no\nanswer", Tags: []string{"env:prod", "b"}},
		{Name: "cache.up", Status: 0, Time: start.Unix() + 4},
	}
	if diff := cmp.Diff(wantChecks, intake.Checks()); diff != "" {
		t.Errorf("checks (-want +got):\n%s", diff)
	}
	if problems := intake.Problems(); len(problems) > 0 {
		t.Errorf("problems: %q", problems)
	}
	for _, r := range intake.Requests() {
		if got := r.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: Content-Type = %q", r.Path, got)
		}
		// It is the version of the protobuf messages.
		if got := r.Header.Get("DD-Agent-Payload"); got != "" {
			t.Errorf("%s: DD-Agent-Payload = %q, want none", r.Path, got)
		}
	}
	if s := f.Stats()[0]; s.Delivered != 4 || s.Payloads != 2 {
		t.Errorf("stats = %+v", s)
	}
}

// Events of many sources come in any order; in a payload each source stands once
// (the intake complains otherwise), even those that are the same only when
// written as JSON.
func TestEachSourceStandsOnce(t *testing.T) {
	intake := testkit.NewIntake(t)
	b := messages()
	b.Events, b.Checks = nil, nil
	sources := []string{"nagios", "", "jenkins", "api", "bad\xff", "bad\xfe", "a\"b", "tags", "nagios", "jenkins", ""}
	want := map[string]int{}
	for i, source := range sources {
		b.Events = append(b.Events, metric.Event{Title: fmt.Sprint(i), Time: start.Unix(), Priority: "normal", AlertType: "info", SourceType: source})
		want[strings.ToValidUTF8(source, "\ufffd")]++
	}
	deliver(t, toDatadog(intake.URL), b)
	got := map[string]int{}
	for _, e := range intake.Events() {
		got[e.SourceType]++
	}
	if diff := cmp.Diff(want, got); diff != "" || len(intake.Problems()) > 0 {
		t.Errorf("problems %q; events by source (-want +got):\n%s", intake.Problems(), diff)
	}
	for i, e := range b.Events { // it is read by other destinations, too
		if e.Title != fmt.Sprint(i) {
			t.Errorf("event %d of the batch is now %s", i, e.Title)
		}
	}
}

// noise is text that hardly shrinks.
func noise(random *rand.Rand, size int) string {
	text := make([]byte, 0, size+10)
	for len(text) < size {
		bits := random.Uint64()
		for range 10 {
			text = append(text, '0'+byte(bits&63))
			bits >>= 6
		}
	}
	return string(text[:size])
}

// Many large events and checks arrive whole, each once, in payloads within the
// limits: those that compress and those that hardly do.
func TestMessagesAreSplitWithinTheLimits(t *testing.T) {
	for name, text := range map[string]func(random *rand.Rand) string{
		"noise": func(random *rand.Rand) string { return noise(random, 60_000) },
		"empty": func(*rand.Rand) string { return strings.Repeat(" ", 60_000) },
	} {
		t.Run(name, func(t *testing.T) {
			intake := testkit.NewIntake(t)
			random := rand.New(rand.NewPCG(3, 3))
			b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "web-1"}
			want := map[string]bool{}
			const n = 120
			for i := range n {
				title, check := fmt.Sprintf("event.%d", i), fmt.Sprintf("check.%d", i)
				b.Events = append(b.Events, metric.Event{
					Title: title, Text: text(random), Time: start.Unix(), Priority: "normal", AlertType: "info", SourceType: fmt.Sprint(i % 7),
				})
				b.Checks = append(b.Checks, metric.ServiceCheck{Name: check, Message: text(random), Time: start.Unix()})
				want[title], want[check] = true, true
			}
			f, _ := deliver(t, toDatadog(intake.URL), b)
			for _, e := range intake.Events() {
				if !want[e.Title] {
					t.Errorf("%s came twice, or was never sent", e.Title)
				}
				delete(want, e.Title)
			}
			for _, c := range intake.Checks() {
				if !want[c.Name] {
					t.Errorf("%s came twice, or was never sent", c.Name)
				}
				delete(want, c.Name)
			}
			if len(want) > 0 || len(intake.Problems()) > 0 {
				t.Errorf("%d did not arrive; problems: %q", len(want), intake.Problems())
			}
			for _, r := range intake.Requests() {
				if r.Compressed > otherLimits.compressed || r.Uncompressed > otherLimits.uncompressed {
					t.Errorf("%s: %d bytes, %d uncompressed", r.Path, r.Compressed, r.Uncompressed)
				}
			}
			// 2 × 7.2 MB in payloads of 4 MiB at most.
			if s := f.Stats()[0]; s.Delivered != 2*n || s.Payloads < 4 || s.Payloads > 10 {
				t.Errorf("stats = %+v", s)
			}
		})
	}
}

// What begins, separates and ends the records of a payload counts in its size:
// records that fill it to the last byte without that do not fit.
func TestTheFrameOfAPayloadCounts(t *testing.T) {
	for spare := range 6 {
		check := metric.ServiceCheck{Name: "check", Time: start.Unix()}
		bare := len(appendCheck(nil, &check))
		half, full := check, check
		half.Message = strings.Repeat("m", (otherLimits.uncompressed-spare)/2-bare)
		full.Message = strings.Repeat("m", otherLimits.uncompressed-spare-bare)
		b := &metric.Batch{Start: start, Interval: 10 * time.Second, Checks: []metric.ServiceCheck{half, half, full}}
		p, err := newPacker(CompressZstd, discard())
		if err != nil {
			t.Fatal(err)
		}
		var got []uint64 // checks in each payload; 0 for one that was dropped
		p.pack(b, func(p payload) { got = append(got, p.points) }, func(uint64, DropReason) { got = append(got, 0) })
		want := []uint64{2, 1}
		if spare < 3 { // brackets and comma
			want = []uint64{1, 1, 1}
		}
		if spare < 2 { // brackets
			want[2] = 0
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d bytes to spare (-want +got):\n%s", spare, diff)
		}
	}
}

// The guess of how much fits is learnt from what was packed: payloads are nine
// tenths full, and not halves of what was too much.
func TestPayloadsBecomeFull(t *testing.T) {
	p, err := newPacker(CompressZstd, discard())
	if err != nil {
		t.Fatal(err)
	}
	b := &metric.Batch{Start: start, Interval: 10 * time.Second}
	random := rand.New(rand.NewPCG(6, 6))
	for range 400 {
		b.Events = append(b.Events, metric.Event{Title: "noise", Text: noise(random, 50_000), Time: start.Unix(), Priority: "low", AlertType: "info"})
	}
	for range 2 { // the second time as the first
		n, compressed := 0, 0
		p.pack(b, func(p payload) { n++; compressed += len(p.body) }, func(uint64, DropReason) { t.Error("dropped an event") })
		if want := 1 + compressed/(otherLimits.compressed*9/10); n > want {
			t.Errorf("%d payloads for %d bytes, want %d", n, compressed, want)
		}
	}
}

// A message that alone is too large is dropped, counted and named, in part if its
// name is what is too large; its neighbours arrive.
func TestOneMessageTooLarge(t *testing.T) {
	intake := testkit.NewIntake(t)
	random := rand.New(rand.NewPCG(4, 4))
	b := messages()
	b.Events[0].Title, b.Events[0].Text = "monster event", noise(random, 6_000_000)
	b.Checks[1].Name = "monster check " + strings.Repeat("x", 5_000_000)
	f, log := deliver(t, toDatadog(intake.URL), b)
	if s := f.Stats()[0]; s.Dropped[DroppedTooLarge] != 2 || s.Delivered != 2 {
		t.Errorf("stats = %+v", s)
	}
	if len(intake.Events()) != 1 || len(intake.Checks()) != 1 || len(intake.Problems()) > 0 {
		t.Errorf("%d events and %d checks arrived; problems: %q", len(intake.Events()), len(intake.Checks()), intake.Problems())
	}
	if !strings.Contains(log, `event="monster event"`) || !strings.Contains(log, `check="monster check`) || len(log) > 2000 {
		t.Errorf("the log does not name them in short:\n%.3000s", log)
	}
}

// The books close over messages, whatever becomes of them.
func TestBooksCloseOverMessages(t *testing.T) {
	tests := map[string]struct {
		status  int
		dropped DropReason
	}{
		"dead":    {503, DroppedShutdown},
		"refused": {400, DroppedRejected},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			intake := testkit.NewIntake(t)
			intake.Fault = func(*http.Request) int { return test.status }
			cfg := toDatadog(intake.URL)
			cfg.ShutdownTimeout = 100 * time.Millisecond
			b := messages()
			b.Start = time.Now()
			f, _ := deliver(t, cfg, b)
			if s := f.Stats()[0]; s.Produced != 4 || s.Dropped[test.dropped] != 4 || s.Queued != 0 {
				t.Errorf("stats = %+v", s)
			}
		})
	}
	t.Run("queue of payloads full", func(t *testing.T) {
		random := rand.New(rand.NewPCG(5, 5))
		intake := testkit.NewIntake(t)
		intake.Fault = func(*http.Request) int { return 503 }
		cfg := toDatadog(intake.URL)
		cfg.ShutdownTimeout = 100 * time.Millisecond
		cfg.Resolve(Defaults{})
		f, err := New(cfg, "weir/1.2.3", discard())
		if err != nil {
			t.Fatal(err)
		}
		b := &metric.Batch{Start: time.Now(), Interval: 10 * time.Second}
		const n = 2 * defaultMaxQueue / 2_300_000
		e := metric.Event{Title: "noise", Text: noise(random, 2_300_000), Time: start.Unix(), Priority: "low", AlertType: "info"}
		b.Events = slices.Repeat([]metric.Event{e}, n) // each in a payload of its own
		batches := make(chan *metric.Batch, 1)
		batches <- b
		close(batches)
		f.Run(batches)
		checkBooks(t, f)
		s := f.Stats()[0]
		if s.Produced != n || s.Dropped[DroppedQueueFull] == 0 || s.Dropped[DroppedQueueFull]+s.Dropped[DroppedShutdown] != n {
			t.Errorf("stats = %+v", s)
		}
	})
	t.Run("queue of batches full", func(t *testing.T) {
		release := make(chan struct{})
		l := &logs{label: "logs", out: writerFunc(func(p []byte) (int, error) { <-release; return len(p), nil }), format: jsonLines{}, log: discard()}
		f := &Forwarder{destinations: []destination{l}, timeout: time.Minute, log: discard()}
		batches := make(chan *metric.Batch)
		done := make(chan struct{})
		go func() {
			defer close(done)
			f.Run(batches)
		}()
		const n = 10
		for range n {
			batches <- messages()
			checkBooks(t, f)
		}
		close(batches)
		close(release)
		<-done
		checkBooks(t, f)
		if s := f.Stats()[0]; s.Produced != n*4 || s.Queued != 0 || s.Dropped[DroppedQueueFull] == 0 || s.Dropped[DroppedQueueFull]%4 != 0 {
			t.Errorf("stats = %+v", s)
		}
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// A point with a time of its own carries it.
func TestSeriesWithATime(t *testing.T) {
	intake := testkit.NewIntake(t)
	b := example()
	b.Series[1].Time = start.Unix() - 3600
	deliver(t, toDatadog(intake.URL), b)
	for i, p := range intake.Points() {
		want := start.Unix()
		if i == 1 {
			want -= 3600
		}
		if p.Time != want {
			t.Errorf("%s has the time %d, want %d", p.Metric, p.Time, want)
		}
	}
	lines, _ := appendLines(nil, jsonLines{}, b, 0)
	if got := strings.Split(string(lines), "\n")[1]; !strings.HasPrefix(got, `{"time":"2026-11-21T09:00:10Z","metric":"load"`) {
		t.Errorf("line = %s", got)
	}
	text, _ := appendLines(nil, textLines{}, b, 0)
	if got := strings.Split(string(text), "\n")[1]; !strings.HasPrefix(got, `2026-11-21T09:00:10Z gauge load`) {
		t.Errorf("line = %s", got)
	}
}

// A tag that names a resource is none: of a series it becomes one, elsewhere it
// is left out, and so is one that lacks its type or name.
func TestTagsThatNameResources(t *testing.T) {
	const p = resourcePrefix
	tags := []string{"a", p, p + ":x", p + "nothing", p + "pod:", p + "pod:web:7", p + "vm:v", "dd.internal.resource", "z"}
	intake := testkit.NewIntake(t)
	b := example()
	b.Series = b.Series[:2]
	b.Series[0].Context = b.Contexts.Add(contextOf(metric.Gauge, "load", metric.Host{}, "sda", tags...))
	b.Sketches[0].Context = contextOf(metric.Distribution, "size", metric.Host{}, "", tags...)
	b.Events = []metric.Event{
		{Title: "some", Time: 1, Priority: "low", AlertType: "info", Tags: tags},
		{Title: "none", Time: 1, Priority: "low", AlertType: "info", Tags: tags[1:3]},
	}
	b.Checks = []metric.ServiceCheck{{Name: "some", Time: 1, Tags: tags}, {Name: "none", Time: 1, Tags: tags[1:3]}}
	deliver(t, toDatadog(intake.URL), b)
	if problems := intake.Problems(); len(problems) > 0 {
		t.Fatalf("problems: %q", problems)
	}

	want := []string{"a", "dd.internal.resource", "z"}
	points := intake.Points()
	resources := []testkit.Resource{{Type: "pod", Name: "web:7"}, {Type: "vm", Name: "v"}}
	if diff := cmp.Diff(resources, points[0].Resources); diff != "" || points[1].Resources != nil || points[0].Host != "web-1" || points[0].Device != "sda" {
		t.Errorf("host %q, device %q, resources (-want +got):\n%s", points[0].Host, points[0].Device, diff)
	}
	got := map[string][]string{"series": points[0].Tags, "sketch": intake.Sketches()[0].Tags}
	for _, e := range intake.Events() {
		got["event "+e.Title] = e.Tags
	}
	for _, c := range intake.Checks() {
		got["check "+c.Name] = c.Tags
	}
	all := map[string][]string{
		"series": want, "sketch": want, "event some": want, "event none": nil, "check some": want, "check none": nil,
	}
	if diff := cmp.Diff(all, got); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	for _, format := range []lineFormat{jsonLines{}, textLines{}} {
		lines, n := appendLines(nil, format, b, 0)
		if n != 7 || strings.Contains(string(lines), p) || strings.Count(string(lines), "dd.internal.resource") != 4 {
			t.Errorf("lines:\n%s", lines)
		}
	}
}

func TestLinesOfMessages(t *testing.T) {
	tests := []struct {
		format lineFormat
		want   string
	}{
		{jsonLines{}, `{"time":"2026-11-21T10:00:11Z","type":"event","title":"Deployed","text":"version 7\nby \"ann\"","priority":"low","alert_type":"success","host":"db-1","tags":["env:prod","b"],"aggregation_key":"deploy","source_type":"jenkins"}
{"time":"2026-11-21T10:00:12Z","type":"event","title":"Restarted","text":"","priority":"normal","alert_type":"info","host":"web-1","tags":[]}
{"time":"2026-11-21T10:00:13Z","type":"service_check","check":"db.up","status":"critical","message":"no\nanswer","host":"db-1","tags":["env:prod","b"]}
{"time":"2026-11-21T10:00:14Z","type":"service_check","check":"cache.up","status":"ok","message":"","host":"","tags":[]}
`},
		{textLines{}, `2026-11-21T10:00:11Z event Deployed: version 7'\n'by "ann" priority=low alert_type=success aggregation_key=deploy source_type=jenkins host=db-1 env:prod b
2026-11-21T10:00:12Z event Restarted priority=normal alert_type=info host=web-1
2026-11-21T10:00:13Z service_check db.up critical: no'\n'answer host=db-1 env:prod b
2026-11-21T10:00:14Z service_check cache.up ok
`},
	}
	for _, test := range tests {
		got, n := appendLines(nil, test.format, messages(), 0)
		if diff := cmp.Diff(test.want, string(got)); diff != "" || n != 4 {
			t.Errorf("%T: %d lines (-want +got):\n%s", test.format, n, diff)
		}
		// The rest of a batch, as after a first write.
		mixed, points := messages(), example()
		mixed.Series, mixed.Contexts, mixed.Sketches = points.Series, points.Contexts, points.Sketches
		rest, n := appendLines(nil, test.format, mixed, 6)
		if !strings.HasSuffix(test.want, string(rest)) || n != 3 {
			t.Errorf("%T: %d lines from 6:\n%s", test.format, n, rest)
		}
	}
}

// Whatever is in a message, it is one line, in JSON one that can be read, and
// Datadog gets the same.
func TestHostileMessages(t *testing.T) {
	for _, s := range hostile {
		for _, when := range []int64{1, math.MaxInt64, math.MinInt64} {
			b := &metric.Batch{
				Start: start, Interval: 10 * time.Second, AgentHost: s,
				Events: []metric.Event{{
					Title: s, Text: s, Time: when, Priority: "low", AlertType: "info", Host: s, AggregationKey: s, SourceType: s, Tags: []string{s, s},
				}},
				Checks: []metric.ServiceCheck{{Name: "n" + s, Time: when, Host: s, Message: s, Tags: []string{s}, Status: metric.CheckUnknown}},
			}
			lines, _ := appendLines(nil, jsonLines{}, b, 0)
			read := strings.Split(strings.TrimSuffix(string(lines), "\n"), "\n")
			if len(read) != 2 {
				t.Fatalf("%q makes %d lines", s, len(read))
			}
			var event struct {
				Time        time.Time
				Title, Text string
				Tags        []string
			}
			var check struct {
				Time                   time.Time
				Check, Message, Status string
			}
			want := toUTF8(s)
			if err := json.Unmarshal([]byte(read[0]), &event); err != nil || event.Title != want || event.Text != want || len(event.Tags) != 2 || event.Tags[1] != want {
				t.Errorf("%q is read back as %+v, %v", s, event, err)
			}
			if err := json.Unmarshal([]byte(read[1]), &check); err != nil || check.Check != "n"+want || check.Message != want || check.Status != "unknown" {
				t.Errorf("%q is read back as %+v, %v", s, check, err)
			}
			text, _ := appendLines(nil, textLines{}, b, 0)
			odd := func(r rune) bool { return r < ' ' && r != '\n' || r == 0x7f || r == utf8.RuneError || r == '\u2028' }
			if strings.Count(string(text), "\n") != 2 || strings.ContainsFunc(string(text), odd) {
				t.Errorf("%q is shown as %q", s, text)
			}
			if when != 1 {
				continue // Datadog has a say in that
			}
			intake := testkit.NewIntake(t)
			deliver(t, toDatadog(intake.URL), b)
			if len(intake.Problems()) > 0 || len(intake.Events()) != 1 || len(intake.Checks()) != 1 {
				t.Fatalf("%q: problems %q", s, intake.Problems())
			}
			e, c := intake.Events()[0], intake.Checks()[0]
			for _, got := range []string{e.Title, e.Text, e.Host, e.AggregationKey, e.SourceType, e.AgentHost, e.Tags[0], c.Name[1:], c.Host, c.Message, c.Tags[0]} {
				if got != want {
					t.Errorf("%q arrives as %q", s, got)
				}
			}
		}
	}
}

// toUTF8 replaces each byte that is no UTF-8.
func toUTF8(s string) string { return string([]rune(s)) }

// Lines of great length are written a few at a time.
func TestOneWriteIsBounded(t *testing.T) {
	b := messages()
	b.Checks = nil
	b.Events[0].Text = strings.Repeat("\x00", 100_000) // six bytes each
	for range 8 {
		b.Events = append(b.Events, b.Events[0])
	}
	longest := 0
	out := writerFunc(func(p []byte) (int, error) { longest = max(longest, len(p)); return len(p), nil })
	l := &logs{label: "logs", out: out, format: jsonLines{}, log: discard()}
	f := &Forwarder{destinations: []destination{l}, timeout: time.Minute, log: discard()}
	batches := make(chan *metric.Batch, 1)
	batches <- b
	close(batches)
	f.Run(batches)
	checkBooks(t, f)
	if s := f.Stats()[0]; s.Delivered != 10 || longest > bytesAtOnce+700_000 {
		t.Errorf("%d bytes in a write, stats = %+v", longest, s)
	}
}
