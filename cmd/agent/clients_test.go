package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// clientsFolder is where .ci/run installs clients that are written in JavaScript.
const clientsFolder = "../../.ci/node_modules"

// endpoints are where an agent listens, by the network's name in the configuration.
type endpoints map[string]string

// clients are the clients that are not written in Go, each with the networks it
// speaks. Each sends every kind it can, and leaves out nothing of what it can say.
var clients = []struct {
	name        string
	interpreter func(t *testing.T, network string) []string
	script      string
	networks    []string
	expected    func(prefix string, dialect string) expected
}{
	{"hot-shots", hotShots, "hotshots.js", []string{"udp", "tcp", "unix_datagram"}, hotShotsExpected},
	{"python3-statsd", pythonStatsd, "python_statsd.py", []string{"udp", "tcp", "unix_stream"}, pythonStatsdExpected},
	{"python3-aiodogstatsd", aioDogStatsD, "python_aiodogstatsd.py", []string{"udp"}, aioDogStatsDExpected},
	{"libnet-statsd-perl", netStatsd, "net_statsd.pl", []string{"udp"}, netStatsdExpected},
}

// TestClients has every client speak to one agent by every network that both know,
// at the same time, and compares what arrived with what was sent.
func TestClients(t *testing.T) {
	intake := testkit.NewIntake(t)
	p, sockets := startForClients(t, intake)
	var mu sync.Mutex
	all := map[string]expected{}
	t.Run("send", func(t *testing.T) {
		send := func(name string, client func(t *testing.T) expected) {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				want := client(t)
				mu.Lock()
				defer mu.Unlock()
				all[name] = want
			})
		}
		for _, c := range clients {
			for _, network := range c.networks {
				for dialect, to := range sockets {
					address, known := to[network]
					if !known {
						continue // DogStatsD has no other dialect
					}
					send(c.name+" "+network+" "+dialect, func(t *testing.T) expected {
						prefix := fmt.Sprintf("%s.%s.%s", c.script, network, dialect)
						runScript(t, c.interpreter(t, network), c.script, nil, network, address, prefix, dialect)
						want := c.expected(prefix, dialect)
						want.evenMedian = dialect == "statsd"
						return want
					})
				}
			}
		}
		for name, client := range datadogGoClients(sockets["dogstatsd"]) {
			send("datadog-go "+name, client)
		}
		send("gunicorn", func(t *testing.T) expected { return gunicorn(t, sockets["dogstatsd"]["udp"]) })
	})
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	for name, want := range all {
		t.Run("arrived/"+name, func(t *testing.T) { want.compare(t, intake) })
	}
	checkNothingIsWrong(t, intake)
}

// startForClients starts an agent that listens on sockets of every network for both
// dialects, and flushes at its end.
func startForClients(t *testing.T, intake *testkit.Intake) (p *process, byDialect map[string]endpoints) {
	t.Helper()
	folder := t.TempDir()
	path := func(name string) string { return filepath.Join(folder, name) }
	p = start(t, build(t), append(toIntake(intake),
		"WEIR_FLUSH_INTERVAL=10m", "WEIR_EXPIRY_CONTEXT=1h", "WEIR_LOG_LEVEL=debug",
		"WEIR_LISTEN_TCP=127.0.0.1:0",
		"WEIR_LISTEN_UNIX_DATAGRAM="+path("datagram"), "WEIR_LISTEN_UNIX_STREAM="+path("stream"),
		fmt.Sprintf("WEIR_LISTEN_MORE=[{network: udp, address: '127.0.0.1:0', dialect: statsd},"+
			" {network: tcp, address: '127.0.0.1:0', dialect: statsd}, {network: unix_stream, address: '%s', dialect: statsd}]", path("statsd")))...)
	const sockets = 7
	var found [][]string
	eventually(t, "all sockets listen", func() bool {
		found = listeningOn.FindAllStringSubmatch(p.log(), -1)
		return len(found) == sockets
	})
	byDialect = map[string]endpoints{"dogstatsd": {}, "statsd": {}}
	for _, m := range found {
		network, address := m[1], m[2]
		dialect := "dogstatsd" // these come first
		if _, known := byDialect[dialect][network]; known {
			dialect = "statsd"
		}
		byDialect[dialect][network] = address
	}
	return p, byDialect
}

