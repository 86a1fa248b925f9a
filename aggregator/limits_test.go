package aggregator

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
)

// Few contexts may be as large as many: their names and tags are bounded, too.
func TestLongNamesAreBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Cardinality.MaxContexts = 1000
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
