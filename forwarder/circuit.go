package forwarder

import (
	"math/rand/v2"
	"time"
)

const (
	firstBackoff  = time.Second
	maxBackoff    = 64 * time.Second
	maxRetryAfter = 5 * time.Minute // what the intake may ask for
	blockedPause  = time.Minute     // between attempts with a key that was refused
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
	quick    bool // tried again sooner: see backoff
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

// fail says that a request failed. retryAfter is how long the other side wants to be
// left alone, 0 if it does not say.
func (c *circuit) fail(era uint64, now time.Time, retryAfter time.Duration) {
	if era != c.era {
		if until := now.Add(retryAfter); c.open && until.After(c.until) {
			c.until = until
		}
		return
	}
	c.failures++
	pause := backoff(c.failures, c.quick)
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

// backoff returns the pause after so many failures; quick is for what costs the other
// side little. Half of it is chance, so that not all agents come back at once.
func backoff(failures int, quick bool) time.Duration {
	first, most := firstBackoff, maxBackoff
	if quick {
		first, most = firstRelayBackoff, maxRelayBackoff
	}
	whole := most
	if failures < 7 { // 2^6 of the first are beyond the most
		whole = min(first<<(failures-1), most)
	}
	return whole/2 + rand.N(whole/2)
}
