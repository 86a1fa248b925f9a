package main

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// conformanceRow is one row of testdata/conformance.txt, whose head says what it
// means.
type conformanceRow struct {
	number int // of its line in the file
	packet string
	style  string
	want   map[string]string // by dialect
}

func readConformance(t *testing.T) []conformanceRow {
	t.Helper()
	file, err := os.Open("testdata/conformance.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var rows []conformanceRow
	scanner := bufio.NewScanner(file)
	for number := 1; scanner.Scan(); number++ {
		key, value, _ := strings.Cut(scanner.Text(), ": ")
		if strings.HasPrefix(key, "#") || key == "" {
			continue
		}
		if key == "line" || key == "line:" {
			packet, err := strconv.Unquote(`"` + strings.ReplaceAll(strings.ReplaceAll(value, `\"`, `"`), `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("conformance.txt:%d: %v", number, err)
			}
			rows = append(rows, conformanceRow{number: number, packet: packet, style: parser.TagsDogStatsD, want: map[string]string{}})
			continue
		}
		row := &rows[len(rows)-1]
		switch key {
		case "style":
			row.style = value
		case "both":
			row.want[parser.DialectDogStatsD], row.want[parser.DialectStatsD] = value, value
		case parser.DialectDogStatsD, parser.DialectStatsD:
			row.want[key] = value
		default:
			t.Fatalf("conformance.txt:%d: unknown key %q", number, key)
		}
	}
	return rows
}

// outcome gathers what became of lines, in the words of conformance.txt.
type outcome []string

func (o *outcome) add(format string, args ...any) { *o = append(*o, fmt.Sprintf(format, args...)) }

func (o outcome) String() string {
	if len(o) == 0 {
		return "nothing"
	}
	slices.Sort(o)
	return strings.Join(o, " ; ")
}

// plainText is a name or a tag as conformance.txt shows it.
func plainText(s string) string {
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

func decimal(v float64) string { return strconv.FormatFloat(v, 'g', 9, 64) }

// attributes are what follows a value: host, device, time and tags.
func attributes(host, device string, seconds int64, tags []string) string {
	text := ""
	if host != conformanceHost {
		text += " host=" + plainText(host)
	}
	if device != "" {
		text += " device=" + plainText(device)
	}
	if seconds != 0 {
		text += fmt.Sprintf(" time=%d", seconds)
	}
	return text + hashes(tags)
}

func hashes(tags []string) string {
	var shown []string
	for _, tag := range tags {
		if !strings.HasPrefix(tag, "dd.internal.resource:") { // taken out when points are encoded
			shown = append(shown, plainText(tag))
		}
	}
	if shown == nil {
		return ""
	}
	return " #" + strings.Join(shown, ",")
}

const conformanceHost = "web-1"

func (o *outcome) batch(b *metric.Batch) {
	about := func(c *metric.Context, seconds int64) string {
		return attributes(c.Host(b.AgentHost), c.Device(), seconds, slices.Collect(c.Tags()))
	}
	for i := range b.Series {
		s := &b.Series[i]
		c := b.Context(s)
		o.add("%s %s %s%s", s.Type, plainText(c.Name()+s.Suffix.String()), decimal(s.Value), about(c, s.Time))
	}
	for i := range b.Sketches {
		c, s := b.Sketches[i].Context, &b.Sketches[i].Sketch
		o.add("distribution %s count=%d sum=%s min=%s max=%s%s", plainText(c.Name()), s.Count, decimal(s.Sum), decimal(s.Min), decimal(s.Max), about(c, 0))
	}
	now := b.Start.Unix()
	for i := range b.Events {
		e := &b.Events[i]
		o.event(e.Title, e.Text, e.Host, timeUnless(e.Time, now), e.Priority, e.AlertType, e.AggregationKey, e.SourceType, e.Tags)
	}
	for i := range b.Checks {
		c := &b.Checks[i]
		o.check(c.Name, c.Status.String(), c.Host, timeUnless(c.Time, now), c.Message, c.Tags)
	}
}

func timeUnless(seconds, now int64) int64 {
	if seconds == now {
		return 0
	}
	return seconds
}

func (o *outcome) event(title, text, host string, seconds int64, priority, alert, key, source string, tags []string) {
	line := fmt.Sprintf("event %q %q%s", title, text, attributes(host, "", seconds, nil))
	if priority != "normal" {
		line += " priority=" + priority
	}
	if alert != "info" {
		line += " alert=" + alert
	}
	if key != "" {
		line += " key=" + plainText(key)
	}
	if source != "" {
		line += " source=" + plainText(source)
	}
	*o = append(*o, line+hashes(tags))
}

func (o *outcome) check(name, status, host string, seconds int64, message string, tags []string) {
	line := fmt.Sprintf("check %s %s%s", plainText(name), status, attributes(host, "", seconds, nil))
	if message != "" {
		line += fmt.Sprintf(" message=%q", message)
	}
	*o = append(*o, line+hashes(tags))
}

func (o *outcome) rejects(s *aggregator.Stats) {
	for why := range metric.Reasons {
		for range s.Rejected[why] + s.Refused[why] {
			o.add("reject %s", why)
		}
	}
}

// TestConformance sends every row alone into an interval of its own.
func TestConformance(t *testing.T) {
	rows := readConformance(t)
	if len(rows) < 400 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, row := range rows {
		for dialect, want := range row.want {
			var got outcome
			synctest.Test(t, func(t *testing.T) {
				p := parser.New(parser.Config{Dialect: dialect, TagStyle: row.style})
				cfg := aggregator.DefaultConfig()
				cfg.Hostname = conformanceHost
				a := aggregator.New(cfg, []aggregator.Describe{p.Describe}, slog.New(slog.DiscardHandler))
				in := intake{parser: p, worker: a.Worker(0)}
				in.packet([]byte(row.packet), false, "")
				in.end()
				ctx, stop := context.WithCancel(t.Context())
				stop()
				batches := make(chan *metric.Batch, 1)
				a.Run(ctx, nil, batches)
				got.batch(<-batches)
				stats := a.Stats()
				got.rejects(&stats)
			})
			if got.String() != want {
				t.Errorf("conformance.txt:%d: %q (%s, %s)\n got %s\nwant %s", row.number, row.packet, dialect, row.style, got, want)
			}
		}
	}
}

// reasonNames are the names of all reasons to reject a line or refuse a sample.
var reasonNames = func() map[string]bool {
	names := map[string]bool{}
	for why := range metric.Reasons {
		names[why.String()] = true
	}
	return names
}()
