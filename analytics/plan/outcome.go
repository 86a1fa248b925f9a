package plan

// Outcome says what was found out about an event. Outcomes are values of the tag
// "outcome" on weir's own metrics, so their names do not change.
type Outcome uint8

// The outcomes. Check finds those down to ConsentDenied; the others take a clock or a
// memory, and are for whoever calls it.
const (
	OK                   Outcome = iota
	UnplannedEvent               // no definition has this name
	RemovedEvent                 // its definition says that it is not sent any more
	NotACounter                  // the line is no counter
	RequiredMissing              // a required attribute is absent or empty
	DatatypeMismatch             // a value is not of its attribute's type
	NotInEnum                    // a value is none of its enum's
	TooLong                      // a value is longer than max_length
	AdditionalProperties         // an attribute is not declared
	VersionMismatch              // it was made for another model of the schema
	SampledUnique                // it was sampled, and somebody counts who did it
	ConsentDenied                // a category of consent was not granted, or its data is not collected

	BadCount  // the value is not a whole number of 1 or more
	Late      // too old for its day
	Future    // ahead of the clock
	Duplicate // its _id was there before

	Outcomes // how many there are
)

var outcomeNames = [Outcomes]string{
	"ok", "unplanned_event", "removed_event", "not_a_counter", "required_missing", "datatype_mismatch", "not_in_enum",
	"too_long", "additional_properties", "version_mismatch", "sampled_unique", "consent_denied",
	"bad_count", "late", "future", "duplicate",
}

// String returns the outcome's name: "required_missing".
func (o Outcome) String() string {
	if o < Outcomes {
		return outcomeNames[o]
	}
	return "unknown"
}

// Verdict says what is to be done with an event.
type Verdict uint8

// The verdicts.
const (
	Count     Verdict = iota // what is right about it counts
	Unplanned                // it counts as an event nobody planned, and goes to the dead letters
	Refuse                   // nothing of it counts; it goes to the dead letters
	Deny                     // nothing of it counts, and nothing of it may be written
)

var verdictNames = [...]string{"count", "unplanned", "refuse", "deny"}

func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "unknown"
}
