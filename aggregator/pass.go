package aggregator

import (
	"time"

	"github.com/weir-agent/weir/metric"
)

// What is passed on without being aggregated is held until the interval ends.
// Beyond these numbers, for each reader, it is refused and counted.
const (
	maxPassed = 250_000 // points with their own times
	maxEvents = 10_000
	maxChecks = 10_000
)

// maxPassing is how many contexts of passed points a worker remembers.
const maxPassing = 4096

// pass hands on the values of a sample that has a time of its own, as points with
// that time. As in the Datadog Agent a counter becomes a rate over the interval,
// and a sample rate does not count.
func (w *Worker) pass(s *metric.Sample) {
	packed := w.packed(s)
	if len(w.active.passed)+1+len(packed) > maxPassed {
		w.stats.refused[metric.TimestampLimit]++
		return
	}
	w.stats.passed++
	kind, over := metric.GaugeType, 1.0
	if w.id.Kind == metric.Counter {
		kind, over = metric.Rate, w.aggregator.cfg.FlushInterval.Seconds()
	}
	context := w.passingContext()
	point := func(v float64) {
		w.active.passed = append(w.active.passed, metric.Series{Context: context, Value: v / over, Type: kind, Time: w.id.Time})
	}
	point(s.Value)
	for _, v := range packed {
		point(v)
	}
}

// passingContext returns the context of w.id. It is none of those that have values:
// it takes no slot and counts for no limit.
func (w *Worker) passingContext() *metric.Context {
	key := w.scratch.contextKey(&w.id, w.lines.Sender, &w.aggregator.naming)
	if c := w.passing[string(key)]; c != nil {
		return c
	}
	if len(w.passing) >= maxPassing {
		clear(w.passing)
	}
	c := metric.NewContext(key)
	w.passing[c.Key()] = c
	return c
}

// addMessages takes the events and service checks of lines.
func (w *Worker) addMessages(lines *metric.Lines) {
	w.stats.events += uint64(len(lines.Events))
	w.stats.checks += uint64(len(lines.Checks))
	now := time.Now().Unix()
	for _, e := range lines.Events {
		if len(w.active.events) >= maxEvents {
			w.stats.refusedEvents++
			continue
		}
		e.Host, e.Tags = messageTags(e.Host, e.Tags, e.Origin, lines.Sender, &w.aggregator.naming)
		e.Origin = metric.Origin{}
		if e.Time == 0 {
			e.Time = now
		}
		w.active.events = append(w.active.events, e)
	}
	for _, c := range lines.Checks {
		if len(w.active.checks) >= maxChecks {
			w.stats.refusedChecks++
			continue
		}
		c.Host, c.Tags = messageTags(c.Host, c.Tags, c.Origin, lines.Sender, &w.aggregator.naming)
		c.Origin = metric.Origin{}
		if c.Time == 0 {
			c.Time = now
		}
		w.active.checks = append(w.active.checks, c)
	}
}

// takePassed moves what the workers passed on into the batch.
func (m *merge) takePassed() {
	for _, w := range m.a.workers {
		c := w.spare
		m.batch.Series = append(m.batch.Series, c.passed...)
		m.batch.Events = append(m.batch.Events, c.events...)
		m.batch.Checks = append(m.batch.Checks, c.checks...)
		c.passed, c.events, c.checks = nil, nil, nil
	}
}
