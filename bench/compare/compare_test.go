//go:build linux

package main

import (
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseStat(t *testing.T) {
	const after = " S 1 4242 4242 0 -1 4194560 1200 0 3 0 1234 567 8 9 20 0 7 0 100 200 300"
	for _, name := range []string{"(weir)", "(a (strange) name)", "(x) R 1 2)"} {
		got, err := parseStat([]byte("4242 " + name + after))
		if want := 18_010 * time.Millisecond; err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	for _, text := range []string{"", "4242 (weir) S 1", "no name", "4242 (weir)" + strings.Replace(after, "1234", "x", 1)} {
		if got, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}

// The CPU time of a process is what it says itself.
func TestCPUTimeOfThisProcess(t *testing.T) {
	own := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for begin := own(); own()-begin < 50*time.Millisecond; {
		_ = math.Sqrt(2)
	}
	before := own()
	got, err := cpuTime(os.Getpid())
	if after := own(); err != nil || got < before-2*time.Second/clockTicks || got > after {
		t.Errorf("%v, %v, want within %v and %v", got, err, before, after)
	}
}

func TestParseStatus(t *testing.T) {
	got, err := parseStatus("Name:\tweir\nVmPeak:\t 9 kB\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\nThreads:\t7\n")
	if want := (memory{now: 10 << 20, most: 20 << 20}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"", "VmRSS: 1 kB\n", "VmRSS: 1 kB\nVmHWM: 1 MB\n", "VmRSS: x kB\nVmHWM: 1 kB\n"} {
		if got, err := parseStatus(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, got)
		}
	}
}

func TestParseUDP(t *testing.T) {
	const heading = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
	got, err := parseUDP(heading + "   77: 0100007F:1FBD 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 40531 2 0000000000000000 12\n")
	if want := (udpSocket{port: 8125, inode: 40531, queue: 0x300, drops: 12}); err != nil || len(got) != 1 || got[0] != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if got, err := parseUDP(heading); err != nil || len(got) != 0 {
		t.Errorf("no sockets: %+v, %v", got, err)
	}
	for _, line := range []string{"77: 0100007F:1FBD 0 07", "   77: 0100007F:1FBD 0:0 07 0:300 0:0 0     0        0 40531 2 0 many\n"} {
		if got, err := parseUDP(heading + line); err == nil {
			t.Errorf("%q: %+v, want an error", line, got)
		}
	}
}

// What waits in a socket, what did not fit, and for how long nobody read it, are seen
// from outside.
func TestSocketsAreSeenFromOutside(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	port := conn.LocalAddr().(*net.UDPAddr).Port
	s, err := openSockets(os.Getpid(), port)
	if err != nil {
		t.Skipf("%v", err)
	}
	defer s.close()
	client, err := net.Dial("udp4", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()

	finish := sync.OnceValue(s.startWatch())
	defer finish() // or it looks for as long as the tests run
	const unread = 50 * time.Millisecond
	begin := time.Now()
	payload := make([]byte, 8000)
	sent := 0
	for ; sent < 100; sent++ {
		if _, err := client.Write(payload); err != nil {
			t.Fatal(err)
		}
	}
	for time.Since(begin) < unread {
		time.Sleep(time.Millisecond)
	}
	if used, drops := s.state(); used < uint64(sent*len(payload)) || drops != 0 {
		t.Errorf("%d bytes wait, %d dropped, want at least %d and none", used, drops, sent*len(payload))
	}
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for buffer := make([]byte, 9000); sent > 0; sent-- {
		if _, _, err := conn.ReadFrom(buffer); err != nil {
			t.Fatalf("%d datagrams are missing: %v", sent, err)
		}
	}
	s.waitUntilEmpty(5 * time.Second)
	w := finish()
	if w.Peak < 800_000 || w.Pause == 0 {
		t.Errorf("%+v: want a peak of 800,000 bytes and a pause", w)
	}

	for range 3 * receiveBuffer / len(payload) { // more than the buffer holds
		if _, err := client.Write(payload); err != nil {
			t.Fatal(err)
		}
	}
	_, drops := s.state()
	listed, err := socketsAt(port)
	if err != nil || len(listed) != 1 || listed[0].drops != drops || drops == 0 {
		t.Errorf("/proc/net/udp: %+v, %v, want %d drops", listed, err, drops)
	}
}

func TestBooks(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	text := `{"msg":"listening"}` + "\nno JSON\n" + `{"msg":"the final account","datagrams":9,"kernel_drops":1,"samples":90,"rejected":0,"dropped":0}` + "\n"
	if err := os.WriteFile(log, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a, err := finalAccount(log)
	if err != nil || a.Datagrams != 9 || a.KernelDrops != 1 || a.Samples != 90 {
		t.Errorf("%+v, %v", a, err)
	}
	points := filepath.Join(t.TempDir(), "points")
	text = `{"metric":"load.requests.1","type":"rate","value":1.5,"interval":10}
{"metric":"load.requests.2","type":"rate","value":0.1,"interval":10}
{"metric":"load.connections.2","type":"gauge","value":100}
{"metric":"weir.samples","type":"rate","value":100,"interval":10}
`
	if err := os.WriteFile(points, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if sum, err := sumOfCounters(points, "load."); err != nil || sum != 16 {
		t.Errorf("sum %v, %v, want 16", sum, err)
	}

	closed := book{Datagrams: 10, Sent: 10, Samples: 100, SentLines: 100, CounterSum: 500, SentSum: 500}
	for name, change := range map[string]func(*book){
		"":                      func(*book) {},
		"datagrams":             func(b *book) { b.Datagrams-- },
		"samples":               func(b *book) { b.Samples++ },
		"sum":                   func(b *book) { b.CounterSum++ },
		"drops are in the sum":  func(b *book) { b.Dropped++ },
		"but known drops close": func(b *book) { b.Dropped++; b.Datagrams--; b.Samples -= 10; b.CounterSum -= 50 },
	} {
		b := closed
		change(&b)
		if faults, want := b.faults(), name != "" && !strings.HasPrefix(name, "but"); (len(faults) > 0) != want {
			t.Errorf("%q: %v", name, faults)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, test := range []struct {
		of   []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{5, 1, 3}, 3}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got, _, _ := median(test.of); got != test.want {
			t.Errorf("%v: %v, want %v", test.of, got, test.want)
		}
	}
	if got := spread([]float64{1234, 99, 250_000}); got != "1,234 (99–250 k)" {
		t.Errorf("spread %q", got)
	}
}

// Every peer's configuration can be written.
func TestConfigurations(t *testing.T) {
	for _, s := range []*server{{name: "weir"}, {name: "etsy statsd"}, {name: "collectd"}, {name: "netdata"}, {name: "telegraf"}} {
		folder := t.TempDir()
		if err := s.configure(settings{Dir: folder, Port: 18125, AdminPort: 18126, MaxContexts: 5, Points: "/dev/null"}); err != nil {
			t.Error(err)
		}
		files, err := os.ReadDir(folder)
		if err != nil || len(files) == 0 {
			t.Errorf("%s: %v, %v", s.name, files, err)
		}
	}
}
