package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// Type is what the value of an attribute is.
type Type string

// The types.
const (
	String    Type = "string"
	Int       Type = "int"
	Float     Type = "float"
	Bool      Type = "bool"
	Enum      Type = "enum"
	Timestamp Type = "timestamp"
)

var types = []string{string(String), string(Int), string(Float), string(Bool), string(Enum), string(Timestamp)}

// plainTypes are the types that need nothing but their name.
var plainTypes = []string{string(String), string(Int), string(Float), string(Bool), string(Timestamp)}

// Role is what an attribute is for.
type Role string

// The roles.
const (
	Tag      Role = "tag"      // a tag of the counter
	Identity Role = "identity" // who it was: counted by metrics, never a tag
	RawOnly  Role = "raw"      // in the raw events only
	Number   Role = "value"    // a number to add up
	Drop     Role = "drop"     // not kept anywhere
)

var roles = []string{string(Tag), string(Identity), string(RawOnly), string(Number), string(Drop)}

// Mode says what becomes of an event with a fault.
type Mode string

// The modes.
const (
	Inherit Mode = ""       // that of the whole plan
	Warn    Mode = "warn"   // what is right about it counts
	Strict  Mode = "strict" // none of it counts
)

var modes = []string{string(Warn), string(Strict)}

// Status says whether a definition is in use.
type Status string

// The states.
const (
	Active     Status = "active"
	Deprecated Status = "deprecated" // in use, but not to be used anew
	Broken     Status = "broken"     // a metric whose numbers are wrong
	Removed    Status = "removed"    // kept on file so that its name is not used again
)

var (
	eventStates  = []string{string(Active), string(Deprecated), string(Removed)}
	metricStates = []string{string(Active), string(Deprecated), string(Broken), string(Removed)}
)

// DataCategory says why data is collected.
type DataCategory string

// The categories of data.
const (
	Operational  DataCategory = "operational"
	Optional     DataCategory = "optional"
	Standard     DataCategory = "standard"
	Subscription DataCategory = "subscription"
)

// DataCategories are all categories of data.
var DataCategories = []string{string(Operational), string(Optional), string(Standard), string(Subscription)}

// Additional says what becomes of attributes that are not declared.
type Additional string

// What may become of them.
const (
	AdditionalDefault Additional = ""         // dropped in mode warn, rejected in mode strict
	AdditionalDrop    Additional = "drop"     // as if they had not been sent
	AdditionalKeep    Additional = "keep_raw" // in the raw event
	AdditionalReject  Additional = "reject"   // the event does not count, whatever the mode
)

var additionals = []string{string(AdditionalDrop), string(AdditionalKeep), string(AdditionalReject)}

// TimeFrame is how long a metric looks back.
type TimeFrame string

// The time frames.
const (
	Frame1d    TimeFrame = "1d"
	Frame7d    TimeFrame = "7d"
	Frame28d   TimeFrame = "28d"
	FrameWeek  TimeFrame = "week"
	FrameMonth TimeFrame = "month"
	FrameAll   TimeFrame = "all"
)

var timeFrames = []string{string(Frame1d), string(Frame7d), string(Frame28d), string(FrameWeek), string(FrameMonth), string(FrameAll)}

// Window says which days a time frame covers.
type Window string

// The windows.
const (
	Rolling     Window = "rolling"      // the last complete days
	Calendar    Window = "calendar"     // days, weeks and months of the calendar
	GitLabWeeks Window = "gitlab_weeks" // the last complete ISO week, or the last four
)

var windows = []string{string(Rolling), string(Calendar), string(GitLabWeeks)}

// framesOf are the time frames a window knows.
var framesOf = map[Window][]string{
	Rolling:     {string(Frame1d), string(Frame7d), string(Frame28d), string(FrameAll)},
	Calendar:    {string(Frame1d), string(FrameWeek), string(FrameMonth), string(FrameAll)},
	GitLabWeeks: {string(Frame7d), string(Frame28d), string(FrameAll)},
}

// Operator joins the rules of a metric.
type Operator string

// The operators.
const (
	Or  Operator = "or"  // by any rule
	And Operator = "and" // by every rule
)

var operators = []string{string(Or), string(And)}

// Scope says whose events a metric counts.
type Scope string

// The scopes.
const (
	Fleet Scope = "fleet" // those of all hosts that share a Redis; without one, this host's
	Host  Scope = "host"
)

var scopes = []string{string(Fleet), string(Host)}

// Privacy says what is written of a value.
type Privacy struct {
	Kind   PrivacyKind
	Length int // runes that Truncate keeps
	V4, V6 int // bits of an IPv4 or IPv6 address that TruncateIP keeps
}

// PrivacyKind is the way a value is protected.
type PrivacyKind string

// The ways.
const (
	None       PrivacyKind = "none"
	HMAC       PrivacyKind = "hmac"     // a keyed pseudonym
	Truncate   PrivacyKind = "truncate" // its beginning
	TruncateIP PrivacyKind = "truncate_ip"
	DropValue  PrivacyKind = "drop"
)

func (p Privacy) String() string {
	switch p.Kind {
	case Truncate:
		return fmt.Sprintf("truncate(%d)", p.Length)
	case TruncateIP:
		return fmt.Sprintf("truncate(ip%d/%d)", p.V4, p.V6)
	case "":
		return string(None)
	}
	return string(p.Kind)
}

const privacyForms = "none, hmac, truncate(8), truncate(ip24/48) or drop"

// parsePrivacy reads "none", "hmac", "truncate(8)", "truncate(ip24/48)" or "drop".
func parsePrivacy(text string) (p Privacy, ok bool) {
	switch PrivacyKind(text) {
	case None, HMAC, DropValue:
		return Privacy{Kind: PrivacyKind(text)}, true
	}
	inner, ok := strings.CutPrefix(text, "truncate(")
	if !ok {
		return p, false
	}
	if inner, ok = strings.CutSuffix(inner, ")"); !ok {
		return p, false
	}
	if bits, isAddress := strings.CutPrefix(inner, "ip"); isAddress {
		four, six, _ := strings.Cut(strings.Replace(bits, ",", "/", 1), "/")
		v4, err4 := strconv.Atoi(four)
		v6, err6 := strconv.Atoi(strings.TrimSpace(six))
		return Privacy{Kind: TruncateIP, V4: v4, V6: v6},
			err4 == nil && err6 == nil && v4 >= 0 && v4 <= 32 && v6 >= 0 && v6 <= 128
	}
	n, err := strconv.Atoi(inner)
	return Privacy{Kind: Truncate, Length: n}, err == nil && n >= 1 && n <= maxLength
}
