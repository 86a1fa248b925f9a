package parser

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/metric"
)

// messages parses a packet and returns its events and checks and, as text, what
// else was in it.
func messages(packet string) (events []metric.Event, checks []metric.ServiceCheck, rest string) {
	var lines metric.Lines
	dogstatsd.Packet([]byte(packet), false, &lines)
	for i := range lines.Samples {
		rest += string(lines.Samples[i].Line) + "\n"
	}
	for why, n := range lines.Rejected {
		for range n {
			rest += "reject " + metric.Reason(why).String() + "\n"
		}
	}
	return lines.Events, lines.Checks, rest
}

func TestEvents(t *testing.T) {
	plain := func(title, text string) metric.Event {
		return metric.Event{Title: title, Text: text, Priority: "normal", AlertType: "info"}
	}
	tests := map[string]struct {
		packet string
		want   []metric.Event
		rest   string
	}{
		"plain":    {packet: "_e{5,4}:title|text", want: []metric.Event{plain("title", "text")}},
		"no text":  {packet: "_e{5,0}:title|", want: []metric.Event{plain("title", "")}},
		"pipes":    {packet: "_e{5,5}:ti|le|te|xt", want: []metric.Event{plain("ti|le", "te|xt")}},
		"bytes":    {packet: "_e{4,3}:t♬|☃", want: []metric.Event{plain("t♬", "☃")}},
		"escaped":  {packet: `_e{6,6}:ti\ntl|te\nxt`, want: []metric.Event{plain("ti\ntl", "te\nxt")}},
		"raw line": {packet: "_e{5,4}:ti\nle|text|d:5\na:1|c", want: []metric.Event{withTime(plain("ti\nle", "text"), 5)}, rest: "a:1|c\n"},
		"raw text": {packet: "_e{5,5}:title|te\nxt\na:1|c", want: []metric.Event{plain("title", "te\nxt")}, rest: "a:1|c\n"},
		"CRLF":     {packet: "_e{5,4}:title|text\r\na:1|c", want: []metric.Event{plain("title", "text")}, rest: "a:1|c\n"},
		"glued":    {packet: "_e{5,4}:title|textd:5", want: []metric.Event{withTime(plain("title", "text"), 5)}},
		"all fields": {
			packet: "_e{1,1}:a|b|d:1700000000|h:web|k:key|p:low|s:src|t:error|#x:y,z|c:ci-abc|e:it-true,cn-web,pu-1|card:low|q:x|",
			want: []metric.Event{{
				Title: "a", Text: "b", Time: 1700000000, Host: "web", AggregationKey: "key", Priority: "low", SourceType: "src",
				AlertType: "error", Tags: []string{"x:y", "z"},
				Origin: metric.Origin{Container: []byte("abc"), ContainerName: []byte("web"), PodUID: []byte("1"), Cardinality: []byte("low")},
			}},
		},
		"fields that make no sense": {packet: "_e{1,1}:a|b|d:x|p:high|t:bad|d:-1", want: []metric.Event{plain("a", "b")}},

		"lengths beyond the packet":           {packet: "_e{10,10}:title|text", rest: "reject bad_event\n"},
		"lengths beyond any number":           {packet: "_e{99999999999999999999,1}:a|b", rest: "reject bad_event\n"},
		"lengths whose sum overflows":         {packet: "_e{9223372036854775807,9223372036854775807}:a|b", rest: "reject bad_event\n"},
		"no title":                            {packet: "_e{0,1}:|b", rest: "reject bad_event\n"},
		"negative":                            {packet: "_e{1,-1}:a|b", rest: "reject bad_event\n"},
		"no lengths":                          {packet: "_e{}:a|b", rest: "reject bad_event\n"},
		"one length":                          {packet: "_e{1}:a|bbbb", rest: "reject bad_event\n"},
		"no body":                             {packet: "_e{5,4}", rest: "reject bad_event\n"},
		"a bad one spares what follows":       {packet: "_e{50,4}:title|text\na:1|c", rest: "a:1|c\nreject bad_event\n"},
		"a length that reaches into a metric": {packet: "_e{5,10}:title|text\nfoo:1|c", rest: "foo:1|c\nreject bad_event\n"},
		"a length that reaches into a check":  {packet: "_e{5,10}:title|text\n_sc|a|0", rest: "reject bad_event\n"},
		"no separator where it must be":       {packet: "_e{8,2}:title|t\na:1|c", rest: "a:1|c\nreject bad_event\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			events, _, rest := messages(test.packet)
			if diff := cmp.Diff(test.want, events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
			if rest != test.rest {
				t.Errorf("besides: %q, want %q", rest, test.rest)
			}
		})
	}
}

