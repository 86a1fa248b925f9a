package analytics

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/weir-agent/weir/analytics/fleet"
)

// sharer shares counts with other hosts through Redis, in rounds. What Redis has not is
// found by comparing registers, so nothing piles up while it is away. All but its stats
// and voice belong to the goroutine of run.
type sharer struct {
	e        *Engine
	cfg      fleet.Config
	log      *slog.Logger
	client   *fleet.Client
	lease    *fleet.Lease
	instance string      // names this host in Redis
	hashKey  string      // tells the key of identities apart, and says nothing about it
	plan     *generation // by which it shares
	rules    []*sharedRule
	byRule   map[*rule]*sharedRule

	epoch     string
	settled   time.Time // from when on all hosts have brought back what was lost
	lost      bool      // what they have brought back was not read yet
	failing   bool      // the last round failed
	failedAt  time.Time // the first one that did
	met       bool      // a round succeeded
	repaired  time.Time
	computed  time.Time
	bases     map[string]*base
	foreign   map[string]bool // keys that the log told of
	stats     sharerStats
	voice     atomic.Pointer[voice]
	asks      chan func(context.Context)
	sinceDays bool // the first days are known
}

type sharerStats struct {
	rounds, failed, elements, uploads, fetches, repairs, takeovers atomic.Uint64
	healthy, leader, hosts, known, keys, pending, foreign          atomic.Int64
	roundNanoseconds                                               atomic.Int64
}

const (
	// batch is how many cells are read or written at once.
	batch = 64
	// settling is how many flush intervals after a loss hosts have to bring back what
	// was lost before anybody speaks.
	settling = 4
	// longestMonth is how many days back a calendar month may begin.
	longestMonth = 31 + 31 + lateDays + 7
	gitLabKeeps  = 42 // days, as GitLab does
	rawKeyID     = "(raw)"
	instanceName = "instance"
)

// newSharer connects to nothing yet; nil says that counts are not shared.
func newSharer(e *Engine) (*sharer, error) {
	cfg := e.cfg.Redis
	if !cfg.Enabled() {
		return nil, nil
	}
	client, err := fleet.Open(cfg)
	if err != nil {
		return nil, err
	}
	s := &sharer{e: e, cfg: cfg, log: e.log, client: client, byRule: map[*rule]*sharedRule{}, bases: map[string]*base{}, foreign: map[string]bool{}, asks: make(chan func(context.Context))}
	if s.instance, err = e.store.meta(instanceName); err == nil && s.instance == "" {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails: crypto/rand crashes the program instead
		s.instance = hex.EncodeToString(random[:])
		err = e.store.setMeta(map[string]string{instanceName: s.instance})
	}
	if err != nil {
		return nil, err
	}
	s.lease, s.hashKey = client.NewLease(s.instance), rawKeyID
	if cfg.Element != fleet.Raw {
		s.hashKey = e.keys[0].id + " " + e.keys[0].fingerprint()
	}
	s.adopt(e.generation.Load())
	return s, nil
}

// run shares in rounds until ctx is done, and then once more.
func (s *sharer) run(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.FlushInterval)
	defer ticker.Stop()
	for {
		s.round(ctx, time.Now())
		for waits := true; waits; {
			select {
			case <-ctx.Done():
				s.end()
				return
			case answer := <-s.asks:
				answer(ctx)
			case <-ticker.C:
				waits = false
			}
		}
	}
}

// end sends what is left, if Redis is well, and gives the lease back.
func (s *sharer) end() {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Timeout)
	defer cancel()
	s.voice.Store(nil)
	if s.stats.healthy.Load() == 1 {
		s.round(ctx, time.Now())
		_ = s.lease.Release(ctx) // it ends by itself
	}
	s.voice.Store(nil)
	_ = s.client.Close()
}

