// Package analytics turns the lines of analytics events into checked events and counts
// them: how often, by whom, how much, over days and weeks.
//
//	analytics.team.created:1|c|#user_id:1,organization_id:2,plan:pro
//
// What an event may carry says the plan (analytics/plan). Whom it counts is decided
// once per identity, the bytes of name and tags: a further line of an identity that is
// known adds to two numbers. Who did it is hashed with a secret key and kept in a
// sketch (HyperLogLog) for each rule and day; a week is the union of its days.
//
// In: identities and their samples, on the readers' goroutines. Out: the identity of
// the event's counter, without anybody's name in it; values of metrics; a file with
// the counts, another with what was no valid event. It never sends, and never waits
// for the disk while a reader waits for it.
package analytics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/raw"
	"github.com/weir-agent/weir/internal/diskio"
)

// Engine counts events.
type Engine struct {
	cfg     Config
	log     *slog.Logger
	keys    keyring
	store   *store
	ids     *dedup
	letters *deadLetters
	share   *sharer   // nil: counts are this host's own
	raw     *raw.Sink // nil: there are no raw events

	generation atomic.Pointer[generation]

	intakesMu sync.Mutex // guards intakes
	intakes   []*Intake

	values atomic.Pointer[[]Value]
	stats  stats

	mu      sync.Mutex // guards the fields below: one save, computation or change of the plan at a time
	rules   []*rule    // all that is to be saved
	numbers int        // of rules, ever
	settled bool       // no reader counts by an earlier plan than the one in force
	steady  int64      // seconds without a jump of the clock, since days were erased last
	last    int64      // Unix seconds of the last tick
	failed  bool       // the last save

	unreported bool // the last report could not be written

	erased  day       // the days before it are gone
	orphans []*record // days of rules that the plan does not have any more
}

// stats is what the engine counts besides outcomes.
type stats struct {
	saves, saveErrors, damaged, unreadable atomic.Uint64
	saveNanoseconds                        atomic.Int64
}

const (
	// tickEvery is how often values are computed, and the period is looked at.
	tickEvery = 10 * time.Second
	// jump is how far the clock may move between two ticks and has not jumped.
	jump = time.Minute
	// steadyFor is for how long the clock must have run without a jump before days are
	// erased.
	steadyFor = time.Hour
)

// New reads what an earlier run left, and starts nothing. cfg must have passed
// Validate.
func New(cfg Config, p *plan.Plan, log *slog.Logger) (*Engine, error) {
	return newAt(cfg, p, log, time.Now())
}

func newAt(cfg Config, p *plan.Plan, log *slog.Logger, now time.Time) (*Engine, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder for analytics: %w; set state_dir to one that weir may write", err)
	}
	keys, err := openKeys(cfg)
	if err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, log: log, keys: keys, ids: newDedup(keys[0].sip("event id")), letters: newDeadLetters(cfg, keys[0], log), last: now.Unix()}
	e.mu.Lock()
	g, fresh, err := e.compile(cfg, p, nil)
	e.rules = fresh
	e.mu.Unlock()
	if err != nil {
		return nil, err
	}
	g.current.Store(periodAt(now.Unix(), g.zones))
	e.generation.Store(g)
	if err := e.open(); err != nil {
		return nil, err
	}
	for _, name := range []string{reportName, keyFileName} { // nobody else writes them: the file is open
		diskio.RemoveHalfWritten(filepath.Join(cfg.StateDir, name))
	}
	if e.share, err = newSharer(e); err != nil {
		return nil, errors.Join(err, e.store.close())
	}
	if cfg.Raw.Dir == "" {
		cfg.Raw.Dir = filepath.Join(cfg.StateDir, "events")
	}
	if cfg.Raw.Enabled() {
		if e.raw, err = raw.New(cfg.Raw, p, cfg.Host, raw.Protection{Pseudonym: keys[0].pseudonyms(), KeyID: keys[0].id}, log); err != nil {
			return nil, errors.Join(err, e.store.close())
		}
	}
	e.compute(now)
	e.logPlan(log)
	return e, nil
}

// RunRaw writes raw events until ctx is done, then those that are left. All samples
// must have been added.
func (e *Engine) RunRaw(ctx context.Context) error {
	if e.raw == nil {
		return nil
	}
	return e.raw.Run(ctx)
}

// NewIntake returns the intake of one more reader.
func (e *Engine) NewIntake() *Intake {
	in := newIntake(e)
	e.intakesMu.Lock()
	defer e.intakesMu.Unlock()
	e.intakes = append(e.intakes, in)
	return in
}

