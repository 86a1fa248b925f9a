package cardinality

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/weir-agent/weir/metric"
)

// maxEvents is how many decisions of an interval become events; all are counted, and
// logged.
const maxEvents = 50

// reports is what the Guard tells of its decisions.
type reports struct {
	counts counts
	mu     sync.Mutex // guards events
	events []metric.Event
}

// counts are totals but where it says otherwise.
type counts struct {
	folds      atomic.Int64 // in force now
	watched    atomic.Int64 // metrics near their limit now
	folded     atomic.Uint64
	deeper     atomic.Uint64
	observed   atomic.Uint64
	lifted     atomic.Uint64
	drops      atomic.Uint64 // metrics that began to refuse
	wouldDrop  atomic.Uint64
	refused    atomic.Uint64 // candidates
	full       atomic.Uint64 // intervals in which the whole agent's limit refused
	untracked  atomic.Uint64
	unsketched atomic.Uint64
	unreported atomic.Uint64
	saveErrors atomic.Uint64
}

// The names of decisions: values of a tag of weir's own metrics and of events.
const (
	decidedFold        = "fold"
	decidedDeeper      = "deeper_fold"
	decidedObserve     = "would_fold"
	decidedLift        = "lift"
	decidedRefuse      = "refuse"
	decidedWouldRefuse = "would_refuse"
	decidedEnd         = "end_refuse"
	decidedCrowded     = "agent_limit"
)

// seriesPer returns how many custom metrics Datadog counts for a context of a kind.
func (g *Guard) seriesPer(kind metric.Kind) int {
	switch kind {
	case metric.Histogram, metric.Timer, metric.ClassicTimer:
		return g.cfg.Load().SeriesPerHistogram
	case metric.Distribution:
		return 5 // avg, count, max, min, sum
	}
	return 1
}

// costOf returns what contexts of a kind cost a month, by the price that is assumed.
func (g *Guard) costOf(kind metric.Kind, contexts int) (series int, cost float64) {
	series = contexts * g.seriesPer(kind)
	return series, float64(series) / 100 * g.cfg.Load().Cost.Per100MetricsMonth
}

// keyText returns how people are told of a key.
func keyText(key string) string {
	switch key {
	case bareKey:
		return "(tags without a key)"
	case pooledKey:
		return "(all rare keys)"
	}
	return key
}

// reportFold tells of a fold of one key.
func (g *Guard) reportFold(m *tracked, f *fold, before, left int, deeper, dry bool) {
	saved := max(0, before-left)
	series, cost := g.costOf(m.kind, saved)
	decision, text := decidedFold, "folded a tag key: its values make too many contexts"
	switch {
	case dry:
		decision, text = decidedObserve, "would fold a tag key: its values make too many contexts"
		g.counts.observed.Add(1)
	case deeper:
		decision = decidedDeeper
		g.counts.deeper.Add(1)
		g.counts.folds.Add(1)
	default:
		g.counts.folded.Add(1)
		g.counts.folds.Add(1)
	}
	f.saved = saved
	g.log.Warn(text, "metric", m.name, "kind", m.kind, "key", keyText(f.key), "values", f.valuesKnown, "kept", len(f.kept),
		"contexts", before, "contexts_saved", saved, "custom_metrics_saved", series, "assumed_cost_saved_a_month", cost)
	g.event(m, decision, f.key, text, fmt.Sprintf(
		"The tag key %s of %s %s has about %d values. Folding it leaves about %d of %d contexts. "+
			"The %d contexts saved are %d custom metrics, or %.2f a month at the assumed price of %.2f per 100.",
		keyText(f.key), m.kind, m.name, f.valuesKnown, left, before, saved, series, cost, g.cfg.Load().Cost.Per100MetricsMonth))
}

// reportLift tells that a key is no longer folded.
func (g *Guard) reportLift(m *tracked, f *fold, dry bool) {
	if dry {
		g.log.Info("would no longer fold a tag key", "metric", m.name, "kind", m.kind, "key", keyText(f.key))
		return
	}
	g.counts.lifted.Add(1)
	g.counts.folds.Add(-1)
	const text = "a tag key is no longer folded: its values make few contexts again"
	g.log.Info(text, "metric", m.name, "kind", m.kind, "key", keyText(f.key), "contexts", m.folded.known)
	g.event(m, decidedLift, f.key, text, fmt.Sprintf("Without the fold of %s, %s %s has about %d contexts.", keyText(f.key), m.kind, m.name, m.folded.known))
}

