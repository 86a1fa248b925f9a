package analytics

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/report"
)

// A report has the values as of its time, those of the window before, and the days.
func TestRows(t *testing.T) {
	h := newHost(t, "2026-03-01 12:00")
	users := map[string]int{"2026-03-01": 3, "2026-03-02": 5, "2026-03-08": 2, "2026-03-09": 4}
	for day := 1; day <= 16; day++ {
		h.at(fmt.Sprintf("2026-03-%02d 12:00", day))
		h.tick()
		for user := range users[h.now.Format("2006-01-02")] {
			h.send(fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,plan:pro", day*100+user))
		}
	}
	h.tick()
	all := func(string) bool { return true }
	find := func(name string, rows []report.Row) *report.Row {
		for i := range rows {
			if rows[i].Name == name {
				return &rows[i]
			}
		}
		t.Fatalf("there is no %s in %v", name, rows)
		return nil
	}
	at := h.now
	h.at("2026-03-15 06:00")
	rows := h.rows(h.now, all, true)
	total := find("usage.teams.7d", rows) // 8 to 14, and 1 to 7 before
	if total.First != "2026-03-08" || *total.Value != 6 || total.Previous == nil || total.Previous.First != "2026-03-01" || *total.Previous.Value != 8 {
		t.Errorf("7d: %+v, before: %+v", total, total.Previous)
	}
	if n := len(total.Daily); n != chartDays || total.Daily[n-1].Day != "2026-03-14" || total.Daily[n-6].Value == nil || *total.Daily[n-6].Value != 4 {
		t.Errorf("days: %+v", total.Daily)
	}
	if total.Daily[0].Value != nil {
		t.Errorf("a day before the agent was there: %+v", total.Daily[0])
	}
	if got := total.Versions; len(got) != 1 || got["team.created"] == "" {
		t.Errorf("versions: %v", got)
	}
	if ever := find("usage.teams.all", rows); ever.Previous != nil || ever.First != "" {
		t.Errorf("all: %+v", ever)
	}
	for _, r := range rows {
		if r.Previous != nil && (r.Previous.Last >= r.First || r.Previous.Days != r.Days && r.Frame != "month") {
			t.Errorf("%s: %s to %s, before %s to %s", r.Name, r.First, r.Last, r.Previous.First, r.Previous.Last)
		}
	}
	h.now = at
	before := len(h.engine.Values())
	h.engine.compute(at)
	if len(h.engine.Values()) != before {
		t.Error("a report changed the values")
	}
	if rows := h.rows(at, func(name string) bool { return name == "usage.teams" }, false); len(rows) != 3 || rows[0].Previous != nil {
		t.Errorf("chosen: %+v", rows)
	}
}

// rows returns the rows of a report.
func (h *host) rows(at time.Time, matches func(string) bool, previous bool) []report.Row {
	h.t.Helper()
	rows, hosts, err := h.engine.Rows(h.t.Context(), report.Query{At: at, Matches: matches, Previous: previous})
	if err != nil || hosts != (report.Hosts{Seen: 1, Expected: 1}) {
		h.t.Fatalf("%+v, %v", hosts, err)
	}
	return rows
}

// With windows that end with today, so do those of a report.
func TestRowsWithToday(t *testing.T) {
	h := newHost(t, "2026-03-15 12:00", func(c *Config) { c.IncludeToday = true })
	h.send("analytics.team.created:1|c|#user_id:1,plan:pro")
	rows := h.rows(h.now, func(name string) bool { return name == "usage.teams" }, true)
	for _, r := range rows {
		if r.Frame == "7d" && (*r.Value != 1 || r.Last != "2026-03-15" || r.First != "2026-03-09" || r.Previous.Last != "2026-03-08" || r.Previous.First != "2026-03-02") {
			t.Errorf("%+v, before %+v", r, r.Previous)
		}
	}
	if days := rows[0].Daily; days[chartDays-1].Day != "2026-03-15" || *days[chartDays-1].Value != 1 {
		t.Errorf("days: %+v", days)
	}
}
