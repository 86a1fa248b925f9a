package forwarder

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fate is what the caller of a spool knows of a record.
type fate int

const (
	unsure fate = iota // it was being put, settled or lost when something failed
	kept               // acknowledged by put: it must be there
	gone               // acknowledged by done or drop: it must never come back
)

// keeper uses a spool as a destination would, at random, and knows what must be in
// it. A record's points are its number, so that losses can be told apart.
type keeper struct {
	t      *testing.T
	chance *rand.Rand
	spool  *spool
	cfg    spoolConfig
	now    time.Time

	fates map[uint64]fate
	taken []*record
	lost  map[uint64]spoolLossReason
	last  uint64 // number given out

	// What the books of the destination would say.
	spooled, left uint64
}

const modelFolder = "/state/spool"

func newKeeper(t *testing.T, seed uint64) *keeper {
	k := &keeper{t: t, chance: rand.New(rand.NewPCG(seed, 0)), now: start, fates: map[uint64]fate{}, lost: map[uint64]spoolLossReason{}}
	k.cfg = spoolConfig{
		Dir: modelFolder, MaxBytes: 12 * spoolBlock, MaxAge: time.Hour,
		MaxAgeOf: map[string]time.Duration{"/short": 10 * time.Minute},
		Lost: func(l spoolLoss) {
			if _, twice := k.lost[l.points]; twice {
				t.Errorf("record %d was lost twice", l.points)
			}
			k.lost[l.points] = l.why
			k.fates[l.points] = unsure // its name may come back with the power
			k.spooled -= l.points
			k.left += l.points
		},
	}
	return k
}

// modelRecord makes record n; all of it follows from the number and the time.
func modelRecord(n uint64, at time.Time) *record {
	route := "/api/v2/series"
	if n%4 == 0 {
		route = "/short"
	}
	return &record{
		target: fmt.Sprint("target ", n), route: route, encoding: "zstd", start: at, points: n,
		body: bytes.Repeat([]byte{byte(n)}, int(n*977%9000)),
	}
}

func same(a, b *record) bool {
	return a.target == b.target && a.route == b.route && a.encoding == b.encoding && a.start.Equal(b.start) && a.points == b.points && bytes.Equal(a.body, b.body)
}

func (k *keeper) open(d disk) error {
	var err error
	k.spool, err = openSpoolOn(d, k.cfg, discard())
	return err
}

// act does one thing at random.
func (k *keeper) act() {
	switch what := k.chance.IntN(20); {
	case what < 9:
		k.put()
	case what < 14:
		if r, ok := k.spool.take(k.now, nil); ok {
			k.check(r)
			k.taken = append(k.taken, r)
		}
	case what < 18 && len(k.taken) > 0:
		i := k.chance.IntN(len(k.taken))
		r := k.taken[i]
		k.taken = slices.Delete(k.taken, i, i+1)
		k.settle(r)
	case what == 18:
		k.spool.expire(k.now)
	default:
		k.now = k.now.Add(time.Duration(k.chance.IntN(int(4 * time.Minute))))
	}
}

func (k *keeper) put() {
	k.last++
	n := k.last
	at := k.now.Add(-time.Duration(k.chance.IntN(int(5 * time.Minute))))
	k.fates[n] = unsure
	k.spooled += n
	if err := k.spool.put(modelRecord(n, at)); err != nil {
		k.spooled -= n
	} else if _, lost := k.lost[n]; !lost {
		k.fates[n] = kept
	}
}

func (k *keeper) settle(r *record) {
	var err error
	switch k.chance.IntN(4) {
	case 0:
		k.spool.release(r)
		return
	case 1:
		err = k.spool.drop(r)
	default:
		err = k.spool.done(r)
	}
	k.spooled -= r.points
	k.left += r.points
	k.fates[r.points] = gone
	if err != nil {
		k.fates[r.points] = unsure
	}
}

// check says whether a record that was taken is one that may be.
func (k *keeper) check(r *record) {
	k.t.Helper()
	if !same(r, modelRecord(r.points, r.start)) {
		k.t.Errorf("record %d is not what was put: %+v", r.points, r)
	}
	if what, known := k.fates[r.points]; !known || what == gone {
		k.t.Errorf("record %d was taken, whose fate was %d, known %v", r.points, what, known)
	}
	if slices.ContainsFunc(k.taken, func(other *record) bool { return other.points == r.points }) {
		k.t.Errorf("record %d was taken twice", r.points)
	}
	if age := k.now.Sub(r.start); age > time.Hour || r.route == "/short" && age > 10*time.Minute {
		k.t.Errorf("record %d was taken at an age of %v", r.points, age)
	}
}

