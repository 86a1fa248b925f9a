package metric

// Treatment is what rules decide about an identity besides its name, its kind and
// its tags, which they change in place.
type Treatment struct {
	Refused Reason // its samples do not count, and why; Accepted: they do

	// Sample is the share of its values that count, in (0, 1]. With BySelf the draw was
	// for the identity as a whole: all of its values count, or with SampledOut none.
	Sample     float64
	BySelf     bool
	SampledOut bool

	Profile *Profile // nil: what the configuration says for all
	Budget  *Budget  // nil: no rule bounds its contexts
}

// Profile is what is computed from histograms and timers. It is immutable and
// compared by its address.
type Profile struct {
	Aggregates  []string  // nil: as the configuration says for all
	Percentiles []float64 // likewise
}

// Aggregates are the names of what can be computed from a histogram, besides
// percentiles.
var Aggregates = []string{"max", "min", "median", "avg", "sum", "count"}

// What happens to contexts beyond a bound.
const (
	OverflowFold    = "fold"    // those of one name get a common value for the tag that is to blame
	OverflowDrop    = "drop"    // they are refused
	OverflowObserve = "observe" // nothing but being reported
)

// Budget bounds the contexts of each metric that meets a rule. It is immutable and
// compared by its address.
type Budget struct {
	Rule        int    // its index in the configuration
	Part        string // what the rule asks of tags: contexts that meet it count apart; "": it asks nothing
	MaxContexts int    // 1 or more; 0: the rule has no bound of its own
	Overflow    string // what happens beyond it; "": as the configuration says for all
}
