package analytics

import (
	"fmt"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
)

// day is a date of the civil calendar, in days since 1 January 1970.
type day int32

const secondsPerDay = 86400

// dayOf returns the date that a moment has in a zone.
func dayOf(unix int64, zone *time.Location) day {
	if zone == time.UTC {
		d := unix / secondsPerDay
		if unix%secondsPerDay < 0 {
			d--
		}
		return day(d)
	}
	year, month, date := time.Unix(unix, 0).In(zone).Date()
	return dateOf(year, month, date)
}

func dateOf(year int, month time.Month, date int) day {
	return day(time.Date(year, month, date, 0, 0, 0, 0, time.UTC).Unix() / secondsPerDay)
}

// utc returns the midnight of the same date in UTC.
func (d day) utc() time.Time { return time.Unix(int64(d)*secondsPerDay, 0).UTC() }

// end returns the moment, in Unix seconds, at which the date is over in a zone: when
// the next one begins. Where a change of the clocks leaves midnight out it is the
// first moment after it.
func (d day) end(zone *time.Location) int64 {
	year, month, date := (d + 1).utc().Date()
	at := time.Date(year, month, date, 0, 0, 0, 0, zone).Unix()
	for dayOf(at, zone) <= d { // midnight was left out, and time.Date took the hour before
		at += 900
	}
	return at
}

func (d day) String() string { return d.utc().Format(time.DateOnly) }

// MarshalText is String, for encoders.
func (d day) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *day) UnmarshalText(text []byte) error {
	t, err := time.Parse(time.DateOnly, string(text))
	if err == nil {
		*d = dateOf(t.Date())
	}
	return err
}

// monday returns the first day of the ISO week that d is in. 1 January 1970 was a
// Thursday.
func (d day) monday() day {
	since := (d + 3) % 7
	if since < 0 {
		since += 7
	}
	return d - since
}

// firstOfMonth returns the first day of d's month.
func (d day) firstOfMonth() day {
	year, month, _ := d.utc().Date()
	return dateOf(year, month, 1)
}

// window is the days that a value covers, both ends included.
type window struct {
	First day `json:"first"`
	Last  day `json:"last"`
}

func (w window) days() int { return int(w.Last-w.First) + 1 }

// forever is the first day of a window that has no beginning.
const forever day = -1 << 31

// windowOf returns the days of a time frame as of today: the last complete ones, or
// with running those that end with today. Complete weeks of gitlab_weeks stay complete.
//
//	rolling 7d            the 7 days before today
//	calendar week, month  the last whole ISO week or month
//	gitlab_weeks 7d, 28d  the last whole ISO week, the last four
func windowOf(kind plan.Window, frame plan.TimeFrame, today day, running bool) window {
	last := today - 1
	if running {
		last = today
	}
	back := func(days day) window { return window{last - days + 1, last} }
	monday := today.monday()
	switch {
	case frame == plan.FrameAll:
		return window{forever, today}
	case kind == plan.GitLabWeeks && frame == plan.Frame7d:
		return window{monday - 7, monday - 1}
	case kind == plan.GitLabWeeks && frame == plan.Frame28d:
		return window{monday - 28, monday - 1}
	case frame == plan.Frame1d:
		return back(1)
	case frame == plan.Frame7d:
		return back(7)
	case frame == plan.Frame28d:
		return back(28)
	case frame == plan.FrameWeek && running:
		return window{monday, today}
	case frame == plan.FrameWeek:
		return window{monday - 7, monday - 1}
	case frame == plan.FrameMonth && running:
		return window{today.firstOfMonth(), today}
	case frame == plan.FrameMonth:
		end := today.firstOfMonth() - 1
		return window{end.firstOfMonth(), end}
	}
	panic(fmt.Sprintf("BUG: no window %s of %s", kind, frame))
}

// period is a stretch of time in which the date does not change in any zone in use.
type period struct {
	from, until int64 // Unix seconds, until not included
	days        []day // by zone
}

func (p *period) holds(unix int64) bool { return p.from <= unix && unix < p.until }

// periodAt returns the period of a moment.
func periodAt(unix int64, zones []*time.Location) *period {
	p := &period{from: -1 << 62, until: 1 << 62, days: make([]day, len(zones))}
	for i, zone := range zones {
		d := dayOf(unix, zone)
		p.days[i] = d
		p.from = max(p.from, (d - 1).end(zone))
		p.until = min(p.until, d.end(zone))
	}
	return p
}
