package forwarder

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/weir-agent/weir/metric"
)

const (
	defaultConcurrency = 4        // requests at once, to one endpoint
	defaultMaxQueue    = 64 << 20 // bytes of payloads that wait in memory
	// payloadOverhead is what a payload takes in memory besides its body.
	payloadOverhead = 512
	// oldestPoints is how old points may be for the intake to take them.
	oldestPoints = time.Hour
	// housekeeping is how often what is too old is looked for.
	housekeeping = 30 * time.Second
	// spoolPause is how long a spool that had nothing to give, or failed, is left alone.
	spoolPause = time.Second
)

// endpoint delivers payloads to one place: a URL with a key, or the server of a relay.
//
//	add ─▶ memory ◀──────── oldest ──────── spool
//	         │  └──── overflow, shutdown ─────▲
//	         └─ newest, oldest by turns ─▶ senders ─▶ delivered, dropped, or back
//
// While requests fail, nothing is sent but one probe at a time, of the freshest
// payload that was not tried yet: circuit. There is one for the endpoint, of which
// the network, the key and rate limits decide, and one for each route.
//
// No method waits for the network or the disk but those that goroutines of the
// endpoint run.
type endpoint struct {
	label   string
	target  string // where that is, without secrets
	account *books
	log     *slog.Logger
	post    func(context.Context, *payload) error // an answer other than success is a *refusedError; if it has taken a part, a *partError
	after   time.Duration                         // a payload has waited in memory for requests to do well: it goes to the spool
	window  time.Duration                         // since the start of an interval; its points are not sent later
	folder  string                                // of the spool, by name; "": none
	spool   *spool                                // nil: there is none; does not change once run began

	senders  int   // requests at once
	maxBytes int64 // of payloads in memory

	ended chan struct{} // closed by finish

	mu       sync.Mutex    // guards the fields below, and spool until run begins
	hasten   time.Duration // after the end of input: when what is left goes to the spool
	wake     *sync.Cond    // one of them changed
	whole    circuit
	lanes    [len(routes)]lane
	serial   uint64
	bytes    int64 // of what is in the lanes, being sent or being spooled
	read     int   // payloads in memory that the spool has, too
	busy     int   // payloads that senders and spoolers have
	fresh    bool  // whose turn it is
	noSpool  DropReason
	readAt   time.Time // when the spool may be asked for more
	writeAt  time.Time // when the spool may be given more
	failing  bool      // the spool: it did not take the last payload it was given
	warnedAt time.Time // when the log was told of a failure that will pass
	finished bool      // no new ones will come
	hurried  bool      // what is left goes to the spool
	stuck    bool      // at the end, the spool failed
	closed   bool      // what is left stays
}

// lane is the payloads of one route that wait in memory.
type lane struct {
	circuit circuit
	queue   []*waiting // the oldest first
}

// waiting is a payload in a queue.
type waiting struct {
	payload
	serial    uint64
	since     time.Time // when it came
	notBefore time.Time // after a failure: when it may be tried again
	attempts  int       // that failed
	record    *record   // of a payload that the spool has, too
	stays     bool      // the spool does not take it
	begun     time.Time // being sent
	until     time.Time // when it is of no more use; zero: when it is too old
	gone      bool      // while it was sent, the spool has taken over what is left of it
	era, turn uint64    // of the circuits, while it is sent
}

func (w *waiting) cost() int64 { return int64(len(w.body)) + payloadOverhead }

func (w *waiting) compare(other *waiting) int {
	if n := w.start.Compare(other.start); n != 0 {
		return n
	}
	return int(int64(w.serial - other.serial))
}

// tooOld reports whether the other side would not take a payload any more, or not as
// what it is. What was old when it came is tried once.
func (e *endpoint) tooOld(w *waiting, now time.Time) bool {
	if !w.until.IsZero() {
		return now.After(w.until)
	}
	return now.Sub(w.start) > e.window && (w.attempts > 0 || w.record != nil || now.Sub(w.since) > housekeeping)
}

// age is the reason to drop what is too old.
func (w *waiting) age() DropReason {
	if !w.until.IsZero() {
		return DroppedUnreachable
	}
	return DroppedTooOld
}

// partError says that the other side has taken the beginning of a payload.
type partError struct {
	points uint64
	bytes  int
	rest   []byte // of the body
	err    error
}

func (e *partError) Error() string { return e.err.Error() }
func (e *partError) Unwrap() error { return e.err }

// yields reports whether another payload is to be sent before w: a newer one, or, as a
// probe, one that failed less often.
func (w *waiting) yields(other *waiting, probe bool) bool {
	if probe && w.attempts != other.attempts {
		return other.attempts < w.attempts
	}
	return other.compare(w) > 0
}

// spoolAbove is how many bytes may wait in memory before the oldest go to disk.
func (e *endpoint) spoolAbove() int64 { return e.maxBytes / 4 * 3 }

// maxRead is how many payloads of the spool may be in memory.
func (e *endpoint) maxRead() int { return 2 * e.senders }

