package aggregator

import "github.com/weir-agent/weir/metric"

// chunkLen is how many slots share one allocation of a column. It is also how
// many slots a worker is given at a time, so that contexts which only one
// reader sees lie together in that reader's columns.
const chunkLen = 512

// column holds one T for each slot, allocated in chunks when first used: it
// grows without copying, and costs nothing for slots another worker fills.
type column[T any] struct {
	chunks []*[chunkLen]T
	blank  T // what an untouched slot holds
}

// at returns a pointer to the slot's value, which stays valid.
//
// Hot path: once per sample.
func (c *column[T]) at(slot uint32) *T {
	if i := slot / chunkLen; i < uint32(len(c.chunks)) {
		if chunk := c.chunks[i]; chunk != nil {
			return &chunk[slot%chunkLen]
		}
	}
	return c.grow(slot)
}

//go:noinline
func (c *column[T]) grow(slot uint32) *T {
	i := int(slot / chunkLen)
	for i >= len(c.chunks) {
		c.chunks = append(c.chunks, nil)
	}
	chunk := new([chunkLen]T)
	for j := range chunk {
		chunk[j] = c.blank
	}
	c.chunks[i] = chunk
	return &chunk[slot%chunkLen]
}

// peek returns the slot's value, or nil if its chunk was never used.
func (c *column[T]) peek(slot uint32) *T {
	if i := slot / chunkLen; i < uint32(len(c.chunks)) && c.chunks[i] != nil {
		return &c.chunks[i][slot%chunkLen]
	}
	return nil
}

// columns are the values of one interval, as one worker saw them.
type columns struct {
	counters      column[float64]
	gauges        column[gauge]
	sets          column[set]
	histograms    column[histogram]
	distributions column[distribution]
	keptGauges    column[keptGauge]

	// What is not aggregated, in the order it came.
	passed  pieces[metric.Series] // with their own times
	passing metric.Contexts       // of passed
	events  pieces[metric.Event]
	checks  pieces[metric.ServiceCheck]

	passedBytes, messageBytes int // about what they take
}

func newColumns() *columns {
	c := new(columns)
	c.counters.blank = untouched
	return c
}

// family groups kinds whose contexts share a space of slots: one for each
// column.
type family uint8

const (
	counters family = iota
	gauges
	sets
	histograms
	distributions
	keptGauges
	families // how many there are
)

// touched reports whether a slot has a sample in these columns.
func (c *columns) touched(f family, slot uint32) bool {
	switch f {
	case counters:
		v := c.counters.peek(slot)
		return v != nil && !isUntouched(*v)
	case gauges:
		v := c.gauges.peek(slot)
		return v != nil && v.stamp != 0
	case sets:
		v := c.sets.peek(slot)
		return v != nil && !v.empty()
	case histograms:
		v := c.histograms.peek(slot)
		return v != nil && !v.empty()
	case distributions:
		v := c.distributions.peek(slot)
		return v != nil && !v.empty()
	case keptGauges:
		v := c.keptGauges.peek(slot)
		return v != nil && !v.empty()
	}
	panic("BUG: unknown family")
}
