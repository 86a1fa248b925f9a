package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// newExplainCommand returns `weir explain LINE…`.
func newExplainCommand(configFile *string) *cobra.Command {
	var override parser.Config
	cmd := &cobra.Command{
		Use:   "explain LINE...",
		Short: "Say how lines are read, what they count for and what would be sent, or why not",
		Example: `  weir explain 'page.views:1|c|@0.5|#env:prod'
  weir explain --dialect statsd 'load:+1|g:320|ms'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, lines []string) error {
			cfg, _, err := load(*configFile)
			if err != nil {
				return err
			}
			cfg.Parser = override.Or(cfg.Parser)
			if err := cfg.Parser.Validate(); err != nil {
				return err
			}
			events, err := rehearse(&cfg)
			if err != nil {
				return err
			}
			rejected := 0
			for i, line := range lines {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if !explain(cmd.OutOrStdout(), cfg, events, line) {
					rejected++
				}
			}
			if err := events.close(); err != nil {
				return err
			}
			if rejected > 0 {
				return fmt.Errorf("explain: %d of %d lines would not count as they are", rejected, len(lines))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&override.Dialect, "dialect", "", "of the listener the line would come to (default: that of the configuration)")
	cmd.Flags().StringVar(&override.TagStyle, "tag-style", "", "of the listener the line would come to (default: that of the configuration)")
	return cmd
}

// explain writes what becomes of one packet, usually a single line, and reports
// whether all of it counts.
func explain(out io.Writer, cfg config.Config, events *rehearsal, packet string) (counts bool) {
	p := parser.New(cfg.Parser)
	fmt.Fprintf(out, "dialect %s, tag style %s\n", cfg.Parser.Dialect, cfg.Parser.TagStyle)
	messages := p.Messages([]byte(packet))
	if len(messages) == 0 {
		fmt.Fprintln(out, "an empty line is nothing")
		return true
	}
	counts = true
	if len(packet) > int(cfg.Listen.MaxPacket) {
		fmt.Fprintf(out, "it is longer than listen.max_packet (%v): what is behind that would be cut, and the last line rejected as %s\n",
			cfg.Listen.MaxPacket, metric.Truncated)
		counts = false
	}
	for _, message := range messages {
		all := p.Explain(message)
		if len(all) > 1 {
			fmt.Fprintf(out, "\nthe line holds %d metrics, each with the tags of the line\n", len(all))
		}
		for i := range all {
			writeExplanation(out, &all[i])
			counts = counts && all[i].Why == metric.Accepted
		}
	}

	explainEvents(out, &cfg, events, p, packet)

	// What comes of it is for the agent itself to say: one that sees nothing else.
	guard := &guardWitness{Guard: cardinality.New(cfg.Cardinality, slog.New(slog.DiscardHandler))}
	a := newAggregator(cfg, []aggregator.Describe{p.Describe}, guard, slog.New(slog.DiscardHandler))
	if len(cfg.Rules.Rules) > 0 {
		a.SetRules(explainRules(out, cfg.Rules))
	}
	events.connect(a)
	if file, err := guardFile(cfg); err == nil {
		if err := guard.Load(file); err != nil {
			fmt.Fprintf(out, "\nwhat is folded now is not known: %s: %v\n", file, err)
		}
	}
	in := intake{parser: p, worker: a.Worker(0)}
	in.packet([]byte(packet), false, "")
	in.end()
	stopped, stop := context.WithCancel(context.Background())
	stop()
	batches := make(chan *metric.Batch, 1)
	a.Run(stopped, nil, batches)
	b := <-batches
	stats := a.Stats()
	for why, n := range stats.Refused {
		if n > 0 {
			fmt.Fprintf(out, "\nrefused: %s (docs/TELEMETRY.md says what it means)\n", metric.Reason(why))
			counts = false
		}
	}
	if stats.SampledOut > 0 {
		fmt.Fprintf(out, "\nsampled out, this time: %d of %d\n", stats.SampledOut, stats.Samples)
	}
	if stats.NotFinite > 0 {
		fmt.Fprintln(out, "\nnot sent: the value divided by the sample rate is too large for a number")
		counts = false
	}
	if stats.IgnoredTimes > 0 {
		fmt.Fprintln(out, "\nthe time is ignored: only counters and gauges can have one")
	}
	guard.write(out)
	writeOutcome(out, b, cfg)
	return counts
}

// writeExplanation writes the parts of a line, each under its bytes.
func writeExplanation(out io.Writer, e *parser.Explanation) {
	shown := visible(e.Line)
	fmt.Fprintf(out, "\n%s\n  %s\n", e.What, shown.text)
	for _, part := range e.Parts {
		from, to := shown.columns[part.Start], shown.columns[part.End]
		fmt.Fprintf(out, "  %s%s %s\n", strings.Repeat(" ", from), strings.Repeat("~", max(1, to-from)), part.Meaning)
	}
	if e.Why != metric.Accepted {
		fmt.Fprintf(out, "  %s^\nrejected at byte %d: %s: %s\n", strings.Repeat(" ", shown.columns[e.At]), e.At+1, e.Why, e.Text())
	}
}

// drawing is a line as a terminal shows it.
type drawing struct {
	text    string
	columns []int // by byte of the line, and one for its end
}

// visible writes bytes that do not print as escapes.
func visible(line []byte) drawing {
	var d drawing
	var b strings.Builder
	column := 0
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRune(line[i:])
		piece := string(line[i : i+size])
		if r == utf8.RuneError || r < ' ' || r == 0x7f {
			piece = ""
			for _, c := range line[i : i+size] {
				piece += fmt.Sprintf(`\x%02x`, c)
			}
		}
		for range size {
			d.columns = append(d.columns, column)
		}
		column += utf8.RuneCountInString(piece)
		b.WriteString(piece)
		i += size
	}
	d.columns = append(d.columns, column)
	d.text = b.String()
	return d
}

// writeOutcome writes the contexts of a batch, and the points.
func writeOutcome(out io.Writer, b *metric.Batch, cfg config.Config) {
	if b.Points() == 0 {
		fmt.Fprintln(out, "\nnothing would be sent")
		return
	}
	seen := map[string]bool{}
	context := func(c *metric.Context) {
		if seen[c.Key()] {
			return
		}
		seen[c.Key()] = true
		fmt.Fprintf(out, "\ncontext\n  %s %q, host %q", c.Kind(), c.Name(), c.Host(b.AgentHost))
		if device := c.Device(); device != "" {
			fmt.Fprintf(out, ", device %q", device)
		}
		separator := ", tags "
		for tag := range c.Tags() {
			fmt.Fprintf(out, "%s%q", separator, tag)
			separator = " "
		}
		fmt.Fprintln(out)
	}
	for i := range b.Series {
		context(b.Context(&b.Series[i]))
	}
	for i := range b.Sketches {
		context(b.Sketches[i].Context)
	}
	fmt.Fprintf(out, "\nthe next flush would send, if nothing else came in its %v\n", cfg.Aggregator.FlushInterval)
	for text := range strings.Lines(string(forwarder.AppendText(nil, b))) {
		fmt.Fprintf(out, "  %s", text)
	}
}

// guardWitness notes what a guard is asked.
type guardWitness struct {
	*cardinality.Guard
	met []string
}

// Meet notes which limits and folds a candidate meets.
func (w *guardWitness) Meet(c *metric.Candidate) (folded, undecided bool) {
	w.met = append(w.met, w.Explain(c)...)
	return w.Guard.Meet(c)
}

func (w *guardWitness) write(out io.Writer) {
	if len(w.met) == 0 {
		return
	}
	fmt.Fprintln(out, "\ncardinality guards")
	for _, line := range w.met {
		fmt.Fprintf(out, "  %s\n", line)
	}
}
