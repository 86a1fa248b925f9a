package forwarder

import (
	"testing"
	"time"
)

// backlogOf returns an endpoint whose spool has as many records as it may, all of a
// route that nothing may be sent by now, and behind them one of another.
func backlogOf(tb testing.TB, records int) *endpoint {
	tb.Helper()
	s := &spool{cfg: defaultSpoolConfig("")}
	e := newEndpoint("datadog", &books{}, discard())
	e.spool = s
	begun := time.Now().Add(-30 * time.Minute)
	for i := range records {
		route := sketchRoute.path
		if i == records-1 {
			route = seriesRoute.path
		}
		start := begun.Add(time.Duration(i) * 20 * time.Millisecond)
		s.waiting.insert(&spoolEntry{name: spoolName{uint64(start.Unix()), uint64(i), 1}, start: start, route: route})
	}
	dead := &e.lane(&waiting{payload: payload{route: &sketchRoute}}).circuit
	dead.open, dead.until = true, time.Now().Add(time.Hour)
	return e
}

// BenchmarkBacklog is what it costs to choose what to send next while the spool is full
// of what may not be sent.
func BenchmarkBacklog(b *testing.B) {
	e := backlogOf(b, maxSpooledRecords)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, read, _ := e.choose(now); !read {
			b.Fatal("there is nothing to read")
		}
	}
}
