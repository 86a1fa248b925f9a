package parser

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-agent/weir/metric"
)

var statsd = New(Config{Dialect: DialectStatsD, TagStyle: TagsDogStatsD})

// each parses a packet in the statsd dialect and describes its metrics.
func each(packet string) []string {
	var lines metric.Lines
	statsd.Packet([]byte(packet), false, &lines)
	var all []string
	for i := range lines.Samples {
		s := &lines.Samples[i]
		var id metric.Identity
		if why := statsd.Describe(s, &id); why != metric.Accepted {
			all = append(all, "reject "+why.String())
			continue
		}
		all = append(all, canonical(s, lines.Packed(s), &id))
	}
	for why, n := range lines.Rejected {
		for range n {
			all = append(all, "reject "+metric.Reason(why).String())
		}
	}
	return all
}

func TestStatsD(t *testing.T) {
	tests := map[string][]string{
		"a:1|c":                       {"counter a [1] @1 []"},
		"a:2|m":                       {"counter a [2] @1 []"},
		"a:1| c ":                     {"counter a [1] @1 []"},
		"a:-5|g":                      {"gauge a [-5] @1 []"},
		"a:1|h":                       {"timer a [1] @1 []"},
		"a:1:2|ms":                    {"timer a [1 2] @1 []"},
		"a:-1|ms":                     {"reject negative_timer"},
		"a:1:-1|ms":                   {"reject negative_timer"},
		"a:-1|h":                      {"timer a [-1] @1 []"},
		"a:|s":                        {`set a ["0"] @1 []`},
		"a:x:y|s":                     {`set a ["x:y"] @1 []`},
		"a:1|c|@0.1:320|ms|@0.5:4|g":  {"counter a [1] @0.1 []", "timer a [320] @0.5 []", "gauge a [4] @1 []"},
		"a:1|c:2|ms|#x:y,z|c:ci-a":    {"counter a [1] @1 [x:y z]", "timer a [2] @1 [x:y z]"},
		"a:1|c|c:ci-a|#x":             {"counter a [1] @1 [x]"},
		"a:1|c|c:ci-a,in-5|e:it-true": {"counter a [1] @1 []"},
		"a:1|c:bad|c:2|ms":            {"counter a [1] @1 []", "timer a [2] @1 []", "reject bad_value"},
		"a:1|c:":                      {"counter a [1] @1 []", "reject no_kind"},
		"a":                           {"reject no_kind"},
		":1|c":                        {"reject no_name"},
		"a:1|q":                       {"reject unknown_kind"},
		"a:1|c|@0.5 ":                 {"counter a [1] @0.5 []"},
		"a:1|c|@0.5 :2|ms|@ 0.1\t":    {"counter a [1] @0.5 []", "timer a [2] @0.1 []"},
		"a:1|c|@0.5|:2|ms":            {"counter a [1] @0.5 []", "timer a [2] @1 []"},
		"a:0x1F|g":                    {"gauge a [31] @1 []"},
		"a:0_17|g":                    {"reject bad_value"},
		"a:0x_1F|g":                   {"reject bad_value"},
		"a:1|#x:2|ms":                 {"reject unknown_kind"},
		"_scale:1|c":                  {"counter _scale [1] @1 []"},
		"__proto__:1|ms":              {"timer __proto__ [1] @1 []"},
	}
	for line, want := range tests {
		if got := each(line); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%q\n got %q\nwant %q", line, got, want)
		}
	}
}

// A line that repeats a long name and long tags costs a bounded multiple of itself.
func TestManyMetricsInALineAreBounded(t *testing.T) {
	for _, test := range []struct{ name, tags, metrics, least, most int }{
		{1, 0, 10_000, maxMetricsPerLine, maxMetricsPerLine},
		{1, 20, maxMetricsPerLine, maxMetricsPerLine, maxMetricsPerLine},
		{20_000, 20_000, 10_000, 5, 10},
		{1, 7500, 100, 4, 6},
	} {
		line := []byte(strings.Repeat("n", test.name) + strings.Repeat(":1|c", test.metrics) + "|#" + strings.Repeat("t", test.tags))
		var lines metric.Lines
		statsd.Packet(line, false, &lines)
		checkCount(t, line[:100], &lines)
		n, rejected := len(lines.Samples), lines.Rejected[metric.TooManyMetrics]
		if n < test.least || n > test.most || (rejected == 1) != (n < test.metrics) {
			t.Errorf("%+v: %d samples, %d rejected", test, n, rejected)
		}
	}
}

