package metric

import (
	"slices"
	"strconv"
	"time"
)

// Batch is what one flush made of one interval. It is read by several
// forwarders at once, so nobody writes to it after it was sent.
type Batch struct {
	Start     time.Time     // of the interval, in UTC; every point without a time of its own carries it
	Interval  time.Duration // nominal length, whole seconds
	AgentHost string        // the host of contexts that name none
	Series    []Series
	Contexts  Contexts // of Series
	Sketches  []SketchPoint
	Events    []Event
	Checks    []ServiceCheck
}

// Points returns the number of things to deliver in the batch, in the order
// Series, Sketches, Events, Checks: an event counts as a point, too.
func (b *Batch) Points() uint64 {
	return uint64(len(b.Series)) + uint64(len(b.Sketches)) + uint64(len(b.Events)) + uint64(len(b.Checks))
}

// SeriesType is how Datadog is to understand a value.
type SeriesType uint8

// The types, numbered as Datadog's intake numbers them.
const (
	Count     SeriesType = 1 // events in the interval
	Rate      SeriesType = 2 // events a second, averaged over the interval
	GaugeType SeriesType = 3 // a level
)

// String returns the type's name as the logs forwarder writes it.
func (t SeriesType) String() string {
	switch t {
	case Count:
		return "count"
	case Rate:
		return "rate"
	case GaugeType:
		return "gauge"
	}
	return "unknown"
}

// Series is one scalar point. Its metric name is Batch.Context(s).Name() + Suffix.String().
//
// A batch of a million contexts has a million of them, hence 24 bytes and no pointer.
type Series struct {
	Value   float64
	Time    int64 // Unix seconds, if the client said when it was; 0: the start of the interval
	Context ContextRef
	Type    SeriesType
	Suffix  Suffix
}

// Context returns the context of one of the batch's series.
func (b *Batch) Context(s *Series) *Context { return b.Contexts.At(s.Context) }

// Add appends a series of a context that is in no block, whatever s says of that.
func (b *Batch) Add(context *Context, s Series) {
	s.Context = b.Contexts.Add(context)
	b.Series = append(b.Series, s)
}

// Suffix is what stands behind the metric's name: nothing, or ".avg" and the like for an
// aggregate of a histogram.
type Suffix uint8

// maxPercentile is the last of the suffixes that are percentiles; aggregates follow.
const maxPercentile = 100

// PercentileSuffix returns ".95percentile" for 95; percent is 1 to 100.
func PercentileSuffix(percent int) Suffix {
	if percent < 1 || percent > maxPercentile {
		panic("BUG: no percentile has this number")
	}
	return Suffix(percent)
}

// AggregateSuffix returns ".avg" for "avg", which must be one of Aggregates.
func AggregateSuffix(name string) Suffix {
	i := slices.Index(Aggregates, name)
	if i < 0 {
		panic("BUG: no aggregate has this name")
	}
	return Suffix(maxPercentile + 1 + i)
}

// String returns the suffix as it is written, "" for none.
func (s Suffix) String() string { return suffixes[s] }

var suffixes = func() (all [1 << 8]string) {
	for percent := 1; percent <= maxPercentile; percent++ {
		all[percent] = "." + strconv.Itoa(percent) + "percentile"
	}
	for i, name := range Aggregates {
		all[maxPercentile+1+i] = "." + name
	}
	return all
}()

// Unit returns the unit the value is in, "" if the client did not imply one: a
// timer's aggregates are in milliseconds, except for how many there were. The context is
// that of the series.
func (s *Series) Unit(context *Context) string {
	if k := context.Kind(); (k == Timer || k == ClassicTimer) && s.Type == GaugeType {
		return "millisecond"
	}
	return ""
}

// SketchPoint is one distribution point.
type SketchPoint struct {
	Context *Context
	Sketch  Sketch
}

// Reading is one measurement weir makes of itself, such as a counter of a
// room's Stats.
type Reading struct {
	Name  string // without the prefix "weir."
	Tags  []string
	Value float64
	Level bool // a level (gauge); otherwise a total that only grows
}