func (k *keeper) checkBooks() {
	k.t.Helper()
	checkSpoolBooks(k.t, k.spool.stats())
	if s := k.spool.stats(); s.Points != k.spooled {
		k.t.Errorf("%d points are in the spool; the caller counted %d", s.Points, k.spooled)
	}
}

func checkSpoolBooks(t *testing.T, s spoolStats) {
	t.Helper()
	out := s.Points + s.Done + s.Dropped
	for _, lost := range s.Lost {
		out += lost
	}
	if s.Recovered+s.Put != out {
		t.Errorf("the books are not closed: %+v", s)
	}
}

// takeAll takes what a new process finds, in order, and compares it with what must
// be there.
func (k *keeper) takeAll(d disk) {
	k.t.Helper()
	k.taken = nil
	k.cfg.MaxAge, k.cfg.MaxAgeOf = 1000*time.Hour, nil
	k.now = start
	k.cfg.Lost = func(l spoolLoss) { k.t.Errorf("record %d was lost when the spool was opened: %v", l.points, l.why) }
	if err := k.open(d); err != nil {
		k.t.Fatal(err)
	}
	defer k.spool.close()
	var before time.Time
	found := map[uint64]bool{}
	for {
		r, ok := k.spool.take(k.now, nil)
		if !ok {
			break
		}
		k.check(r)
		k.taken = append(k.taken, r)
		found[r.points] = true
		if r.start.Truncate(time.Second).Before(before) {
			k.t.Errorf("record %d of %v came after one of %v", r.points, r.start, before)
		}
		before = r.start.Truncate(time.Second)
	}
	for _, n := range slices.Sorted(maps.Keys(k.fates)) {
		if k.fates[n] == kept && !found[n] {
			k.t.Errorf("record %d was acknowledged and is not there", n)
		}
	}
	if s := k.spool.stats(); s.Quarantined+s.Foreign > 0 {
		k.t.Errorf("there are damaged files: %+v", s)
	}
	checkSpoolBooks(k.t, k.spool.stats())
}

const modelActions = 60

// script runs the same actions for the same seed.
func (k *keeper) script(d *memDisk) {
	if k.open(d) != nil {
		return
	}
	for range modelActions {
		if d.dead {
			return
		}
		k.act()
		if !d.dead {
			k.checkBooks()
		}
	}
	k.spool.close()
}

// stepsOf counts the steps of a script.
func stepsOf(t *testing.T, seed uint64) int {
	d := newMemDisk(modelFolder)
	k := newKeeper(t, seed)
	k.script(d)
	if s := k.spool.stats(); s.Puts == 0 || s.Dones == 0 || s.Lost[lostEvicted] == 0 {
		t.Logf("seed %d makes a dull script: %+v", seed, s)
	}
	if d.most > int64(k.cfg.MaxBytes) {
		t.Errorf("seed %d: the files took %d bytes, more than %d", seed, d.most, k.cfg.MaxBytes)
	}
	return d.steps
}

func modelSeeds() uint64 {
	if testing.Short() {
		return 2
	}
	return 4
}

// The process is killed, or the power fails, before every single step of the disk.
// What was acknowledged is there afterwards, and what was done is not.
func TestSpoolSurvivesACrashAtEveryStep(t *testing.T) {
	for seed := range modelSeeds() {
		steps := stepsOf(t, seed)
		for _, powerLost := range []bool{false, true} {
			for step := 1; step <= steps+1; step++ {
				d := newMemDisk(modelFolder)
				d.dieAt = step
				k := newKeeper(t, seed)
				k.script(d)
				after := d.crash(powerLost, rand.New(rand.NewPCG(seed, uint64(step))))
				k.takeAll(after)
				for _, name := range after.names(modelFolder) {
					if strings.HasSuffix(name, tempSuffix) {
						t.Errorf("%s is left", name)
					}
				}
				if t.Failed() {
					t.Fatalf("seed %d, power lost %v, crash at step %d of %d", seed, powerLost, step, steps)
				}
			}
		}
	}
}