var listeningOn = regexp.MustCompile(`msg=listening network=(\S+) address=(\S+)`)

// runScript runs a client's script out of testdata/clients to its end.
func runScript(t *testing.T, interpreter []string, name string, settings []string, args ...string) {
	t.Helper()
	folder, err := filepath.Abs(clientsFolder)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter[0], append(append(interpreter[1:], filepath.Join("testdata", "clients", name)), args...)...)
	cmd.Env = environ(append(settings, "NODE_PATH="+folder, "PYTHONDONTWRITEBYTECODE=1")...)
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
}

func hotShots(t *testing.T, network string) []string {
	t.Helper()
	if _, err := os.Stat(clientsFolder + "/hot-shots"); err != nil {
		t.Skip("npm's hot-shots is not installed; .ci/run installs it (npm install --prefix .ci --no-save --no-package-lock hot-shots)")
	}
	if built, _ := filepath.Glob(clientsFolder + "/unix-dgram/build/Release/unix_dgram.node"); network == "unix_datagram" && len(built) == 0 {
		t.Skip("npm's unix-dgram was not built with hot-shots; it needs g++, make, python3 and the headers of node; .ci/run installs them")
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node; .ci/run installs it (apt-get install nodejs)")
	}
	return []string{node}
}

func pythonStatsd(t *testing.T, _ string) []string { return python(t, "statsd", "python3-statsd") }

func aioDogStatsD(t *testing.T, _ string) []string {
	return python(t, "aiodogstatsd", "python3-aiodogstatsd")
}

// python returns Debian's Python, to which Debian's packages belong and which need
// not be the first in the path.
func python(t *testing.T, module, packageName string) []string {
	t.Helper()
	const interpreter = "/usr/bin/python3"
	if err := exec.Command(interpreter, "-c", "import "+module).Run(); err != nil {
		t.Skipf("Debian's %s is not installed; .ci/run installs it (apt-get install %[1]s)", packageName)
	}
	return []string{interpreter}
}

func netStatsd(t *testing.T, _ string) []string {
	t.Helper()
	const interpreter = "/usr/bin/perl"
	if err := exec.Command(interpreter, "-MNet::Statsd", "-e", "1").Run(); err != nil {
		t.Skip("Debian's libnet-statsd-perl is not installed; .ci/run installs it (apt-get install libnet-statsd-perl)")
	}
	return []string{interpreter}
}

// upTo returns 1, 2, … n.
func upTo(n int) []float64 {
	values := make([]float64, n)
	for i := range values {
		values[i] = float64(i + 1)
	}
	return values
}

