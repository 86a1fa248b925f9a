package main

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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
// ns/line, and x-plain, the ratio to the plain counter's of the same turn.
func BenchmarkEvent(b *testing.B) {
	const (
		tags  = "user_id:%d,organization_id:%d,plan:pro"
		plain = "web.requests:1|c|#" + tags
		event = "analytics.team.created:1|c|#" + tags
	)
	for _, test := range []struct {
		name    string
		format  string
		enabled bool
		users   int // 0: all new
		rows    bool
	}{
		{"plain", plain, false, 1000, false},
		{"plain_with_definitions", plain, true, 1000, true},
		{"known_user", event, true, 1000, false},
		{"known_user_raw", event, true, 1000, true},
		{"known_user_one", event, true, 1, false},
		{"known_user_one_raw", event, true, 1, true},
		{"plain_new", plain, false, 0, false},
		{"new_user", event, true, 0, false},
		{"new_user_raw", event, true, 0, true},
		{"with_id", event + ",_id:%[1]d", true, 0, false},
		{"with_id_raw", event + ",_id:%[1]d", true, 0, true},
	} {
		b.Run(test.name, func(b *testing.B) {
			base := newFeed(b, plain, max(test.users, 1), false, false)
			if test.users == 0 {
				base = newFeed(b, plain, 1000, false, false)
			}
			measured := newFeed(b, test.format, test.users, test.enabled, test.rows)
			base.turn(b)
			measured.turn(b)
			var costs, ratios []float64
			for b.Loop() {
				beside, cost := base.turn(b), measured.turn(b)
				costs, ratios = append(costs, cost), append(ratios, cost/beside)
			}
			slices.Sort(costs)
			slices.Sort(ratios)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(costs[len(costs)/2], "ns/line")
			b.ReportMetric(ratios[len(ratios)/2], "x-plain")
		})
	}
}

// feed sends the lines of one kind.
type feed struct {
	in      intake
	engine  *analytics.Engine // nil without definitions
	rows    bool
	format  string
	users   int
	user    int
	packets [][]byte
}

// feedLines is how many lines a turn has: fewer than rows of a reader may wait.
const feedLines = 50_000

func newFeed(b *testing.B, format string, users int, enabled, rows bool) *feed {
	p := parser.New(parser.DefaultConfig())
	log := slog.New(slog.DiscardHandler)
	cfg := config.Default()
	a := newAggregator(cfg, []aggregator.Describe{p.Describe}, cardinality.New(cfg.Cardinality, log), log)
	f := &feed{rows: rows, format: format, users: users}
	if enabled {
		f.engine = openAnalytics(b, rows)
		connectAnalytics(a, f.engine)
	}
	f.in = intake{parser: p, worker: a.Worker(0)}
	f.packets = make([][]byte, feedLines/20)
	return f
}

func (f *feed) fill() {
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

// turn returns what a line costs, in ns of processor time.
func (f *feed) turn(b *testing.B) float64 {
	if f.user == 0 || f.users == 0 {
		f.fill()
	}
	before := processorTime(b)
	for i, packet := range f.packets {
		f.in.packet(packet, false, "")
		if i%64 == 63 {
			f.in.end()
		}
	}
	f.in.end()
	for f.rows && !f.written(b) {
		time.Sleep(50 * time.Millisecond)
	}
	return float64(processorTime(b)-before) / feedLines
}

// written reports whether all rows are.
func (f *feed) written(b *testing.B) bool {
	for _, r := range f.engine.Readings(nil) {
		switch {
		case r.Name == "analytics.raw.rows.queued":
			return r.Value == 0
		case r.Name == "analytics.raw.rows.dropped" && r.Value > 0:
			b.Fatalf("%v rows were dropped", r.Value)
		}
	}
	return true
}

// processorTime returns how long all threads have run.
func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// openAnalytics returns an engine with the definitions of plan's tests.
func openAnalytics(t testing.TB, rows bool) *analytics.Engine {
	t.Helper()
	p, err := plan.Load("../../analytics/plan/testdata/sound", plan.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	cfg := analytics.DefaultConfig()
	if cfg.StateDir = t.TempDir(); !rows {
		cfg.Raw.Format = raw.FormatNone
	}
	e, err := analytics.New(cfg, p, slog.New(slog.DiscardHandler))
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
	t.Cleanup(func() {
		stop()
		<-ended
		_ = e.Close()
	})
	return e
}
