package aggregator

import (
	"strings"

	"github.com/weir-agent/weir/metric"
)

// ownPrefix is what the names of weir's own metrics begin with. They are exempt
// from the namespace.
const ownPrefix = "weir."

// ownSeries turns the agent's measurements of itself into series.
type ownSeries struct {
	tags     [][]byte
	seconds  float64
	readings []metric.Reading // scratch
	known    map[ownKey]*ownState
}

type ownKey struct{ name, tags string }

type ownState struct {
	context *metric.Context
	last    float64 // total at the last flush
}

func newOwnSeries(a *Aggregator) ownSeries {
	return ownSeries{tags: a.tags, seconds: a.cfg.FlushInterval.Seconds(), known: map[ownKey]*ownState{}}
}

// add appends the agent's own metrics to b: totals as rates, levels as gauges.
func (o *ownSeries) add(b *metric.Batch, own Readings) {
	o.readings = own(o.readings[:0])
	for _, r := range o.readings {
		state := o.state(r)
		value, kind := r.Value, metric.GaugeType
		if !r.Level {
			value, kind = (r.Value-state.last)/o.seconds, metric.Rate
			state.last = r.Value
		}
		b.Series = append(b.Series, metric.Series{Context: state.context, Value: value, Type: kind})
	}
}

func (o *ownSeries) state(r metric.Reading) *ownState {
	key := ownKey{r.Name, strings.Join(r.Tags, ",")}
	if s := o.known[key]; s != nil {
		return s
	}
	kind := metric.Counter
	if r.Level {
		kind = metric.Gauge
	}
	id := metric.Identity{Name: []byte(ownPrefix + r.Name), Kind: kind}
	for _, tag := range r.Tags {
		id.Tags = append(id.Tags, []byte(tag))
	}
	var scratch identityScratch
	s := &ownState{context: metric.NewContext(scratch.contextKey(&id, "", "", o.tags))}
	o.known[key] = s
	return s
}
