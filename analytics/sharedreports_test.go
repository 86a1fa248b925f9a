package analytics

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/report"
	"github.com/weir-agent/weir/internal/testkit"
)

// A report of hosts that share counts is of all of them, also of days that are over, and
// says how many they are; the host that speaks for all makes it.
func TestReportsOfAllHosts(t *testing.T) {
	server := testkit.StartRedis(t)
	today := newFleet(t, 1, server)[0].now
	hosts := make([]*host, 3)
	for i := range hosts {
		h := newHost(t, today.AddDate(0, 0, -5).Format("2006-01-02 15:04"), sharing(server))
		hosts[i] = h
		for back := 5; back >= 0; back-- {
			h.at(today.AddDate(0, 0, -back).Format("2006-01-02 15:04"))
			h.users("team.created", 100*i, 100*i+150, ",plan:pro,seats:2")
			h.tick()
			round(h)
		}
	}
	var sharing sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	defer sharing.Wait()
	defer stop()
	for _, h := range hosts {
		sharing.Go(func() { h.engine.share.run(ctx) })
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		makers := 0
		for _, h := range hosts {
			if _, mine, err := h.engine.Fleet().Done(ctx, "weekly"); err == nil && mine {
				makers++
			}
		}
		if makers == 1 {
			break
		}
		if makers > 1 || time.Now().After(deadline) {
			t.Fatalf("%d hosts make reports", makers)
		}
	}
	for _, h := range hosts {
		for back, days := range map[int]float64{0: 6, 1: 5, 4: 2} {
			q := report.Query{At: today.AddDate(0, 0, -back), Matches: func(string) bool { return true }}
			rows, seen, err := h.engine.Rows(ctx, q)
			if err != nil || seen != (report.Hosts{Seen: 3, Expected: 3}) {
				t.Fatalf("%+v, %v", seen, err)
			}
			for _, r := range rows {
				want := map[string]float64{"usage.teams.7d": 450 * days, "usage.creators.7d": 350}[r.Name]
				if want > 0 && (r.Value == nil || *r.Value < 0.98*want || *r.Value > 1.02*want || r.Scope != "fleet") {
					t.Errorf("%d days ago: %+v, want %v", back, r, want)
				}
				if r.Name == "usage.teams.7d" && (r.Daily[chartDays-1].Value == nil || *r.Daily[chartDays-1].Value != 450) {
					t.Errorf("%d days ago: %+v", back, r.Daily)
				}
			}
		}
	}
	period := time.Unix(1795258450, 0)
	if err := hosts[0].engine.Fleet().SetDone(ctx, "weekly", period); err != nil {
		t.Fatal(err)
	}
	if done, _, err := hosts[2].engine.Fleet().Done(ctx, "weekly"); err != nil || !done.Equal(period) {
		t.Errorf("done is %v, %v", done, err)
	}
}
