package forwarder

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// deliver sends a payload and does with it what the answer asks for.
func (e *endpoint) deliver(ctx context.Context, w *waiting) {
	err := e.post(ctx, &w.payload)
	now := time.Now()
	var part *partError
	if errors.As(err, &part) {
		e.took(w, part)
	}
	var refused *refusedError
	status := 0
	if errors.As(err, &refused) {
		status = refused.status
	}
	if err == nil {
		e.delivered(w)
	}
	var halves []*waiting
	if status == http.StatusRequestEntityTooLarge {
		halves = e.split(w, err)
	}

	e.mu.Lock()
	defer e.mu.Unlock()
	e.busy--
	e.bytes -= w.cost()
	e.wake.Broadcast()
	whole, route := &e.whole, &e.lane(w).circuit
	switch {
	case err == nil:
		if recovered := whole.succeed(w.era); route.succeed(w.turn) || recovered {
			e.warnedAt = time.Time{}
			e.log.Info("delivery works again", "route", w.route.path)
		}
		return
	case refused == nil && ctx.Err() != nil: // the agent ends, and this says nothing
		whole.cancel(w.era)
		route.cancel(w.turn)
		e.back(w)
		return
	case status == http.StatusBadRequest:
		whole.succeed(w.era)
		route.succeed(w.turn)
		if !w.gone {
			e.giveUp(w, DroppedRejected, err)
		}
		return
	case status == http.StatusRequestEntityTooLarge:
		whole.succeed(w.era)
		route.succeed(w.turn)
		for _, half := range halves {
			e.serial++
			half.serial = e.serial
			e.insert(half)
		}
		return
	}
	why := route
	switch {
	case status == http.StatusForbidden:
		why = whole
		route.cancel(w.turn)
		whole.block(w.era, now)
	case refused == nil, status == http.StatusTooManyRequests:
		why = whole
		route.cancel(w.turn)
		after := time.Duration(0)
		if refused != nil {
			after = refused.retryAfter
		}
		if part != nil { // slow is not dead
			whole.advance(w.era)
			w.attempts = 0
		}
		whole.fail(w.era, w.begun, now, after)
	default: // the other side is there
		whole.succeed(w.era)
		route.fail(w.turn, w.begun, now, refused.retryAfter)
	}
	w.attempts++
	if w.notBefore = why.until; w.attempts > why.failures {
		bounds := payloadPauses
		if whole.quick {
			bounds = relayPauses
		}
		w.notBefore = now.Add(bounds.after(w.attempts)) // the others do better
	}
	if e.tooOld(w, now) && !w.gone {
		e.giveUp(w, w.age(), err)
		return
	}
	if status == http.StatusForbidden {
		e.log.Error("the intake refuses the API key: nothing is delivered until it takes it; check api_key, site and url",
			"points", w.points, "again_in", blockedPause.String(), "error", err)
	} else {
		level := slog.LevelWarn
		if whole.quick && now.Sub(e.warnedAt) < maxBackoff {
			level = slog.LevelDebug // every few seconds is too often
		} else {
			e.warnedAt = now
		}
		e.log.Log(ctx, level, "sending failed; trying again", "points", w.points, "route", w.route.path, "in", why.until.Sub(now).Round(time.Millisecond).String(), "error", err)
	}
	e.account.retried()
	e.back(w)
	e.putBack(why == whole, w.route)
	e.bound()
}

// back puts a payload that was not delivered back into memory; mu must be held.
func (e *endpoint) back(w *waiting) {
	if !w.gone {
		e.insert(w)
	}
}

// took counts what the other side has taken of a payload that is being sent. Only the
// rest is left of it, also in the spool.
func (e *endpoint) took(w *waiting, part *partError) {
	cost := w.cost()
	w.body, w.points = part.rest, w.points-part.points
	e.change(func() { e.bytes += w.cost() - cost })
	if w.record == nil {
		e.account.delivered(part.points, part.bytes)
		return
	}
	e.account.deliveredSpooled(part.points, part.bytes)
	whole := w.record
	if err := e.spool.put(e.recordOf(w)); err == nil {
		w.gone = true
	} else {
		e.account.unspooled(w.points)
	}
	w.record = nil
	if err := e.spool.drop(whole); err != nil {
		e.log.Error("a payload that was sent in part may stay in the spool, and be sent again by the next agent", "error", err)
	}
}

// split does with a payload what is to be done when it is too large: it returns its
// halves, unless they are in the spool already or there are none.
func (e *endpoint) split(w *waiting, refusal error) (halves []*waiting) {
	parts, alone, err := split(&w.payload)
	switch {
	case err != nil:
		e.drop(w, DroppedTooLarge, errors.Join(refusal, err))
		return nil
	case alone != "" || w.points == 1:
		e.log.Error("dropped a point: it alone is larger than the intake takes", "name", alone)
		e.drop(w, DroppedTooLarge, refusal)
		return nil
	}
	e.log.Info("the intake found a payload too large; sending it in halves", "points", w.points, "bytes", len(w.body), "route", w.route.path)
	for _, p := range parts {
		half := &waiting{payload: p, since: w.since}
		if w.record != nil {
			// Its half is to be as safe as it was. The books have its points already.
			if err := e.spool.put(e.recordOf(half)); err == nil {
				continue
			}
			e.account.unspooled(half.points)
		}
		halves = append(halves, half)
	}
	if w.record != nil {
		if err := e.spool.drop(w.record); err != nil {
			e.log.Error("a payload that was sent in halves may stay in the spool, and be sent again by the next agent", "error", err)
		}
	}
	return halves
}

// delivered counts a payload that the other side has.
func (e *endpoint) delivered(w *waiting) {
	if w.record == nil {
		e.account.delivered(w.points, len(w.body))
		return
	}
	if err := e.spool.done(w.record); err != nil {
		e.log.Error("a delivered payload may stay in the spool, and be sent again by the next agent", "error", err)
	}
	e.account.deliveredSpooled(w.points, len(w.body))
}

// giveUp drops a payload that is not in memory any more; mu must be held, and is given
// up meanwhile if the payload is in the spool.
func (e *endpoint) giveUp(w *waiting, why DropReason, err error) {
	if w.record == nil {
		e.drop(w, why, err)
		return
	}
	e.unlocked(func() { e.drop(w, why, err) })
}

// drop drops a payload. It waits for the disk if the payload is in the spool.
func (e *endpoint) drop(w *waiting, why DropReason, err error) {
	if w.record != nil {
		e.dropRecord(w.record, why, err)
		return
	}
	e.account.dropped(w.points, why)
	e.log.Error("dropped points", "points", w.points, "reason", why.String(), "interval", w.start, "error", err)
}
