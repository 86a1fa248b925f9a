package aggregator

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// overloaded is an aggregator whose sockets drop what they are told to.
type overloaded struct {
	*Aggregator
	parser *parser.Parser
	drops  []uint64 // by reader
	log    bytes.Buffer
}

func newOverloaded(cfg Config, lines parser.Config, readers int) *overloaded {
	o := &overloaded{parser: parser.New(lines), drops: make([]uint64, readers)}
	describe := make([]Describe, readers)
	for i := range describe {
		describe[i] = o.parser.Describe
	}
	o.Aggregator = New(cfg, describe, slog.New(slog.NewTextHandler(&o.log, nil)))
	o.SetDropped(func(reader int) uint64 { return o.drops[reader] })
	return o
}

// send sends datagrams to a reader.
func (o *overloaded) send(reader int, datagrams ...string) {
	var lines metric.Lines
	for _, d := range datagrams {
		lines.Packets++
		o.parser.Packet([]byte(d), false, &lines)
	}
	o.Worker(reader).Add(&lines)
}

// flushed returns the points of an interval by name.
func (o *overloaded) flushed() (values map[string]float64, sketches map[string]metric.Sketch) {
	b := o.flusher.flush(time.Unix(0, 0), nil)
	values, sketches = map[string]float64{}, map[string]metric.Sketch{}
	for i := range b.Series {
		s := &b.Series[i]
		name := b.Context(s).Name() + s.Suffix.String()
		values[name] = s.Value
		if s.Type == metric.Rate {
			values[name] *= b.Interval.Seconds()
		}
	}
	for _, p := range b.Sketches {
		sketches[p.Context.Name()] = p.Sketch
	}
	return values, sketches
}

func compensating() Config {
	cfg := DefaultConfig()
	cfg.Overload.Compensate = true
	cfg.Histogram = HistogramConfig{Aggregates: []string{"count", "sum", "avg", "max"}, Percentiles: []float64{0.5}}
	return cfg
}

// What came counts for what was dropped at the same socket, too: as much of each kind as
// has a weight.
func TestDroppedDatagramsAreCompensated(t *testing.T) {
	everything := "count:1|c\ncount:1|c|@0.5\nload:7|g\nusers:a|s\nusers:b|s\nsize:4|h\nsize:8|h|@0.5\ntime:10|d\ntime:20|d|@0.25\nold:5|c|T1460"
	for name, test := range map[string]struct {
		compensate bool
		factor     float64
	}{"on": {true, 2.5}, "off": {false, 1}} {
		t.Run(name, func(t *testing.T) {
			cfg := compensating()
			cfg.Overload.Compensate = test.compensate
			o := newOverloaded(cfg, parser.DefaultConfig(), 1)
			o.send(0, everything, everything)
			o.drops[0] = 3
			got, sketches := o.flushed()
			want := map[string]float64{
				"count": 6 * test.factor, "load": 7, "users": 2, "old": 5, // the last of two points
				"size.count": 6 * test.factor, "size.sum": 40 * test.factor, "size.avg": 40.0 / 6, "size.max": 8, "size.50percentile": 8,
			}
			for name, value := range want {
				if math.Abs(got[name]-value) > 1e-9 {
					t.Errorf("%s = %v, want %v", name, got[name], value)
				}
			}
			s := sketches["time"]
			if float64(s.Count) != 10*test.factor || s.Sum != 180*test.factor || s.Min != 10 || s.Max != 20 {
				t.Errorf("%+v", s)
			}
			var inBins uint32
			for _, n := range s.Counts {
				inBins += n
			}
			if int64(inBins) != s.Count {
				t.Errorf("%d events in the bins, and %d in all", inBins, s.Count)
			}
			// Told either way, once.
			told := fmt.Sprintf("dropped=3 received=2 compensated=%v factor=%v ", test.compensate, test.factor)
			if n := strings.Count(o.log.String(), told); n != 1 {
				t.Errorf("%q is %d times in the log:\n%s", told, n, o.log.String())
			}
			stats := o.Stats()
			if (stats.Compensated == 3) != test.compensate || stats.Factor != test.factor {
				t.Errorf("%d compensated, factor %v", stats.Compensated, stats.Factor)
			}
			// The next interval is as it would be, and the one after it on its own.
			o.send(0, everything)
			if got, _ := o.flushed(); got["count"] != 3 || got["size.sum"] != 20 {
				t.Errorf("afterwards: %v", got)
			}
			if strings.Count(o.log.String(), "dropped datagrams") != 1 || o.Stats().Factor != 1 {
				t.Errorf("afterwards: factor %v; log:\n%s", o.Stats().Factor, o.log.String())
			}
			o.send(0, everything)
			o.drops[0]++
			factor := 1.0
			if test.compensate {
				factor = 2
			}
			if got, _ := o.flushed(); got["count"] != 3*factor || o.Stats().Factor != factor {
				t.Errorf("another one: count = %v, factor %v; want factor %v", got["count"], o.Stats().Factor, factor)
			}
		})
	}
}

