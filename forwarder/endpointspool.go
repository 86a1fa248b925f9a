package forwarder

import (
	"errors"
	"slices"
	"time"

	"github.com/weir-agent/weir/metric"
)

// endpointsOf returns the endpoints of a destination.
func endpointsOf(d destination) []*endpoint {
	switch d := d.(type) {
	case *datadog:
		return d.endpoints
	case *relay:
		return []*endpoint{d.endpoint}
	}
	return nil
}

// openSpools opens the spools of a destination's endpoints, and returns what went wrong:
// those endpoints have none.
func openSpools(d destination, s *spools) error {
	var faults []error
	for _, e := range endpointsOf(d) {
		if e.folder == "" {
			continue
		}
		opened, err := s.openFolder(e.folder, e.account)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		e.change(func() { e.spool = opened })
	}
	return errors.Join(faults...)
}

// closeSpool gives the spool free, if there is one.
func (e *endpoint) closeSpool() {
	if e.spool == nil {
		return
	}
	if err := e.spool.close(); err != nil {
		e.log.Error("closing the spool failed", "error", err)
	}
}

// readSpool brings the oldest payload of the spool into memory; mu must be held, and
// is given up meanwhile.
func (e *endpoint) readSpool(now time.Time) {
	e.read++ // a place for it
	leftAlone := e.leftAlone(now)
	var r *record
	i := -1
	e.unlocked(func() {
		var ok bool
		if r, ok = e.spool.take(now, leftAlone); !ok {
			return
		}
		i = slices.IndexFunc(routes[:], func(known *route) bool { return known.path == r.route })
		if i < 0 {
			e.dropRecord(r, DroppedRejected, errors.New("nothing goes to "+r.route))
		}
	})
	e.read--
	if r == nil {
		e.readAt = now.Add(spoolPause)
	}
	if i < 0 {
		return
	}
	w := &waiting{record: r, since: now, attempts: r.attempts}
	w.payload = payload{route: routes[i], encoding: r.encoding, body: r.body, points: r.points, start: r.start}
	e.serial++
	w.serial = e.serial
	e.insert(w)
}

// leftAlone returns the routes of which the spool is to give nothing: nothing may be
// sent by them now, or there is a payload for the probe already. mu must be held.
func (e *endpoint) leftAlone(now time.Time) (paths []string) {
	for i := range e.lanes {
		l := &e.lanes[i]
		if ok, _ := l.circuit.allows(now); !ok || l.circuit.open && len(l.queue) > 0 {
			paths = append(paths, routes[i].path)
		}
	}
	return paths
}

// putBack gives what was read from the spool back to it after a failure, so that it
// takes neither memory nor the place of payloads that could be sent. everywhere says
// whether the failure is one of all routes. mu must be held.
func (e *endpoint) putBack(everywhere bool, failed *route) {
	for i := range e.lanes {
		if !everywhere && routes[i] != failed {
			continue
		}
		for _, w := range slices.Clone(e.lanes[i].queue) {
			if w.record != nil {
				e.remove(w)
				e.release(w)
			}
		}
	}
}

// release gives a payload back to the spool, which remembers when it may be tried
// again.
func (e *endpoint) release(w *waiting) {
	w.record.attempts, w.record.notBefore = w.attempts, w.notBefore
	e.spool.release(w.record)
}

func (e *endpoint) dropRecord(r *record, why DropReason, err error) {
	if err := e.spool.drop(r); err != nil {
		e.log.Error("a dropped payload may stay in the spool", "error", err)
	}
	e.account.droppedSpooled(r.points, why)
	e.log.Error("dropped points", "points", r.points, "reason", why.String(), "interval", r.start, "error", err)
}

