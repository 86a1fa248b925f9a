package parser

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/weir-agent/weir/metric"
)

var (
	eventPrefix = []byte("_e{")
	checkPrefix = []byte("_sc")
)

// event reads the event at the start of a packet and returns how many bytes it
// took, its line ending included. line is the packet's first line without its
// ending.
//
//	_e{TITLE BYTES,TEXT BYTES}:TITLE|TEXT|d:TIME|h:HOST|k:KEY|p:PRIORITY|s:SOURCE|t:ALERT TYPE|#TAGS
//
// Some clients send a line break in a title as it is, so the lengths may reach
// beyond the line: then the bytes behind title and text must be those of an event,
// and no line that it reaches into may be a message by itself. Otherwise only the
// first line is lost.
func (p *Parser) event(packet, line []byte, into *metric.Lines) (taken int, why metric.Reason) {
	taken = len(line)
	if end := bytes.IndexByte(packet[taken:], '\n'); end >= 0 {
		taken += end + 1
	} else {
		taken = len(packet)
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return taken, metric.BadEvent
	}
	titleBytes, textBytes, ok := eventLengths(line[:colon])
	if !ok {
		return taken, metric.BadEvent
	}
	body := line[colon+1:]
	first := taken
	if !fits(titleBytes, textBytes, len(body)) {
		body = packet[colon+1:]
		if fits(titleBytes, textBytes, first-colon-1) {
			return taken, metric.BadEvent // its line's own ending is no part of it
		}
		if !fits(titleBytes, textBytes, len(body)) || body[titleBytes] != '|' {
			return taken, metric.BadEvent
		}
		end := titleBytes + 1 + textBytes
		if end < len(body) && body[end] != '|' && body[end] != '\n' && body[end] != '\r' {
			return taken, metric.BadEvent
		}
		if next := bytes.IndexByte(body[end:], '\n'); next >= 0 {
			body = body[:end+next]
			taken = colon + 1 + len(body) + 1
		} else {
			taken = len(packet)
		}
		if len(body) > end {
			body = withoutReturn(body)
		}
		if p.swallows(body[bytes.IndexByte(body, '\n')+1:]) {
			return first, metric.BadEvent
		}
	}
	e := metric.Event{
		Title:     unescaped(body[:titleBytes]),
		Text:      unescaped(body[titleBytes+1 : titleBytes+1+textBytes]),
		Priority:  "normal",
		AlertType: "info",
	}
	eventFields(body[titleBytes+1+textBytes:], &e)
	into.Events = append(into.Events, e)
	return taken, metric.Accepted
}

// swallows reports whether one of the lines in text is a message by itself: more
// likely the lengths of the event before it are wrong.
func (p *Parser) swallows(text []byte) bool {
	var lines metric.Lines
	var id metric.Identity
	for more := true; more; {
		var line []byte
		line, text, more = cut(text, '\n')
		line = withoutReturn(line)
		lines.Reset()
		switch {
		case len(line) == 0:
		case bytes.HasPrefix(line, eventPrefix):
			return true
		case p.line(line, &lines) == metric.Accepted:
			if len(lines.Checks) > 0 || p.Describe(&lines.Samples[0], &id) == metric.Accepted {
				return true
			}
		}
	}
	return false
}

// fits reports whether title, separator and text fit into so many bytes. No sum of
// lengths that a client chose overflows here.
func fits(title, text, room int) bool {
	return title < room && text <= room-title-1
}

// eventLengths reads "_e{TITLE,TEXT}". As in the Datadog Agent, any byte may stand
// for the closing brace.
func eventLengths(header []byte) (title, text int, ok bool) {
	if len(header) < len("_e{1,0}") {
		return 0, 0, false
	}
	first, second, ok := cut(header[len(eventPrefix):len(header)-1], ',')
	if !ok {
		return 0, 0, false
	}
	title, err := strconv.Atoi(string(first))
	if err != nil || title < 1 {
		return 0, 0, false
	}
	text, err = strconv.Atoi(string(second))
	if err != nil || text < 0 {
		return 0, 0, false
	}
	return title, text, true
}

// eventFields reads what follows the text. A field that is unknown or makes no
// sense is ignored.
func eventFields(rest []byte, e *metric.Event) {
	for more := true; more; {
		var field []byte
		field, rest, more = cut(rest, '|')
		key, value, _ := cut(field, ':')
		switch {
		case len(field) > 0 && field[0] == '#':
			e.Tags = stringTags(field[1:])
		case originField(field, &e.Origin):
		case string(key) == "d":
			if seconds, err := strconv.ParseInt(string(value), 10, 64); err == nil && seconds > 0 {
				e.Time = seconds
			}
		case string(key) == "h":
			e.Host = string(value)
		case string(key) == "k":
			e.AggregationKey = string(value)
		case string(key) == "s":
			e.SourceType = string(value)
		case string(key) == "p":
			if word := string(value); word == "normal" || word == "low" {
				e.Priority = word
			}
		case string(key) == "t":
			switch word := string(value); word {
			case "error", "warning", "info", "success":
				e.AlertType = word
			}
		}
	}
}

// check reads a service check:
//
//	_sc|NAME|STATUS|d:TIME|h:HOST|m:MESSAGE|#TAGS
func (p *Parser) check(line []byte, into *metric.Lines) metric.Reason {
	if len(line) < len("_sc|") {
		return metric.BadCheck
	}
	name, rest, ok := cut(line[len("_sc|"):], '|')
	if !ok || len(name) == 0 {
		return metric.BadCheck
	}
	status, rest, more := cut(rest, '|')
	if len(status) != 1 || status[0] < '0' || status[0] > '3' {
		return metric.BadCheck
	}
	c := metric.ServiceCheck{Name: string(name), Status: metric.CheckStatus(status[0] - '0')}
	for more {
		var field []byte
		field, rest, more = cut(rest, '|')
		key, value, _ := cut(field, ':')
		switch {
		case len(field) > 0 && field[0] == '#':
			c.Tags = stringTags(field[1:])
		case originField(field, &c.Origin):
		case string(key) == "d":
			if seconds, err := strconv.ParseInt(string(value), 10, 64); err == nil && seconds > 0 {
				c.Time = seconds
			}
		case string(key) == "h":
			c.Host = string(value)
		case string(key) == "m":
			c.Message = string(value)
		}
	}
	into.Checks = append(into.Checks, c)
	return metric.Accepted
}

func unescaped(text []byte) string {
	return string(bytes.ReplaceAll(text, []byte(`\n`), []byte("\n")))
}

func stringTags(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(string(text), ",")
}

func withoutReturn(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\r' {
		return line[:n-1]
	}
	return line
}
