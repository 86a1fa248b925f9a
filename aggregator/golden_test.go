package aggregator_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
	"github.com/weir-agent/weir/rules"
)

var update = flag.Bool("update", false, "rewrite the expected batches in testdata")

// TestGolden runs the scripts in testdata, which are the specification of what
// the aggregator makes of lines. A script starts at midnight; its commands are
//
//	config KEY VALUE    before anything else
//	rule YAML           the next rule, before anything is sent
//	send LINE           by reader 0; "send/1 LINE" by reader 1; "send@box LINE" by
//	                    reader 0 from a container that the socket knows as "box"
//	reload KEY VALUE    changes one setting while it runs, and takes rules since the start
//	advance DURATION    lets time pass
//	stop                ends the agent
//
// and each of the last two commands is followed by the points flushed meanwhile, indented.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in testdata (%v)", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got; go test ./aggregator -update accepts it):\n%s", file, diff)
			}
		})
	}
}

// runScript executes the commands of a script and returns it with the points
// that were flushed. Scripts within a file are separated by "---".
func runScript(t *testing.T, text string) string {
	var out bytes.Buffer
	for i, script := range strings.Split(text, "---\n") {
		if i > 0 {
			out.WriteString("---\n")
		}
		synctest.Test(t, func(t *testing.T) { runOne(t, script, &out) })
	}
	return out.String()
}

func runOne(t *testing.T, script string, out *bytes.Buffer) {
	cfg := aggregator.DefaultConfig()
	cfg.Hostname = "web-1"
	lines := parser.DefaultConfig()
	var list rules.Config
	var h *harness
	for _, line := range strings.Split(strings.TrimSuffix(script, "\n"), "\n") {
		if strings.HasPrefix(line, "    ") {
			continue // expected before; made anew
		}
		fmt.Fprintln(out, line)
		command, argument, _ := strings.Cut(line, " ")
		if command == "" || command == "#" {
			continue
		}
		if command == "config" {
			configure(t, &cfg, &lines, argument)
			continue
		}
		if command == "rule" {
			var r rules.Rule
			if err := yaml.Unmarshal([]byte(argument), &r); err != nil {
				t.Fatalf("%q: %v", argument, err)
			}
			list.Rules = append(list.Rules, r)
			continue
		}
		if h == nil {
			if err := list.Validate(); err != nil {
				t.Fatal(err)
			}
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			h = start(cfg, parser.New(lines))
			h.SetRules(treatBy(list))
		}
		switch command {
		case "send", "send/1", "send@box":
			text, err := strconv.Unquote(`"` + strings.ReplaceAll(argument, `"`, `\"`) + `"`)
			if err != nil {
				t.Fatalf("%q: %v", argument, err)
			}
			reader, sender := 0, ""
			switch command {
			case "send/1":
				reader = 1
			case "send@box":
				sender = "box"
			}
			h.send(reader, sender, text)
		case "reload":
			configure(t, &cfg, &lines, argument)
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			h.Reconfigure(cfg, treatBy(list), nil)
		case "advance":
			d, err := time.ParseDuration(argument)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(d)
			synctest.Wait()
			h.print(out)
		case "stop":
			h.stop()
			h.print(out)
			h = nil
		default:
			t.Fatalf("unknown command %q", command)
		}
	}
	if h != nil {
		h.stop()
	}
}

