package forwarder

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/weir-agent/weir/metric"
)

// spool keeps records on disk, one file each, until they are delivered. It belongs
// to one destination, which gives it a folder of its own.
//
//	           ┌─────release──────┐
//	           ▼                  │
//	put ──▶ waiting ────take──▶ taken ───done, drop──▶ gone
//	           │                  │
//	           └──▶ evicted       └──▶ too old, torn      (told to spoolConfig.Lost)
//
// What put has acknowledged survives kill -9 and, as far as the disk keeps its
// word, the loss of power; what done has acknowledged never comes back. A crash
// between the two gives a record a second time: at least once, and only for what
// was being sent.
//
// The oldest interval goes first, both to the destination and, when there is no
// room, out. A record that is taken is not pushed out.
//
// Nothing but what is in a record is written: the API key belongs to the
// destination and is put on a request when it is made.
//
// All methods may be called from several goroutines. The lock of the index is never
// held while the disk works, so stats does not wait for it.
type spool struct {
	cfg        spoolConfig
	log        *slog.Logger
	disk       disk
	held       io.Closer // the lock of the folder
	quarantine quarantine
	maxFiles   int // maxSpooledRecords, but in tests

	running sync.RWMutex // held for reading by whoever works with files, for writing by close
	closed  bool

	mu        sync.Mutex  // guards the fields below
	waiting   spoolIndex  // may be taken
	condemned []condemned // files that are no records any more and could not be removed
	serial    uint64      // the last one given out
	bytes     int64       // of all files, with those being written, in whole blocks
	unwritten int64       // part of bytes: of files being written
	files     int         // all of them, with those being written
	s         spoolStats
}

// spoolConfig says where records are kept and for how long.
type spoolConfig struct {
	Dir      string
	MaxBytes metric.Bytes             // of all files; beyond it the oldest are dropped
	MaxAge   time.Duration            // since the interval's start; older records are not given out
	MaxAgeOf map[string]time.Duration // by route, where it differs
	MinFree  metric.Bytes             // of the file system; below it nothing is put

	// Lost is told of every record that leaves the spool other than by done or
	// drop, also while it is opened. It may be called before the put that wrote the
	// record has returned, so a caller that counts what is in the spool counts
	// first and takes it back if put fails. It must not call the spool, but for stats.
	// nil: nobody asks.
	Lost func(spoolLoss)
}

// defaultSpoolConfig returns the defaults.
func defaultSpoolConfig(dir string) spoolConfig {
	return spoolConfig{Dir: dir, MaxBytes: 1 << 30, MaxAge: oldestPoints, MinFree: 256 << 20}
}

const (
	// maxSpooledRecords bounds the index, 200 bytes or so a record, and the files of
	// a folder.
	maxSpooledRecords = 1 << 16
	// spoolBlock is what a file system gives away at a time: a file of one byte
	// takes as much.
	spoolBlock = 4096

	lockName       = "lock"
	quarantineName = "quarantine"
)

// Why put refuses a record. What else it returns is an error of the disk.
var (
	errSpoolClosed   = errors.New("the spool is closed")
	errSpoolFull     = errors.New("the spool is full of records that are newer or being sent")
	errSpoolTooLarge = errors.New("the record is larger than the spool allows")
	errSpoolNoSpace  = errors.New("the disk has no room for the spool; free some, or lower the spool's min_free or max_bytes")
	errSpoolReadOnly = errors.New("the spool's folder cannot be written; make it writable for weir, or set state_dir to one that is")
)

// spoolLoss is a record that left the spool undelivered.
type spoolLoss struct {
	points uint64
	target string // "" if its file could not be read
	route  string // the same
	start  time.Time
	why    spoolLossReason
}

type spoolLossReason uint8

const (
	lostEvicted spoolLossReason = iota // it made room for a newer one
	lostTooOld                         // the destination takes nothing that old
	lostTorn                           // its file is damaged, or gone
	spoolLossReasons
)

func (r spoolLossReason) String() string {
	return [spoolLossReasons]string{"evicted", "too_old", "torn"}[r]
}

// spoolStats is a snapshot. The accounts in points are closed in every one:
// Recovered + Put = Points + Done + Dropped + the sum of Lost.
type spoolStats struct {
	// What there is now, records that are taken included.
	Records uint64
	Points  uint64
	Bytes   uint64    // that all files take, those being written included, in whole blocks
	Oldest  time.Time // start of the oldest that may be taken; zero if there is none

	// Points.
	Recovered uint64 // found when the spool was opened
	Put       uint64
	Done      uint64
	Dropped   uint64
	Lost      [spoolLossReasons]uint64

	// Records.
	Puts    uint64
	Takes   uint64
	Dones   uint64
	Refused uint64 // puts for which there was no room

	// Files.
	Quarantined uint64 // damaged records
	Foreign     uint64 // not the spool's; moved into quarantine or, where that is full, left alone
	WriteErrors uint64 // files that could not be written or removed
	ReadErrors  uint64 // files that could not be read for want of memory or descriptors, and stay
}

