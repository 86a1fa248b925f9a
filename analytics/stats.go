package analytics

import (
	"slices"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

// Readings appends the engine's own metrics to dst. Counts of outcomes that never
// happened are left out, but for those of all events together.
func (e *Engine) Readings(dst []metric.Reading) []metric.Reading {
	e.drain(time.Now())
	total := func(name string, n uint64, tags ...string) {
		dst = append(dst, metric.Reading{Name: "analytics." + name, Tags: tags, Value: float64(n)})
	}
	level := func(name string, v float64, tags ...string) {
		dst = append(dst, metric.Reading{Name: "analytics." + name, Tags: tags, Value: v, Level: true})
	}
	g := e.generation.Load()
	for o := range plan.Outcomes {
		for _, ev := range g.books {
			if n := ev.outcomes[o].Load(); n > 0 || ev == g.unplanned.book {
				total("events", n, "event:"+ev.name, "outcome:"+o.String())
			}
		}
	}
	if e.raw != nil {
		dst = e.raw.Readings(dst)
	}
	total("dead_letters", e.letters.written.Load())
	total("dead_letters.dropped", e.letters.dropped.Load())
	total("saves", e.stats.saves.Load())
	total("saves.failed", e.stats.saveErrors.Load())
	level("save.seconds", time.Duration(e.stats.saveNanoseconds.Load()).Seconds())
	total("state.damaged", e.stats.damaged.Load())
	level("sketches", float64(g.sketches))
	withheld := map[Status]int{}
	for _, v := range slices.Concat(e.Values(), e.fleetValues(time.Now())) {
		withheld[v.Status]++
	}
	for _, status := range []Status{StatusOverflow, StatusUncertain, StatusBroken, StatusUnreadable, StatusExpired} {
		level("values.withheld", float64(withheld[status]), "status:"+string(status))
	}
	if e.share != nil {
		e.share.readings(total, level)
	}
	return dst
}

// Gauges appends the values of the metrics that are to be gauges to dst. A value that
// there is not is not appended.
func (e *Engine) Gauges(dst []metric.Reading) []metric.Reading {
	for _, v := range e.Values() {
		if v.Emitted && v.Value != nil {
			dst = append(dst, metric.Reading{Name: v.Name, Tags: []string{"scope:" + v.Scope}, Value: *v.Value, Level: true})
		}
	}
	for _, v := range e.fleetValues(time.Now()) {
		if v.Emitted && v.Value != nil {
			// Of all hosts, so of no host: it goes on when another one takes over.
			dst = append(dst, metric.Reading{Name: v.Name, Tags: []string{"host:", "scope:" + v.Scope}, Value: *v.Value, Level: true})
		}
	}
	return dst
}
