package parser

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
)

// sketch draws an explanation: the line, and below it each part with its meaning.
func draw(all []Explanation) string {
	var b strings.Builder
	for _, e := range all {
		fmt.Fprintf(&b, "%s: %s\n", e.What, e.Line)
		for _, part := range e.Parts {
			fmt.Fprintf(&b, "  %s = %s\n", e.Line[part.Start:part.End], part.Meaning)
		}
		if e.Why != metric.Accepted {
			fmt.Fprintf(&b, "  %s at %d: %s\n", e.Why, e.At, e.Text())
		}
	}
	return b.String()
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		parser     *Parser
		line, want string
	}{
		{dogstatsd, "page.views:1:2.5|c|@0.5|#env:prod,b|T1700000000|c:ci-abc|x", `metric: page.views:1:2.5|c|@0.5|#env:prod,b|T1700000000|c:ci-abc|x
  page.views = name
  1 = value 1
  2.5 = value 2.5
  c = kind: counter
  @0.5 = sample rate: each stands for 2
  #env:prod,b = 2 tags
  T1700000000 = time, in seconds since 1970
  c:ci-abc = origin: container abc
  x = unknown field, ignored
`},
		{dogstatsd, "a:1:x|c", `metric: a:1:x|c
  a = name
  1 = value 1
  x = value: it is no number
  c = kind: counter
  bad_value at 4: it is no number
`},
		{dogstatsd, "a:1|c|@2", `metric: a:1|c|@2
  a = name
  1 = value 1
  c = kind: counter
  @2 = sample rate: it is not above 0 and at most 1
  rate_out_of_range at 7: it is not above 0 and at most 1
`},
		{dogstatsd, "a:1|c|@0.5|#x|@0.1", `metric: a:1|c|@0.5|#x|@0.1
  a = name
  1 = value 1
  c = kind: counter
  @0.5 = sample rate: each stands for 2; ignored: the last one counts
  #x = 1 tag
  @0.1 = sample rate: each stands for 10
`},
		{statsd, "a:1|c|@0.5|@zzz", `metric: a:1|c|@0.5|@zzz
  a = name
  1 = value 1
  c = kind: counter
  @0.5 = sample rate: each stands for 2
  @zzz = ignored: the first one counts
`},
		{dogstatsd, "_e{2,4}:ab|text|p:low|#x", `event: _e{2,4}:ab|text|p:low|#x
  _e{2,4} = title of 2 bytes, text of 4
  ab = title
  text = text
  p:low = priority
  #x = 1 tag
`},
		{dogstatsd, "_e{2,40}:ab|text", `event: _e{2,40}:ab|text
  _e{2,40} = title of 2 bytes, text of 40
  bad_event at 16: the lengths are missing, no numbers, or not those of what follows
`},
		{dogstatsd, "_sc|db|7", `service check: _sc|db|7
  db = name
  bad_service_check at 7: there is no name, or no status of 0 to 3
`},
		{statsd, "a:+1|g:2|ms|#x", `metric: a:+1|g|#x
  a = name
  +1 = value 1, with a sign: for a gauge it is a change
  g = kind: gauge; it keeps its value (statsd dialect)
  #x = 1 tag
metric: a:2|ms|#x
  a = name
  2 = value 2
  ms = kind: timer; a sample rate changes only its count (statsd dialect)
  #x = 1 tag
`},
		{New(Config{Dialect: DialectDogStatsD, TagStyle: TagsSignalFx}), "a[b=c]:1|c", `metric: a[b=c]:1|c
  a[b=c] = name a, with tags in it
  1 = value 1
  c = kind: counter
`},
	} {
		if got := draw(test.parser.Explain([]byte(test.line))); got != test.want {
			t.Errorf("%q\n got %s\nwant %s", test.line, got, test.want)
		}
	}
}

// An explanation agrees with what really happens, and points into the line.
func FuzzExplain(f *testing.F) {
	for _, row := range readRows(f) {
		f.Add([]byte(row.line))
	}
	f.Add([]byte("_e{2,4}:ab|text|p:low|#x"))
	f.Add([]byte("_sc|db|7"))
	f.Add([]byte("_e{1,6}:a|b\nc:1|c\r\n\n_e{9,9}:a|b\na:1|g\na:-7|g"))
	f.Add([]byte("a:1|c" + strings.Repeat(":1|c", 200)))
	parsers := []*Parser{dogstatsd, statsd, New(Config{Dialect: DialectStatsD, TagStyle: TagsSignalFx})}
	f.Fuzz(func(t *testing.T, line []byte) {
		for i, p := range parsers {
			var lines metric.Lines
			p.Packet(line, false, &lines)
			want := map[string]int{}
			for why, n := range lines.Rejected {
				if n > 0 {
					want[metric.Reason(why).String()] += int(n)
				}
			}
			for i := range lines.Samples {
				var id metric.Identity
				want[p.Describe(&lines.Samples[i], &id).String()]++
			}
			want["accepted"] += len(lines.Events) + len(lines.Checks)
			got := map[string]int{"accepted": 0}
			var all []Explanation
			for _, message := range p.Messages(line) {
				all = append(all, p.Explain(message)...)
			}
			for _, e := range all {
				got[e.Why.String()]++
				if e.Why != metric.Accepted && (e.At < 0 || e.At > len(e.Line) || e.Text() == "") {
					t.Errorf("parser %d, %q: %s at %d (%q)", i, line, e.Why, e.At, e.Text())
				}
				for _, part := range e.Parts {
					if part.Start < 0 || part.End < part.Start || part.End > len(e.Line) {
						t.Errorf("parser %d, %q: part %+v", i, line, part)
					}
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("parser %d, %q: explained as %v, really %v", i, line, got, want)
			}
		}
	})
}
