//go:build unix

package forwarder

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// TestKill kills the built agent at random moments, while the intake fails and points
// keep coming, and starts it again on the same folder. Whatever was on disk when it was
// killed arrives. What arrives twice is what was being sent; what does not arrive had
// not been written.
//
// WEIR_CHAOS says how long it takes (a duration, by default about 10s).
func TestKill(t *testing.T) {
	kills, lasts := 6, 6*time.Second
	if d := chaosTime(t); d > 0 {
		kills, lasts = 20, d
	}
	seed := rand.Uint64()
	if os.Getenv("WEIR_CHAOS_SEED") != "" {
		seed = chaosSeeds(t, 1)[0]
	}
	random := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("WEIR_CHAOS_SEED=%d", seed)
		}
	}()
	k := &killing{t: t, folder: t.TempDir(), intake: newFlakyIntake(t, seed), spooled: map[string]bool{}, twice: map[string]bool{}, sending: map[string]bool{}}
	k.binary = filepath.Join(t.TempDir(), "weir")
	if out, err := exec.Command("go", "build", "-o", k.binary, "../cmd/agent").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	sent := k.send()
	for range kills {
		k.start()
		time.Sleep(lasts/time.Duration(kills)/2 + rand2(random, lasts/time.Duration(kills)))
		k.kill()
	}
	k.intake.fair.Store(true)
	k.start()
	time.Sleep(time.Second)
	points := sent()
	k.drain()
	k.check(points, kills)
}

// killing is what a run of TestKill knows.
type killing struct {
	t       *testing.T
	binary  string
	folder  string
	intake  *flakyIntake
	cmd     *exec.Cmd
	stderr  *lockedBuffer
	address atomic.Pointer[net.UDPAddr]

	spooled map[string]bool // points that were on disk at a kill
	twice   map[string]bool // of these, those that the intake had, or that were on disk twice
	sending map[string]bool // files of these
	most    int             // of these, at one kill
	torn    []string        // files that were being written at a kill
}

// start starts the agent and waits until it listens.
func (k *killing) start() {
	k.t.Helper()
	k.stderr = &lockedBuffer{}
	k.cmd = exec.Command(k.binary)
	k.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "WEIR_STATE_DIR=" + k.folder, "WEIR_SPOOL_AFTER=20ms", "WEIR_SPOOL_MIN_FREE=0B",
		"WEIR_FLUSH_INTERVAL=1s", "WEIR_LISTEN_UDP=127.0.0.1:0", "WEIR_HOSTNAME=h", "WEIR_SHUTDOWN_TIMEOUT=30s",
		"DD_API_KEY=" + testkit.APIKey, "DD_URL=http://" + k.intake.address,
	}
	k.cmd.Stderr = k.stderr
	if err := k.cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	cmd := k.cmd
	k.t.Cleanup(func() { _ = cmd.Process.Kill() })
	listening := regexp.MustCompile(`msg=listening .*address=(\S+)`)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if m := listening.FindStringSubmatch(k.stderr.String()); m != nil {
			address, err := net.ResolveUDPAddr("udp", m[1])
			if err != nil {
				k.t.Fatal(err)
			}
			k.address.Store(address)
			return
		}
		if time.Now().After(deadline) {
			k.t.Fatalf("the agent does not listen:\n%s", k.stderr)
		}
	}
}

// send sends points, each of a metric of its own, until the function it returns is
// called, which says how many.
func (k *killing) send() (end func() int) {
	over := make(chan struct{})
	var sending sync.WaitGroup
	points := 0
	sending.Go(func() {
		socket, err := net.ListenUDP("udp", nil)
		if err != nil {
			k.t.Error(err)
			return
		}
		defer socket.Close()
		for ; ; time.Sleep(2 * time.Millisecond) {
			select {
			case <-over:
				return
			default:
			}
			if to := k.address.Load(); to != nil {
				_, _ = socket.WriteToUDP(fmt.Appendf(nil, "kill.%d:%d|g\nkill.%d:%d|d", points, points, points+1, points+1), to)
				points += 2
			}
		}
	})
	return func() int {
		close(over)
		sending.Wait()
		return points
	}
}

// kill kills the agent and notes what is on disk, and what of that the intake has.
func (k *killing) kill() {
	k.t.Helper()
	k.address.Store(nil)
	if err := k.cmd.Process.Kill(); err != nil {
		k.t.Fatal(err)
	}
	_ = k.cmd.Wait()
	k.intake.calm()
	accepted := k.intake.names()
	torn, err := filepath.Glob(filepath.Join(k.folder, "spool", "*", "*"+tempSuffix))
	if err != nil {
		k.t.Fatal(err)
	}
	k.torn = append(k.torn, torn...)
	here := map[string]bool{}
	sending := 0
	for _, path := range filesIn(k.t, k.folder) {
		file, err := os.ReadFile(path)
		if err != nil {
			k.t.Fatal(err)
		}
		r, err := decodeRecord(file)
		if err != nil {
			k.t.Errorf("%s: %v", path, err)
			continue
		}
		again := false
		for _, name := range namesIn(k.t, r) {
			if accepted[name] > 0 || here[name] {
				again = true
				k.twice[name] = true
			}
			here[name], k.spooled[name] = true, true
		}
		if again && !k.sending[path] {
			k.sending[path] = true
			sending++
		}
	}
	k.most = max(k.most, sending)
	if sending > defaultConcurrency {
		k.t.Errorf("%d payloads on disk were delivered already, want at most the %d that are sent at once", sending, defaultConcurrency)
	}
}