// expire drops what became too old while nothing was sent.
func (e *endpoint) expire(now time.Time) {
	if e.spool != nil {
		e.spool.expire(now)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var points [dropReasons]uint64
	for {
		old := e.oldest(func(w *waiting) bool { return e.tooOld(w, now) })
		if old == nil {
			break
		}
		e.remove(old)
		if old.record != nil {
			e.giveUp(old, old.age(), nil)
			continue
		}
		e.account.dropped(old.points, old.age())
		points[old.age()] += old.points
	}
	for why, n := range points {
		if n > 0 {
			e.log.Error("dropped points", "points", n, "reason", DropReason(why).String())
		}
	}
	e.wake.Broadcast()
}

// spoolOverflow takes what memory has no room for to the spool and, at the end, what
// cannot be delivered.
func (e *endpoint) spoolOverflow() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for !e.closed && !e.stuck {
		now := time.Now()
		w, at := e.surplus(now)
		if w == nil {
			if e.finished && (e.hurried && e.busy == 0 || e.empty()) {
				break
			}
			e.wait(at, now)
			continue
		}
		e.remove(w)
		e.bytes += w.cost() // until it is out of memory
		e.busy++
		e.mu.Unlock()
		err := e.putAway(w)
		e.mu.Lock()
		e.busy--
		e.bytes -= w.cost()
		e.wake.Broadcast()
		if err == nil {
			if e.failing {
				e.log.Info("the spool takes payloads again")
			}
			e.failing, e.noSpool = false, DroppedQueueFull
			continue
		}
		e.insert(w)
		if w.stays {
			continue
		}
		if !e.failing {
			e.log.Error("the spool takes no more payloads; they wait in memory, and the oldest are dropped when that is full",
				"limit", metric.Bytes(e.maxBytes), "error", err)
		}
		e.failing = true
		e.noSpool = DroppedSpoolError
		if isSpoolFull(err) {
			e.noSpool = DroppedSpoolFull
		}
		e.writeAt = now.Add(spoolPause)
		e.stuck = e.finished
	}
	e.wake.Broadcast()
}

// surplus returns the payload that is to go to the spool or, if there is none, when to
// ask again; zero: after a change. mu must be held.
func (e *endpoint) surplus(now time.Time) (w *waiting, at time.Time) {
	unlucky := func(w *waiting) bool { return e.whole.open || e.lane(w).circuit.open || w.attempts > 0 }
	if e.finished {
		return e.oldest(func(w *waiting) bool {
			return !w.stays && (e.hurried || unlucky(w) || w.record != nil)
		}), at
	}
	if now.Before(e.writeAt) {
		return nil, e.writeAt
	}
	full := e.bytes > e.spoolAbove()
	return e.oldest(func(w *waiting) bool {
		if w.stays || w.record != nil || !full && !unlucky(w) {
			return false
		}
		late := w.since.Add(e.after)
		if full || !late.After(now) {
			return true
		}
		if at.IsZero() || late.Before(at) {
			at = late
		}
		return false
	}), at
}

// putAway leaves a payload to the spool.
func (e *endpoint) putAway(w *waiting) error {
	if w.record != nil {
		e.release(w)
		return nil
	}
	r := e.recordOf(w)
	r.attempts, r.notBefore = w.attempts, w.notBefore
	err := r.check()
	if err == nil {
		e.account.spooled(w.points) // first, as the spool may lose it at once
		if err = e.spool.put(r); err == nil {
			return nil
		}
		e.account.unspooled(w.points)
		w.stays = errors.Is(err, errSpoolTooLarge)
	} else {
		w.stays = true
	}
	return err
}

func (e *endpoint) recordOf(w *waiting) *record {
	return &record{target: e.target, route: w.route.path, encoding: w.encoding, start: w.start, points: w.points, body: w.body}
}

// isSpoolFull reports whether the spool refused for want of room.
func isSpoolFull(err error) bool {
	return errors.Is(err, errSpoolFull) || errors.Is(err, errSpoolNoSpace) || errors.Is(err, errSpoolTooLarge)
}

// lost counts what left the spool otherwise than by delivery.
func (b *books) lost(l spoolLoss) {
	why := [spoolLossReasons]DropReason{lostEvicted: DroppedSpoolFull, lostTooOld: DroppedTooOld, lostTorn: DroppedSpoolError}[l.why]
	b.droppedSpooled(l.points, why)
}
