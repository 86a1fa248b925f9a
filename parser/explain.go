package parser

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// Explanation says how one line is read.
type Explanation struct {
	Line  []byte // a metric of a line that holds several is a line of its own here
	What  string // "metric", "event" or "service check"
	Parts []Part // in the order of the line; some bytes, such as separators, are in none
	Why   metric.Reason
	At    int // where in Line the reason is; only if Why is not Accepted
}

// Part is a stretch of a line and what it means.
type Part struct {
	Start, End int // in bytes
	Meaning    string
}

// Messages takes a packet apart as Packet does: into lines without their endings,
// and events, which may be of several. Empty lines are left out.
func (p *Parser) Messages(packet []byte) [][]byte {
	var all [][]byte
	for len(packet) > 0 {
		line, taken := packet, len(packet)
		if end := bytes.IndexByte(packet, '\n'); end >= 0 {
			line, taken = packet[:end], end+1
		}
		line = withoutReturn(line)
		if bytes.HasPrefix(line, eventPrefix) {
			var why metric.Reason
			first := line
			if taken, why = p.event(packet, first, new(metric.Lines)); why == metric.Accepted {
				line = bytes.TrimSuffix(packet[:taken], []byte("\n"))
				if _, why := p.event(line, first, new(metric.Lines)); why != metric.Accepted {
					line = packet[:taken] // its last byte is one of the text
				}
			}
		}
		if len(line) > 0 {
			all = append(all, line)
		}
		packet = packet[taken:]
	}
	return all
}

// Explain says how one of Messages is read. The verdict is that of Packet and
// Describe. It is meant for people, and slow.
func (p *Parser) Explain(line []byte) []Explanation {
	var lines metric.Lines
	if bytes.HasPrefix(line, eventPrefix) {
		p.Packet(line, false, &lines)
		return []Explanation{p.explainEvent(line, &lines)}
	}
	if why := p.line(line, &lines); why != metric.Accepted {
		lines.Reject(line, why)
	}
	if len(lines.Checks) == 1 || lines.Rejected[metric.BadCheck] == 1 {
		return []Explanation{p.explainCheck(line, &lines)}
	}
	colon, found := nameEnd(line)
	if !p.statsd || !found || colon == 0 {
		return []Explanation{p.explainMetric(line)}
	}
	// Several metrics are written as statsdLine does.
	var all []Explanation
	var text []byte
	rest, tags := line[colon+1:], tagsOf(line)
	if nextMetric(rest) < 0 {
		return []Explanation{p.explainMetric(line)}
	}
	for more := true; more; {
		if len(all) == maxMetricsPerLine || len(text) > max(maxRewritten, maxRewrittenTimes*len(line)) {
			return append(all, Explanation{Line: line, What: "metric", Why: metric.TooManyMetrics, At: len(line) - len(rest)})
		}
		start := len(text)
		text, rest, more = appendFirst(text, line[:colon+1], rest, tags)
		all = append(all, p.explainMetric(text[start:len(text):len(text)]))
	}
	return all
}

// explainer gathers parts.
type explainer struct {
	Explanation
}

func (e *explainer) part(start, end int, format string, args ...any) {
	e.Parts = append(e.Parts, Part{start, end, fmt.Sprintf(format, args...)})
}

// fault sets where the line is at fault, if that is why it is rejected.
func (e *explainer) fault(why metric.Reason, at int) {
	if e.Why == why && e.At < 0 {
		e.At = at
	}
}

func (p *Parser) explainMetric(line []byte) Explanation {
	e := explainer{Explanation{Line: line, What: "metric", At: -1}}
	name, why := p.verdict(line)
	e.Why = why

	head, tail, hasTail := cut(line, '|')
	colon := bytes.IndexByte(head, ':')
	if colon < 0 {
		e.fault(metric.NoName, 0)
		e.fault(metric.NoValue, len(head))
		e.fault(metric.NoKind, len(line))
		return e.Explanation
	}
	e.fault(metric.NoName, 0)
	e.fault(metric.UnclosedTags, bytes.IndexByte(head, '['))
	if p.splitName != nil && name != "" && name != string(head[:colon]) {
		e.part(0, colon, "name %s, with tags in it", name)
	} else {
		e.part(0, colon, "name")
	}
	if !hasTail {
		e.fault(metric.NoKind, len(line))
		return e.Explanation
	}
	e.fault(metric.NoValue, colon+1)
	e.values(p, head, colon, isSet(tail, p.statsd))
	kind, _, _ := cut(tail, '|')
	start := len(head) + 1
	e.part(start, start+len(kind), "%s", p.kindMeaning(kind))
	e.fault(metric.UnknownKind, start)
	e.fault(metric.NoKind, start)
	e.fields(p, start+len(kind))
	return e.Explanation
}

