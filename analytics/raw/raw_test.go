package raw

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

const definitions = "../plan/testdata/sound"

func fakePseudonym(dst []byte, identity string, value []byte) []byte {
	return fmt.Appendf(dst, "p-%s-%x", identity, value)
}

var loadPlan = sync.OnceValue(func() *plan.Plan {
	p, err := plan.Load(definitions, plan.DefaultOptions())
	if err != nil {
		panic(err)
	}
	return p
})

// testSink is a Sink of host web-1 that is not run.
func testSink(t testing.TB, cfg Config) *Sink {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if err := cfg.Validate("raw."); err != nil {
		t.Fatal(err)
	}
	s, err := New(cfg, loadPlan(), "web-1", Protection{Pseudonym: fakePseudonym, KeyID: "k1"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put puts a row for a line of tags.
func put(q *Queue, name, tags string, n, received int64) {
	id := metric.Identity{Rate: 1}
	var all [][]byte
	for tag := range strings.SplitSeq(tags, ",") {
		all = append(all, []byte(tag))
	}
	q.Put(q.Make(loadPlan(), []byte(name), all, &id, 0, Sampling{Share: 1}), n, received)
}

// end runs the sink until everything is written.
func end(t testing.TB, s *Sink) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// glob returns the files below the sink's folder whose names end so.
func glob(t testing.TB, dir, suffix string) []string {
	t.Helper()
	folders, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		files, err := os.ReadDir(filepath.Join(dir, folder.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file.Name(), suffix) {
				found = append(found, filepath.Join(dir, folder.Name(), file.Name()))
			}
		}
	}
	return found
}

// unpack returns the rows of a file.
func unpack(t testing.TB, path string) []string {
	t.Helper()
	source, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	r, err := gzip.NewReader(source)
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	if _, err := all.ReadFrom(r); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return strings.Split(strings.TrimSuffix(all.String(), "\n"), "\n")
}

func rowsOf(t testing.TB, dir string) (all []string) {
	t.Helper()
	for _, path := range glob(t, dir, ndjsonSuffix) {
		all = append(all, unpack(t, path)...)
	}
	return all
}

// books checks that every row is somewhere, and returns what became of them.
func books(t testing.TB, s *Sink) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for _, r := range s.Readings(nil) {
		name := strings.TrimPrefix(r.Name, "analytics.raw.")
		if len(r.Tags) > 0 {
			name += " " + r.Tags[0]
		}
		all[name] = r.Value
	}
	sum := all["rows.written"] + all["rows.sampled_out"] + all["rows.queued"]
	for _, reason := range dropReasonNames {
		sum += all["rows.dropped reason:"+reason]
	}
	if s.files != nil && all["rows"] != sum {
		t.Errorf("%v rows, and %v accounted for: %v", all["rows"], sum, all)
	}
	return all
}

func TestARow(t *testing.T) {
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	const received = 1795258450 // 2026-11-21T10:54:10Z
	put(q, "team.created", "user_id:1,organization_id:7,plan:pro,_id:abc,_consent:a+m,env:prod,env:dev,colour:red,_ts:1795212000250", 1, received)
	end(t, s)
	want := `{"event_id":"abc","event":"team.created","schema_version":"1-0-0","event_time":"2026-11-20T22:00:00.250Z","received_at":"2026-11-21T10:54:10.000Z",` +
		`"host":"web-1","count":1,"sample_rate":1,"consent":["a","m"],"key_id":"k1","flags":["additional_properties"],`
	rows := rowsOf(t, s.cfg.Dir)
	if len(rows) != 1 || !strings.HasPrefix(rows[0], want) || !strings.HasSuffix(rows[0], `,"extra":{},"context":{"env":"prod"}}`) || !strings.Contains(rows[0], `"user_id":"p-user.id-31"`) {
		t.Errorf("got  %s\nwant %s", rows, want)
	}
	files := glob(t, s.cfg.Dir, ndjsonSuffix)
	if len(files) != 1 || !strings.HasPrefix(filepath.ToSlash(files[0]), filepath.ToSlash(s.cfg.Dir)+"/dt=2026-11-20/web-1-") {
		t.Errorf("files: %v", files)
	}
}

// Files are for the agent's user only, and the manifest says what is in them.
func TestManifest(t *testing.T) {
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	for i := range int64(100) {
		put(q, "team.created", fmt.Sprintf("user_id:%d,plan:pro", i), 1, 1795258450+i)
	}
	end(t, s)
	text, err := os.ReadFile(filepath.Join(s.cfg.Dir, manifestName))
	if err != nil {
		t.Fatal(err)
	}
	var e manifestEntry
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	content, err := os.ReadFile(filepath.Join(s.cfg.Dir, e.File))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	if e.SHA256 != hex.EncodeToString(sum[:]) || e.Bytes != int64(len(content)) || e.Rows != 100 || e.Format != "ndjson" ||
		e.MinTime.Unix() != 1795258450 || e.MaxTime.Unix() != 1795258549 {
		t.Errorf("manifest: %s, of %d bytes with %x", text, len(content), sum)
	}
	err = filepath.WalkDir(s.cfg.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == s.cfg.Dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.HasSuffix(path, tmpSuffix) {
			t.Errorf("%s is left", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Rows that the encoder makes are those that the exported schemas describe, whatever
// the lines say, and none is twice in any sense.
func TestRowsFitTheSchemas(t *testing.T) {
	p := loadPlan()
	schemas := map[string]*jsonschema.Schema{}
	for _, f := range p.ExportJSONSchema() {
		compiler := jsonschema.NewCompiler()
		compiler.AssertFormat()
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(f.Text))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource(f.Name, document); err != nil {
			t.Fatal(err)
		}
		if schemas[strings.TrimSuffix(f.Name, ".schema.json")], err = compiler.Compile(f.Name); err != nil {
			t.Fatal(err)
		}
	}
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	random := rand.New(rand.NewPCG(1, 2))
	values := []string{
		"", "7", "-0", "9007199254740993", "1.5", "true", "pro", "gold", "192.0.2.7", "::1", "1795212000", "äöü\xff", "b64.AAEC", "b64.YSJi",
		"x\ty", `q"\`, strings.Repeat("y", 300), "anna@example.com",
	}
	const rows = 3000
	for range rows {
		e := p.Events[random.IntN(len(p.Events))]
		var tags []string
		for i := range e.Attributes {
			tags = append(tags, e.Attributes[i].Name+":"+values[random.IntN(len(values))])
		}
		for _, key := range []string{"_id", "_consent", "_v", "_ts", "env", "env", "host", "other", `q"`} {
			if random.IntN(3) == 0 {
				tags = append(tags, key+":"+values[random.IntN(len(values))])
			}
		}
		put(q, e.Name, strings.Join(tags, ","), random.Int64N(5)+1, 1795258450+random.Int64N(1000))
	}
	end(t, s)
	// Consent that is denied never comes here; for the encoder it is a row like others.
	ids, count := map[string]int{}, 0
	for _, row := range rowsOf(t, s.cfg.Dir) {
		var content struct {
			EventID string `json:"event_id"`
			Event   string `json:"event"`
		}
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(row))
		if err != nil {
			t.Fatalf("%v\n%s", err, row)
		}
		if err := json.Unmarshal([]byte(row), &content); err != nil {
			t.Fatal(err)
		}
		if err := schemas[content.Event].Validate(document); err != nil {
			t.Errorf("%v\n%s", err, row)
		}
		if strings.Count(row, `"env":`) > 1 {
			t.Errorf("a key is there twice: %s", row)
		}
		if len(content.EventID) == 36 {
			ids[content.EventID]++
		}
		count++
	}
	if got := books(t, s); got["rows.written"] != rows || count != rows {
		t.Errorf("%d rows in files, %v counted, want %d", count, got, rows)
	}
	for id, n := range ids {
		if n > 1 || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Errorf("id %s is there %d times, or no UUID of version 7", id, n)
		}
	}
}

func TestPutDoesNotAllocate(t *testing.T) {
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	id := metric.Identity{Rate: 1}
	l := q.Make(loadPlan(), []byte("team.created"), [][]byte{[]byte("user_id:1"), []byte("plan:pro")}, &id, 0, Sampling{Share: 1})
	l.Keep()
	s.drain(time.Now())
	if n := testing.AllocsPerRun(1000, func() { q.Put(l, 1, 1795258450) }); n != 0 {
		t.Errorf("Put allocates %v times", n)
	}
	end(t, s)
	books(t, s)
}

// What a queue has no room for is dropped and counted; nobody waits.
func TestOverload(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Queue = 1024
	s := testSink(t, cfg)
	q := s.NewQueue()
	for i := range int64(5000) {
		put(q, "team.created", "user_id:1", 1, 1795258450+i)
	}
	end(t, s)
	if got := books(t, s); got["rows"] != 5000 || got["rows.written"] != 1024 || got["rows.dropped reason:queue_full"] != 3976 {
		t.Errorf("books: %v", got)
	}
	long := "user_id:1,note:" + strings.Repeat("y", 60_000)
	cfg.Queue = 1 << 16
	s = testSink(t, cfg)
	q = s.NewQueue()
	for range 1000 {
		put(q, "team.created", long, 1, 1795258450)
	}
	if q.bytes.Load() > maxQueuedBytes {
		t.Errorf("%d bytes wait", q.bytes.Load())
	}
	end(t, s)
	if got := books(t, s); got["rows.dropped reason:queue_full"] == 0 || got["rows.written"] == 0 || q.bytes.Load() != 0 {
		t.Errorf("books: %v; %d bytes left", got, q.bytes.Load())
	}
}

// A file is finished when it is old, and when it is large.
func TestRotation(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxFile, cfg.Dir = 64<<10, t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		put(q, "team.created", fmt.Sprintf("user_id:%d", random.Int64()), 1, 1795258450)
	}
	end(t, s)
	files := glob(t, cfg.Dir, ndjsonSuffix)
	if len(files) < 3 {
		t.Errorf("%d files", len(files))
	}
	for _, path := range files {
		if info, err := os.Stat(path); err != nil || info.Size() > 2*int64(cfg.MaxFile) {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
	}
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		cfg.Dir = filepath.Join(t.TempDir(), "events")
		s := testSink(t, cfg)
		q := s.NewQueue()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		put(q, "team.created", "user_id:1", 1, time.Now().Unix())
		time.Sleep(cfg.MaxFileAge - time.Second)
		if files := glob(t, cfg.Dir, ndjsonSuffix); len(files) != 0 || len(glob(t, cfg.Dir, tmpSuffix)) != 1 {
			t.Errorf("finished before its time: %v", files)
		}
		time.Sleep(2 * time.Second)
		if files := glob(t, cfg.Dir, ndjsonSuffix); len(files) != 1 {
			t.Errorf("files after %v: %v", cfg.MaxFileAge, files)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// tear makes a file that an agent was writing when it was killed.
func tear(t *testing.T, dir string, rows int, cut int64) string {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Dir = dir
	s := testSink(t, cfg)
	q := s.NewQueue()
	for i := range rows {
		put(q, "team.created", fmt.Sprintf("user_id:%d", i), 1, 1795258450)
	}
	s.drain(time.Now().Add(time.Minute)) // it is handed to the system
	torn := glob(t, dir, tmpSuffix)
	if len(torn) != 1 {
		t.Fatalf("torn: %v", torn)
	}
	info, err := os.Stat(torn[0])
	if err == nil {
		err = os.Truncate(torn[0], info.Size()-cut)
	}
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	return torn[0]
}

// A file that was not finished is finished at the next start, up to its last row.
func TestTornFilesAreFinished(t *testing.T) {
	for cut, want := range map[int64][2]int{0: {500, 500}, 30: {1, 499}, 1 << 20: {0, 0}} {
		dir := t.TempDir()
		path := tear(t, dir, 500, min(cut, 0))
		if cut > 0 {
			info, _ := os.Stat(path)
			if err := os.Truncate(path, max(0, info.Size()-cut)); err != nil {
				t.Fatal(err)
			}
		}
		cfg := DefaultConfig()
		cfg.Dir = dir
		s := testSink(t, cfg)
		end(t, s)
		rows := 0
		if files := glob(t, dir, ndjsonSuffix); len(files) > 0 {
			rows = len(unpack(t, files[0]))
		}
		if rows < want[0] || rows > want[1] || len(glob(t, dir, tmpSuffix)) > 0 {
			t.Errorf("cut by %d: %d rows, want %v; left: %v", cut, rows, want, glob(t, dir, tmpSuffix))
		}
		if got := books(t, s); got["files.recovered"] != 1 {
			t.Errorf("cut by %d: %v", cut, got)
		}
		entries := 0
		if err := s.files.manifest.each(func(e *manifestEntry, _ []byte) { entries++ }); err != nil || entries != min(rows, 1) {
			t.Errorf("cut by %d: %d entries, %v", cut, entries, err)
		}
	}
}

// A crash between a file and its line in the manifest, or within a line, is repaired.
func TestTheManifestIsCompleted(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	put(s.NewQueue(), "team.created", "user_id:1", 1, 1795258450)
	end(t, s)
	path := filepath.Join(cfg.Dir, manifestName)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, before[:len(before)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	end(t, testSink(t, cfg))
	if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
		t.Errorf("got  %swant %s", after, before)
	}
}

// The oldest files go when there are too many bytes, and the manifest forgets them.
func TestTheDiskIsBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxFile, cfg.MaxBytes, cfg.Dir = 64<<10, 256<<10, t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	random := rand.New(rand.NewPCG(1, 2))
	for range 60 {
		for range 1000 {
			put(q, "team.created", fmt.Sprintf("user_id:%d", random.Int64()), 1, 1795258450)
		}
		s.drain(time.Now())
		s.files.keepHouse(time.Now())
	}
	end(t, s)
	size, names := int64(0), map[string]bool{}
	for _, path := range glob(t, cfg.Dir, ndjsonSuffix) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
		names[s.files.manifest.name(path)] = true
	}
	if size > int64(cfg.MaxBytes)+3*int64(cfg.MaxFile) || size < int64(cfg.MaxBytes)/2 {
		t.Errorf("%d bytes are left, want about %d", size, cfg.MaxBytes)
	}
	if err := s.files.manifest.each(func(e *manifestEntry, _ []byte) {
		if !names[e.File] {
			t.Errorf("%s is in the manifest and gone", e.File)
		}
		delete(names, e.File)
	}); err != nil || len(names) > 0 {
		t.Errorf("not in the manifest: %v, %v", names, err)
	}
	if got := books(t, s); got["files.expired"] == 0 {
		t.Errorf("books: %v", got)
	}
	old := time.Now().Add(-cfg.MaxAge - time.Hour)
	left := glob(t, cfg.Dir, ndjsonSuffix)
	if err := os.Chtimes(left[0], old, old); err != nil {
		t.Fatal(err)
	}
	end(t, testSink(t, cfg))
	if got := glob(t, cfg.Dir, ndjsonSuffix); len(got) >= len(left) {
		t.Errorf("%d files of %d are left", len(got), len(left))
	}
}

// Two agents do not write into one folder under one name.
func TestTheFolderIsLocked(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	if _, err := New(cfg, loadPlan(), "web-1", Protection{Pseudonym: fakePseudonym}, slog.New(slog.DiscardHandler)); !errors.Is(err, errLocked) {
		t.Errorf("a second sink: %v", err)
	}
	end(t, s)
	end(t, testSink(t, cfg))
}

// A disk that fails costs rows, which are counted, and nothing else.
func TestTheDiskFails(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	put(q, "team.created", "user_id:1", 1, 1795258450)
	s.drain(time.Now())
	for _, one := range s.files.open {
		if err := errors.Join(one.sync(), one.file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 {
		for range 2000 {
			put(q, "team.created", fmt.Sprintf("user_id:%d", rand.Int64()), 1, 1795258450)
		}
		s.drain(time.Now().Add(time.Minute))
	}
	if got := books(t, s); got["rows.dropped reason:write_error"] == 0 {
		t.Errorf("books: %v", got)
	}
	s.files.failed = time.Time{}
	put(q, "team.created", "user_id:2", 1, 1795258450)
	end(t, s)
	rows := len(rowsOf(t, cfg.Dir))
	if got := books(t, s); got["rows.queued"] != 0 || got["rows.written"] != float64(rows-1) || rows < 2 {
		t.Errorf("%d rows in files, and the books say %v", rows, got)
	}
}

func TestValidate(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"format": func(c *Config) { c.Format = "csv" }, "max_file": func(c *Config) { c.MaxFile = 1 }, "max_file_age": func(c *Config) { c.MaxFileAge = 0 },
		"max_bytes": func(c *Config) { c.MaxBytes = c.MaxFile }, "max_age": func(c *Config) { c.MaxAge = time.Second }, "queue": func(c *Config) { c.Queue = 1 },
		"kafka.brokers[0]": func(c *Config) { c.Kafka.Brokers = []string{"kafka"} }, "kafka.key": func(c *Config) { c.Kafka.Key = "user" },
		"kafka.topic":      func(c *Config) { c.Kafka.Brokers, c.Kafka.Topic = []string{"a:1"}, "" },
		"kafka.max_queued": func(c *Config) { c.Kafka.MaxQueued = 1 }, "kafka.timeout": func(c *Config) { c.Kafka.Timeout = 0 },
		"kafka.sasl": func(c *Config) { c.Kafka.SASL = "plain" }, "kafka.ca_file": func(c *Config) { c.Kafka.CAFile = "/nowhere/ca.pem" },
	} {
		cfg := DefaultConfig()
		if err := cfg.Validate(""); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate("raw."); err == nil || !strings.HasPrefix(err.Error(), "raw."+key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