func withTime(e metric.Event, seconds int64) metric.Event {
	e.Time = seconds
	return e
}

func TestServiceChecks(t *testing.T) {
	tests := map[string]struct {
		line string
		want []metric.ServiceCheck
	}{
		"plain": {"_sc|db.up|0", []metric.ServiceCheck{{Name: "db.up"}}},
		"all fields": {
			`_sc|db.up|2|d:5|h:web|#a,b:c|m:no m\:answer\nat all|c:abc|card:none`,
			[]metric.ServiceCheck{{
				Name: "db.up", Status: metric.CheckCritical, Time: 5, Host: "web", Tags: []string{"a", "b:c"}, Message: `no m\:answer\nat all`,
				Origin: metric.Origin{Container: []byte("abc"), Cardinality: []byte("none")},
			}},
		},
		"the last of a field counts": {"_sc|db.up|3|m:a|m:b|#x|#y", []metric.ServiceCheck{{Name: "db.up", Status: metric.CheckUnknown, Message: "b", Tags: []string{"y"}}}},
		"a time that is none":        {"_sc|db.up|1|d:x", []metric.ServiceCheck{{Name: "db.up", Status: metric.CheckWarning}}},
		"the fourth byte is any":     {"_sc:db.up|1", []metric.ServiceCheck{{Name: "db.up", Status: metric.CheckWarning}}},
		"no status":                  {"_sc|db.up", nil},
		"no name":                    {"_sc||0", nil},
		"status 4":                   {"_sc|db.up|4", nil},
		"two digits":                 {"_sc|db.up|00", nil},
		"short":                      {"_sc", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, checks, rest := messages(test.line)
			if diff := cmp.Diff(test.want, checks); diff != "" {
				t.Errorf("checks (-want +got):\n%s", diff)
			}
			if (test.want == nil) != (rest == "reject bad_service_check\n") {
				t.Errorf("besides: %q", rest)
			}
		})
	}
}