// Close gives the files back, of an Engine that is not run.
func (e *Engine) Close() error {
	err := e.store.close()
	if e.raw != nil {
		err = errors.Join(err, e.raw.Close())
	}
	return err
}

// open opens the file and gives the rules what was saved of them.
func (e *Engine) open() error {
	g := e.generation.Load()
	byKey := map[[idBytes]byte]*rule{}
	for _, r := range e.rules {
		byKey[ruleKey(r.text, r.keyID)] = r
	}
	packer := newPacker()
	visit := func(rec *record) error {
		r := byKey[ruleKey(rec.rule, rec.keyID)]
		if r == nil { // of a definition or a key that is gone; it may come back
			e.orphans = append(e.orphans, &record{rule: rec.rule, keyID: rec.keyID, day: rec.day})
			return nil
		}
		return r.restore(rec, g.today(r)-lateDays, packer)
	}
	forget := func() {
		e.stats.damaged.Add(1)
		e.orphans = nil
		for _, r := range e.rules {
			r.forgetSaved()
		}
	}
	for try := 0; ; try++ {
		disk, damaged, err := openStore(e.cfg.StateDir, e.log, visit, forget)
		if err != nil {
			return err
		}
		e.store = disk
		e.stats.damaged.Add(uint64(damaged))
		for _, r := range e.rules {
			r.disk = disk
		}
		if err = e.begin(e.rules, g); err == nil {
			break
		}
		if try > 0 || !errors.Is(err, errFileDamaged) {
			return errors.Join(err, disk.close())
		}
		if err := disk.setAside(err); err != nil {
			return err
		}
		forget()
	}
	// The file may be sound and yet not the one that was left.
	if before, err := ReadReport(e.cfg.StateDir); err == nil && e.store.records < before.Records {
		e.log.Error("the file of unique counts holds less than was saved", "file", e.store.path, "records", e.store.records, "saved", before.Records)
		e.stats.damaged.Add(1)
	}
	return nil
}

func sinceName(r *rule) string { return fmt.Sprintf("since %x", ruleKey(r.text, r.keyID)) }

// begin finds out, or notes, since when each of some rules counts.
func (e *Engine) begin(rules []*rule, g *generation) error {
	fresh := map[string]string{}
	e.erased = forever
	if text, err := e.store.meta(erasedName); err != nil {
		return err
	} else if text != "" {
		_ = e.erased.UnmarshalText([]byte(text)) // what is no date is as good as none
	}
	for _, r := range rules {
		name := sinceName(r)
		text, err := e.store.meta(name)
		if err != nil {
			return err
		}
		since, err := time.Parse(time.DateOnly, text)
		if err != nil {
			r.since = g.today(r)
			fresh[name] = r.since.String()
			continue
		}
		r.since = dateOf(since.Date())
	}
	return e.store.setMeta(fresh)
}

// Run computes the metrics' values and saves counts, until ctx is done; then it takes
// in what is left, saves it and closes the file. All samples must have been added.
func (e *Engine) Run(ctx context.Context) error {
	var sharing sync.WaitGroup
	noMore, end := context.WithCancel(context.Background())
	defer end()
	if e.share != nil {
		sharing.Go(func() { e.share.run(noMore) })
	}
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for saved := time.Now(); ; {
		every := e.generation.Load().cfg.SaveInterval
		timer.Reset(min(tickEvery, every))
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				err := e.finish(time.Now())
				end()
				sharing.Wait()
				return errors.Join(err, e.store.close())
			case <-look.C:
				e.letters.save(time.Now())
				e.showWatchers(time.Now())
			case <-timer.C:
				waits = false
			}
		}
		now := time.Now()
		due := now.Sub(saved) > every-tickEvery/10
		if due {
			saved = now
		}
		e.tick(now, due)
	}
}

// tick does what is to be done now and then.
func (e *Engine) tick(now time.Time, save bool) {
	e.drain(now)
	if save {
		_ = e.save(now) // the log has said what failed, and it is tried again
	}
	e.keepHouse(now)
	e.compute(now)
	if save {
		e.report(now)
	}
}

// finish takes in what is left and saves it.
func (e *Engine) finish(now time.Time) error {
	e.drain(now)
	e.letters.save(now)
	err := e.save(now)
	e.compute(now)
	e.report(now)
	return err
}

func (e *Engine) close(now time.Time) error {
	err := e.finish(now)
	return errors.Join(err, e.store.close())
}

// drain takes in what the readers have counted, and begins a new period when one is
// over.
func (e *Engine) drain(now time.Time) { e.drainUntil(now, 0) }

