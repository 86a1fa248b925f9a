package cardinality

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// snapshotLen is how many metrics and tag keys a Snapshot has.
const snapshotLen = 50

// Snapshot is what the Guard knows at a moment, for people.
type Snapshot struct {
	Contexts int // of all metrics
	Limit    int // of the whole agent
	Metrics  []MetricSnapshot
	Keys     []KeySnapshot // of metrics near their limit or folded
}

// MetricSnapshot is a metric; those with the most contexts come first.
type MetricSnapshot struct {
	Name          string
	Kind          metric.Kind
	Contexts      int // there are
	Window        int // that there were in the window, about
	Demand        int // that there would have been with no folds, about
	Limit         int
	Refusing      bool
	Folds         []FoldSnapshot
	CustomMetrics int
	CostMonth     float64 // by the price that is assumed
}

// FoldSnapshot is a fold in force, or one that would be.
type FoldSnapshot struct {
	Key    string
	Values int // distinct in the window, about
	Kept   []string
	Dry    bool
}

// KeySnapshot is a tag key of a metric; those with the most values come first.
type KeySnapshot struct {
	Metric string
	Kind   metric.Kind
	Key    string
	Values int // distinct in the window, about
}

// Snapshot returns what there is now.
func (g *Guard) Snapshot() Snapshot {
	snapshot := Snapshot{Contexts: int(g.live.Load()), Limit: g.cfg.Load().MaxContexts}
	largest := g.largest(snapshotLen)
	for _, number := range largest {
		s, m := g.lock(number)
		if m != nil {
			snapshot.Metrics = append(snapshot.Metrics, g.describe(m))
		}
		s.mu.Unlock()
	}
	g.each(func(_ *shard, m *tracked) {
		folds := map[string]bool{}
		if m.folded != nil {
			for _, f := range m.folded.folds {
				folds[f.key] = true
				snapshot.Keys = append(snapshot.Keys, KeySnapshot{m.name, m.kind, keyText(f.key), f.values.estimate()})
			}
		}
		if m.watch != nil {
			for i := range m.watch.keys {
				if k := &m.watch.keys[i]; !folds[k.key] {
					snapshot.Keys = append(snapshot.Keys, KeySnapshot{m.name, m.kind, keyText(k.key), k.values.estimate()})
				}
			}
		}
	})
	slices.SortStableFunc(snapshot.Keys, func(a, b KeySnapshot) int {
		return cmp.Or(cmp.Compare(b.Values, a.Values), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Key, b.Key))
	})
	snapshot.Keys = slices.Clone(snapshot.Keys[:min(snapshotLen, len(snapshot.Keys))])
	return snapshot
}

// largest returns the metrics with the most contexts.
func (g *Guard) largest(n int) []uint32 {
	type sized struct {
		number uint32
		size   int
		name   string
	}
	all := make([]sized, 0, g.tracked.Load()) // or it would be copied with a lock held
	g.each(func(_ *shard, m *tracked) {
		all = append(all, sized{m.number, m.count(), m.name})
	})
	slices.SortFunc(all, func(a, b sized) int { return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.name, b.name)) })
	numbers := make([]uint32, 0, n)
	for _, one := range all[:min(n, len(all))] {
		numbers = append(numbers, one.number)
	}
	return numbers
}

func (g *Guard) describe(m *tracked) MetricSnapshot {
	d := MetricSnapshot{
		Name: m.name, Kind: m.kind, Contexts: int(m.live) - int(m.stale), Window: m.count(), Limit: g.limitOf(m), Refusing: m.refusing,
	}
	if m.watch != nil {
		d.Window = max(d.Contexts, m.watch.contexts.estimate())
	}
	d.Demand = d.Window
	if m.folded != nil {
		d.Demand = max(d.Demand, m.folded.demand.estimate())
		for _, f := range m.folded.folds {
			d.Folds = append(d.Folds, FoldSnapshot{keyText(f.key), f.values.estimate(), f.keptValues(), m.folded.dry})
		}
	}
	d.CustomMetrics, d.CostMonth = g.costOf(m.kind, d.Contexts)
	return d
}

// keptValues returns the values that keep their own series, as far as they were met.
func (f *fold) keptValues() []string {
	var values []string
	for k := range maps.Values(f.kept) {
		if k.value != "" {
			values = append(values, strings.TrimPrefix(k.value, string(f.prefix)))
		}
	}
	slices.Sort(values)
	return values
}
