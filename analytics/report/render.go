package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
	"time"
)

// The formats of a report.
const (
	JSON     = "json"
	CSV      = "csv"
	Markdown = "md"
	HTML     = "html"
)

// Formats are all of them.
var Formats = []string{JSON, CSV, Markdown, HTML}

// Render returns a document in one of Formats.
func (d *Document) Render(format string) []byte {
	switch format {
	case JSON:
		return d.json()
	case CSV:
		return d.csv()
	case Markdown:
		return d.markdown()
	case HTML:
		return d.html()
	}
	panic("BUG: no format " + format)
}

// json is the values nested by the parts of their key paths: usage.teams.users and its
// time frame 7d are metrics.usage.teams.users.7d.
func (d *Document) json() []byte {
	tree := map[string]any{}
	for i := range d.Rows {
		r := &d.Rows[i]
		at := tree
		for part := range strings.SplitSeq(r.KeyPath, ".") {
			inner, ok := at[part].(map[string]any)
			if !ok {
				inner = map[string]any{}
				at[part] = inner
			}
			at = inner
		}
		text, err := json.Marshal(r)
		if err != nil {
			panic("BUG: a value cannot be written as JSON: " + err.Error())
		}
		// A metric may be called like a time frame of another.
		leaf, ok := at[r.Frame].(map[string]any)
		if !ok {
			leaf = map[string]any{}
			at[r.Frame] = leaf
		}
		decoder := json.NewDecoder(bytes.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(&leaf); err != nil {
			panic("BUG: a value is no JSON: " + err.Error())
		}
	}
	text, err := json.MarshalIndent(struct {
		Report  string         `json:"report"`
		Period  time.Time      `json:"period"`
		Made    time.Time      `json:"made_at"`
		Host    string         `json:"host"`
		Hosts   Hosts          `json:"hosts"`
		Metrics map[string]any `json:"metrics"`
	}{d.Report, d.Period, d.Made.UTC(), d.Host, d.Hosts, tree}, "", "  ")
	if err != nil {
		panic("BUG: a report cannot be written as JSON: " + err.Error())
	}
	return append(text, '\n')
}

func (d *Document) csv() []byte {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{
		"key_path", "time_frame", "first", "last", "timezone", "value", "status", "previous_first", "previous_last", "previous", "change",
		"relative_error", "days", "days_observed", "final", "sampled", "revision", "scope",
	})
	for i := range d.Rows {
		r := &d.Rows[i]
		previous := Row{}
		if r.Previous != nil {
			previous = *r.Previous
		}
		change := ""
		if by, _, ok := r.change(); ok {
			change = plain(by)
		}
		_ = w.Write([]string{
			r.KeyPath, r.Frame, r.First, r.Last, r.Timezone, value(r.Value, ""), r.Status, previous.First, previous.Last, value(previous.Value, ""), change,
			plain(r.Error), strconv.Itoa(r.Days), strconv.Itoa(r.Observed), strconv.FormatBool(r.Final), strconv.FormatBool(r.Sampled),
			strconv.FormatUint(uint64(r.Revision), 10), r.Scope,
		})
	}
	w.Flush() // a buffer does not fail
	return b.Bytes()
}

