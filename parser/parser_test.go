package parser

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/metric"
)

var dogstatsd = New(DefaultConfig())

// row is one row of testdata/lines.
type row struct {
	file, line, want string
	number           int
}

var gap = regexp.MustCompile(`\t+|  +`)

func readRows(t testing.TB) []row {
	t.Helper()
	files, err := filepath.Glob("testdata/lines/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/lines (%v)", err)
	}
	var rows []row
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		scanner := bufio.NewScanner(bytes.NewReader(text))
		for number := 1; scanner.Scan(); number++ {
			if scanner.Text() == "" || strings.HasPrefix(scanner.Text(), "# ") {
				continue
			}
			parts := gap.Split(scanner.Text(), 2)
			if len(parts) != 2 {
				parts = strings.SplitN(scanner.Text(), " reject ", 2)
				parts[1] = "reject " + parts[1]
			}
			line, err := strconv.Unquote(`"` + strings.ReplaceAll(parts[0], `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("%s:%d: %v", name, number, err)
			}
			rows = append(rows, row{name, line, parts[1], number})
		}
	}
	return rows
}

func TestLines(t *testing.T) {
	for _, row := range readRows(t) {
		t.Run(row.line, func(t *testing.T) {
			line := []byte(row.line)
			if got := describeLine(line); got != row.want {
				t.Errorf("%s:%d: %q\n got %s\nwant %s", row.file, row.number, row.line, got, row.want)
			}
			if string(line) != row.line {
				t.Errorf("%q was changed to %q", row.line, line)
			}
		})
	}
}

// describeLine says what becomes of one line in the words of testdata/lines.
func describeLine(line []byte) string {
	sample, packed, id, why := parse(line)
	if why != metric.Accepted {
		return "reject " + why.String()
	}
	return canonical(sample, packed, id)
}

// parse is line and Describe for a metric.
func parse(line []byte) (s *metric.Sample, packed []float64, id *metric.Identity, why metric.Reason) {
	var lines metric.Lines
	if why := dogstatsd.line(line, &lines); why != metric.Accepted {
		if len(lines.Samples) != 0 || len(lines.Values) != 0 {
			panic("a rejected line left something behind")
		}
		return nil, nil, nil, why
	}
	id, s = new(metric.Identity), &lines.Samples[0]
	return s, lines.Packed(s), id, dogstatsd.Describe(s, id)
}

func canonical(s *metric.Sample, packed []float64, id *metric.Identity) string {
	var values []string
	if id.Kind == metric.Set {
		values = []string{strconv.Quote(string(s.Member()))}
	} else {
		for _, v := range append([]float64{s.Value}, packed...) {
			text := strconv.FormatFloat(v, 'g', -1, 64)
			if v == float64(int64(v)) {
				text = strconv.FormatFloat(v, 'f', -1, 64)
			}
			if v >= 1<<63 {
				text = strconv.FormatFloat(v, 'f', 0, 64)
			}
			values = append(values, text)
		}
	}
	var tags []string
	for _, tag := range id.Tags {
		tags = append(tags, quoteIfOdd(tag))
	}
	at := ""
	if id.Time != 0 {
		at = fmt.Sprintf("T%d ", id.Time)
	}
	return fmt.Sprintf("%s %s [%s] @%s %s[%s]", id.Kind, quoteIfOdd(id.Name), strings.Join(values, " "),
		strconv.FormatFloat(id.Rate, 'g', -1, 64), at, strings.Join(tags, " "))
}

func quoteIfOdd(b []byte) string {
	quoted := strconv.QuoteToASCII(string(b))
	if quoted == `"`+string(b)+`"` && len(b) > 0 && !bytes.ContainsAny(b, " []") {
		return string(b)
	}
	if !strings.ContainsAny(quoted, ` `) && !strings.Contains(quoted, `\x`) && len(b) > 0 {
		return strings.Trim(quoted, `"`)
	}
	return quoted
}

func TestPacket(t *testing.T) {
	tests := map[string]struct {
		packet string
		cut    bool
		names  []string
		count  uint64
		reject map[metric.Reason]uint64
	}{
		"one line":           {packet: "a:1|c", names: []string{"a"}, count: 1},
		"newline at the end": {packet: "a:1|c\n", names: []string{"a"}, count: 1},
		"several lines":      {packet: "a:1|c\nb:2|g\nc:x|s", names: []string{"a", "b", "c"}, count: 3},
		"CRLF":               {packet: "a:1|c\r\nb:1|c\r\n", names: []string{"a", "b"}, count: 2},

		"empty lines":      {packet: "\n\na:1|c\n\r\n\nb:1|c\n\n", names: []string{"a", "b"}, count: 2},
		"only empty lines": {packet: "\n\r\n\n"},
		"nothing":          {packet: ""},
		"a bad line spares its neighbours": {
			packet: "a:1|c\nnonsense\nb:1|c", names: []string{"a", "b"}, count: 3,
			reject: map[metric.Reason]uint64{metric.NoKind: 1},
		},
		"cut in a line": {
			packet: "a:1|c\nb:1|c|#env:pr", cut: true, names: []string{"a"}, count: 2,
			reject: map[metric.Reason]uint64{metric.Truncated: 1},
		},
		"cut behind a newline": {
			packet: "a:1|c\n", cut: true, names: []string{"a"}, count: 2,
			reject: map[metric.Reason]uint64{metric.Truncated: 1},
		},
		"cut in the first line": {
			packet: "a:1|c|#env:pr", cut: true, count: 1,
			reject: map[metric.Reason]uint64{metric.Truncated: 1},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var lines metric.Lines
			dogstatsd.Packet([]byte(test.packet), test.cut, &lines)
			var names []string
			for i := range lines.Samples {
				names = append(names, string(lines.Samples[i].Name()))
			}
			reject := map[metric.Reason]uint64{}
			for why, n := range lines.Rejected {
				if n > 0 {
					reject[metric.Reason(why)] = n
				}
			}
			if !slices.Equal(names, test.names) {
				t.Errorf("names = %q, want %q", names, test.names)
			}
			if lines.Count != test.count {
				t.Errorf("count = %d, want %d", lines.Count, test.count)
			}
			if test.reject == nil {
				test.reject = map[metric.Reason]uint64{}
			}
			if diff := cmp.Diff(test.reject, reject); diff != "" {
				t.Errorf("rejected (-want +got):\n%s", diff)
			}
		})
	}
}

