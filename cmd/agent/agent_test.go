package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

func sendLines(t *testing.T, address string, lines ...string) {
	t.Helper()
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, line := range lines {
		if _, err := conn.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
}

// What README.md promises: no account, no server, no file; `weir send` from
// another shell; JSON lines on standard output, and nothing else there.
func TestFirstSteps(t *testing.T) {
	binary := build(t)
	p := start(t, binary, "WEIR_FLUSH_INTERVAL=1s", "WEIR_HOSTNAME=web-1")
	if _, stderr, code := execute(t, binary, nil, "send", "--to", p.address, "page.views:1|c|#env:dev", "load:0.7|g"); code != 0 {
		t.Fatalf("weir send: exit code %d\n%s", code, stderr)
	}
	found := func(want string) bool { return strings.Contains(p.output(), want) }
	eventually(t, "both metrics are on standard output", func() bool {
		return found(`"metric":"page.views","type":"rate","value":1,"interval":1,"host":"web-1","tags":["env:dev"]}`) &&
			found(`"metric":"load","type":"gauge","value":0.7,"interval":1,"host":"web-1","tags":[]}`)
	})
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	for _, line := range strings.Split(strings.TrimSpace(p.output()), "\n") {
		var point struct {
			Time   time.Time
			Metric string
			Type   string
		}
		if err := json.Unmarshal([]byte(line), &point); err != nil || point.Metric == "" || point.Time.IsZero() || point.Type == "" {
			t.Errorf("not a point on standard output: %s (%v)", line, err)
		}
	}
	if !strings.Contains(p.log(), "the final account") || !strings.Contains(p.log(), "received=2 rejected=0 samples=2") {
		t.Errorf("the final account is missing:\n%s", p.log())
	}
}

// SIGTERM and SIGINT flush the open interval, however long it still is.
func TestTheOpenIntervalIsFlushedAtTheEnd(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"SIGTERM": syscall.SIGTERM, "SIGINT": syscall.SIGINT} {
		t.Run(name, func(t *testing.T) {
			intake := testkit.NewIntake(t)
			p := start(t, build(t), append(toIntake(intake), "WEIR_FLUSH_INTERVAL=10m", "WEIR_EXPIRY_CONTEXT=1h")...)
			sendLines(t, p.address, "last.words:3|c")
			if err := p.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if got := newTotals(intake).counts["last.words"]; !near(got, 3) {
				t.Errorf("last.words = %v, want 3", got)
			}
		})
	}
}

// With an intake that is down what is left goes to the spool, and nothing is lost. An
// agent without a spool waits for the shutdown timeout and ends with exit code 2; a
// second signal does not wait for it.
func TestShutdownWithTheIntakeDown(t *testing.T) {
	settings := []string{"WEIR_FLUSH_INTERVAL=1s", "DD_API_KEY=" + testkit.APIKey, "DD_URL=http://127.0.0.1:1"}
	t.Run("with a spool", func(t *testing.T) {
		var up atomic.Bool
		intake := testkit.NewIntake(t)
		intake.Fault = func(*http.Request) int {
			if up.Load() {
				return 0
			}
			return http.StatusServiceUnavailable
		}
		settings := append(toIntake(intake), "WEIR_STATE_DIR="+t.TempDir(), "WEIR_SHUTDOWN_TIMEOUT=10m")
		p := start(t, build(t), settings...)
		sendLines(t, p.address, "a:1|c")
		if code := p.stop(t); code != 0 {
			t.Errorf("exit code %d, want 0: what is on disk is not lost", code)
		}
		if !regexp.MustCompile(`forwarder=datadog books="(\d+) points = 0 delivered \+ (\d+) on disk \+ 0 dropped"`).MatchString(p.log()) {
			t.Error("the final account does not say what is on disk")
		}
		up.Store(true)
		p = start(t, build(t), settings...)
		eventually(t, "the next agent delivers it", func() bool { return near(newTotals(intake).counts["a"], 1) })
		_ = p.stop(t)
	})
	settings = append(settings, "WEIR_SPOOL_ENABLED=false")
	t.Run("one signal", func(t *testing.T) {
		p := start(t, build(t), append(settings, "WEIR_SHUTDOWN_TIMEOUT=100ms")...)
		sendLines(t, p.address, "a:1|c")
		if code := p.stop(t); code != 2 {
			t.Errorf("exit code %d, want 2", code)
		}
		if !strings.Contains(p.log(), "dropped_shutdown=") {
			t.Error("the final account does not say what was lost")
		}
	})
	t.Run("two signals", func(t *testing.T) {
		p := start(t, build(t), append(settings, "WEIR_SHUTDOWN_TIMEOUT=10m")...)
		sendLines(t, p.address, "a:1|c")
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the agent is stopping", func() bool { return strings.Contains(p.log(), "stopping") })
		_ = p.stop(t)
		if status := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGTERM {
			t.Errorf("ended with %v, want by the second signal", p.cmd.ProcessState)
		}
	})
}

