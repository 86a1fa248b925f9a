package raw

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/internal/diskio"
	"github.com/weir-agent/weir/metric"
)

// files are the files of rows: one open for each day of events, finished when it is
// large or old. A finished one has its name, all its bytes on disk and a line in the
// manifest; one that is not ends in .tmp.
type files struct {
	cfg       Config
	log       *slog.Logger
	stats     *stats
	prefix    string // of the names of the files that are made: "web-1-"
	boot      string // of this run
	made      int
	lock      io.Closer
	manifest  manifest
	converter *converter // nil: files stay NDJSON

	open    map[int64]*file // by day, in days since 1970
	torn    []string        // files that an earlier run left unfinished
	failed  time.Time       // when the disk failed last; zero: it does well
	full    bool            // less than MinFree is left of the disk
	asked   time.Time       // when the disk was asked for its room last
	free    func(folder string) (int64, error)
	checked time.Time // when the bounds were looked at last
	pruned  time.Time // when files that somebody took away were looked for last
}

const (
	folderMode = 0o700
	fileMode   = 0o600
	// retryAfter is how long the disk is left alone after a failure.
	retryAfter = 10 * time.Second
	// checkEvery is how often the bounds are looked at, besides after each file.
	checkEvery = time.Minute
	// askEvery is how often the disk is asked for its room.
	askEvery = time.Second
	// pruneEvery is how often the manifest forgets files that somebody took away.
	pruneEvery = time.Hour
	// maxFiles bounds how many files there are, whatever their size.
	maxFiles = 20_000

	lockName      = ".lock"
	tmpSuffix     = ".tmp"
	rebuiltSuffix = ".rebuilt" // of a copy of a file that was torn
	damagedSuffix = ".damaged"
	ndjsonSuffix  = ".ndjson.gz"
	parquetSuffix = ".parquet"
	// convertSuffix is of files that are whole and are to become Parquet.
	convertSuffix = ".convert"
)

var errLocked = errors.New("another agent writes there; give each its own analytics.raw.dir, or state_dir")

// openFiles makes the folder ready.
func openFiles(cfg Config, p *plan.Plan, host string, stats *stats, log *slog.Logger) (*files, error) {
	if err := os.MkdirAll(cfg.Dir, folderMode); err != nil {
		return nil, fmt.Errorf("make the folder for raw events: %w; set analytics.raw.dir to one that weir may write", err)
	}
	f := &files{
		cfg: cfg, log: log, stats: stats, prefix: fileName(host) + "-", boot: fmt.Sprintf("%08x", time.Now().Unix()),
		open: map[int64]*file{}, free: diskio.Free, pruned: time.Now(), manifest: manifest{path: filepath.Join(cfg.Dir, manifestName)},
	}
	var err error
	if f.lock, err = diskio.Lock(filepath.Join(cfg.Dir, lockName)); err != nil {
		if errors.Is(err, diskio.ErrLocked) {
			err = errLocked
		}
		return nil, fmt.Errorf("raw events in %s: %w", cfg.Dir, err)
	}
	found, err := f.list()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("raw events: %w", err), f.unlock())
	}
	for _, one := range found {
		if strings.HasSuffix(one.path, rebuiltSuffix+tmpSuffix) || strings.HasSuffix(one.path, parquetSuffix+tmpSuffix) {
			_ = os.Remove(one.path) // what it was made of is still there
		} else if strings.HasSuffix(one.path, tmpSuffix) {
			f.torn = append(f.torn, one.path)
		}
	}
	if cfg.Format == FormatParquet {
		f.converter = newConverter(f, p)
	}
	for i := range found {
		one := &found[i]
		if !strings.HasSuffix(one.path, convertSuffix) {
			continue
		}
		if f.converter != nil {
			f.converter.add(one.path)
			continue
		}
		// It was to become Parquet, which nobody wants any more.
		if plain := strings.TrimSuffix(one.path, convertSuffix); os.Rename(one.path, plain) == nil {
			one.path = plain
		}
	}
	if err := f.manifest.complete(found, log); err != nil {
		return nil, errors.Join(fmt.Errorf("the manifest of raw events: %w", err), f.unlock())
	}
	f.expire(found, time.Now())
	return f, nil
}

func (f *files) unlock() error { return f.lock.Close() }

// fileName is a host's name as far as it may be part of a file's.
func fileName(host string) string {
	name := strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '_'
	}, host)
	if name = strings.TrimLeft(name[:min(len(name), 100)], "."); name == "" {
		return "host"
	}
	return name
}

const secondsPerDay = 86400

// dayOf is the folder that a row belongs into: of the day of the event, or of its
// arrival if its own day is long over. So only a few are open at once.
func dayOf(r *row) int64 {
	if r.template.late {
		return floorDay(r.came)
	}
	return floorDay(r.time / 1000)
}

