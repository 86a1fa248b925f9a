package forwarder

import (
	"math/rand/v2"
	"time"
)

const (
	firstBackoff = time.Second
	// maxPause is the longest pause of a circuit: shorter than the default flush
	// interval, so that fresh points arrive within one flush of the intake's return.
	maxPause      = 8 * time.Second
	maxBackoff    = 64 * time.Second // of a payload that fails while others do not
	maxRetryAfter = 5 * time.Minute  // what the intake may ask for
	blockedPause  = time.Minute      // between attempts with a key that was refused

	// A relay's server is near, and trying costs it little.
	firstRelayBackoff = 100 * time.Millisecond
	maxRelayBackoff   = 2 * time.Second
)

// pauses are bounds of pauses that double with each failure in a row.
type pauses struct{ first, most time.Duration }

var (
	circuitPauses = pauses{firstBackoff, maxPause}
	payloadPauses = pauses{firstBackoff, maxBackoff}
	relayPauses   = pauses{firstRelayBackoff, maxRelayBackoff}
)

// circuit says whether requests may be made.
//
//	            failure                 until
//	healthy ───────────────▶ backing off ────▶ half-open: one probe
//	   │  ▲                  or blocked ◀──────── failure │
//	   │  └─────────────────────────────────────── success┘
//
// A request belongs to the era in which it began. What a request of an earlier era
// comes to says nothing new.
type circuit struct {
	open     bool
	blocked  bool // open because the key was refused
	until    time.Time
	failures int // in a row
	probing  bool
	era      uint64
	quick    bool // tried again sooner: relayPauses
}

// allows reports whether a request may begin now. If not, at says when to ask again;
// zero: when the probe has come back.
func (c *circuit) allows(now time.Time) (ok bool, at time.Time) {
	switch {
	case !c.open:
		return true, time.Time{}
	case c.probing:
		return false, time.Time{}
	}
	return !now.Before(c.until), c.until
}

// begin says that a request begins, and returns its era.
func (c *circuit) begin() (era uint64) {
	c.probing = c.open
	return c.era
}

// cancel says that a request came to nothing that would tell of this circuit.
func (c *circuit) cancel(era uint64) {
	if era == c.era {
		c.probing = false
	}
}

// succeed says that a request did well, and reports whether that closed the circuit.
func (c *circuit) succeed(era uint64) (recovered bool) {
	if era != c.era {
		return false
	}
	recovered = c.open
	*c = circuit{era: c.era, quick: c.quick}
	if recovered {
		c.era++
	}
	return recovered
}

// advance says that a request got somewhere before it failed: the failure, which is
// still to be told, is not one more in a row.
func (c *circuit) advance(era uint64) {
	if era == c.era {
		c.failures = 0
	}
}

// fail says that a request that began then has failed now. A request that hung was a
// part of the pause. retryAfter is how long the other side wants to be left alone, 0 if
// it does not say.
func (c *circuit) fail(era uint64, begun, now time.Time, retryAfter time.Duration) {
	if era != c.era {
		if until := now.Add(retryAfter); c.open && until.After(c.until) {
			c.until = until
		}
		return
	}
	c.failures++
	bounds := circuitPauses
	if c.quick {
		bounds = relayPauses
	}
	pause := max(bounds.after(c.failures)-now.Sub(begun), bounds.after(1))
	if retryAfter > 0 {
		retryAfter = max(retryAfter, firstBackoff)
		pause = retryAfter + rand.N(retryAfter/8)
	}
	c.trip(now.Add(pause), false)
}

// block says that the key was refused.
func (c *circuit) block(era uint64, now time.Time) {
	if era == c.era {
		c.failures++
		c.trip(now.Add(blockedPause), true)
	}
}

func (c *circuit) trip(until time.Time, blocked bool) {
	c.open, c.blocked, c.probing = true, blocked, false
	c.until = until
	c.era++
}

// after returns the pause after so many failures. Half of it is chance, so that not all
// agents come back at once.
func (p pauses) after(failures int) time.Duration {
	whole := p.most
	if failures < 16 { // far from where shifting overflows
		whole = min(p.first<<(failures-1), p.most)
	}
	return whole/2 + rand.N(whole/2)
}
