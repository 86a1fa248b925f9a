// Package parser reads the StatsD and DogStatsD wire format.
//
//	packet = line *( "\n" line ) [ "\n" ]
//	line   = metric / event / check
//	metric = name ":" value *( ":" value ) "|" kind *( "|" field )
//	kind   = "c" / "g" / "h" / "ms" / "d" / "s"
//	field  = "@" rate / "#" tag *( "," tag ) / "T" time / "c:" container / "e:" external data /
//	         "card:" cardinality / anything else, which is ignored
//	event  = "_e{" bytes "," bytes "}:" title "|" text *( "|" field )
//	check  = "_sc|" name "|" status *( "|" field )
//
// It accepts and rejects what the Datadog Agent accepts and rejects, with two
// exceptions, each counted under its own reason: values that are NaN or
// infinite, and sample rates outside (0, 1]. The format is described at
// https://docs.datadoghq.com/developers/dogstatsd/datagram_shell/. The statsd
// dialect is that of https://github.com/statsd/statsd; docs/PROTOCOL.md says where
// the two differ.
//
// The work is split in two. Packet cuts each line into name, values and tail
// and reads the values; that is the hot path. Describe reads a tail (kind, rate
// and tags); the aggregator asks for that once per identity, when it first sees
// these bytes.
//
// In: packets. Out: Samples, Events and ServiceChecks, and a reason for each line
// that is none. It keeps
// no state between packets and never changes or keeps the bytes it is given.
package parser

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/weir-agent/weir/metric"
)

// Packet appends the samples of all lines in packet to into, and counts the
// lines that are rejected. cut says that the packet is the beginning of a longer
// one: what follows its last newline is then not a line but a part of one.
//
// Hot path: once per packet. No allocation once into has grown;
// TestPacketDoesNotAllocate checks.
func (p *Parser) Packet(packet []byte, cut bool, into *metric.Lines) {
	for len(packet) > 0 {
		line, whole := packet, packet
		if end := bytes.IndexByte(packet, '\n'); end >= 0 {
			line, packet = packet[:end], packet[end+1:]
		} else if cut {
			break
		} else {
			packet = nil
		}
		line = withoutReturn(line)
		if len(line) == 0 {
			continue
		}
		into.Count++
		var why metric.Reason
		switch {
		case line[0] != '_' && !p.statsd:
			why = p.metric(line, into)
		case bytes.HasPrefix(line, eventPrefix):
			var taken int
			taken, why = p.event(whole, line, into)
			packet = whole[taken:]
			if cut && len(packet) == 0 && whole[taken-1] != '\n' {
				// It reached into the last line, which is not whole.
				if why == metric.Accepted {
					into.Events = into.Events[:len(into.Events)-1]
				}
				into.Reject(line, metric.Truncated)
				return
			}
		default:
			why = p.line(line, into)
		}
		if why != metric.Accepted {
			into.Reject(line, why)
		}
	}
	if cut { // what the packet ends in, or would have gone on with
		into.Count++
		into.Reject(packet, metric.Truncated)
	}
}

// line appends what one line that is no event holds to into, or returns why it is
// to be rejected. It does not look at the tail of a metric beyond telling a set,
// whose values are not numbers: a Sample is a metric for certain once Describe has
// accepted it.
func (p *Parser) line(line []byte, into *metric.Lines) metric.Reason {
	if line[0] == '_' && bytes.HasPrefix(line, checkPrefix) {
		// As in the Datadog Agent, no metric's name begins like this.
		if !p.statsd || len(line) > len(checkPrefix) && line[len(checkPrefix)] == '|' {
			return p.check(line, into)
		}
	}
	if p.statsd {
		return p.statsdLine(line, into)
	}
	return p.metric(line, into)
}