// verdict returns what the agent makes of a line of one metric: the name, without the
// tags in it, if it is accepted, or else the reason.
func (p *Parser) verdict(line []byte) (name string, why metric.Reason) {
	if len(line) == 0 {
		return "", metric.NoKind
	}
	var lines metric.Lines
	if why := p.line(line, &lines); why != metric.Accepted {
		return "", why
	}
	for why, n := range lines.Rejected {
		if n > 0 {
			return "", metric.Reason(why)
		}
	}
	var id metric.Identity
	why = p.Describe(&lines.Samples[0], &id)
	return string(id.Name), why
}

// fields explains the fields of a metric, each of which begins with the '|' at or
// behind at.
func (e *explainer) fields(p *Parser, at int) {
	seen := map[byte]int{} // the part of a field of which one counts, by its first byte
	for at < len(e.Line) {
		field, _, _ := cut(e.Line[at+1:], '|')
		start := at + 1
		at = start + len(field)
		if len(field) == 0 {
			continue
		}
		which := field[0]
		earlier, repeated := seen[which]
		if repeated && p.statsd && (which == '@' || which == '#') {
			e.part(start, at, "ignored: the first one counts")
			continue
		}
		e.field(p, start, field)
		switch which {
		case '@', '#', 'T':
			if repeated {
				e.Parts[earlier].Meaning += "; ignored: the last one counts"
			}
			seen[which] = len(e.Parts) - 1
		}
	}
}

// values explains what stands between the first ':' and the first '|'.
func (e *explainer) values(p *Parser, head []byte, colon int, set bool) {
	if set {
		e.part(colon+1, len(head), "member of the set")
		return
	}
	for at := colon; at < len(head); {
		item, _, _ := cut(head[at+1:], ':')
		start, end := at+1, at+1+len(item)
		at = end
		if len(item) == 0 {
			continue
		}
		v, why := p.number(item)
		switch {
		case why != metric.Accepted:
			e.fault(why, start)
			e.part(start, end, "value: %s", reasonText[why])
		case p.statsd && (item[0] == '+' || item[0] == '-'):
			e.part(start, end, "value %s, with a sign: for a gauge it is a change", format(v))
		default:
			e.part(start, end, "value %s", format(v))
		}
		if v < 0 {
			e.fault(metric.NegativeTimer, start)
		}
	}
}

