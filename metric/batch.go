package metric

import "time"

// Batch is what one flush made of one interval. It is read by several
// forwarders at once, so nobody writes to it after it was sent.
type Batch struct {
	Start     time.Time     // of the interval, in UTC; every point without a time of its own carries it
	Interval  time.Duration // nominal length, whole seconds
	AgentHost string        // the host of contexts that name none
	Series    []Series
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

// Series is one scalar point. Its metric name is Context.Name() + Suffix.
type Series struct {
	Context *Context
	Suffix  string // "", or ".avg" and the like for an aggregate of a histogram
	Value   float64
	Type    SeriesType
	Time    int64 // Unix seconds, if the client said when it was; 0: the start of the interval
}

// Unit returns the unit the value is in, "" if the client did not imply one: a
// timer's aggregates are in milliseconds, except for how many there were.
func (s *Series) Unit() string {
	if k := s.Context.Kind(); (k == Timer || k == ClassicTimer) && s.Type == GaugeType {
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