func floorDay(unix int64) int64 {
	day := unix / secondsPerDay
	if unix%secondsPerDay < 0 {
		day--
	}
	return day
}

// add writes a row, or counts it as dropped if the disk does not take it. It returns the
// text, nil if there was no need to make it.
func (f *files) add(r *row, e *encoder) (json []byte) {
	if f.full {
		f.stats.dropped[tooFull].Add(1)
		return nil
	}
	day := dayOf(r)
	one := f.open[day]
	if one == nil {
		if !f.failed.IsZero() && time.Since(f.failed) < retryAfter {
			f.stats.dropped[writeError].Add(1)
			return nil
		}
		var err error
		if one, err = f.begin(day); err != nil {
			f.fail(err)
			f.stats.dropped[writeError].Add(1)
			return nil
		}
		f.open[day] = one
	}
	f.stats.buffered.Add(1)
	one.fresh++
	room := one.text.room()
	b := e.append(room, r)
	one.text.compress(b, e.parts, r.template.shape)
	json = b[len(room):]
	if err := one.added(r.time); err != nil {
		f.abandon(day, one, err)
	} else if one.size() >= int64(f.cfg.MaxFile) {
		f.finish(day, one)
	}
	return json
}

// begin makes a new file.
func (f *files) begin(day int64) (*file, error) {
	folder := filepath.Join(f.cfg.Dir, "dt="+time.Unix(day*secondsPerDay, 0).UTC().Format(time.DateOnly))
	if err := os.MkdirAll(folder, folderMode); err != nil {
		return nil, err
	}
	for {
		f.made++
		path := filepath.Join(folder, fmt.Sprintf("%s%s-%06d%s", f.prefix, f.boot, f.made, ndjsonSuffix))
		if _, err := os.Lstat(path); err == nil {
			continue // two runs within a second
		}
		one, err := createFile(path)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return one, err
	}
}

// fail notes that the disk does not do its work.
func (f *files) fail(err error) {
	if f.failed.IsZero() {
		f.log.Error("raw events cannot be written; rows are dropped until they can", "error", err)
	}
	f.failed = time.Now()
}

// settle says what became of the rows that were on their way into a file.
func (f *files) settle(one *file, written bool) {
	if written {
		f.stats.written.Add(uint64(one.fresh))
	} else {
		f.stats.dropped[writeError].Add(uint64(one.fresh))
	}
	f.stats.buffered.Add(-one.fresh)
	one.fresh = 0
}

// abandon gives a file up that could not be written. What reached it is finished later.
func (f *files) abandon(day int64, one *file, err error) {
	f.fail(err)
	f.settle(one, false)
	delete(f.open, day)
	_ = one.file.Close()
	f.torn = append(f.torn, one.path+tmpSuffix)
}

// finish gives a file its name.
func (f *files) finish(day int64, one *file) {
	delete(f.open, day)
	to := one.path
	if f.converter != nil {
		to += convertSuffix
	}
	if err := one.finish(to); err != nil {
		f.fail(err)
		f.settle(one, false)
		f.torn = append(f.torn, one.path+tmpSuffix)
		return
	}
	f.failed = time.Time{}
	f.settle(one, true)
	if f.converter != nil {
		f.converter.add(to)
		return
	}
	f.finished(one.entry())
}

// finished notes a file that is whole.
func (f *files) finished(e manifestEntry) {
	f.stats.files.Add(1)
	if err := f.manifest.append(e); err != nil {
		f.fail(err)
	}
	f.checked = time.Time{}
}

// askForRoom finds out whether there is room on the disk. Without it no rows are written,
// and what is written is finished, so that a loader can take it away.
func (f *files) askForRoom(now time.Time) {
	if since := now.Sub(f.asked); since >= 0 && since < askEvery {
		return
	}
	f.asked = now
	left, err := f.free(f.cfg.Dir)
	full := err == nil && left < int64(f.cfg.MinFree) // if the disk does not answer, writing will tell
	if full == f.full {
		return
	}
	f.full = full
	if !full {
		f.log.Info("there is room for raw events again", "dir", f.cfg.Dir)
		return
	}
	f.log.Error("the disk has no room for raw events, and their rows are dropped; free some, or lower analytics.raw.min_free or max_bytes",
		"dir", f.cfg.Dir, "left", metric.Bytes(max(left, 0)), "min_free", f.cfg.MinFree)
	for day, one := range f.open {
		f.finish(day, one)
	}
}

// flush hands what was compressed to the system, now and then.
func (f *files) flush(now time.Time) {
	for day, one := range f.open {
		if one.unsynced && now.Sub(one.synced) >= syncEvery {
			one.synced = now
			if err := one.sync(); err != nil {
				f.abandon(day, one, err)
			} else {
				f.settle(one, true)
			}
		}
	}
}