// round brings Redis and this host up to date. What fails is done in a later one.
func (s *sharer) round(ctx context.Context, now time.Time) {
	began := time.Now()
	err := s.exchange(ctx, now)
	s.stats.rounds.Add(1)
	s.stats.roundNanoseconds.Store(int64(time.Since(began)))
	switch {
	case err == nil:
		if s.failing || !s.met {
			attributes := []any{"server", strings.Join(s.cfg.Addresses, ", "), "instance", s.instance}
			if s.failing {
				attributes = append(attributes, "after", time.Since(s.failedAt).Round(time.Second))
			}
			s.log.Info("counts are shared through Redis", attributes...)
		}
		s.failing, s.met = false, true
		s.stats.healthy.Store(1)
	case ctx.Err() != nil: // the agent stops
	default:
		if !s.failing {
			s.failedAt = began
			s.log.Error("counts cannot be shared through Redis; this host goes on counting, and shares them later", "error", err)
		}
		s.failing = true
		s.stats.failed.Add(1)
		s.stats.healthy.Store(0)
	}
}

func (s *sharer) exchange(ctx context.Context, now time.Time) error {
	if g := s.e.generation.Load(); g != s.plan {
		s.adopt(g)
	}
	pulse, err := s.client.Beat(ctx, s.instance, s.hashKey, time.Now())
	if err != nil {
		return err
	}
	s.stats.hosts.Store(int64(pulse.Hosts))
	s.stats.known.Store(int64(pulse.Known))
	if before := s.stats.keys.Swap(int64(pulse.Keys)); before <= 1 && pulse.Keys > 1 {
		s.log.Warn("hosts that share this Redis hash identities with different keys, and do not count together; give all of them the same analytics.key_file and analytics.redis.element", "keys", pulse.Keys)
	}
	if pulse.Epoch != s.epoch || s.failing {
		if s.epoch != "" && pulse.Epoch != s.epoch {
			s.log.Warn("Redis has lost data; this host brings back what it knows")
			s.settled, s.lost = time.Now().Add(settling*s.cfg.FlushInterval), true
		}
		s.doubt(pulse.Epoch != s.epoch)
		s.epoch = pulse.Epoch
	}
	if err := s.lead(ctx); err != nil {
		return err
	}
	repair := now.Sub(s.repaired) >= s.cfg.RepairInterval || now.Before(s.repaired)
	if repair {
		s.doubt(false)
	}
	if s.lost && !time.Now().Before(s.settled) {
		s.lost = false
		s.readAnew()
	}
	leads := s.lease.Holds(time.Now())
	for _, r := range s.rules {
		zone, today := s.plan.zones[r.zone], dayOf(now.Unix(), s.plan.zones[r.zone])
		r.versions(zone, today)
		if leads {
			s.lookAt(r, zone, today)
		}
	}
	if err := s.shareTotals(ctx); err != nil {
		return err
	}
	if err := s.shareSketches(ctx, now); err != nil {
		return err
	}
	if repair || !s.sinceDays {
		if err := s.shareSince(ctx); err != nil {
			return err
		}
	}
	if repair {
		s.repaired = now
	}
	if !leads {
		s.voice.Store(nil)
		return nil
	}
	return s.speak(ctx, now)
}

// doubt forgets that Redis has what it was sent: of all cells, or of those of recent
// days and of totals, while of others it is only asked whether they are there.
func (s *sharer) doubt(all bool) {
	for _, r := range s.rules {
		for w, c := range r.cells {
			c.foreign = false
			if all {
				c.known, c.sent = nil, 0
			} else if c.known != nil || !r.unique {
				c.sent, c.fetched = 0, time.Time{}
			}
			if r.unique && w != everWindow {
				c.checked = false
			}
		}
	}
	if all {
		clear(s.bases)
		s.voice.Store(nil)
		s.repaired = time.Time{}
	}
}

// readAnew forgets when cells were read last, so that the host that leads reads them.
func (s *sharer) readAnew() {
	for _, r := range s.rules {
		for _, c := range r.cells {
			c.fetched = time.Time{}
		}
	}
	s.computed = time.Time{}
}