// A reader that goes away, as in `weir | head -1`, is an error of the logs
// forwarder: the agent goes on, and says so.
func TestStandardOutputIsClosed(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startWith(t, build(t), func(cmd *exec.Cmd) { cmd.Stdout = w }, "WEIR_FLUSH_INTERVAL=1s")
	w.Close()
	r.Close()
	eventually(t, "the log tells it", func() bool { return strings.Contains(p.log(), "writing failed") })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if !strings.Contains(p.log(), "dropped_write_error=") {
		t.Error("the final account does not say what was lost")
	}
}

// A standard error that nobody reads stops nothing.
func TestStandardErrorIsNotRead(t *testing.T) {
	intake := testkit.NewIntake(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(build(t))
	port := freePort(t)
	cmd.Env = environ(append(toIntake(intake), "WEIR_LISTEN_UDP="+port, "WEIR_LOG_LEVEL=debug")...)
	cmd.Stderr = w
	// Fill the pipe, so that the first line of the log blocks.
	if err := w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(make([]byte, 1<<20))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	w.Close()
	eventually(t, "metrics arrive", func() bool {
		conn, err := net.Dial("udp", port)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("a:1|c\nbad"))
		return newTotals(intake).counts["a"] > 0
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the agent does not end")
	}
}

// freePort returns a UDP address that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

func TestListeningFails(t *testing.T) {
	binary := build(t)
	taken := start(t, binary)
	for name, test := range map[string]struct{ udp, want string }{
		"port taken":      {taken.address, "is taken"},
		"foreign address": {"192.0.2.1:8125", "does not have that address"},
		"no such host":    {"no.such.host.invalid:8125", "look up"},
		"port range":      {"127.0.0.1:81250", "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, engine := range []string{"auto", "gnet"} {
				stdout, stderr, code := execute(t, binary, []string{"WEIR_LISTEN_UDP=" + test.udp, "WEIR_LISTEN_ENGINE=" + engine})
				if code != 1 || !strings.Contains(stderr, test.want) || stdout != "" {
					t.Errorf("%s: exit code %d, want 1; stdout %q; stderr %q does not say %q", engine, code, stdout, stderr, test.want)
				}
			}
		})
	}
}

func TestCheckReportsAllFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte(`listen:
  udp: 127.0.0.1:81250
flush_intervall: 10s
expiry:
  context: 5min
forwarders:
  - type: datadogg
`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stderr, code := execute(t, build(t), nil, "check", "--config", file)
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{
		"4 faults",
		file + ":2: listen.udp: port 81250 is out of range; use 1 to 65535",
		file + ":3: flush_intervall: there is no such key; did you mean flush_interval?",
		file + `:5: expiry.context: "5min" is not a duration; write a number with a unit, such as`,
		file + `:7: forwarders[0].type: there is no forwarder of type "datadogg"; use one of logs, datadog`,
	} {
		if !strings.Contains(stderr, want) {
			t.Errorf("it does not say %q:\n%s", want, stderr)
		}
	}
	stdout, stderr, code := execute(t, build(t), nil, "check", "--config", "../../config.example.yaml")
	if code != 0 || !strings.Contains(stdout, "is valid") {
		t.Errorf("the example: exit code %d\n%s%s", code, stdout, stderr)
	}
}

