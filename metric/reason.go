package metric

// Reason says why a line was rejected by the parser or a sample refused by the
// aggregator. The zero Reason means it was not.
type Reason uint8

// The reasons. Their names are the values of the tag "reason" on weir's own
// metrics, so they do not change.
const (
	Accepted Reason = iota

	// The parser rejects a line.

	Truncated        // the datagram was longer than max_packet and was cut in this line
	NoName           // nothing before the first ':'
	NoValue          // no ':' before the first '|', or nothing but ':' between them
	NoKind           // no '|'
	UnknownKind      // a type that is none of c g ms h d s
	BadValue         // a value that is not a number
	ValueNotFinite   // a value that is NaN or infinite
	BadRate          // a sample rate that is not a number
	RateOutOfRange   // a sample rate outside (0, 1], or so small that its inverse is infinite
	UnsupportedEvent // an event (_e{)
	UnsupportedCheck // a service check (_sc)
	UnsupportedTime  // a metric with its own timestamp (|T)

	// The aggregator refuses a sample.

	ContextLimit // its context would be one too many
	ReservedName // its name begins like weir's own

	// Reasons is how many there are.
	Reasons
)

var reasonNames = [Reasons]string{
	Accepted:         "accepted",
	Truncated:        "truncated",
	NoName:           "no_name",
	NoValue:          "no_value",
	NoKind:           "no_kind",
	UnknownKind:      "unknown_kind",
	BadValue:         "bad_value",
	ValueNotFinite:   "value_not_finite",
	BadRate:          "bad_rate",
	RateOutOfRange:   "rate_out_of_range",
	UnsupportedEvent: "unsupported_event",
	UnsupportedCheck: "unsupported_service_check",
	UnsupportedTime:  "unsupported_timestamp",
	ContextLimit:     "context_limit",
	ReservedName:     "reserved_name",
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
