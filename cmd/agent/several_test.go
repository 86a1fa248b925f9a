package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-agent/weir/internal/testkit"
)

// A server of DogStatsD that is stopped for some intervals, as for an upgrade, gets every
// count and gauge of them, once, with the times they have in what goes to Datadog directly.
func TestARelaysServerIsUpgraded(t *testing.T) {
	for _, network := range []string{"unix_datagram", "unix_stream", "tcp"} {
		t.Run(network, func(t *testing.T) {
			direct, relayed := testkit.NewIntake(t), testkit.NewIntake(t)
			listen, scheme := filepath.Join(t.TempDir(), "s"), "unix"
			if network == "tcp" {
				listen, _ = freeTCPPorts(t)
				listen, scheme = "127.0.0.1:"+listen, "tcp"
			}
			server := func() *process {
				return start(t, build(t), "WEIR_FLUSH_INTERVAL=1s", "WEIR_HOSTNAME=relay", "WEIR_LISTEN_"+strings.ToUpper(network)+"="+listen,
					forwarders(toDatadog(relayed)))
			}
			second := server()
			first := start(t, build(t), "WEIR_FLUSH_INTERVAL=1s", "WEIR_HOSTNAME=source", forwarders(
				toDatadog(direct), fmt.Sprintf("{type: dogstatsd, address: '%s://%s', exclude: ['weir.*']}", scheme, listen)))
			intervals := func(name string, n int) {
				for i := range n {
					sendLines(t, first.address, fmt.Sprintf("%s.hits:%d|c", name, i+1), fmt.Sprintf("%s.level:%d.5|g", name, i), "took:5|d")
					before := len(direct.Points())
					eventually(t, "an interval has ended", func() bool { return len(direct.Points()) > before })
				}
			}
			intervals("before", 2)
			eventually(t, "the relay works", func() bool { return newTotals(relayed).counts["before.hits"] > 0 })
			if code := second.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			intervals("away", 3)
			second = server()
			intervals("after", 2)
			eventually(t, "the relay has caught up", func() bool {
				counts := newTotals(relayed).counts
				return near(counts["away.hits"], 6) && counts["after.hits"] > 0
			})
			if code := first.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if code := second.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			comparePoints(t, direct, relayed)
			if problems := relayed.Problems(); len(problems) > 0 {
				t.Errorf("problems: %q", problems)
			}
			if got := newTotals(relayed).counts["away.hits"]; !near(got, 6) {
				t.Errorf("away.hits = %v, want 6", got)
			}
		})
	}
}

// Several forwarders at once, of which two are dead: the others miss no interval, and the
// account says of each what became of its points.
func TestDeadForwardersCostTheOthersNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	live := testkit.NewIntake(t)
	p := start(t, build(t), "WEIR_FLUSH_INTERVAL=1s", "WEIR_SHUTDOWN_TIMEOUT=2s", forwarders(
		"{type: logs, output: '"+file+"', format: text}", toDatadog(live),
		"{type: datadog, api_key: "+testkit.APIKey+", url: 'http://127.0.0.1:1'}",
		"{type: dogstatsd, address: 'unix:///nowhere/at/all'}", "{type: discard}"))
	const n = 5
	for i := range n {
		sendLines(t, p.address, fmt.Sprintf("hits.%d:3|c", i), "took:5|d")
		eventually(t, "the live ones have the interval", func() bool {
			text, _ := os.ReadFile(file)
			return bytes.Contains(text, fmt.Appendf(nil, "rate hits.%d 3 ", i)) && near(newTotals(live).counts[fmt.Sprintf("hits.%d", i)], 3)
		})
	}
	if code := p.stop(t); code != 2 {
		t.Errorf("exit code %d, want 2: distributions for the relay are lost", code)
	}
	for forwarder, books := range map[string]string{
		"logs": `\d+ points = \d+ delivered \+ 0 dropped`, "datadog": `\d+ points = \d+ delivered \+ 0 dropped`, "discard": `\d+ points = \d+ delivered \+ 0 dropped`,
		"datadog.2": `\d+ points = 0 delivered \+ \d+ on disk \+ 0 dropped`,
		"dogstatsd": `\d+ points = 0 delivered \+ \d+ on disk \+ \d+ dropped \(.*\)`,
	} {
		if !regexp.MustCompile(`forwarder=` + forwarder + ` books="` + books + `"`).MatchString(p.log()) {
			t.Errorf("the account of %s is not %s:\n%s", forwarder, books, p.log())
		}
	}
}

// The API key is in nothing that the agent prints or writes, whatever goes wrong, but
// where it has to be; not even when it is killed with all its stacks.
func TestTheKeyIsNowhere(t *testing.T) {
	refusing := testkit.NewIntake(t)
	const wrong = "badbadbadbadbadbadbadbadbadbad00"
	folder := t.TempDir()
	settings := []string{
		"WEIR_FLUSH_INTERVAL=1s", "WEIR_LOG_LEVEL=debug", "WEIR_STATE_DIR=" + folder, "WEIR_SHUTDOWN_TIMEOUT=200ms", forwarders(
			"{type: datadog, api_key: " + testkit.APIKey + ", url: 'http://127.0.0.1:1', additional_endpoints: [{api_key: " + wrong + ", url: '" + refusing.URL + "'}, {api_key: " + wrong + ", url: 'http://no.such.host.invalid'}]}"),
	}
	shown := func(what, text string) {
		t.Helper()
		for _, key := range []string{testkit.APIKey, wrong} {
			if strings.Contains(text, key) {
				t.Errorf("%s shows a key:\n%s", what, text)
			}
		}
	}
	stdout, stderr, _ := execute(t, build(t), settings, "check")
	shown("weir check", stdout+stderr)
	stdout, stderr, code := execute(t, build(t), append(settings, "WEIR_FLUSH_INTERVAL=-1s", "DD_API_KEY="+wrong+" "+wrong, "WEIR_FORWARDERS=[{type: datadog, api_key: '"+wrong+" x', url: nonsense, site: '"+wrong+"/'}]"), "check")
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	shown("weir check", strings.ReplaceAll(stdout+stderr, `"`+wrong+`/"`, "")) // a site is quoted
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT} {
		p := start(t, build(t), settings...)
		sendLines(t, p.address, "a:1|c", "b:2|d", "bad line")
		eventually(t, "all has failed", func() bool {
			return strings.Contains(p.log(), "refuses the API key") && strings.Contains(p.log(), "API key is invalid") && strings.Contains(p.log(), "connection refused")
		})
		if err := p.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = p.wait(t)
		if signal == syscall.SIGQUIT && !strings.Contains(p.log(), "goroutine ") {
			t.Errorf("no stacks:\n%s", p.log())
		}
		shown("the agent", p.log()+p.output())
	}
	files := 0
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		shown(path, string(text))
		return err
	})
	if err != nil || files < 4 {
		t.Errorf("%d files on disk, %v", files, err)
	}
}
