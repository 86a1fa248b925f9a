package analytics

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"sync"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/raw"
	"github.com/weir-agent/weir/metric"
)

// Intake takes the events of one reader. Its methods are called by that reader only.
type Intake struct {
	engine *Engine
	gen    *generation // by which it resolves
	result plan.Result
	under  Occurrence // way
	line   line       // of it
	tags   [][]byte   // of the line under way that are not for the plan, then those of its counter
	sent   [][]byte   // the line's tags as they came
	text   []byte     // backs tags
	rows   *raw.Queue // nil: there are no raw events

	periods [4]*period // used of late, besides the current one
	next    int        // of them to be replaced

	mu      sync.Mutex // guards the fields below; taken when an identity is new, or a period
	effects map[string]*effect
	tallies map[tallyKey]*tally
	key     []byte // scratch
}

type tallyKey struct {
	effect *effect
	from   int64
}

// maxEffects bounds how many combinations of outcomes and rules are told apart. There
// are as many as the definitions have, times a few.
const maxEffects = 10_000

func newIntake(e *Engine) *Intake {
	in := &Intake{engine: e, gen: e.generation.Load(), effects: map[string]*effect{}, tallies: map[tallyKey]*tally{}}
	if e.raw != nil {
		in.rows = e.raw.NewQueue()
	}
	return in
}

// adopt resolves by another generation from now on.
func (in *Intake) adopt(g *generation) {
	in.gen = g
	in.periods = [len(in.periods)]*period{}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.effects = map[string]*effect{}
}

// senderTags say where a line comes from, as Datadog's clients write it.
var senderTags = [][]byte{[]byte("dd.internal.entity_id:"), []byte("dd.internal.card:"), []byte("dd.internal.jmx_check_name:"), []byte("dd.internal.resource:")}

func isOfSender(tag []byte) bool {
	return slices.ContainsFunc(senderTags, func(known []byte) bool { return bytes.HasPrefix(tag, known) })
}

// Resolve reads an identity that may be an analytics event; nil says that it is none.
// Otherwise the identity has become that of the event's counter, and the Occurrence
// takes its samples. It is valid until the next call, unless Kept.
//
// Slow path: once per identity, and once per line of those that are not remembered.
func (in *Intake) Resolve(id *metric.Identity, now int64) *Occurrence {
	e := in.engine
	if g := e.generation.Load(); g != in.gen {
		in.adopt(g)
	}
	prefix, name := in.gen.cutPrefix(id.Name)
	if name == nil {
		return nil
	}
	in.text, in.tags, in.sent = in.text[:0], in.tags[:0], in.sent[:0]
	kept := id.Tags[:0]
	for _, tag := range id.Tags {
		if isOfSender(tag) {
			in.tags = append(in.tags, tag)
		} else {
			kept = append(kept, tag)
		}
	}
	id.Tags = kept
	r := &in.result
	in.gen.plan.Check(name, id, r)

	o := &in.under
	in.line = line{verdict: r.Verdict, weight: 1 / id.Rate, name: name, totals: in.line.totals[:0], by: in.line.by[:0]}
	*o = Occurrence{in: in, uniques: o.uniques[:0], sums: o.sums[:0], line: &in.line}
	if o.event = in.gen.unplanned; r.Event != nil {
		o.event = in.gen.events[r.Event]
	}
	for outcome := range r.Outcomes {
		if outcome != plan.OK {
			o.outcomes |= 1 << outcome
		}
	}
	if r.Verdict == plan.Unplanned && id.Kind != metric.Counter {
		o.outcomes |= 1 << plan.NotACounter
		o.verdict = plan.Refuse
	}
	if len(r.ID) > 0 {
		o.id = e.ids.hash(o.event.name, r.ID)
	}
	o.once = r.Time != 0 || o.id != 0 || o.weight != 1 || o.verdict != plan.Count
	in.sent = append(in.sent, id.Tags...)
	switch o.verdict {
	case plan.Count:
		in.place(r.Time, now)
		in.match(r)
		in.row(r, id)
		in.counter(r, id)
	case plan.Unplanned:
		o.metered = true
		in.unplanned(prefix, name, id)
	}
	return o
}

// place finds out when an event was, in Unix milliseconds by its own account or 0.
func (in *Intake) place(sent, now int64) {
	o := &in.under
	if sent == 0 {
		return
	}
	at := sent / 1000
	switch zones := in.gen.zones; {
	case at > now+futureAllowed:
		o.outcomes |= 1 << plan.Future
	case dayOf(at, zones[0]) < dayOf(now, zones[0])-lateDays:
		o.outcomes |= 1 << plan.Late
		o.late = true
	default:
		o.at = at
	}
}

// match finds the rules that the event feeds.
func (in *Intake) match(r *plan.Result) {
	o := &in.under
	if o.late {
		return
	}
	for i := range o.event.rules {
		rule := o.event.rules[i]
		if rule.overflow || !rule.Matches(r.Values) {
			continue
		}
		switch {
		case rule.unique:
			v := &r.Values[rule.By]
			if v.Null() {
				continue
			}
			if r.SkipUnique || o.weight != 1 {
				o.missed = append(o.missed, rule.rule)
				continue
			}
			o.uniques = append(o.uniques, unique{rule.rule, in.element(rule, v.Text)})
			in.line.by = append(in.line.by, rule.By)
		case rule.Sum != "":
			if v := &r.Values[rule.Of]; !v.Null() {
				o.sums = append(o.sums, sum{rule.rule, v.Float})
			}
		default:
			o.totals = append(o.totals, rule.rule)
		}
	}
}

