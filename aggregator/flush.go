package aggregator

import (
	"math"
	"sync"
	"time"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// flusher ends intervals: it takes the workers' columns, merges them into a
// Batch, and forgets what has been silent for too long. Only one goroutine
// flushes.
type flusher struct {
	a         *Aggregator
	intervals uint32             // flushed so far, this one included
	seen      [families][]uint32 // by slot: the interval of the last sample; 0: no context
	expiry    uint32             // intervals of silence after which a context is forgotten
	zeroFill  uint32             // intervals of silence during which a counter is sent as 0
	kept      []float64          // by slot: the value of a kept gauge
	work      priority.Work

	interval   time.Duration // of which there are so many; what the configuration says comes into force when one ends
	length     time.Duration // of the open interval: shorter than others after a change
	seconds    float64       // length
	policy     *policy
	keptExpiry uint32 // as expiry, for kept gauges

	byDefault outcome                      // what is sent of a histogram
	outcomes  map[*metric.Profile]*outcome // likewise, if rules say so
	own       ownSeries
	refolding map[uint32]int // the guard's metrics of which the folds changed: how often to look for what is stale

	eventGauges   Readings // nil: there are none
	gaugeReadings []metric.Reading
	gaugeContexts map[ownKey]*metric.Context

	sizes   struct{ series, sketches int } // of the last batch
	created uint64                         // contexts, when it was begun

	mu    sync.Mutex // guards stats
	stats flushStats
}

// aggregate is a series made of a histogram.
type aggregate struct {
	suffix metric.Suffix
	kind   metric.SeriesType
	value  func(*summary) float64
}

func newFlusher(a *Aggregator, p *policy) *flusher {
	f := &flusher{
		a: a, interval: a.cfg.FlushInterval, length: a.cfg.FlushInterval,
		outcomes: map[*metric.Profile]*outcome{}, own: ownSeries{known: map[ownKey]*ownState{}},
		gaugeContexts: map[ownKey]*metric.Context{},
	}
	a.contexts.work = &f.work
	f.configure(p)
	return f
}

// configure takes over everything the configuration says but the length of intervals.
func (f *flusher) configure(p *policy) {
	f.policy = p
	f.countIntervals()
	f.own.setTags(p.naming.tags)
	clear(f.gaugeContexts)
	clear(f.outcomes)
	f.byDefault = f.newOutcome(&metric.Profile{})
}

// countIntervals says in intervals what the configuration says in seconds.
func (f *flusher) countIntervals() {
	expiry := &f.a.cfg.Expiry
	f.expiry = intervalsIn(expiry.Context, f.interval)
	f.zeroFill = intervalsIn(expiry.ZeroFill, f.interval)
	f.keptExpiry = intervalsIn(expiry.KeptGauge, f.interval)
	f.own.zeroFill = f.zeroFill
}

func (f *flusher) aggregateNamed(name string) aggregate {
	value := map[string]func(*summary) float64{
		"max":    func(s *summary) float64 { return s.max },
		"min":    func(s *summary) float64 { return s.min },
		"median": func(s *summary) float64 { return s.median },
		"avg":    func(s *summary) float64 { return s.avg },
		"sum":    func(s *summary) float64 { return s.sum },
		"count":  func(s *summary) float64 { return s.weight / f.seconds },
	}[name]
	if name == "count" {
		return aggregate{metric.AggregateSuffix(name), metric.Rate, value}
	}
	return aggregate{metric.AggregateSuffix(name), metric.GaugeType, value}
}

// intervalsIn returns how many whole intervals cover a duration.
func intervalsIn(d, interval time.Duration) uint32 {
	return uint32((d + interval - 1) / interval)
}

// flush ends the interval that began at start and returns what it made.
func (f *flusher) flush(start time.Time, own Readings) *metric.Batch {
	began := time.Now()
	f.work.Begin()
	defer f.work.End()
	f.intervals++
	f.seconds = f.length.Seconds()
	f.a.settle()
	lost := make([]loss, len(f.a.workers))
	for i, w := range f.a.workers {
		lost[i] = w.swap()
	}
	b := &metric.Batch{
		Start:     start,
		Interval:  f.length,
		AgentHost: f.a.cfg.Hostname,
		// A batch is about as large as the last one, but for what is new.
		Series:   make([]metric.Series, 0, f.sizes.series+f.newContexts()+64),
		Sketches: make([]metric.SketchPoint, 0, f.sizes.sketches),
	}
	m := merge{flusher: f, batch: b, profiles: f.a.contexts.profileChunks()}
	m.compensate(lost)
	mergeFamily(&m, counters, func(c *columns) *column[float64] { return &c.counters }, m.counter)
	mergeFamily(&m, gauges, func(c *columns) *column[gauge] { return &c.gauges }, m.gauge)
	mergeFamily(&m, sets, func(c *columns) *column[set] { return &c.sets }, m.set)
	mergeFamily(&m, histograms, func(c *columns) *column[histogram] { return &c.histograms }, m.histogram)
	mergeFamily(&m, distributions, func(c *columns) *column[distribution] { return &c.distributions }, m.distribution)
	mergeFamily(&m, keptGauges, func(c *columns) *column[keptGauge] { return &c.keptGauges }, m.keptGauge)
	b.Contexts.Blocks = f.a.contexts.blocks() // until contexts are buried it has all that were met
	f.sizes.series, f.sizes.sketches = len(b.Series), len(b.Sketches)
	m.takePassed()
	f.addEventGauges(b)
	f.askGuard(start, b)
	f.expire()

	f.mu.Lock()
	m.stats.Flushes = f.stats.Flushes + 1
	m.stats.Points += f.stats.Points + b.Points()
	m.stats.NotFinite += f.stats.NotFinite
	m.stats.FoldedHistograms += f.stats.FoldedHistograms
	m.stats.EstimatedSets += f.stats.EstimatedSets
	m.stats.ClippedSamples += f.stats.ClippedSamples
	m.stats.Compensated += f.stats.Compensated
	m.stats.FlushTime = time.Since(began)
	f.stats = m.stats
	f.mu.Unlock()

	if own != nil {
		before := b.Points()
		f.own.add(b, own)
		f.mu.Lock()
		f.stats.Points += b.Points() - before
		f.mu.Unlock()
	}
	return b
}

// newContexts returns how many contexts were made since it was last called.
func (f *flusher) newContexts() int {
	_, created, _ := f.a.contexts.count()
	n := created - f.created
	f.created = created
	return int(n)
}

func (f *flusher) statistics() flushStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// merge is the work of one flush.
type merge struct {
	*flusher
	batch    *metric.Batch
	profiles profiles
	stats    flushStats
	contexts snapshot // of the family under way

	percentiles []float64 // scratch
}

// cell is a slot and what is known of it.
type cell struct {
	slot uint32
	seen uint32 // the interval of the last sample before this one, 0 if there was none
}

// contextOf returns a slot's context; only if it has or had a sample.
func (m *merge) contextOf(at cell) *metric.Context { return m.contexts.context(at.slot) }

// mergeFamily goes through the slots of a family. one is called with the
// workers' values of a slot; it sends what they amount to, empties them, and
// returns whether any of them had a sample.
func mergeFamily[T any](m *merge, f family, of func(*columns) *column[T], one func(at cell, parts []*T) bool) {
	spares := make([]*column[T], len(m.a.workers))
	for i, w := range m.a.workers {
		spares[i] = of(w.spare)
	}
	m.contexts = m.a.contexts.snapshot(f)
	guarded := m.contexts.guarded
	if grow := len(guarded)*chunkLen - len(m.seen[f]); grow > 0 {
		m.seen[f] = append(m.seen[f], make([]uint32, grow)...)
	}
	chunks := make([]*[chunkLen]T, 0, len(spares))
	parts := make([]*T, 0, len(spares))
	for i := range guarded {
		chunks = chunks[:0]
		for _, c := range spares {
			if i < len(c.chunks) && c.chunks[i] != nil {
				chunks = append(chunks, c.chunks[i])
			}
		}
		for j := range guarded[i] {
			parts = parts[:0]
			for _, chunk := range chunks {
				parts = append(parts, &chunk[j])
			}
			slot := i*chunkLen + j
			seen := &m.seen[f][slot]
			if one(cell{uint32(slot), *seen}, parts) {
				*seen = m.intervals
				guarded[i][j].wasActive()
			}
			m.work.Step()
		}
	}
}

// counter sends the sum as a rate, and 0 for a while after the last sample, so
// that graphs and monitors see that it stopped.
func (m *merge) counter(at cell, parts []*float64) bool {
	sum := untouched
	for _, p := range parts {
		sum += *p
		*p = untouched
	}
	if !isUntouched(sum) {
		m.emit(at, 0, sum/m.seconds, metric.Rate)
		return true
	}
	if at.seen != 0 && m.intervals-at.seen <= m.zeroFill {
		m.emit(at, 0, 0, metric.Rate)
	}
	return false
}

func (m *merge) gauge(at cell, parts []*gauge) bool {
	var last gauge
	for _, p := range parts {
		if p.stamp > last.stamp {
			last = *p
		}
		*p = gauge{}
	}
	if last.stamp == 0 {
		return false
	}
	m.emit(at, 0, last.value, metric.GaugeType)
	return true
}

// keptGauge sends the value in every interval until the context is forgotten.
func (m *merge) keptGauge(at cell, parts []*keptGauge) bool {
	if grow := int(at.slot) + 1 - len(m.kept); grow > 0 {
		m.kept = append(m.kept, make([]float64, grow)...)
	}
	sampled := false
	for _, p := range parts {
		sampled = sampled || !p.empty()
	}
	if sampled {
		m.kept[at.slot] = level(m.kept[at.slot], parts)
		resetAll(parts, (*keptGauge).reset)
	} else {
		releaseAll(at, parts, (*keptGauge).release)
	}
	if sampled || at.seen != 0 {
		m.emit(at, 0, m.kept[at.slot], metric.GaugeType)
	}
	return sampled
}

func (m *merge) set(at cell, parts []*set) bool {
	all := united(parts, (*set).empty, (*set).merge)
	if all == nil {
		releaseAll(at, parts, (*set).release)
		return false
	}
	if all.sketch != nil {
		m.stats.EstimatedSets++
	}
	m.emit(at, 0, all.size(), metric.GaugeType)
	resetAll(parts, (*set).reset)
	return true
}

func (m *merge) histogram(at cell, parts []*histogram) bool {
	all := united(parts, (*histogram).empty, (*histogram).merge)
	if all == nil {
		releaseAll(at, parts, (*histogram).release)
		return false
	}
	if all.folded != nil {
		m.stats.FoldedHistograms++
	}
	summarize := all.summarize
	if m.contextOf(at).Kind() == metric.ClassicTimer {
		summarize = all.summarizeClassic
	}
	o := m.outcomeOf(m.profiles.of(at.slot))
	s := summarize(o.percents, m.percentiles[:0])
	m.percentiles = s.percentiles
	for i := range o.suffixes {
		a := &o.suffixes[i]
		m.emit(at, a.suffix, a.value(&s), a.kind)
	}
	resetAll(parts, (*histogram).reset)
	m.work.Yield()
	return true
}

func (m *merge) distribution(at cell, parts []*distribution) bool {
	all := united(parts, (*distribution).empty, (*distribution).merge)
	if all == nil {
		releaseAll(at, parts, (*distribution).release)
		return false
	}
	if all.finite() {
		sketch, clipped := all.sketch()
		m.stats.ClippedSamples += clipped
		m.batch.Sketches = append(m.batch.Sketches, metric.SketchPoint{Context: m.contextOf(at), Sketch: sketch})
	} else {
		m.stats.NotFinite++
	}
	resetAll(parts, (*distribution).reset)
	m.work.Yield()
	return true
}

// united merges the parts that have samples into the first of them and returns
// it, nil if none has any.
func united[T any](parts []*T, empty func(*T) bool, merge func(all, part *T)) *T {
	var all *T
	for _, p := range parts {
		switch {
		case empty(p):
		case all == nil:
			all = p
		default:
			merge(all, p)
		}
	}
	return all
}

// keptIdle is how much memory, in elements, a slot may keep through intervals
// without a sample: some contexts are sampled only now and then.
const keptIdle = 16

// releaseAll gives back what a silent slot does not need, and all of it if no
// context has the slot.
func releaseAll[T any](at cell, parts []*T, release func(*T, bool)) {
	for _, p := range parts {
		release(p, at.seen == 0)
	}
}

func resetAll[T any](parts []*T, reset func(*T)) {
	for _, p := range parts {
		reset(p)
	}
}

// emit adds a series to the batch, unless its value overflowed: the intake
// refuses a whole payload for one infinity.
func (m *merge) emit(at cell, suffix metric.Suffix, value float64, kind metric.SeriesType) {
	if math.IsNaN(value) || math.IsInf(value, 0) {
		m.stats.NotFinite++
		return
	}
	m.batch.Series = append(m.batch.Series, metric.Series{Context: m.contexts.ref(at.slot), Suffix: suffix, Value: value, Type: kind})
}
