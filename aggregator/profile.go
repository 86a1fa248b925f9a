package aggregator

import (
	"slices"
	"sync/atomic"

	"github.com/weir-agent/weir/metric"
)

// profiles are what rules ask of histograms, by slot. Only chunks in which a slot
// has one are allocated. The flusher reads them while readers set them.
type profiles []*[chunkLen]atomic.Pointer[metric.Profile]

// set says what is asked of a slot; contexts.mu is held.
func (p *profiles) set(f family, slot uint32, to *metric.Profile) {
	i := int(slot / chunkLen)
	if f != histograms || to == nil && (i >= len(*p) || (*p)[i] == nil) {
		return
	}
	for i >= len(*p) {
		*p = append(*p, nil)
	}
	if (*p)[i] == nil {
		(*p)[i] = new([chunkLen]atomic.Pointer[metric.Profile])
	}
	(*p)[i][slot%chunkLen].Store(to)
}

// of returns what is asked of a slot, nil if nothing in particular.
func (p profiles) of(slot uint32) *metric.Profile {
	if i := slot / chunkLen; i < uint32(len(p)) && p[i] != nil {
		return p[i][slot%chunkLen].Load()
	}
	return nil
}

// outcome is what is sent of a histogram.
type outcome struct {
	suffixes []aggregate
	percents []int // ascending
}

// maxOutcomes is how many of the outcomes of profiles are kept ready.
const maxOutcomes = 4096

// outcomeOf returns what is sent of a histogram with a profile.
func (f *flusher) outcomeOf(p *metric.Profile) *outcome {
	if p == nil {
		return &f.byDefault
	}
	if o := f.outcomes[p]; o != nil {
		return o
	}
	if len(f.outcomes) >= maxOutcomes { // of rules that are no longer
		clear(f.outcomes)
	}
	o := f.newOutcome(p)
	f.outcomes[p] = &o
	return &o
}

func (f *flusher) newOutcome(p *metric.Profile) (o outcome) {
	names, percentiles := p.Aggregates, p.Percentiles
	if names == nil {
		names = f.a.cfg.Histogram.Aggregates
	}
	if percentiles == nil {
		percentiles = f.a.cfg.Histogram.Percentiles
	}
	for _, name := range names {
		o.suffixes = append(o.suffixes, f.aggregateNamed(name))
	}
	for _, p := range percentiles {
		o.percents = append(o.percents, percentOf(p))
	}
	slices.Sort(o.percents)
	o.percents = slices.Compact(o.percents)
	for i, percent := range o.percents {
		o.suffixes = append(o.suffixes, aggregate{
			metric.PercentileSuffix(percent), metric.GaugeType, func(s *summary) float64 { return s.percentiles[i] },
		})
	}
	return o
}