// Each worker's samples stand for what its own socket lost.
func TestOneSocketIsOverloaded(t *testing.T) {
	o := newOverloaded(compensating(), parser.DefaultConfig(), 3)
	o.send(0, "a:1|c\nt:1|ms")
	o.send(1, "a:1|c\nt:1|ms")
	o.drops[1] = 9
	o.drops[2] = 5 // of which nothing came through: what that was, nobody knows yet
	if got, _ := o.flushed(); got["a"] != 11 || got["t.count"] != 11 || got["t.sum"] != 11 {
		t.Errorf("%v", got)
	}
	o.send(2, "a:1|c")
	if got, _ := o.flushed(); got["a"] != 6 {
		t.Errorf("what comes later stands for nothing that was dropped before: %v", got)
	}
	if n := o.Stats().Compensated; n != 14 {
		t.Errorf("%d datagrams compensated, want 14", n)
	}
}

// A classic timer's events are more, and its times what they are.
func TestClassicTimersAreCompensated(t *testing.T) {
	o := newOverloaded(compensating(), parser.Config{Dialect: "statsd"}.Or(parser.DefaultConfig()), 1)
	o.send(0, "t:10|ms", "t:30|ms|@0.5", "g:5|g", "g:+1|g")
	o.drops[0] = 4
	got, _ := o.flushed()
	for name, want := range map[string]float64{"t.count": 6, "t.sum": 40, "t.avg": 20, "t.50percentile": 10, "g": 6} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
}

// Samples that were folded into bins, and events beyond what bins hold, are scaled like
// all others.
func TestManySamplesAreCompensated(t *testing.T) {
	o := newOverloaded(compensating(), parser.DefaultConfig(), 1)
	const n = 3 * maxKeptSamples
	for i := range n {
		o.send(0, fmt.Sprintf("h:%d|h\nd:%d|d", i%100+1, i%100+1))
	}
	o.send(0, "big:1|d|@0.000000001862645149230957")
	o.drops[0] = (n + 1) / 2
	factor := 1 + float64(o.drops[0])/(n+1)
	got, sketches := o.flushed()
	sum := 0.0
	for i := range n {
		sum += float64(i%100+1) * factor
	}
	if events := n * factor; math.Abs(got["h.count"]-events) > 1e-6*events || math.Abs(got["h.sum"]-sum) > 1e-6*sum || got["h.max"] != 100 {
		t.Errorf("%v", got)
	}
	if s := sketches["d"]; s.Count != int64(math.Round(n*factor)) {
		t.Errorf("%d events, want %v", s.Count, n*factor)
	}
	if s := sketches["big"]; s.Count != int64(math.Round(float64(1<<29)*factor)) || o.Stats().ClippedSamples != uint64(s.Count)-maxSketchCount {
		t.Errorf("%d events, %d clipped", s.Count, o.Stats().ClippedSamples)
	}
}

// Over many runs in which the kernel drops whatever it likes, the means of what comes
// out are those of what was sent, within three standard errors.
func TestCompensationIsUnbiased(t *testing.T) {
	const runs, datagrams, share = 400, 300, 0.6
	var sums, counts []float64
	var sent, events float64
	for run := range runs {
		random := rand.New(rand.NewPCG(uint64(run), 8))
		o := newOverloaded(compensating(), parser.DefaultConfig(), 1)
		sent, events = 0, 0
		for i := range datagrams {
			value := i % 17
			sent += float64(value)
			events++
			if random.Float64() < share {
				o.send(0, fmt.Sprintf("a:%d|c\nb:%d|d", value, value))
			} else {
				o.drops[0]++
			}
		}
		got, sketches := o.flushed()
		sums = append(sums, got["a"])
		counts = append(counts, float64(sketches["b"].Count))
	}
	mean, err := meanOf(sums)
	if math.Abs(mean-sent) > 3*err {
		t.Errorf("the mean of sums is %v ± %v, and %v was sent", mean, err, sent)
	}
	if mean, _ := meanOf(counts); mean != events {
		t.Errorf("%v events in the mean, and %v were sent", mean, events)
	}
}

// meanOf returns the mean of values and its standard error.
func meanOf(values []float64) (mean, err float64) {
	for _, v := range values {
		mean += v / float64(len(values))
	}
	var squares float64
	for _, v := range values {
		squares += (v - mean) * (v - mean)
	}
	n := float64(len(values))
	return mean, math.Sqrt(squares / (n - 1) / n)
}

// TestReadersHearOfAFlush: during a flush, readers stay away from their sockets for shorter.
func TestReadersHearOfAFlush(t *testing.T) {
	a := newForTest(DefaultConfig(), 1)
	heard := false
	a.flusher.flush(a.started, func(r []metric.Reading) []metric.Reading {
		heard = priority.Busy()
		return r
	})
	if !heard {
		t.Error("there seemed to be no work during a flush")
	}
	if priority.Busy() {
		t.Error("it never ended")
	}
}