type condemned struct {
	path string
	cost int64
}

// blocks returns what a file of the given length takes.
func blocks(length int64) int64 { return (length + spoolBlock - 1) / spoolBlock * spoolBlock }

// put writes a record; its body is not kept. Once put returns nil, the record is
// durable. Otherwise nothing of it is left, and it is the caller's to count.
//
// It syncs a file and the folder, each of which costs a write of the file system's
// journal. Puts at the same time share these writes, because the kernel commits for
// all that wait; so there is no batching here. See BenchmarkSpool.
func (s *spool) put(r *record) error {
	s.running.RLock()
	defer s.running.RUnlock()
	if s.closed {
		return errSpoolClosed
	}
	if err := r.check(); err != nil {
		s.count(&s.s.Refused)
		return err
	}
	head := appendHeader(nil, r)
	cost := blocks(int64(len(head)) + int64(len(r.body)))
	e, err := s.reserve(r, cost)
	if err != nil {
		return err
	}
	leftover, err := s.write(e, head, r.body)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwritten -= cost
	if err != nil {
		s.s.WriteErrors++
		if leftover == "" {
			s.bytes -= cost
			s.files--
		} else {
			s.condemned = append(s.condemned, condemned{leftover, cost})
		}
		return err
	}
	s.waiting.insert(e)
	s.s.Records++
	s.s.Points += r.points
	s.s.Put += r.points
	s.s.Puts++
	return nil
}

// reserve finds room for a record, pushing out older ones, and counts it as taken.
func (s *spool) reserve(r *record, cost int64) (*spoolEntry, error) {
	s.sweep()
	free, err := s.disk.free(s.cfg.Dir)
	if err != nil {
		s.count(&s.s.WriteErrors)
		return nil, diskError("ask for free space", err)
	}
	for {
		e, oldest, err := s.claim(r, cost, free)
		if err != nil {
			s.count(&s.s.Refused)
			return nil, err
		}
		if e != nil {
			return e, nil
		}
		if err := s.evict(oldest); err != nil {
			return nil, err
		}
		free += oldest.cost
	}
}

// claim returns the entry for a new record or, if there is no room, the one that is
// to leave first, which may not be taken any more.
func (s *spool) claim(r *record, cost, free int64) (e, oldest *spoolEntry, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	excess := s.bytes + cost - int64(s.cfg.MaxBytes)
	if cost > int64(s.cfg.MaxBytes) {
		return nil, nil, fmt.Errorf("%w: %v of %v", errSpoolTooLarge, metric.Bytes(cost), s.cfg.MaxBytes)
	}
	if left := free + max(excess, 0) - s.unwritten - cost; left < int64(s.cfg.MinFree) {
		return nil, nil, fmt.Errorf("%w: %v would be left free, and %v have to be", errSpoolNoSpace, metric.Bytes(max(left, 0)), s.cfg.MinFree)
	}
	if excess <= 0 && s.files < s.maxFiles {
		s.bytes += cost
		s.unwritten += cost
		s.files++
		s.serial++
		name := spoolName{uint64(r.start.Unix()), s.serial, r.points}
		return &spoolEntry{name: name, start: r.start, target: r.target, route: r.route, cost: cost, attempts: r.attempts, notBefore: r.notBefore}, nil, nil
	}
	oldest = s.waiting.oldest()
	if oldest == nil || oldest.start.After(r.start) {
		return nil, nil, errSpoolFull
	}
	s.waiting.remove(oldest)
	return nil, oldest, nil
}

// write makes the file of a record. leftover is what it could not remove when it
// failed.
func (s *spool) write(e *spoolEntry, head, body []byte) (leftover string, err error) {
	final := s.path(e)
	path := final + tempSuffix
	defer func() {
		if err == nil || path == "" {
			return
		}
		if err := s.disk.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			leftover = path
		}
	}()
	f, err := s.disk.create(path)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			path = "" // not ours to remove
		}
		return "", diskError("create a spool file", err)
	}
	_, err = f.Write(head)
	if err == nil {
		_, err = f.Write(body)
	}
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return "", diskError("write a spool file", err)
	}
	if err := s.disk.rename(path, final); err != nil {
		return "", diskError("rename a spool file", err)
	}
	path = final
	if err := s.disk.syncFolder(s.cfg.Dir); err != nil {
		return "", diskError("sync the spool's folder", err)
	}
	return "", nil
}

