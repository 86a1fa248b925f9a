package aggregator

import (
	"math"

	"github.com/weir-agent/weir/metric"
)

// OverloadConfig says what is done about datagrams that the kernel drops because they
// come faster than they are read.
type OverloadConfig struct {
	Compensate bool `yaml:"compensate"` // count what came for what was dropped, too
}

// Dropped returns how many datagrams of a reader's socket the kernel has dropped since
// it was opened.
type Dropped func(reader int) uint64

// SetDropped says where to ask for dropped datagrams, before Run.
func (a *Aggregator) SetDropped(dropped Dropped) { a.dropped = dropped }

// loss is what a worker's socket received and lost in an interval.
type loss struct {
	received uint64 // datagrams whose samples are in the worker's columns
	dropped  uint64 // and those that the kernel had no room for
	total    uint64 // dropped since the socket was opened, as last asked
}

// end is called when the worker's interval ends, with its lock held. What was dropped
// while nothing came waits for an interval in which something does.
func (l *loss) end(total uint64) (of loss) {
	l.dropped += total - l.total
	l.total = total
	of = *l
	if l.received > 0 {
		l.dropped = 0
	}
	l.received = 0
	return of
}

// factor is what each of the samples stands for.
func (l *loss) factor() float64 {
	if l.received == 0 {
		return 1
	}
	return float64(l.received+l.dropped) / float64(l.received)
}

// compensate scales the columns of workers whose sockets lost datagrams, if that is
// wanted, and tells of it. A worker reads one UDP socket, so what its own lost is told
// from what those of others did. Counters count for more, and so do the samples of
// histograms, timers and distributions, as if clients had sampled at the rate at which
// datagrams came through. Gauges and sets have no such weight, and points with a time of
// their own are of times when nothing may have been lost.
func (m *merge) compensate(lost []loss) {
	m.stats.Factor = 1
	var dropped, received uint64
	for i, l := range lost {
		if l.dropped == 0 || l.received == 0 {
			continue
		}
		dropped, received = dropped+l.dropped, received+l.received
		if factor := l.factor(); m.a.cfg.Overload.Compensate {
			m.a.workers[i].spare.scale(factor, m.a.contexts)
			m.stats.Factor = max(m.stats.Factor, factor)
			m.stats.Compensated += l.dropped
		}
	}
	if dropped > 0 {
		m.a.log.Warn("the kernel dropped datagrams: they came faster than they were read", "dropped", dropped, "received", received,
			"compensated", m.a.cfg.Overload.Compensate, "factor", m.stats.Factor, "remedy", "raise listen.receive_buffer, or give the agent more CPU")
	}
}

// scale lets everything that counts count for factor times as much.
func (c *columns) scale(factor float64, all *contexts) {
	eachOf(&c.counters, func(_ uint32, sum *float64) {
		if !isUntouched(*sum) {
			*sum *= factor
		}
	})
	contexts := all.snapshot(histograms)
	eachOf(&c.histograms, func(slot uint32, h *histogram) {
		if !h.empty() {
			h.scale(factor, contexts.context(slot).Kind() == metric.ClassicTimer)
		}
	})
	eachOf(&c.distributions, func(_ uint32, d *distribution) {
		if !d.empty() {
			d.scale(factor)
		}
	})
}

func eachOf[T any](c *column[T], visit func(slot uint32, value *T)) {
	for i, chunk := range c.chunks {
		if chunk == nil {
			continue
		}
		for j := range chunk {
			visit(uint32(i*chunkLen+j), &chunk[j])
		}
	}
}

// scale lets each sample weigh factor times as much. In a classic timer that changes how
// many events there were, and nothing else, as a sample rate does.
func (h *histogram) scale(factor float64, classic bool) {
	f := h.folded
	if classic {
		events := h.unseen
		for i := range h.values {
			events += h.weightOf(i)
		}
		if f != nil {
			events += f.weight
		}
		h.unseen += events * (factor - 1)
		return
	}
	if h.weights == nil {
		h.weights = make([]float64, len(h.values))
		for i := range h.weights {
			h.weights[i] = 1
		}
	}
	for i := range h.weights {
		h.weights[i] *= factor
	}
	if f == nil {
		return
	}
	for i := range f.bins {
		f.bins[i].weight *= factor
	}
	f.weight *= factor
	f.sum.sum *= factor
	f.sum.lost *= factor
}

// scale lets each event count for factor. Counts are whole: the bins are rounded so that
// all of them together are off by less than one event.
func (d *distribution) scale(factor float64) {
	d.compact()
	var before, after float64
	part := func(n uint64) uint64 {
		before += float64(n)
		last := after
		after = math.Round(before * factor)
		return uint64(after - last)
	}
	clipped := d.clipped
	d.clipped = 0
	for i := range d.bins {
		n := part(uint64(d.bins[i].weight))
		d.bins[i].weight = uint32(min(n, math.MaxUint32))
		d.clipped += n - uint64(d.bins[i].weight)
	}
	d.clipped += part(clipped)
	d.count = wholeEvents(math.Round(float64(d.count) * factor))
	d.sum *= factor
}
