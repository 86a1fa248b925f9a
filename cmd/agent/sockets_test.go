package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/weir-agent/weir/internal/testkit"
)

// folderOfSockets returns a folder with a short name, as paths of sockets must be
// short.
func folderOfSockets(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "weir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// received is what the agent says it got, by network.
func received(intake *testkit.Intake) map[string]float64 {
	totals := newTotals(intake)
	got := map[string]float64{}
	for _, network := range []string{"udp", "unix_datagram", "unix_stream", "tcp"} {
		got[network] = totals.counts["weir.listener.datagrams network:"+network] + totals.counts["weir.listener.connections network:"+network]
	}
	return got
}

// All four transports of one agent, with `weir send` as the client; the Datadog
// Agent's variables name the Unix sockets.
func TestSendByEveryTransport(t *testing.T) {
	binary, folder, intake := build(t), folderOfSockets(t), testkit.NewIntake(t)
	tcp := freeTCPPort(t)
	datagrams, stream := filepath.Join(folder, "d.sock"), filepath.Join(folder, "s.sock")
	p := start(t, binary, append(toIntake(intake),
		"DD_DOGSTATSD_SOCKET="+datagrams, "DD_DOGSTATSD_STREAM_SOCKET="+stream, "WEIR_LISTEN_TCP="+tcp)...)
	for i, to := range []string{p.address, "udp://" + p.address, "unixgram://" + datagrams, "unix://" + stream, "tcp://" + tcp} {
		lines := []string{"send", "--to", to, fmt.Sprintf("sent.by%d:1|c", i), fmt.Sprintf("sent.by%d:2|c", i)}
		if _, stderr, code := execute(t, binary, nil, lines...); code != 0 {
			t.Errorf("--to %s: exit code %d\n%s", to, code, stderr)
		}
	}
	// Without --to, the first that the configuration has.
	for variable, value := range map[string]string{
		"WEIR_LISTEN_UNIX_DATAGRAM": datagrams, "WEIR_LISTEN_UNIX_STREAM": stream, "WEIR_LISTEN_TCP": tcp,
	} {
		if _, stderr, code := execute(t, binary, []string{"WEIR_LISTEN_UDP=", variable + "=" + value}, "send", "default:1|c"); code != 0 {
			t.Errorf("%s: exit code %d\n%s", variable, code, stderr)
		}
	}
	eventually(t, "all arrived", func() bool {
		totals := newTotals(intake)
		for i := range 5 {
			if !near(totals.counts[fmt.Sprintf("sent.by%d", i)], 3) {
				return false
			}
		}
		return near(totals.counts["default"], 3)
	})
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	want := map[string]float64{"udp": 4, "unix_datagram": 3, "unix_stream": 2, "tcp": 2}
	for network, n := range received(intake) {
		if !near(n, want[network]) {
			t.Errorf("%s: %v datagrams or connections, want %v", network, n, want[network])
		}
	}
	for _, path := range []string{datagrams, stream} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was left behind", path)
		}
	}
	for _, to := range []string{"unixgram://" + datagrams, "tcp://" + tcp} {
		if _, stderr, code := execute(t, binary, nil, "send", "--to", to, "a:1|c"); code != 1 || !strings.Contains(stderr, "nobody listens on "+to) {
			t.Errorf("to nobody at %s: exit code %d, %s", to, code, stderr)
		}
	}
	if _, stderr, code := execute(t, binary, nil, "send", "--to", "sctp://x", "a:1|c"); code != 1 || !strings.Contains(stderr, `no network "sctp"`) {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}

func freeTCPPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Datadog's client by its Unix transports, in more than the sockets hold at once.
func TestDatadogGoByUnixSockets(t *testing.T) {
	folder, intake := folderOfSockets(t), testkit.NewIntake(t)
	datagrams, stream := filepath.Join(folder, "d.sock"), filepath.Join(folder, "s.sock")
	p := start(t, build(t), append(toIntake(intake), "WEIR_LISTEN_UNIX_DATAGRAM="+datagrams, "WEIR_LISTEN_UNIX_STREAM="+stream)...)
	const n = 5000
	want := map[string]float64{}
	for name, to := range map[string]string{"datagrams": "unixgram://" + datagrams, "stream": "unixstream://" + stream} {
		client, err := statsd.New(to, statsd.WithoutClientSideAggregation(), statsd.WithSenderQueueSize(n), statsd.WithoutTelemetry(), statsd.WithoutOriginDetection())
		if err != nil {
			t.Fatal(err)
		}
		for range n {
			if err := client.Incr(name, []string{"env:test"}, 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.Close(); err != nil {
			t.Fatal(err)
		}
		want[name+" env:test"] = n
	}
	eventually(t, "all arrived", func() bool {
		totals := newTotals(intake)
		return near(totals.counts["datagrams env:test"], n) && near(totals.counts["stream env:test"], n)
	})
	p.stop(t)
	expected{counts: want}.compare(t, intake)
}

// python3-statsd sends lines by TCP and by Unix streams, without lengths.
func TestPythonStatsdByStreams(t *testing.T) {
	python := "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import statsd").Run(); err != nil {
		t.Skip("Debian's python3-statsd is not installed; .ci/run installs it (apt-get install python3-statsd)")
	}
	folder, intake := folderOfSockets(t), testkit.NewIntake(t)
	stream, tcp := filepath.Join(folder, "s.sock"), freeTCPPort(t)
	p := start(t, build(t), append(toIntake(intake), "WEIR_LISTEN_UNIX_STREAM="+stream, "WEIR_LISTEN_TCP="+tcp)...)
	const text = `
import statsd, sys
host, port = sys.argv[1].split(':')
for c in statsd.TCPStatsClient(host, int(port), prefix='tcp'), statsd.UnixSocketStatsClient(sys.argv[2], prefix='unix'):
    for i in range(1000):
        c.incr('hits', 2)
        c.gauge('level', i)
    with c.pipeline() as pipe:
        for i in range(100):
            pipe.incr('piped', 3)
    c.close()
`
	if out, err := exec.Command(python, "-c", text, tcp, stream).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	eventually(t, "all arrived", func() bool {
		counts := newTotals(intake).counts
		return near(counts["tcp.piped"], 300) && near(counts["unix.piped"], 300)
	})
	p.stop(t)
	expected{
		counts: map[string]float64{"tcp.hits": 2000, "unix.hits": 2000, "tcp.piped": 300, "unix.piped": 300},
		gauges: map[string]float64{"tcp.level": 999, "unix.level": 999},
	}.compare(t, intake)
	if got := received(intake); !near(got["tcp"], 1) || !near(got["unix_stream"], 1) {
		t.Errorf("connections: %v", got)
	}
}

// A second agent does not take the first one's sockets.
func TestUnixSocketTaken(t *testing.T) {
	binary, path := build(t), filepath.Join(folderOfSockets(t), "d.sock")
	start(t, binary, "WEIR_LISTEN_UNIX_DATAGRAM="+path)
	_, stderr, code := execute(t, binary, []string{"WEIR_LISTEN_UDP=", "WEIR_LISTEN_UNIX_DATAGRAM=" + path})
	if code != 1 || !strings.Contains(stderr, path) || !strings.Contains(stderr, "is taken") || !strings.Contains(stderr, "listen.unix_datagram") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the socket is gone: %v", err)
	}
}

