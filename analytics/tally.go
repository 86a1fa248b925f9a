package analytics

import (
	"sync/atomic"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/raw"
)

// effect is what all occurrences of some identities do, apart from who did it and what
// is summed up: the outcomes that are counted and the totals that grow.
type effect struct {
	serial   int // of its generation
	event    *book
	outcomes uint32  // a bit for each
	totals   []*rule // without sums
}

// tally counts one worker's occurrences of an effect within a period. The worker adds,
// and the engine takes away now and then what was added.
type tally struct {
	effect *effect
	period *period

	lines atomic.Int64 // negative: closed, nothing may be added any more
	extra atomic.Int64 // occurrences beyond one a line

	over bool // it was drained after its period; guarded by the intake's lock
}

// closed is what lines becomes when a tally is closed: no worker adds as many.
const closed = -1 << 62

// add counts a line of n occurrences; ok is false if the tally is closed.
//
// Hot path: once per event.
func (t *tally) add(n int64) (ok bool) {
	if t.lines.Add(1) < 0 {
		return false
	}
	if n > 1 {
		t.extra.Add(n - 1)
	}
	return true
}

// drain hands on what was added since the last time, as of a moment in the current
// period. After a drain with closing nothing can be added.
func (t *tally) drain(current *period, now int64, closing bool) {
	left := int64(0)
	if closing {
		left = closed
	}
	lines := t.lines.Swap(left)
	extra := t.extra.Swap(0) // of lines that are counted already, or in the next drain
	today := current
	if !t.over { // what was added came in time
		today, t.over = t.period, t.period != current && t.period.until <= now
	}
	if lines <= 0 && extra == 0 {
		return
	}
	lines = max(lines, 0)
	t.effect.event.count(t.effect.outcomes, uint64(lines))
	if lines > 0 {
		t.effect.event.lastSeen.Store(now)
	}
	for _, r := range t.effect.totals {
		r.add(t.period.days[r.zone], today.days[r.zone], float64(lines+extra))
	}
}

// event is an event of a plan.
type event struct {
	*book
	def     *plan.Event // nil for those that are not planned
	number  int
	counter []byte // name of the metric
	rules   []*selection
	raw     rawEvents
}

// book is what happened to the lines of events of one name, in all plans.
type book struct {
	name     string
	outcomes [plan.Outcomes]atomic.Uint64 // lines
	lastSeen atomic.Int64                 // Unix seconds, as of the last drain
}

// rawEvents says which lines of an event become raw events.
type rawEvents struct {
	on    bool
	share float64 // of the identities whose lines do
	by    int     // attribute that says who it was; -1 without
	sip   sipKey  // chooses among them, for all events alike
}

// choose says what becomes of a line with these values: whether it may be written, and
// if so, by which chance.
func (r *rawEvents) choose(values []plan.Value) (sampling raw.Sampling, chosen bool) {
	sampling.Share = r.share
	switch {
	case !r.on:
		return sampling, false
	case r.share >= 1:
	case r.by < 0 || values[r.by].Null():
		sampling.Chance = true
	default:
		return sampling, float64(r.sip.element(values[r.by].Text)>>11)/(1<<53) < r.share
	}
	return sampling, true
}

// count adds lines to each of some outcomes, given as bits; none is OK.
func (e *book) count(outcomes uint32, lines uint64) {
	if outcomes == 0 {
		outcomes = 1 << plan.OK
	}
	for o := range plan.Outcomes {
		if outcomes&(1<<o) != 0 {
			e.outcomes[o].Add(lines)
		}
	}
}
