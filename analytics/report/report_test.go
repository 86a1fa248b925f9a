package report

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

// values is a Source with two metrics, one of which has no value.
type values struct {
	asked []time.Time
	err   error
}

func (v *values) Rows(_ context.Context, q Query) (rows []Row, hosts Hosts, err error) {
	v.asked = append(v.asked, q.At)
	seven, five := 7.0, 5.0
	for _, keyPath := range []string{"usage.teams.users", "usage.teams", "usage.other"} {
		if !q.Matches(keyPath) {
			continue
		}
		r := Row{
			KeyPath: keyPath, Name: keyPath + ".7d", Frame: "7d", Window: "rolling", Timezone: "UTC", First: "2026-03-02", Last: "2026-03-08",
			Value: &seven, Status: "ok", Error: 0.0081, Days: 7, Observed: 6, Revision: 2, Scope: "host",
			Daily: []Daily{{"2026-03-07", &five}, {"2026-03-08", nil}},
		}
		if q.Previous {
			r.Previous = &Row{Name: r.Name, First: "2026-02-23", Last: "2026-03-01", Value: &five, Status: "ok"}
		}
		if keyPath == "usage.other" {
			r.Value, r.Status, r.Description = nil, "overflow", "<script>alert(1)</script>"
		}
		rows = append(rows, r)
	}
	return rows, Hosts{Seen: 19, Expected: 20}, v.err
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04", text)
	if err != nil {
		panic(err)
	}
	return t
}

