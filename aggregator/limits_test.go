package aggregator

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// Few contexts may be as large as many: their names and tags are bounded, too.
func TestLongNamesAreBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxContexts = 1000
	a := newForTest(cfg, 1)
	const length = 60_000
	for i := range 1000 {
		a.sendForTest(0, fmt.Sprintf("%d%s:1|c", i, strings.Repeat("x", length)))
	}
	s := a.Stats()
	want := (freeKeyBytes + 1000*keyBytesPerContext) / length
	if s.Contexts > want || s.Contexts < want-5 || s.Refused[metric.ContextLimit] != uint64(1000-s.Contexts) {
		t.Errorf("%d contexts, %d refused, want about %d contexts", s.Contexts, s.Refused[metric.ContextLimit], want)
	}
}

// What is handed on as it is waits within bounds, of number and of memory, and the
// next interval has room again.
func TestPassedOnIsBounded(t *testing.T) {
	long := strings.Repeat("x", 50_000)
	tests := map[string]struct {
		line    string
		sent    int
		least   int // that get through
		most    int
		refused func(s *Stats) uint64
	}{
		"points":        {"a:1|g|T%d", maxPassed + 10, maxPassed, maxPassed, func(s *Stats) uint64 { return s.Refused[metric.TimestampLimit] }},
		"large points":  {"a:1|g|T1|#%d" + long, 2000, 1300, 1400, func(s *Stats) uint64 { return s.Refused[metric.TimestampLimit] }},
		"events":        {"_e{1,1}:a|b|k:%d", maxEvents + 10, maxEvents, maxEvents, func(s *Stats) uint64 { return s.RefusedEvents }},
		"large events":  {"_e{1,1}:a|b|#%d" + long, 1000, 650, 700, func(s *Stats) uint64 { return s.RefusedEvents }},
		"checks":        {"_sc|a%d|0", maxChecks + 10, maxChecks, maxChecks, func(s *Stats) uint64 { return s.RefusedChecks }},
		"large message": {"_sc|a%d|0|m:" + long, 1000, 650, 700, func(s *Stats) uint64 { return s.RefusedChecks }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			a := newForTest(DefaultConfig(), 1)
			for interval := range 2 {
				before := a.Stats()
				for i := range test.sent {
					a.sendForTest(0, fmt.Sprintf(test.line, i+1))
				}
				b := a.flusher.flush(aligned(a.started, a.cfg.FlushInterval), nil)
				through := int(b.Points())
				s := a.Stats()
				refused := test.refused(&s) - test.refused(&before)
				if through < test.least || through > test.most || through+int(refused) != test.sent {
					t.Errorf("interval %d: %d of %d got through, %d refused; want %d to %d", interval, through, test.sent, refused, test.least, test.most)
				}
			}
		})
	}
}

// A line with a time never comes again: it is not remembered, and each is counted.
func TestTimesAreNotRemembered(t *testing.T) {
	a := newForTest(DefaultConfig(), 1)
	for range 3 {
		a.sendForTest(0, "took:1|ms|T1700000000")
	}
	if s := a.Stats(); s.IgnoredTimes != 3 || s.Identities != 0 || s.Contexts != 1 || s.Aggregated != 3 {
		t.Errorf("%d times ignored, %d identities, %d contexts, %d aggregated", s.IgnoredTimes, s.Identities, s.Contexts, s.Aggregated)
	}
}

// Kept gauges last long, but make room when contexts run out.
func TestKeptGaugesMakeRoom(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxContexts = 100
	cfg.Expiry.Context = cfg.FlushInterval
	p := parser.New(parser.Config{Dialect: parser.DialectStatsD, TagStyle: parser.TagsDogStatsD})
	a := New(cfg, []Describe{p.Describe}, slog.New(slog.DiscardHandler))
	send := func(from, to int) {
		for i := from; i < to; i++ {
			var lines metric.Lines
			p.Packet(fmt.Appendf(nil, "gauge%d:1|g", i), false, &lines)
			a.Worker(0).Add(&lines)
		}
	}
	send(0, 50)
	for range 3 {
		a.flusher.flush(a.started, nil)
	}
	if n := a.Stats().Contexts; n != 50 {
		t.Errorf("%d gauges of 50 are kept", n)
	}
	send(50, 100)
	for range 3 {
		a.flusher.flush(a.started, nil)
	}
	if n := a.Stats().Contexts; n != 50 {
		t.Errorf("%d gauges are kept; want the 50 that are not older than expiry.context says", n)
	}
}

// A kept gauge that is changed while it is about to be forgotten stays.
func TestKeptGaugeIsSpared(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Expiry.KeptGauge = cfg.FlushInterval
	p := parser.New(parser.Config{Dialect: parser.DialectStatsD, TagStyle: parser.TagsDogStatsD})
	a := New(cfg, []Describe{p.Describe}, slog.New(slog.DiscardHandler))
	send := func(line string) {
		var lines metric.Lines
		p.Packet([]byte(line), false, &lines)
		a.Worker(0).Add(&lines)
	}
	send("load:5|g")
	a.flusher.flush(a.started, nil)
	// A flush by hand, with a sample right after the swap.
	f := a.flusher
	f.intervals++
	a.workers[0].swap()
	send("load:+1|g")
	m := merge{flusher: f, batch: &metric.Batch{}}
	mergeFamily(&m, keptGauges, func(c *columns) *column[keptGauge] { return &c.keptGauges }, m.keptGauge)
	f.expire()
	if b := f.flush(a.started, nil); len(b.Series) != 1 || b.Series[0].Value != 6 {
		t.Errorf("series = %+v, want load = 6", b.Series)
	}
}

// Changes of one packet after another by one reader add up, however many.
func TestManyChangesOfAKeptGauge(t *testing.T) {
	var k keptGauge
	for i := range int64(1000) {
		k.change(1, i+1)
	}
	if got := level(0, []*keptGauge{&k}); got != 1000 || len(k.changes) > maxChanges {
		t.Errorf("level %v, %d changes held", got, len(k.changes))
	}
}