// evict removes a record to make room. One that cannot be removed stays.
func (s *spool) evict(e *spoolEntry) error {
	if err := s.remove(s.path(e)); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.waiting.insert(e)
		s.s.WriteErrors++
		return diskError("remove the oldest spool file", err)
	}
	s.lose(e, lostEvicted, true)
	return nil
}

// oldest returns the start of what take would give. If that is nothing, at is when
// there may be something; zero: after a change.
func (s *spool) oldest(now time.Time, leftAlone []string) (start time.Time, found bool, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, at := s.first(now, leftAlone)
	if e == nil {
		return start, false, at
	}
	return e.start, true, at
}

// first is that of the index; mu must be held.
func (s *spool) first(now time.Time, leftAlone []string) (e *spoolEntry, at time.Time) {
	return s.waiting.first(now, leftAlone, func(e *spoolEntry) bool { return s.tooOld(e, now) })
}

// take returns the oldest record that the destination still takes, which nobody
// else gets until it is released; ok is false if there is none. Records of the routes
// to leave alone are passed over. Records that are too old or damaged are dropped on
// the way.
func (s *spool) take(now time.Time, leftAlone []string) (r *record, ok bool) {
	s.running.RLock()
	defer s.running.RUnlock()
	for !s.closed {
		s.mu.Lock()
		e, _ := s.first(now, leftAlone)
		if e == nil {
			s.mu.Unlock()
			return nil, false
		}
		s.waiting.remove(e)
		s.mu.Unlock()
		if s.tooOld(e, now) {
			s.discard(e, lostTooOld)
			continue
		}
		r, err := s.read(e)
		if err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			e.taken = true
			s.s.Takes++
			r.entry, r.attempts = e, e.attempts
			return r, true
		}
		if passing(err) {
			s.log.Warn("a spooled payload cannot be read now; trying again later", "file", s.path(e), "error", err)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.s.ReadErrors++
			s.waiting.insert(e)
			return nil, false
		}
		s.isolate(e, err)
	}
	return nil, false
}

// done says that a taken record was delivered. Once it returns nil, the record will
// not be sent again, whatever happens; after an error it will not be either, unless
// the agent is started again.
func (s *spool) done(r *record) error {
	return s.settle(r, &s.s.Done, &s.s.Dones)
}

// drop says that a taken record will never be delivered: the caller counts why. As
// to what it returns it is done.
func (s *spool) drop(r *record) error {
	var records uint64
	return s.settle(r, &s.s.Dropped, &records)
}

func (s *spool) settle(r *record, points, records *uint64) error {
	s.running.RLock()
	defer s.running.RUnlock()
	if s.closed {
		return errSpoolClosed
	}
	s.giveBack(r)
	err := s.unlink(r.entry)
	s.mu.Lock()
	s.s.Records--
	s.s.Points -= r.points
	*points += r.points
	*records++
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if err := s.disk.syncFolder(s.cfg.Dir); err != nil {
		s.count(&s.s.WriteErrors)
		return diskError("sync the spool's folder", err)
	}
	return nil
}

// release says that a taken record was not delivered and may be taken again.
func (s *spool) release(r *record) {
	s.running.RLock()
	defer s.running.RUnlock()
	if s.closed {
		return // its file waits for the next agent
	}
	s.giveBack(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.entry.attempts, r.entry.notBefore = r.attempts, r.notBefore
	s.waiting.insert(r.entry)
}

// giveBack ends the caller's claim on a record.
func (s *spool) giveBack(r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.entry == nil || !r.entry.taken {
		panic("BUG: a record is given back to the spool that was not taken from it")
	}
	r.entry.taken = false
}

// expire drops the records that are too old, so that they take no room while
// nobody takes any.
func (s *spool) expire(now time.Time) {
	s.running.RLock()
	defer s.running.RUnlock()
	if s.closed {
		return
	}
	s.sweep()
	s.mu.Lock()
	old := s.waiting.removeAll(func(e *spoolEntry) bool { return s.tooOld(e, now) })
	s.mu.Unlock()
	for _, e := range old {
		s.discard(e, lostTooOld)
	}
}

// close waits for what is being done and gives the folder free. Records that are
// still taken stay on disk for the next agent; give them back before.
func (s *spool) close() error {
	s.running.Lock()
	defer s.running.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.sweep()
	err := s.disk.syncFolder(s.cfg.Dir)
	if err := cmp.Or(err, s.held.Close()); err != nil {
		return fmt.Errorf("close spool %s: %w", s.cfg.Dir, err)
	}
	return nil
}

// stats never waits for the disk.
func (s *spool) stats() spoolStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	snapshot := s.s
	snapshot.Bytes = uint64(s.bytes)
	if oldest := s.waiting.oldest(); oldest != nil {
		snapshot.Oldest = oldest.start
	}
	return snapshot
}