// Sockets that systemd opened are used in place of those that are configured, and
// survive the agent: what is sent while none runs goes to the next one.
func TestSystemdPassesSockets(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("systemd is of Linux")
	}
	folder, binary := folderOfSockets(t), build(t)
	files, address := systemdSockets(t, folder)
	settings := []string{
		"WEIR_LISTEN_UDP=" + address["udp"], "WEIR_LISTEN_UNIX_STREAM=" + address["unix_stream"], // both are passed
		"LISTEN_FDS=4", "LISTEN_FDNAMES=a:b:c:d",
	}
	activate := func(cmd *exec.Cmd) {
		cmd.Path = "/bin/sh"
		cmd.Args = []string{"sh", "-c", `export LISTEN_PID=$$; exec "$0"`, binary}
		cmd.ExtraFiles = files
	}
	for run := range 2 {
		intake := testkit.NewIntake(t)
		if run == 1 { // while no agent runs
			toAll(t, binary, address, "between:1|c")
		}
		p := startWith(t, binary, activate, append(toIntake(intake), settings...)...)
		toAll(t, binary, address, "during:1|c")
		eventually(t, "all arrived", func() bool {
			totals := newTotals(intake)
			return near(totals.counts["during"], 4) && (run == 0 || near(totals.counts["between"], 4))
		})
		if code := p.stop(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		if got := strings.Count(p.log(), "msg=listening"); got != 4 {
			t.Errorf("%d sockets are listened on, want 4", got)
		}
		for _, network := range []string{"unix_datagram", "unix_stream"} {
			if _, err := os.Lstat(address[network]); err != nil {
				t.Errorf("the agent removed systemd's socket: %v", err)
			}
		}
	}

	// Nothing is configured, but something is passed.
	intake := testkit.NewIntake(t)
	p := startWith(t, binary, activate, append(toIntake(intake), "WEIR_LISTEN_UDP=", "LISTEN_FDS=1")...)
	if _, stderr, code := execute(t, binary, nil, "send", "--to", "udp://"+address["udp"], "only:1|c"); code != 0 {
		t.Fatal(stderr)
	}
	eventually(t, "it arrived", func() bool { return near(newTotals(intake).counts["only"], 1) })
	p.stop(t)

	// What is for another process, is not ours.
	_, stderr, code := execute(t, binary, []string{"WEIR_LISTEN_UDP=", "LISTEN_FDS=1", "LISTEN_PID=1"})
	if code != 1 || !strings.Contains(stderr, "nothing to listen on") {
		t.Errorf("exit code %d\n%s", code, stderr)
	}

	// A file that is no socket.
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd := exec.Command(binary)
	cmd.Env = environ("LISTEN_FDS=1")
	activate(cmd)
	cmd.ExtraFiles = []*os.File{null}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "no socket; write ListenDatagram=") {
		t.Errorf("%v\n%s", err, out)
	}
}

// systemdSockets opens a socket of each network, and returns them with their
// addresses.
func systemdSockets(t *testing.T, folder string) (files []*os.File, address map[string]string) {
	t.Helper()
	type filer interface {
		File() (*os.File, error)
		Close() error
	}
	add := func(socket any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		file, err := socket.(filer).File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			file.Close()
			socket.(filer).Close()
		})
		files = append(files, file)
	}
	address = map[string]string{"unix_datagram": filepath.Join(folder, "d"), "unix_stream": filepath.Join(folder, "s")}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	add(udp, err)
	address["udp"] = udp.LocalAddr().String()
	add(net.ListenPacket("unixgram", address["unix_datagram"]))
	add(net.Listen("unix", address["unix_stream"]))
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	add(tcp, err)
	address["tcp"] = tcp.Addr().String()
	return files, address
}

// toAll sends a line to each address.
func toAll(t *testing.T, binary string, address map[string]string, line string) {
	t.Helper()
	for network, scheme := range map[string]string{"udp": "udp", "unix_datagram": "unixgram", "unix_stream": "unix", "tcp": "tcp"} {
		if _, stderr, code := execute(t, binary, nil, "send", "--to", scheme+"://"+address[network], line); code != 0 {
			t.Errorf("%s: %s", network, stderr)
		}
	}
}

// The same by systemd's own tool.
func TestSystemdSocketActivate(t *testing.T) {
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is not installed")
	}
	binary, intake := build(t), testkit.NewIntake(t)
	path, port := filepath.Join(folderOfSockets(t), "d.sock"), freePort(t)
	p := startWith(t, binary, func(cmd *exec.Cmd) {
		cmd.Path = tool
		settings := append(toIntake(intake), "WEIR_LISTEN_UDP="+port)
		cmd.Args = []string{tool, "--datagram", "--listen=" + path}
		for _, setting := range settings {
			cmd.Args = append(cmd.Args, "--setenv="+setting)
		}
		cmd.Args = append(cmd.Args, binary)
		go func() { // the tool starts the agent when something arrives
			for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
				if exec.Command(binary, "send", "--to", "unixgram://"+path, "activated:1|c").Run() == nil {
					return
				}
			}
		}()
	})
	eventually(t, "it arrived", func() bool { return near(newTotals(intake).counts["activated"], 1) })
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