// reportRefusal tells that a metric gets no further contexts, and which key, ranked
// before, has the most values.
func (g *Guard) reportRefusal(m *tracked, c *choice, limit int, dry bool) {
	decision, text := decidedRefuse, "refuses further contexts of a metric: it has as many as it may have"
	if dry {
		decision, text = decidedWouldRefuse, "would refuse further contexts of a metric: it has as many as it may have"
		g.counts.wouldDrop.Add(1)
	} else {
		g.counts.drops.Add(1)
	}
	key, values := "", 0
	for i := range c.keys {
		if n := max(c.keys[i].values, m.valuesOf(c.keys[i].name)); n > values && !g.cfg.Load().protected[c.keys[i].name] {
			key, values = c.keys[i].name, n
		}
	}
	series, cost := g.costOf(m.kind, len(c.rows))
	g.log.Warn(text, "metric", m.name, "kind", m.kind, "limit", limit, "contexts", len(c.rows), "key", keyText(key), "values", values,
		"custom_metrics", series, "assumed_cost_a_month", cost)
	g.event(m, decision, key, text, fmt.Sprintf(
		"%s %s has %d contexts; its limit is %d. Of its tag keys %s has the most values, about %d. "+
			"Its contexts are %d custom metrics, or %.2f a month at the assumed price of %.2f per 100.",
		m.kind, m.name, len(c.rows), limit, keyText(key), values, series, cost, g.cfg.Load().Cost.Per100MetricsMonth))
}

func (g *Guard) reportEnd(m *tracked) {
	text := "a metric gets new contexts again"
	if g.overflowOf(m) == metric.OverflowObserve {
		text = "would no longer refuse contexts of a metric"
	}
	g.log.Info(text, "metric", m.name, "kind", m.kind)
	g.event(m, decidedEnd, "", text, fmt.Sprintf("%s %s wants less than half of its limit.", m.kind, m.name))
}

// reportCrowded tells that the limit of the whole agent presses.
func (g *Guard) reportCrowded(level int64) {
	const text = "there are nearly as many contexts as cardinality.max_contexts allows: metrics are folded that have more than their share"
	g.log.Warn(text, "contexts", g.live.Load(), "share", level)
	g.event(&tracked{}, decidedCrowded, "", text, "A metric's share is "+strconv.FormatInt(level, 10)+
		" contexts. If no metric has more, there are too many names: look for identifiers in them.")
}

// event makes an event of a decision.
func (g *Guard) event(m *tracked, decision, key, title, text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.events) >= maxEvents {
		g.counts.unreported.Add(1)
		return
	}
	tags := []string{"decision:" + decision}
	if m.name != "" {
		title += ": " + m.name
		tags = append(tags, "metric:"+m.name)
	}
	if key != "" {
		tags = append(tags, "tag_key:"+key)
	}
	level := "warning"
	if decision == decidedLift || decision == decidedEnd {
		level = "info"
	}
	g.events = append(g.events, metric.Event{
		Title: "weir " + title, Text: text, Time: g.now.Load(), Priority: "normal", AlertType: level,
		AggregationKey: "weir.cardinality " + m.name, Tags: tags,
	})
}

func (g *Guard) takeEvents() []metric.Event {
	g.mu.Lock()
	defer g.mu.Unlock()
	events := g.events
	g.events = nil
	return events
}

// Readings appends the agent's own metrics about cardinality to dst.
func (g *Guard) Readings(dst []metric.Reading) []metric.Reading {
	c := &g.counts
	total := func(name string, n uint64, tags ...string) {
		dst = append(dst, metric.Reading{Name: "cardinality." + name, Tags: tags, Value: float64(n)})
	}
	level := func(name string, v int64) {
		dst = append(dst, metric.Reading{Name: "cardinality." + name, Value: float64(v), Level: true})
	}
	total("decisions", c.folded.Load(), "decision:"+decidedFold)
	total("decisions", c.deeper.Load(), "decision:"+decidedDeeper)
	total("decisions", c.observed.Load(), "decision:"+decidedObserve)
	total("decisions", c.lifted.Load(), "decision:"+decidedLift)
	total("decisions", c.drops.Load(), "decision:"+decidedRefuse)
	total("decisions", c.wouldDrop.Load(), "decision:"+decidedWouldRefuse)
	level("folds", c.folds.Load())
	level("metrics", g.tracked.Load())
	level("metrics.near_limit", c.watched.Load())
	level("sketch_bytes", g.memory.Load())
	total("refused", c.refused.Load())
	total("full_intervals", c.full.Load())
	total("untracked", c.untracked.Load())
	total("unsketched", c.unsketched.Load())
	total("events_left_out", c.unreported.Load())
	total("state_errors", c.saveErrors.Load())
	return dst
}
