package analytics

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
)

func date(t testing.TB, text string) day {
	t.Helper()
	var d day
	if err := d.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return d
}

// The days of a window, whatever the calendar does: a leap day, a week 53, New Year.
func TestWindows(t *testing.T) {
	tests := []struct {
		window  plan.Window
		frame   plan.TimeFrame
		today   string
		running bool
		want    string
	}{
		{plan.Rolling, plan.Frame1d, "2026-03-11", false, "2026-03-10 2026-03-10"},
		{plan.Rolling, plan.Frame1d, "2026-03-11", true, "2026-03-11 2026-03-11"},
		{plan.Rolling, plan.Frame7d, "2026-03-11", false, "2026-03-04 2026-03-10"},
		{plan.Rolling, plan.Frame7d, "2028-03-03", false, "2028-02-25 2028-03-02"}, // over a leap day
		{plan.Rolling, plan.Frame7d, "2026-03-03", true, "2026-02-25 2026-03-03"},
		{plan.Rolling, plan.Frame28d, "2028-03-01", false, "2028-02-02 2028-02-29"},
		{plan.Rolling, plan.Frame28d, "2027-01-03", false, "2026-12-06 2027-01-02"},
		{plan.Calendar, plan.Frame1d, "2028-03-01", false, "2028-02-29 2028-02-29"},
		{plan.Calendar, plan.FrameWeek, "2026-03-08", false, "2026-02-23 2026-03-01"}, // a Sunday: the week still runs
		{plan.Calendar, plan.FrameWeek, "2026-03-09", false, "2026-03-02 2026-03-08"},
		{plan.Calendar, plan.FrameWeek, "2026-03-08", true, "2026-03-02 2026-03-08"},
		{plan.Calendar, plan.FrameMonth, "2028-03-31", false, "2028-02-01 2028-02-29"},
		{plan.Calendar, plan.FrameMonth, "2026-01-01", false, "2025-12-01 2025-12-31"},
		{plan.Calendar, plan.FrameMonth, "2026-03-31", true, "2026-03-01 2026-03-31"},
		// 2026 has an ISO week 53: 28 December to 3 January.
		{plan.GitLabWeeks, plan.Frame7d, "2027-01-03", false, "2026-12-21 2026-12-27"},
		{plan.GitLabWeeks, plan.Frame7d, "2027-01-04", false, "2026-12-28 2027-01-03"},
		{plan.GitLabWeeks, plan.Frame28d, "2027-01-04", false, "2026-12-07 2027-01-03"},
		{plan.GitLabWeeks, plan.Frame28d, "2027-01-08", true, "2026-12-07 2027-01-03"},
		{plan.GitLabWeeks, plan.Frame7d, "2025-01-01", false, "2024-12-23 2024-12-29"}, // 1 January is in week 1
	}
	for _, test := range tests {
		w := windowOf(test.window, test.frame, date(t, test.today), test.running)
		if got := fmt.Sprint(w.First, " ", w.Last); got != test.want {
			t.Errorf("%s %s on %s (running %v): %s, want %s", test.window, test.frame, test.today, test.running, got, test.want)
		}
	}
}

// Over many years: weeks of gitlab_weeks are ISO weeks, those before the running one.
func TestWeeksAreISOWeeks(t *testing.T) {
	for today := date(t, "1999-12-20"); today < date(t, "2044-01-20"); today++ {
		w := windowOf(plan.GitLabWeeks, plan.Frame7d, today, false)
		year, week := w.First.utc().ISOWeek()
		lastYear, lastWeek := w.Last.utc().ISOWeek()
		wantYear, wantWeek := (today - 7).utc().ISOWeek()
		if w.days() != 7 || year != lastYear || week != lastWeek || year != wantYear || week != wantWeek {
			t.Fatalf("on %s the last week is %s to %s", today, w.First, w.Last)
		}
	}
}

// A period ends where the date changes in one of its zones, and nowhere else.
func TestPeriodsEndAtMidnight(t *testing.T) {
	var zones []*time.Location
	for _, name := range []string{"UTC", "Europe/Berlin", "Asia/Kathmandu", "America/Sao_Paulo", "Pacific/Apia", "America/St_Johns"} {
		zone, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		zones = append(zones, zone)
	}
	random := rand.New(rand.NewPCG(1, 2))
	start, end := date(t, "2011-12-20"), date(t, "2012-01-10") // Samoa left out 30 December 2011
	for range 3000 {
		at := int64(start)*secondsPerDay + random.Int64N(int64(end-start)*secondsPerDay)
		if random.IntN(2) == 0 { // Brazil left out midnight when summer time began
			at = int64(date(t, "2018-11-01"))*secondsPerDay + random.Int64N(10*secondsPerDay)
		}
		p := periodAt(at, zones)
		if !p.holds(at) {
			t.Fatalf("the period of %d is %d to %d", at, p.from, p.until)
		}
		for i, zone := range zones {
			for _, moment := range []int64{p.from, at, p.until - 1} {
				if got := dayOf(moment, zone); got != p.days[i] {
					t.Fatalf("%s: the date at %d is %s, at %d it is %s, in one period", zone, at, p.days[i], moment, got)
				}
			}
		}
		changed := false
		for i, zone := range zones {
			changed = changed || dayOf(p.until, zone) != p.days[i]
		}
		if !changed {
			t.Fatalf("the period of %d ends at %d, where no date changes", at, p.until)
		}
	}
}

// Weeks over the turn of a year with an ISO week 53, day by day.
func TestWeek53(t *testing.T) {
	h := newHost(t, "2026-12-21 12:00")
	for d := date(t, "2026-12-21"); d < date(t, "2027-01-12"); d++ {
		h.at(d.String() + " 12:00")
		user := int(d - date(t, "2026-12-21")) // a new one every day
		h.users("team.created", user, user+1, "")
		h.tick()
		switch d.String() {
		case "2026-12-27":
			h.want("usage.weeks.7d", 0)
		case "2026-12-28", "2027-01-03":
			h.want("usage.weeks.7d", 7)
			h.want("usage.weeks.28d", 7)
		case "2027-01-04", "2027-01-10":
			h.want("usage.weeks.7d", 7)
			h.want("usage.weeks.28d", 14)
			h.want("usage.calendar.week", 7)
			h.want("usage.calendar.month", 11)
		case "2027-01-11":
			h.want("usage.weeks.28d", 21)
		}
	}
}

func TestLeapDay(t *testing.T) {
	h := newHost(t, "2028-02-28 12:00")
	h.users("team.created", 0, 1, "")
	h.at("2028-02-29 12:00")
	h.users("team.created", 1, 3, "")
	h.at("2028-03-01 00:00:10")
	h.want("usage.creators.1d", 2)
	h.want("usage.creators.7d", 3)
	h.want("usage.calendar.month", 3)
	h.users("team.created", 7, 8, "")
	h.at("2028-03-07 12:00")
	h.want("usage.creators.7d", 3) // 29 February to 6 March
	h.at("2028-03-08 12:00")
	h.want("usage.creators.7d", 1)
}