// Every single step of the disk fails once. The books stay closed, and in the end
// every record that put took is spooled, settled or lost, and only one of these.
func TestSpoolSurvivesAnErrorAtEveryStep(t *testing.T) {
	failures := []error{syscall.ENOSPC, syscall.EIO, syscall.EMFILE}
	for seed := range modelSeeds() {
		steps := stepsOf(t, seed)
		for step := 1; step <= steps; step++ {
			failure := failures[(step+int(seed))%len(failures)]
			d := newMemDisk(modelFolder)
			d.failAt, d.failure = step, failure
			k := newKeeper(t, seed)
			k.script(d)
			if k.spool == nil { // it was not opened
				continue
			}
			if s := k.spool.stats(); s.Bytes > uint64(k.cfg.MaxBytes) || d.most > int64(k.cfg.MaxBytes) || s.WriteErrors > 2 {
				t.Errorf("bytes %d, most %d, %d errors", s.Bytes, d.most, s.WriteErrors)
			}
			k.takeAll(d.crash(false, k.chance))
			for _, name := range d.names(modelFolder) {
				if strings.HasSuffix(name, tempSuffix) {
					t.Errorf("%s is left", name)
				}
			}
			if t.Failed() {
				t.Fatalf("seed %d, %v at step %d of %d", seed, failure, step, steps)
			}
		}
	}
}

// A put that fails at any step leaves nothing behind, and what was there stays.
func TestSpoolPutFailsWhole(t *testing.T) {
	run := func(failAt int) (d *memDisk, err error) {
		d = newMemDisk(modelFolder)
		k := newKeeper(t, 0)
		if err := k.open(d); err != nil {
			t.Fatal(err)
		}
		if err := k.spool.put(modelRecord(1, start)); err != nil {
			t.Fatal(err)
		}
		before := k.spool.stats()
		d.steps, d.failAt, d.failure = 0, failAt, syscall.ENOSPC
		err = k.spool.put(modelRecord(2, start))
		if err == nil {
			return d, nil
		}
		if !errors.Is(err, errSpoolNoSpace) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("step %d: put returned %q", failAt, err)
		}
		if got := d.names(modelFolder); len(got) != 1 {
			t.Errorf("step %d: there is %v, want one record", failAt, got)
		}
		after := k.spool.stats()
		if after.WriteErrors != 1 {
			t.Errorf("step %d: %d errors are counted", failAt, after.WriteErrors)
		}
		after.WriteErrors = 0
		if after != before {
			t.Errorf("step %d: it was %+v, is %+v", failAt, before, after)
		}
		if r, ok := k.spool.take(start, nil); !ok || r.points != 1 {
			t.Errorf("step %d: the record that was there is not", failAt)
		}
		if r, ok := k.spool.take(start, nil); ok {
			t.Errorf("step %d: a record that was not put was taken: %+v", failAt, r)
		}
		return d, err
	}
	d, err := run(0)
	if err != nil {
		t.Fatal(err)
	}
	const least = 8 // free, create, write, write, fsync, close, rename, sync
	if d.steps < least {
		t.Fatalf("a put takes %d steps", d.steps)
	}
	for step := 1; step <= d.steps; step++ {
		if _, err := run(step); err == nil {
			t.Errorf("put did not notice that step %d failed", step)
		}
	}
}

// A file that cannot be removed is not given out again, counts against the bound,
// and is removed when that is possible again.
func TestSpoolRemovesLater(t *testing.T) {
	d := newMemDisk(modelFolder)
	k := newKeeper(t, 0)
	if err := k.open(d); err != nil {
		t.Fatal(err)
	}
	if err := k.spool.put(modelRecord(1, start)); err != nil {
		t.Fatal(err)
	}
	r, _ := k.spool.take(start, nil)
	d.steps, d.failAt, d.failure = 0, 1, syscall.EROFS
	if err := k.spool.done(r); !errors.Is(err, errSpoolReadOnly) {
		t.Errorf("done returned %v, want %v", err, errSpoolReadOnly)
	}
	if again, ok := k.spool.take(start, nil); ok {
		t.Errorf("record %d was delivered and is given out again", again.points)
	}
	if s := k.spool.stats(); s.Bytes != spoolBlock || s.Points != 0 || s.Done != 1 || s.WriteErrors != 1 {
		t.Errorf("while the file is there: %+v", s)
	}
	k.spool.expire(start)
	if s := k.spool.stats(); s.Bytes != 0 || len(d.names(modelFolder)) != 0 {
		t.Errorf("the file is still there: %v, %+v", d.names(modelFolder), s)
	}
}