func newReporter(t *testing.T, folder string, v *values, all ...Config) *Reporter {
	t.Helper()
	if err := Validate("analytics.reports", all); err != nil {
		t.Fatal(err)
	}
	r, err := New(all, v, nil, "web-1", folder, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files returns the names of a folder's files.
func files(t *testing.T, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// A report is made once for each time of its schedule, in its zone, also for those that
// passed while the agent was down.
func TestSchedule(t *testing.T) {
	state, v := t.TempDir(), &values{}
	daily := Config{Name: "daily", Schedule: "30 2 * * *", Timezone: "Europe/Berlin"}
	r := newReporter(t, state, v, daily)
	reports := filepath.Join(state, "reports")
	r.tick(t.Context(), at("2026-03-27 12:00"))
	if got := files(t, reports); len(got) != 0 {
		t.Errorf("made before it was due: %v", got)
	}
	r.tick(t.Context(), at("2026-03-28 01:30"))
	r.tick(t.Context(), at("2026-03-28 01:31"))
	if got := files(t, reports); !slices.Equal(got, []string{"daily-20260328T013000Z.json"}) {
		t.Errorf("made: %v", got)
	}
	// On the 29th clocks go from 2 to 3 in Berlin: there is no 2:30, and one report.
	r = newReporter(t, state, v, daily)
	r.tick(t.Context(), at("2026-03-31 12:00"))
	r = newReporter(t, state, v, daily)
	r.tick(t.Context(), at("2026-03-31 12:01"))
	got := files(t, reports)
	if len(got) != 4 || got[2] != "daily-20260330T003000Z.json" || got[3] != "daily-20260331T003000Z.json" || !strings.HasPrefix(got[1], "daily-20260329T0") {
		t.Errorf("made: %v", got)
	}
	if len(v.asked) != 4 || !v.asked[3].Equal(at("2026-03-31 00:30")) {
		t.Errorf("asked for values as of %v", v.asked)
	}
	// A year without weir is not made up for as a whole.
	r.tick(t.Context(), at("2027-03-31 12:00"))
	if got := files(t, reports); len(got) != 4+maxCatchUp || got[len(got)-1] != "daily-20270331T003000Z.json" || r.skipped.Load() == 0 {
		t.Errorf("%d made, the last %s; %d skipped", len(got), got[len(got)-1], r.skipped.Load())
	}
	// A clock that was a year ahead does not stop reports for a year.
	r.tick(t.Context(), at("2026-04-01 12:00"))
	r.tick(t.Context(), at("2026-04-02 12:00"))
	if got := files(t, reports); !slices.Contains(got, "daily-20260402T003000Z.json") {
		t.Errorf("made: %v", got)
	}
}

// shared is what hosts know of each other.
type shared struct {
	done  map[string]time.Time
	maker int
	err   error
}

// hostOf is one of them.
type hostOf struct {
	*shared
	number int
}

func (h hostOf) Done(_ context.Context, report string) (time.Time, bool, error) {
	return h.done[report], h.number == h.maker, h.err
}

func (h hostOf) SetDone(_ context.Context, report string, period time.Time) error {
	if h.err == nil {
		h.done[report] = period
	}
	return h.err
}

// Of hosts that share counts one makes a report, another one goes on where it ended, and
// what nobody can know waits.
func TestOneHostMakesAReport(t *testing.T) {
	daily := Config{Name: "daily", Schedule: "0 6 * * *"}
	all, v := &shared{done: map[string]time.Time{}}, &values{}
	states := []string{t.TempDir(), t.TempDir(), t.TempDir()}
	host := func(i int) *Reporter {
		r := newReporter(t, states[i], v, daily, Config{Name: "own", Schedule: "0 6 * * *", Scope: ScopeHost})
		r.fleet = hostOf{all, i}
		return r
	}
	hosts := []*Reporter{host(0), host(1)}
	tick := func(moment string) {
		for _, r := range hosts {
			r.tick(t.Context(), at(moment))
		}
	}
	want := func(number int, name string, count int) {
		t.Helper()
		n := 0
		for _, file := range files(t, filepath.Join(states[number], "reports")) {
			if strings.HasPrefix(file, name) {
				n++
			}
		}
		if n != count {
			t.Errorf("host %d made %s %d times, want %d", number, name, n, count)
		}
	}
	tick("2026-03-01 12:00")
	tick("2026-03-02 12:00")
	want(0, "daily", 1)
	want(1, "daily", 0)
	want(1, "own", 1)

	t.Log("no host can be asked")
	all.err = io.ErrUnexpectedEOF
	tick("2026-03-03 12:00")
	want(0, "daily", 1)
	want(0, "own", 2)

	t.Log("another host makes what was left")
	all.err, all.maker = nil, 1
	tick("2026-03-04 12:00")
	want(0, "daily", 1)
	want(1, "daily", 2)

	t.Log("a new host makes what all the others were away for")
	hosts = append(hosts[:0], host(2))
	all.maker = 2
	tick("2026-03-06 12:00")
	want(2, "daily", 2)
	want(2, "own", 0)

	t.Log("values that cannot be had are asked for again")
	v.err = io.ErrUnexpectedEOF
	tick("2026-03-07 12:00")
	want(2, "daily", 2)
	v.err = nil
	tick("2026-03-07 12:01")
	want(2, "daily", 3)
	if got := all.done["daily"]; !got.Equal(at("2026-03-07 06:00")) {
		t.Errorf("done is %v", got)
	}
}

// Every format has every number, and a value that there is not is none.
func TestFormats(t *testing.T) {
	state := t.TempDir()
	r := newReporter(t, state, &values{}, Config{Name: "weekly-usage", Schedule: "0 6 * * MON", Compare: PreviousPeriod, Formats: Formats})
	r.tick(t.Context(), at("2026-03-08 12:00"))
	r.tick(t.Context(), at("2026-03-09 06:00"))
	text := map[string]string{}
	for _, name := range files(t, filepath.Join(state, "reports")) {
		path := filepath.Join(state, "reports", name)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
		text[strings.TrimPrefix(filepath.Ext(name), ".")] = string(content)
	}
	if len(text) != len(Formats) {
		t.Fatalf("formats: %v", text)
	}
	var document struct {
		Metrics struct {
			Usage struct {
				Teams struct {
					Own   Row `json:"7d"`
					Users struct {
						Week Row `json:"7d"`
					}
				}
				Other map[string]map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(text[JSON]), &document); err != nil {
		t.Fatal(err)
	}
	u := document.Metrics.Usage
	if w := u.Teams.Users.Week; *w.Value != 7 || *w.Previous.Value != 5 || w.Error != 0.0081 || w.Revision != 2 || w.Observed != 6 || w.First != "2026-03-02" || *u.Teams.Own.Value != 7 {
		t.Errorf("JSON: %+v", w)
	}
	if o := u.Other["7d"]; o["value"] != nil || o["status"] != "overflow" {
		t.Errorf("JSON of no value: %v", o)
	}
	lines, err := csv.NewReader(strings.NewReader(text[CSV])).ReadAll()
	if err != nil || len(lines) != 4 || strings.Join(lines[1], ",") != "usage.teams.users,7d,2026-03-02,2026-03-08,UTC,7,ok,2026-02-23,2026-03-01,5,2,0.0081,7,6,false,false,2,host" || lines[3][5] != "" || lines[3][6] != "overflow" {
		t.Errorf("CSV: %v, %v", lines, err)
	}
	want := "| usage.teams.users.7d | 7 | ±0.8 % | 5 | +2 (+40.0 %) | 2026-03-02 to 2026-03-08 UTC | 6 of 7 days observed, revision 2, late events may change it |\n"
	if !strings.Contains(text[Markdown], want) || !strings.Contains(text[Markdown], "| usage.other.7d | none: overflow |") {
		t.Errorf("Markdown:\n%s", text[Markdown])
	}
	page := text[HTML]
	if strings.Count(page, "<svg") != 3 || !strings.Contains(page, `<title>2026-03-07: 5</title>`) || !strings.Contains(page, `class="none"`) || strings.Contains(page, "<script") {
		t.Errorf("HTML:\n%s", page)
	}
	start := strings.Index(page, "<svg")
	if err := xml.Unmarshal([]byte(page[start:strings.Index(page, "</svg>")+len("</svg>")]), new(struct{})); err != nil {
		t.Errorf("SVG: %v", err)
	}
}

func TestMetricsAreChosen(t *testing.T) {
	for _, test := range []struct {
		pattern string
		want    []string
	}{
		{"usage.teams.*", []string{"usage.teams.users"}}, {"usage.*", []string{"usage.teams", "usage.other"}}, {"usage.teams", []string{"usage.teams"}}, {"nothing", nil},
	} {
		c := Config{Metrics: []string{test.pattern}}
		var got []string
		rows, _, _ := (&values{}).Rows(t.Context(), Query{At: time.Now(), Matches: c.matches})
		for _, r := range rows {
			got = append(got, r.KeyPath)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.pattern, got, test.want)
		}
	}
}

// The newest periods' files are kept.
func TestKeep(t *testing.T) {
	state := t.TempDir()
	r := newReporter(t, state, &values{}, Config{Name: "a", Schedule: "@daily", Keep: 3}, Config{Name: "a-b", Schedule: "@daily"})
	for i := range 10 {
		r.tick(t.Context(), at("2026-03-08 12:00").AddDate(0, 0, i))
	}
	got := files(t, filepath.Join(state, "reports"))
	if len(got) != 3+9 || got[0] != "a-20260315T000000Z.json" {
		t.Errorf("left: %v", got)
	}
}

// A webhook gets each period once it takes it; a failure is tried again, a refusal is
// not, and no log shows the URL.
func TestWebhook(t *testing.T) {
	var answers []int
	var bodies []string
	var headers []http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		answer := 200
		if len(answers) > 0 {
			answer, answers = answers[0], answers[1:]
		}
		if r.URL.Path != "/hook" {
			t.Errorf("path %s", r.URL.Path)
		}
		if answer == 302 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(answer)
		if answer == 200 {
			bodies, headers = append(bodies, string(body)), append(headers, r.Header)
		}
	}))
	defer server.Close()
	state := t.TempDir()
	var log strings.Builder
	c := Config{Name: "daily", Schedule: "@daily", Webhook: "http://127.0.0.1:1/hook?token=t0ken", Secret: "s3cret"}
	r := newReporter(t, state, &values{}, c)
	r.log = slog.New(slog.NewTextHandler(&log, nil))
	now := at("2026-03-08 12:00")
	r.tick(t.Context(), now)
	now = now.AddDate(0, 0, 1)
	r.tick(t.Context(), now) // nobody is there
	r.jobs[0].Webhook = metric.Secret(server.URL + "/hook?token=t0ken")
	answers = []int{503, 429}
	r.tick(t.Context(), now) // too early
	if len(answers) != 2 {
		t.Error("it was tried again at once")
	}
	for range 4 {
		now = now.Add(time.Minute)
		r.tick(t.Context(), now)
	}
	if len(bodies) != 1 || r.made.Load() != 1 || r.retries.Load() != 3 {
		t.Fatalf("%d delivered, %d made, %d retries", len(bodies), r.made.Load(), r.retries.Load())
	}
	m := hmac.New(sha256.New, []byte("s3cret"))
	m.Write([]byte(bodies[0]))
	if h := headers[0]; h.Get("Weir-Signature") != "sha256="+hex.EncodeToString(m.Sum(nil)) || h.Get("Idempotency-Key") != "daily/2026-03-09T00:00:00Z" || h.Get("Content-Type") != "application/json" {
		t.Errorf("headers: %v", h)
	}
	for i, refusal := range []int{404, 302} {
		answers = []int{refusal}
		now = now.AddDate(0, 0, 1)
		r.tick(t.Context(), now)
		r.tick(t.Context(), now.Add(time.Hour))
		if len(bodies) != 1 || r.failed.Load() != uint64(i+1) {
			t.Errorf("after %d: %d delivered, %d given up", refusal, len(bodies), r.failed.Load())
		}
	}
	if strings.Contains(log.String(), "t0ken") || strings.Contains(log.String(), "s3cret") {
		t.Errorf("a secret in the log:\n%s", log.String())
	}
	if got := files(t, state); !slices.Equal(got, []string{stateName}) {
		t.Errorf("files: %v", got)
	}
	stopped, stop := context.WithCancel(t.Context())
	stop()
	r.tick(stopped, now.AddDate(0, 0, 1))
	if r.made.Load() != 1 {
		t.Error("a reporter that is stopped goes on")
	}
}

func TestValidate(t *testing.T) {
	good := Config{Name: "a", Schedule: "0 6 * * MON"}
	for key, change := range map[string]func(*Config){
		"name": func(c *Config) { c.Name = "../a" }, "schedule": func(c *Config) { c.Schedule = "whenever" },
		"timezone": func(c *Config) { c.Timezone = "Mars" }, "metrics[0]": func(c *Config) { c.Metrics = []string{"["} },
		"compare": func(c *Config) { c.Compare = "last year" }, "formats[1]": func(c *Config) { c.Formats = []string{"json", "pdf"} },
		"keep": func(c *Config) { c.Keep = -1 }, "webhook": func(c *Config) { c.Webhook = "ftp://x" }, "secret": func(c *Config) { c.Secret = "x" },
	} {
		c := good
		change(&c)
		if err := Validate("analytics.reports", []Config{c}); err == nil || !strings.HasPrefix(err.Error(), "analytics.reports[0]."+key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
	for _, schedule := range []string{"@every 1h", "CRON_TZ=UTC 0 6 * * *", "0 0 31 2 *", ""} {
		if err := Validate("r", []Config{{Name: "a", Schedule: schedule}}); err == nil {
			t.Errorf("schedule %q is taken", schedule)
		}
	}
	many := make([]Config, maxReports+1)
	for i := range many {
		many[i] = Config{Name: "r" + strconv.Itoa(i), Schedule: "@daily"}
	}
	if err := Validate("r", many[1:]); err != nil {
		t.Errorf("as many as are allowed: %v", err)
	}
	if err := Validate("r", many); err == nil || !strings.Contains(err.Error(), "use 100 at most") {
		t.Errorf("one too many: %v", err)
	}
	if err := Validate("r", []Config{{Name: "a", Schedule: "@daily", Timezone: "Local"}}); err == nil {
		t.Error("the zone of whoever runs it is taken")
	}
	both := Config{Folder: "/reports", Webhook: "http://127.0.0.1"}
	if got := both.folder("state"); got != "/reports" {
		t.Errorf("with a webhook as well, files go to %q", got)
	}
	if err := Validate("r", []Config{good, good}); err == nil {
		t.Error("two reports of one name are taken")
	}
}