func newEndpoint(label string, account *books, log *slog.Logger) *endpoint {
	e := &endpoint{
		label: label, account: account, log: log.With("forwarder", label), noSpool: DroppedQueueFull, ended: make(chan struct{}),
		senders: defaultConcurrency, maxBytes: defaultMaxQueue, window: oldestPoints,
	}
	e.wake = sync.NewCond(&e.mu)
	return e
}

// spoolTo lets the endpoint have a spool for what goes to a base URL or address; target
// is the same without secrets.
func (e *endpoint) spoolTo(spools *spools, target string) {
	e.account.s.Spools = true
	e.target = target[:min(len(target), maxRecordText)]
	e.folder = spools.assign(target)
	e.after, e.window = spools.cfg.After, max(oldestPoints, spools.cfg.MaxAge)
}

// quick lets the endpoint try again sooner after failures.
func (e *endpoint) quick() {
	e.whole.quick = true
	for i := range e.lanes {
		e.lanes[i].circuit.quick = true
	}
}

// run delivers until finish was called and nothing is left, or ctx is done.
func (e *endpoint) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { e.change(func() { e.closed = true }) })
	defer stop()
	sending, giveUp := context.WithCancel(ctx)
	defer giveUp()
	watching, endWatch := context.WithCancel(ctx)
	var working, watch sync.WaitGroup
	for range e.senders {
		working.Go(func() {
			for {
				w, ok := e.next()
				if !ok {
					return
				}
				e.deliver(sending, w)
			}
		})
	}
	if e.spool != nil {
		for range e.senders {
			working.Go(e.spoolOverflow)
		}
	}
	watch.Go(func() { e.keepHouse(watching, giveUp) })
	working.Wait()
	endWatch()
	watch.Wait()
	e.mu.Lock()
	for i := range e.lanes {
		for _, w := range e.lanes[i].queue {
			if w.record != nil {
				e.spool.release(w.record)
			}
		}
	}
	e.mu.Unlock()
	e.closeSpool()
}

// keepHouse drops what is too old, and some time after the end of input lets what is
// not delivered go to the spool.
func (e *endpoint) keepHouse(ctx context.Context, giveUp context.CancelFunc) {
	ticker := time.NewTicker(housekeeping)
	defer ticker.Stop()
	late := time.NewTimer(0)
	defer late.Stop()
	late.Stop()
	ended := e.ended
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
			ended = nil
			if e.spool != nil {
				e.mu.Lock()
				late.Reset(e.hasten)
				e.mu.Unlock()
			}
		case <-late.C:
			e.mu.Lock()
			e.hurried = !e.stuck
			if e.hurried {
				giveUp()
			}
			e.wake.Broadcast()
			e.mu.Unlock()
		case now := <-ticker.C:
			e.expire(now)
		}
	}
}

// unlocked does what waits for the disk, without the lock; mu must be held. What is done
// is busy meanwhile, so that the end waits for it.
func (e *endpoint) unlocked(slow func()) {
	e.busy++
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.busy--
		e.wake.Broadcast()
	}()
	slow()
}

// change changes fields that others wait for.
func (e *endpoint) change(fields func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	fields()
	e.wake.Broadcast()
}

// add takes a payload. It never waits.
func (e *endpoint) add(p payload) { e.addUntil(p, time.Time{}) }

// addUntil takes a payload that is of no use after a while, so that the spool need not
// keep it.
func (e *endpoint) addUntil(p payload, until time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.serial++
	e.insert(&waiting{payload: p, serial: e.serial, since: time.Now(), until: until, stays: !until.IsZero()})
	e.bound()
}

// insert puts a payload where its age belongs; mu must be held.
func (e *endpoint) insert(w *waiting) {
	l := e.lane(w)
	at, _ := slices.BinarySearchFunc(l.queue, w, (*waiting).compare)
	l.queue = slices.Insert(l.queue, at, w)
	e.bytes += w.cost()
	if w.record != nil {
		e.read++
	}
	e.wake.Broadcast()
}

// remove takes a payload out of the lanes; mu must be held.
func (e *endpoint) remove(w *waiting) {
	l := e.lane(w)
	at, found := slices.BinarySearchFunc(l.queue, w, (*waiting).compare)
	if !found {
		panic("BUG: a payload is not in its lane")
	}
	l.queue = slices.Delete(l.queue, at, at+1)
	e.bytes -= w.cost()
	if w.record != nil {
		e.read--
	}
}

func (e *endpoint) lane(w *waiting) *lane {
	return &e.lanes[slices.Index(routes[:], w.route)]
}

// bound keeps the memory within its limit; mu must be held.
func (e *endpoint) bound() {
	var points uint64
	for e.bytes > e.maxBytes {
		old := e.oldest(func(w *waiting) bool { return w.record == nil })
		if old == nil {
			break // the rest is being spooled, or in the spool
		}
		e.remove(old)
		points += old.points
	}
	if points > 0 {
		e.account.dropped(points, e.noSpool)
		e.log.Error("dropped the oldest points: too many wait to be sent", "points", points, "reason", e.noSpool.String(),
			"limit", metric.Bytes(e.maxBytes))
	}
}

