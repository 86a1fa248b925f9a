package forwarder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"github.com/weir-agent/weir/internal/diskio"
)

// openSpool takes the folder for this process and finds what the last one left
// there. Files that a crash left half written are removed; damaged records and
// files of others go into quarantine. Only headers are read.
func openSpool(cfg spoolConfig, log *slog.Logger) (*spool, error) {
	return openSpoolOn(osDisk{}, cfg, log)
}

func openSpoolOn(d disk, cfg spoolConfig, log *slog.Logger) (*spool, error) {
	s := &spool{cfg: cfg, log: log, disk: d, maxFiles: maxSpooledRecords}
	s.quarantine.folder = filepath.Join(cfg.Dir, quarantineName)
	if err := s.open(); err != nil {
		if s.held != nil {
			s.held.Close()
		}
		return nil, fmt.Errorf("open spool %s: %w", cfg.Dir, err)
	}
	return s, nil
}

func (s *spool) open() error {
	if s.cfg.Dir == "" || s.cfg.MaxBytes < 1 || s.cfg.MaxAge <= 0 || s.cfg.MinFree < 0 {
		return errors.New("it needs a folder, a size and an age")
	}
	if err := s.prepare(); err != nil {
		return err
	}
	held, err := s.disk.lock(filepath.Join(s.cfg.Dir, lockName))
	if errors.Is(err, diskio.ErrLocked) {
		return fmt.Errorf("another agent uses it; give each a state_dir of its own: %w", err)
	}
	if err != nil {
		return diskError("lock it", err)
	}
	s.held = held
	if err := s.quarantine.load(s.disk); err != nil {
		return err
	}
	if err := s.scan(); err != nil {
		return err
	}
	// The last agent may have been allowed more.
	for s.bytes > int64(s.cfg.MaxBytes) || s.files > s.maxFiles {
		oldest := s.waiting.oldest()
		if oldest == nil {
			break // what is left could not be removed
		}
		s.waiting.remove(oldest)
		if err := s.evict(oldest); err != nil {
			s.log.Error("the spool is larger than it may be", "folder", s.cfg.Dir, "error", err)
			break
		}
	}
	if s.s.Recovered > 0 || s.s.Quarantined > 0 || s.s.Foreign > 0 {
		s.log.Info("found payloads of an earlier run in the spool", "folder", s.cfg.Dir, "payloads", s.s.Records, "points", s.s.Points,
			"damaged", s.s.Quarantined, "foreign", s.s.Foreign)
	}
	return nil
}

// errNotSpool keeps a folder that was named by mistake from being tidied up.
var errNotSpool = errors.New("the files of others are in it; name a folder that is empty, or not there yet")

// prepare makes the folders, for nobody else to look into.
func (s *spool) prepare() error {
	if err := s.disk.mkdir(s.cfg.Dir); err != nil {
		return diskError("make it", err)
	}
	files, err := s.disk.list(s.cfg.Dir)
	if err != nil {
		return diskError("list it", err)
	}
	named := func(name string) bool {
		return slices.ContainsFunc(files, func(file fs.DirEntry) bool { return file.Name() == name })
	}
	foreign := slices.ContainsFunc(files, func(file fs.DirEntry) bool {
		_, ours := parseSpoolName(strings.TrimSuffix(file.Name(), tempSuffix))
		return !ours && file.Name() != quarantineName
	})
	if foreign && !named(lockName) {
		return errNotSpool
	}
	if err := s.disk.protect(s.cfg.Dir); err != nil {
		return diskError("keep others out", err)
	}
	if err := s.disk.mkdir(s.quarantine.folder); err != nil {
		return diskError("make its quarantine", err)
	}
	return nil
}