// namesIn returns the names of the points in a record.
func namesIn(t *testing.T, r *record) (names []string) {
	raw, err := decompress(r.encoding, r.body, maxRecordBody)
	if err != nil {
		t.Error(err)
	}
	for _, known := range routes {
		if known.path != r.route {
			continue
		}
		c, err := unpack(known, raw)
		if err != nil {
			t.Error(err)
		}
		for _, one := range c.items {
			if name := itemName(known, one.raw); strings.HasPrefix(name, "kill.") {
				names = append(names, name)
			}
		}
	}
	return names
}

// drain lets the agent deliver what there is, and ends it.
func (k *killing) drain() {
	k.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); len(filesIn(k.t, k.folder)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			k.t.Fatalf("%d payloads stay on disk:\n%s", len(filesIn(k.t, k.folder)), k.stderr)
		}
	}
	if err := k.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		k.t.Fatal(err)
	}
	if err := k.cmd.Wait(); err != nil {
		k.t.Errorf("the last agent: %v\n%s", err, k.stderr)
	}
}

func (k *killing) check(points, kills int) {
	t := k.t
	accepted := k.intake.names()
	doubles := 0
	for name, times := range accepted {
		if times > 1 {
			doubles++
			if !k.twice[name] {
				t.Errorf("%s arrived %d times, and was not being sent at a kill", name, times)
			}
		}
	}
	for name := range k.spooled {
		if accepted[name] == 0 {
			t.Errorf("%s was on disk at a kill, and never arrived", name)
		}
	}
	if len(k.spooled) == 0 {
		t.Error("nothing was on disk at any kill: this test shows nothing")
	}
	for _, path := range k.torn {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is still there", path)
		}
	}
	if problems := k.intake.inner.Problems(); len(problems) > 0 {
		t.Errorf("the intake says: %q", problems)
	}
	t.Logf("%d kills: %d points sent, %d arrived, %d of them twice; %d were on disk at kills; at most %d payloads of these were delivered already; %d files half written",
		kills, points, len(accepted), doubles, len(k.spooled), k.most, len(k.torn))
}

// flakyIntake is an intake on a real socket that fails often, unless it is fair.
type flakyIntake struct {
	tb      testing.TB
	inner   testkit.Intake
	address string // does not change once it is known
	fair    atomic.Bool
	busy    atomic.Int64
	over    chan struct{}

	answering sync.RWMutex // held for reading while a payload is accepted and answered

	mu     sync.Mutex // guards the fields below
	random *rand.Rand
	server *http.Server
}

func newFlakyIntake(t *testing.T, seed uint64) *flakyIntake {
	f := &flakyIntake{tb: t, random: rand.New(rand.NewPCG(seed, 1)), over: make(chan struct{})}
	f.open("127.0.0.1:0")
	var living sync.WaitGroup
	living.Go(f.live)
	t.Cleanup(func() {
		close(f.over)
		living.Wait()
		f.shut()
	})
	return f
}

func (f *flakyIntake) open(address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		f.tb.Errorf("the intake cannot listen again: %v", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.address == "" {
		f.address = l.Addr().String()
	}
	f.server = &http.Server{Handler: f}
	go f.server.Serve(l)
}

// shut breaks all connections.
func (f *flakyIntake) shut() {
	f.answering.Lock()
	defer f.answering.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.server.Close()
}

// live refuses connections now and then.
func (f *flakyIntake) live() {
	for {
		f.mu.Lock()
		up, down := rand2(f.random, 2*time.Second), rand2(f.random, time.Second)
		f.mu.Unlock()
		if !f.wait(up) {
			return
		}
		if f.fair.Load() {
			continue
		}
		f.shut()
		on := f.wait(down)
		f.open(f.address)
		if !on {
			return
		}
	}
}

func (f *flakyIntake) wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-f.over:
		return false
	}
}

// calm waits until no request is being answered.
func (f *flakyIntake) calm() {
	for f.busy.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
}

func (f *flakyIntake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.busy.Add(1)
	defer f.busy.Add(-1)
	f.mu.Lock()
	what := f.random.IntN(12)
	f.mu.Unlock()
	if f.fair.Load() {
		what = 11
	}
	switch what {
	case 0, 1, 2:
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
	case 3:
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	case 4, 5:
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		f.reset(w)
	case 6:
		_, _ = io.Copy(io.Discard, r.Body)
		f.reset(w)
	case 7:
		_, _ = io.Copy(io.Discard, r.Body)
		_ = pause(r.Context(), 300*time.Millisecond)
		w.WriteHeader(http.StatusInternalServerError)
	default:
		// What was accepted is answered, unless the agent is killed meanwhile.
		f.answering.RLock()
		defer f.answering.RUnlock()
		f.inner.ServeHTTP(w, r)
		f.mu.Lock()
		late := rand2(f.random, 100*time.Millisecond)
		f.mu.Unlock()
		if what < 11 {
			time.Sleep(late)
		}
		_ = http.NewResponseController(w).Flush() // it may be dead
	}
}

// reset breaks a connection so that the client sees a reset.
func (f *flakyIntake) reset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		if !errors.Is(err, http.ErrNotSupported) {
			return // it is closed already
		}
		f.tb.Error(err)
		return
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// names returns how often each point has arrived.
func (f *flakyIntake) names() map[string]int {
	names := map[string]int{}
	note := func(name string) {
		if strings.HasPrefix(name, "kill.") {
			names[name]++
		}
	}
	for _, p := range f.inner.Points() {
		note(p.Metric)
	}
	for _, s := range f.inner.Sketches() {
		note(s.Metric)
	}
	return names
}
