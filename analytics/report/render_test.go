package report

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Numbers for people are short enough for a table and for the axis of a chart; those for
// programs are whole.
func TestNumbersForPeople(t *testing.T) {
	for v, want := range map[float64][2]string{
		0: {"0", "0"}, 7: {"7", "7"}, 1234.5678: {"1234.57", "1234.57"}, 4937.999999999994: {"4938", "4938"}, -12.345: {"-12.35", "-12.35"},
		999999: {"999999", "999999"}, 1234567: {"1234567", "1.235 M"}, 2.5e9: {"2500000000", "2.5 G"}, 7.25e12: {"7250000000000", "7.25 T"},
		1e15: {"1.000e+15", "1.0e+15"}, 1.7976931348623157e308: {"1.798e+308", "1.8e+308"},
	} {
		if table, axis := readable(v), brief(v); table != want[0] || axis != want[1] {
			t.Errorf("%v: %s in a table and %s on an axis, want %s", v, table, axis, want)
		}
	}
	v := 1e300
	d := &Document{Report: "r", Rows: []Row{{KeyPath: "a", Name: "a.7d", Frame: "7d", Value: &v, Last: "2026-11-22", Daily: []Daily{{"2026-11-22", &v}}}}}
	for _, format := range []string{HTML, Markdown} {
		if text := string(d.Render(format)); strings.Contains(text, "000000") && !strings.Contains(text, "<title>") || !strings.Contains(text, "1.000e+300") {
			t.Errorf("%s:\n%s", format, text)
		}
	}
	if text := string(d.Render(CSV)); !strings.Contains(text, ","+strconv.FormatFloat(v, 'f', -1, 64)+",") {
		t.Errorf("CSV:\n%s", text)
	}
}

var bar = regexp.MustCompile(`<rect class="(\w+)" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)">`)

// The bars of a chart are as tall as their days are large, stand side by side on the axis
// and stay within the picture; a day without a value is a line, one of 0 is nothing.
func TestChart(t *testing.T) {
	of := func(v float64) *float64 { return &v }
	day := func(n int) string { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC).Format(time.DateOnly) }
	r := Row{KeyPath: "a<b", Daily: []Daily{{day(1), nil}, {day(2), of(50)}, {day(3), of(100)}, {day(4), of(0)}, {day(5), of(-20)}}}
	var b strings.Builder
	r.chart(&b)
	const axis = 140.0
	want := []struct {
		class string
		tall  float64
	}{{"none", 1}, {"bar", 65}, {"bar", 130}, {"bar", 0}, {"bar", 0}}
	bars := bar.FindAllStringSubmatch(b.String(), -1)
	if len(bars) != len(want) {
		t.Fatalf("%d bars:\n%s", len(bars), b.String())
	}
	end := 60.0
	for i, found := range bars {
		var n [4]float64
		for j := range n {
			var err error
			if n[j], err = strconv.ParseFloat(found[2+j], 64); err != nil {
				t.Fatal(err)
			}
		}
		x, y, width, height := n[0], n[1], n[2], n[3]
		if found[1] != want[i].class || height != want[i].tall || y+height != axis || x < end || x+width > 720 {
			t.Errorf("day %d: %s, want %v", i+1, found[0], want[i])
		}
		end = x + width
	}
	for _, text := range []string{"a&lt;b by day", ">100</text>", ">2026-11-01</text>", ">2026-11-05</text>"} {
		if !strings.Contains(b.String(), text) {
			t.Errorf("there is no %s in\n%s", text, b.String())
		}
	}
	r.Daily = []Daily{{day(1), of(0)}} // nobody came
	b.Reset()
	if r.chart(&b); strings.Contains(b.String(), "NaN") {
		t.Errorf("a chart of nothing:\n%s", b.String())
	}
}
