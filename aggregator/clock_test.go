package aggregator

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	at := func(text string) time.Time {
		parsed, err := time.Parse("15:04:05.999", text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed.AddDate(2026, 10, 20)
	}
	const interval = 10 * time.Second
	tests := []struct {
		name         string
		start, now   string
		next         string
		jumped, skew bool
	}{
		{name: "on time", start: "10:00:00", now: "10:00:10.001", next: "10:00:10"},
		{name: "a slow flush", start: "10:00:00", now: "10:00:19", next: "10:00:10"},
		{name: "an interval was missed", start: "10:00:00", now: "10:00:21", next: "10:00:20", jumped: true},
		{name: "the machine slept", start: "10:00:00", now: "11:30:05", next: "11:30:00", jumped: true},
		{name: "set back a little", start: "10:00:00", now: "09:59:55", next: "10:00:10"},
		{name: "set back far", start: "10:00:00", now: "09:00:05", next: "09:00:00", jumped: true, skew: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := newClock(interval, at(test.start))
			if got := c.farBehind(at(test.now)); got != test.skew {
				t.Errorf("farBehind = %v, want %v", got, test.skew)
			}
			jumped := c.next(at(test.now))
			if !c.start.Equal(at(test.next)) || jumped != test.jumped {
				t.Errorf("next = %v, %v; want %v, %v", c.start.Format("15:04:05"), jumped, test.next, test.jumped)
			}
		})
	}
}

func TestClockIsAligned(t *testing.T) {
	for interval, want := range map[time.Duration]string{
		time.Second: "10:00:37", 10 * time.Second: "10:00:30", 15 * time.Second: "10:00:30", time.Minute: "10:00:00",
	} {
		now := time.Date(2026, 11, 21, 10, 0, 37, 900, time.FixedZone("x", 3600))
		if got := aligned(now, interval).In(now.Location()).Format("15:04:05"); got != want {
			t.Errorf("every %v: %s, want %s", interval, got, want)
		}
	}
}
