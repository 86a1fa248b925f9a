package cardinality

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
)

// counterOf returns a candidate for a counter.
func counterOf(name string, tags ...string) *metric.Candidate {
	c := &metric.Candidate{Kind: metric.Counter, Name: []byte(name)}
	for _, tag := range tags {
		c.Tags = append(c.Tags, []byte(tag))
	}
	return c
}

// A metric that can neither fold nor get a sketch is refused without a look at all of its
// contexts each time.
func TestRefusalsWithoutMemoryAreCheap(t *testing.T) {
	cfg := DefaultConfig()
	cfg.MaxContextsPerMetric = 10
	g := New(cfg, slog.New(slog.DiscardHandler))
	looks := 0
	g.SetMembers(func(metric.Kind, uint32, func(metric.Member)) { looks++ })
	g.memory.Store(maxSketchBytes)
	for i := range 1000 {
		g.Admit(counterOf("a", fmt.Sprintf("service:%d", i)))
	}
	if n := g.counts.refused.Load(); n != 990 || looks > 2 {
		t.Errorf("%d candidates were refused with %d looks at all contexts, want 990 with one", n, looks)
	}
}

// Long names take the guard's memory only up to a bound.
func TestNamesAreBounded(t *testing.T) {
	g := New(DefaultConfig(), slog.New(slog.DiscardHandler))
	const long = 8 << 10
	for i := range 2 * maxTrackedBytes / long {
		c := counterOf(strings.Repeat("n", long-10) + fmt.Sprintf("%010d", i))
		if _, _, why := g.Admit(c); why != metric.Accepted {
			t.Fatalf("refused: %v", why)
		}
	}
	if n := g.names.Load(); n > maxTrackedBytes || g.counts.untracked.Load() == 0 {
		t.Errorf("names take %d bytes", n)
	}
}
