package forwarder

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"time"
)

// heirsWaiting is how many batches a destination may be behind that waits for another
// one to give up its spool or its file.
const heirsWaiting = 16

// Change is a configuration that is ready to be put in force: all it needs is open.
type Change struct {
	f       *Forwarder
	cfg     Config
	spools  *spools
	next    []planned
	removed []*outlet
}

// planned is a destination of the next configuration.
type planned struct {
	destination
	filter *filter
	stays  *outlet           // nil: it is new
	waits  []<-chan struct{} // for the ends of those that have what it needs
}

// Prepare opens what a configuration asks for that is not open yet. The configuration
// must have been resolved and have passed Validate, and state_dir must be as it was. A
// destination that stays as it was is kept, with its queue, its spool and its
// connections. If one cannot be opened nothing has changed. Otherwise either Commit or
// Abort must follow, and until then others wait who call Prepare. It waits for Run.
func (f *Forwarder) Prepare(cfg Config) (*Change, error) {
	<-f.began
	f.folders.Lock()
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		f.folders.Unlock()
		return nil, errors.New("the agent is stopping")
	}
	old, now := f.cfg, slices.Clone(f.outlets)
	f.mu.Unlock()
	c := &Change{f: f, cfg: cfg, next: make([]planned, len(cfg.Forwarders))}
	stays := make([]bool, len(now))
	var named []destination
	var taken []string
	for i := range cfg.Forwarders {
		c.next[i].filter = newFilter(&cfg.Forwarders[i])
		for j := range now {
			if !stays[j] && sameDestination(&cfg, &old, i, j) {
				stays[j] = true
				c.next[i].destination, c.next[i].stays = now[j].destination, now[j]
				named = append(named, now[j].destination)
				taken = append(taken, foldersOf(now[j].destination)...)
				break
			}
		}
	}
	for j, o := range now {
		if !stays[j] {
			c.removed = append(c.removed, o)
		}
	}
	if err := c.open(named, taken); err != nil {
		c.Abort()
		return nil, err
	}
	return c, nil
}

// sameDestination reports whether destination i of a configuration is destination j of
// another, but for what goes there.
func sameDestination(cfg, other *Config, i, j int) bool {
	a, b := cfg.Forwarders[i], other.Forwarders[j]
	a.Include, a.Exclude, b.Include, b.Exclude = nil, nil, nil, nil
	if (a.Type == TypeDatadog || a.Type == TypeDogStatsD) && cfg.Spool != other.Spool {
		return false
	}
	return reflect.DeepEqual(a, b)
}

// open opens the destinations that do not stay. What another one has that leaves is
// opened when that has ended.
func (c *Change) open(named []destination, taken []string) error {
	f := c.f
	isNew := func(p planned) bool { return p.stays == nil }
	if !slices.ContainsFunc(c.next, isNew) {
		return nil
	}
	c.spools = newSpools(&c.cfg, os.Getenv, f.log)
	c.spools.taken, c.spools.leave = taken, f.leaveFolder
	f.mu.Lock()
	leaving := slices.Concat(c.removed, f.leaving)
	f.mu.Unlock()
	for i := range c.next {
		p := &c.next[i]
		if p.stays != nil {
			continue
		}
		d := &c.cfg.Forwarders[i]
		opened, err := f.open(d, f.freeName(d.Type, named), &c.cfg, c.spools)
		if err != nil {
			return err
		}
		p.destination = opened
		named = append(named, opened)
		for _, o := range leaving {
			if shares(o.destination, opened) {
				p.waits = append(p.waits, o.gone)
			}
		}
		if len(p.waits) == 0 {
			if err := openSpools(opened, c.spools); err != nil {
				return err
			}
		}
	}
	return nil
}

// shares reports whether two destinations need the same file or spool.
func shares(a, b destination) bool {
	if a, ok := a.(*logs); ok {
		b, ok := b.(*logs)
		return ok && a.output == b.output
	}
	return slices.ContainsFunc(foldersOf(a), func(name string) bool { return slices.Contains(foldersOf(b), name) })
}

// foldersOf returns the names of the folders of a destination's spools.
func foldersOf(d destination) (names []string) {
	for _, e := range endpointsOf(d) {
		if e.folder != "" {
			names = append(names, e.folder)
		}
	}
	return names
}

// leaveFolder makes room in a folder for the spool of an endpoint.
func (f *Forwarder) leaveFolder(name string) (before *books) {
	f.mu.Lock()
	orphans, before := f.orphans, f.heirs[name]
	delete(f.heirs, name)
	f.mu.Unlock()
	if orphans != nil && orphans.leave(name) {
		return &orphans.account
	}
	return before
}

