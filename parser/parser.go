// Package parser reads the StatsD and DogStatsD wire format.
//
//	packet = line *( "\n" line ) [ "\n" ]
//	line   = name ":" value *( ":" value ) "|" kind *( "|" field )
//	kind   = "c" / "g" / "h" / "ms" / "d" / "s"
//	field  = "@" rate / "#" tag *( "," tag ) / anything else, which is ignored
//
// It accepts and rejects what the Datadog Agent accepts and rejects, with two
// exceptions, each counted under its own reason: values that are NaN or
// infinite, and sample rates outside (0, 1]. The format is described at
// https://docs.datadoghq.com/developers/dogstatsd/datagram_shell/.
//
// The work is split in two. Packet cuts each line into name, values and tail
// and reads the values; that is the hot path. Describe reads a tail (kind, rate
// and tags); the aggregator asks for that once per identity, when it first sees
// these bytes.
//
// In: packets. Out: Samples, and a reason for each line that is none. It keeps
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
func Packet(packet []byte, cut bool, into *metric.Lines) {
	for len(packet) > 0 {
		line := packet
		if end := bytes.IndexByte(packet, '\n'); end >= 0 {
			line, packet = packet[:end], packet[end+1:]
		} else {
			packet = nil
			if cut {
				into.Count++
				into.Reject(line, metric.Truncated)
				return
			}
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		if len(line) == 0 {
			continue
		}
		into.Count++
		if why := Line(line, into); why != metric.Accepted {
			into.Reject(line, why)
		}
	}
	if cut { // right behind a newline: the rest of the datagram is lost all the same
		into.Count++
		into.Reject(nil, metric.Truncated)
	}
}

// Line appends the sample of one line, without its line ending, to into, or
// returns why it is none. It does not look at the tail beyond telling a set,
// whose values are not numbers: a Sample is a metric for certain once Describe
// has accepted it.
func Line(line []byte, into *metric.Lines) metric.Reason {
	if line[0] == '_' {
		if why := message(line); why != metric.Accepted {
			return why
		}
	}

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
		into.Samples = append(into.Samples, metric.Sample{
			Line:    line,
			NameEnd: uint32(colon),
			Tail:    uint32(pipe + 1),
			Value:   value,
		})
		return metric.Accepted
	}
	return unusualValue(line, colon, into)
}

// unusualValue is Line for everything but one number in a common form: members
// of sets, packed values, exponents, and what is no value at all.
func unusualValue(line []byte, colon int, into *metric.Lines) metric.Reason {
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

	if !isSet(tail) {
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
			value, why := anyNumber(item)
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
			sample.More = packed[1:]
		} else {
			into.Values = into.Values[:start]
		}
	}
	into.Samples = append(into.Samples, sample)
	return metric.Accepted
}

// isSet reports whether a tail says that the values are members of a set.
func isSet(tail []byte) bool {
	return len(tail) > 0 && tail[0] == 's' && (len(tail) == 1 || tail[1] == '|')
}

// message tells the messages that are not metrics: by their first bytes, as the
// Datadog Agent does, so that no metric's name can begin with "_sc".
func message(line []byte) metric.Reason {
	switch {
	case bytes.HasPrefix(line, []byte("_e{")):
		return metric.UnsupportedEvent
	case bytes.HasPrefix(line, []byte("_sc")):
		return metric.UnsupportedCheck
	}
	return metric.Accepted
}

// badHead says what is missing in a line without a ':' before its first '|'.
func badHead(line []byte) metric.Reason {
	if bytes.IndexByte(line, '|') < 0 {
		return metric.NoKind
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
