package forwarder

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// statsOf returns the accounts of a place by its name.
func statsOf(t *testing.T, f *Forwarder, name string) DestinationStats {
	t.Helper()
	for _, s := range f.Stats() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("nothing is called %s: %+v", name, f.Stats())
	return DestinationStats{}
}

func spooledFiles(t *testing.T, folder string) (n int) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != lockName {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Every payload goes to every endpoint with every key. One that is down, and one that
// refuses the key, cost the others nothing, and keep what they miss for themselves.
func TestAdditionalEndpoints(t *testing.T) {
	first, second, refuses, comesBack := testkit.NewIntake(t), testkit.NewIntake(t), testkit.NewIntake(t), testkit.NewIntake(t)
	const other = "ffffffffffffffffffffffffffffffff"
	cfg := toDatadog(first.URL)
	cfg.StateDir = t.TempDir()
	cfg.Spool = DefaultConfig().Spool
	cfg.ShutdownTimeout = 4 * time.Second
	dead := "http://127.0.0.1:1"
	cfg.Forwarders[0].AdditionalEndpoints = []EndpointConfig{
		{APIKey: testkit.APIKey, URL: dead},
		{APIKey: other, URL: refuses.URL},
		{APIKey: testkit.APIKey, URL: second.URL},
		{APIKey: other, URL: second.URL}, // the same place with another key
	}
	b := example()
	b.Start = time.Now()
	f, log := deliver(t, cfg, b, b)
	for name, delivered := range map[string]uint64{
		"datadog": 10, "datadog/additional.1": 0, "datadog/additional.2": 0, "datadog/additional.3": 10, "datadog/additional.4": 0,
	} {
		s := statsOf(t, f, name)
		if s.Produced != 10 || s.Delivered != delivered || s.Spooled != 10-delivered || s.DroppedInAll() != 0 || s.Healthy != (delivered > 0) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if n, m := len(first.Points()), len(second.Points()); n != 8 || m != 8 {
		t.Errorf("%d and %d points, want 8 each", n, m)
	}
	for _, name := range []string{"datadog/additional.1", "datadog/additional.2", "datadog/additional.4"} {
		if !strings.Contains(log, "forwarder="+name) {
			t.Errorf("the log says nothing of %s:\n%s", name, log)
		}
	}
	if !strings.Contains(log, "refuses the API key") || strings.Contains(log, testkit.APIKey) || strings.Contains(log, other) {
		t.Errorf("log:\n%s", log)
	}
	if n := spooledFiles(t, cfg.StateDir); n != 3*4 {
		t.Errorf("%d files in the spools, want a series and a sketch payload of two batches of three endpoints", n)
	}
	holdsKey(t, cfg.StateDir, testkit.APIKey, other)

	// With the right key and an intake at the place of the dead one, each gets what it
	// has missed, and no other gets anything twice.
	keep := filepath.Join(cfg.StateDir, "spool")
	renameSpool(t, keep, dead, comesBack.URL)
	cfg.ShutdownTimeout = time.Minute
	more := cfg.Forwarders[0].AdditionalEndpoints
	more[0].URL, more[1].APIKey, more[3].APIKey = comesBack.URL, testkit.APIKey, testkit.APIKey
	f, _ = deliverUntilIdle(t, cfg)
	for i, in := range []*testkit.Intake{first, comesBack, refuses} {
		if n := len(in.Points()); n != 8 {
			t.Errorf("%d: %d points, want 8", i, n)
		}
	}
	if n := len(second.Points()); n != 16 { // by two keys
		t.Errorf("%d points, want 16", n)
	}
	for _, s := range f.Stats() {
		if s.Spooled != 0 || s.Restored != s.Delivered || s.DroppedInAll() != 0 {
			t.Errorf("%+v", s)
		}
	}
}

// holdsKey fails if a file in a folder has a key in it.
func holdsKey(t *testing.T, folder string, keys ...string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, key := range keys {
			if strings.Contains(string(text)+path, key) {
				t.Errorf("%s holds a key", path)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// renameSpool gives the spool of one base URL to another.
func renameSpool(t *testing.T, folder, from, to string) {
	t.Helper()
	if err := os.RemoveAll(filepath.Join(folder, spoolFolder(to))); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(folder, spoolFolder(from)), filepath.Join(folder, spoolFolder(to))); err != nil {
		t.Fatal(err)
	}
}

// deliverUntilIdle runs a forwarder without batches until nothing is left.
func deliverUntilIdle(t *testing.T, cfg Config) (f *Forwarder, log string) {
	t.Helper()
	f, queue, end := runForTest(t, cfg)
	deadline := time.Now().Add(30 * time.Second)
	for left := uint64(1); left > 0; time.Sleep(time.Millisecond) {
		left = 0
		for _, s := range f.Stats() {
			left += s.Spooled + s.Queued
		}
		if time.Now().After(deadline) {
			t.Fatalf("not delivered: %+v", f.Stats())
		}
	}
	close(queue)
	return f, end()
}

// What is kept for longer than Datadog's hour, for an intake of one's own, is delivered
// then; and a change of the password in its URL changes nothing of what is kept.
func TestKeptForLong(t *testing.T) {
	in := testkit.NewIntake(t)
	with := func(password string) string { return strings.Replace(in.URL, "://", "://weir:"+password+"@", 1) }
	cfg, _ := toTry(with("old"))
	cfg.StateDir, cfg.Spool = t.TempDir(), DefaultConfig().Spool
	cfg.Spool.MaxAge, cfg.Spool.MinFree = 6*time.Hour, 0
	b := *example()
	b.Start, b.Sketches, b.Events, b.Checks = time.Now().Add(-5*time.Hour), nil, nil, nil
	cfg.Resolve(Defaults{})
	f, err := New(cfg, "weir/1.2.3", discard())
	if err != nil {
		t.Fatal(err)
	}
	e := f.destinations[0].(*datadog).endpoints[0]
	f.destinations[0].(*datadog).packer.pack(&b, func(p payload) {
		mustPut(t, e.spool, &record{route: p.route.path, encoding: p.encoding, start: p.start, points: p.points, body: p.body})
	}, func(uint64, DropReason) { t.Error("dropped") })
	f.close()
	cfg.Forwarders[0].URL = with("new")
	cfg.ShutdownTimeout = time.Minute
	f, log := deliverUntilIdle(t, cfg)
	if s := f.Stats()[0]; s.Restored != b.Points() || s.Delivered != s.Restored || s.DroppedInAll() != 0 {
		t.Errorf("%+v\n%s", s, log)
	}
}

// An endpoint that is not configured any more leaves a spool behind: that is told,
// counted and kept, until its payloads are too old.
func TestSpoolsOfNobody(t *testing.T) {
	back := testkit.NewIntake(t)
	dead := "http://127.0.0.1:1"
	cfg, b := toTry(dead)
	cfg.StateDir, cfg.Spool = t.TempDir(), DefaultConfig().Spool
	if f, _ := deliver(t, cfg, b); f.Stats()[0].Spooled != 5 {
		t.Fatalf("%+v", f.Stats())
	}
	folder := filepath.Join(cfg.StateDir, "spool", spoolFolder(dead))
	// What is no spool is left alone.
	for _, other := range []string{"empty", "full"} {
		if err := os.MkdirAll(filepath.Join(cfg.StateDir, "spool", other), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(cfg.StateDir, "spool", "full", "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	elsewhere := cfg
	elsewhere.Forwarders = toDatadog(back.URL).Forwarders
	f, log := deliver(t, elsewhere)
	if s := statsOf(t, f, "unconfigured"); s.Restored != 5 || s.Spooled != 5 || s.SpoolBytes == 0 || s.DroppedInAll() != 0 {
		t.Errorf("%+v", s)
	}
	for _, want := range []string{"endpoint=" + dead, "points=5", "bytes=", folder, "configure it again"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log:\n%s", want, log)
		}
	}
	if n := spooledFiles(t, folder); n != 2 {
		t.Errorf("%d files are left, want 2", n)
	}

	// As long as it is young it is there for an endpoint that comes back.
	again := cfg
	renameSpool(t, filepath.Join(cfg.StateDir, "spool"), dead, back.URL)
	again.Forwarders = elsewhere.Forwarders
	again.ShutdownTimeout = time.Minute
	f, _ = deliverUntilIdle(t, again)
	if len(f.Stats()) != 1 || f.Stats()[0].Delivered != 5 {
		t.Errorf("%+v", f.Stats())
	}

	// Too old, it goes, folder and all.
	if f, _ = deliver(t, cfg, b); f.Stats()[0].Spooled != 5 {
		t.Fatalf("%+v", f.Stats())
	}
	elsewhere.Spool.MaxAge = time.Nanosecond
	f, log = deliver(t, elsewhere)
	if s := statsOf(t, f, "unconfigured"); s.Restored != 5 || s.Spooled != 0 || s.Dropped[DroppedTooOld] != 5 || !strings.Contains(log, "points=5") {
		t.Errorf("%+v\n%s", s, log)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
	for _, other := range []string{"empty", "full/file"} {
		if _, err := os.Stat(filepath.Join(cfg.StateDir, "spool", other)); err != nil {
			t.Error(err)
		}
	}
}

// Without a spool there is a warning that says why.
func TestWithoutASpool(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"disabled": {func(c *Config) { c.Spool.Enabled = false }, "spool.enabled is false"},
		"a file":   {func(c *Config) { c.StateDir = file }, file},
		"logs":     {func(c *Config) { c.Spool.Enabled, c.Forwarders = false, []DestinationConfig{{Type: TypeDiscard}} }, ""},
		"works":    {func(*Config) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := toDatadog(testkit.NewIntake(t).URL)
			cfg.StateDir, cfg.Spool = t.TempDir(), DefaultConfig().Spool
			test.change(&cfg)
			f, log := deliver(t, cfg, example())
			if s := f.Stats()[0]; s.Delivered != 5 {
				t.Errorf("%+v", s)
			}
			if told := strings.Contains(log, "level=WARN msg=\"there is no spool"); told != (test.want != "") || !strings.Contains(log, test.want) || test.want == "" && strings.Contains(log, "level=WARN") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}

// What people have in DD_URL, and where that is.
func TestBaseURLs(t *testing.T) {
	for _, test := range []struct{ site, url, want string }{
		{"datadoghq.com", "", "https://api.datadoghq.com"},
		{"datadoghq.eu", "", "https://api.datadoghq.eu"},
		{"ddog-gov.com", "", "https://api.ddog-gov.com"},
		{"datadoghq.com", "https://app.datadoghq.com", "https://api.datadoghq.com"},
		{"datadoghq.com", "https://app.datadoghq.eu/", "https://api.datadoghq.eu"},
		{"datadoghq.com", "https://app.us5.datadoghq.com", "https://api.us5.datadoghq.com"},
		{"datadoghq.com", "http://App.DatadogHQ.com.:443", "https://api.datadoghq.com"},
		{"datadoghq.com", "https://app.ddog-gov.com", "https://api.ddog-gov.com"},
		{"datadoghq.com", "https://api.us3.datadoghq.com", "https://api.us3.datadoghq.com"},
		{"datadoghq.com", "https://app.datadoghq.com.evil.org", "https://app.datadoghq.com.evil.org"},
		{"datadoghq.com", "https://app.datadoghq.org", "https://app.datadoghq.org"},
		{"datadoghq.com", "https://app.datadoghq.com:8443", "https://app.datadoghq.com:8443"},
		{"datadoghq.com", "https://app.datadoghq.com/prefix/", "https://app.datadoghq.com/prefix"},
		{"datadoghq.com", "http://intake.example.org:8080/prefix/", "http://intake.example.org:8080/prefix"},
	} {
		if got := (&EndpointConfig{Site: test.site, URL: test.url}).base(); got != test.want {
			t.Errorf("site %s, url %s: %s, want %s", test.site, test.url, got, test.want)
		}
	}
}

// Dead destinations cost those that live nothing, and no more memory than they may have,
// however long they are dead.
func TestDeadDestinationsAreBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	cfg := toDatadog("http://127.0.0.1:1")
	cfg.ShutdownTimeout = 100 * time.Millisecond
	cfg.Forwarders[0].Compression = CompressNone
	cfg.Forwarders = append(
		cfg.Forwarders,
		DestinationConfig{Type: TypeDogStatsD, Address: "unix:///nowhere/at/all"},
		DestinationConfig{Type: TypeLogs, Output: file, Format: FormatText},
		DestinationConfig{Type: TypeDiscard},
	)
	f, queue, end := runForTest(t, cfg)
	endpoints := []*endpoint{f.destinations[0].(*datadog).endpoints[0], f.destinations[1].(*relay).endpoint}
	const intervals, series = 60, 20_000
	many := manySeries(series)
	for i := range intervals {
		b := *many
		b.Start = time.Now()
		queue <- &b
		want := uint64(i+1) * series
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			all := f.Stats()
			if all[2].Delivered == want && all[3].Delivered == want {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("interval %d is late: %+v", i, all)
			}
		}
		for _, e := range endpoints {
			e.mu.Lock()
			held := e.bytes
			e.mu.Unlock()
			if held > defaultMaxQueue {
				t.Fatalf("%s holds %d bytes", e.label, held)
			}
		}
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if most := uint64(len(endpoints))*defaultMaxQueue + 96<<20; memory.HeapAlloc > most {
		t.Errorf("%d bytes of memory, want %d at most", memory.HeapAlloc, most)
	}
	close(queue)
	end()
	for _, s := range f.Stats()[:2] {
		if s.Delivered != 0 || s.Dropped[DroppedQueueFull] == 0 || s.Dropped[DroppedShutdown] == 0 {
			t.Errorf("%s: %v", s.Name, &s)
		}
	}
}