// metric appends the sample of one metric to into, or returns why it is none.
func (p *Parser) metric(line []byte, into *metric.Lines) metric.Reason {
	//	page.views:1:4|d|@0.5|#env:prod
	//	^^^^^^^^^^
	colon, found := nameEnd(line)
	if !found {
		return badHead(line)
	}
	if colon == 0 {
		return metric.NoName
	}

	//	page.views:1|c|#env:prod
	//	           ^^
	value, n, ok := number(line[colon+1:])
	if pipe := colon + 1 + n; ok && pipe < len(line) && line[pipe] == '|' {
		s := into.Next()
		s.Line, s.NameEnd, s.Tail, s.Value, s.More, s.MoreEnd = line, uint32(colon), uint32(pipe+1), value, 0, 0
		return metric.Accepted
	}
	return p.unusualValue(line, colon, into)
}

// unusualValue is metric for everything but one number in a common form: members
// of sets, packed values, exponents, and what is no value at all.
func (p *Parser) unusualValue(line []byte, colon int, into *metric.Lines) metric.Reason {
	rest := line[colon+1:]
	pipe := bytes.IndexByte(rest, '|')
	if pipe < 0 {
		return metric.NoKind
	}
	if pipe == 0 {
		return metric.NoValue
	}
	values, tail := rest[:pipe], rest[pipe+1:]
	sample := metric.Sample{Line: line, NameEnd: uint32(colon), Tail: uint32(colon + 1 + pipe + 1)}

	if !isSet(tail, p.statsd) {
		start := len(into.Values)
		for len(values) > 0 {
			//	page.views:1:4|d
			//	             ^
			item := values
			if i := bytes.IndexByte(values, ':'); i >= 0 {
				item, values = values[:i], values[i+1:]
			} else {
				values = nil
			}
			if len(item) == 0 {
				continue
			}
			value, why := p.number(item)
			if why != metric.Accepted {
				into.Values = into.Values[:start]
				return why
			}
			into.Values = append(into.Values, value)
		}
		packed := into.Values[start:]
		if len(packed) == 0 {
			return metric.NoValue
		}
		sample.Value = packed[0]
		if len(packed) > 1 {
			sample.More, sample.MoreEnd = uint32(start+1), uint32(len(into.Values))
		} else {
			into.Values = into.Values[:start]
		}
	}
	into.Samples = append(into.Samples, sample)
	return metric.Accepted
}

// number reads one value in any form the dialect has.
func (p *Parser) number(item []byte) (float64, metric.Reason) {
	if p.statsd {
		return statsdNumber(item)
	}
	return anyNumber(item)
}

// isSet reports whether a tail says that the values are members of a set; blanks
// around the kind count for nothing if trimmed is set.
func isSet(tail []byte, trimmed bool) bool {
	if !trimmed {
		return len(tail) > 0 && tail[0] == 's' && (len(tail) == 1 || tail[1] == '|')
	}
	kind, _, _ := cut(tail, '|')
	return string(bytes.TrimSpace(kind)) == "s"
}

// badHead says what is missing in a line without a ':' before its first '|'.
func badHead(line []byte) metric.Reason {
	switch bytes.IndexByte(line, '|') {
	case -1:
		return metric.NoKind
	case 0:
		return metric.NoName
	}
	return metric.NoValue
}

// nameEnd returns the index of the first ':', if no '|' comes before it.
//
// It looks at eight bytes at a time: names are short, and a call to IndexByte
// for each of the two costs more than the whole search (BenchmarkPacket). In a
// word x that was xored with eight copies of the byte sought, the byte is where
// x has a zero byte, and the lowest set bit of (x - 0x01…) &^ x & 0x80… marks
// the first of them.
func nameEnd(line []byte) (int, bool) {
	const (
		ones   = 0x0101010101010101
		tops   = 0x8080808080808080
		colons = ones * ':'
		pipes  = ones * '|'
	)
	i := 0
	for ; i+8 <= len(line); i += 8 {
		word := binary.LittleEndian.Uint64(line[i:])
		c, p := word^colons, word^pipes
		c = (c - ones) &^ c & tops
		p = (p - ones) &^ p & tops
		if c|p != 0 {
			at := i + bits.TrailingZeros64(c|p)>>3
			return at, line[at] == ':'
		}
	}
	for ; i < len(line); i++ {
		switch line[i] {
		case ':':
			return i, true
		case '|':
			return i, false
		}
	}
	return 0, false
}
