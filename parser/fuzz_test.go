package parser

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
)

// referenceParse is the grammar again, slow and obvious: it splits strings and
// lets strconv read every number.
func referenceParse(line string) string {
	reject := func(why metric.Reason) string { return "reject " + why.String() }
	fields := strings.Split(line, "|")
	name, value, hasValue := strings.Cut(fields[0], ":")
	switch {
	case hasValue && name == "":
		return reject(metric.NoName)
	case len(fields) == 1:
		return reject(metric.NoKind)
	case fields[0] == "":
		return reject(metric.NoName)
	case value == "":
		return reject(metric.NoValue)
	}

	var values []string
	if fields[1] == "s" {
		values = []string{strconv.Quote(value)}
	} else {
		for _, item := range strings.Split(value, ":") {
			if item == "" {
				continue
			}
			v, err := strconv.ParseFloat(item, 64)
			switch {
			case err != nil:
				return reject(metric.BadValue)
			case math.IsNaN(v) || math.IsInf(v, 0):
				return reject(metric.ValueNotFinite)
			}
			values = append(values, fmt.Sprint(v+0))
		}
		if len(values) == 0 {
			return reject(metric.NoValue)
		}
	}

	kind, known := map[string]metric.Kind{
		"c": metric.Counter, "g": metric.Gauge, "s": metric.Set,
		"h": metric.Histogram, "ms": metric.Timer, "d": metric.Distribution,
	}[fields[1]]
	if strings.TrimSpace(fields[1]) == "" {
		return reject(metric.NoKind)
	}
	if !known {
		return reject(metric.UnknownKind)
	}
	rate, seconds := 1.0, int64(0)
	var tags []string
	for _, field := range fields[2:] {
		switch {
		case strings.HasPrefix(field, "@"):
			r, err := strconv.ParseFloat(field[1:], 64)
			if err != nil || math.IsNaN(r) {
				return reject(metric.BadRate)
			}
			if !(r > 0 && r <= 1) || math.IsInf(1/r, 0) {
				return reject(metric.RateOutOfRange)
			}
			rate = r
		case field == "#":
			tags = nil
		case strings.HasPrefix(field, "#"):
			tags = strings.Split(field[1:], ",")
		case strings.HasPrefix(field, "T"):
			t, err := strconv.ParseInt(field[1:], 10, 64)
			if err != nil || t < 1 {
				return reject(metric.BadTimestamp)
			}
			seconds = t
		}
	}
	return fmt.Sprintf("%d %q %v @%v T%d %q", kind, name, values, rate, seconds, tags)
}

// flatten writes what the real parser made in the words of referenceParse.
func flatten(s *metric.Sample, packed []float64, id *metric.Identity) string {
	var values []string
	if id.Kind == metric.Set {
		values = []string{strconv.Quote(string(s.Member()))}
	} else {
		for _, v := range append([]float64{s.Value}, packed...) {
			values = append(values, fmt.Sprint(v))
		}
	}
	var tags []string
	for _, tag := range id.Tags {
		tags = append(tags, string(tag))
	}
	return fmt.Sprintf("%d %q %v @%v T%d %q", id.Kind, id.Name, values, id.Rate, id.Time, tags)
}

// encode writes a sample as the canonical line.
func encode(s *metric.Sample, packed []float64, id *metric.Identity) []byte {
	line := append([]byte{}, id.Name...)
	if id.Kind == metric.Set {
		line = append(append(line, ':'), s.Member()...)
	} else {
		for _, v := range append([]float64{s.Value}, packed...) {
			line = strconv.AppendFloat(append(line, ':'), v, 'g', -1, 64)
		}
	}
	kind := map[metric.Kind]string{
		metric.Counter: "c", metric.Gauge: "g", metric.Set: "s",
		metric.Histogram: "h", metric.Timer: "ms", metric.Distribution: "d",
	}[id.Kind]
	line = append(append(line, '|'), kind...)
	line = strconv.AppendFloat(append(line, "|@"...), id.Rate, 'g', -1, 64)
	if id.Time != 0 {
		line = strconv.AppendInt(append(line, "|T"...), id.Time, 10)
	}
	if len(id.Tags) > 0 {
		line = append(append(line, "|#"...), bytes.Join(id.Tags, []byte(","))...)
	}
	return line
}