// drainUntil is drain that closes all that counts for generations before one.
func (e *Engine) drainUntil(now time.Time, serial int) {
	unix, g := now.Unix(), e.generation.Load()
	if !g.current.Load().holds(unix) {
		g.current.Store(periodAt(unix, g.zones))
	}
	e.intakesMu.Lock()
	intakes := slices.Clone(e.intakes)
	e.intakesMu.Unlock()
	for _, in := range intakes {
		in.drain(g.current.Load(), unix, serial)
	}
}

// save writes what changed. What cannot be written now is written later.
func (e *Engine) save(now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	began := time.Now()
	err := e.saveRules()
	if errors.Is(err, errFileDamaged) && e.startAnew(err) {
		err = e.saveRules()
	}
	if err == nil {
		e.forgetRules()
	}
	e.stats.saveNanoseconds.Store(int64(time.Since(began)))
	e.stats.saves.Add(1)
	if err != nil {
		e.stats.saveErrors.Add(1)
		if !e.failed {
			e.log.Error("unique counts cannot be saved; they go on in memory", "file", e.store.path, "error", err)
		}
	}
	e.failed = err != nil
	return err
}

func (e *Engine) saveRules() error {
	for some := range slices.Chunk(e.rules, 64) { // so that memory for records stays small
		var records []*record
		var saved []func()
		for _, r := range some {
			dirty, done := r.dirty()
			records, saved = append(records, dirty...), append(saved, done)
		}
		if err := e.store.put(records, nil); err != nil {
			return err
		}
		for _, done := range saved {
			done()
		}
	}
	return nil
}

// startAnew sets a file aside that turned out to be damaged, and begins a new one with
// all that is in memory. It reports whether there is one.
func (e *Engine) startAnew(why error) bool {
	e.stats.damaged.Add(1)
	if err := e.store.setAside(why); err != nil {
		e.log.Error("the damaged file cannot be set aside", "error", err)
		return false
	}
	if _, err := e.store.open(func(*record) error { return nil }); err != nil {
		e.log.Error("a new file for unique counts cannot be made", "error", err)
		return false
	}
	for _, r := range e.rules {
		r.forgetSaved()
	}
	kept := map[string]string{erasedName: ""}
	if e.erased > forever {
		kept[erasedName] = e.erased.String()
	}
	if e.share != nil { // under another name its totals would count again in Redis
		kept[instanceName] = e.share.instance
	}
	for _, r := range e.rules {
		kept[sinceName(r)] = r.since.String()
	}
	if err := e.store.setMeta(kept); err != nil {
		e.log.Error("the new file for unique counts cannot be written", "error", err)
		return false
	}
	return true
}

// keepHouse drops from memory what is over, and erases what is older than retention.
// A clock that jumps erases nothing.
func (e *Engine) keepHouse(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	unix := now.Unix()
	if gap := unix - e.last; gap < 0 || gap > int64(jump/time.Second) {
		e.steady = 0
	} else {
		e.steady += gap
	}
	e.last = unix
	g := e.generation.Load()
	for _, r := range e.rules {
		r.evict(g.today(r) - lateDays)
	}
	e.letters.save(now)
	if e.steady < int64(steadyFor/time.Second) {
		return
	}
	e.steady = 0
	e.letters.expire(now, g.cfg.Retention)
	keep := day(g.cfg.Retention / oneDay)
	today := g.current.Load().days[0]
	e.noteErased(today, today-keep)
	for _, r := range e.rules {
		gone, past, done := r.erase(g.today(r) - keep)
		if len(gone) == 0 {
			continue
		}
		var write []*record
		if past != nil {
			write = append(write, past)
		}
		if err := e.store.put(write, gone); err != nil {
			e.log.Error("old counts cannot be erased", "file", e.store.path, "error", err)
			return
		}
		done()
	}
	e.eraseOrphans(today - keep)
	e.eraseResults(now)
}

const erasedName = "erased before"

// noteErased remembers that the days before one are gone. Those before today may be gone
// as well if the clock was ahead; those from today on are not.
func (e *Engine) noteErased(today, before day) {
	before = max(before, min(e.erased, today))
	if before == e.erased {
		return
	}
	if err := e.store.setMeta(map[string]string{erasedName: before.String()}); err != nil {
		e.log.Error("old counts cannot be erased", "file", e.store.path, "error", err)
		return
	}
	e.erased = before
}

// eraseOrphans erases the days before one that belong to no rule.
func (e *Engine) eraseOrphans(before day) {
	var gone, left []*record
	for _, r := range e.orphans {
		if r.day < before && r.day != forever {
			gone = append(gone, r)
		} else {
			left = append(left, r)
		}
	}
	if err := e.store.put(nil, gone); err != nil {
		e.log.Error("old counts cannot be erased", "file", e.store.path, "error", err)
		return
	}
	e.orphans = left
}