func (s *sharer) lead(ctx context.Context) error {
	held := s.lease.Holds(time.Now())
	taken, err := s.lease.Renew(ctx, time.Now())
	if taken {
		s.stats.takeovers.Add(1)
		s.log.Info("this host reports for the fleet now", "instance", s.instance)
	}
	holds := s.lease.Holds(time.Now())
	if held && !holds {
		s.log.Info("another host reports for the fleet now", "instance", s.instance)
	}
	leader := int64(0)
	if holds {
		leader = 1
	} else {
		s.voice.Store(nil)
	}
	s.stats.leader.Store(leader)
	return err
}

// lookAt makes cells of recent days, so that what other hosts sent is read.
func (s *sharer) lookAt(r *sharedRule, zone *time.Location, today day) {
	if !r.unique {
		return
	}
	for d := today - lateDays; d <= today; d++ {
		r.cell(window{d, d}, false, zone)
		if r.weekly != "" {
			r.cell(window{d.monday(), d.monday() + 6}, true, zone)
		}
	}
}

func (s *sharer) shareTotals(ctx context.Context) error {
	var totals []fleet.Total
	var cells []*cell
	var versions []uint64
	send := func() error {
		if len(totals) == 0 {
			return nil
		}
		foreign, err := s.client.SetTotals(ctx, s.instance, totals)
		if err != nil {
			return err
		}
		if foreign > 0 {
			s.tellForeign(totals[0].Key)
		}
		for i, c := range cells {
			c.sent = versions[i]
		}
		totals, cells, versions = totals[:0], cells[:0], versions[:0]
		return nil
	}
	for _, r := range s.rules {
		if r.unique {
			continue
		}
		for w, c := range r.cells {
			if c.local == 0 || c.local == c.sent {
				continue
			}
			totals = append(totals, fleet.Total{Key: c.key, Expire: c.expire, Value: r.summarize(w).total})
			cells, versions = append(cells, c), append(versions, c.local)
			if len(totals) == 8*batch {
				if err := send(); err != nil {
					return err
				}
			}
		}
	}
	return send()
}

// work is a cell that something is to be done about.
type work struct {
	rule *sharedRule
	*cell
	recent bool // it may change yet, so what Redis has of it is remembered
}

// shareSketches compares what this host counted with what Redis has, and sends what is
// missing there. Few cells at a time are in memory beyond those of recent days.
func (s *sharer) shareSketches(ctx context.Context, now time.Time) error {
	var due, unchecked []work
	lost := false
	leads := s.lease.Holds(time.Now())
	for _, r := range s.rules {
		if !r.unique {
			continue
		}
		today := dayOf(now.Unix(), s.plan.zones[r.zone])
		for _, c := range r.cells {
			one := work{r, c, c.of.Last >= today-lateDays}
			stale := now.Sub(c.fetched) >= s.cfg.RefreshInterval || now.Before(c.fetched)
			switch {
			case c.foreign:
			case c.local != c.sent, one.recent && leads && stale:
				due = append(due, one)
			case c.local != 0 && !c.checked && now.Add(oneDay).Before(c.expire): // lest one clock misses what another let expire
				unchecked = append(unchecked, one)
			}
			if !one.recent && c.local == c.sent {
				c.known = nil
			}
		}
	}
	for some := range slices.Chunk(unchecked, 4*batch) {
		missing, err := s.missing(ctx, some)
		if err != nil {
			return err
		}
		due = append(due, missing...)
		lost = lost || len(missing) > 0
	}
	if lost {
		// Once this host has brought its part back the keys are there again, and other
		// hosts would not see that theirs is missing.
		if err := s.client.NewEpoch(ctx); err != nil {
			return err
		}
	}
	s.stats.pending.Store(int64(len(due)))
	left := len(due)
	for some := range slices.Chunk(due, batch) {
		if err := s.compare(ctx, some, now); err != nil {
			return err
		}
		left -= len(some)
		s.stats.pending.Store(int64(left))
	}
	return nil
}

// missing returns the cells that Redis does not have any more.
func (s *sharer) missing(ctx context.Context, some []work) (missing []work, err error) {
	keys := make([]string, len(some))
	for i, c := range some {
		keys[i] = c.key
	}
	there, err := s.client.Exist(ctx, keys)
	if err != nil {
		return nil, err
	}
	for i, c := range some {
		c.checked = true
		if !there[i] {
			c.sent, c.known, c.fetched = 0, nil, time.Time{}
			s.stats.repairs.Add(1)
			missing = append(missing, c)
		}
	}
	return missing, nil
}

