package forwarder

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
	"github.com/weir-agent/weir/metric"
)

// change puts a configuration in force.
func change(t *testing.T, f *Forwarder, cfg Config) {
	t.Helper()
	if err := tryChange(f, cfg); err != nil {
		t.Fatal(err)
	}
}

func tryChange(f *Forwarder, cfg Config) error {
	cfg.Resolve(Defaults{})
	if err := cfg.Validate(); err != nil {
		return err
	}
	c, err := f.Prepare(cfg)
	if err == nil {
		c.Commit()
	}
	return err
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// A batch is a single point here: n is its value.
func point(n int) *metric.Batch {
	b := &metric.Batch{Start: time.Now().Truncate(time.Second), Interval: 10 * time.Second, AgentHost: "web-1"}
	b.Add(contextOf(metric.Gauge, "n", metric.Host{}, ""), metric.Series{Value: float64(n), Type: metric.GaugeType})
	return b
}

// give hands over a batch and waits until it is in the queues, and nothing before it.
func give(t *testing.T, f *Forwarder, batches chan<- *metric.Batch, b *metric.Batch) {
	t.Helper()
	eventually(t, "the queues are empty", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, o := range f.outlets {
			if len(o.queue) > 0 {
				return false
			}
		}
		return true
	})
	produced := func() (n uint64) {
		for _, s := range f.Stats() {
			n += s.Produced
		}
		return n
	}
	before := produced()
	batches <- b
	eventually(t, "it is in the queues", func() bool { return produced() > before })
}

func toFile(path string) DestinationConfig { return DestinationConfig{Type: TypeLogs, Output: path} }

