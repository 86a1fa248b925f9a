package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

const (
	// seriesPerSketch is how many custom metrics Datadog counts for a context of a
	// distribution without percentiles: its average, count, maximum, minimum and sum.
	seriesPerSketch = 5
	// rowsShown is how many metrics a comparison shows unless it is to show all.
	rowsShown = 40
	// decisionsShown is how many decisions of the guard a comparison shows.
	decisionsShown = 100
)

// comparison is what two configurations make of the same lines.
type comparison struct {
	lines         uint64
	before, after *replay
	price         float64 // of 100 custom metrics a month
}

// replay takes lines through rules, guards and aggregation, as run does, and counts
// what would be sent.
type replay struct {
	aggregator *aggregator.Aggregator
	intake     intake
	metrics    map[string]*footprint // by name
	decisions  []metric.Event        // of the guard
	stats      aggregator.Stats
}

// footprint is the distinct contexts and series of a metric.
type footprint struct {
	contexts map[string]struct{} // keys
	series   int
	seen     map[string]struct{} // keys and suffixes
}

// compare replays the lines of a capture, once without rules and guards and once with
// cfg. The lines are taken to have come evenly over the given time.
func compare(capture string, cfg config.Config, over time.Duration) (*comparison, error) {
	file, err := os.Open(capture)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a folder; give a file of lines", capture)
	}

	bare := cfg
	bare.Rules.Rules = nil
	bare.Cardinality = cardinality.DefaultConfig()
	bare.Cardinality.Overflow = metric.OverflowObserve
	bare.Cardinality.MaxContexts = 1 << 26 // beyond any capture
	bare.Aggregator.MaxContexts = bare.Cardinality.MaxContexts
	c := &comparison{before: newReplay(bare), after: newReplay(cfg), price: cfg.Cardinality.Cost.Per100MetricsMonth}
	for _, r := range []*replay{c.before, c.after} { // each knows which event it has seen
		events, err := rehearse(&cfg)
		if err != nil {
			return nil, err
		}
		defer events.close()
		events.connect(r.aggregator)
	}

	interval := cfg.Aggregator.FlushInterval
	intervals := max(int64(over/interval), 1)
	start := time.Now().UTC().Truncate(interval)
	lines := bufio.NewReaderSize(file, int(cfg.Listen.MaxPacket))
	var read, due int64 = 0, 1
	for err == nil {
		var line []byte
		var cut bool
		line, cut, err = nextLine(lines, &read)
		if len(line) > 0 {
			c.lines++
			c.before.intake.packet(line, cut, "")
			c.before.intake.end() // the next line takes its place in memory
			c.after.intake.packet(line, cut, "")
			c.after.intake.end()
		}
		for ; due < intervals && read >= info.Size()*due/intervals; due++ {
			c.flush(start)
			start = start.Add(interval)
		}
	}
	c.flush(start)
	c.before.stats, c.after.stats = c.before.aggregator.Stats(), c.after.aggregator.Stats()
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", capture, err)
	}
	return c, nil
}

// nextLine returns the next line without its end, as much of it as the reader's buffer
// holds: cut says that there was more.
func nextLine(r *bufio.Reader, read *int64) (line []byte, cut bool, err error) {
	line, err = r.ReadSlice('\n')
	*read += int64(len(line))
	if errors.Is(err, bufio.ErrBufferFull) {
		kept := slices.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			var rest []byte
			rest, err = r.ReadSlice('\n')
			*read += int64(len(rest))
		}
		return kept, true, err
	}
	return []byte(strings.TrimRight(string(line), "\r\n")), false, err
}

func newReplay(cfg config.Config) *replay {
	log := slog.New(slog.DiscardHandler)
	p := parser.New(cfg.Parser)
	a := newAggregator(cfg, []aggregator.Describe{p.Describe}, cardinality.New(cfg.Cardinality, log), log)
	return &replay{aggregator: a, intake: intake{parser: p, worker: a.Worker(0)}, metrics: map[string]*footprint{}}
}

func (c *comparison) flush(start time.Time) {
	c.before.flush(start)
	c.after.flush(start)
}

