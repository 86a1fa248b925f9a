package aggregator

import (
	"fmt"
	"testing"

	"github.com/weir-agent/weir/metric"
)

// fakeEvents takes names that begin with "e." for events: "e.dropped" does not count,
// "e.silent" has no counter, "e.once" is not to be kept. Others become the counter
// "event" without tags.
type fakeEvents struct{ resolved, added, kept int }

type fakeEvent struct {
	of   *fakeEvents
	name string
}

func (f *fakeEvents) resolve(id *metric.Identity, _ int64) (Event, bool) {
	if len(id.Name) < 2 || string(id.Name[:2]) != "e." {
		return nil, false
	}
	f.resolved++
	e := &fakeEvent{f, string(id.Name)}
	id.Name, id.Tags = []byte("event"), id.Tags[:0]
	return e, true
}

func (e *fakeEvent) Add(value float64, more []float64, now int64) bool {
	if e.name == "e.dropped" || now == 0 {
		return false
	}
	e.of.added += int(value)
	for _, v := range more {
		e.of.added += int(v)
	}
	return true
}

func (e *fakeEvent) Metered() bool { return e.name != "e.silent" }

func (e *fakeEvent) Keep() Event {
	if e.name == "e.once" {
		return nil
	}
	e.of.kept++
	return e
}

func withEvents(cfg Config) (*Aggregator, *fakeEvents) {
	a, f := newForTest(cfg, 1), &fakeEvents{}
	a.SetEvents(func() ResolveEvent { return f.resolve }, func(dst []metric.Reading) []metric.Reading {
		return append(dst, metric.Reading{Name: "usage.users.7d", Tags: []string{"scope:host"}, Value: 42, Level: true})
	})
	return a, f
}

// An event is resolved once and counts each time, in its counter too; what is no event
// is not touched.
func TestEventsAreResolvedOnce(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Namespace, cfg.Tags = "ours", []string{"env:test"}
	a, f := withEvents(cfg)
	for range 3 {
		for _, line := range []string{"e.a:1|c|#u:1", "e.a:2|c|#u:2", "e.a:1:3|c|#u:1", "e.silent:1|c", "e.dropped:5|c", "e.once:1|c", "plain:1|c|#u:1", "e.a:1|c|#u:1|T1700000000"} {
			a.sendForTest(0, line)
		}
	}
	// Twice for the two identities of e.a, once for e.silent; each time for the others.
	if f.resolved != 3+3*3 || f.kept != 3 || f.added != 3*(1+2+4+1+1+1) {
		t.Errorf("resolved %d times, kept %d, added %d; want 12, 3 and 30", f.resolved, f.kept, f.added)
	}
	got := map[string]float64{}
	b := a.flusher.flush(aligned(a.started, cfg.FlushInterval), nil)
	for i := range b.Series {
		s := &b.Series[i]
		c := b.Context(s)
		got[fmt.Sprint(c.Name(), " ", s.Time)] += s.Value
		for tag := range c.Tags() {
			if tag != "env:test" && tag != "u:1" && tag != "scope:host" || tag == "u:1" && c.Name() == "ours.event" {
				t.Errorf("%s has the tag %s", c.Name(), tag)
			}
		}
	}
	want := map[string]float64{"ours.event 0": 3 * (1 + 2 + 4 + 1) / 10.0, "ours.event 1700000000": 0.3, "ours.plain 0": 0.3, "ours.usage.users.7d 0": 42}
	for name, v := range want {
		if d := got[name] - v; d > 1e-9 || d < -1e-9 {
			t.Errorf("%s = %v, want %v", name, got[name], v)
		}
	}
	if len(got) != len(want) {
		t.Errorf("points: %v, want %v", got, want)
	}
	s := a.Stats()
	if s.EventSamples != 21 || s.Refused[metric.EventRefused] != 3 || s.Samples != 24 || s.Aggregated+s.Passed != 21 {
		t.Errorf("the books: %+v", s)
	}
}

// Identities of events that are no longer used make room for others, and never push
// out those of plain metrics.
func TestEventIdentitiesAreBounded(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Expiry.Context, cfg.Expiry.ZeroFill = 2*cfg.FlushInterval, 0
	a, f := withEvents(cfg)
	w := a.workers[0]
	flush := func() { a.flusher.flush(aligned(a.started, cfg.FlushInterval), nil) }
	for i := range maxEventIdentities + 1000 {
		a.sendForTest(0, fmt.Sprintf("e.a:1|c|#u:%d", i))
	}
	if f.kept != maxEventIdentities || w.events != maxEventIdentities || a.Stats().UnrememberedEvents != 1000 || f.added != maxEventIdentities+1000 {
		t.Errorf("%d are kept, %d not, %d added", f.kept, a.Stats().UnrememberedEvents, f.added)
	}
	a.sendForTest(0, "plain:1|c")
	if before := a.Stats().Identities; before != maxEventIdentities+1 {
		t.Errorf("%d identities, want %d", before, maxEventIdentities+1)
	}
	for range 6 {
		a.sendForTest(0, "e.silent:1|c|#u:1")
		flush()
	}
	if w.events != 1 {
		t.Errorf("%d identities of events are left, want one", w.events)
	}
	for i := range 100 {
		a.sendForTest(0, fmt.Sprintf("e.b:1|c|#u:%d", i))
		a.sendForTest(0, fmt.Sprintf("e.b:1|c|#u:%d", i))
	}
	if w.events != 101 || len(w.eventRefs.chunks) > maxEventIdentities/chunkLen {
		t.Errorf("%d identities of events in %d chunks", w.events, len(w.eventRefs.chunks))
	}
}
