package analytics

import (
	"math"
	"sync"

	"github.com/weir-agent/weir/analytics/plan"
)

// rule is what a selection rule counted: those whose events it selects, the events, or
// the sum of an attribute. Metrics with the same rule share it, and so do plans.
type rule struct {
	number int
	text   string // names it, and its zone, in the state
	zone   int    // index of its zone; days are dates in it
	unique bool   // it counts who: it has a sketch for each day
	keyID  string // of the key of the sketches, "" of a total
	// fingerprint tells that key apart from others with its id; "" without a key
	fingerprint string
	sip         sipKey
	raw         bool // elements are hashes without a key
	since       day  // the first day it counted
	disk        *store

	mu   sync.Mutex // guards the fields below and what is in days
	days map[day]*dayCount
	// past is the sum of the days that were erased, of a total.
	past dayCount
}

// selection is a rule as one plan has it: which of an event's occurrences it counts.
type selection struct {
	plan.Rule
	*rule
	overflow bool // there are too many: it counts nothing
}

// dayCount is what a rule counted on one day.
type dayCount struct {
	sketch     *sketch // nil of a total, and of a day that is on disk only
	total      float64
	revision   uint32
	incomplete bool
	version    uint64 // grows with every change
	saved      uint64 // version on disk
	revised    bool   // changed after its day, since the last save
}

// on returns the count of a day, with r.mu held.
func (r *rule) on(d day) *dayCount {
	c := r.days[d]
	if c == nil {
		c = &dayCount{}
		r.days[d] = c
	}
	if r.unique && c.sketch == nil {
		c.sketch = r.sketchOf(d, c)
	}
	return c
}

// sketchOf returns the sketch of a day that is not in memory: a new one, or what is on
// disk if the clock was set back to a day that was over.
func (r *rule) sketchOf(d day, c *dayCount) *sketch {
	if c.saved == 0 {
		return newSketch()
	}
	if blob, err := r.disk.sketch(r.text, r.keyID, d); err == nil && blob != nil {
		if s, err := restored(blob); err == nil {
			return s
		}
	}
	c.incomplete = true
	return newSketch()
}

// changed marks a count, with r.mu held.
func (c *dayCount) changed(d, today day) {
	c.version++
	if d < today {
		c.revised = true
	}
}

// insert counts who stands behind an element. Days before today are revised.
func (r *rule) insert(d, today day, e element) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.on(d)
	if c.sketch.insert(e) {
		c.changed(d, today)
	}
}

// maxTotal is what a total stays within, however much is added: all days of all rules and
// hosts together are a number then, too.
const maxTotal = 1e290

// finite returns a total within maxTotal.
func finite(total float64) float64 {
	if math.IsNaN(total) {
		return 0
	}
	return max(-maxTotal, min(total, maxTotal))
}

// add adds to a total. by is no NaN.
func (r *rule) add(d, today day, by float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.on(d)
	c.total = finite(c.total + by)
	c.changed(d, today)
}

// miss notes that somebody was not counted on a day.
func (r *rule) miss(d, today day) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.on(d); !c.incomplete {
		c.incomplete = true
		c.changed(d, today)
	}
}

// dirty returns the records of what changed since it was saved, and a func that is to
// be called once they are.
func (r *rule) dirty() (records []*record, saved func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	versions := map[day]uint64{}
	for d, c := range r.days {
		if c.version == c.saved {
			continue
		}
		if c.revised {
			c.revision++
			c.revised = false
		}
		records = append(records, r.record(d, c))
		versions[d] = c.version
	}
	return records, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for d, version := range versions {
			if c := r.days[d]; c != nil {
				c.saved = version
			}
		}
	}
}

func (r *rule) record(d day, c *dayCount) *record {
	rec := &record{rule: r.text, keyID: r.keyID, day: d, revision: c.revision, incomplete: c.incomplete, total: c.total}
	if r.unique {
		rec.sketch = c.sketch.blob()
	}
	return rec
}

// evict drops sketches that are saved and can change no more from memory.
func (r *rule) evict(before day) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, c := range r.days {
		if d < before && c.version == c.saved {
			c.sketch = nil
		}
	}
}

// erase forgets the days before one, and returns their records and, of a total, the
// record of what they come to. Nothing is forgotten before done is called.
func (r *rule) erase(before day) (gone []*record, past *record, done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	sum := r.past
	var days []day
	for d, c := range r.days {
		if d >= before {
			continue
		}
		days = append(days, d)
		gone = append(gone, &record{rule: r.text, keyID: r.keyID, day: d})
		sum.total = finite(sum.total + c.total)
		sum.incomplete = sum.incomplete || c.incomplete
		sum.revision += c.revision
	}
	sum.version++
	if len(days) > 0 && !r.unique {
		past = &record{rule: r.text, day: forever, total: sum.total, incomplete: sum.incomplete, revision: sum.revision}
	}
	return gone, past, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, d := range days {
			delete(r.days, d)
		}
		r.past = sum
	}
}

// restore takes a record back that an earlier run saved. A sketch before recent stays
// on disk.
func (r *rule) restore(rec *record, recent day, p *packer) error {
	c := &dayCount{total: finite(rec.total), revision: rec.revision, incomplete: rec.incomplete, version: 1, saved: 1}
	if rec.isSketch != r.unique {
		return errDamaged
	}
	if r.unique && rec.day >= recent {
		if err := p.unpack(rec); err != nil {
			return err
		}
		s, err := restored(rec.sketch)
		if err != nil {
			return err
		}
		c.sketch = s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec.day == forever {
		r.past = *c
		return nil
	}
	r.days[rec.day] = c
	return nil
}

// forgetSaved notes that nothing of the rule is on disk any more: what is in memory is
// to be written, what is not is lost.
func (r *rule) forgetSaved() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for d, c := range r.days {
		if r.unique && c.sketch == nil {
			delete(r.days, d)
			continue
		}
		c.saved = 0
		c.version++
	}
}

// summary is what is known of a rule's days in a window without reading sketches.
type summary struct {
	signature  uint64 // changes with any of the days
	revision   uint32
	incomplete bool
	total      float64
}

func (r *rule) summarize(w window) (s summary) {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := func(d day, c *dayCount) {
		// Days come in any order.
		s.signature += (uint64(uint32(d))<<32 ^ c.version) * 0x9e3779b97f4a7c15
		s.revision += c.revision
		s.incomplete = s.incomplete || c.incomplete
		s.total += c.total
	}
	for d, c := range r.days {
		if w.First <= d && d <= w.Last {
			one(d, c)
		}
	}
	if w.First == forever && r.past.version > 0 {
		one(forever, &r.past)
	}
	return s
}

// sketches calls visit with the encoded sketch of each day in a window that has one.
func (r *rule) sketches(w window, visit func(blob []byte) error) error {
	type found struct {
		day  day
		blob []byte // nil: on disk
	}
	var days []found
	r.mu.Lock()
	for d, c := range r.days {
		if d < w.First || d > w.Last {
			continue
		}
		f := found{day: d}
		if c.sketch != nil {
			f.blob = c.sketch.blob()
		}
		days = append(days, f)
	}
	r.mu.Unlock()
	for _, f := range days {
		if f.blob == nil {
			var err error
			if f.blob, err = r.disk.sketch(r.text, r.keyID, f.day); err != nil {
				return err
			}
		}
		if f.blob == nil {
			continue
		}
		if err := visit(f.blob); err != nil {
			return err
		}
	}
	return nil
}
