package aggregator

import "time"

// clock says which interval is open. Intervals are aligned to the wall clock and do
// not repeat, since the intake keeps only the last of two points with the same
// time: if the clock is set back a little, the open interval lasts longer. Only if
// it is set back far do they follow it.
type clock struct {
	interval time.Duration
	start    time.Time // of the open interval, in UTC without a monotonic reading
}

func newClock(interval time.Duration, now time.Time) clock {
	return clock{interval, aligned(now, interval)}
}

// aligned returns the start of the interval that t lies in, counted from the
// Unix epoch.
func aligned(t time.Time, interval time.Duration) time.Time {
	seconds := int64(interval / time.Second)
	unix := t.Unix()
	return time.Unix(unix-unix%seconds, 0).UTC()
}

// end returns when the open interval ends: where one begins that is aligned. Only the
// first after a change of their length may be shorter than the others.
func (c *clock) end() time.Time { return aligned(c.start, c.interval).Add(c.interval) }

// length returns how long the open interval is meant to be.
func (c *clock) length() time.Duration { return c.end().Sub(c.start) }

// maxSetBack is how far the wall clock may be set back and intervals still wait
// for it to catch up. Beyond it, they follow the clock.
const maxSetBack = 2

// farBehind reports whether now is so long before the open interval that waiting
// for its end makes no sense.
func (c *clock) farBehind(now time.Time) bool {
	return now.Before(c.start.Add(-maxSetBack * c.interval))
}

// next opens the interval after the one that was just flushed, and reports
// whether intervals were left out.
func (c *clock) next(now time.Time) (jumped bool) {
	following := c.end()
	actual := aligned(now, c.interval)
	switch {
	case actual.After(following), c.farBehind(now):
		c.start = actual
		return true
	default:
		c.start = following
		return false
	}
}
