package aggregator

import (
	"strings"

	"github.com/weir-agent/weir/metric"
)

// ownPrefix is what the names of weir's own metrics begin with; they are exempt
// from the namespace. Clients cannot use it: of two points with one name and time
// Datadog keeps one, and the books would be wrong.
const ownPrefix = "weir."

var ownPrefixBytes = []byte(ownPrefix)

// ownSeries turns the agent's measurements of itself into series.
type ownSeries struct {
	tags     [][]byte
	zeroFill uint32           // intervals
	readings []metric.Reading // scratch
	known    map[ownKey]*ownState
}

type ownKey struct{ name, tags string }

type ownState struct {
	context *metric.Context // nil: to be made, with the tags there are now
	last    float64         // total at the last flush
	silent  uint32          // flushes since it last grew, or since the start
}

// setTags changes the configured tags.
func (o *ownSeries) setTags(tags [][]byte) {
	o.tags = tags
	for _, state := range o.known {
		state.context = nil
	}
}

// add appends the agent's own metrics to b: levels as gauges, totals as rates. A
// total that never grew is not sent, and one that stopped is sent as zero for as
// long as any counter: each of them is a series that somebody pays for.
func (o *ownSeries) add(b *metric.Batch, own Readings) {
	o.readings = own(o.readings[:0])
	for _, r := range o.readings {
		state := o.state(r)
		if r.Level {
			b.Add(state.context, metric.Series{Value: r.Value, Type: metric.GaugeType})
			continue
		}
		grown := r.Value - state.last
		if state.silent++; grown != 0 {
			state.silent = 0
		}
		if r.Value == 0 || state.silent > o.zeroFill {
			continue
		}
		state.last = r.Value
		b.Add(state.context, metric.Series{Value: grown / b.Interval.Seconds(), Type: metric.Rate})
	}
}

func (o *ownSeries) state(r metric.Reading) *ownState {
	key := ownKey{r.Name, strings.Join(r.Tags, ",")}
	s := o.known[key]
	if s == nil {
		s = &ownState{}
		o.known[key] = s
	}
	if s.context != nil {
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
	s.context = metric.NewContext(scratch.contextKey(&id, &naming{tags: o.tags}))
	return s
}
