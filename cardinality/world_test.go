package cardinality_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// world is an aggregator with a guard, on a clock that goes forward only while a test
// waits.
type world struct {
	t          *testing.T
	guard      *cardinality.Guard
	aggregator *aggregator.Aggregator
	config     aggregator.Config
	parser     *parser.Parser
	batches    chan *metric.Batch
	log        lockedBuffer
	lines      metric.Lines
	end        func()

	sent map[string]float64 // sum of each counter
	got  map[string]float64
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const (
	interval = 10 * time.Second
	readers  = 2
)

// inWorld runs a test in a world of its own; change may change the configuration.
func inWorld(t *testing.T, change func(*cardinality.Config), test func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		cfg := cardinality.DefaultConfig()
		cfg.MaxContextsPerMetric = 1000
		if change != nil {
			change(&cfg)
		}
		w := newWorld(t, cfg, "")
		defer w.checkTotals()
		defer w.stop()
		test(w)
	})
}

func newWorld(t *testing.T, cfg cardinality.Config, file string) *world {
	w := &world{t: t, batches: make(chan *metric.Batch), sent: map[string]float64{}, got: map[string]float64{}}
	log := slog.New(slog.NewTextHandler(&w.log, nil))
	w.parser = parser.New(parser.DefaultConfig())
	agg := aggregator.DefaultConfig()
	agg.Hostname = "agent"
	agg.MaxContexts = cfg.MaxContexts
	w.config = agg
	w.guard = cardinality.New(cfg, log)
	if file != "" {
		w.guard.Open(file)
	}
	w.aggregator = aggregator.New(agg, slices.Repeat([]aggregator.Describe{w.parser.Describe}, readers), log)
	w.aggregator.SetGuard(w.guard)
	var ctx context.Context
	ctx, w.end = context.WithCancel(context.Background())
	go func() {
		w.aggregator.Run(ctx, nil, w.batches)
		close(w.batches)
	}()
	return w
}

// send adds lines to the open interval.
func (w *world) send(lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		w.lines.Reset()
		w.parser.Packet([]byte(line), false, &w.lines)
		if name, rest, _ := strings.Cut(line, ":"); strings.Contains(rest, "|c") {
			for i := range w.lines.Samples {
				w.sent[name] += w.lines.Samples[i].Value
			}
		}
		w.aggregator.Worker(0).Add(&w.lines)
	}
}

// sendN sends n lines made by format, which has the place of a number.
func (w *world) sendN(n int, line func(i int) string) {
	for i := range n {
		w.send(line(i))
	}
}

// flush waits for the end of the interval and returns what it made.
func (w *world) flush() *metric.Batch {
	b := <-w.batches
	w.count(b)
	return b
}

func (w *world) count(b *metric.Batch) {
	for i := range b.Series {
		if s := &b.Series[i]; s.Type == metric.Rate && s.Suffix == 0 {
			w.got[b.Context(s).Name()] += math.Round(s.Value * interval.Seconds())
		}
	}
}

// stop ends the agent and counts the interval that was open.
func (w *world) stop() {
	w.end()
	for b := range w.batches {
		w.count(b)
	}
}

// checkTotals fails the test unless all counts that were sent came out.
func (w *world) checkTotals() {
	w.t.Helper()
	for name, sent := range w.sent {
		if refused := w.aggregator.Stats().Refused; w.got[name] != sent && refused[metric.MetricLimit]+refused[metric.ContextLimit] == 0 {
			w.t.Errorf("%s: %v came out, want %v", name, w.got[name], sent)
		}
	}
}

// series returns the tags of a metric's series in a batch, sorted.
func series(b *metric.Batch, name string) (all []string) {
	add := func(c *metric.Context) {
		if c.Name() == name {
			all = append(all, strings.Join(slices.Collect(c.Tags()), ","))
		}
	}
	for i := range b.Series {
		if b.Series[i].Suffix == 0 || b.Series[i].Suffix == metric.AggregateSuffix("count") {
			add(b.Context(&b.Series[i]))
		}
	}
	for i := range b.Sketches {
		add(b.Sketches[i].Context)
	}
	slices.Sort(all)
	return all
}

// logged returns how often a text is in the log.
func (w *world) logged(text string) int { return strings.Count(w.log.String(), text) }

// decisions returns the events of decisions in a batch: "fold user_id".
func decisions(b *metric.Batch) (all []string) {
	for _, e := range b.Events {
		decision, key := "", ""
		for _, tag := range e.Tags {
			if v, ok := strings.CutPrefix(tag, "decision:"); ok {
				decision = v
			}
			if v, ok := strings.CutPrefix(tag, "tag_key:"); ok {
				key = " " + v
			}
		}
		all = append(all, decision+key)
	}
	return all
}

var serial int

// uuid returns a value that was never there before.
func uuid() string {
	serial++
	return fmt.Sprintf("%08x-9a7e-4c1d-8000-%012x", serial*2654435761, serial)
}
