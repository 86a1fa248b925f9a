package metric

// Reason says why a line was rejected by the parser or a sample refused by the
// aggregator. The zero Reason means it was not.
type Reason uint8

// The reasons. Their names are the values of the tag "reason" on weir's own
// metrics, so they do not change.
const (
	Accepted Reason = iota

	// The parser rejects a line.

	Truncated      // the datagram was longer than max_packet and was cut in this line
	NoName         // nothing before the first ':'
	NoValue        // no ':' before the first '|', or nothing but ':' between them
	NoKind         // no '|'
	UnknownKind    // a type that is none of c g ms h d s
	BadValue       // a value that is not a number
	ValueNotFinite // a value that is NaN or infinite
	BadRate        // a sample rate that is not a number
	RateOutOfRange // a sample rate outside (0, 1], or so small that its inverse is infinite
	BadTimestamp   // a timestamp that is no whole number of seconds, or not after 1970
	BadEvent       // an event whose header or lengths are wrong
	BadCheck       // a service check without a name, or with a status other than 0 to 3
	NegativeTimer  // a timer below zero (statsd dialect)
	UnclosedTags   // a name with '[' and no ']' (tag style signalfx)
	TooManyMetrics // beyond what one line may hold (statsd dialect)

	// The aggregator refuses a sample.

	ContextLimit   // its context would be one too many
	MetricLimit    // likewise, of its metric
	ReservedName   // its name begins like weir's own
	TimestampLimit // too many points with their own timestamps in one interval
	DroppedByRule  // a rule says so
	TooLong        // rules made its name and tags too long

	EventRefused // it is an analytics event that does not count

	// Reasons is how many there are.
	Reasons
)

var reasonNames = [Reasons]string{
	Accepted:       "accepted",
	Truncated:      "truncated",
	NoName:         "no_name",
	NoValue:        "no_value",
	NoKind:         "no_kind",
	UnknownKind:    "unknown_kind",
	BadValue:       "bad_value",
	ValueNotFinite: "value_not_finite",
	BadRate:        "bad_rate",
	RateOutOfRange: "rate_out_of_range",
	BadTimestamp:   "bad_timestamp",
	BadEvent:       "bad_event",
	BadCheck:       "bad_service_check",
	NegativeTimer:  "negative_timer",
	UnclosedTags:   "unclosed_tags",
	TooManyMetrics: "too_many_metrics",
	ContextLimit:   "context_limit",
	MetricLimit:    "metric_limit",
	ReservedName:   "reserved_name",
	TimestampLimit: "timestamp_limit",
	DroppedByRule:  "dropped_by_rule",
	TooLong:        "too_long",
	EventRefused:   "analytics_event",
}

// String returns the reason's name, in lower case with underscores.
func (r Reason) String() string {
	if r < Reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// MarshalText is String, for encoders.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Rejects reports whether r is a parser's reason.
func (r Reason) Rejects() bool { return r > Accepted && r < ContextLimit }

// Refuses reports whether r is an aggregator's reason.
func (r Reason) Refuses() bool { return r >= ContextLimit && r < Reasons }
