package aggregator

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

var dogstatsd = parser.New(parser.DefaultConfig())

// describers returns the describers of so many workers.
func describers(workers int) []Describe {
	return slices.Repeat([]Describe{dogstatsd.Describe}, workers)
}

func newForTest(cfg Config, workers int) *Aggregator {
	return New(cfg, describers(workers), slog.New(slog.DiscardHandler))
}

func (a *Aggregator) sendForTest(worker int, packet string) {
	var lines metric.Lines
	dogstatsd.Packet([]byte(packet), false, &lines)
	a.Worker(worker).Add(&lines)
}

// An identity that the table has no room for is looked up anew each time. If such
// a sample comes while its context is about to be forgotten, the context stays.
func TestSampleDuringExpirySparesItsContext(t *testing.T) {
	cfg := DefaultConfig()
	cfg.FlushInterval = time.Second
	cfg.Expiry = ExpiryConfig{Context: time.Second}
	cfg.MaxContexts = 2
	a := newForTest(cfg, 1)
	fillTable := func() {
		for i := range maxIdentitiesPerContext * cfg.MaxContexts {
			a.sendForTest(0, fmt.Sprintf("busy:1|g|field%d", i))
		}
	}
	fillTable()
	a.sendForTest(0, "rare:1|g")
	if a.Stats().Unremembered != 1 {
		t.Fatalf("the table had room: %+v", a.Stats())
	}
	a.flusher.flush(time.Unix(0, 0), nil)

	// A flush by hand, with a sample right after the swap.
	f := a.flusher
	f.intervals++
	a.workers[0].swap()
	a.sendForTest(0, "rare:2|g")
	fillTable()
	m := merge{flusher: f, batch: &metric.Batch{}}
	mergeFamily(&m, gauges, func(c *columns) *column[gauge] { return &c.gauges }, m.gauge)
	f.expire()

	b := f.flush(time.Unix(2, 0), nil)
	got := map[string]float64{}
	for i := range b.Series {
		s := &b.Series[i]
		if s.Context == 0 {
			t.Fatalf("a sample lost its context: %+v", *s)
		}
		got[b.Context(s).Name()] = s.Value
	}
	if len(got) != 2 || got["rare"] != 2 {
		t.Errorf("got %v; want busy 1 and rare 2", got)
	}
}

// Memory that one busy interval took is given back after a silent one, and all of
// it when the context is forgotten: there may be a million of them.
func TestMemoryIsGivenBack(t *testing.T) {
	cfg := DefaultConfig()
	cfg.FlushInterval = time.Second
	cfg.Expiry = ExpiryConfig{Context: 2 * time.Second}
	a := newForTest(cfg, 1)
	for i := range 1000 {
		a.sendForTest(0, fmt.Sprintf("h:%d|h\nd:%d|d\ns:%d|s", i, i, i))
	}
	held := func() (values int) {
		for _, c := range []*columns{a.workers[0].active, a.workers[0].spare} {
			if h := c.histograms.peek(0); h != nil {
				values += cap(h.values)
			}
			if d := c.distributions.peek(0); d != nil {
				values += cap(d.keys) + cap(d.bins)
			}
			if s := c.sets.peek(0); s != nil {
				values += len(s.table)
			}
		}
		return values
	}
	flush := func() { a.flusher.flush(time.Unix(0, 0), nil) }
	flush()
	if held() < 1000 {
		t.Errorf("%d values held; a context that is busy keeps its memory", held())
	}
	flush()
	flush()
	if held() > 6*keptIdle {
		t.Errorf("%d values held after a silent interval", held())
	}
	a.sendForTest(0, "h:1|h\nd:1|d\ns:1|s")
	for range 6 {
		flush()
	}
	if held() != 0 || a.Stats().Contexts != 0 {
		t.Errorf("%d values held by contexts that are forgotten; %d are live", held(), a.Stats().Contexts)
	}
}

// Clients come and go, and the kernel gives them to ever other readers: slots that
// one worker's contexts left are used by those of another.
func TestSlotsAreReusedAcrossWorkers(t *testing.T) {
	cfg := DefaultConfig()
	cfg.FlushInterval = time.Second
	cfg.Expiry = ExpiryConfig{Context: time.Second}
	const workers, each = 4, 2 * chunkLen
	a := newForTest(cfg, workers)
	for round := range 20 {
		for i := range each {
			a.sendForTest(round%workers, fmt.Sprintf("round%d.metric%d:1|g", round, i))
		}
		for range 3 {
			a.flusher.flush(time.Unix(0, 0), nil)
		}
		if live := a.Stats().Contexts; live != 0 {
			t.Fatalf("%d contexts are live after their expiry", live)
		}
	}
	if slots := a.contexts.next[gauges]; slots > each {
		t.Errorf("%d slots for %d contexts at a time", slots, each)
	}
}
