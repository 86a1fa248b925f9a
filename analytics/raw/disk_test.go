package raw

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

// sinkOf is testSink of another host.
func sinkOf(host string, cfg Config) (*Sink, error) {
	return New(cfg, loadPlan(), host, Protection{Pseudonym: fakePseudonym, KeyID: "k1"}, slog.New(slog.DiscardHandler))
}

// entriesOf returns the files that the manifest names.
func entriesOf(t *testing.T, s *Sink) (all []string) {
	t.Helper()
	if err := s.files.manifest.each(func(e *manifestEntry, _ []byte) { all = append(all, e.File) }); err != nil {
		t.Fatal(err)
	}
	return all
}

// A container has another name at each start. What an earlier one left is finished and
// bounded all the same, and two of them at once do not write into one folder: the files
// of "web" begin like those of "web-1".
func TestAFolderHasOneAgent(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxFile, cfg.MaxBytes, cfg.Dir = 64<<10, 128<<10, filepath.Join(t.TempDir(), "[raw] *") // no pattern
	torn := tear(t, cfg.Dir, 500, 0)
	s := testSink(t, cfg)
	if other, err := sinkOf("web", cfg); !errors.Is(err, errLocked) {
		t.Errorf("a second agent: %v, %v", other, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := sinkOf("another", cfg)
	if err != nil {
		t.Fatal(err)
	}
	end(t, s)
	whole := strings.TrimSuffix(torn, tmpSuffix)
	if got := entriesOf(t, s); len(got) != 1 || got[0] != s.files.manifest.name(whole) {
		t.Errorf("the manifest has %v, want %s of the host before", got, whole)
	}
	// The oldest go first, whoever wrote them.
	past := time.Now().Add(-time.Hour)
	if err := os.Chtimes(whole, past, past); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(filepath.Dir(whole), "notes.txt")
	if err := os.WriteFile(foreign, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = sinkOf("third", cfg); err != nil {
		t.Fatal(err)
	}
	q := s.NewQueue()
	for range 20 {
		for range 1000 {
			put(q, "team.created", fmt.Sprintf("user_id:%d", rand.Int64()), 1, 1795258450)
		}
		s.drain(time.Now())
		s.files.keepHouse(time.Now())
	}
	end(t, s)
	if _, err := os.Stat(whole); err == nil {
		t.Error("the file of a host that is gone stays for ever")
	}
	if _, err := os.Stat(foreign); err != nil {
		t.Errorf("a file that no agent made: %v", err)
	}
	if got := books(t, s); got["files.expired"] == 0 || got["files.bytes"] == 0 || got["files.bytes"] > 4*64<<10 {
		t.Errorf("books: %v", got)
	}
}

// A disk that others need is not filled: below min_free rows are dropped and counted, the
// file under way is finished, and writing goes on when there is room.
func TestADiskIsLeftToOthers(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	var log bytes.Buffer
	s.files.log = slog.New(slog.NewTextHandler(&log, nil))
	left := int64(cfg.MinFree)
	s.files.free = func(folder string) (int64, error) {
		if folder != cfg.Dir {
			t.Errorf("asked of %s", folder)
		}
		return left, nil
	}
	q, now := s.NewQueue(), time.Now()
	step := func(free int64, user int) {
		left, now = free, now.Add(askEvery)
		put(q, "team.created", fmt.Sprintf("user_id:%d", user), 1, 1795258450)
		s.drain(now)
	}
	step(int64(cfg.MinFree), 1)
	step(int64(cfg.MinFree)-1, 2)
	step(0, 3)
	if got := books(t, s); got["rows.dropped reason:min_free"] != 2 || got["rows.written"] != 1 || len(rowsOf(t, cfg.Dir)) != 1 {
		t.Errorf("without room: %v", got)
	}
	step(1<<40, 4)
	end(t, s)
	if got := books(t, s); got["rows.dropped reason:min_free"] != 2 || got["rows.written"] != 2 || len(rowsOf(t, cfg.Dir)) != 2 {
		t.Errorf("with room: %v", got)
	}
	if text := log.String(); strings.Count(text, "no room") != 1 || !strings.Contains(text, "analytics.raw.min_free") || strings.Count(text, "room for raw events again") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// A disk is asked for its room.
func TestADiskIsAskedForItsRoom(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir, cfg.MinFree = t.TempDir(), metric.Bytes(1)<<62
	s := testSink(t, cfg)
	put(s.NewQueue(), "team.created", "user_id:1", 1, 1795258450)
	end(t, s)
	if got := books(t, s); got["rows.dropped reason:min_free"] != 1 || len(glob(t, cfg.Dir, "")) != 0 {
		t.Errorf("books: %v", got)
	}
}

// A loader may take files away for years, and the manifest does not grow.
func TestTheManifestForgetsWhatWasTaken(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	for day := range int64(2) {
		put(q, "team.created", "user_id:1", 1, 1795258450+day*secondsPerDay)
	}
	s.drain(time.Now())
	for day, one := range s.files.open {
		s.files.finish(day, one)
	}
	files := glob(t, cfg.Dir, ndjsonSuffix)
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	s.files.keepHouse(time.Now().Add(pruneEvery + time.Minute))
	if got := entriesOf(t, s); len(got) != 1 || got[0] != s.files.manifest.name(files[1]) {
		t.Errorf("the manifest has %v, and there is %s", got, files[1])
	}
	end(t, s)
}

// Files that were to become Parquet are there for loaders when Parquet is wanted no more.
func TestParquetIsGivenUp(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	put(s.NewQueue(), "team.created", "user_id:1", 1, 1795258450)
	end(t, s)
	whole := glob(t, cfg.Dir, ndjsonSuffix)[0]
	if err := errors.Join(os.Rename(whole, whole+convertSuffix), os.Remove(s.files.manifest.path)); err != nil {
		t.Fatal(err)
	}
	s = testSink(t, cfg)
	end(t, s)
	if got := entriesOf(t, s); len(got) != 1 || got[0] != s.files.manifest.name(whole) {
		t.Errorf("the manifest has %v", got)
	}
	if len(rowsOf(t, cfg.Dir)) != 1 || len(glob(t, cfg.Dir, convertSuffix)) != 0 {
		t.Errorf("files: %v", glob(t, cfg.Dir, ""))
	}
}

// A conversion that failed is made when it can be, without a restart; a damaged file is
// set aside.
func TestConversionIsTriedAgain(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Format, cfg.Dir = FormatParquet, t.TempDir()
	s := testSink(t, cfg)
	put(s.NewQueue(), "team.created", "user_id:1", 1, 1795258450)
	s.drain(time.Now())
	for day, one := range s.files.open {
		s.files.finish(day, one)
	}
	source := glob(t, cfg.Dir, convertSuffix)[0]
	inTheWay := strings.TrimSuffix(source, ndjsonSuffix+convertSuffix) + "-team.created" + parquetSuffix + tmpSuffix
	if err := os.Mkdir(inTheWay, 0o700); err != nil {
		t.Fatal(err)
	}
	c := s.files.converter
	c.try(c.waiting[0])
	c.waiting = nil
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
	s.files.keepHouse(time.Now().Add(checkEvery + time.Second))
	if len(c.waiting) != 1 {
		t.Fatalf("it is not tried again: %v", c.waiting)
	}
	damaged := filepath.Join(filepath.Dir(source), "web-1-00000000-000001"+ndjsonSuffix+convertSuffix)
	if err := os.WriteFile(damaged, []byte("no gzip"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.add(damaged)
	end(t, s)
	if len(glob(t, cfg.Dir, parquetSuffix)) != 1 || len(glob(t, cfg.Dir, convertSuffix)) != 0 || len(glob(t, cfg.Dir, damagedSuffix)) != 1 {
		t.Errorf("files: %v", glob(t, cfg.Dir, ""))
	}
	if got := books(t, s); got["files.set_aside"] != 1 || got["rows.written"] != 1 {
		t.Errorf("books: %v", got)
	}
}

// What BigQuery asks of a row that it loads: no column that the table has not, none null
// or missing that is required, values of the columns' types, and a line of 100 MB at most.
func TestBigQueryTakesRows(t *testing.T) {
	p := keeping(t)
	type column struct{ Name, Type, Mode string }
	var schema []column
	if err := json.Unmarshal(p.ExportBigQuery()[0].Text, &schema); err != nil {
		t.Fatal(err)
	}
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	long := strings.Repeat("x", 9000)
	put := func(q *Queue, name, tags string, n, received int64) {
		var all [][]byte
		for tag := range strings.SplitSeq(tags, ",") {
			all = append(all, []byte(tag))
		}
		q.Put(q.Make(p, []byte(name), all, &metric.Identity{Rate: 1}, 0, everyRow), n, received)
	}
	for _, e := range p.Events {
		var tags []string
		for i := range e.Attributes {
			tags = append(tags, e.Attributes[i].Name+":"+e.Attributes[i].Example())
		}
		for i := range 40 {
			tags = append(tags, fmt.Sprintf("other%d:%s", i, long))
		}
		put(q, e.Name, strings.Join(tags, ",")+",_consent:analytics+marketing+ads,env:prod", 2, 1795258450)
		put(q, e.Name, "_anon:1", 1, 1795258450)
		put(q, e.Name, "_id:"+long+",_ts:9999999999999999", 1, 1795258450)
	}
	end(t, s)
	rows := rowsOf(t, s.cfg.Dir)
	if len(rows) != 3*len(p.Events) {
		t.Errorf("%d rows", len(rows))
	}
	is := map[string]func(v any) bool{
		"STRING":    func(v any) bool { _, ok := v.(string); return ok },
		"INT64":     func(v any) bool { n, ok := v.(json.Number); _, err := n.Int64(); return ok && err == nil },
		"FLOAT64":   func(v any) bool { n, ok := v.(json.Number); _, err := n.Float64(); return ok && err == nil },
		"TIMESTAMP": func(v any) bool { text, _ := v.(string); _, err := time.Parse(time.RFC3339, text); return err == nil },
		"JSON":      func(v any) bool { _, ok := v.(map[string]any); return ok },
	}
	for _, row := range rows {
		const most = 100 << 20
		if len(row) > most {
			t.Errorf("a row of %d bytes", len(row))
		}
		decoder := json.NewDecoder(strings.NewReader(row))
		decoder.UseNumber()
		content := map[string]any{}
		if err := decoder.Decode(&content); err != nil {
			t.Fatal(err)
		}
		for _, c := range schema {
			v, given := content[c.Name]
			delete(content, c.Name)
			all, isList := v.([]any)
			switch {
			case c.Mode == "REPEATED":
				if given && !isList {
					t.Errorf("%s is no list: %s", c.Name, row)
				}
			case v == nil && c.Mode == "REQUIRED":
				t.Errorf("%s is missing: %s", c.Name, row)
			case v != nil:
				all = []any{v}
			}
			for _, v := range all {
				if !is[c.Type](v) {
					t.Errorf("%s is no %s: %v", c.Name, c.Type, v)
				}
			}
		}
		if len(content) > 0 {
			t.Errorf("columns that the table has not: %v", content)
		}
	}
}

// keeping is a plan with an event, cart.filled, that keeps what it does not declare.
func keeping(t *testing.T) *plan.Plan {
	t.Helper()
	p, err := plan.Load("../plan/testdata/check", plan.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A row longer than any buffer is found again in a file that was torn.
func TestLongRowsAreRecovered(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	for i := range 3 {
		tags := [][]byte{[]byte("_consent:analytics+ads")}
		for j := range 32 { // as many as are kept
			tags = append(tags, fmt.Appendf(nil, "x%d_%d:%s", i, j, strings.Repeat("y", 4000)))
		}
		q.Put(q.Make(keeping(t), []byte("cart.filled"), tags, &metric.Identity{Rate: 1}, 0, everyRow), 1, 1795258450)
	}
	s.drain(time.Now().Add(time.Minute))
	var before string
	for _, one := range s.files.open {
		before = one.path + tmpSuffix
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = testSink(t, cfg)
	end(t, s)
	if got := rowsOf(t, cfg.Dir); len(got) != 3 || len(got[0]) != len(got[2]) || len(got[0]) < 100_000 {
		t.Errorf("%d rows of %s are found again", len(got), before)
	}
}

// A disk that failed is left alone for a while, is used again then, and is only called
// well when it took something.
func TestTheDiskIsLeftAlone(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	var log bytes.Buffer
	s.files.log = slog.New(slog.NewTextHandler(&log, nil))
	folder := filepath.Join(cfg.Dir, "dt=2026-11-21")
	if err := os.WriteFile(folder, nil, 0o600); err != nil { // a folder cannot be made
		t.Fatal(err)
	}
	one := func() { put(q, "team.created", "user_id:1", 1, 1795258450); s.drain(time.Now()) }
	one()
	failed := s.files.failed
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	one()
	if got := books(t, s); got["rows.dropped reason:write_error"] != 2 || s.files.failed != failed || failed.IsZero() {
		t.Errorf("a disk that failed is asked again at once: %v", got)
	}
	s.files.failed = failed.Add(-retryAfter)
	one()
	end(t, s)
	if got := books(t, s); got["rows.dropped reason:write_error"] != 2 || got["rows.written"] != 1 {
		t.Errorf("books: %v", got)
	}
	if !s.files.failed.IsZero() {
		t.Error("a disk that takes files again has failed for ever")
	}
	if text := log.String(); strings.Count(text, "cannot be written") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// Of files beyond the bounds those go that are not being written; the folder of a day
// goes with its last file.
func TestWhatExpires(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	var all []found
	now := time.Now()
	for i := range 4 {
		folder := filepath.Join(cfg.Dir, fmt.Sprintf("dt=2026-11-0%d", i+1))
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(folder, "web-1-00000000-000001"+ndjsonSuffix)
		if i == 0 {
			path += tmpSuffix
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		all = append(all, found{path, int64(cfg.MaxBytes) / 3, now.Add(time.Duration(i-10) * time.Minute)})
	}
	s.files.expire(all, now)
	for i, want := range []bool{true, false, true, true} {
		_, err := os.Stat(filepath.Dir(all[i].path))
		if (err == nil) != want {
			t.Errorf("file %d: there %v, want %v", i, err == nil, want)
		}
	}
	// So many of them, however small.
	many := make([]found, maxFiles+1)
	for i := range many {
		many[i] = found{path: filepath.Join(cfg.Dir, "dt=none", fmt.Sprint(i)), modified: now}
	}
	before := books(t, s)["files.expired"]
	s.files.expire(many, now)
	if got := books(t, s)["files.expired"] - before; got != 1 {
		t.Errorf("%v files are removed because of their number, want 1", got)
	}
	end(t, s)
}

// A file that somebody took away before it was recovered is no damage, and a line of the
// manifest that is no line of it is passed over.
func TestWhatIsGoneIsNoDamage(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	torn := tear(t, cfg.Dir, 10, 0)
	if err := os.WriteFile(filepath.Join(cfg.Dir, manifestName), []byte("{}\n[]\n{\"file\":\"\"}\nnothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := testSink(t, cfg)
	if err := os.Remove(torn); err != nil {
		t.Fatal(err)
	}
	end(t, s)
	if got := books(t, s); got["files.set_aside"] != 0 || got["files.recovered"] != 0 {
		t.Errorf("books: %v", got)
	}
	if got := entriesOf(t, s); len(got) != 0 {
		t.Errorf("the manifest has %q", got)
	}
}

// A clock that is set back does not keep a file open for the time it lost.
func TestAFileDoesNotWaitForAClock(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	put(s.NewQueue(), "team.created", "user_id:1", 1, 1795258450)
	s.drain(time.Now())
	s.files.keepHouse(time.Now().Add(-30 * time.Second))
	if got := glob(t, cfg.Dir, ndjsonSuffix); len(got) != 0 {
		t.Errorf("half a minute back: %v", got)
	}
	s.files.keepHouse(time.Now().Add(-24 * time.Hour))
	if got := glob(t, cfg.Dir, ndjsonSuffix); len(got) != 1 {
		t.Errorf("a day back: %v", got)
	}
	end(t, s)
}