func configure(t *testing.T, cfg *aggregator.Config, lines *parser.Config, argument string) {
	key, value, _ := strings.Cut(argument, " ")
	duration := func() time.Duration {
		d, err := time.ParseDuration(value)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	switch key {
	case "flush_interval":
		cfg.FlushInterval = duration()
	case "expiry.context":
		cfg.Expiry.Context = duration()
	case "expiry.zero_fill":
		cfg.Expiry.ZeroFill = duration()
	case "expiry.kept_gauge":
		cfg.Expiry.KeptGauge = duration()
	case "dialect":
		lines.Dialect = value
	case "tag_style":
		lines.TagStyle = value
	case "origin.as_tags":
		cfg.Origin.AsTags = strings.Fields(value)
	case "hostname":
		cfg.Hostname = value
	case "namespace":
		cfg.Namespace = value
	case "tags":
		cfg.Tags = strings.Fields(value)
	case "histogram.aggregates":
		cfg.Histogram.Aggregates = strings.Fields(value)
	case "histogram.percentiles":
		cfg.Histogram.Percentiles = nil
		for _, p := range strings.Fields(value) {
			f, err := strconv.ParseFloat(p, 64)
			if err != nil {
				t.Fatal(err)
			}
			cfg.Histogram.Percentiles = append(cfg.Histogram.Percentiles, f)
		}
	case "cardinality.max_contexts":
		n, err := strconv.Atoi(value)
		if err != nil {
			t.Fatal(err)
		}
		cfg.MaxContexts = n
	default:
		t.Fatalf("unknown setting %q", key)
	}
}

// treatBy returns what applies rules that have passed Validate.
func treatBy(cfg rules.Config) func() aggregator.Treat {
	r := rules.New(cfg)
	return func() aggregator.Treat { return r.NewSession().Apply }
}

// harness is a running aggregator with two readers.
type harness struct {
	*aggregator.Aggregator
	parser  *parser.Parser
	cancel  context.CancelFunc
	batches chan *metric.Batch
	done    chan struct{}
}

func start(cfg aggregator.Config, p *parser.Parser) *harness {
	ctx, cancel := context.WithCancel(context.Background())
	h := &harness{
		Aggregator: aggregator.New(cfg, []aggregator.Describe{p.Describe, p.Describe}, slog.New(slog.DiscardHandler)),
		parser:     p,
		cancel:     cancel,
		batches:    make(chan *metric.Batch, 1000),
		done:       make(chan struct{}),
	}
	go func() {
		defer close(h.done)
		h.Run(ctx, nil, h.batches)
	}()
	return h
}

func (h *harness) send(reader int, sender, packet string) {
	lines := metric.Lines{Sender: sender}
	buffer := []byte(packet)
	h.parser.Packet(buffer, false, &lines)
	h.Worker(reader).Add(&lines)
	clear(buffer) // what the aggregator keeps, it must have copied
}

func (h *harness) stop() {
	h.cancel()
	<-h.done
}

func (h *harness) print(out *bytes.Buffer) {
	for {
		select {
		case b := <-h.batches:
			writeBatch(out, b)
		default:
			return
		}
	}
}

func writeBatch(out *bytes.Buffer, b *metric.Batch) {
	stamp := b.Start.Format("15:04:05")
	if b.Points() == 0 {
		fmt.Fprintf(out, "    %s nothing\n", stamp)
	}
	number := func(v float64) string { return strconv.FormatFloat(v, 'g', 8, 64) }
	about := func(c *metric.Context) string {
		text := ""
		if host := c.Host(b.AgentHost); host != b.AgentHost {
			text += fmt.Sprintf(" host=%q", host)
		}
		if device := c.Device(); device != "" {
			text += " device=" + device
		}
		for tag := range c.Tags() {
			if tag == "" {
				tag = `""`
			}
			text += " #" + tag
		}
		return text
	}
	for i := range b.Series {
		s := &b.Series[i]
		c := b.Context(s)
		stamp := stamp
		if s.Time != 0 {
			stamp = "@" + strconv.FormatInt(s.Time, 10)
		}
		unit := ""
		if s.Unit(c) != "" {
			unit = " " + s.Unit(c)
		}
		fmt.Fprintf(out, "    %s %s %s%s = %s%s%s\n", stamp, s.Type, c.Name(), s.Suffix.String(), number(s.Value), unit, about(c))
	}
	for _, p := range b.Sketches {
		s := p.Sketch
		fmt.Fprintf(out, "    %s distribution %s count %d sum %s min %s max %s avg %s keys %v counts %v%s\n", stamp, p.Context.Name(),
			s.Count, number(s.Sum), number(s.Min), number(s.Max), number(s.Avg), s.Keys, s.Counts, about(p.Context))
	}
	for _, e := range b.Events {
		fmt.Fprintf(out, "    @%d event %q %q %s %s host=%s", e.Time, e.Title, e.Text, e.Priority, e.AlertType, e.Host)
		if e.AggregationKey != "" || e.SourceType != "" {
			fmt.Fprintf(out, " key=%s source=%s", e.AggregationKey, e.SourceType)
		}
		fmt.Fprintln(out, hashed(e.Tags))
	}
	for _, c := range b.Checks {
		fmt.Fprintf(out, "    @%d service check %s %s %q host=%s%s\n", c.Time, c.Name, c.Status, c.Message, c.Host, hashed(c.Tags))
	}
}

func hashed(tags []string) (text string) {
	for _, tag := range tags {
		text += " #" + tag
	}
	return text
}
