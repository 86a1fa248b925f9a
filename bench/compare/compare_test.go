//go:build linux

package main

import (
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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
	if after := own(); err != nil || got < before-time.Millisecond || got > after+time.Millisecond {
		t.Errorf("%v, %v, want within %v and %v", got, err, before, after)
	}
	if got, err := cpuTime(1 << 22); err == nil { // above any process's number
		t.Errorf("%v of no process, want an error", got)
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

	finish := sync.OnceValue(s.startWatch(nil))
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
	handed := openHandedOver()
	defer handed.close()
	before, all := handed.count(), uint64(sent)
	for buffer := make([]byte, 9000); sent > 0; sent-- {
		if _, _, err := conn.ReadFrom(buffer); err != nil {
			t.Fatalf("%d datagrams are missing: %v", sent, err)
		}
	}
	if n := handed.count() - before; n < all {
		t.Errorf("the kernel says that it handed over %d datagrams, want %d or more", n, all)
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

func TestCountsOfServers(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	i := &instance{server: &server{}, folder: folder}
	check := func(name string, count func(*instance, *counted) error, want counted) {
		t.Helper()
		got := uncounted
		if err := count(i, &got); err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	write("log", `{"msg":"listening"}`+"\nno JSON\n"+`{"msg":"the final account","datagrams":9,"kernel_drops":1,"samples":90,"rejected":2,"refused":3,"dropped":4}`+"\n")
	check("weir without points", countOfWeir, counted{Datagrams: 9, KernelDrops: 1, Metrics: 90, Refused: 9, CounterSum: -1})
	write("points.json", `{"metric":"load.requests.1","type":"rate","value":1.5,"interval":10}
{"metric":"load.requests.2","type":"rate","value":0.1,"interval":10}
{"metric":"load.connections.2","type":"gauge","value":100}
{"metric":"weir.samples","type":"rate","value":100,"interval":10}
`)
	check("weir", countOfWeir, counted{Datagrams: 9, KernelDrops: 1, Metrics: 90, Refused: 9, CounterSum: 16})
	write("flushes.json", `{"packets":3,"metrics":60,"bad":0,"ms":12}`+"\n"+`{"packets":2,"metrics":40,"bad":1,"ms":7}`+"\n")
	check("etsy", countOfEtsy, counted{Datagrams: 5, Metrics: 100, Refused: 1, KernelDrops: -1, CounterSum: -1})
	if got := flushOfEtsy(i); got != 0.012 {
		t.Errorf("etsy's longest flush %v, want 0.012", got)
	}
	write("internal.json", `{"name":"internal_statsd","fields":{"udp_packets_received":5,"udp_packets_dropped":0}}
{"name":"internal_statsd","fields":{"udp_packets_received":9,"udp_packets_dropped":2}}
{"name":"internal_statsd","fields":{"udp_pack`)
	check("telegraf", countOfTelegraf, counted{Datagrams: 9, Dropped: 2, Metrics: -1, KernelDrops: -1, CounterSum: -1})
	write("log", "nothing\n")
	if err := countOfWeir(i, &counted{}); err == nil {
		t.Error("weir's log has no final account: want an error")
	}
}

func TestLedger(t *testing.T) {
	for name, change := range map[string]func(*entry){
		"":                     func(*entry) {},
		"datagrams":            func(e *entry) { e.Own.Datagrams-- },
		"metrics":              func(e *entry) { e.Own.Metrics++ },
		"sum":                  func(e *entry) { e.Own.CounterSum++ },
		"refused":              func(e *entry) { e.Own.Refused++ },
		"drops it did not see": func(e *entry) { e.KernelDrops++; e.Own.Datagrams-- },
		"drops it made up":     func(e *entry) { e.Own.KernelDrops++ },
		"but known drops close": func(e *entry) {
			e.KernelDrops++
			e.Own.KernelDrops++
			e.Own.Datagrams--
			e.Own.Metrics -= 10
			e.Own.CounterSum -= 50
		},
		"but so do those of its own queue": func(e *entry) { e.Own.Dropped++; e.Own.Metrics -= 10; e.Own.CounterSum -= 50 },
		"but what it does not count is not asked": func(e *entry) {
			e.Own.Metrics, e.Own.CounterSum, e.Own.KernelDrops = -1, -1, -1
		},
		"but nothing at all": func(e *entry) { e.Own = nil },
	} {
		e := entry{Sent: 10, SentMetrics: 100, SentSum: 500, Own: &counted{Datagrams: 10, Metrics: 100, CounterSum: 500}}
		change(&e)
		if faults, want := e.faults(), name != "" && !strings.HasPrefix(name, "but"); (len(faults) > 0) != want {
			t.Errorf("%q: %v", name, faults)
		}
	}
}

// TestMain is the floor if it is told so, so that tests can run it.
func TestMain(m *testing.M) {
	if os.Getenv("WEIR_COMPARE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A server is started, gets what it is to get, says what it read, and is gone: from the
// outside, with the floor as the server.
func TestAServerIsMeasured(t *testing.T) {
	load := filepath.Join(t.TempDir(), "load")
	if out, err := exec.Command("go", "build", "-o", load, "../load").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b := &bench{load: load, window: time.Second, say: t.Logf}
	s := &server{
		name: "floor", tags: true, floor: true, command: []string{os.Args[0], "-floor", "127.0.0.1:{{.Port}}"},
		env: []string{"WEIR_COMPARE=1"}, count: countOfFloor, countsAtItsEnd: true,
	}
	c := &cell{}
	for _, name := range []string{"gentle-single", "idle"} {
		sc := scenarios[slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.Name == name })]
		if err := b.throughput(s, sc, 3, c); err != nil {
			if strings.Contains(err.Error(), "run this as root") {
				t.Skip(err)
			}
			t.Fatal(err)
		}
	}
	for n, e := range b.ledger {
		if len(e.faults()) > 0 || e.Own == nil || e.Sent == 0 || e.Own.Datagrams+float64(e.KernelDrops) != float64(e.Sent) {
			t.Errorf("life %d: %+v %+v, want as many datagrams read as sent", n, e, e.Own)
		}
	}
	if len(b.ledger) != 2 || len(c.Runs) != 2 {
		t.Fatalf("%d lives in the ledger, %d runs, want 2 each", len(b.ledger), len(c.Runs))
	}
	if c.Runs[0].Metrics < 1 || c.Runs[0].NanosPerMetric <= 0 || c.Runs[1].CPU >= c.Runs[0].CPU {
		t.Errorf("%+v: want traffic that costs more than none", c.Runs)
	}
}

func TestPlan(t *testing.T) {
	p := plan{scenarios: "packed,contexts", tags: "3,0", contexts: "10,1000"}
	if err := p.parse(); err != nil || len(p.names) != 2 || !slices.Equal(p.tagged, []int{3, 0}) || !slices.Equal(p.sizes, []int{10, 1000}) {
		t.Errorf("%+v, %v", p, err)
	}
	p = plan{scenarios: "packed", tags: "3", contexts: "10"}
	if err := p.parse(); err != nil || len(p.sizes) != 0 {
		t.Errorf("sizes %v, %v, want none without the scenario contexts", p.sizes, err)
	}
	for _, p := range []plan{{scenarios: "one"}, {tags: "2"}, {tags: "x"}, {contexts: "0"}, {contexts: "many"}} {
		if err := p.parse(); err == nil {
			t.Errorf("%+v: want an error", p)
		}
	}
	p = plan{only: "weir,etsy"}
	for name, want := range map[string]bool{"weir": true, "etsy statsd": true, "telegraf": false} {
		if got := p.wants(name); got != want {
			t.Errorf("-only weir,etsy: %s is wanted: %t", name, got)
		}
	}
}

// The report says where Weir is not first, which runs lost datagrams, which ledgers do
// not close and which targets are missed.
func TestReport(t *testing.T) {
	runs := func(nanos, lost float64) []run {
		return []run{{NanosPerMetric: nanos, Metrics: 1000}, {NanosPerMetric: nanos + 2, Metrics: 1000, Lost: lost}, {NanosPerMetric: nanos + 1, Metrics: 1000}}
	}
	r := &results{
		servers: []*server{{name: "weir"}, {name: "fast"}, {name: "slow"}, {name: "floor"}},
		Cells: []*cell{
			{Server: "weir", Tags: 3, Scenario: "single", Highest: 1e6, Metrics: 1e6, Runs: runs(500, 0)},
			{Server: "fast", Tags: 3, Scenario: "single", Highest: 2e6, Metrics: 2e6, Runs: runs(250, 0)},
			{Server: "slow", Tags: 3, Scenario: "single", Highest: 1e5, Metrics: 1e5, Runs: runs(5000, 0.25)},
			{Server: "floor", Tags: 3, Scenario: "single", Highest: 1e6, Metrics: 1e6, Runs: runs(400, 0)},
		},
		Footprints: []*footprint{
			{Server: "weir", Tags: 3, Contexts: 1_000_000, Runs: []footprint1{{Idle: 0, Most: 310e6}}},
			{Server: "slow", Tags: 3, Contexts: 1_000_000, Runs: []footprint1{{Idle: 0, Most: 900e6}}},
		},
		Ledger: []entry{
			{Server: "weir", Run: "single, 3 tags", Sent: 10, Own: &counted{Datagrams: 9}},
			{Server: "slow", Run: "single, 3 tags", Sent: 10, KernelDrops: 2},
		},
	}
	var text strings.Builder
	r.write(&text)
	report := text.String()
	for _, want := range []string{
		"| slow | 100 k | 0.10 | 5,001 (5,000–5,002) | 9.98 |", "1 of 3, 25 % at most",
		"- fast, single, 3 tags: 251 ns a metric, Weir 501\n", "- fast, single, 3 tags: 2.00 M metrics/s without loss, Weir 1.00 M\n",
		"| single | 600 ns a metric | 501 | yes |", "| single, of the floor | 1.2 times | 1.2 | no |", "| packed | 90 ns a metric | – | not measured |",
		"| 1 million contexts | 300 bytes each | 310 | no |", "| slow | 3 | 1.00 M | 900 | 2.90 |",
		"- weir, single, 3 tags: 9 datagrams received and 0 dropped by the kernel, 10 sent\n", "| slow | 1 | 1 | 10 | says nothing | 2 |",
		"| lives whose ledger does not close | 0 ",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if strings.Contains(report, "- slow, single") || strings.Contains(report, "- floor") {
		t.Errorf("slow and the floor are no better than Weir:\n%s", report)
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
