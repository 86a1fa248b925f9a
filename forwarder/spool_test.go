package forwarder

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/diskio"
	"github.com/weir-agent/weir/metric"
)

func mustOpenSpool(t testing.TB, cfg spoolConfig) *spool {
	t.Helper()
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" && runtime.GOOS != "freebsd" {
		t.Skip("there is no spool on ", runtime.GOOS)
	}
	s, err := openSpool(cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

// testSpoolConfig is the defaults, whatever room there is where the tests run.
func testSpoolConfig(t testing.TB) spoolConfig {
	cfg := defaultSpoolConfig(filepath.Join(t.TempDir(), "state", "spool"))
	cfg.MinFree = 0
	return cfg
}

func mustPut(t testing.TB, s *spool, records ...*record) {
	t.Helper()
	for _, r := range records {
		if err := s.put(r); err != nil {
			t.Fatal(err)
		}
	}
}

// points takes everything and tells the records by their points.
func takePoints(s *spool, now time.Time) (taken []uint64) {
	for {
		r, ok := s.take(now, nil)
		if !ok {
			return taken
		}
		taken = append(taken, r.points)
	}
}

func small(points uint64, at time.Time) *record {
	return &record{target: "main", route: "/api/v2/series", encoding: "zstd", start: at, points: points, body: []byte("body")}
}

// What is put comes out again, the oldest interval first and within it in the order
// of putting, also for the next agent.
func TestSpoolKeepsRecords(t *testing.T) {
	cfg := testSpoolConfig(t)
	s := mustOpenSpool(t, cfg)
	large := small(1, start.Add(10*time.Second+123*time.Nanosecond))
	large.target, large.body = "https://example.org", bytes.Repeat([]byte("0123456789"), 50_000)
	mustPut(t, s, large, small(2, start.Add(20*time.Second)), small(3, start), small(4, start.Add(20*time.Second)))

	first, _ := s.take(start, nil)
	second, _ := s.take(start, nil)
	if first.points != 3 || !same(second, large) {
		t.Errorf("taken: %d, then %+v", first.points, second)
	}
	s.release(second)
	if err := s.done(first); err != nil {
		t.Fatal(err)
	}
	third, _ := s.take(start, nil)
	if err := s.drop(third); err != nil || third.points != 1 {
		t.Errorf("drop of %d: %v", third.points, err)
	}
	got := s.stats()
	want := spoolStats{
		Records: 2, Points: 6, Bytes: 2 * spoolBlock, Oldest: start.Add(20 * time.Second),
		Put: 10, Done: 3, Dropped: 1, Puts: 4, Takes: 3, Dones: 1,
	}
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	if err := s.put(large); !errors.Is(err, errSpoolClosed) {
		t.Errorf("put into a closed spool: %v", err)
	}
	if r, ok := s.take(start, nil); ok {
		t.Errorf("taken from a closed spool: %+v", r)
	}

	s = mustOpenSpool(t, cfg)
	if got := s.stats(); got.Recovered != 6 || got.Points != 6 || got.Records != 2 {
		t.Errorf("found again: %+v", got)
	}
	mustPut(t, s, small(5, start.Add(20*time.Second)))
	if got := takePoints(s, start); !slices.Equal(got, []uint64{2, 4, 5}) {
		t.Errorf("taken: %v, want [2 4 5]", got)
	}
}

// Nobody but the owner may look into the spool.
func TestSpoolPermissions(t *testing.T) {
	cfg := testSpoolConfig(t)
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := mustOpenSpool(t, cfg)
	mustPut(t, s, small(1, start))
	err := filepath.WalkDir(cfg.Dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if info.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// Folders that have to be made are for the owner only as well.
	cfg.Dir = filepath.Join(t.TempDir(), "a", "b")
	mustOpenSpool(t, cfg)
	if info, err := os.Stat(filepath.Dir(cfg.Dir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder above: %v, %v", info.Mode(), err)
	}
}

func TestSpoolRefusesASecondAgent(t *testing.T) {
	cfg := testSpoolConfig(t)
	s := mustOpenSpool(t, cfg)
	mustPut(t, s, small(1, start))
	if _, err := openSpool(cfg, discard()); !errors.Is(err, diskio.ErrLocked) || !strings.Contains(err.Error(), cfg.Dir) || !strings.Contains(err.Error(), "state_dir") {
		t.Errorf("the second one: %v", err)
	}
	if got := takePoints(s, start); !slices.Equal(got, []uint64{1}) {
		t.Errorf("taken by the first one: %v", got)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
	mustOpenSpool(t, cfg)
}

// A folder that was named by mistake is left as it is.
func TestSpoolRefusesTheFoldersOfOthers(t *testing.T) {
	cfg := testSpoolConfig(t)
	cfg.Dir = t.TempDir()
	theirs := filepath.Join(cfg.Dir, "thesis.tex")
	if err := os.WriteFile(theirs, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cfg.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := openSpool(cfg, discard()); !errors.Is(err, errNotSpool) {
		t.Errorf("opened: %v, want %v", err, errNotSpool)
	}
	if files, err := os.ReadDir(cfg.Dir); err != nil || len(files) != 1 {
		t.Errorf("the folder has %v, %v", files, err)
	}
	if info, err := os.Stat(cfg.Dir); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the folder is %v, %v", info.Mode(), err)
	}
	cfg.Dir = theirs
	if s, err := openSpool(cfg, discard()); err == nil {
		s.close()
		t.Error("a file was opened as a spool")
	}
}

// Leftovers of a crash are removed; links, folders and pipes are not followed,
// moved or waited for.
func TestSpoolTidiesUp(t *testing.T) {
	cfg := testSpoolConfig(t)
	s := mustOpenSpool(t, cfg)
	mustPut(t, s, small(1, start))
	s.close()
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, encodeRecord(small(2, start)), 0o600); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(cfg.Dir, name) }
	for _, err := range []error{
		os.WriteFile(in(nameOf(small(9, start))+tempSuffix), []byte("half"), 0o600),
		os.WriteFile(in("core"), []byte("dumped"), 0o600),
		os.Symlink(outside, in(nameOf(small(2, start)))),
		os.Mkdir(in(nameOf(small(3, start))), 0o700),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s = mustOpenSpool(t, cfg)
	if got := takePoints(s, start); !slices.Equal(got, []uint64{1}) {
		t.Errorf("taken: %v, want [1]", got)
	}
	if got := s.stats(); got.Foreign != 3 || got.Quarantined != 0 {
		t.Errorf("%+v", got)
	}
	mustPut(t, s, small(4, start))
	file := in(spoolName{uint64(start.Unix()), s.serial, 4}.String())
	if err := errors.Join(os.Rename(file, outside), os.Symlink(outside, file)); err != nil {
		t.Fatal(err)
	}
	if r, ok := s.take(start, nil); ok {
		t.Errorf("taken by way of a link: %+v", r)
	}
	if _, err := os.Lstat(in(nameOf(small(9, start)) + tempSuffix)); !os.IsNotExist(err) {
		t.Errorf("the leftover: %v", err)
	}
	if content, err := os.ReadFile(filepath.Join(cfg.Dir, quarantineName, "core")); string(content) != "dumped" {
		t.Errorf("the foreign file: %q, %v", content, err)
	}
}

// Beyond the bound the oldest leave, but not those that are being sent; what is
// older than everything there has to stay out, and what is too large too.
func TestSpoolBytes(t *testing.T) {
	cfg := testSpoolConfig(t)
	cfg.MaxBytes = 3 * spoolBlock
	var lost []spoolLoss
	cfg.Lost = func(l spoolLoss) { lost = append(lost, l) }
	s := mustOpenSpool(t, cfg)
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	mustPut(t, s, small(1, at(1)), small(2, at(2)), small(3, at(3)))
	if r, ok := s.take(start, nil); !ok || r.points != 1 {
		t.Fatalf("taken: %+v", r)
	}
	mustPut(t, s, small(4, at(4)))
	want := spoolLoss{2, "main", "/api/v2/series", at(2), lostEvicted}
	if len(lost) != 1 || lost[0] != want {
		t.Errorf("lost: %+v, want %+v", lost, want)
	}
	if err := s.put(small(5, at(0))); !errors.Is(err, errSpoolFull) {
		t.Errorf("put of one that is older than all: %v", err)
	}
	big := small(6, at(6))
	big.body = make([]byte, 3*spoolBlock)
	if err := s.put(big); !errors.Is(err, errSpoolTooLarge) {
		t.Errorf("put of one that is too large: %v", err)
	}
	big.body = make([]byte, spoolBlock)
	mustPut(t, s, big)
	if got := s.stats(); got.Bytes != 3*spoolBlock || got.Points != 7 || got.Lost[lostEvicted] != 9 || got.Refused != 2 {
		t.Errorf("%+v", got)
	}
	s.close()

	cfg.MaxBytes = 2 * spoolBlock // less than before
	s = mustOpenSpool(t, cfg)
	if got := takePoints(s, start); !slices.Equal(got, []uint64{6}) {
		t.Errorf("taken: %v, want [6]", got)
	}
	checkSpoolBooks(t, s.stats())
}

func TestSpoolRecordsAreBounded(t *testing.T) {
	s := mustOpenSpool(t, testSpoolConfig(t))
	s.maxFiles = 3
	for n := range uint64(5) {
		mustPut(t, s, small(n, start))
	}
	if got := takePoints(s, start); !slices.Equal(got, []uint64{2, 3, 4}) {
		t.Errorf("taken: %v, want [2 3 4]", got)
	}
}

// What cannot be written in the format is refused, not cut.
func TestSpoolRefusesImpossibleRecords(t *testing.T) {
	s := mustOpenSpool(t, testSpoolConfig(t))
	for name, change := range map[string]func(*record){
		"a long route":    func(r *record) { r.route = strings.Repeat("a", maxRecordText+1) },
		"a large body":    func(r *record) { r.body = make([]byte, maxRecordBody+1) },
		"too many points": func(r *record) { r.points = maxRecordPoints + 1 },
		"no time":         func(r *record) { r.start = time.Time{} },
		"a late time":     func(r *record) { r.start = time.Unix(maxUnixStart, 0) },
	} {
		r := small(1, start)
		change(r)
		if err := s.put(r); err == nil {
			t.Errorf("%s: it was put", name)
		}
	}
	if got := s.stats(); got.Refused != 5 || got.Puts != 0 {
		t.Errorf("%+v", got)
	}
}

// Records beyond their route's age are dropped by take and by expire.
func TestSpoolAge(t *testing.T) {
	cfg := testSpoolConfig(t)
	cfg.MaxAgeOf = map[string]time.Duration{"/intake/": 18 * time.Hour}
	var lost []spoolLoss
	cfg.Lost = func(l spoolLoss) { lost = append(lost, l) }
	s := mustOpenSpool(t, cfg)
	event := small(1, start)
	event.route = "/intake/"
	mustPut(t, s, event, small(2, start), small(3, start.Add(time.Minute)), small(4, start.Add(2*time.Minute)))
	now := start.Add(time.Hour + time.Nanosecond)
	if got := takePoints(s, now); !slices.Equal(got, []uint64{1, 3, 4}) {
		t.Errorf("taken: %v, want [1 3 4]", got)
	}
	if len(lost) != 1 || lost[0].points != 2 || lost[0].why != lostTooOld {
		t.Errorf("lost: %+v", lost)
	}
	s.close()

	lost = nil
	s = mustOpenSpool(t, cfg)
	s.expire(start.Add(time.Hour + time.Minute))
	if len(lost) != 0 {
		t.Errorf("lost at the very age: %+v", lost)
	}
	s.expire(start.Add(time.Hour + time.Minute + time.Nanosecond))
	if len(lost) != 1 || lost[0].points != 3 {
		t.Errorf("lost: %+v", lost)
	}
	if got := s.stats(); got.Points != 5 || got.Bytes != 2*spoolBlock || got.Lost[lostTooOld] != 3 {
		t.Errorf("%+v", got)
	}
	if got := takePoints(s, start.Add(18*time.Hour+time.Nanosecond)); got != nil {
		t.Errorf("taken: %v", got)
	}
	checkSpoolBooks(t, s.stats())
}

func TestSpoolKeepsTheDiskFree(t *testing.T) {
	d := newMemDisk(modelFolder)
	d.space = 10 * spoolBlock
	cfg := spoolConfig{Dir: modelFolder, MaxBytes: 4 * spoolBlock, MaxAge: time.Hour, MinFree: 7 * spoolBlock}
	s, err := openSpoolOn(d, cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, small(1, start), small(2, start), small(3, start))
	if err := s.put(small(4, start)); !errors.Is(err, errSpoolNoSpace) {
		t.Errorf("put beyond the floor: %v", err)
	}
	if got := s.stats(); got.Refused != 1 || got.Points != 6 {
		t.Errorf("%+v", got)
	}
	// A spool that is full takes no more of the disk by putting.
	s.cfg.MaxBytes = 3 * spoolBlock
	mustPut(t, s, small(5, start))
	if got := takePoints(s, start); !slices.Equal(got, []uint64{2, 3, 5}) {
		t.Errorf("taken: %v, want [2 3 5]", got)
	}
}

// Giving back what was not taken would break the books.
func TestSpoolPanicsOnADoubleDone(t *testing.T) {
	s := mustOpenSpool(t, testSpoolConfig(t))
	mustPut(t, s, small(1, start))
	r, _ := s.take(start, nil)
	if err := s.done(r); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if said := fmt.Sprint(recover()); !strings.HasPrefix(said, "BUG:") {
			t.Errorf("the second done: %s", said)
		}
	}()
	_ = s.done(r)
}

// Several goroutines put and take at once; every record comes out once, and the
// bound holds.
func TestSpoolConcurrently(t *testing.T) {
	cfg := testSpoolConfig(t)
	cfg.MaxBytes = 20 * spoolBlock
	var spooled atomic.Int64
	var mu sync.Mutex
	out := map[uint64]int{}
	leave := func(points uint64) {
		spooled.Add(-int64(points))
		mu.Lock()
		defer mu.Unlock()
		out[points]++
	}
	cfg.Lost = func(l spoolLoss) { leave(l.points) }
	s := mustOpenSpool(t, cfg)
	const putters, each = 4, 50
	var putting, taking sync.WaitGroup
	var last atomic.Bool
	for p := range uint64(putters) {
		putting.Go(func() {
			for i := range uint64(each) {
				r := small(1+p*each+i, start.Add(time.Duration(i)*time.Second))
				spooled.Add(int64(r.points))
				if err := s.put(r); err != nil {
					if !errors.Is(err, errSpoolFull) {
						t.Error(err)
					}
					leave(r.points)
				}
				if got := s.stats(); got.Bytes > uint64(cfg.MaxBytes) {
					t.Errorf("the spool takes %d bytes", got.Bytes)
				}
			}
		})
	}
	for range 3 {
		taking.Go(func() {
			for {
				ended := last.Load()
				r, ok := s.take(start, nil)
				switch {
				case !ok && ended:
					return
				case !ok:
					runtime.Gosched()
				case rand.IntN(3) == 0:
					s.release(r)
				default:
					leave(r.points)
					if err := s.done(r); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	putting.Wait()
	last.Store(true)
	taking.Wait()
	for _, points := range takePoints(s, start) { // released after the others had gone
		leave(points)
	}
	for n := range uint64(putters * each) {
		if out[n+1] != 1 {
			t.Errorf("record %d left %d times", n+1, out[n+1])
		}
	}
	if spooled.Load() != 0 {
		t.Errorf("the caller's books say %d", spooled.Load())
	}
	checkSpoolBooks(t, s.stats())
}

const spoolChild = "WEIR_TEST_SPOOL_CHILD"

// TestSpoolChild is the process that TestSpoolSurvivesKill kills. It says what it
// does before and after: "put 7", "has 7", "end 7", "out 7".
func TestSpoolChild(t *testing.T) {
	folder, first := "", uint64(0)
	if _, err := fmt.Sscan(os.Getenv(spoolChild), &first, &folder); err != nil {
		t.Skip("it is a part of TestSpoolSurvivesKill")
	}
	cfg := defaultSpoolConfig(folder)
	cfg.MinFree = 0
	cfg.Lost = func(l spoolLoss) { fmt.Println("bad", l.points) }
	s, err := openSpool(cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	for n := first; ; n++ {
		fmt.Println("put", n)
		if err := s.put(modelRecord(n, start)); err != nil {
			t.Fatal(err)
		}
		fmt.Println("has", n)
		if r, ok := s.take(start, nil); ok && n%2 == 0 {
			fmt.Println("end", r.points)
			if err := s.done(r); err != nil {
				t.Fatal(err)
			}
			fmt.Println("out", r.points)
		} else if ok {
			s.release(r)
		}
	}
}

// A process is killed again and again in the middle of its work, and the next one
// finds everything that was acknowledged and nothing that was done.
func TestSpoolSurvivesKill(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	cfg := testSpoolConfig(t)
	mustOpenSpool(t, cfg).close()
	fates := map[uint64]fate{}
	var last uint64
	for round := range 8 {
		child := exec.Command(os.Args[0], "-test.run=^TestSpoolChild$")
		child.Env = append(os.Environ(), fmt.Sprint(spoolChild, "=", last+1, " ", cfg.Dir))
		child.Stderr = os.Stderr
		said, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(said)
		for heard, kill := 0, 1+rand.IntN(80); lines.Scan(); heard++ {
			if heard == kill {
				if err := child.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			var what string
			var n uint64
			if _, err := fmt.Sscan(lines.Text(), &what, &n); err != nil {
				continue // a line that was cut
			}
			switch what {
			case "put":
				fates[n], last = unsure, n
			case "has":
				fates[n] = kept
			case "end":
				fates[n] = unsure
			case "out":
				fates[n] = gone
			default:
				t.Fatalf("round %d: the process said %q", round, lines.Text())
			}
		}
		_, _ = io.Copy(io.Discard, said)
		if err := child.Wait(); err == nil {
			t.Fatalf("round %d: the process ended by itself", round)
		}
	}
	k := newKeeper(t, 0)
	k.cfg.Dir, k.cfg.MaxBytes = cfg.Dir, 1<<30
	k.fates = fates
	k.takeAll(osDisk{})
	if len(k.taken) == 0 || last < 20 {
		t.Errorf("of %d records there are %d left", last, len(k.taken))
	}
}

// BenchmarkSpool says how many payloads a second the disk takes and gives. The time
// is the disk's: two syncs for a put, one for a done.
func BenchmarkSpool(b *testing.B) {
	for _, size := range []metric.Bytes{100_000, 500_000} {
		body := make([]byte, size)
		for i := range body {
			body[i] = byte(rand.Uint32())
		}
		for _, workers := range []int{1, 4} {
			open := func(b *testing.B) *spool {
				cfg := testSpoolConfig(b)
				cfg.MaxBytes = 64 << 30
				return mustOpenSpool(b, cfg)
			}
			each := func(b *testing.B, f func()) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				var left atomic.Int64
				left.Store(int64(b.N))
				b.ResetTimer()
				var working sync.WaitGroup
				for range workers {
					working.Go(func() {
						for left.Add(-1) >= 0 {
							f()
						}
					})
				}
				working.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payloads/s")
			}
			put := func(b *testing.B, s *spool) {
				if err := s.put(&record{route: "/api/v2/series", encoding: "zstd", start: start, points: 1, body: body}); err != nil {
					b.Error(err)
				}
			}
			b.Run(fmt.Sprintf("put/bytes=%d/workers=%d", size, workers), func(b *testing.B) {
				s := open(b)
				each(b, func() { put(b, s) })
			})
			b.Run(fmt.Sprintf("takeDone/bytes=%d/workers=%d", size, workers), func(b *testing.B) {
				s := open(b)
				for range b.N {
					put(b, s)
				}
				each(b, func() {
					r, ok := s.take(start, nil)
					if !ok {
						b.Error("there is nothing to take")
						return
					}
					if err := s.done(r); err != nil {
						b.Error(err)
					}
				})
			})
		}
	}
}