func format(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

func (p *Parser) kindMeaning(kind []byte) string {
	k := p.kindOf(kind)
	switch k {
	case 0:
		return "kind: unknown"
	case metric.KeptGauge:
		return "kind: gauge; it keeps its value (statsd dialect)"
	case metric.ClassicTimer:
		return "kind: timer; a sample rate changes only its count (statsd dialect)"
	}
	return "kind: " + k.String()
}

// field explains one field of a metric.
func (e *explainer) field(p *Parser, start int, field []byte) {
	end := start + len(field)
	switch value := field[1:]; field[0] {
	case '@':
		rate, why := p.sampleRate(value)
		if why != metric.Accepted {
			e.fault(why, start+1)
			e.part(start, end, "sample rate: %s", reasonText[why])
			return
		}
		e.part(start, end, "sample rate: each stands for %s", format(1/rate))
	case '#':
		e.tags(start, end, value)
	case 'T':
		if seconds, err := strconv.ParseInt(string(value), 10, 64); err != nil || seconds < 1 {
			e.fault(metric.BadTimestamp, start+1)
			e.part(start, end, "time: %s", reasonText[metric.BadTimestamp])
			return
		}
		e.part(start, end, "time, in seconds since 1970")
	default:
		e.rest(start, end, field)
	}
}

func (e *explainer) tags(start, end int, value []byte) {
	n := len(splitTags(value, nil))
	e.part(start, end, "%d tags", n)
	if n == 1 {
		e.Parts[len(e.Parts)-1].Meaning = "1 tag"
	}
}

// rest explains a field that all kinds of lines may have.
func (e *explainer) rest(start, end int, field []byte) {
	var o metric.Origin
	if !originField(field, &o) {
		e.part(start, end, "unknown field, ignored")
		return
	}
	var known []string
	for _, item := range []struct {
		name  string
		value []byte
	}{
		{"container", o.Container},
		{"cgroup inode", o.Inode},
		{"container name", o.ContainerName},
		{"pod", o.PodUID},
		{"cardinality", o.Cardinality},
	} {
		if len(item.value) > 0 {
			known = append(known, item.name+" "+string(item.value))
		}
	}
	if known == nil {
		known = []string{"nothing known"}
	}
	e.part(start, end, "origin: %s", strings.Join(known, ", "))
}

func (p *Parser) explainEvent(line []byte, lines *metric.Lines) Explanation {
	e := explainer{Explanation{Line: line, What: "event", At: -1}}
	if lines.Rejected[metric.BadEvent] > 0 {
		e.Why = metric.BadEvent
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		e.fault(metric.BadEvent, len(line))
		return e.Explanation
	}
	title, text, ok := eventLengths(line[:colon])
	if !ok {
		e.fault(metric.BadEvent, min(len(eventPrefix), len(line)-1))
		return e.Explanation
	}
	e.part(0, colon, "title of %d bytes, text of %d", title, text)
	body := len(line) - colon - 1
	if !fits(title, text, body) {
		e.fault(metric.BadEvent, len(line)) // here it should go on
		return e.Explanation
	}
	at := colon + 1
	e.part(at, at+title, "title")
	e.part(at+title+1, at+title+1+text, "text")
	e.messageFields(line, at+title+1+text, map[string]string{
		"d": "time, in seconds since 1970", "h": "host", "k": "aggregation key", "s": "source type", "p": "priority", "t": "alert type",
	})
	return e.Explanation
}

func (p *Parser) explainCheck(line []byte, lines *metric.Lines) Explanation {
	e := explainer{Explanation{Line: line, What: "service check", At: -1}}
	if lines.Rejected[metric.BadCheck] > 0 {
		e.Why = metric.BadCheck
	}
	const start = len("_sc|")
	if len(line) < start {
		e.fault(metric.BadCheck, len(line))
		return e.Explanation
	}
	name, rest, ok := cut(line[start:], '|')
	if len(name) == 0 {
		e.fault(metric.BadCheck, start)
		return e.Explanation
	}
	e.part(start, start+len(name), "name")
	if !ok {
		e.fault(metric.BadCheck, len(line))
		return e.Explanation
	}
	status, _, _ := cut(rest, '|')
	at := start + len(name) + 1
	e.fault(metric.BadCheck, at)
	if e.Why == metric.Accepted {
		e.part(at, at+1, "status: %s", metric.CheckStatus(status[0]-'0'))
	}
	e.messageFields(line, at+len(status), map[string]string{"d": "time, in seconds since 1970", "h": "host", "m": "message"})
	return e.Explanation
}

// messageFields explains the fields of an event or a service check from at on.
func (e *explainer) messageFields(line []byte, at int, known map[string]string) {
	for at < len(line) {
		start := at
		if line[at] == '|' {
			start++
		}
		field, _, _ := cut(line[start:], '|')
		at = start + len(field)
		key, _, _ := cut(field, ':')
		switch meaning := known[string(key)]; {
		case len(field) == 0:
		case field[0] == '#':
			e.tags(start, at, field[1:])
		case meaning != "":
			e.part(start, at, "%s", meaning)
		default:
			e.rest(start, at, field)
		}
	}
}

// reasonText says in words why a line is rejected.
var reasonText = map[metric.Reason]string{
	metric.NoName:         "there is no name",
	metric.NoValue:        "there is no value between ':' and '|'",
	metric.NoKind:         "there is no '|' with a kind behind it",
	metric.UnknownKind:    "the kind is none that this dialect has",
	metric.BadValue:       "it is no number",
	metric.ValueNotFinite: "it is not finite",
	metric.BadRate:        "it is no number",
	metric.RateOutOfRange: "it is not above 0 and at most 1",
	metric.BadTimestamp:   "it is no whole number of seconds after 1970",
	metric.BadEvent:       "the lengths are missing, no numbers, or not those of what follows",
	metric.BadCheck:       "there is no name, or no status of 0 to 3",
	metric.NegativeTimer:  "a timer cannot be negative",
	metric.UnclosedTags:   "the '[' has no ']'",
	metric.TooManyMetrics: "the line holds too many metrics",
	metric.Truncated:      "the line is longer than listen.max_packet",
}

// Text says in words why the line is rejected, "" if it is not.
func (e *Explanation) Text() string { return reasonText[e.Why] }