func plain(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

func value(v *float64, none string) string {
	if v == nil {
		return none
	}
	return plain(*v)
}

// readable is a number for people: sums of fractions end after two places, and what is
// too long for a table is a power of ten.
func readable(v float64) string {
	const longest = 1e15
	if math.Abs(v) >= longest {
		return strconv.FormatFloat(v, 'e', 3, 64)
	}
	return plain(math.Round(v*100) / 100)
}

func readableValue(v *float64, none string) string {
	if v == nil {
		return none
	}
	return readable(*v)
}

// brief is a number for the axis of a chart.
func brief(v float64) string {
	const short = 1e6
	if math.Abs(v) < short {
		return plain(math.Round(v*100) / 100)
	}
	power := 0
	for v = v / short; math.Abs(v) >= 1000 && power < 2; power++ {
		v /= 1000
	}
	if math.Abs(v) >= 1000 {
		return strconv.FormatFloat(v*1e12, 'e', 1, 64)
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + " " + "MGT"[power:power+1]
}

// cells are a row for people: metric, value, error, before, change, days, remarks.
func (r *Row) cells() []string {
	before, change, margin := "", "", "exact"
	if r.Previous != nil {
		before = readableValue(r.Previous.Value, "none: "+r.Previous.Status)
	}
	if by, share, ok := r.change(); ok {
		if change = readable(by); by > 0 {
			change = "+" + change
		}
		if *r.Previous.Value != 0 {
			change += fmt.Sprintf(" (%+.1f %%)", 100*share)
		}
	}
	if r.Error > 0 {
		margin = fmt.Sprintf("±%.1f %%", 100*r.Error)
	}
	if r.Value == nil {
		margin = ""
	}
	first := r.First
	if first == "" {
		first = "ever"
	}
	return []string{r.Name, readableValue(r.Value, "none: "+r.Status), margin, before, change, first + " to " + r.Last + " " + r.Timezone, strings.Join(r.Remarks(), ", ")}
}

// Remarks is what to know of a value besides its number.
func (r *Row) Remarks() (all []string) {
	if r.Value == nil {
		all = append(all, "no value: "+r.Status)
	}
	if r.Observed < r.Days {
		all = append(all, fmt.Sprintf("%d of %d days observed", r.Observed, r.Days))
	}
	if r.Sampled {
		all = append(all, "too low: sampled lines do not say who")
	}
	if r.Revision > 0 {
		all = append(all, fmt.Sprintf("revision %d", r.Revision))
	}
	if !r.Final {
		all = append(all, "late events may change it")
	}
	return all
}

var header = []string{"Metric", "Value", "Error", "Before", "Change", "Days", "Remarks"}

func (d *Document) title() string { return d.Report + ", " + d.Period.Format("2006-01-02 15:04 MST") }

func (d *Document) origin() string {
	if d.Hosts == (Hosts{}) {
		return fmt.Sprintf("As counted by %s, made at %s.", d.Host, d.Made.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	return fmt.Sprintf("As counted by %s, made by %s at %s.", d.Hosts, d.Host, d.Made.UTC().Format("2006-01-02 15:04:05 MST"))
}

func (d *Document) markdown() []byte {
	var b strings.Builder
	escape := strings.NewReplacer("|", `\|`, "\n", " ", "<", "&lt;", "*", `\*`, "_", `\_`, "`", "'")
	row := func(cells []string) {
		for _, cell := range cells {
			b.WriteString("| " + escape.Replace(cell) + " ")
		}
		b.WriteString("|\n")
	}
	fmt.Fprintf(&b, "# %s\n\n%s\n\n", escape.Replace(d.title()), escape.Replace(d.origin()))
	row(header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for i := range d.Rows {
		row(d.Rows[i].cells())
	}
	return []byte(b.String())
}

const style = `body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
table{border-collapse:collapse}th,td{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:left}
td:nth-child(2),td:nth-child(4),td:nth-child(5){text-align:right}figure{margin:2rem 0}figcaption{font-weight:600}
.bar{fill:#4a7fb5}.none{fill:#ddd}.axis{font-size:11px;fill:#666}`

func (d *Document) html() []byte {
	var b strings.Builder
	title := html.EscapeString(d.title())
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>%s</title>\n<style>%s</style>\n<h1>%s</h1>\n<p>%s</p>\n<table>\n<tr>",
		title, style, title, html.EscapeString(d.origin()))
	for _, cell := range header {
		b.WriteString("<th>" + cell)
	}
	b.WriteByte('\n')
	for i := range d.Rows {
		b.WriteString("<tr>")
		for _, cell := range d.Rows[i].cells() {
			b.WriteString("<td>" + html.EscapeString(cell))
		}
		b.WriteByte('\n')
	}
	b.WriteString("</table>\n")
	drawn := map[string]bool{}
	for i := range d.Rows {
		if r := &d.Rows[i]; len(r.Daily) > 0 && !drawn[r.KeyPath] {
			drawn[r.KeyPath] = true // its time frames have the same days
			r.chart(&b)
		}
	}
	b.WriteString("</html>\n")
	return []byte(b.String())
}

// chart draws a row's days as bars, as SVG.
func (r *Row) chart(b *strings.Builder) {
	const width, height, left, bottom = 720.0, 160.0, 60.0, 20.0
	most := 0.0
	for _, day := range r.Daily {
		if day.Value != nil {
			most = math.Max(most, *day.Value)
		}
	}
	step := (width - left) / float64(len(r.Daily))
	fmt.Fprintf(b, "<figure>\n<figcaption>%s by day</figcaption>\n<svg viewBox=\"0 0 %g %g\" role=\"img\" aria-label=\"%[1]s by day\">\n",
		html.EscapeString(r.KeyPath), width, height)
	for i, day := range r.Daily {
		tall, class := 1.0, "none"
		if day.Value != nil {
			class = "bar"
			if most > 0 {
				tall = math.Max(0, *day.Value) / most * (height - bottom - 10)
			}
		}
		fmt.Fprintf(b, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%s: %s</title></rect>\n",
			class, left+float64(i)*step, height-bottom-tall, step*0.8, tall, html.EscapeString(day.Day), value(day.Value, "none"))
	}
	label := func(x, y float64, anchor, text string) {
		fmt.Fprintf(b, "<text class=\"axis\" x=\"%g\" y=\"%g\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, html.EscapeString(text))
	}
	label(left-6, 14, "end", brief(most))
	label(left-6, height-bottom, "end", "0")
	label(left, height-4, "start", r.Daily[0].Day)
	label(width, height-4, "end", r.Daily[len(r.Daily)-1].Day)
	b.WriteString("</svg>\n</figure>\n")
}