// What a failed put could not remove counts against the bound until it is gone.
func TestSpoolRemovesLeftoversLater(t *testing.T) {
	d := newMemDisk(modelFolder)
	k := newKeeper(t, 0)
	if err := k.open(d); err != nil {
		t.Fatal(err)
	}
	d.steps, d.failAt, d.failTo, d.failure = 0, 3, 6, syscall.EIO // from the first write on: write, close, remove
	if err := k.spool.put(modelRecord(1, start)); !errors.Is(err, syscall.EIO) {
		t.Errorf("put: %v", err)
	}
	if s := k.spool.stats(); s.Bytes != spoolBlock || len(d.names(modelFolder)) != 1 {
		t.Errorf("the folder has %v: %+v", d.names(modelFolder), s)
	}
	d.failTo = 0
	mustPut(t, k.spool, modelRecord(2, start))
	if s := k.spool.stats(); s.Bytes != spoolBlock || len(d.names(modelFolder)) != 1 {
		t.Errorf("the folder has %v: %+v", d.names(modelFolder), s)
	}
}

// Where the oldest record cannot be removed, nothing is put, and it is still there.
func TestSpoolKeepsWhatItCannotEvict(t *testing.T) {
	d := newMemDisk(modelFolder)
	k := newKeeper(t, 0)
	k.cfg.MaxBytes = spoolBlock
	if err := k.open(d); err != nil {
		t.Fatal(err)
	}
	mustPut(t, k.spool, modelRecord(1, start))
	d.steps, d.failAt, d.failure = 0, 2, syscall.EIO // free, remove
	if err := k.spool.put(modelRecord(2, start)); !errors.Is(err, syscall.EIO) {
		t.Errorf("put: %v", err)
	}
	if r, ok := k.spool.take(start, nil); !ok || r.points != 1 || len(k.lost) != 0 {
		t.Errorf("taken: %+v; lost: %v", r, k.lost)
	}
}

// A process without descriptors does not take that for damage.
func TestSpoolWaitsForDescriptors(t *testing.T) {
	d := newMemDisk(modelFolder)
	k := newKeeper(t, 0)
	if err := k.open(d); err != nil {
		t.Fatal(err)
	}
	mustPut(t, k.spool, modelRecord(1, start))
	d.steps, d.failAt, d.failure = 0, 1, syscall.EMFILE
	if r, ok := k.spool.take(start, nil); ok {
		t.Errorf("taken: %+v", r)
	}
	if s := k.spool.stats(); s.ReadErrors != 1 || s.Records != 1 {
		t.Errorf("%+v", s)
	}
	if _, ok := k.spool.take(start, nil); !ok {
		t.Error("it is not given out any more")
	}
}

