package main

import (
	"bytes"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/internal/testkit"
)

// forwarders is the setting for several of them.
func forwarders(all ...string) string {
	return "WEIR_FORWARDERS=[" + strings.Join(all, ", ") + "]"
}

func toDatadog(intake *testkit.Intake) string {
	return fmt.Sprintf("{type: datadog, api_key: %s, url: '%s', exclude: ['weir.*']}", testkit.APIKey, intake.URL)
}

// sendEverything sends some of all that there is.
func sendEverything(t *testing.T, address string) {
	t.Helper()
	now := time.Now().Unix()
	lines := []string{
		"hits:3|c|#env:a", "sampled:1|c|@0.3", "balance:-4|c|#host:db-1,device:sda", "none:1|c|#host:",
		"level:0.1|g|#env:a,x", "level:-2.5e-3|g", "tiny:1e-300|g", "users:a|s", "users:b|s",
		"took:5:7:9|ms|@0.5|#env:a", "size:1:2:3|h",
		fmt.Sprintf("late:5|c|T%d|#env:a", now-100), fmt.Sprintf("late:-7.5|g|T%d", now-200),
		fmt.Sprintf(`_e{6,13}:dep\no|v1\nis|out: a|d:%d|h:db-1|k:key|p:low|s:git|t:error|#env:a,x`, now-5),
		"_e{1,0}:t||#host:", fmt.Sprintf("_sc|db.up|2|d:%d|h:db-1|#env:a|m:no: answer", now-6), "_sc|web.up|0",
	}
	for i := range 400 {
		lines = append(lines, fmt.Sprintf("latency:%g|d|#env:a", 0.1+float64(i*i%977)), fmt.Sprintf("depth:%d|d|@0.01", i%7-3))
	}
	sendLines(t, address, lines...)
}

// What reaches Datadog by way of another agent is what reaches it directly: the
// same counts and gauges at the same times, the same bins, events and checks.
func TestRelayToAnotherAgent(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "unix_datagram", "unix_stream"} {
		t.Run(network, func(t *testing.T) {
			direct, relayed := testkit.NewIntake(t), testkit.NewIntake(t)
			settings := []string{"WEIR_FLUSH_INTERVAL=1s", "WEIR_HOSTNAME=relay", forwarders(toDatadog(relayed))}
			path := filepath.Join(t.TempDir(), "s")
			if network != "udp" {
				settings = append(settings, "WEIR_LISTEN_"+strings.ToUpper(network)+"="+path)
			}
			second := start(t, build(t), settings...)
			address := "unix://" + path
			if network == "udp" {
				address = second.address
			}
			first := start(t, build(t), "WEIR_FLUSH_INTERVAL=1s", "WEIR_HOSTNAME=source", "DD_ENV=production", forwarders(
				toDatadog(direct), fmt.Sprintf("{type: dogstatsd, address: '%s', exclude: ['weir.*']}", address)))
			for range 3 {
				sendEverything(t, first.address)
				before := len(direct.Checks())
				eventually(t, "an interval has ended", func() bool { return len(direct.Checks()) > before })
			}
			for _, p := range []*process{first, second} {
				if code := p.stop(t); code != 0 {
					t.Errorf("exit code %d, want 0", code)
				}
			}
			compareIntakes(t, direct, relayed)
		})
	}
}

// comparePoints compares the series: the same values at the same times.
func comparePoints(t *testing.T, direct, relayed *testkit.Intake) {
	t.Helper()
	byTime := func(intake *testkit.Intake) map[string][]float64 {
		all := map[string][]float64{}
		for _, p := range intake.Points() {
			v := p.Value
			if p.Type == "rate" {
				v *= float64(p.Interval)
			}
			key := fmt.Sprint(p.Type, p.Key(), " at ", p.Time)
			all[key] = append(all[key], v)
			slices.Sort(all[key])
		}
		return all
	}
	want, got := byTime(direct), byTime(relayed)
	for key, values := range want {
		half := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9 }
		if strings.HasPrefix(key, "ratesampled") || strings.HasPrefix(key, "ratetook") {
			half = func(a, b float64) bool { return math.Abs(a-b) <= 1 } // counts that are not whole
		}
		if !slices.EqualFunc(got[key], values, half) {
			t.Errorf("%s: %v, want %v", key, got[key], values)
		}
		delete(got, key)
	}
	for key, values := range got {
		t.Errorf("%s: %v, want nothing", key, values)
	}
}

