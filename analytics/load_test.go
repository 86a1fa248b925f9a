package analytics_test

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// kept is an Occurrence as the aggregator sees it.
type kept struct{ *analytics.Occurrence }

func (k kept) Keep() aggregator.Event {
	if o := k.Occurrence.Keep(); o != nil {
		return kept{o}
	}
	return nil
}

// Over midnights, with readers that send while counts are drained, saved and
// computed: nothing is lost, nothing counts twice, and the counter, the totals, the
// outcomes and the users agree.
func TestNothingIsLostBetweenReadersAndDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := plan.Load("plan/testdata/sound", plan.DefaultOptions())
		if err != nil {
			t.Fatal(err)
		}
		cfg := analytics.DefaultConfig()
		cfg.StateDir = t.TempDir()
		cfg.IncludeToday = true
		log := slog.New(slog.DiscardHandler)
		engine, err := analytics.New(cfg, p, log)
		if err != nil {
			t.Fatal(err)
		}
		const readers = 3
		line := parser.New(parser.DefaultConfig())
		var describe []aggregator.Describe
		for range readers {
			describe = append(describe, line.Describe)
		}
		aggregation := aggregator.DefaultConfig()
		aggregation.FlushInterval = 10 * time.Minute
		aggregation.Expiry.Context = time.Hour
		a := aggregator.New(aggregation, describe, log)
		a.SetEvents(func() aggregator.ResolveEvent {
			in := engine.NewIntake()
			return func(id *metric.Identity, now int64) (aggregator.Event, bool) {
				if o := in.Resolve(id, now); o != nil {
					return kept{o}, true
				}
				return nil, false
			}
		}, engine.Gauges)

		ctx, cancel := context.WithCancel(t.Context())
		batches := make(chan *metric.Batch, 1)
		ended := make(chan error, 1)
		go func() { ended <- engine.Run(ctx) }()
		go func() {
			defer close(batches)
			a.Run(ctx, engine.Readings, batches)
		}()
		var counted float64
		var gauge float64
		received := make(chan struct{})
		go func() {
			defer close(received)
			for b := range batches {
				for i := range b.Series {
					s := &b.Series[i]
					switch b.Context(s).Name() {
					case "team.created":
						counted += s.Value * b.Interval.Seconds()
					case "usage.teams.users.7d":
						gauge = s.Value
					}
				}
			}
		}()

		users := make([]map[int]bool, readers)
		var senders sync.WaitGroup
		sent := make([]int, readers)
		for reader := range readers {
			users[reader] = map[int]bool{}
			senders.Go(func() {
				random := rand.New(rand.NewPCG(uint64(reader), 9))
				var lines metric.Lines
				for range 1500 {
					for range 5 {
						user, n := random.IntN(3000), 1+random.IntN(2)
						text := fmt.Sprintf("analytics.team.created:%d|c|#user_id:%d,plan:pro", n, user)
						if random.IntN(10) == 0 {
							n = 1
							text = fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,plan:pro,_id:%d", user, random.Uint64())
						}
						users[reader][user] = true
						sent[reader] += n
						line.Packet([]byte(text), false, &lines)
					}
					a.Worker(reader).Add(&lines)
					lines.Reset()
					time.Sleep(time.Duration(random.IntN(200)) * time.Second)
				}
			})
		}
		senders.Wait()
		time.Sleep(time.Minute)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		<-received
		var want float64
		all := map[int]bool{}
		for reader := range readers {
			want += float64(sent[reader])
			for user := range users[reader] {
				all[user] = true
			}
		}
		if math.Abs(counted-want) > 1e-3 {
			t.Errorf("the counter has %v, want %v", counted, want)
		}
		if math.Abs(gauge-float64(len(all))) > 0.02*float64(len(all)) {
			t.Errorf("the gauge has %v users, want %d", gauge, len(all))
		}
		r, err := analytics.ReadReport(cfg.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range r.Events {
			if e.Event == "team.created" && e.Outcomes["ok"] != readers*1500*5 {
				t.Errorf("%d lines are ok, want %d", e.Outcomes["ok"], readers*1500*5)
			}
		}
		total := 0.0
		for d, n := range engine.Totals("team.created") {
			if n <= 0 {
				t.Errorf("%s has %v", d, n)
			}
			total += n
		}
		if total != want {
			t.Errorf("the days have %v events, want %v", total, want)
		}
	})
}
