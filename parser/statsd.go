package parser

import (
	"bytes"

	"github.com/weir-agent/weir/metric"
)

// One line of the statsd dialect may hold so many metrics. Each is written anew with
// the name and the tags of the line, for so many bytes in all: a long line for a few
// times its length.
const (
	maxMetricsPerLine = 128
	maxRewritten      = 4 << 10
	maxRewrittenTimes = 4
)

// statsdLine is line for the statsd dialect, in which one line may hold several
// metrics of one name:
//
//	page:1|c:320|ms:4|g|#env:prod
//
// Such a line is written anew, as one line for each metric.
func (p *Parser) statsdLine(line []byte, into *metric.Lines) metric.Reason {
	colon, found := nameEnd(line)
	if !found {
		return badHead(line)
	}
	if colon == 0 {
		return metric.NoName
	}
	if nextMetric(line[colon+1:]) < 0 {
		return p.statsdMetric(line, colon, into)
	}

	// The whole line counts as its first metric, every further one as one more.
	written := 0
	rest, tags := line[colon+1:], tagsOf(line)
	for n, more := 1, true; more; n++ {
		if n > 1 {
			into.Count++
		}
		if n > maxMetricsPerLine || written > max(maxRewritten, maxRewrittenTimes*len(line)) {
			return metric.TooManyMetrics
		}
		start := len(into.Text)
		into.Text, rest, more = appendFirst(into.Text, line[:colon+1], rest, tags)
		text := into.Text[start:len(into.Text):len(into.Text)]
		written += len(text)
		if why := p.statsdMetric(text, colon, into); why != metric.Accepted {
			into.Reject(text, why)
		}
	}
	return metric.Accepted
}

// appendFirst appends the first metric of rest, with its name before it and the tags
// of the line behind it, and returns what follows it, and whether a further metric
// does.
func appendFirst(dst, name, rest, tags []byte) (text, after []byte, more bool) {
	dst = append(dst, name...)
	end := nextMetric(rest)
	if end < 0 {
		return append(dst, rest...), nil, false
	}
	return append(append(dst, rest[:end]...), tags...), rest[end+1:], true
}

// statsdMetric is line for a line of one metric, whose first ':' is known.
func (p *Parser) statsdMetric(line []byte, colon int, into *metric.Lines) metric.Reason {
	if pipe := colon + 1; pipe < len(line) && line[pipe] == '|' && isSet(line[pipe+1:], true) {
		// An empty member is counted as "0".
		start := len(into.Text)
		into.Text = append(append(append(into.Text, line[:pipe]...), '0'), line[pipe:]...)
		line = into.Text[start:len(into.Text):len(into.Text)]
	}
	before := len(into.Samples)
	if why := p.metric(line, into); why != metric.Accepted {
		return why
	}
	s := &into.Samples[before]
	negative := s.Value < 0
	for _, v := range into.Packed(s) {
		negative = negative || v < 0
	}
	if !negative {
		return metric.Accepted
	}
	if kind, _, _ := cut(s.TailBytes(), '|'); string(bytes.TrimSpace(kind)) != "ms" {
		return metric.Accepted
	}
	if s.MoreEnd > s.More {
		into.Values = into.Values[:s.More-1] // the first of them is there, too
	}
	into.Samples = into.Samples[:before]
	return metric.NegativeTimer
}

// nextMetric returns the index of the ':' in text at which the next metric begins,
// -1 if there is none. text begins at a value. Only behind a kind, a sample rate or
// an empty field does a metric begin: what else has a colon in it is a field of a
// later protocol.
func nextMetric(text []byte) int {
	at := bytes.IndexByte(text, '|')
	for kind := true; at >= 0; kind = false { // whether the field is the kind
		field := text[at+1:]
		if len(field) > 0 && field[0] == '#' {
			return -1
		}
		if !kind && len(field) > 0 && field[0] != '@' && field[0] != ':' {
			next := bytes.IndexByte(field, '|')
			if next < 0 {
				return -1
			}
			at += 1 + next
			continue
		}
		i := 0
		for i < len(field) && field[i] != '|' && field[i] != ':' {
			i++
		}
		at += 1 + i
		switch {
		case i == len(field):
			return -1
		case field[i] == ':':
			return at
		}
	}
	return -1
}

// tagsOf returns the tags of a line and what follows them, with the "|#" before
// them.
func tagsOf(line []byte) []byte {
	if i := bytes.Index(line, []byte("|#")); i >= 0 {
		return line[i:]
	}
	return nil
}