// oldest returns the oldest payload in memory that is wanted, nil if there is none;
// mu must be held.
func (e *endpoint) oldest(wanted func(*waiting) bool) (oldest *waiting) {
	for i := range e.lanes {
		for _, w := range e.lanes[i].queue {
			if wanted(w) {
				if oldest == nil || w.compare(oldest) < 0 {
					oldest = w
				}
				break
			}
		}
	}
	return oldest
}

// finish says that no payloads will be added any more.
func (e *endpoint) finish() {
	e.change(func() { e.finished = true })
	close(e.ended)
}

// empty reports whether nothing is in memory; mu must be held.
func (e *endpoint) empty() bool {
	return e.busy == 0 && !slices.ContainsFunc(e.lanes[:], func(l lane) bool { return len(l.queue) > 0 })
}

// next waits for a payload that may be sent; ok is false when there will be none.
func (e *endpoint) next() (w *waiting, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		if e.closed || e.hurried || e.finished && e.empty() {
			e.wake.Broadcast()
			return nil, false
		}
		now := time.Now()
		w, read, at := e.choose(now)
		switch {
		case w != nil:
			e.remove(w)
			if e.tooOld(w, now) {
				e.giveUp(w, w.age(), nil)
				continue
			}
			e.busy++
			e.bytes += w.cost() // until the answer
			w.begun = now
			w.era, w.turn = e.whole.begin(), e.lane(w).circuit.begin()
			return w, true
		case read:
			e.readSpool(now)
		default:
			e.wait(at, now)
		}
	}
}

// wait waits for a change, or until then if that is still to come; mu must be held.
func (e *endpoint) wait(until, now time.Time) {
	if until.After(now) {
		timer := time.AfterFunc(until.Sub(now), func() { e.change(func() {}) })
		defer timer.Stop()
	}
	e.wake.Wait()
}

// choose picks the payload to send, or says that the spool has it, or when to ask
// again; zero: after a change. mu must be held.
func (e *endpoint) choose(now time.Time) (w *waiting, read bool, at time.Time) {
	earlier := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if ok, then := e.whole.allows(now); !ok {
		return nil, false, then
	}
	probe := e.whole.open
	var newest, oldest *waiting
	for i := range e.lanes {
		l := &e.lanes[i]
		if ok, then := l.circuit.allows(now); !ok {
			earlier(then) // also for what the spool has
			continue
		}
		if len(l.queue) == 0 {
			continue
		}
		ready := func(w *waiting) bool {
			if w.notBefore.After(now) {
				earlier(w.notBefore)
				return false
			}
			return true
		}
		first := l.queue[0]
		if !routes[i].inOrder {
			first = freshest(l.queue, probe || l.circuit.open, ready)
		} else if !ready(first) {
			continue
		}
		if first != nil && l.circuit.open && !probe {
			return first, false, at // the probe of a route, which is rare
		}
		if first != nil && (newest == nil || newest.yields(first, probe)) {
			newest = first
		}
		if l.circuit.open {
			continue // what is oldest is for others to find out
		}
		for _, w := range l.queue {
			if ready(w) {
				if oldest == nil || w.compare(oldest) < 0 {
					oldest = w
				}
				break
			}
		}
	}
	if oldest == nil {
		oldest = newest
	}
	// The spool's is for a turn of the backlog, or for want of anything else.
	if e.spool != nil && !e.finished && e.read < e.maxRead() && (newest == nil || !probe && !e.fresh) {
		first, found, then := e.spool.oldest(now, e.leftAlone(now))
		earlier(then)
		if found && (oldest == nil || first.Before(oldest.start)) {
			if !e.readAt.After(now) {
				return nil, true, at
			}
			earlier(e.readAt)
		}
	}
	if newest == nil {
		return nil, false, at
	}
	w = oldest
	if probe || e.fresh {
		w = newest
	}
	e.fresh = !e.fresh
	return w, false, at
}

// freshest returns the newest payload that is ready. For a probe, one that failed
// before comes after those that did not, so that one payload that always fails does
// not keep the others waiting.
func freshest(queue []*waiting, probe bool, ready func(*waiting) bool) (best *waiting) {
	const looked = 64
	for i, w := range slices.Backward(queue) {
		if !ready(w) || best != nil && w.attempts >= best.attempts {
			continue
		}
		best = w
		if !probe || w.attempts == 0 || len(queue)-i > looked {
			break
		}
	}
	return best
}

// status fills in what the books do not know.
func (e *endpoint) status(s *DestinationStats) {
	e.mu.Lock()
	s.Healthy = !e.whole.open && !slices.ContainsFunc(e.lanes[:], func(l lane) bool { return l.circuit.open })
	spool := e.spool
	e.mu.Unlock()
	if spool != nil {
		spool.status(s)
	}
}