// Abort gives back what Prepare has opened.
func (c *Change) Abort() {
	defer c.f.adopt()
	defer c.f.folders.Unlock()
	var never []destination
	for _, p := range c.next {
		if p.stays == nil && p.destination != nil {
			never = append(never, p.destination)
		}
	}
	closeAll(never)
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	for _, d := range never {
		for _, e := range endpointsOf(d) {
			if e.spool != nil {
				c.f.heirs[e.folder] = e.account
			}
		}
	}
}

// Commit puts the configuration in force between two batches. What is removed delivers
// or spools what it holds, as at the end of the agent, and nobody waits for it but who
// needs its spool or its file.
func (c *Change) Commit() {
	f := c.f
	f.mu.Lock()
	if f.stopped {
		f.mu.Unlock()
		c.Abort()
		return
	}
	defer f.folders.Unlock()
	defer f.mu.Unlock()
	if c.spools != nil && c.spools.folder != "" {
		f.spools = c.spools
	}
	f.cfg, f.timeout = c.cfg, c.cfg.ShutdownTimeout
	f.destinations, f.filters, f.outlets = nil, nil, nil
	for _, p := range c.next {
		o := p.stays
		switch {
		case o == nil && len(p.waits) == 0:
			o = f.start(p.destination, batchesWaiting, func() {})
		case o == nil:
			o = f.start(p.destination, heirsWaiting, func() { c.succeed(p) })
		default:
			for _, e := range endpointsOf(o.destination) {
				e.change(func() { e.hasten = f.timeout / 4 * 3 })
			}
		}
		f.destinations, f.filters, f.outlets = append(f.destinations, p.destination), append(f.filters, p.filter), append(f.outlets, o)
	}
	for _, o := range c.removed {
		f.log.Info("a forwarder is removed: it delivers what it holds", "forwarder", o.name(), "shutdown_timeout", f.timeout.String())
		for _, account := range o.books() {
			account.leave()
		}
		f.leaving = append(f.leaving, o)
		close(o.queue)
		timer := time.AfterFunc(f.timeout, o.giveUp)
		f.tidying.Go(func() {
			<-o.ended
			timer.Stop()
			f.retire(o)
			f.adopt()
		})
	}
}

// succeed waits until others have given up what a destination needs, and takes it.
func (c *Change) succeed(p planned) {
	for _, gone := range p.waits {
		<-gone
	}
	if err := openSpools(p.destination, c.spools); err != nil {
		c.spools.warn(err)
	}
	if d, ok := p.destination.(*logs); ok {
		d.reopen()
	}
}

// retire keeps the books of a destination that was removed and has ended.
func (f *Forwarder) retire(o *outlet) {
	var dropped, spooled uint64
	f.mu.Lock()
	defer f.mu.Unlock()
	defer close(o.gone)
	f.leaving = slices.DeleteFunc(f.leaving, func(other *outlet) bool { return other == o })
	for _, account := range o.books() {
		was := account.snapshot()
		if was.Name == "" {
			was.Name = o.name()
		}
		dropped += was.Dropped[DroppedRemoved]
		spooled += was.Spooled
		was.SpoolBytes = 0 // they are somebody else's now
		kept := f.retiredNamed(was.Name)
		kept.mu.Lock()
		kept.s.add(&was)
		kept.s.Spools = was.Spools
		kept.mu.Unlock()
	}
	for _, e := range endpointsOf(o.destination) {
		if e.folder != "" {
			f.heirs[e.folder] = f.retiredNamed(e.account.s.Name)
		}
	}
	if dropped > 0 {
		f.log.Error("dropped points: a forwarder was removed, and shutdown_timeout was not long enough", "forwarder", o.name(), "points", dropped)
	}
	f.log.Info("a removed forwarder has ended", "forwarder", o.name(), "spooled", spooled)
}

// adopt looks after spools that no destination has any more.
func (f *Forwarder) adopt() {
	f.folders.Lock()
	defer f.folders.Unlock()
	f.mu.Lock()
	var taken, left []string
	for _, o := range slices.Concat(f.outlets, f.leaving) {
		taken = append(taken, foldersOf(o.destination)...)
	}
	for name := range f.heirs {
		if !slices.Contains(taken, name) {
			left = append(left, name)
		}
	}
	if f.stopped || len(left) == 0 || f.spools.folder == "" {
		f.mu.Unlock()
		return
	}
	if f.orphans == nil {
		f.orphans = newOrphans(f.log)
		f.tidying.Go(func() { f.orphans.run(f.ctx) })
	}
	spools, orphans := *f.spools, f.orphans
	f.mu.Unlock()
	spools.leave = f.leaveFolder
	for _, name := range left {
		orphans.adopt(&spools, name)
	}
}

// retiredNamed returns the books of all removed destinations of a name; mu must be held.
func (f *Forwarder) retiredNamed(name string) *books {
	for _, b := range f.retired {
		if b.s.Name == name {
			return b
		}
	}
	b := &books{}
	b.s.Name = name
	f.retired = append(f.retired, b)
	return b
}
