package analytics

import (
	"context"
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
func (e *Engine) Rows(ctx context.Context, q report.Query) (rows []report.Row, hosts report.Hosts, err error) {
	now := time.Now()
	e.drain(now)
	if e.share != nil && !q.Host {
		return e.share.rows(ctx, q, now)
	}
	g := e.generation.Load()
	everyMetric := func(*metricState) bool { return true }
	rows, err = g.rows(q, everyMetric, func(m *metricState, frame plan.TimeFrame, at time.Time) (*Value, error) {
		return e.valueAt(g, m, frame, at), nil
	})
	return rows, report.Hosts{Seen: 1, Expected: 1}, err
}

// valuing returns the value of a metric as of a moment.
type valuing func(m *metricState, frame plan.TimeFrame, at time.Time) (*Value, error)

// rows asks for all values of a report, of metrics that are in its scope.
func (g *generation) rows(q report.Query, inScope func(*metricState) bool, valueAt valuing) (rows []report.Row, err error) {
	for _, m := range g.metrics {
		if !inScope(m) || !q.Matches(m.def.KeyPath) {
			continue
		}
		daily, err := g.daily(m, q.At, valueAt)
		if err != nil {
			return nil, err
		}
		for _, f := range m.frames {
			v, err := valueAt(m, f.frame, q.At)
			if err != nil {
				return nil, err
			}
			row := v.Row()
			row.Description, row.Daily, row.Versions = m.def.Description, daily, m.versions()
			if q.Previous && v.First != nil {
				before, err := valueAt(m, f.frame, g.before(m, v))
				if err != nil {
					return nil, err
				}
				row.Previous = new(report.Row)
				*row.Previous = before.Row()
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

// versions returns those of the events that a metric counts.
func (m *metricState) versions() map[string]string {
	all := map[string]string{}
	for i := range m.def.Rules {
		def := m.def.Rules[i].Event
		all[def.Name] = def.Version.String()
	}
	return all
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

// daily returns the values of the days up to a moment, whatever the metric's window.
func (g *generation) daily(m *metricState, at time.Time, valueAt valuing) (days []report.Daily, err error) {
	def := *m.def
	def.Window = plan.Rolling
	one := &metricState{def: &def, zone: m.zone, rules: m.rules}
	year, month, date := at.In(g.zones[m.zone]).Date()
	for i := chartDays - 1; i >= 0; i-- {
		noon := time.Date(year, month, date-i, 12, 0, 0, 0, g.zones[m.zone])
		v, err := valueAt(one, plan.Frame1d, noon)
		if err != nil {
			return nil, err
		}
		if v.Observed == 0 {
			v.Value = nil // nobody was there to count
		}
		days = append(days, report.Daily{Day: v.Last.String(), Value: v.Value})
	}
	return days, nil
}
