package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/raw"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/parser"
)

// BenchmarkEvent is what the line of an analytics event costs from the packet on,
// beside a plain counter with as many tags: of users who are known, of new ones, and
// of events that each say who they are. With rows they are written, all of them, and
// what that costs counts. Plain counters are measured with and without definitions.
//
// It measures processor time of the whole process, by turns of a plain counter and of
// the line in question: -benchtime=20x is 20 turns each. What it reports are medians:
// ns/line; x-plain, the ratio to the plain counter's of the same turn; and of it what the
// reader's own thread takes, reader-ns/line. New users are those of an agent that was just started, whose tables grow, and of one whose tables
// are full.
func BenchmarkEvent(b *testing.B) {
	const (
		tags  = "user_id:%d,organization_id:%d,plan:pro"
		plain = "web.requests:1|c|#" + tags
		event = "analytics.team.created:1|c|#" + tags
		id    = ",_id:%[1]d"
	)
	for _, test := range []struct {
		name string
		feed feed
	}{
		{"plain", feed{format: plain, users: 1000}},
		{"plain_with_definitions", feed{format: plain, users: 1000, enabled: true, rows: true}},
		{"known_user", feed{format: event, users: 1000, enabled: true}},
		{"known_user_raw", feed{format: event, users: 1000, enabled: true, rows: true}},
		{"known_user_one_raw", feed{format: event, users: 1, enabled: true, rows: true}},
		{"plain_new", feed{format: plain, fresh: true}},
		{"new_user", feed{format: event, enabled: true, fresh: true}},
		{"new_user_raw", feed{format: event, enabled: true, rows: true, fresh: true}},
		{"new_user_full", feed{format: event, enabled: true}},
		{"new_user_full_raw", feed{format: event, enabled: true, rows: true}},
		{"with_id", feed{format: event + id, enabled: true}},
		{"with_id_raw", feed{format: event + id, enabled: true, rows: true}},
	} {
		b.Run(test.name, func(b *testing.B) {
			base, measured := feed{format: plain, users: 1000}, test.feed
			base.open(b)
			measured.open(b)
			base.turn(b)
			for range 2 { // tables are full after that, or all is known
				measured.turn(b)
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var costs, readers, ratios []float64
			for b.Loop() {
				if measured.fresh {
					measured.close()
					measured.open(b)
				}
				beside, _ := base.turn(b)
				cost, reader := measured.turn(b)
				costs, readers, ratios = append(costs, cost), append(readers, reader), append(ratios, cost/beside)
			}
			slices.Sort(costs)
			slices.Sort(readers)
			slices.Sort(ratios)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(costs[len(costs)/2], "ns/line")
			b.ReportMetric(ratios[len(ratios)/2], "x-plain")
			b.ReportMetric(readers[len(readers)/2], "reader-ns/line")
		})
	}
}

// feed sends the lines of one kind.
type feed struct {
	format        string
	users         int // 0: all new
	enabled, rows bool
	fresh         bool // each turn is the first one of an agent

	in      intake
	engine  *analytics.Engine // nil without definitions
	close   func()
	user    int
	packets [][]byte
}

const (
	burstLines   = 50_000 // fewer than rows of a reader may wait
	burstsOfTurn = 2
	burstsKnown  = 6 // where a line costs little
)

func (f *feed) open(b *testing.B) {
	p := parser.New(parser.DefaultConfig())
	log := slog.New(slog.DiscardHandler)
	cfg := config.Default()
	a := newAggregator(cfg, []aggregator.Describe{p.Describe}, cardinality.New(cfg.Cardinality, log), log)
	if f.close = func() {}; f.enabled {
		f.engine, f.close = openAnalytics(b, f.rows)
		connectAnalytics(a, f.engine)
	}
	f.in = intake{parser: p, worker: a.Worker(0)}
	runtime.GC() // what was before is not its business
}

// fill makes the packets of a burst.
func (f *feed) fill() {
	if f.packets == nil {
		f.packets = make([][]byte, burstLines/20)
	}
	for i := range f.packets {
		f.packets[i] = f.packets[i][:0]
		for range 20 {
			n := f.user
			if f.user++; f.users > 0 {
				n %= f.users
			}
			f.packets[i] = append(fmt.Appendf(f.packets[i], f.format, n, n%50), '\n')
		}
	}
}

// turn returns what a line costs, and what of it this thread takes, in ns of processor time.
func (f *feed) turn(b *testing.B) (all, reader float64) {
	bursts := burstsKnown
	if f.users == 0 {
		bursts = burstsOfTurn
	}
	var spent, own time.Duration
	for burst := range bursts {
		if f.user == 0 || f.users == 0 {
			f.fill()
		}
		before, ownBefore := processorTime(b), readerTime()
		for i, packet := range f.packets {
			f.in.packet(packet, false, "")
			if i%64 == 63 {
				f.in.end()
			}
		}
		f.in.end()
		own += readerTime() - ownBefore
		written := f.rows && strings.HasPrefix(f.format, "analytics.")
		if written {
			time.Sleep(300 * time.Millisecond) // the queue is emptied more often
		}
		for written && burst == bursts-1 && f.waiting(b) > 0 {
			time.Sleep(100 * time.Millisecond)
		}
		spent += processorTime(b) - before
	}
	return float64(spent) / float64(bursts*burstLines), float64(own) / float64(bursts*burstLines)
}

// waiting returns how many rows are not written yet. None may have been dropped.
func (f *feed) waiting(b *testing.B) (n float64) {
	for _, r := range f.engine.Readings(nil) {
		switch {
		case r.Name == "analytics.raw.rows.queued":
			n = r.Value
		case r.Name == "analytics.raw.rows.dropped" && r.Value > 0:
			b.Fatalf("%v rows were dropped", r.Value)
		}
	}
	return n
}

// readerTime returns how long this thread has run, where that is known.
var readerTime = func() time.Duration { return 0 }

// processorTime returns how long all threads have run.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// openAnalytics returns an engine with the definitions of plan's tests, and what ends it.
func openAnalytics(t testing.TB, rows bool) (e *analytics.Engine, end func()) {
	t.Helper()
	p, err := plan.Load("../../analytics/plan/testdata/sound", plan.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	cfg := analytics.DefaultConfig()
	if cfg.StateDir = t.TempDir(); !rows {
		cfg.Raw.Format = raw.FormatNone
	}
	e, err = analytics.New(cfg, p, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := e.RunRaw(ctx); err != nil {
			t.Error(err)
		}
	}()
	end = sync.OnceFunc(func() {
		stop()
		<-ended
		_ = e.Close()
	})
	t.Cleanup(end)
	return e, end
}