func hotShotsExpected(prefix, dialect string) expected {
	const tag = " client:node"
	want := expected{
		counts: map[string]float64{
			prefix + ".hits" + tag: 300, prefix + ".hits client:node env:x route:a": 600, prefix + ".balance" + tag: -300,
		},
		gauges: map[string]float64{prefix + ".level" + tag: 300},
		sets:   map[string]float64{prefix + ".users" + tag: 20},
		timers: map[string][]float64{prefix + ".took" + tag: upTo(300), prefix + ".size" + tag: upTo(300)},
		dists:  map[string][]float64{prefix + ".latency" + tag: upTo(300)},
		points: []testkit.Point{
			{Metric: prefix + ".past.level", Tags: []string{"client:node", "env:x"}, Type: "gauge", Time: 1700000000, Value: 7.5},
			{Metric: prefix + ".past.hits", Tags: []string{"client:node"}, Type: "rate", Time: 1700000001, Value: 3},
		},
		events: []testkit.Event{
			{
				Title: prefix + ".deployed", Text: "line one\nline two", Time: 1700000002, Host: "other-host", AggregationKey: "deploys",
				Priority: "low", SourceType: "ci", AlertType: "warning", Tags: []string{"client:node", "env:x"},
			},
			{Title: prefix + ".restarted", Text: "restarted", Priority: "normal", AlertType: "info", Tags: []string{"client:node"}},
		},
		checks: []testkit.Check{
			{
				Name: prefix + ".up", Status: 1, Time: 1700000003, Host: "other-host", Message: "it lags m: 3 s",
				Tags: []string{"client:node", "env:x"},
			},
			{Name: prefix + ".down", Status: 2, Tags: []string{"client:node"}},
		},
	}
	if dialect == "statsd" {
		want.gauges[prefix+".stock"+tag] = 17.5
	}
	return want
}

func pythonStatsdExpected(prefix, dialect string) expected {
	want := expected{
		counts: map[string]float64{prefix + ".hits": 300, prefix + ".balance": -600, prefix + ".piped": 300},
		gauges: map[string]float64{prefix + ".level": 299.0 / 4, prefix + ".negative": -5},
		sets:   map[string]float64{prefix + ".users": 20},
		timers: map[string][]float64{prefix + ".took": upTo(300), prefix + ".waited": {1500}},
	}
	if dialect == "statsd" {
		want.gauges[prefix+".stock"] = 17.5
	}
	return want
}

func aioDogStatsDExpected(prefix, _ string) expected {
	const tag = " client:aio"
	return expected{
		counts: map[string]float64{
			prefix + ".hits" + tag: 300, prefix + ".hits client:aio env:x route:a": 600, prefix + ".balance" + tag: -300,
		},
		gauges: map[string]float64{prefix + ".level" + tag: 299.0 / 4},
		timers: map[string][]float64{prefix + ".took" + tag: upTo(300), prefix + ".size" + tag: upTo(300)},
		dists:  map[string][]float64{prefix + ".latency" + tag: upTo(300)},
	}
}

func netStatsdExpected(prefix, _ string) expected {
	return expected{
		counts: map[string]float64{
			prefix + ".hits": 300, prefix + ".first": 300, prefix + ".second": 300, prefix + ".balance": -300, prefix + ".bytes": 300 * 299 / 2,
		},
		gauges: map[string]float64{prefix + ".level": 299.0 / 4, prefix + ".negative": -18},
		timers: map[string][]float64{prefix + ".took": upTo(300)},
	}
}

// gunicorn serves a few requests with an application server that counts them.
func gunicorn(t *testing.T, agent string) expected {
	interpreter := python(t, "gunicorn", "gunicorn")
	folder := t.TempDir()
	socket := filepath.Join(folder, "http")
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(interpreter[0], "-m", "gunicorn", "--bind", "unix:"+socket, "--chdir", "testdata/clients",
		"--statsd-host", agent, "--statsd-prefix", "web", "--dogstatsd-tags", "env:test,team:a", "wsgi:app")
	cmd.Env = environ("PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		log.Close()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("gunicorn's log:\n%s", text)
		}
	})
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	eventually(t, "gunicorn listens", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	for _, page := range []string{"/", "/", "/missing", "/"} {
		answer, err := client.Get("http://gunicorn" + page)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body)
		answer.Body.Close()
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("gunicorn does not end")
	}
	const tags = " env:test team:a"
	return expected{
		counts: map[string]float64{
			"web.gunicorn.requests" + tags: 4, "web.gunicorn.request.duration.count" + tags: 4,
			"web.gunicorn.request.status.200" + tags: 3, "web.gunicorn.request.status.404" + tags: 1,
		},
		gauges: map[string]float64{"web.gunicorn.workers" + tags: 1},
	}
}