func lines(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// Each batch goes to the destinations of the configuration that is in force when it
// comes. One that stays as it was is the same, with its name; one that is removed writes
// what it has.
func TestDestinationsComeAndGo(t *testing.T) {
	folder := t.TempDir()
	a, b, c := filepath.Join(folder, "a"), filepath.Join(folder, "b"), filepath.Join(folder, "c")
	cfg := Config{ShutdownTimeout: time.Minute, Forwarders: []DestinationConfig{toFile(a), toFile(b)}}
	f, batches, end := runForTest(t, cfg)
	give(t, f, batches, point(1))
	give(t, f, batches, point(2))
	kept := f.destinations[1]
	filtered := toFile(b)
	filtered.Exclude = []string{"nothing*"}
	change(t, f, Config{ShutdownTimeout: time.Minute, Forwarders: []DestinationConfig{toFile(c), filtered}})
	if f.destinations[1] != kept || kept.name() != "logs.2" {
		t.Error("the second file is another destination now")
	}
	give(t, f, batches, point(3))
	filtered.Exclude = []string{"n"}
	change(t, f, Config{ShutdownTimeout: time.Minute, Forwarders: []DestinationConfig{filtered, {Type: TypeDiscard}}})
	give(t, f, batches, point(4))
	close(batches)
	end()
	for path, want := range map[string]int{a: 2, b: 3, c: 1} {
		if got := lines(t, path); got != want {
			t.Errorf("%d lines in %s, want %d", got, filepath.Base(path), want)
		}
	}
	want := map[string]uint64{"logs": 3, "logs.2": 3, "discard": 1} // a and c were called logs
	for _, s := range f.Stats() {
		if s.Produced != want[s.Name] || s.Delivered != want[s.Name] {
			t.Errorf("%s: %d points, %d delivered; want %d", s.Name, s.Produced, s.Delivered, want[s.Name])
		}
		delete(want, s.Name)
	}
	if len(want) > 0 {
		t.Errorf("there are no books of %v", want)
	}
}

// What cannot be opened changes nothing.
func TestAChangeThatCannotBeOpened(t *testing.T) {
	folder := t.TempDir()
	a, b := filepath.Join(folder, "a"), filepath.Join(folder, "b")
	state := filepath.Join(folder, "state")
	locked := "http://127.0.0.1:2"
	held := filepath.Join(state, "spool", spoolFolder(locked))
	if err := os.MkdirAll(held, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := osDisk{}.lock(filepath.Join(held, lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	cfg := Config{ShutdownTimeout: time.Minute, StateDir: state, Spool: DefaultConfig().Spool, Forwarders: []DestinationConfig{toFile(a)}}
	f, batches, end := runForTest(t, cfg)
	before := f.destinations[0]
	for want, last := range map[string]DestinationConfig{
		"no such file":                   toFile(filepath.Join(folder, "missing", "x")),
		"another process holds the lock": {Type: TypeDatadog, APIKey: testkit.APIKey, URL: locked},
	} {
		bad := cfg
		bad.Forwarders = []DestinationConfig{toFile(b), last}
		if err := tryChange(f, bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s", err, want)
		}
	}
	give(t, f, batches, point(1))
	close(batches)
	end()
	if len(f.destinations) != 1 || f.destinations[0] != before || lines(t, a) != 1 || lines(t, b) != 0 {
		t.Error("it is not as it was")
	}
}

// A file that one destination gives up and another takes over has every line once, and
// all those of the first before those of the second.
func TestAFileChangesHands(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	forms := []string{FormatJSON, FormatText}
	configOf := func(i int) Config {
		d := toFile(path)
		d.Format, d.MaxBytes, d.Keep = forms[i%2], metric.Bytes(400+100*(i%3)), 1000
		return Config{ShutdownTimeout: time.Minute, Forwarders: []DestinationConfig{d}}
	}
	f, batches, end := runForTest(t, configOf(0))
	const changes = 50
	for i := range changes {
		give(t, f, batches, point(i))
		change(t, f, configOf(i+1))
		eventually(t, "the one before has ended", func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return len(f.leaving) < 10
		})
	}
	close(batches)
	end()
	all, _ := linesOf(t, path, 1000)
	if len(all) != changes {
		t.Fatalf("%d lines, want %d", len(all), changes)
	}
	for i, line := range all {
		if json := strings.HasPrefix(line, "{"); json != (i%2 == 0) {
			t.Fatalf("line %d: %s", i, line)
		}
	}
}

// A file that was renamed by the one before, after the next had a look at it, is not
// written to by the next.
func TestAFileThatIsRenamedMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	d := toFile(path)
	d.MaxBytes = 130 // a line
	cfg := Config{ShutdownTimeout: time.Minute, Forwarders: []DestinationConfig{d}}
	f, batches, end := runForTest(t, cfg)
	give(t, f, batches, point(1))
	next := cfg
	next.Forwarders = []DestinationConfig{toFile(path)}
	next.Resolve(Defaults{})
	c, err := f.Prepare(next)
	if err != nil {
		t.Fatal(err)
	}
	give(t, f, batches, point(2))
	c.Commit()
	give(t, f, batches, point(3))
	close(batches)
	end()
	if now, before := lines(t, path), lines(t, path+".1"); now != 2 || before != 1 {
		t.Errorf("%d lines in the file and %d in the one before, want 2 and 1", now, before)
	}
}

// A new key takes the place of one that the intake refuses: what has waited is delivered
// with it, once.
func TestAKeyIsReplaced(t *testing.T) {
	intake := testkit.NewIntake(t)
	cfg := toDatadog(intake.URL)
	cfg.StateDir, cfg.Spool = t.TempDir(), DefaultConfig().Spool
	cfg.Forwarders[0].APIKey = "ffffffffffffffffffffffffffffffff"
	f, batches, end := runForTest(t, cfg)
	give(t, f, batches, point(1))
	eventually(t, "the key is refused", func() bool { return f.Stats()[0].Retries > 0 })
	right := cfg
	right.Forwarders = []DestinationConfig{{Type: TypeDatadog, APIKey: testkit.APIKey, URL: intake.URL}}
	change(t, f, right)
	give(t, f, batches, point(2))
	eventually(t, "both are delivered", func() bool { return f.Stats()[0].Delivered == 2 })
	close(batches)
	end()
	if n := len(intake.Points()); n != 2 {
		t.Errorf("%d points arrived, want 2", n)
	}
	if all := f.Stats(); len(all) != 1 || all[0].Name != "datadog" || all[0].Produced != 2 || all[0].HandedOver != 1 || all[0].Spooled != 0 {
		t.Errorf("%+v", all)
	}
}

// What a destination leaves on disk that is removed waits for it to come back.
func TestARemovedEndpointComesBack(t *testing.T) {
	var up atomic.Bool
	intake := testkit.NewIntake(t)
	intake.Fault = func(*http.Request) int {
		if up.Load() {
			return 0
		}
		return http.StatusServiceUnavailable
	}
	to := toDatadog(intake.URL)
	to.StateDir, to.Spool = t.TempDir(), DefaultConfig().Spool
	nowhere := to
	nowhere.Forwarders = []DestinationConfig{{Type: TypeDiscard}}
	f, batches, end := runForTest(t, to)
	give(t, f, batches, point(1))
	eventually(t, "a request failed", func() bool { return f.Stats()[0].Retries > 0 })
	for range 3 {
		change(t, f, nowhere)

		eventually(t, "nobody has the spool", func() bool {
			for _, s := range f.Stats() {
				if s.Name == orphanage && s.Spooled == 1 {
					return true
				}
			}
			return false
		})
		// A change that fails gives it back.
		fails := to
		fails.Forwarders = append([]DestinationConfig{to.Forwarders[0]}, toFile(filepath.Join(to.StateDir, "missing", "x")))
		if err := tryChange(f, fails); err == nil {
			t.Fatal("a file in a folder that is not there was opened")
		}
		checkBooks(t, f)
		if s := statsOf(t, f, orphanage); s.Spooled != 1 {
			t.Errorf("after a change that failed: %+v", s)
		}
		change(t, f, to)
	}
	up.Store(true)
	eventually(t, "it is delivered", func() bool { return statsOf(t, f, "datadog").Delivered == 1 })
	close(batches)
	end()
	if n := len(intake.Points()); n != 1 {
		t.Errorf("%d points arrived, want 1", n)
	}
	var spooled uint64
	for _, s := range f.Stats() {
		spooled += s.Spooled
	}
	if spooled != 0 {
		t.Errorf("%+v", f.Stats())
	}
}

// Under load nothing is lost whatever changes, and what does not change notices nothing.
func TestChangesUnderLoad(t *testing.T) {
	intake := testkit.NewIntake(t)
	folder := t.TempDir()
	a, b := filepath.Join(folder, "a"), filepath.Join(folder, "b")
	configOf := func(i int) Config {
		cfg := toDatadog(intake.URL)
		cfg.StateDir, cfg.Spool = folder, DefaultConfig().Spool
		cfg.ShutdownTimeout += time.Duration(i) * time.Millisecond
		cfg.Forwarders[0].Concurrency = 1 + i%2
		cfg.Forwarders = append(cfg.Forwarders, toFile(a))
		if i%3 == 0 {
			cfg.Forwarders = append([]DestinationConfig{toFile(b)}, cfg.Forwarders...)
		}
		return cfg
	}
	f, batches, end := runForTest(t, configOf(0))
	const n = 300
	var working sync.WaitGroup
	working.Go(func() {
		for i := range n {
			give(t, f, batches, point(i))
		}
	})
	working.Go(func() {
		for i := range 20 {
			change(t, f, configOf(i))
			checkBooks(t, f)
		}
	})
	working.Wait()
	close(batches)
	end()
	values := map[string]bool{}
	for _, p := range intake.Points() {
		values[fmt.Sprint(p.Value)] = true
	}
	stats := statsOf(t, f, "datadog")
	if len(values) != n || len(intake.Points()) != n || stats.Delivered != n || stats.DroppedInAll() != 0 {
		t.Errorf("%d values in %d points arrived, want %d: %+v", len(values), len(intake.Points()), n, stats)
	}
	if got := lines(t, a); got != n {
		t.Errorf("%d lines in the file that stayed, want %d", got, n)
	}
}

// A destination that is removed and cannot deliver gives up after the shutdown timeout,
// under a reason of its own, and stops nobody.
func TestARemovedDestinationGivesUp(t *testing.T) {
	cfg := Config{ShutdownTimeout: minShutdown, Forwarders: []DestinationConfig{{Type: TypeDatadog, APIKey: testkit.APIKey, URL: "http://127.0.0.1:1"}}}
	f, batches, end := runForTest(t, cfg)
	give(t, f, batches, point(1))
	change(t, f, Config{ShutdownTimeout: minShutdown, Forwarders: []DestinationConfig{{Type: TypeDiscard}}})
	eventually(t, "it gives up", func() bool { return statsOf(t, f, "datadog").Dropped[DroppedRemoved] == 1 })
	give(t, f, batches, point(2))
	close(batches)
	if log := end(); !strings.Contains(log, "dropped points: a forwarder was removed") {
		t.Errorf("log:\n%s", log)
	}
	if s := statsOf(t, f, "discard"); s.Delivered != 1 {
		t.Errorf("%+v", s)
	}
	if _, err := f.Prepare(cfg); err == nil {
		t.Error("a forwarder that has stopped takes a configuration")
	}
}