// keepHouse finishes files that are old, and one that an earlier run or a failure left;
// and removes what is beyond the bounds.
func (f *files) keepHouse(now time.Time) {
	for day, one := range f.open {
		if age := now.Sub(one.begun); age >= f.cfg.MaxFileAge || age < -time.Minute {
			f.finish(day, one)
		}
	}
	if len(f.torn) > 0 && (f.failed.IsZero() || now.Sub(f.failed) >= retryAfter) {
		path := f.torn[0]
		f.torn = f.torn[1:]
		f.recover(path)
	}
	if since := now.Sub(f.checked); since >= checkEvery || since < 0 {
		f.checked = now
		found, err := f.list()
		if err != nil {
			f.fail(err)
			return
		}
		f.expire(found, now)
		if f.converter != nil && !f.full {
			f.converter.again()
		}
	}
	if since := now.Sub(f.pruned); since >= pruneEvery || since < 0 {
		f.pruned = now
		if err := f.manifest.prune(); err != nil {
			f.fail(err)
		}
	}
}

// recover finishes a file that was torn, up to the last row that is whole.
func (f *files) recover(path string) {
	whole, err := rebuild(path, strings.TrimSuffix(path, tmpSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		f.setAside(path, err)
		return
	}
	f.stats.recovered.Add(1)
	if whole == nil { // there was none
		_ = os.Remove(path)
		return
	}
	f.log.Warn("a file of raw events was not finished; it is now, up to its last whole row", "file", whole.path, "rows", whole.rows)
	if f.converter != nil {
		to := whole.path + convertSuffix
		if err := os.Rename(whole.path, to); err != nil {
			f.fail(err)
			return
		}
		f.converter.add(to)
		return
	}
	f.finished(whole.entry())
}

// setAside renames a file that nothing can be done with.
func (f *files) setAside(path string, why error) {
	f.stats.setAside.Add(1)
	f.log.Error("a file of raw events cannot be finished; it was set aside", "file", path+damagedSuffix, "error", why)
	if err := os.Rename(path, path+damagedSuffix); err != nil {
		f.fail(err)
	}
}

// close finishes all files.
func (f *files) close(now time.Time) error {
	for day, one := range f.open {
		f.finish(day, one)
	}
	for len(f.torn) > 0 {
		path := f.torn[0]
		f.torn = f.torn[1:]
		f.recover(path)
	}
	if f.converter != nil {
		f.converter.close()
	}
	if !f.failed.IsZero() && now.Sub(f.failed) < retryAfter {
		return errors.New("not all rows could be written; what is in files that end in .tmp is finished at the next start")
	}
	return nil
}

// found is a file of rows.
type found struct {
	path     string // below the folder of all
	size     int64
	modified time.Time
}

// ofRows matches the names of files that an agent made, whatever its host was called
// then: in a container that is another name at each start.
var ofRows = regexp.MustCompile(`^.+-[0-9a-f]{8}-[0-9]{6,}(-.+)?\.(ndjson\.gz|parquet)(\.[a-z.]+)?$`)

// list returns the files of rows, the oldest first.
func (f *files) list() ([]found, error) {
	var all []found
	days, err := os.ReadDir(f.cfg.Dir)
	if err != nil {
		return nil, err
	}
	for _, day := range days {
		if !day.IsDir() || !strings.HasPrefix(day.Name(), "dt=") {
			continue
		}
		folder := filepath.Join(f.cfg.Dir, day.Name())
		entries, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, entry := range entries {
			if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && ofRows.MatchString(entry.Name()) {
				all = append(all, found{filepath.Join(folder, entry.Name()), info.Size(), info.ModTime()})
			}
		}
	}
	slices.SortFunc(all, func(a, b found) int {
		if c := a.modified.Compare(b.modified); c != 0 {
			return c
		}
		return strings.Compare(a.path, b.path)
	})
	return all, nil
}

// expire removes the oldest files beyond the bounds. Those that are being written stay.
func (f *files) expire(all []found, now time.Time) {
	total, count := int64(0), len(all)
	for i := range all {
		total += all[i].size
	}
	gone := map[string]bool{}
	for i := range all {
		one := &all[i]
		old := now.Sub(one.modified) > f.cfg.MaxAge
		if !old && total <= int64(f.cfg.MaxBytes) && count <= maxFiles {
			break
		}
		if strings.HasSuffix(one.path, tmpSuffix) && !old {
			continue
		}
		if err := os.Remove(one.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.fail(err)
			continue
		}
		gone[f.manifest.name(one.path)] = true
		total, count = total-one.size, count-1
		f.stats.expired.Add(1)
		_ = os.Remove(filepath.Dir(one.path)) // if it was the last one of its day
	}
	f.stats.bytes.Store(total)
	if len(gone) > 0 {
		if err := f.manifest.forget(gone); err != nil {
			f.fail(err)
		}
	}
}