// row notes what the line's row is to be made of, if it has one.
func (in *Intake) row(r *plan.Result, id *metric.Identity) {
	o := &in.under
	sampling, chosen := o.event.raw.choose(r.Values)
	if !chosen {
		return
	}
	const byClock = 1<<plan.Late | 1<<plan.Future
	o.raw = in.rows.Make(in.gen.plan, o.name, in.sent, id, o.outcomes&byClock, sampling)
}

// element hashes an identity, once for all rules that count it.
func (in *Intake) element(r *selection, canonical []byte) element {
	for i := range in.under.uniques {
		if u := &in.under.uniques[i]; u.rule.sip == r.sip && in.line.by[i] == r.By {
			return u.element
		}
	}
	if r.raw {
		return rawElement(canonical)
	}
	return r.sip.element(canonical)
}

// counter makes of the identity that of the event's counter: its name, and for tags
// those with the role tag, what the client adds to all lines, and what says where the
// line comes from. Identities are not among them.
func (in *Intake) counter(r *plan.Result, id *metric.Identity) {
	def := in.under.event.def
	in.under.metered = def.Counter.Emit
	if !def.Counter.Emit {
		return
	}
	for i := range def.Attributes {
		a := &def.Attributes[i]
		if v := &r.Values[i]; a.Role == plan.Tag && !v.Null() {
			in.tags = append(in.tags, in.tag(a.Name, v.Text))
		}
	}
	for i := range r.Context {
		c := &r.Context[i]
		in.tags = append(in.tags, in.tag(string(c.Key), c.Value))
	}
	id.Name = in.under.event.counter
	id.Tags = append(id.Tags[:0], in.tags...)
}

// tag writes a tag without what would end it.
func (in *Intake) tag(key string, value []byte) []byte {
	start := len(in.text)
	in.text = append(append(in.text, key...), ':')
	for _, b := range value {
		if b < ' ' || b == ',' || b == '|' || b == 0x7f {
			b = '_'
		}
		in.text = append(in.text, b)
	}
	return in.text[start:len(in.text):len(in.text)]
}

// unplanned makes of the identity the counter of events that nobody planned. Their
// names may be anything, so there are only so many.
func (in *Intake) unplanned(prefix, name []byte, id *metric.Identity) {
	e := in.engine
	bucket := e.ids.hash("", name) % uint64(in.gen.cfg.UnplannedBuckets)
	start := len(in.text)
	in.text = append(append(in.text, prefix...), "unplanned"...)
	id.Name = in.text[start:len(in.text):len(in.text)]
	in.tags = append(in.tags, in.tag("bucket", strconv.AppendUint(nil, bucket, 10)))
	id.Tags = append(id.Tags[:0], in.tags...)
}

// period returns that of a moment.
func (in *Intake) period(at int64) *period {
	if p := in.gen.current.Load(); p.holds(at) {
		return p
	}
	for _, p := range in.periods {
		if p != nil && p.holds(at) {
			return p
		}
	}
	p := periodAt(at, in.gen.zones)
	in.periods[in.next%len(in.periods)] = p
	in.next++
	return p
}

// tally returns the tally of an effect in a period; nil if there would be too many.
func (in *Intake) tally(f *effect, p *period) *tally {
	in.mu.Lock()
	defer in.mu.Unlock()
	at := tallyKey{f, p.from}
	if t := in.tallies[at]; t != nil {
		return t
	}
	t := &tally{effect: f, period: p}
	in.tallies[at] = t
	return t
}

// effectOf returns the effect of an occurrence, nil if there would be too many.
func (in *Intake) effectOf(o *Occurrence) *effect {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.key = strconv.AppendUint(in.key[:0], uint64(o.event.number), 36)
	in.key = strconv.AppendUint(append(in.key, ' '), uint64(o.outcomes), 36)
	for _, r := range o.totals {
		in.key = strconv.AppendUint(append(in.key, ' '), uint64(r.number), 36)
	}
	if f := in.effects[string(in.key)]; f != nil {
		return f
	}
	if len(in.effects) >= maxEffects {
		return nil
	}
	f := &effect{in.gen.serial, o.event.book, o.outcomes, append([]*rule(nil), o.totals...)}
	in.effects[string(in.key)] = f
	return f
}

// drain hands on what the tallies hold. Those of periods that ended a while ago are
// closed and forgotten, and so are those of generations before serial, by which nobody
// counts any more.
func (in *Intake) drain(current *period, now int64, serial int) {
	const awhile = 600
	in.mu.Lock()
	defer in.mu.Unlock()
	for at, t := range in.tallies {
		closing := t.effect.serial < serial ||
			!t.period.holds(now) && (t.period.until+awhile < now || now < t.period.from-awhile)
		t.drain(current, now, closing)
		if closing {
			delete(in.tallies, at)
		}
	}
}

// maxCount is how many occurrences one value may stand for, so that no line wraps a
// tally around.
const maxCount = 1 << 32

// wholeNumber returns a value as a number of occurrences; ok is false if it is none.
func wholeNumber(v float64) (n int64, ok bool) {
	if v < 1 || v > maxCount || v != math.Trunc(v) {
		return 0, false
	}
	return int64(v), true
}