// stats returns while the disk hangs.
func TestSpoolStatsDoNotWaitForTheDisk(t *testing.T) {
	d := newMemDisk(modelFolder)
	k := newKeeper(t, 0)
	if err := k.open(d); err != nil {
		t.Fatal(err)
	}
	if err := k.spool.put(modelRecord(1, start)); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"create", "write", "fsync", "rename", "sync", "remove", "read"} {
		hanging, goOn := make(chan struct{}), make(chan struct{})
		d.before = func(step, path string) {
			if step == what {
				d.before = nil
				close(hanging)
				<-goOn
			}
		}
		ended := make(chan error)
		go func() {
			if err := k.spool.put(modelRecord(2, start)); err != nil {
				ended <- err
				return
			}
			r, ok := k.spool.take(start, nil)
			if !ok {
				ended <- errors.New("there is nothing to take")
				return
			}
			ended <- k.spool.done(r)
		}()
		select {
		case <-hanging:
		case err := <-ended:
			t.Fatalf("there was no %s; the end was %v", what, err)
		}
		checkSpoolBooks(t, k.spool.stats())
		close(goOn)
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// spoolOf opens a spool on a disk with one file in its folder.
func spoolOf(t testing.TB, name string, file []byte) (*memDisk, *spool, *[]spoolLoss) {
	t.Helper()
	d := newMemDisk(modelFolder)
	d.put(filepath.Join(modelFolder, lockName), nil)
	d.put(filepath.Join(modelFolder, name), file)
	var lost []spoolLoss
	cfg := defaultSpoolConfig(modelFolder)
	cfg.Lost = func(l spoolLoss) { lost = append(lost, l) }
	s, err := openSpoolOn(d, cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	return d, s, &lost
}

func encodeRecord(r *record) []byte { return append(appendHeader(nil, r), r.body...) }

func nameOf(r *record) string { return spoolName{uint64(r.start.Unix()), 7, r.points}.String() }

// A file that is cut anywhere, or of which any bit is another one, is moved away
// and its points are counted.
func TestSpoolQuarantinesTornFiles(t *testing.T) {
	whole := &record{target: "a", route: "/api/v2/series", encoding: "zstd", start: start, points: 10, body: []byte("body of a payload")}
	file := encodeRecord(whole)
	torn := map[string][]byte{"a byte more": append(bytes.Clone(file), 0)}
	for n := range file {
		torn[fmt.Sprintf("cut to %d", n)] = file[:n]
		for bit := range 8 {
			flipped := bytes.Clone(file)
			flipped[n] ^= 1 << bit
			torn[fmt.Sprintf("bit %d of byte %d", bit, n)] = flipped
		}
	}
	for name, content := range torn {
		d, s, lost := spoolOf(t, nameOf(whole), content)
		if r, ok := s.take(start, nil); ok {
			t.Errorf("%s: taken: %+v", name, r)
		}
		got := s.stats()
		if got.Quarantined != 1 || got.Recovered != 10 || got.Lost[lostTorn] != 10 || got.Bytes != 0 || got.Records != 0 || len(*lost) != 1 || (*lost)[0].points != 10 {
			t.Errorf("%s: %+v, lost %v", name, got, *lost)
		}
		checkSpoolBooks(t, got)
		if kept := d.names(filepath.Join(modelFolder, quarantineName)); len(kept) != 1 || len(d.names(modelFolder)) != 0 {
			t.Errorf("%s: the quarantine has %v", name, kept)
		}
	}
	_, s, _ := spoolOf(t, nameOf(whole), file)
	if r, ok := s.take(start, nil); !ok || !same(r, whole) {
		t.Errorf("the whole file is not taken: %+v", r)
	}
}

// A file whose name tells of another record is damaged too, and so is one whose
// record vanished.
func TestSpoolNamesAreChecked(t *testing.T) {
	whole := &record{route: "/api/v2/series", start: start, points: 10, body: []byte("body")}
	for _, name := range []spoolName{{uint64(start.Unix()) + 1, 7, 10}, {uint64(start.Unix()), 7, 11}} {
		_, s, lost := spoolOf(t, name.String(), encodeRecord(whole))
		if len(*lost) != 1 || (*lost)[0].points != name.points {
			t.Errorf("%v: lost when opened: %+v", name, *lost)
		}
		if r, ok := s.take(start, nil); ok {
			t.Errorf("%v: took %+v", name, r)
		}
		// The file becomes another one later.
		d, s, lost := spoolOf(t, nameOf(whole), encodeRecord(whole))
		d.put(filepath.Join(modelFolder, nameOf(whole)), encodeRecord(&record{start: time.Unix(int64(name.start), 0), points: name.points, body: whole.body}))
		if r, ok := s.take(start, nil); ok || len(*lost) != 1 || (*lost)[0].points != 10 {
			t.Errorf("%v: took %+v, lost %+v", name, r, *lost)
		}
	}
	d, s, lost := spoolOf(t, nameOf(whole), encodeRecord(whole))
	if err := d.remove(filepath.Join(modelFolder, nameOf(whole))); err != nil {
		t.Fatal(err)
	}
	if r, ok := s.take(start, nil); ok || len(*lost) != 1 {
		t.Errorf("took %+v, lost %+v", r, *lost)
	}
	checkSpoolBooks(t, s.stats())
}

// The quarantine is bounded; what others have put into the folder is never deleted.
func TestSpoolQuarantineIsBounded(t *testing.T) {
	d := newMemDisk(modelFolder)
	d.put(filepath.Join(modelFolder, lockName), nil)
	d.put(filepath.Join(modelFolder, "notes.txt"), []byte("mine"))
	d.put(filepath.Join(modelFolder, "pipe"), nil)
	d.frozen[filepath.Join(modelFolder, "pipe")] = fs.ModeNamedPipe
	const files = maxQuarantinedFiles + 50
	for i := range uint64(files) {
		d.put(filepath.Join(modelFolder, spoolName{uint64(start.Unix()), i, 1}.String()), make([]byte, 250<<10))
	}
	// One that is larger than the whole quarantine is deleted, and not for the others.
	d.put(filepath.Join(modelFolder, spoolName{start: 1 << 32}.String()), make([]byte, maxQuarantinedBytes+1))
	cfg := defaultSpoolConfig(modelFolder)
	s, err := openSpoolOn(d, cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	if got := s.stats(); got.Quarantined != files+1 || got.Foreign != 2 || got.Lost[lostTorn] != files || got.Bytes != 0 {
		t.Errorf("%+v", got)
	}
	kept := d.names(s.quarantine.folder)
	if len(kept) > maxQuarantinedFiles || len(kept) < 50 || (len(kept)-1)*250<<10 > maxQuarantinedBytes {
		t.Errorf("%d files are in quarantine", len(kept))
	}
	if !slices.Contains(kept, "notes.txt") {
		t.Errorf("somebody's notes are gone")
	}
	if got := d.names(modelFolder); !slices.Equal(got, []string{"pipe"}) {
		t.Errorf("left in the folder: %v, want the pipe", got)
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}

	// Full of what may not be deleted: more of others stays where it is.
	next := newMemDisk(modelFolder)
	next.put(filepath.Join(modelFolder, lockName), nil)
	for i := range maxQuarantinedFiles {
		next.put(filepath.Join(s.quarantine.folder, fmt.Sprint("theirs", i)), nil)
	}
	next.put(filepath.Join(modelFolder, "one more"), nil)
	next.put(filepath.Join(modelFolder, spoolName{points: 5}.String()), nil)
	s, err = openSpoolOn(next, cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	if got := next.names(modelFolder); !slices.Equal(got, []string{"one more"}) {
		t.Errorf("left in the folder: %v, want what is not ours", got)
	}
	if got := next.names(s.quarantine.folder); len(got) != maxQuarantinedFiles {
		t.Errorf("%d files are in quarantine", len(got))
	}
	checkSpoolBooks(t, s.stats())
}

// Arbitrary bytes under a record's name are quarantined, or are exactly a record.
func FuzzSpoolFile(f *testing.F) {
	for _, r := range []*record{
		{},
		{target: "a", route: "/api/v2/series", encoding: "zstd", start: start, points: 10, body: []byte("body")},
		modelRecord(9, start),
	} {
		if r.start.IsZero() {
			r.start = time.Unix(0, 0)
		}
		f.Add(encodeRecord(r))
		f.Add(encodeRecord(r)[:minHeader-1])
	}
	reserved := encodeRecord(small(1, start))
	reserved[38] = 1
	body := len(reserved) - len(small(1, start).body)
	binary.LittleEndian.PutUint32(reserved[body-4:], crc32.Checksum(reserved[:body-4], castagnoli))
	f.Add(reserved)
	f.Add([]byte{})
	f.Add([]byte(spoolMagic))
	f.Add([]byte("weirspl\x02"))
	f.Fuzz(func(t *testing.T, file []byte) {
		original := bytes.Clone(file)
		name := spoolName{uint64(start.Unix()), 7, 10}.String()
		written, err := decodeRecord(file)
		if err == nil {
			name = nameOf(written)
			if again := encodeRecord(written); !bytes.Equal(again, file) {
				t.Errorf("%x was read as a record that is written as %x", file, again)
			}
		}
		d, s, lost := spoolOf(t, name, file)
		r, ok := s.take(time.Unix(0, 0), nil)
		got := s.stats()
		checkSpoolBooks(t, got)
		switch {
		case ok != (err == nil):
			t.Errorf("taken %v, but %v", ok, err)
		case ok && !same(r, written):
			t.Errorf("taken: %+v, want %+v", r, written)
		case !ok && (got.Quarantined != 1 || len(*lost) != 1 || len(d.names(s.quarantine.folder)) != 1):
			t.Errorf("not quarantined: %+v", got)
		}
		if !bytes.Equal(file, original) {
			t.Error("the file was changed")
		}
	})
}