// compare reads some cells where that is due, and sends what they lack.
func (s *sharer) compare(ctx context.Context, some []work, now time.Time) error {
	if err := s.fetch(ctx, some, now); err != nil {
		return err
	}
	var changes []fleet.Change
	var changed []work
	var versions []uint64
	for _, c := range some {
		if c.foreign || c.local == 0 {
			c.sent = c.local
			continue
		}
		here, err := s.read(c.rule, c.of)
		if err != nil {
			return err
		}
		if elements := here.Beyond(c.known, nil); len(elements) > 0 {
			changes = append(changes, fleet.Change{Key: c.key, Expire: c.expire, Elements: elements, All: here})
			changed, versions = append(changed, c), append(versions, c.local)
			continue
		}
		if c.sent, c.checked = c.local, true; !c.recent {
			c.known = nil
		}
	}
	if len(changes) == 0 {
		return nil
	}
	sent, err := s.client.Send(ctx, s.instance, changes)
	if err != nil {
		return err
	}
	s.stats.elements.Add(uint64(sent.Elements))
	s.stats.uploads.Add(uint64(sent.Uploads))
	for i, c := range changed {
		if c.foreign = sent.Foreign[i]; c.foreign {
			s.tellForeign(c.key)
			continue
		}
		c.known.Raise(changes[i].All)
		c.sent, c.checked = versions[i], true
		if !c.recent {
			c.known = nil
		}
	}
	return nil
}

// read returns what this host counted in a window; the disk is read with e.mu held, as
// by everybody.
func (s *sharer) read(r *sharedRule, w window) (*fleet.Registers, error) {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return r.local(w)
}

// fetch reads what Redis has, of cells of which that is not known or was read a while
// ago: what other hosts sent since need not be sent again, and what was lost is found.
func (s *sharer) fetch(ctx context.Context, some []work, now time.Time) error {
	var stale []work
	var keys []string
	for _, c := range some {
		if c.known == nil || now.Sub(c.fetched) >= s.cfg.RefreshInterval || now.Before(c.fetched) {
			stale, keys = append(stale, c), append(keys, c.key)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	found, err := s.client.Fetch(ctx, keys)
	if err != nil {
		return err
	}
	s.stats.fetches.Add(uint64(len(keys)))
	for i, c := range stale {
		there := found[i].Registers
		if c.foreign = found[i].Foreign; c.foreign {
			s.tellForeign(c.key)
			continue
		}
		if there == nil {
			there = new(fleet.Registers)
		}
		if c.known != nil && there.Lacks(c.known) {
			s.stats.repairs.Add(1)
			c.sent = 0
		}
		c.known, c.fetched = there, now
	}
	return nil
}

// tellForeign says in the log, once, that a key is not to be used.
func (s *sharer) tellForeign(key string) {
	if len(s.foreign) >= 100 || s.foreign[key] {
		return
	}
	s.foreign[key] = true
	s.stats.foreign.Store(int64(len(s.foreign)))
	s.log.Error("a key in Redis holds something else than a count, and is left alone; remove it, or set another analytics.redis.key_prefix", "key", key)
}

// shareSince finds out since when any host counts each rule.
func (s *sharer) shareSince(ctx context.Context) error {
	for some := range slices.Chunk(s.rules, batch) {
		var keys []string
		var days []int
		for _, r := range some {
			keys = append(keys, r.prefix+"since")
			days = append(days, int(r.rule.since))
		}
		least, err := s.client.Earliest(ctx, keys, days)
		if err != nil {
			return err
		}
		for i, r := range some {
			r.since = day(least[i])
		}
	}
	s.sinceDays = true
	return nil
}

// rawElement stands for an identity as Redis hashes it when it is given its value as it
// is.
func rawElement(canonical []byte) element { return element(fleet.Unhash(fleet.Hash(canonical))) }
