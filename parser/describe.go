package parser

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"

	"github.com/weir-agent/weir/metric"
)

// Describe reads the tail of a sample into id, or returns why the line is to be
// rejected after all. Fields may come in any order; of a repeated one the last
// counts, but in the statsd dialect the first; empty and unknown ones are ignored.
func (p *Parser) Describe(sample *metric.Sample, id *metric.Identity) metric.Reason {
	id.Reset()
	id.Name = sample.Name()
	if p.splitName != nil {
		if why := p.splitName(id.Name, id); why != metric.Accepted {
			return why
		}
	}
	inName := len(id.Tags)

	//	page.views:1|c|@0.5|#env:prod,team:web
	//	             ^
	field, rest, more := cut(sample.TailBytes(), '|')
	id.Kind = p.kindOf(field)
	if id.Kind == 0 {
		if len(bytes.TrimSpace(field)) == 0 {
			return metric.NoKind
		}
		return metric.UnknownKind
	}
	rated, tagged := false, false
	for more {
		//	page.views:1|c|@0.5|#env:prod,team:web
		//	               ^^^^ ^^^^^^^^^^^^^^^^^^
		field, rest, more = cut(rest, '|')
		if len(field) == 0 {
			continue
		}
		switch value := field[1:]; field[0] {
		case '@':
			if p.statsd && rated {
				continue
			}
			rated = true
			rate, why := p.sampleRate(value)
			if why != metric.Accepted {
				return why
			}
			id.Rate = rate
		case '#':
			if p.statsd && tagged {
				continue
			}
			tagged = true
			id.Tags = splitTags(value, id.Tags[:inName])
		case 'T':
			seconds, err := strconv.ParseInt(string(value), 10, 64)
			if err != nil || seconds < 1 {
				return metric.BadTimestamp
			}
			id.Time = seconds
		case 'c', 'e':
			originField(field, &id.Origin)
		}
	}
	return metric.Accepted
}

func (p *Parser) kindOf(field []byte) metric.Kind {
	if p.statsd {
		return statsdKindOf(bytes.TrimSpace(field))
	}
	switch string(field) {
	case "c":
		return metric.Counter
	case "g":
		return metric.Gauge
	case "s":
		return metric.Set
	case "h":
		return metric.Histogram
	case "ms":
		return metric.Timer
	case "d":
		return metric.Distribution
	}
	return 0
}

// statsdKindOf is kindOf for the statsd dialect. "m" is a meter, which is a counter,
// and "h" is "ms" by another name.
func statsdKindOf(field []byte) metric.Kind {
	switch string(field) {
	case "c", "m":
		return metric.Counter
	case "g":
		return metric.KeptGauge
	case "s":
		return metric.Set
	case "ms", "h":
		return metric.ClassicTimer
	case "d":
		return metric.Distribution
	}
	return 0
}

// sampleRate reads a rate; in the statsd dialect there may be blanks around it.
func (p *Parser) sampleRate(text []byte) (float64, metric.Reason) {
	if p.statsd {
		text = bytes.TrimSpace(text)
	}
	rate, err := parseFloat(text)
	if err != nil || math.IsNaN(rate) {
		return 0, metric.BadRate
	}
	if rate <= 0 || rate > 1 || math.IsInf(1/rate, 0) {
		return 0, metric.RateOutOfRange
	}
	return rate, metric.Accepted
}

// splitTags appends the tags of a field to tags. Nothing at all means no tags;
// otherwise each comma separates two, of which either may be empty.
//
// Eight bytes are looked at together: tags are short, and a search for each would cost
// more than it finds (BenchmarkAttack).
func splitTags(text []byte, tags [][]byte) [][]byte {
	if len(text) == 0 {
		return tags
	}
	const (
		commas = ',' * 0x0101010101010101
		low    = 0x7f7f7f7f7f7f7f7f
	)
	start, i := 0, 0
	for ; i+8 <= len(text); i += 8 {
		differ := binary.LittleEndian.Uint64(text[i:]) ^ commas
		// The top bit of each byte that is a comma: neither has the byte that bit, nor does
		// adding to its others carry into it.
		for hits := ^((differ&low + low) | differ | low); hits != 0; hits &= hits - 1 {
			at := i + bits.TrailingZeros64(hits)/8
			tags = append(tags, text[start:at])
			start = at + 1
		}
	}
	for ; i < len(text); i++ {
		if text[i] == ',' {
			tags = append(tags, text[start:i])
			start = i + 1
		}
	}
	return append(tags, text[start:])
}

// cut is bytes.Cut for one byte.
func cut(text []byte, separator byte) (before, after []byte, found bool) {
	if i := bytes.IndexByte(text, separator); i >= 0 {
		return text[:i], text[i+1:], true
	}
	return text, nil, false
}