func (r *replay) flush(start time.Time) {
	b := r.aggregator.Flush(start)
	for i := range b.Series {
		s := &b.Series[i]
		k := b.Context(s)
		r.footprint(k).add(k.Key(), s.Suffix.String(), 1)
	}
	for i := range b.Sketches {
		k := b.Sketches[i].Context
		r.footprint(k).add(k.Key(), "", seriesPerSketch)
	}
	for _, e := range b.Events {
		if strings.HasPrefix(e.AggregationKey, guardEvents) && len(r.decisions) < decisionsShown {
			r.decisions = append(r.decisions, e)
		}
	}
}

// guardEvents is what the keys of the guard's events begin with.
const guardEvents = "weir.cardinality"

func (r *replay) footprint(c *metric.Context) *footprint {
	f := r.metrics[c.Name()]
	if f == nil {
		f = &footprint{contexts: map[string]struct{}{}, seen: map[string]struct{}{}}
		r.metrics[c.Name()] = f
	}
	return f
}

func (f *footprint) add(key, suffix string, series int) {
	f.contexts[key] = struct{}{}
	if suffix != "" {
		key += "\x00" + suffix
	}
	if _, known := f.seen[key]; !known {
		f.seen[key] = struct{}{}
		f.series += series
	}
}

// counts are the contexts and series of a metric, or of all.
type counts struct{ contexts, series int }

func (r *replay) counts(name string) counts {
	f := r.metrics[name]
	if f == nil {
		return counts{}
	}
	return counts{len(f.contexts), f.series}
}

// write tells of the comparison; with all, of every metric.
func (c *comparison) write(out io.Writer, capture string, all bool) error {
	type row struct {
		name          string
		before, after counts
	}
	names := map[string]bool{}
	for name := range c.before.metrics {
		names[name] = true
	}
	for name := range c.after.metrics {
		names[name] = true
	}
	var rows []row
	var before, after counts
	for name := range maps.Keys(names) {
		r := row{name, c.before.counts(name), c.after.counts(name)}
		rows = append(rows, r)
		before.contexts, before.series = before.contexts+r.before.contexts, before.series+r.before.series
		after.contexts, after.series = after.contexts+r.after.contexts, after.series+r.after.series
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(
			cmp.Compare(max(b.before.series-b.after.series, b.after.series-b.before.series), max(a.before.series-a.after.series, a.after.series-a.before.series)),
			cmp.Compare(b.before.series, a.before.series), cmp.Compare(a.name, b.name))
	})

	fmt.Fprintf(out, "%s: %d lines, %d rejected\n\n", capture, c.lines, rejected(c.before.stats))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "contexts\tafter\tseries\tafter\tcost a month\tafter\t  metric")
	line := func(name string, before, after counts) {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%.2f\t%.2f\t  %s\n", before.contexts, after.contexts, before.series, after.series, c.cost(before), c.cost(after), name)
	}
	for i, r := range rows {
		if i == rowsShown && !all {
			fmt.Fprintf(w, "\t\t\t\t\t\t  (%d more; --all shows them)\n", len(rows)-i)
			break
		}
		line(r.name, r.before, r.after)
	}
	line("all of them", before, after)
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nBefore is the same lines without rules and guards. Costs assume %.2f a month for 100 series (cardinality.cost), and every hour to be like the capture.\n", c.price)

	s := c.after.stats
	fmt.Fprintf(out, "Samples: %d, of which %d sampled out\n", s.Samples, s.SampledOut)
	for why, n := range s.Refused {
		if n > 0 {
			fmt.Fprintf(out, "Refused: %d (%s)\n", n, metric.Reason(why))
		}
	}
	for _, e := range c.after.decisions {
		fmt.Fprintf(out, "%s\n  %s\n", e.Title, e.Text)
	}
	return nil
}

func (c *comparison) cost(n counts) float64 { return float64(n.series) / 100 * c.price }

func rejected(s aggregator.Stats) (n uint64) {
	for _, by := range s.Rejected {
		n += by
	}
	return n
}
