package analytics

import (
	"slices"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/raw"
)

// Occurrence is what the lines of one identity do: who they count, which totals they
// add to. All that does not depend on a line's value was decided when the identity was
// resolved.
type Occurrence struct {
	in      *Intake
	uniques []unique
	sums    []sum
	raw     *raw.Line // nil: it has no row
	*line             // nil once it is kept

	// Where it counts during a period.
	from, until int64 // Unix seconds
	tally       *tally
}

// line is what is known of an identity when it is resolved, and not kept.
type line struct {
	event    *event
	verdict  plan.Verdict
	outcomes uint32 // a bit for each
	metered  bool   // it is a counter of the ordinary pipeline, too
	once     bool   // it is not to be remembered
	late     bool   // it counts for no day
	weight   float64
	at       int64   // Unix seconds; 0: when it comes
	id       uint64  // stands for its _id; 0 without
	name     []byte  // as sent, without the prefix; borrowed
	missed   []*rule // of the rules that count who, those that cannot know
	totals   []*rule
	by       []int // of each of uniques, the index of the attribute
}

// unique is somebody who counts for a rule.
type unique struct {
	rule    *rule
	element element
}

// sum is what each occurrence adds for a rule.
type sum struct {
	rule *rule
	by   float64
}

// Add takes one sample, which came at now, in Unix seconds: value and more are how many
// identical occurrences it stands for. It reports whether they count.
//
// Hot path: once per event of an identity that is known. No allocation, lock or clock
// but in a new period; TestAddDoesNotAllocate checks the first.
func (o *Occurrence) Add(value float64, more []float64, now int64) bool {
	n, ok := wholeNumber(value)
	for _, v := range more {
		m, whole := wholeNumber(v)
		n, ok = n+m, ok && whole
	}
	if o.line == nil && !ok {
		return o.refuse(now)
	}
	if o.line != nil && (o.once || !ok) {
		return o.addOnce(n, ok, now)
	}
	for now < o.from || now >= o.until || !o.tally.add(n) {
		if !o.enter(o.in.period(now), now) {
			return o.addOnce(n, ok, now)
		}
	}
	for i := range o.sums {
		s := &o.sums[i]
		s.rule.add(o.tally.period.days[s.rule.zone], o.tally.period.days[s.rule.zone], s.by*float64(n))
	}
	if o.raw != nil {
		o.in.rows.Put(o.raw, n, now)
	}
	return true
}

// refuse counts a line of a known identity that is no whole number of occurrences.
func (o *Occurrence) refuse(now int64) bool {
	f := o.tally.effect
	f.event.count(f.outcomes|1<<plan.BadCount, 1)
	f.event.lastSeen.Store(now)
	if letters := o.in.engine.letters; letters.admit(now) {
		letters.write(&letter{Event: f.event.name}, f.outcomes|1<<plan.BadCount, now)
	}
	return false
}

// enter begins a period: everybody is counted in its days, and occurrences go to its
// tally from now on. It reports whether there is one.
func (o *Occurrence) enter(p *period, now int64) bool {
	var f *effect
	if o.tally != nil {
		f = o.tally.effect
	} else if f = o.in.effectOf(o); f == nil {
		return false
	}
	o.tally = o.in.tally(f, p)
	o.from, o.until = p.from, p.until
	o.countWho(p, now)
	return true
}

func (o *Occurrence) countWho(p *period, now int64) {
	today := o.in.period(now)
	for i := range o.uniques {
		u := &o.uniques[i]
		if d, newest := p.days[u.rule.zone], today.days[u.rule.zone]; d >= newest-lateDays {
			u.rule.insert(d, newest, u.element)
		}
	}
}

// addOnce is Add for lines that are counted by themselves: those that say when they
// were or which one they are, that were sampled, or do not count at all.
func (o *Occurrence) addOnce(n int64, whole bool, now int64) bool {
	e := o.in.engine
	outcomes := o.outcomes
	refused := o.verdict == plan.Refuse || o.verdict == plan.Deny
	switch {
	case o.verdict == plan.Deny:
	case whole && n == 1 && o.id != 0 && e.ids.seen(o.id):
		o.event.count(1<<plan.Duplicate, 1)
		return false
	case !whole:
		outcomes |= 1 << plan.BadCount
		refused = true
	}
	o.event.count(outcomes, 1)
	o.event.lastSeen.Store(now)
	if (o.verdict == plan.Unplanned || refused && o.verdict != plan.Deny) && e.letters.admit(now) {
		e.letters.write(e.letters.letter(o), outcomes, now)
	}
	if refused {
		return false
	}
	if o.raw != nil {
		o.in.rows.Put(o.raw, n, now)
	}
	if o.late || o.verdict == plan.Unplanned {
		return true
	}
	at := now
	if o.at != 0 {
		at = o.at
	}
	p, today := o.in.period(at), o.in.period(now)
	o.countWho(p, now)
	for _, r := range o.missed {
		r.miss(p.days[r.zone], today.days[r.zone])
	}
	events := finite(float64(n) * o.weight)
	grow := func(r *rule, by float64) {
		if d, newest := p.days[r.zone], today.days[r.zone]; d >= newest-lateDays {
			r.add(d, newest, by)
		}
	}
	for _, r := range o.totals {
		grow(r, events)
	}
	for i := range o.sums {
		grow(o.sums[i].rule, o.sums[i].by*events)
	}
	return true
}

// Metered reports whether the occurrences count in the counter that Resolve made of
// the identity.
func (o *Occurrence) Metered() bool { return o.metered }

// Keep returns an Occurrence for further lines of the same identity, nil if each is to
// be resolved by itself.
func (o *Occurrence) Keep() *Occurrence {
	if o.once || o.tally == nil || o.raw != nil && !o.raw.Keep() {
		return nil
	}
	kept := new(struct {
		Occurrence
		few [2]unique // mostly there are no more, and all is one allocation
	})
	kept.Occurrence = *o
	kept.line = nil
	kept.uniques, kept.sums = append(kept.few[:0], o.uniques...), slices.Clone(o.sums)
	return &kept.Occurrence
}
