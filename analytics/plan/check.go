package plan

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// Result is what Check found out about a line. It may be used for many lines, one
// after the other; then it allocates nothing. What it holds is borrowed from the line
// and valid until the next Check.
type Result struct {
	Event      *Event // nil if it is not planned
	Verdict    Verdict
	Values     []Value     // by attribute of Event; null for those of role drop
	Extra      []Property  // not declared, but to be kept in the raw event
	Context    []Property  // of the client and not of the event
	Violations []Violation // in no order; of those of tags that are no attributes some

	// What the reserved tags say.

	ID        []byte  // _id; nil without
	Version   Version // _v, or the definition's
	Time      int64   // _ts or else |T, Unix milliseconds; 0 without
	Consent   []byte  // _consent, unescaped: categories with + between
	Anonymous bool    // _anon: identities are null

	// SkipUnique says that the event was sampled: who did it must not be counted.
	SkipUnique bool

	found   uint32 // a bit for each outcome
	scratch []byte // backs values that had to be written anew
}

// Property is a tag that is not an attribute.
type Property struct {
	Key, Value []byte
	Identity   bool // its name says that it tells who it was
}

// Violation is one fault of a line.
type Violation struct {
	Outcome Outcome
	Index   int    // of the attribute, -1 if it is none of the event's
	Key     []byte // of the tag, if it is no attribute; nil for the line as a whole
}

// Has reports whether a line had an outcome. It has OK if it has no other.
func (r *Result) Has(o Outcome) bool {
	if o == OK {
		return r.found == 0
	}
	return r.found&(1<<o) != 0
}

// Outcomes yields a line's outcomes, OK if it has no other.
func (r *Result) Outcomes(yield func(Outcome) bool) {
	if r.found == 0 {
		yield(OK)
		return
	}
	for o := range Outcomes {
		if o != OK && r.Has(o) && !yield(o) {
			return
		}
	}
}

func (r *Result) reset() {
	*r = Result{
		Values: r.Values[:0], Extra: r.Extra[:0], Context: r.Context[:0], Violations: r.Violations[:0],
		scratch: r.scratch[:0],
	}
}

// maxUndeclared is how many faults of tags that are no attributes are told one by one: a
// datagram may have tens of thousands of tags.
const maxUndeclared = 32

func (r *Result) violate(o Outcome, index int, key []byte) {
	r.found |= 1 << o
	if key != nil && len(r.Violations) >= maxUndeclared+maxAttributes {
		return
	}
	r.Violations = append(r.Violations, Violation{o, index, key})
}

// Check holds an event against the plan: name is the line's without the prefix of
// analytics events, id what Describe made of the line.
//
// Per identity, not per line; it allocates nothing for values that can be read, once
// r has its capacities (TestCheckDoesNotAllocate).
func (p *Plan) Check(name []byte, id *metric.Identity, r *Result) {
	r.reset()
	r.Time = id.Time * 1000
	e := p.byName[string(name)]
	r.Event = e
	if e == nil {
		r.violate(UnplannedEvent, -1, nil)
		p.readTags(nil, id.Tags, r)
		if r.Verdict = Unplanned; p.options.Mode == Strict {
			r.Verdict = Refuse
		}
		return
	}
	r.Version = e.Version
	r.Values = slices.Grow(r.Values, len(e.Attributes))[:len(e.Attributes)]
	clear(r.Values)
	p.readTags(e, id.Tags, r)
	p.conclude(e, id, r)
}