// A kind of "c\r" is what is left of a line that ended in two carriage
// returns; the agent drops only one of them.
func TestOnlyOneCarriageReturnIsDropped(t *testing.T) {
	if got := describeLine([]byte("a:1|c\r")); got != "reject unknown_kind" {
		t.Errorf("got %s", got)
	}
}

func TestPacketDoesNotAllocate(t *testing.T) {
	packet := []byte(strings.Repeat("page.views:1|c|@0.5|#env:prod,team:web\nload:0.25|g\nsize:1:2:3|d\nuser:ann|s\nbad\n", 20))
	var lines metric.Lines
	dogstatsd.Packet(packet, false, &lines)
	if n := testing.AllocsPerRun(100, func() {
		lines.Reset()
		dogstatsd.Packet(packet, false, &lines)
	}); n != 0 {
		t.Errorf("%v allocations a packet, want 0", n)
	}
}

func TestStatsDDoesNotAllocate(t *testing.T) {
	packet := []byte(strings.Repeat("page.views:1|c|@0.5\nload:+0.25|g\nsize:1:2:3|ms\nuser:ann|s\nuser:|s\nbad\na:1|c:2|ms|#x\n", 20))
	var lines metric.Lines
	for range 3 {
		lines.Reset()
		statsd.Packet(packet, false, &lines)
	}
	if n := testing.AllocsPerRun(100, func() {
		lines.Reset()
		statsd.Packet(packet, false, &lines)
	}); n != 0 {
		t.Errorf("%v allocations a packet, want 0", n)
	}
}

func TestDescribeDoesNotAllocate(t *testing.T) {
	var lines metric.Lines
	dogstatsd.Packet([]byte("page.views:1|c|@0.5|#env:prod,team:web,a:b,c:d"), false, &lines)
	var id metric.Identity
	if n := testing.AllocsPerRun(100, func() {
		if why := dogstatsd.Describe(&lines.Samples[0], &id); why != metric.Accepted {
			t.Fatal(why)
		}
	}); n != 0 {
		t.Errorf("%v allocations a description, want 0", n)
	}
}

// Whatever number reads, strconv reads the same.
func TestNumberAgreesWithStrconv(t *testing.T) {
	for _, text := range []string{
		"0", "1", "12", "-1", "-0", "0.1", "0.3", "123456789012345", "0.00000000000001", "99999.9999999999",
		"4.35", "2.675", "1.005", "-17.25", "5.", ".5", "000000000000001",
	} {
		want, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		got, n, ok := number([]byte(text))
		if !ok || n != len(text) || got != want {
			t.Errorf("number(%q) = %v, %d, %v, want %v", text, got, n, ok, want)
		}
	}
}

// Tags are split at every comma, wherever it is, whatever the bytes around it are.
func TestTagsAreSplitAtCommas(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100_000 {
		text := make([]byte, random.IntN(40))
		for i := range text {
			text[i] = []byte{',', ',', 'a', '-', '+', 0, 1, 0x7f, 0x80, 0xac, 0xff, ':'}[random.IntN(12)]
		}
		want := bytes.Split(text, []byte{','})
		if len(text) == 0 {
			want = nil
		}
		if got := splitTags(text, nil); !slices.EqualFunc(got, want, bytes.Equal) {
			t.Fatalf("%q is split to %q, want %q", text, got, want)
		}
	}
}
