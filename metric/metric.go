// Package metric holds the words all rooms share: what a client sent (Sample),
// whom it belongs to (Identity, Context), and what an interval made of it
// (Batch, Series, Sketch).
//
// In: nothing. Out: types. It does no I/O, starts no goroutine and imports
// nothing but the standard library.
package metric

import "slices"

// Kind is the type of a metric line.
type Kind uint8

// The kinds, with the letters that stand for them on the wire.
const (
	Counter      Kind = iota + 1 // c
	Gauge                        // g
	Set                          // s
	Histogram                    // h
	Timer                        // ms
	Distribution                 // d

	// Kinds of the statsd dialect.

	KeptGauge    // g: keeps its value between intervals, and "+1" and "-1" change it
	ClassicTimer // ms: sample rates scale how many there were, and nothing else
)

// String returns the kind's full name in lower case.
func (k Kind) String() string {
	switch k {
	case Counter:
		return "counter"
	case Gauge, KeptGauge:
		return "gauge"
	case Set:
		return "set"
	case Histogram:
		return "histogram"
	case Timer, ClassicTimer:
		return "timer"
	case Distribution:
		return "distribution"
	}
	return "unknown"
}

// Sample is one metric line, cut into name, values and tail. The values are
// read; the tail (kind, rate, tags and further fields) is left as it came,
// since it says nothing about this sample that it does not say about all
// samples with the same bytes: it is read once per identity, by a describer.
//
// Line is borrowed from the packet it arrived in and must not be kept: no room
// sees a Sample after its packet.
type Sample struct {
	Line    []byte  // the whole line, without its line ending
	NameEnd uint32  // Line[:NameEnd] is the name, Line[NameEnd] the ':' behind it
	Tail    uint32  // Line[Tail:] is the tail, Line[Tail-1] the '|' before it
	Value   float64 // the first value; finite and never -0; 0 for a set

	// Further packed values ("a:1:2:3|c") are Values[More:MoreEnd] of the Lines.
	More, MoreEnd uint32
}

// Name returns the bytes before the first ':'. They are never empty.
func (s *Sample) Name() []byte { return s.Line[:s.NameEnd] }

// TailBytes returns kind and fields as the client sent them: "c|@0.5|#env:prod".
func (s *Sample) TailBytes() []byte { return s.Line[s.Tail:] }

// Member returns the raw value, which is what a set counts.
func (s *Sample) Member() []byte { return s.Line[s.NameEnd+1 : s.Tail-1] }

// Lines is what a parser made of one or more packets of one sender, on its way to
// an aggregator. It is reused: Reset keeps the capacity.
//
// Count = samples (those that Describe rejects included) + events + checks + rejected.
type Lines struct {
	Samples  []Sample
	Values   []float64 // packed values of Samples
	Events   []Event
	Checks   []ServiceCheck
	Packets  uint64          // that they came in
	Count    uint64          // lines seen, the rejected ones included
	Rejected [Reasons]uint64 // by reason

	// Sender is the id of the container they came from, "" if that is not known.
	Sender string

	// Text backs the lines that the parser had to write anew: one for each metric of
	// a line that holds several.
	Text []byte

	// Example is one of the rejected lines, borrowed, and ExampleReason says
	// why; nil if none was rejected.
	Example       []byte
	ExampleReason Reason
}

// Packed returns the values of a sample after the first.
func (l *Lines) Packed(s *Sample) []float64 { return l.Values[s.More:s.MoreEnd] }

// Next returns the place of one sample more, which holds what was there before: a sample
// that is put together elsewhere and copied makes the processor wait until its parts are
// written (BenchmarkPacket).
func (l *Lines) Next() *Sample {
	if len(l.Samples) == cap(l.Samples) {
		l.Samples = slices.Grow(l.Samples, 1)
	}
	l.Samples = l.Samples[:len(l.Samples)+1]
	return &l.Samples[len(l.Samples)-1]
}

// Reject counts a line that was not understood.
func (l *Lines) Reject(line []byte, why Reason) {
	l.Rejected[why]++
	l.Example, l.ExampleReason = line, why
}

// maxKeptText is how much memory for rewritten lines is kept for the next packets.
const maxKeptText = 64 << 10

// Reset empties l for the next packets and keeps its memory.
func (l *Lines) Reset() {
	text := l.Text[:0]
	if cap(text) > maxKeptText {
		text = nil
	}
	clear(l.Events) // they hold strings
	clear(l.Checks)
	*l = Lines{Samples: l.Samples[:0], Values: l.Values[:0], Events: l.Events[:0], Checks: l.Checks[:0], Text: text}
}

// Identity is what a line says apart from its values. All slices are borrowed
// from the line.
type Identity struct {
	Name   []byte
	Kind   Kind
	Rate   float64  // share of the events that were sent, in (0, 1]; 1 unless the client said otherwise
	Tags   [][]byte // as sent: unsorted, with repeats, empty ones included
	Time   int64    // Unix seconds, 1 or more; 0: the client did not say
	Origin Origin

	Styled []byte // backs tags that had to be written anew
}

// Reset empties id and keeps its memory.
func (id *Identity) Reset() {
	*id = Identity{Rate: 1, Tags: id.Tags[:0], Styled: id.Styled[:0]}
}