// conclude looks at the line as a whole, and comes to the verdict.
func (p *Plan) conclude(e *Event, id *metric.Identity, r *Result) {
	if !p.permitted(e, r.Consent) {
		// Nothing else may be said about it.
		r.Violations, r.Extra, r.found = r.Violations[:0], r.Extra[:0], 0
		clear(r.Values)
		r.violate(ConsentDenied, -1, nil)
		r.Verdict = Deny
		return
	}
	for i := range e.Attributes {
		a := &e.Attributes[i]
		hidden := r.Anonymous && a.Role == Identity
		if a.Required && r.Values[i].Null() && !hidden && !r.faulty(i) {
			r.violate(RequiredMissing, i, nil)
		}
		if hidden || a.Role == Drop {
			r.Values[i] = Value{}
		}
	}
	if r.Anonymous {
		r.Extra = slices.DeleteFunc(r.Extra, func(x Property) bool { return x.Identity })
	}
	if id.Rate < 1 && e.unique {
		r.SkipUnique = true
		r.violate(SampledUnique, -1, nil)
	}
	strict := e.Mode == Strict || e.Mode == Inherit && p.options.Mode == Strict
	refused := strict && r.found&^(1<<AdditionalProperties) != 0 || r.Has(AdditionalProperties) && e.rejectsAdditional(strict)
	if e.Status == Removed {
		r.violate(RemovedEvent, -1, nil)
		refused = true
	}
	if id.Kind != metric.Counter {
		r.violate(NotACounter, -1, nil)
		refused = true
	}
	if refused {
		r.Verdict = Refuse
	}
}

func (e *Event) rejectsAdditional(strict bool) bool {
	return e.Additional == AdditionalReject || e.Additional == AdditionalDefault && strict
}

// faulty reports whether an attribute has a violation.
func (r *Result) faulty(index int) bool {
	for i := range r.Violations {
		if r.Violations[i].Index == index {
			return true
		}
	}
	return false
}

// readTags sorts tags into attributes, reserved tags, context and the rest. Of
// several with one key the first counts; without a value it is null.
func (p *Plan) readTags(e *Event, tags [][]byte, r *Result) {
	for _, tag := range tags {
		key, raw, _ := bytes.Cut(tag, []byte{':'})
		if len(key) == 0 {
			continue
		}
		if key[0] == '_' && r.reserved(key, raw) {
			continue
		}
		if e == nil {
			continue
		}
		index, declared := e.index[string(key)]
		if !declared {
			p.undeclared(e, key, raw, r)
			continue
		}
		v := &r.Values[index]
		if !v.Null() || r.faulty(index) {
			continue
		}
		text, ok := unescape(raw, &r.scratch)
		if !ok {
			r.violate(DatatypeMismatch, index, nil)
			continue
		}
		if o := e.Attributes[index].parse(text, v, &r.scratch); o != OK {
			r.violate(o, index, nil)
		}
	}
}

// reserved reads a tag that is meant for the agent, and reports whether it is one.
func (r *Result) reserved(key, raw []byte) bool {
	switch string(key) {
	case "_id":
		if text, ok := unescape(raw, &r.scratch); r.ID == nil && ok && len(text) > 0 {
			r.ID = text
		}
	case "_consent":
		if text, ok := unescape(raw, &r.scratch); r.Consent == nil && ok {
			r.Consent = text
		}
	case "_anon":
		r.Anonymous = r.Anonymous || bytes.EqualFold(raw, trueText) || string(raw) == "1"
	case "_v":
		v, ok := parseVersionBytes(raw)
		switch {
		case r.Event == nil || len(raw) == 0:
		case !ok:
			r.violate(DatatypeMismatch, -1, key)
		default:
			r.Version = v
			if v.Model != r.Event.Version.Model {
				r.violate(VersionMismatch, -1, key)
			}
		}
	case "_ts":
		if len(raw) == 0 {
			return true
		}
		text, ok := unescape(raw, &r.scratch)
		ms, isTime := parseTime(text)
		if !ok || !isTime {
			r.violate(DatatypeMismatch, -1, key)
			return true
		}
		r.Time = ms
	default:
		return false
	}
	return true
}

func parseVersionBytes(raw []byte) (Version, bool) {
	const longest = 20
	if len(raw) > longest {
		return Version{}, false
	}
	return ParseVersion(string(raw))
}

