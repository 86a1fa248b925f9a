package aggregator

import (
	"time"
	"unsafe"

	"github.com/weir-agent/weir/metric"
)

// What is passed on without being aggregated is held until the interval ends.
// Beyond these numbers, for each reader, it is refused and counted.
const (
	maxPassed       = 250_000 // points with their own times
	maxPassedBytes  = 64 << 20
	maxEvents       = 10_000
	maxChecks       = 10_000
	maxMessageBytes = 32 << 20 // of events and service checks together
)

// pass hands on the values of a sample that has a time of its own, as points with
// that time. As in the Datadog Agent a counter becomes a rate over the interval (see
// takePassed), and a sample rate does not count.
func (w *Worker) pass(s *metric.Sample) {
	packed := w.packed(s)
	c := w.active
	if c.passed.count+1+len(packed) > maxPassed || c.passedBytes > maxPassedBytes {
		w.stats.refused[metric.TimestampLimit]++
		return
	}
	w.stats.passed++
	kind := metric.GaugeType
	if w.id.Kind == metric.Counter {
		kind = metric.Rate
	}
	context := w.passingContext()
	c.passedBytes += (1 + len(packed)) * int(unsafe.Sizeof(metric.Series{}))
	point := func(v float64) {
		c.passed.add(metric.Series{Context: context, Value: v, Type: kind, Time: w.id.Time})
	}
	point(s.Value)
	for _, v := range packed {
		point(v)
	}
}

// passingContext returns the context of w.id, one for all points of an interval. It
// is none of those that have values: it takes no slot and counts for no limit.
func (w *Worker) passingContext() metric.ContextRef {
	key := w.scratch.contextKey(&w.id, &w.policy.naming)
	if ref, ok := w.passing[string(key)]; ok {
		return ref
	}
	c := metric.NewContext(key)
	ref := w.active.passing.Add(c)
	w.passing[c.Key()] = ref
	w.active.passedBytes += len(key) + int(unsafe.Sizeof(*c)+unsafe.Sizeof(c))
	return ref
}

// addMessages takes the events and service checks of lines.
func (w *Worker) addMessages(lines *metric.Lines) {
	w.stats.events += uint64(len(lines.Events))
	w.stats.checks += uint64(len(lines.Checks))
	now := time.Now().Unix()
	for _, e := range lines.Events {
		size := len(e.Title) + len(e.Text) + bytesOf(e.Tags) + int(unsafe.Sizeof(e))
		if w.active.events.count >= maxEvents || w.active.messageBytes+size > maxMessageBytes {
			w.stats.refusedEvents++
			continue
		}
		e.Host, e.Tags = messageTags(e.Host, e.Tags, e.Origin, lines.Sender, &w.policy.naming)
		e.Origin = metric.Origin{}
		if e.Time == 0 {
			e.Time = now
		}
		w.active.messageBytes += size
		w.active.events.add(e)
	}
	for _, c := range lines.Checks {
		size := len(c.Message) + bytesOf(c.Tags) + int(unsafe.Sizeof(c))
		if w.active.checks.count >= maxChecks || w.active.messageBytes+size > maxMessageBytes {
			w.stats.refusedChecks++
			continue
		}
		c.Host, c.Tags = messageTags(c.Host, c.Tags, c.Origin, lines.Sender, &w.policy.naming)
		c.Origin = metric.Origin{}
		if c.Time == 0 {
			c.Time = now
		}
		w.active.messageBytes += size
		w.active.checks.add(c)
	}
}

// bytesOf returns about how much memory tags take.
func bytesOf(tags []string) (n int) {
	for _, tag := range tags {
		n += len(tag) + int(unsafe.Sizeof(tag))
	}
	return n
}

// takePassed moves what the workers passed on into the batch.
func (m *merge) takePassed() {
	for _, w := range m.a.workers {
		c := w.spare
		from, moved := len(m.batch.Series), m.batch.Contexts.Take(&c.passing)
		m.batch.Series = c.passed.appendTo(m.batch.Series)
		for i := range m.batch.Series[from:] {
			s := &m.batch.Series[from+i]
			s.Context += moved
			if s.Type == metric.Rate {
				s.Value /= m.seconds
			}
		}
		m.batch.Events = c.events.appendTo(m.batch.Events)
		m.batch.Checks = c.checks.appendTo(m.batch.Checks)
		c.passed, c.passing = pieces[metric.Series]{}, metric.Contexts{}
		c.events, c.checks = pieces[metric.Event]{}, pieces[metric.ServiceCheck]{}
		c.passedBytes, c.messageBytes = 0, 0
	}
}