func FuzzLine(f *testing.F) {
	for _, row := range readRows(f) {
		f.Add([]byte(row.line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) == 0 || bytes.IndexByte(line, '\n') >= 0 || bytes.HasPrefix(line, checkPrefix) {
			return
		}
		before := bytes.Clone(line)
		sample, packed, id, why := parse(line)
		if !bytes.Equal(line, before) {
			t.Fatalf("%q was changed to %q", before, line)
		}
		want := referenceParse(string(line))
		if why != metric.Accepted {
			if got := "reject " + why.String(); got != want {
				t.Fatalf("%q\n      got %s\nreference %s", line, got, want)
			}
			return
		}
		if got := flatten(sample, packed, id); got != want {
			t.Fatalf("%q\n      got %s\nreference %s", line, got, want)
		}

		if len(id.Name) == 0 {
			t.Errorf("%q: accepted without a name", line)
		}
		if !(id.Rate > 0 && id.Rate <= 1) || math.IsInf(1/id.Rate, 0) {
			t.Errorf("%q: accepted with rate %v", line, id.Rate)
		}
		for _, v := range append([]float64{sample.Value}, packed...) {
			if math.IsNaN(v) || math.IsInf(v, 0) || (v == 0 && math.Signbit(v)) {
				t.Errorf("%q: accepted with value %v", line, v)
			}
		}

		again := encode(sample, packed, id)
		sample2, packed2, id2, why2 := parse(again)
		if why2 != metric.Accepted {
			t.Fatalf("%q is accepted, its canonical form %q rejected: %s", line, again, why2)
		}
		if got := flatten(sample2, packed2, id2); got != want {
			t.Errorf("%q\nand its canonical form %q differ:\n%s\n%s", line, again, want, got)
		}
	})
}

// checkCount fails unless every line is accounted for.
func checkCount(t *testing.T, packet []byte, l *metric.Lines) {
	t.Helper()
	sum := uint64(len(l.Samples) + len(l.Events) + len(l.Checks))
	for _, n := range l.Rejected {
		sum += n
	}
	if l.Count != sum {
		t.Errorf("%q: %d lines, but %d samples, %d events, %d checks, rejected %v",
			packet, l.Count, len(l.Samples), len(l.Events), len(l.Checks), l.Rejected)
	}
}

// Lines are independent: what becomes of one does not depend on its neighbours,
// and a packet cut short loses only its last line. Only events may hold line
// endings.
func FuzzPacket(f *testing.F) {
	f.Add([]byte("a:1|c\nb:2:3|d|#x\r\n\nbad\nc:x|s"), uint16(9))
	f.Add([]byte("a:1|c\n"), uint16(6))
	f.Add([]byte("_sc|a|1\n_e{1,1}:a|b\na:1|c"), uint16(20))
	f.Add([]byte("_e{1,5}:a|b\n.. |c:1"), uint16(17)) // cut in an event of two lines
	f.Fuzz(func(t *testing.T, packet []byte, at uint16) {
		before := bytes.Clone(packet)
		var got metric.Lines
		dogstatsd.Packet(packet, false, &got)
		if !bytes.Equal(packet, before) {
			t.Fatalf("%q was changed to %q", before, packet)
		}
		checkCount(t, packet, &got)

		short := packet[:int(at)%(len(packet)+1)]
		var cutLines metric.Lines
		dogstatsd.Packet(short, true, &cutLines)
		checkCount(t, short, &cutLines)
		if len(short) > 0 && cutLines.Rejected[metric.Truncated] != 1 {
			t.Errorf("%q cut: %d lines counted as truncated, want 1", short, cutLines.Rejected[metric.Truncated])
		}
		if bytes.HasPrefix(packet, eventPrefix) || bytes.Contains(packet, []byte("\n_e{")) {
			return
		}

		var want []string
		var rejected uint64
		for _, line := range strings.Split(string(packet), "\n") {
			line = strings.TrimSuffix(line, "\r")
			if line == "" {
				continue
			}
			var one metric.Lines
			if dogstatsd.line([]byte(line), &one) != metric.Accepted {
				rejected++
				continue
			}
			if len(one.Samples) > 0 {
				want = append(want, string(one.Samples[0].Line))
			}
		}
		var names []string
		for i := range got.Samples {
			names = append(names, string(got.Samples[i].Line))
		}
		if fmt.Sprintf("%q", names) != fmt.Sprintf("%q", want) {
			t.Errorf("samples of %q = %q, want %q", packet, names, want)
		}
		var gotRejected uint64
		for _, n := range got.Rejected {
			gotRejected += n
		}
		if gotRejected != rejected {
			t.Errorf("%q: %d rejected, want %d", packet, gotRejected, rejected)
		}
		for i := range cutLines.Samples {
			if got, want := cutLines.Samples[i].Line, got.Samples[i].Line; !bytes.Equal(got, want) {
				t.Errorf("%q cut: sample %d = %q, want %q", short, i, got, want)
			}
		}
	})
}