// An event comes back from its canonical form, and no lengths reach beyond the
// packet.
func FuzzEvent(f *testing.F) {
	f.Add([]byte("_e{5,4}:title|text|d:1|h:x|k:y|p:low|s:z|t:error|#a,b"))
	f.Add([]byte("_e{5,4}:ti\nle|text\r\na:1|c"))
	f.Add([]byte("_e{9223372036854775807,9223372036854775807}:a|b"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		packet = append([]byte("_e{"), bytes.TrimPrefix(packet, eventPrefix)...)
		before := bytes.Clone(packet)
		var lines metric.Lines
		dogstatsd.Packet(packet, false, &lines)
		if !bytes.Equal(packet, before) {
			t.Fatalf("%q was changed to %q", before, packet)
		}
		checkCount(t, packet, &lines)
		for _, e := range lines.Events {
			if e.Title == "" || len(e.Title)+len(e.Text) > len(packet) {
				t.Fatalf("%q: title %q, text %q", packet, e.Title, e.Text)
			}
			if strings.Contains(e.Title+e.Text, `\n`) || strings.HasSuffix(e.Title+e.Text, `\`) {
				continue // what unescaping made; its canonical form is escaped once more
			}
			again := append(encodeEvent(&e), '|') // what a field ends in is no line ending
			var second metric.Lines
			dogstatsd.Packet(again, false, &second)
			if len(second.Events) != 1 {
				t.Fatalf("%q is accepted, its canonical form %q is not: %+v", packet, again, second.Rejected)
			}
			if diff := cmp.Diff(e, second.Events[0]); diff != "" {
				t.Errorf("%q and its canonical form %q differ:\n%s", packet, again, diff)
			}
		}
	})
}

func encodeEvent(e *metric.Event) []byte {
	title, text := strings.ReplaceAll(e.Title, "\n", `\n`), strings.ReplaceAll(e.Text, "\n", `\n`)
	line := fmt.Appendf(nil, "_e{%d,%d}:%s|%s|p:%s|t:%s", len(title), len(text), title, text, e.Priority, e.AlertType)
	if e.Time != 0 {
		line = fmt.Appendf(line, "|d:%d", e.Time)
	}
	for _, field := range []struct{ key, value string }{{"h", e.Host}, {"k", e.AggregationKey}, {"s", e.SourceType}} {
		if field.value != "" {
			line = fmt.Appendf(line, "|%s:%s", field.key, field.value)
		}
	}
	return append(encodeOrigin(line, &e.Origin), encodeTags(e.Tags)...)
}

func encodeTags(tags []string) string {
	if tags == nil {
		return ""
	}
	return "|#" + strings.Join(tags, ",")
}

// encodeOrigin appends the fields of an origin. An empty part is as good as none.
func encodeOrigin(line []byte, o *metric.Origin) []byte {
	if o.Container != nil || o.Inode != nil {
		line = append(line, "|c:"...)
		if o.Container != nil {
			line = append(append(append(line, "ci-"...), o.Container...), ',')
		}
		if o.Inode != nil {
			line = append(append(line, "in-"...), o.Inode...)
		}
	}
	if o.ContainerName != nil || o.PodUID != nil {
		line = append(line, "|e:"...)
		if o.ContainerName != nil {
			line = append(append(append(line, "cn-"...), o.ContainerName...), ',')
		}
		if o.PodUID != nil {
			line = append(append(line, "pu-"...), o.PodUID...)
		}
	}
	if o.Cardinality != nil {
		line = append(append(line, "|card:"...), o.Cardinality...)
	}
	return line
}

// A service check comes back from its canonical form.
func FuzzServiceCheck(f *testing.F) {
	f.Add([]byte("_sc|db.up|2|d:5|h:web|#a,b:c|m:no m\\:answer|c:abc|card:none"))
	f.Fuzz(func(t *testing.T, line []byte) {
		line = append([]byte("_sc"), bytes.TrimPrefix(line, checkPrefix)...)
		if bytes.IndexByte(line, '\n') >= 0 {
			return
		}
		var lines metric.Lines
		dogstatsd.Packet(line, false, &lines)
		checkCount(t, line, &lines)
		for _, c := range lines.Checks {
			if c.Name == "" || c.Status > metric.CheckUnknown {
				t.Fatalf("%q became %+v", line, c)
			}
			again := fmt.Appendf(nil, "_sc|%s|%d|m:%s|h:%s", c.Name, c.Status, c.Message, c.Host)
			if c.Time != 0 {
				again = fmt.Appendf(again, "|d:%d", c.Time)
			}
			again = append(encodeOrigin(again, &c.Origin), encodeTags(c.Tags)...)
			again = append(again, '|') // what a field ends in is no line ending
			var second metric.Lines
			dogstatsd.Packet(again, false, &second)
			if len(second.Checks) != 1 {
				t.Fatalf("%q is accepted, its canonical form %q is not", line, again)
			}
			if diff := cmp.Diff(c, second.Checks[0]); diff != "" {
				t.Errorf("%q and its canonical form %q differ:\n%s", line, again, diff)
			}
		}
	})
}
