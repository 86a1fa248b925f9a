package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/metric"
)

// checkAgainst runs `weir check --against` on lines and returns what it prints.
func checkAgainst(t *testing.T, file, lines string, args ...string) (string, error) {
	t.Helper()
	folder := t.TempDir()
	capture, cfg := filepath.Join(folder, "capture.txt"), filepath.Join(folder, "weir.yaml")
	for name, text := range map[string]string{capture: lines, cfg: file} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	command := newCommand()
	command.SetOut(&out)
	command.SetErr(io.Discard) // what the environment has that is no setting
	command.SetArgs(append([]string{"check", "--config", cfg, "--against", capture}, args...))
	err := command.Execute()
	return strings.ReplaceAll(out.String(), folder+string(filepath.Separator), ""), err
}

func TestCheckAgainst(t *testing.T) {
	const file = `
hostname: h
rules:
  - {match: page.views, drop_tags: [request_id]}
  - {match: debug.*, drop: true}
  - {match: http.time, as: distribution}
cardinality: {cost: {per_100_metrics_month: 10}}
forwarders: [{type: discard}]
`
	var lines strings.Builder
	for i := range 100 {
		fmt.Fprintf(&lines, "page.views:1|c|#env:prod,request_id:%d\n", i)
	}
	lines.WriteString("debug.x:1|c\r\nhttp.time:5|ms|#route:a\n\nnot a metric\nlong:1|c|#x:" + strings.Repeat("y", 9000) + "\nlevel:1|g") // no end
	got, err := checkAgainst(t, file, lines.String())
	if err != nil {
		t.Fatal(err)
	}
	const want = `weir.yaml is valid
capture.txt: 105 lines, 2 rejected

  contexts  after  series  after  cost a month  after  metric
       100      1     100      1         10.00   0.10  page.views
         1      0       1      0          0.10   0.00  debug.x
         1      1       5      5          0.50   0.50  http.time
         1      1       1      1          0.10   0.10  level
       103      3     107      7         10.70   0.70  all of them

Before is the same lines without rules and guards. Costs assume 10.00 a month for 100 series (cardinality.cost), and every hour to be like the capture.
Samples: 103, of which 0 sampled out
Refused: 1 (dropped_by_rule)
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestCheckAgainstShowsTheLargestDifferences(t *testing.T) {
	var lines strings.Builder
	for i := range rowsShown + 5 {
		fmt.Fprintf(&lines, "m%03d:1|c\n", i)
	}
	few, err := checkAgainst(t, "forwarders: [{type: discard}]", lines.String())
	if err != nil || strings.Contains(few, "m044") || !strings.Contains(few, "(5 more; --all shows them)") {
		t.Errorf("%v\n%s", err, few)
	}
	all, err := checkAgainst(t, "forwarders: [{type: discard}]", lines.String(), "--all")
	if err != nil || !strings.Contains(all, "m044") {
		t.Errorf("with --all: %v\n%s", err, all)
	}
}

func TestCheckAgainstFaults(t *testing.T) {
	if _, err := checkAgainst(t, "forwarders: [{type: discard}]", "", "--over", "0s"); err == nil || !strings.Contains(err.Error(), "--over") {
		t.Errorf("--over 0s: %v", err)
	}
	if _, err := checkAgainst(t, "rules: [{drop: true}]", "a:1|c"); err == nil || !strings.Contains(err.Error(), "rules[0].match") {
		t.Errorf("a fault in the configuration: %v", err)
	}
	if _, err := compare(t.TempDir(), config.Default(), time.Minute); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Errorf("a folder: %v", err)
	}
	if _, err := compare(filepath.Join(t.TempDir(), "none"), config.Default(), time.Minute); !os.IsNotExist(err) {
		t.Errorf("no file: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := compare(empty, config.Default(), time.Minute); err != nil || c.lines != 0 {
		t.Errorf("an empty file: %v, %v", c, err)
	}
}

// The guards act while the lines come, as in an agent that runs as long.
func TestCheckAgainstTellsOfFolds(t *testing.T) {
	var lines strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&lines, "page.views:1|c|#route:/%d,request_id:%d\n", i%7, i)
	}
	got, err := checkAgainst(t, "cardinality: {max_contexts_per_metric: 1000}\nforwarders: [{type: discard}]", lines.String())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(got, "The tag key request_id of counter page.views") {
		t.Errorf("it does not say what is folded:\n%s", got)
	}
}

// TestDefaultsOnACapture takes the lines of real clients of a large service through the
// configuration as it comes: metrics with a tag that explodes are cut, by that tag, and
// all others stay what they are.
func TestDefaultsOnACapture(t *testing.T) {
	capture := filepath.Join(t.TempDir(), "capture.txt")
	generator := exec.Command("go", "run", "../../bench/capture", "-modules", clientsFolder, "-calls", "220000", "-out", capture)
	if text, err := generator.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	list, err := exec.Command("go", "run", "../../bench/capture", "-list").Output()
	if err != nil {
		t.Fatal(err)
	}
	c, err := compare(capture, config.Default(), 5*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	for model := range strings.Lines(string(list)) {
		name, guilty, _ := strings.Cut(strings.TrimSpace(model), " ")
		before, after := c.before.counts(name), c.after.counts(name)
		var folded []string
		for _, e := range c.after.decisions {
			if strings.HasSuffix(e.Title, ": "+name) {
				folded = append(folded, keyOfEvent(e))
			}
		}
		if guilty == "" {
			good++
			if before != after || before.contexts == 0 || folded != nil {
				t.Errorf("%s, which has no guilty tag: %v became %v, folded: %v", name, before, after, folded)
			}
			continue
		}
		bad++
		// Until the limit is reached, contexts are its own.
		limit := config.Default().Cardinality.MaxContextsPerMetric
		if before.contexts <= limit+limit/10 || after.contexts > limit+limit/10 {
			t.Errorf("%s: %d contexts became %d, and the limit is %d", name, before.contexts, after.contexts, limit)
		}
		if want := strings.Split(guilty, ","); !sameSet(folded, want) {
			t.Errorf("%s: folded %q, want %q", name, folded, want)
		}
	}
	if good < 300 || bad != 4 {
		t.Errorf("the capture has %d good metrics and %d bad ones", good, bad)
	}
}

func keyOfEvent(e metric.Event) string {
	for _, tag := range e.Tags {
		if key, ok := strings.CutPrefix(tag, "tag_key:"); ok {
			return key
		}
	}
	return ""
}

func sameSet(a, b []string) bool {
	set := map[string]bool{}
	for _, s := range b {
		set[s] = true
	}
	for _, s := range a {
		if !set[s] {
			return false
		}
		delete(set, s)
	}
	return len(set) == 0
}
