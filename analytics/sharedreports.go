package analytics

import (
	"context"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/report"
)

// Fleet returns what hosts know of each other's reports; nil if they share nothing.
func (e *Engine) Fleet() report.Fleet {
	if e.share == nil {
		return nil
	}
	return e.share
}

// Done implements report.Fleet: the host that emits the fleet's gauges makes its reports.
func (s *sharer) Done(ctx context.Context, name string) (period time.Time, mine bool, err error) {
	period, err = s.client.Done(ctx, name)
	return period, s.voice.Load().speaks(time.Now()), err
}

// SetDone implements report.Fleet.
func (s *sharer) SetDone(ctx context.Context, name string, period time.Time) error {
	return s.client.SetDone(ctx, name, period)
}

// rows returns the rows of a report for all hosts, of metrics whose scope that is. They
// are found between rounds, by the goroutine of run.
func (s *sharer) rows(ctx context.Context, q report.Query, now time.Time) (rows []report.Row, hosts report.Hosts, err error) {
	answered := make(chan struct{})
	answer := func(running context.Context) {
		defer close(answered)
		rows, err = s.plan.rows(q, (*metricState).shared, func(m *metricState, frame plan.TimeFrame, at time.Time) (*Value, error) {
			return s.valueOf(running, m, frame, at, now)
		})
		hosts = report.Hosts{Seen: int(s.stats.hosts.Load()), Expected: int(s.stats.known.Load())}
	}
	select {
	case s.asks <- answer:
		<-answered // its requests have their own timeouts
		return rows, hosts, err
	case <-ctx.Done():
		return nil, hosts, ctx.Err()
	}
}

// shared reports whether a metric is one of all hosts.
func (m *metricState) shared() bool { return m.def.Emit.Scope == plan.Fleet }
