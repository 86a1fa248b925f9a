package aggregator

import (
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Event takes the samples of one identity that is an analytics event. It takes them
// before the rules and the guard see the identity of its counter: what they make of that
// changes nothing for the event.
type Event interface {
	// Add takes one sample that came at now, in Unix seconds: value and more are how
	// many occurrences it stands for. It reports whether they count.
	Add(value float64, more []float64, now int64) bool
	// Metered reports whether the samples are values of a counter as well.
	Metered() bool
	// Keep returns an Event for further samples of the identity, nil if there must be
	// none: each sample is to be resolved by itself.
	Keep() Event
}

// ResolveEvent asks whether an identity is an analytics event, as of a moment in Unix
// seconds. If so, it makes of the identity that of the event's counter. Both are valid
// until the next call, which the same worker makes.
type ResolveEvent func(id *metric.Identity, now int64) (e Event, is bool)

// maxEventIdentities bounds how many identities of events a worker remembers, lest
// those of a million users push plain metrics out of the table.
const maxEventIdentities = 1 << 17

// SetEvents lets each worker ask about events by a func of its own, and each flush take
// gauges, before the first sample comes.
func (a *Aggregator) SetEvents(newResolve func() ResolveEvent, gauges Readings) {
	for _, w := range a.workers {
		w.mu.Lock()
		w.resolveEvent = newResolve()
		w.mu.Unlock()
	}
	a.flusher.eventGauges = gauges
}

// eventRef is where the samples of an event go.
type eventRef struct {
	to    ref // 0: it has no counter
	event Event
}

// eventOf asks whether w.id, just described, is an event and lets it take the sample,
// unless it has; nil says that it is none.
func (w *Worker) eventOf(s *metric.Sample) (e Event, counts bool) {
	if again := w.waiting.resuming; w.resolveEvent == nil || again != nil && !again.event {
		return nil, true
	}
	e, is := w.resolveEvent(&w.id, w.unixNow())
	if !is {
		return nil, true
	}
	if w.waiting.resuming != nil {
		return e, true
	}
	w.stats.eventSamples++
	if !e.Add(s.Value, w.packed(s), w.unixNow()) {
		w.stats.refused[metric.EventRefused]++
		return e, false
	}
	return e, true
}

// unixNow returns the wall clock, read once for a batch of packets that has events.
func (w *Worker) unixNow() int64 {
	if w.wallAt != w.now {
		w.wall, w.wallAt = time.Now().Unix(), w.now
	}
	return w.wall
}

// keep returns the event for further samples of the identity; ok is false if it is not to
// be remembered.
func (w *Worker) keep(e Event) (kept Event, ok bool) {
	if w.events >= maxEventIdentities {
		w.stats.unrememberedEvents++
		return nil, false
	}
	kept = e.Keep()
	return kept, kept != nil
}

// withEvent returns a ref by which a kept event takes its samples, and then r.
func (w *Worker) withEvent(kept Event, r ref) ref {
	i := uint32(w.events + len(w.freeEvent))
	if n := len(w.freeEvent); n > 0 {
		i = w.freeEvent[n-1]
		w.freeEvent = w.freeEvent[:n-1]
	}
	w.events++
	*w.eventRefs.at(i) = eventRef{r, kept}
	return makeRef(opEvent, i)
}

// rememberEvent remembers an identity that is an event and nothing else.
func (w *Worker) rememberEvent(e Event, hash uint64, check uint32) {
	if w.identities.count >= w.policy.maxIdentities {
		w.stats.unremembered++
		return
	}
	if kept, ok := w.keep(e); ok {
		w.identities.insert(hash, check, w.withEvent(kept, 0))
	}
}

func (w *Worker) forgetEvent(i uint32) {
	*w.eventRefs.at(i) = eventRef{}
	w.events--
	w.freeEvent = append(w.freeEvent, i)
}

// addEvent adds a sample of an event that is known.
func (w *Worker) addEvent(index uint32, s *metric.Sample) {
	e := w.eventRefs.at(index)
	w.stats.eventSamples++
	if !e.event.Add(s.Value, w.packed(s), w.unixNow()) {
		w.stats.refused[metric.EventRefused]++
		return
	}
	if e.to != 0 {
		w.add(e.to, s)
	}
}

// addEventGauges appends the gauges that events are counted in to b.
func (f *flusher) addEventGauges(b *metric.Batch) {
	if f.eventGauges == nil {
		return
	}
	var scratch identityScratch
	f.gaugeReadings = f.eventGauges(f.gaugeReadings[:0])
	for _, r := range f.gaugeReadings {
		key := ownKey{r.Name, strings.Join(r.Tags, ",")}
		context := f.gaugeContexts[key]
		if context == nil {
			id := metric.Identity{Name: []byte(r.Name), Kind: metric.Gauge}
			for _, tag := range r.Tags {
				id.Tags = append(id.Tags, []byte(tag))
			}
			context = metric.NewContext(scratch.contextKey(&id, &f.policy.naming))
			f.gaugeContexts[key] = context
		}
		b.Add(context, metric.Series{Value: r.Value, Type: metric.GaugeType})
	}
}