// scan sorts the files of the folder into records, leftovers and others.
func (s *spool) scan() error {
	files, err := s.disk.list(s.cfg.Dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		path := filepath.Join(s.cfg.Dir, file.Name())
		whole, temporary := strings.CutSuffix(file.Name(), tempSuffix)
		name, ours := parseSpoolName(whole)
		if ours {
			s.serial = max(s.serial, name.serial)
		}
		switch {
		case file.Name() == lockName, file.Name() == quarantineName:
		case !file.Type().IsRegular():
			s.s.Foreign++
			s.log.Warn("what is no regular file has no place in the spool; it is left alone", "path", path)
		case ours && temporary:
			err = s.removeLeftover(path, file)
		case ours:
			err = s.admit(path, name)
		default:
			s.s.Foreign++
			// Where it cannot be moved it does no harm.
			if err := s.quarantine.take(s.disk, path); err != nil {
				s.log.Warn("a file that is not the spool's is left alone", "path", path, "error", err)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// removeLeftover removes what a crash left half written.
func (s *spool) removeLeftover(path string, file fs.DirEntry) error {
	err := s.remove(path)
	if err == nil {
		return nil
	}
	info, err := file.Info()
	if err != nil {
		return err
	}
	cost := blocks(info.Size())
	s.s.WriteErrors++
	s.bytes += cost
	s.files++
	s.condemned = append(s.condemned, condemned{path, cost})
	return nil
}

// admit adds the record in a file to the index, if the file's beginning and length
// are those of one. Its points count as recovered in either case.
func (s *spool) admit(path string, name spoolName) error {
	h, length, err := s.readHeader(path)
	if passing(err) {
		return err
	}
	e := &spoolEntry{name: name, start: time.Unix(int64(name.start), 0).UTC(), cost: blocks(length)}
	s.s.Recovered += name.points
	s.s.Points += name.points
	s.s.Records++
	s.bytes += e.cost
	s.files++
	if err == nil && !name.names(&h.record) {
		err = errTornName
	}
	if err != nil {
		s.isolate(e, err)
		return nil
	}
	// A spool has many records and few targets.
	e.target, e.route = unique.Make(h.target).Value(), unique.Make(h.route).Value()
	e.start = h.start
	s.waiting.insert(e)
	return nil
}

func (s *spool) readHeader(path string) (h header, length int64, err error) {
	f, err := s.disk.open(path)
	if err != nil {
		return h, 0, err
	}
	defer f.Close()
	if length, err = regular(f); err != nil {
		return h, 0, err
	}
	begin := make([]byte, min(length, maxHeader))
	if _, err := f.ReadAt(begin, 0); err != nil && !errors.Is(err, io.EOF) {
		return h, length, err
	}
	h, err = decodeHeader(begin, length)
	return h, length, err
}

// The bounds of the quarantine. Beyond them the oldest of our own files in it are
// deleted; those of others never are.
const (
	maxQuarantinedBytes = 16 << 20
	maxQuarantinedFiles = 128
)

// errQuarantineFull says that there is no room for a file of somebody else's.
var errQuarantineFull = errors.New("the quarantine is full; look at what is in it, and delete that")

// quarantine is the folder for files that are not, or no longer, the spool's. They
// stay there for whoever wants to know what happened.
type quarantine struct {
	folder string

	mu    sync.Mutex // guards the fields below, and is held while the disk works
	files []quarantined
	bytes int64
}

type quarantined struct {
	name string
	size int64
}

// ours reports whether the spool wrote a file: whether it has one of its names, if
// with a number behind.
func (q quarantined) ours() bool {
	_, ours := parseSpoolName(q.name[:min(len(q.name), nameLength)])
	return ours
}

func (q *quarantine) load(d disk) error {
	files, err := d.list(q.folder)
	if err != nil {
		return err
	}
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			return err
		}
		q.files = append(q.files, quarantined{file.Name(), info.Size()})
		q.bytes += info.Size()
	}
	return nil
}

// take moves a file into quarantine, or deletes it if it is ours and there is no
// room. After an error it is where it was.
func (q *quarantine) take(d disk, path string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	file := quarantined{name: filepath.Base(path)}
	switch f, err := d.open(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil // there is nothing to move
	case err == nil:
		info, err := f.Stat()
		f.Close()
		if err != nil {
			return err
		}
		file.size = info.Size()
	}
	room, err := q.makeRoom(d, file)
	if err != nil {
		return err
	}
	if !room {
		return d.remove(path)
	}
	plain := file.name
	for i := 1; slices.ContainsFunc(q.files, func(other quarantined) bool { return other.name == file.name }); i++ {
		file.name = fmt.Sprintf("%s.%d", plain, i)
	}
	if err := d.rename(path, filepath.Join(q.folder, file.name)); err != nil {
		return err
	}
	q.files = append(q.files, file)
	q.bytes += file.size
	return nil
}

// makeRoom deletes our own files, the oldest first, until there is room for another.
// room is false if there cannot be and the file is one that may be deleted.
func (q *quarantine) makeRoom(d disk, file quarantined) (room bool, err error) {
	for len(q.files) >= maxQuarantinedFiles || q.bytes+file.size > maxQuarantinedBytes {
		oldest := slices.IndexFunc(q.files, quarantined.ours)
		if file.size > maxQuarantinedBytes || oldest < 0 {
			if !file.ours() {
				return false, errQuarantineFull
			}
			return false, nil
		}
		if err := d.remove(filepath.Join(q.folder, q.files[oldest].name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		q.bytes -= q.files[oldest].size
		q.files = slices.Delete(q.files, oldest, oldest+1)
	}
	return true, nil
}
