package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/weir-agent/weir/analytics"
)

// eventSettings are those of an agent that counts the events of plan's tests, without
// waiting for a day to be over.
func eventSettings(state string) []string {
	return []string{
		"WEIR_STATE_DIR=" + state, "WEIR_FLUSH_INTERVAL=1s", "WEIR_ANALYTICS_DEFINITIONS=../../analytics/plan/testdata/sound",
		"WEIR_ANALYTICS_INCLUDE_TODAY=true", "WEIR_ANALYTICS_SAVE_INTERVAL=1s",
	}
}

// reported returns a metric's value as `weir events report` has it, NaN if it has none.
func reported(t *testing.T, binary, state, name string) float64 {
	t.Helper()
	stdout, _, code := execute(t, binary, nil, "events", "report", "--state", state, "--format", "json")
	var r analytics.Report
	if code != 0 || json.Unmarshal([]byte(stdout), &r) != nil {
		return math.NaN()
	}
	for _, v := range r.Values {
		if v.Name == name && v.Value != nil {
			return *v.Value
		}
	}
	return math.NaN()
}

// From a line to a counter without identities, a gauge of users, and a report.
func TestEventsAreCounted(t *testing.T) {
	binary, state := build(t), t.TempDir()
	p := start(t, binary, eventSettings(state)...)
	for i := range 50 {
		sendLines(t, p.address, fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,organization_id:7,plan:pro\nplain.metric:1|c|#user_id:%d", i%40, i%2))
	}
	eventually(t, "the gauge is on standard output", func() bool {
		return strings.Contains(p.output(), `"metric":"usage.teams.users.7d","type":"gauge","value":40,`)
	})
	eventually(t, "the report has it", func() bool { return reported(t, binary, state, "usage.teams.users.28d") == 40 })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.log())
	}
	created := 0.0
	for line := range strings.Lines(p.output()) {
		var point struct {
			Metric string
			Value  float64
			Tags   []string
		}
		if err := json.Unmarshal([]byte(line), &point); err != nil {
			t.Fatal(err)
		}
		if point.Metric == "team.created" {
			created += point.Value
			if tags := strings.Join(point.Tags, ","); tags != "plan:pro" {
				t.Errorf("the counter has tags %s", tags)
			}
		}
	}
	if created != 50 {
		t.Errorf("team.created = %v, want 50", created)
	}
	stdout, _, code := execute(t, binary, nil, "events", "report", "--state", state, "usage.teams.*")
	if code != 0 || !strings.Contains(stdout, "usage.teams.users.7d") || strings.Contains(stdout, "turnover") || !strings.Contains(stdout, "ok 50") {
		t.Errorf("exit code %d, report:\n%s", code, stdout)
	}
}

// Killed at any moment, the agent goes on with what it saved last.
func TestCountsSurviveKills(t *testing.T) {
	t.Parallel()
	binary, state := build(t), t.TempDir()
	settings := eventSettings(state)
	users := 0
	send := func(p *process, n int) {
		var packet []string
		for range n {
			packet = append(packet, fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,plan:pro", users))
			if users++; len(packet) == 20 {
				sendLines(t, p.address, strings.Join(packet, "\n"))
				packet = nil
			}
		}
	}
	const rounds, each = 6, 400
	for round := range rounds {
		p := start(t, binary, settings...)
		if strings.Contains(p.log(), "level=ERROR") {
			t.Fatalf("round %d:\n%s", round, p.log())
		}
		send(p, each)
		eventually(t, "the users are saved", func() bool {
			n := reported(t, binary, state, "usage.teams.users.7d")
			return n >= 0.98*float64(users) && n <= 1.02*float64(users)
		})
		saved := users
		before := written(t, state)
		send(p, 100)
		eventually(t, "they are being written", func() bool { return written(t, state).After(before) })
		if err := p.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-p.ended
		users = saved // those after it may be lost, and come again
	}
	p := start(t, binary, settings...)
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := reported(t, binary, state, "usage.teams.users.7d"); math.Abs(got-rounds*each) > 0.1*rounds*each || got < 0.98*rounds*each {
		t.Errorf("%v users are left, want %d and some that were not awaited", got, rounds*each)
	}
	if aside, _ := filepath.Glob(filepath.Join(state, "analytics", "*.damaged-*")); len(aside) > 0 {
		t.Errorf("a file was taken for damaged: %v", aside)
	}
}

// written returns when the file of counts was written last.
func written(t *testing.T, state string) time.Time {
	t.Helper()
	info, err := os.Stat(filepath.Join(state, "analytics", "counts.db"))
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// `weir check` reads the definitions, and a start with faulty ones says where they are.
func TestFaultyDefinitions(t *testing.T) {
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "events"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, "events", "x.yml")
	if err := os.WriteFile(file, []byte("event: Team Created\ndescriptoin: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "run"} {
		_, stderr, code := execute(t, build(t), []string{"WEIR_ANALYTICS_DEFINITIONS=" + folder}, command)
		if code != 1 || !strings.Contains(stderr, "x.yml:1") || !strings.Contains(stderr, "x.yml:2") {
			t.Errorf("%s: exit code %d, stderr:\n%s", command, code, stderr)
		}
	}
}

// eventRows returns the rows in the finished files of raw events.
func eventRows(t *testing.T, state string) (rows []string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(state, "events", "dt=*", "*.ndjson.gz"))
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		unpacked, err := gzip.NewReader(file)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(unpacked)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		rows = append(rows, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")...)
	}
	return rows
}

// Every line is a row; a kill -9 costs those of its last second, and leaves no file that
// cannot be read.
func TestRawEventsSurviveKills(t *testing.T) {
	binary, state := build(t), t.TempDir()
	p := start(t, binary, eventSettings(state)...)
	for i := range 50 {
		sendLines(t, p.address, fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,plan:pro", i%20))
	}
	torn := func() int64 {
		files, _ := filepath.Glob(filepath.Join(state, "events", "dt=*", "*.tmp"))
		size := int64(0)
		for _, path := range files {
			if info, err := os.Stat(path); err == nil {
				size += info.Size()
			}
		}
		return size
	}
	eventually(t, "all rows reached the system", func() bool {
		return strings.Contains(p.output(), `"metric":"weir.analytics.raw.rows.queued","type":"gauge","value":0,`) &&
			reported(t, binary, state, "usage.teams.users.7d") == 20 && torn() > 500
	})
	if rows := eventRows(t, state); len(rows) != 0 {
		t.Errorf("%d rows in a file that is finished already", len(rows))
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.ended
	p = start(t, binary, eventSettings(state)...)
	for i := range 30 {
		sendLines(t, p.address, fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,plan:pro", i%20))
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.log())
	}
	rows := eventRows(t, state)
	if len(rows) != 80 || torn() > 0 {
		t.Errorf("%d rows, want 80; %d bytes are not finished\n%s", len(rows), torn(), p.log())
	}
	ids := map[string]bool{}
	for _, text := range rows {
		var row struct {
			ID string `json:"event_id"`
		}
		if err := json.Unmarshal([]byte(text), &row); err != nil || ids[row.ID] {
			t.Errorf("row %s: %v", text, err)
		}
		ids[row.ID] = true
	}
}
