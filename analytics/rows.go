package analytics

import (
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/report"
)

// chartDays is how many days a report shows one by one.
const chartDays = 28

// Row returns the value as a report has it.
func (v *Value) Row() report.Row {
	r := report.Row{
		KeyPath: v.KeyPath, Name: v.Name, Frame: v.Frame, Window: v.Window, Timezone: v.Timezone, Last: v.Last.String(),
		Value: v.Value, Status: string(v.Status), Error: v.Error, Days: v.Days, Observed: v.Observed, Final: v.Final,
		Sampled: v.Sampled, Revision: v.Revision, Scope: v.Scope,
	}
	if v.First != nil {
		r.First = v.First.String()
	}
	return r
}

// Rows implements report.Source.
func (e *Engine) Rows(at time.Time, matches func(keyPath string) bool, previous bool) (rows []report.Row) {
	e.drain(time.Now())
	g := e.generation.Load()
	for _, m := range g.metrics {
		if !matches(m.def.KeyPath) {
			continue
		}
		daily := e.daily(g, m, at)
		for _, f := range m.frames {
			v := e.valueAt(g, m, f.frame, at)
			row := v.Row()
			row.Description, row.Daily = m.def.Description, daily
			if previous && v.First != nil {
				before := e.valueAt(g, m, f.frame, g.before(m, v))
				row.Previous = new(report.Row)
				*row.Previous = before.Row()
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// valueAt returns the value of a metric as of a moment that need not be now. With the
// lock of values, since estimates are computed with it.
func (e *Engine) valueAt(g *generation, m *metricState, frame plan.TimeFrame, at time.Time) *Value {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.computeFrame(g, m, &frameState{frame: frame, asked: true}, at)
}

// before returns a moment at which the window that ends where a value's begins is the
// last one.
func (g *generation) before(m *metricState, v *Value) time.Time {
	d := *v.First
	if g.cfg.IncludeToday && m.def.Window != plan.GitLabWeeks {
		d-- // windows include the day that they are asked for
	}
	year, month, date := d.utc().Date()
	return time.Date(year, month, date, 12, 0, 0, 0, g.zones[m.zone])
}

// daily returns the values of the days up to a moment.
func (e *Engine) daily(g *generation, m *metricState, at time.Time) (days []report.Daily) {
	year, month, date := at.In(g.zones[m.zone]).Date()
	for i := chartDays - 1; i >= 0; i-- {
		noon := time.Date(year, month, date-i, 12, 0, 0, 0, g.zones[m.zone])
		v := e.dayAt(g, m, noon)
		if v.Observed == 0 {
			v.Value = nil // nobody was there to count
		}
		days = append(days, report.Daily{Day: v.Last.String(), Value: v.Value})
	}
	return days
}

// dayAt returns the value of the last day as of a moment, whatever the metric's window.
func (e *Engine) dayAt(g *generation, m *metricState, at time.Time) *Value {
	def := *m.def
	def.Window = plan.Rolling
	one := &metricState{def: &def, zone: m.zone, rules: m.rules}
	return e.valueAt(g, one, plan.Frame1d, at)
}
