package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/internal/testkit"
)

// A report that is due while nobody is there is made at the next start, once; and
// `weir events report` knows the same formats.
func TestReportsAreMade(t *testing.T) {
	binary, state := build(t), t.TempDir()
	settings := append(eventSettings(state), `WEIR_ANALYTICS_REPORTS=[{name: each-minute, schedule: "* * * * *", formats: [json, html], compare: previous_period}]`)
	p := start(t, binary, settings...)
	sendLines(t, p.address, "analytics.team.created:1|c|#user_id:1,plan:pro")
	eventually(t, "the user is counted", func() bool { return reported(t, binary, state, "usage.teams.users.7d") == 1 })
	p.stop(t)
	// It was done for the last time three minutes ago.
	file := filepath.Join(state, "analytics", "reports.json")
	if _, err := os.Stat(file); err != nil {
		t.Fatal(err)
	}
	text := fmt.Appendf(nil, `{"each-minute":%q}`, time.Now().Add(-3*time.Minute).UTC().Format(time.RFC3339))
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p = start(t, binary, settings...)
	made := func() []string {
		files, _ := filepath.Glob(filepath.Join(state, "analytics", "reports", "each-minute-*.json"))
		return files
	}
	eventually(t, "reports are made", func() bool { return len(made()) >= 3 })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.log())
	}
	content, err := os.ReadFile(made()[0])
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Metrics struct {
			Usage struct {
				Teams struct {
					Users map[string]struct {
						Value    float64
						Previous *struct{ Value *float64 }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(content, &d); err != nil || d.Metrics.Usage.Teams.Users["7d"].Value != 1 || d.Metrics.Usage.Teams.Users["7d"].Previous == nil {
		t.Errorf("%v\n%s", err, content)
	}
	for format, want := range map[string]string{"csv": "usage.teams.users,7d,", "md": "| usage.teams.users.7d | 1 |", "html": "<td>usage.teams.users.7d<td>1<td>"} {
		if out, _, code := execute(t, binary, nil, "events", "report", "--state", state, "--format", format); code != 0 || !strings.Contains(out, want) {
			t.Errorf("%s: exit code %d\n%s", format, code, out)
		}
	}
}

// Of agents that share counts one makes a report of all.
func TestOneAgentReportsForAll(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	binary, folder := build(t), t.TempDir()
	var hosts []*process
	state := func(i int) string { return filepath.Join(folder, fmt.Sprintf("host-%d", i)) }
	missed := func(i int) { // it was done for the last time three minutes ago
		if err := os.MkdirAll(filepath.Join(state(i), "analytics"), 0o700); err != nil {
			t.Fatal(err)
		}
		text := fmt.Appendf(nil, `{"each-minute":%q}`, time.Now().Add(-3*time.Minute).UTC().Format(time.RFC3339))
		if err := os.WriteFile(filepath.Join(state(i), "analytics", "reports.json"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(i int) *process {
		missed(i)
		return start(t, binary, append(fleetSettings(state(i), server.Address), `WEIR_ANALYTICS_REPORTS=[{name: each-minute, schedule: "* * * * *"}]`)...)
	}
	for i := range 3 {
		hosts = append(hosts, run(i))
		sendLines(t, hosts[i].address, fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,plan:pro", i))
	}
	made := func() map[string]int {
		files := map[string]int{}
		for i := range hosts {
			all, _ := filepath.Glob(filepath.Join(state(i), "analytics", "reports", "*.json"))
			for _, file := range all {
				files[filepath.Base(file)]++
			}
		}
		return files
	}
	eventually(t, "reports are made", func() bool { return len(made()) >= 3 })
	for name, n := range made() {
		if n != 1 {
			t.Errorf("%s was made by %d hosts", name, n)
		}
	}
	for _, p := range hosts {
		if code := p.stop(t); code != 0 {
			t.Errorf("exit code %d\n%s", code, p.log())
		}
	}
	files, _ := filepath.Glob(filepath.Join(folder, "host-*", "analytics", "reports", "*.json"))
	content, err := os.ReadFile(files[0])
	if err != nil || !strings.Contains(string(content), `"expected": 3`) {
		t.Errorf("%v\n%s", err, content)
	}
}

// lockedBuffer may be written to and read at the same time.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// `weir events monitor` shows what comes while it runs, within seconds though counts are
// saved once an hour.
func TestMonitor(t *testing.T) {
	binary, state := build(t), t.TempDir()
	settings := append(eventSettings(state), "WEIR_ANALYTICS_SAVE_INTERVAL=1h")
	p := start(t, binary, settings...)
	sendLines(t, p.address, "analytics.team.created:1|c|#user_id:1,plan:pro")
	folder := filepath.Join(state, "analytics")
	eventually(t, "there is a report", func() bool {
		if err := analytics.Watch(folder); err != nil {
			t.Fatal(err)
		}
		return reported(t, binary, state, "usage.teams.users.7d") == 1
	})
	var out lockedBuffer
	monitor := newCommand()
	monitor.SetArgs([]string{"events", "monitor", "--state", state, "usage.teams.*"})
	monitor.SetOut(&out)
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- monitor.ExecuteContext(ctx) }()
	eventually(t, "the monitor shows a table", func() bool { return strings.Contains(out.String(), "METRIC") })
	sendLines(t, p.address, "analytics.team.created:1|c|#user_id:2,plan:pro", "analytics.team.created:1|c|#user_id:3,plan:pro", "analytics.team.created:1|c|#plan:pro")
	shows := func(words ...string) func() bool {
		return func() bool {
			for line := range strings.Lines(out.String()) {
				if strings.Join(strings.Fields(line), " ") == strings.Join(words, " ") {
					return true
				}
			}
			return false
		}
	}
	eventually(t, "it shows the metric before and now", shows("usage.teams.users.7d", "1", "3", "+2"))
	if text := out.String(); !strings.Contains(text, "ok 2, required_missing 1") || strings.Contains(text, "usage.turnover") {
		t.Errorf("it shows\n%s", text)
	}
	interrupt()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
