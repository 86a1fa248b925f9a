package forwarder

import (
	"errors"
	"slices"
	"time"
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
	e.mu.Unlock()
	r, ok := e.spool.take(now)
	e.mu.Lock()
	e.read--
	if !ok {
		e.readAt = now.Add(spoolPause)
		return
	}
	w := &waiting{record: r, since: now}
	i := slices.IndexFunc(routes[:], func(known *route) bool { return known.path == r.route })
	if i < 0 {
		e.dropRecord(r, DroppedRejected, errors.New("nothing goes to "+r.route))
		return
	}
	w.payload = payload{route: routes[i], encoding: r.encoding, body: r.body, points: r.points, start: r.start}
	e.serial++
	w.serial = e.serial
	e.insert(w)
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
		old := e.oldest(func(w *waiting) bool { return w.tooOld(now) })
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
		w := e.surplus(now)
		if w == nil {
			if e.finished && (e.hurried && e.busy == 0 || e.empty()) {
				break
			}
			e.wait(e.writeAt, now)
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
			e.noSpool = DroppedQueueFull
			continue
		}
		e.insert(w)
		if w.stays {
			continue
		}
		e.log.Error("the spool takes no more payloads; they wait in memory", "error", err)
		e.noSpool = DroppedSpoolError
		if isSpoolFull(err) {
			e.noSpool = DroppedSpoolFull
		}
		e.writeAt = now.Add(spoolPause)
		e.stuck = e.finished
	}
	e.wake.Broadcast()
}

// surplus returns the payload that is to go to the spool, nil if there is none; mu
// must be held.
func (e *endpoint) surplus(now time.Time) *waiting {
	if e.finished {
		return e.oldest(func(w *waiting) bool {
			return !w.stays && (e.hurried || e.whole.open || e.lane(w).circuit.open || w.attempts > 0 || w.record != nil)
		})
	}
	if e.bytes <= e.spoolAbove() || now.Before(e.writeAt) {
		return nil
	}
	return e.oldest(func(w *waiting) bool { return !w.stays && w.record == nil })
}

// putAway leaves a payload to the spool.
func (e *endpoint) putAway(w *waiting) error {
	if w.record != nil {
		e.spool.release(w.record)
		return nil
	}
	r := e.recordOf(w)
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