// read reads the file of a record.
func (s *spool) read(e *spoolEntry) (*record, error) {
	f, err := s.disk.open(s.path(e))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	length, err := regular(f)
	if err != nil {
		return nil, err
	}
	if blocks(length) != e.cost { // before memory is asked for
		return nil, errTornLength
	}
	file := make([]byte, length)
	if _, err := f.ReadAt(file, 0); err != nil {
		return nil, err
	}
	r, err := decodeRecord(file)
	if err != nil {
		return nil, err
	}
	if !e.name.names(r) {
		return nil, errTornName
	}
	return r, nil
}

// discard drops a record that is in no list any more.
func (s *spool) discard(e *spoolEntry, why spoolLossReason) {
	if err := s.unlink(e); err != nil {
		s.log.Error("a spooled payload is dropped, but its file could not be removed yet", "file", s.path(e), "error", err)
	}
	s.lose(e, why, false)
}

// isolate moves the damaged file of a record that is in no list any more away.
func (s *spool) isolate(e *spoolEntry, why error) {
	s.log.Error("dropped a spooled payload: its file is damaged", "file", s.path(e), "points", e.name.points, "error", why)
	if err := s.quarantine.take(s.disk, s.path(e)); err != nil {
		s.mu.Lock()
		s.s.WriteErrors++
		s.condemned = append(s.condemned, condemned{s.path(e), e.cost})
		s.s.Quarantined++
		s.mu.Unlock()
		s.lose(e, lostTorn, false)
		return
	}
	s.count(&s.s.Quarantined)
	s.lose(e, lostTorn, true)
}

// unlink removes the file of a record, or condemns it if that fails.
func (s *spool) unlink(e *spoolEntry) error {
	err := s.remove(s.path(e))
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.s.WriteErrors++
		s.condemned = append(s.condemned, condemned{s.path(e), e.cost})
		return diskError("remove a spool file", err)
	}
	s.bytes -= e.cost
	s.files--
	return nil
}

// lose writes a record off and tells Lost. freed says that its file is gone and not
// yet written off.
func (s *spool) lose(e *spoolEntry, why spoolLossReason, freed bool) {
	s.mu.Lock()
	s.s.Records--
	s.s.Points -= e.name.points
	s.s.Lost[why] += e.name.points
	if freed {
		s.bytes -= e.cost
		s.files--
	}
	s.mu.Unlock()
	s.tell(spoolLoss{e.name.points, e.target, e.route, e.start, why})
}

func (s *spool) tell(l spoolLoss) {
	if s.cfg.Lost != nil {
		s.cfg.Lost(l)
	}
}

// sweep tries again to remove the condemned files, up to the first that stays.
func (s *spool) sweep() {
	for {
		s.mu.Lock()
		if len(s.condemned) == 0 {
			s.mu.Unlock()
			return
		}
		c := s.condemned[0]
		s.condemned = slices.Delete(s.condemned, 0, 1)
		s.mu.Unlock()

		err := s.remove(c.path)
		s.mu.Lock()
		if err != nil {
			s.condemned = append(s.condemned, c)
			s.mu.Unlock()
			return
		}
		s.bytes -= c.cost
		s.files--
		s.mu.Unlock()
	}
}

// remove is the disk's; what is gone already is removed.
func (s *spool) remove(path string) error {
	if err := s.disk.remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (s *spool) path(e *spoolEntry) string { return filepath.Join(s.cfg.Dir, e.name.String()) }

func (s *spool) tooOld(e *spoolEntry, now time.Time) bool {
	age, differs := s.cfg.MaxAgeOf[e.route]
	if !differs {
		age = s.cfg.MaxAge
	}
	return now.Sub(e.start) > age
}

func (s *spool) count(n *uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*n++
}

// diskError says what was done when the disk failed, and what may help.
func diskError(doing string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%s: %w: %w", doing, errSpoolNoSpace, err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: %w", doing, errSpoolReadOnly, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// passing reports whether an error lies with the process and not with the file.
func passing(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// regular returns the length of a regular file.
func regular(f diskFile) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, errTornKind
	}
	return info.Size(), nil
}