func compareIntakes(t *testing.T, direct, relayed *testkit.Intake) {
	t.Helper()
	comparePoints(t, direct, relayed)
	sampled := func(in *testkit.Intake) float64 { return newTotals(in).counts["sampled"] }
	if math.Abs(sampled(direct)-sampled(relayed)) > 0.5 {
		t.Errorf("sampled = %v, want %v within a half", sampled(relayed), sampled(direct))
	}
	wantSketches, gotSketches := sketchesOf(direct), sketchesOf(relayed)
	if diff := cmp.Diff(wantSketches, gotSketches, cmp.Comparer(near)); diff != "" || len(wantSketches) != 2 {
		t.Errorf("sketches (-direct +relayed):\n%s", diff)
	}
	events := func(in *testkit.Intake) (all []testkit.Event) {
		for _, e := range in.Events() {
			e.AgentHost = ""
			all = append(all, e)
		}
		slices.SortFunc(all, func(a, b testkit.Event) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return all
	}
	if diff := cmp.Diff(events(direct), events(relayed)); diff != "" || len(events(direct)) < 6 {
		t.Errorf("events (-direct +relayed):\n%s", diff)
	}
	checks := func(in *testkit.Intake) []testkit.Check {
		all := in.Checks()
		slices.SortFunc(all, func(a, b testkit.Check) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		return all
	}
	if diff := cmp.Diff(checks(direct), checks(relayed)); diff != "" || len(checks(direct)) < 6 {
		t.Errorf("checks (-direct +relayed):\n%s", diff)
	}
	for _, in := range []*testkit.Intake{direct, relayed} {
		if problems := in.Problems(); len(problems) > 0 {
			t.Errorf("problems: %q", problems)
		}
	}
}

// summed is all sketches of a series together.
type summed struct {
	Count         int64
	Sum, Min, Max float64
	Bins          map[int32]uint64
}

func sketchesOf(intake *testkit.Intake) map[string]summed {
	all := map[string]summed{}
	for _, s := range intake.Sketches() {
		key := fmt.Sprint(s.Metric, s.Host, s.Tags)
		sum, again := all[key]
		if !again {
			sum = summed{Min: s.Min, Max: s.Max, Bins: map[int32]uint64{}}
		}
		sum.Count, sum.Sum = sum.Count+s.Count, sum.Sum+s.Sum
		sum.Min, sum.Max = min(sum.Min, s.Min), max(sum.Max, s.Max)
		for i, k := range s.Keys {
			sum.Bins[k] += uint64(s.Counts[i])
		}
		all[key] = sum
	}
	return all
}

// Etsy's own server reads what a statsd forwarder sends.
func TestRelayToEtsysStatsD(t *testing.T) {
	folder, err := filepath.Abs(clientsFolder)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(folder + "/statsd"); err != nil {
		t.Skip("npm's statsd is not installed; .ci/run installs it (npm install --prefix .ci --no-save --no-package-lock statsd)")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node")
	}
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			port, management := freeTCPPorts(t)
			config := filepath.Join(t.TempDir(), "config.js")
			text := fmt.Sprintf(`{servers: [{server: './servers/%s', address: '127.0.0.1', port: %s}], mgmt_address: '127.0.0.1', mgmt_port: %s,
				flushInterval: 100000000, backends: ['./backends/console']}`, network, port, management)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(node, folder+"/statsd/stats.js", config)
			cmd.Dir = folder + "/statsd"
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
				if t.Failed() {
					t.Logf("Etsy's statsd:\n%s", said.String())
				}
			}()
			ask := func(what string) string { return askEtsy("127.0.0.1:"+management, what) }
			eventually(t, "Etsy's statsd answers", func() bool { return strings.Contains(ask("health"), "up") })
			p := start(t, build(t), "WEIR_FLUSH_INTERVAL=1s", forwarders(fmt.Sprintf(
				"{type: statsd, address: '%s://127.0.0.1:%s', include: ['shop.*'], exclude: ['*.median']}", network, port)))
			sendLines(t, p.address, "shop.hits:30|c", "shop.balance:-4|c", "shop.level:0.25|g", "shop.below:-2.5|g",
				"shop.took:5:7:9|ms", "shop.latency:-1:2:3|d", "other:1|c")
			if code := p.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			eventually(t, "the last line is there", func() bool { return strings.Contains(ask("counters"), "'shop.latency.count': 3") })
			for what, want := range map[string][]string{
				"counters": {"'shop.hits': 30", "'shop.balance': -4", "'shop.took.count': 3", "'statsd.bad_lines_seen': 0"},
				"gauges": {
					"'shop.level': 0.25", "'shop.below': -2.5", "'shop.took.avg': 7", "'shop.took.max': 9",
					"'shop.latency.min': -1", "'shop.latency.max': 3", "'shop.latency.sum': 4",
				},
			} {
				got := ask(what)
				for _, line := range want {
					if !strings.Contains(got, line) {
						t.Errorf("%s: no %s in\n%s", what, line, got)
					}
				}
				if strings.Contains(got, "other") || strings.Contains(got, "median") {
					t.Errorf("%s has what was excluded:\n%s", what, got)
				}
			}
		})
	}
}

// freeTCPPorts returns two ports that were free a moment ago.
func freeTCPPorts(t *testing.T) (one, other string) {
	t.Helper()
	ports := [2]string{}
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
	}
	return ports[0], ports[1]
}

// askEtsy asks the management port of Etsy's statsd; "" if it does not answer.
func askEtsy(address, what string) string {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = conn.Write([]byte(what + "\n"))
	var answer []byte
	for buffer := make([]byte, 4096); !strings.HasSuffix(string(answer), "END\n\n") && !strings.HasPrefix(string(answer), "health: up"); {
		n, err := conn.Read(buffer)
		if err != nil {
			return ""
		}
		answer = append(answer, buffer[:n]...)
	}
	return string(answer)
}
