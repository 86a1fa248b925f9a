package priority

import (
	"sync/atomic"
	"time"
)

// Work is work that can wait, of one goroutine. In short turns it offers the processor to
// whoever wants it: a reader that is interrupted for this work would otherwise be kept
// waiting until the kernel's next tick, 4 ms where it ticks 250 times a second, and a
// higher priority does not change that.
type Work struct {
	steps uint32
	began time.Time     // the turn
	turn  time.Duration // how long it may be
}

const (
	// turn is how long work goes on until it offers the processor.
	turn = 200 * time.Microsecond
	// share is what work takes of a processor on which others are always busy: 1 in so
	// many parts, as it has by its niceness; and smallShare while readers are behind.
	share      = 4
	smallShare = 10
	// stepsAtOnce is how many steps are taken without a look at the clock.
	stepsAtOnce = 32
)

var underWay, behind atomic.Int32

// Reader tells work how one reader gets on.
type Reader struct{ isBehind bool }

// Behind says whether the reader has so much to do that it may soon lose some.
func (r *Reader) Behind(is bool) {
	if is == r.isBehind {
		return
	}
	if r.isBehind = is; is {
		behind.Add(1)
	} else {
		behind.Add(-1)
	}
}

// Busy reports whether there is work under way: then readers better not stay away for
// long, since they may have to wait when they come back.
func Busy() bool { return underWay.Load() > 0 }

// Begin tells readers that a part of the work is under way, until End.
func (w *Work) Begin() { underWay.Add(1) }

// End tells them that it has ended.
func (w *Work) End() { underWay.Add(-1) }

// Step is Yield after a step of less than a microsecond or a few. For a nil Work it does
// nothing, and so does Yield.
func (w *Work) Step() {
	if w == nil {
		return
	}
	if w.steps++; w.steps%stepsAtOnce == 0 {
		w.Yield()
	}
}

// Yield offers the processor if this turn was long enough. To look at the clock takes 50
// ns.
func (w *Work) Yield() {
	if w == nil {
		return
	}
	now := time.Now()
	if now.Sub(w.began) < w.turn {
		return
	}
	yield()
	w.began = time.Now()
	w.turn = nextTurn(w.began.Sub(now), behind.Load() > 0)
}

// nextTurn returns how long the turn may be that follows a wait.
func nextTurn(waited time.Duration, behind bool) time.Duration {
	parts := time.Duration(share)
	if behind {
		parts = smallShare
	}
	return max(turn, waited/(parts-1))
}
