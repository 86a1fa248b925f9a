package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

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
// of events that each say who they are. Plain counters are measured with and without
// definitions.
func BenchmarkEvent(b *testing.B) {
	const tags = "user_id:%d,organization_id:%d,plan:pro"
	for _, test := range []struct {
		name     string
		format   string
		enabled  bool
		contexts int // 0: all new
		raw      bool
	}{
		{"plain", "web.requests:1|c|#" + tags, false, 1000, false},
		{"plain_with_definitions", "web.requests:1|c|#" + tags, true, 1000, true},
		{"plain_one", "web.requests:1|c|#" + tags, false, 1, false},
		{"known_user", "analytics.team.created:1|c|#" + tags, true, 1000, false},
		{"known_user_raw", "analytics.team.created:1|c|#" + tags, true, 1000, true},
		{"known_user_one", "analytics.team.created:1|c|#" + tags, true, 1, false},
		{"known_user_one_raw", "analytics.team.created:1|c|#" + tags, true, 1, true},
		{"plain_new", "web.requests:1|c|#" + tags, false, 0, false},
		{"new_user", "analytics.team.created:1|c|#" + tags, true, 0, false},
		{"new_user_raw", "analytics.team.created:1|c|#" + tags, true, 0, true},
		{"with_id", "analytics.team.created:1|c|#" + tags + ",_id:%[1]d", true, 0, false},
		{"with_id_raw", "analytics.team.created:1|c|#" + tags + ",_id:%[1]d", true, 0, true},
	} {
		b.Run(test.name, func(b *testing.B) {
			p := parser.New(parser.DefaultConfig())
			log := slog.New(slog.DiscardHandler)
			cfg := config.Default()
			a := newAggregator(cfg, []aggregator.Describe{p.Describe}, cardinality.New(cfg.Cardinality, log), log)
			if test.enabled {
				connectAnalytics(a, openAnalytics(b, test.raw))
			}
			in := intake{parser: p, worker: a.Worker(0)}
			user := 0
			fill := func(packets [][]byte) {
				for i := range packets {
					packets[i] = packets[i][:0]
					for range 20 {
						n := user
						if user++; test.contexts > 0 {
							n %= test.contexts
						}
						packets[i] = append(fmt.Appendf(packets[i], test.format, n, n%50), '\n')
					}
				}
			}
			packets := make([][]byte, 50)
			fill(packets)
			run := func() {
				for i, packet := range packets {
					in.packet(packet, false, "")
					if i%64 == 63 {
						in.end()
					}
				}
				in.end()
			}
			run()
			b.ReportAllocs()
			for b.Loop() {
				if test.contexts == 0 {
					b.StopTimer()
					fill(packets)
					b.StartTimer()
				}
				run()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/line")
		})
	}
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