func TestSendToNobody(t *testing.T) {
	_, stderr, code := execute(t, build(t), nil, "send", "--to", "127.0.0.1:1", "a:1|c")
	if code != 1 || !strings.Contains(stderr, "nobody listens") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	if stdout, _, code := execute(t, build(t), nil, "version"); code != 0 || !strings.HasPrefix(stdout, "weir ") {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
}

// Whatever comes in, the agent goes on, the neighbours' samples are untouched,
// and each line is in the books under its reason.
func TestBadInputIsCountedByReason(t *testing.T) {
	intake := testkit.NewIntake(t)
	p := start(t, build(t), append(toIntake(intake), "WEIR_LOG_LEVEL=debug")...)
	bad := map[string][]string{
		"no_kind":           {"nonsense", "a:1"},
		"no_name":           {":1|c"},
		"no_value":          {"a:|g", "a|c"},
		"unknown_kind":      {"a:1|zz"},
		"bad_value":         {"a:abc|g", "a:1,2|d"},
		"value_not_finite":  {"a:NaN|g", "a:1:inf|c"},
		"bad_rate":          {"a:1|c|@x"},
		"rate_out_of_range": {"a:1|c|@0", "a:1|c|@Infinity", "a:1|c|@2"},
		"bad_event":         {"_e{50,4}:title|text"},
		"bad_service_check": {"_sc|name|7"},
		"bad_timestamp":     {"a:1|c|T0"},
		"truncated":         {strings.Repeat("x", 9000)},
	}
	good, lines := 0, 0
	for _, examples := range bad {
		for _, line := range examples {
			sendLines(t, p.address, "good:1|c\n"+line, "\x00\xff\xfe:1|c|#\x01\n\r\n")
			good++
			lines += 3
		}
	}
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	totals := newTotals(intake)
	if got := totals.counts["good"]; !near(got, float64(good)) { // the one in the cut datagram, too
		t.Errorf("good = %v, want %d", got, good)
	}
	for reason, examples := range bad {
		if got := totals.counts["weir.lines.rejected reason:"+reason]; !near(got, float64(len(examples))) {
			t.Errorf("rejected for %s: %v, want %d", reason, got, len(examples))
		}
	}
	if got := totals.counts["weir.lines"]; !near(got, float64(lines)) {
		t.Errorf("weir.lines = %v, want %d", got, lines)
	}
	if !strings.Contains(p.log(), "rejected a line") {
		t.Error("at debug, no rejected line is shown")
	}
	if problems := intake.Problems(); len(problems) > 0 {
		t.Errorf("the intake found: %q", problems)
	}
}

// totals is what the intake made of everything it got.
type totals struct {
	counts   map[string]float64 // rates times interval, by "metric tag tag"
	gauges   map[string]float64 // the last value
	last     map[string]int64
	sketches map[string][]testkit.Sketch
}

func newTotals(intake *testkit.Intake) totals {
	t := totals{map[string]float64{}, map[string]float64{}, map[string]int64{}, map[string][]testkit.Sketch{}}
	for _, p := range intake.Points() {
		key := strings.TrimSpace(p.Metric + " " + strings.Join(p.Tags, " "))
		if p.Type == "rate" {
			t.counts[key] += p.Value * float64(p.Interval)
		} else if p.Time >= t.last[key] {
			t.gauges[key], t.last[key] = p.Value, p.Time
		}
	}
	for _, s := range intake.Sketches() {
		key := strings.TrimSpace(s.Metric + " " + strings.Join(s.Tags, " "))
		t.sketches[key] = append(t.sketches[key], s)
	}
	return t
}

// near allows for the rounding of a sum of rates.
func near(got, want float64) bool {
	return math.Abs(got-want) <= 1e-6*math.Abs(want)+1e-9
}

// Two points with the same series and time would overwrite each other at the
// intake.
func checkNoPointTwice(t *testing.T, intake *testkit.Intake) {
	t.Helper()
	seen := map[string]bool{}
	for _, p := range intake.Points() {
		id := fmt.Sprint(p.Key(), p.Time)
		if seen[id] {
			t.Errorf("two points of %s %v at %d", p.Metric, p.Tags, p.Time)
		}
		seen[id] = true
	}
}
