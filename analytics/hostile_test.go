package analytics

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/weir-agent/weir/internal/testkit"
)

// Whatever numbers clients send, sums are numbers: of a day, of several, of all time, and
// after a restart.
func TestSumsStayNumbers(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.IncludeToday = true })
	h.change(map[string]string{
		"events/paid.yml": `
event: invoice.paid
description: Somebody paid an invoice of the shop.
attributes: {amount: {type: float, role: value}}
`,
		"metrics/paid.yml": `
key_path: usage.paid
description: What was paid for all invoices together.
time_frame: [1d, 7d, all]
events: [{name: invoice.paid, operator: sum(amount)}]
`}, nil)
	yesterday := h.now.Unix() - secondsPerDay
	for _, amount := range []string{"0", "1.7e308"} {
		h.send("analytics.invoice.paid:4294967296|c|@1e-300|#amount:"+amount, "analytics.invoice.paid:4294967296|c|#amount:"+amount,
			fmt.Sprintf("analytics.invoice.paid:4294967296|c|@1e-300|#amount:%s|T%d", amount, yesterday))
	}
	check := func() {
		t.Helper()
		for _, frame := range []string{"1d", "7d", "all"} {
			v := h.value("usage.paid." + frame)
			if v.Value == nil || math.IsInf(*v.Value, 0) || !(*v.Value >= maxTotal) {
				t.Errorf("%s is %v, %s", v.Name, v.Value, v.Status)
			}
		}
	}
	check()
	h.stop()
	h.start()
	check()
	if _, err := ReadReport(h.cfg.StateDir); err != nil {
		t.Error(err)
	}
	h.send("analytics.invoice.paid:1|c|#amount:-1.7e308")
	if text, err := json.Marshal(h.value("usage.paid.all")); err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

// A file that is damaged while the agent runs is begun anew with all that is in memory:
// what was counted, since when, and the name that the host has in Redis, under which its
// totals are.
func TestDamageWhileRunning(t *testing.T) {
	server := testkit.StartRedis(t)
	h := newFleet(t, 1, server)[0]
	h.now = h.now.AddDate(0, 0, -2)
	h.stop()
	if err := os.Remove(filepath.Join(h.cfg.StateDir, storeName)); err != nil {
		t.Fatal(err)
	}
	h.start() // two days ago
	h.users("team.created", 0, 10, ",seats:2")
	h.tick()
	h.now = h.now.AddDate(0, 0, 2)
	h.users("team.created", 0, 20, ",seats:2")
	h.tick()
	round(h)
	instance := h.engine.share.instance
	path := filepath.Join(h.cfg.StateDir, storeName)
	if err := os.Truncate(path, 2*4096); err != nil {
		t.Fatal(err)
	}
	h.users("team.created", 20, 30, ",seats:2")
	h.tick()
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
		t.Fatalf("nothing was set aside: %v\n%s", aside, h.log.String())
	}
	h.stop()
	h.start()
	if h.engine.share.instance != instance {
		t.Error("after a restart the host has another name in Redis")
	}
	h.want("usage.creators.1d", 30)
	h.want("usage.creators.7d", 30)
	if v := h.value("usage.creators.7d"); v.Observed != 3 {
		t.Errorf("%d days were observed, want 3", v.Observed)
	}
	values := forAll(t, []*host{h})
	if got := number(t, values, "usage.teams.7d"); got != 40 {
		t.Errorf("the fleet counted %v teams, want 40", got)
	}
}

// A clock that was years ahead for hours has erased what was old by it, and no more:
// once it is right again windows that begin from then on have values.
func TestClockThatWasWrongForHours(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	hours := func() {
		for range 2 * steadyFor / tickEvery {
			h.now = h.now.Add(tickEvery)
			h.engine.drain(h.now)
			h.engine.keepHouse(h.now)
		}
	}
	h.users("team.created", 0, 10, "")
	h.tick()
	h.at("2028-01-01")
	hours()
	h.at("2026-03-11 12:00")
	h.users("team.created", 0, 20, "")
	hours()
	h.at("2026-03-12")
	h.want("usage.creators.1d", 20)
	if v := h.value("usage.creators.7d"); v.Status != StatusExpired {
		t.Errorf("a window with days that were erased is %v, %s", v.Value, v.Status)
	}
	h.stop()
	h.start()
	h.want("usage.creators.1d", 20)
	h.at("2026-04-30 12:00")
	hours()
	if want := date(t, "2026-04-30") - 40; h.engine.erased != want {
		t.Errorf("days before %v are erased, want %v", h.engine.erased, want)
	}
}