// undeclared takes a tag that is no attribute of the event.
func (p *Plan) undeclared(e *Event, key, raw []byte, r *Result) {
	for _, name := range p.options.Context {
		if name == string(key) {
			r.Context = append(r.Context, Property{Key: key, Value: raw})
			return
		}
	}
	r.violate(AdditionalProperties, -1, key)
	if e.Additional != AdditionalKeep || len(r.Extra) >= maxAttributes {
		return
	}
	if text, ok := unescape(raw, &r.scratch); ok {
		r.Extra = append(r.Extra, Property{Key: key, Value: text, Identity: looksLikeIdentity(key)})
	}
}

var idSuffix = []byte("_id")

func looksLikeIdentity(key []byte) bool {
	if bytes.HasSuffix(key, idSuffix) {
		return true
	}
	for _, name := range identityNames {
		if name == string(key) {
			return true
		}
	}
	return false
}

// permitted reports whether an event's data may be collected, and all its categories
// of consent were granted.
func (p *Plan) permitted(e *Event, granted []byte) bool {
	if len(p.options.Collected) > 0 && !slices.Contains(p.options.Collected, e.DataCategory) {
		return false
	}
	for _, category := range e.Consent {
		if !p.grants(granted, category) {
			return false
		}
	}
	return true
}

// grants reports whether "a+marketing" grants a category. A word is a category's
// name, or a beginning of it that no other category of the plan has.
func (p *Plan) grants(granted []byte, category string) bool {
	for len(granted) > 0 {
		var word []byte
		word, granted, _ = bytes.Cut(granted, []byte{'+'})
		if len(word) == 0 || len(word) > len(category) || category[:len(word)] != string(word) {
			continue
		}
		if len(word) == len(category) {
			return true
		}
		others := 0
		for _, c := range p.categories {
			if len(c) >= len(word) && c[:len(word)] == string(word) {
				others++
			}
		}
		if others == 1 {
			return true
		}
	}
	return false
}

// Explain says in a sentence what a violation is and what to do about it.
func (r *Result) Explain(v Violation) string {
	subject := string(v.Key[:min(len(v.Key), maxName)])
	var a *Attribute
	if v.Index >= 0 {
		a = &r.Event.Attributes[v.Index]
		subject = a.Name
	}
	switch v.Outcome {
	case UnplannedEvent:
		return "no definition has this name; define it in events/, or correct the name"
	case RemovedEvent:
		return "the definition says that this event is removed; send another one"
	case NotACounter:
		return "an event is a counter; send it with |c"
	case RequiredMissing:
		return subject + " is required and absent or empty; send it"
	case DatatypeMismatch:
		if a != nil {
			return fmt.Sprintf("%s is not %s", subject, a.expects())
		}
		return fmt.Sprintf("%s cannot be read; %s", subject, reservedForms[subject])
	case NotInEnum:
		return fmt.Sprintf("%s is not %s; it counts as %s", subject, a.expects(), Other)
	case TooLong:
		return fmt.Sprintf("%s is longer than %d bytes (max_length)", subject, a.MaxLength)
	case AdditionalProperties:
		hint := ""
		if near := suggestAttribute(r.Event, subject, false); strings.HasPrefix(near, "; did") {
			hint = near
		}
		return subject + " is not declared" + hint
	case VersionMismatch:
		return fmt.Sprintf("it was made for version %v, and the definition has version %v", r.Version, r.Event.Version)
	case SampledUnique:
		return "it is sampled (@), and who did it cannot be counted from a sample; send it without a rate"
	case ConsentDenied:
		return "its data may not be collected: " + list(r.Event.Consent) + " must be granted by _consent, and the category " +
			string(r.Event.DataCategory) + " collected"
	}
	return v.Outcome.String()
}

// reservedForms say what the reserved tags take.
var reservedForms = map[string]string{
	"_v":  "write MODEL-REVISION-ADDITION, such as 1-0-0",
	"_ts": "write Unix milliseconds or an escaped time of RFC 3339",
}
