//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
)

// traffic is what to build.
type traffic struct {
	packet     int // bytes; 0: one metric
	contexts   int
	tags       int
	kinds      []share
	sampleRate float64
	seed       uint64
	prefix     string
	pool       int  // metrics, at least
	newline    bool // at the end of each packet
}

// share is how much of the traffic is of a kind.
type share struct {
	kind string
	part float64
}

// parseKinds reads the flag -kinds.
func parseKinds(text string) ([]share, error) {
	switch text {
	case "counters":
		text = "c=1"
	case "mix":
		text = "c=60,g=20,ms=5,h=5,d=5,s=5"
	case "mix-statsd":
		text = "c=60,g=20,ms=15,s=5"
	}
	var shares []share
	sum := 0.0
	for part := range strings.SplitSeq(text, ",") {
		kind, value, _ := strings.Cut(part, "=")
		weight, err := strconv.ParseFloat(value, 64)
		if nouns[kind] == "" || err != nil || !(weight > 0) {
			return nil, fmt.Errorf("-kinds: %q is no share of a kind: write c, g, ms, h, d or s, = and a number above 0", part)
		}
		shares = append(shares, share{kind, weight})
		sum += weight
	}
	for i := range shares {
		shares[i].part /= sum
	}
	return shares, nil
}

// nouns are what metrics of a kind measure.
var nouns = map[string]string{
	"c": "requests", "g": "connections", "ms": "latency", "h": "size", "d": "duration", "s": "users",
}

// load is what to send, built.
type load struct {
	datagrams [][]byte
	counts    []counts // of each of them
	kinds     []string // what the numbers in counts are of
	rate      float64  // of counters
}

// counts is what is in a datagram.
type counts struct {
	kinds [6]uint32 // metrics, by the place of their kind in load.kinds
	sum   uint64    // of the values of counters as written
}

// metrics returns how many there are in all.
func (l *load) metrics() (n uint64) {
	for i := range l.counts {
		for _, c := range l.counts[i].kinds {
			n += uint64(c)
		}
	}
	return n
}

// build makes all datagrams: each context once, then at random until there are enough.
func (t *traffic) build() (*load, error) {
	switch {
	case t.contexts < 1:
		return nil, fmt.Errorf("-contexts: %d is too few", t.contexts)
	case t.tags < 0 || t.tags > 50:
		return nil, fmt.Errorf("-tags: %d is not within 0 and 50", t.tags)
	case !(t.sampleRate > 0 && t.sampleRate <= 1):
		return nil, fmt.Errorf("-sample-rate: %v is not above 0 and at most 1", t.sampleRate)
	case t.packet < 0 || t.packet > 65_507:
		return nil, fmt.Errorf("-packet: %d is not within 0 and 65507", t.packet)
	}
	l := &load{rate: t.sampleRate}
	for _, s := range t.kinds {
		if len(l.kinds) == len(counts{}.kinds) {
			return nil, fmt.Errorf("-kinds: more than %d shares", len(l.kinds))
		}
		l.kinds = append(l.kinds, s.kind)
	}
	random := rand.New(rand.NewPCG(t.seed, 1))
	first := random.Perm(t.contexts)
	var arena, line []byte // datagrams share large pieces of memory
	var now counts
	begin := 0
	cut := func() {
		if t.newline {
			arena = append(arena, '\n')
		}
		l.datagrams = append(l.datagrams, arena[begin:len(arena):len(arena)])
		l.counts = append(l.counts, now)
		now, begin = counts{}, len(arena)
	}
	for n := range max(t.pool, t.contexts) {
		context := random.IntN(t.contexts)
		if n < len(first) {
			context = first[n]
		}
		var kind int
		var value uint64
		line, kind, value = t.line(line[:0], random, context)
		if t.packet > 0 && len(line)+1 > t.packet {
			return nil, fmt.Errorf("-packet: %d bytes are too few for %q", t.packet, line)
		}
		if len(arena) > begin && (t.packet == 0 || len(arena)-begin+1+len(line) > t.packet) {
			cut()
		}
		if cap(arena)-len(arena) < max(t.packet, len(line))+2 && len(arena) == begin {
			arena, begin = make([]byte, 0, 1<<20), 0
		}
		if len(arena) > begin {
			arena = append(arena, '\n')
		}
		arena = append(arena, line...)
		now.kinds[kind]++
		now.sum += value
	}
	cut()
	return l, nil
}

// line appends a metric of a context and returns its kind and, of a counter, its value.
//
//	load.requests.17:3|c|@0.1|#env:production,region:eu-west-1a,endpoint:checkout-0042
func (t *traffic) line(dst []byte, random *rand.Rand, context int) (line []byte, kind int, value uint64) {
	names := min(max(t.contexts/10, 1), 1000)
	name, member := context%names, context/names
	kind = t.kindOf(name)
	what := t.kinds[kind].kind
	dst = fmt.Appendf(dst, "%s.%s.%d", t.prefix, nouns[what], name)
	if t.tags == 0 {
		dst = fmt.Appendf(dst, ".eu-west-1%c.checkout-%04d", 'a'+member%3, member)
	}
	switch what {
	case "c":
		value = 1 + random.Uint64N(9)
		dst = fmt.Appendf(dst, ":%d|c", value)
	case "s":
		dst = fmt.Appendf(dst, ":user-%d|s", random.IntN(10_000))
	default:
		dst = fmt.Appendf(dst, ":%d.%d|%s", random.IntN(1000), random.IntN(10), what)
	}
	if t.sampleRate < 1 && what != "g" && what != "s" {
		dst = append(append(dst, "|@"...), strconv.FormatFloat(t.sampleRate, 'f', -1, 64)...)
	}
	for tag := range t.tags {
		dst = append(dst, [2]string{",", "|#"}[min(1, max(0, 1-tag))]...)
		switch tag {
		case t.tags - 1: // so that one tag tells contexts apart, too
			dst = fmt.Appendf(dst, "endpoint:checkout-%04d", member)
		case 0:
			dst = append(dst, "env:production"...)
		case 1:
			dst = fmt.Appendf(dst, "region:eu-west-1%c", 'a'+member%3)
		default:
			dst = fmt.Appendf(dst, "label-%d:value-%d", tag, member%(7+tag))
		}
	}
	return dst, kind, value
}

// kindOf returns the kind of a name. Any 100 names in a row have the shares of -kinds.
func (t *traffic) kindOf(name int) int {
	at := (float64(name*37%100) + 0.5) / 100
	for i, s := range t.kinds {
		if at -= s.part; at < 0 {
			return i
		}
	}
	return len(t.kinds) - 1
}