// Whatever the statsd dialect accepts has the name of its line; nothing is
// uncounted, the input stays as it is, and what is written anew is bounded.
func FuzzStatsD(f *testing.F) {
	for _, row := range readRows(f) {
		f.Add([]byte(row.line))
	}
	f.Add([]byte("a:1|c|@0.1:320|ms:4:5|g:|s:x|s|#x:y|c:ci-a"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		before := bytes.Clone(line)
		var lines metric.Lines
		statsd.Packet(line, false, &lines)
		if !bytes.Equal(line, before) {
			t.Fatalf("%q was changed to %q", before, line)
		}
		checkCount(t, line, &lines)
		if len(lines.Text) > maxRewritten+(maxRewrittenTimes+2)*2*(len(line)+1) {
			t.Errorf("%q: %d bytes written anew", line, len(lines.Text))
		}
		name, _, _ := bytes.Cut(line, []byte(":"))
		for i := range lines.Samples {
			s := &lines.Samples[i]
			if !bytes.Equal(s.Name(), name) {
				t.Errorf("%q: a sample is named %q", line, s.Name())
			}
			// Each metric stands for itself: alone, its line says the same.
			var alone metric.Lines
			_ = statsd.line(bytes.Clone(s.Line), &alone)
			if len(alone.Samples) != 1 || !bytes.Equal(alone.Samples[0].Line, s.Line) {
				t.Errorf("%q holds %q, which alone is %+v", line, s.Line, alone.Samples)
			}
		}
	})
}

// Tags in a name are what splitting it with strings gives.
func FuzzTagStyles(f *testing.F) {
	for _, name := range []string{"a,b=c,d", "a;b=c;;d=e=f", "a[b=c,d]e", "[x=y]", "a[b", ",", "a]["} {
		f.Add([]byte(name))
	}
	parsers := map[string]*Parser{}
	for _, style := range tagStyles[1:] {
		parsers[style] = New(Config{Dialect: DialectDogStatsD, TagStyle: style})
	}
	f.Fuzz(func(t *testing.T, name []byte) {
		if len(name) == 0 || bytes.ContainsAny(name, ":|\n") || bytes.HasPrefix(name, checkPrefix) || bytes.HasPrefix(name, eventPrefix) {
			return
		}
		line := append(bytes.Clone(name), ":1|c|#last"...)
		for style, p := range parsers {
			var lines metric.Lines
			p.Packet(line, false, &lines)
			var id metric.Identity
			got := "reject"
			if why := p.Describe(&lines.Samples[0], &id); why == metric.Accepted {
				got = fmt.Sprintf("%q %q", id.Name, id.Tags)
			}
			if want := referenceStyle(style, string(name)); got != want {
				t.Errorf("%s %q\n got %s\nwant %s", style, name, got, want)
			}
		}
	})
}

func referenceStyle(style, text string) string {
	name, tags, separator := text, "", ","
	switch style {
	case TagsInflux:
		name, tags, _ = strings.Cut(text, ",")
	case TagsGraphite:
		separator = ";"
		name, tags, _ = strings.Cut(text, ";")
	case TagsSignalFx:
		before, rest, open := strings.Cut(text, "[")
		if open {
			inside, after, closed := strings.Cut(rest, "]")
			if !closed {
				return "reject"
			}
			name, tags = before+after, inside
		}
	}
	if name == "" {
		return "reject"
	}
	list := []string{}
	for _, tag := range strings.Split(tags, separator) {
		if tag != "" {
			list = append(list, strings.Replace(tag, "=", ":", 1))
		}
	}
	return fmt.Sprintf("%q %q", name, append(list, "last"))
}
