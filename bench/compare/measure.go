//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// scenario is what to measure: traffic, and at which rate.
type scenario struct {
	Name     string
	Title    string
	packet   int
	contexts int
	mix      bool
	rate     float64 // a second, datagrams if they hold a metric each, else metrics; 0: near the highest
	first    float64 // datagrams a second to begin the search for the highest with
	idle     bool    // no traffic, once all contexts are known
}

var scenarios = []scenario{
	{Name: "packed", Title: "packed to 1,432 bytes, 1 thousand contexts, counters, near the highest rate", packet: 1432, contexts: 1000, first: 12_000},
	{Name: "mix", Title: "the mix of kinds, 10 thousand contexts, packed to 1,432 bytes, near the highest rate", packet: 1432, contexts: 10_000, mix: true, first: 12_000},
	{Name: "single", Title: "one metric a datagram, 1 thousand contexts, counters, near the highest rate", contexts: 1000, first: 60_000},
	{Name: "gentle-packed", Title: "100 thousand metrics/s, packed to 1,432 bytes, 1 thousand contexts, counters", packet: 1432, contexts: 1000, rate: 100_000},
	{Name: "gentle-single", Title: "20 thousand datagrams/s of one metric, 1 thousand contexts, counters", contexts: 1000, rate: 20_000},
	{Name: "idle", Title: "no traffic, after 1 thousand contexts", packet: 1432, contexts: 1000, idle: true},
}

// footprints is the name of the scenario that has many contexts.
const footprints = "contexts"

// search reports whether the highest rate has to be known.
func (sc scenario) search() bool { return sc.rate == 0 && !sc.idle }

// traffic returns what a server gets in a scenario.
func (sc scenario) traffic(s *server, tags int) traffic {
	t := traffic{packet: sc.packet, contexts: sc.contexts, tags: tags, kinds: "counters"}
	if sc.mix {
		t.kinds = s.kinds
		if tags == 0 {
			t.kinds = "mix-statsd"
		}
	}
	return t
}

// cell is what is known of a server in a scenario.
type cell struct {
	Server   string  `json:"server"`
	Tags     int     `json:"tags"`
	Scenario string  `json:"scenario"`
	Highest  float64 `json:"highest_datagrams_per_second"` // without loss; 0 if it was not searched for
	AtLeast  bool    `json:"limited_by_the_sender"`
	Metrics  float64 `json:"highest_metrics_per_second"`
	Runs     []run   `json:"runs"`
}

// run is a window of traffic, or without.
type run struct {
	CPU            float64 `json:"cpu"`               // of a core
	NanosPerMetric float64 `json:"cpu_ns_per_metric"` // of those that were not lost
	Metrics        float64 `json:"metrics_per_second"`
	Lost           float64 `json:"lost"` // the part of datagrams
	Behind         float64 `json:"behind"`
}

// each collects a figure of all runs.
func each[T any](runs []T, figure func(T) float64) []float64 {
	var all []float64
	for _, r := range runs {
		all = append(all, figure(r))
	}
	return all
}

func nanos(r run) float64 { return r.NanosPerMetric }

// bench is what measuring needs.
type bench struct {
	load       string
	window     time.Duration
	trial      time.Duration
	attempts   int
	serverCPUs *unix.CPUSet // nil: all
	senderCPUs *unix.CPUSet
	ledger     []entry
	ctx        context.Context // ends a search under way
	say        func(format string, values ...any)
}

// letGo lets traffic go to a server and accounts for it.
func (b *bench) letGo(i *instance, s *sending) (sent, error) {
	if err := s.begin(); err != nil {
		return sent{}, err
	}
	report, err := s.end()
	if err != nil {
		return sent{}, err
	}
	i.sent.add(report)
	return report, i.running()
}

// settle is how long a server may take for what is in its own queues.
const settle = 200 * time.Millisecond

// measure sends for a window and returns what a metric cost. The rate is in metrics, or
// in datagrams if perDatagram.
func (b *bench) measure(i *instance, t traffic, rate float64, perDatagram bool) (run, error) {
	s, err := b.prepare(i, t, rate, !perDatagram, b.window-settle, 0)
	if err != nil {
		return run{}, err
	}
	drops := i.dropped()
	before, err := cpuTime(i.pid())
	if err != nil {
		return run{}, err
	}
	begin := time.Now()
	report, err := b.letGo(i, s)
	if err != nil {
		return run{}, err
	}
	i.sockets.waitUntilEmpty(time.Second)
	time.Sleep(settle)
	after, err := cpuTime(i.pid())
	if err != nil {
		return run{}, err
	}
	cpu := (after - before).Seconds() / time.Since(begin).Seconds()
	time.Sleep(i.late)
	lost := float64(i.dropped()-drops) / float64(report.Datagrams)
	return run{
		CPU:            cpu,
		NanosPerMetric: float64((after - before).Nanoseconds()) / (float64(report.Metrics) * (1 - lost)),
		Metrics:        report.MetricsPerSecond,
		Lost:           lost,
		Behind:         report.Behind / report.Seconds,
	}, nil
}

// measureIdle returns what a server takes in a window in which nothing comes.
func (b *bench) measureIdle(i *instance) (run, error) {
	before, err := cpuTime(i.pid())
	if err != nil {
		return run{}, err
	}
	begin := time.Now()
	time.Sleep(b.window)
	after, err := cpuTime(i.pid())
	return run{CPU: (after - before).Seconds() / time.Since(begin).Seconds()}, err
}

// errEnded is a search that did not come to its end.
var errEnded = errors.New("ended early")

const (
	// tooSlow is the part of the wanted rate that the sender has to reach.
	tooSlow = 0.95
	// inVain is how many steps up the sender may fail to reach before it is believed to
	// be at its end, and not only held up.
	inVain = 3
)

// search finds the highest rate in datagrams a second at which nothing is lost: up in
// steps of 1.6 until something is, or the sender can go no faster, then between the last
// two rates three times, each rate tried as often as b.attempts says until one trial
// reaches it and loses nothing; then for a whole window, which has a flush in it, and
// 7 % down until that is lossless, too, or 20 % if more than 1 % was lost.
//
// It returns errEnded if it is told to end.
func (b *bench) search(s *server, sc scenario, tags int, c *cell) error {
	t := sc.traffic(s, tags)
	i, err := b.start(s, sc.contexts, false)
	if err != nil {
		return err
	}
	defer func() { i.stop(); i.remove() }()
	name := "search, " + sc.nameWith(tags)
	perDatagram := 1.0
	much := false // was lost at the last try
	try := func(rate float64, duration time.Duration) (lossless, reached bool, err error) {
		much = true
		for range b.attempts {
			if b.ctx.Err() != nil {
				return false, false, errEnded
			}
			drops := i.dropped()
			report, err := b.trialOf(i, t, rate, duration)
			if err != nil {
				return false, false, err
			}
			perDatagram = float64(report.Metrics) / float64(report.Datagrams)
			time.Sleep(i.late)
			lost := i.dropped() - drops
			b.say("  %s %s: %.0f datagrams/s of %.0f, %d lost", s.name, sc.Name, report.DatagramsPerSecond, rate, lost)
			much = much && lost > report.Datagrams/100
			reached = reached || report.DatagramsPerSecond >= tooSlow*rate
			if lost == 0 {
				c.Highest = max(c.Highest, report.DatagramsPerSecond)
				lossless = true
				if reached {
					break
				}
			}
			if lost > 0 && s.lost != nil { // what it has counted so far would hide what it counts next
				if err := b.audit(i, name); err != nil {
					return false, false, err
				}
				i.remove()
				next, err := b.start(s, sc.contexts, false)
				if err != nil {
					return false, false, err
				}
				i = next
			}
		}
		return lossless, reached, nil
	}
	low, high := 0.0, sc.first
	for missed := 0; ; low, high = high, high*1.6 {
		lossless, reached, err := try(high, b.trial)
		if err != nil {
			return err
		}
		if !lossless {
			break
		}
		if reached {
			missed = 0
		} else if missed++; missed == inVain {
			c.AtLeast = true
			low = c.Highest
			break
		}
	}
	for range 3 {
		if c.AtLeast {
			break
		}
		low = min(max(low, sc.first/4), max(c.Highest, sc.first/4)) // what was sent, not only wanted
		middle := math.Sqrt(low * high)
		lossless, _, err := try(middle, b.trial)
		if err != nil {
			return err
		}
		if lossless {
			low = middle
		} else {
			high = middle
		}
	}
	c.Highest = 0
	lower := false // a whole window has lost
	for rate := max(low, sc.first/4); rate > sc.first/20; {
		lossless, reached, err := try(rate, b.window)
		if err != nil {
			return err
		}
		if lossless {
			c.AtLeast = !lower && (c.AtLeast || !reached)
			break
		}
		lower = true
		if rate *= 0.93; much {
			rate *= 0.8 / 0.93
		}
	}
	c.Metrics = c.Highest * perDatagram
	return b.audit(i, name)
}

// nameWith returns the name of a scenario with so many tags.
func (sc scenario) nameWith(tags int) string { return fmt.Sprintf("%s, %d tags", sc.Name, tags) }

func (b *bench) trialOf(i *instance, t traffic, rate float64, duration time.Duration) (sent, error) {
	s, err := b.prepare(i, t, rate, false, duration, 0)
	if err != nil {
		return sent{}, err
	}
	report, err := b.letGo(i, s)
	i.sockets.waitUntilEmpty(time.Second)
	time.Sleep(settle)
	return report, err
}

// near is how much of the highest rate "near the highest" is.
const near = 0.9

// throughput measures a server once in a scenario. What it costs to meet contexts for
// the first time is before that.
func (b *bench) throughput(s *server, sc scenario, tags int, c *cell) error {
	i, err := b.start(s, sc.contexts, true)
	if err != nil {
		return err
	}
	defer i.remove()
	defer i.stop()
	t := sc.traffic(s, tags)
	if err := b.warm(i, t, c.Highest); err != nil {
		return err
	}
	var r run
	switch {
	case sc.idle:
		r, err = b.measureIdle(i)
	case sc.search():
		r, err = b.measure(i, t, near*c.Highest, true)
	default:
		r, err = b.measure(i, t, sc.rate, sc.packet == 0)
	}
	if err != nil {
		return err
	}
	b.say("%s, %s: %.0f ns a metric at %.0f metrics/s, %.2f %% of a core, lost %.3f %%, the sender behind %.1f %%",
		s.name, sc.nameWith(tags), r.NanosPerMetric, r.Metrics, 100*r.CPU, 100*r.Lost, 100*r.Behind)
	c.Runs = append(c.Runs, r)
	return b.audit(i, sc.nameWith(tags))
}

// gently is how many datagrams a second contexts are made known with.
const gently = 10_000

// warm sends every context once, at half the highest rate at most if that is known.
func (b *bench) warm(i *instance, t traffic, highest float64) error {
	rate := float64(gently)
	if highest > 0 {
		rate = min(rate, highest/2)
	}
	s, err := b.prepare(i, t, rate, false, time.Minute, 1)
	if err != nil {
		return err
	}
	_, err = b.letGo(i, s)
	i.sockets.waitUntilEmpty(time.Second)
	time.Sleep(settle)
	return err
}

// footprint is a server with many contexts.
type footprint struct {
	Server   string       `json:"server"`
	Tags     int          `json:"tags"`
	Contexts int          `json:"contexts"`
	Runs     []footprint1 `json:"runs"`
}

// footprint1 is what one run saw of it.
type footprint1 struct {
	Idle    int64   `json:"idle_bytes"` // resident, before the first metric
	Most    int64   `json:"most_bytes"` // resident, flushes included
	Now     int64   `json:"bytes"`      // resident, in the end
	Rate    float64 `json:"metrics_per_second"`
	Lost    float64 `json:"lost"`
	Seen    watch   `json:"seen"`
	IdleCPU float64 `json:"idle_cpu"` // of a core, between flushes, with all contexts and no traffic
	Flush   float64 `json:"flush_seconds"`
}

// each returns the bytes a context takes at most, by run.
func (f *footprint) each() []float64 {
	return each(f.Runs, func(r footprint1) float64 { return float64(r.Most-r.Idle) / float64(f.Contexts) })
}

// idleFor is for how long a server with many contexts is looked at without traffic; it
// ends before the next flush.
const idleFor = 6 * time.Second

// twoFlushes is a time in which every server flushes twice, whatever the windows are.
const twoFlushes = 21 * time.Second

// measureFootprint sends counters of so many contexts, at half the highest rate of packed
// datagrams, through at least three windows, and two flushes.
func (b *bench) measureFootprint(s *server, f *footprint, highestMetrics float64) error {
	var r footprint1
	i, err := b.start(s, f.Contexts, false)
	if err != nil {
		return err
	}
	defer i.remove()
	defer i.stop()
	time.Sleep(time.Second)
	idle, err := i.memory()
	if err != nil {
		return err
	}
	t := traffic{packet: 1432, contexts: f.Contexts, tags: f.Tags, kinds: "counters"}
	rate := highestMetrics / 2
	duration := max(3*b.window, twoFlushes, time.Duration(2*float64(f.Contexts)/rate*float64(time.Second)))
	if err := b.warm(i, t, rate/20); err != nil { // about 20 metrics a datagram
		return err
	}
	sending, err := b.prepare(i, t, rate, true, duration, 0)
	if err != nil {
		return err
	}
	drops := i.dropped()
	finish := i.sockets.startWatch(b.senderCPUs)
	report, err := b.letGo(i, sending)
	r.Seen = finish()
	if err != nil {
		return err
	}
	time.Sleep(settle + i.late)
	m, err := i.memory()
	if err != nil {
		return err
	}
	r.Idle, r.Most, r.Now = idle.now, m.most, m.now
	r.Rate, r.Lost = report.MetricsPerSecond, float64(i.dropped()-drops)/float64(report.Datagrams)
	// Flushes are aligned to tens of seconds where they are aligned at all.
	now := time.Now()
	time.Sleep(now.Truncate(10 * time.Second).Add(13 * time.Second).Sub(now))
	before, err := cpuTime(i.pid())
	if err != nil {
		return err
	}
	time.Sleep(idleFor)
	after, err := cpuTime(i.pid())
	if err != nil {
		return err
	}
	r.IdleCPU = (after - before).Seconds() / idleFor.Seconds()
	what := fmt.Sprintf("%d contexts, %d tags", f.Contexts, f.Tags)
	err = b.audit(i, what)
	if i.flush != nil {
		r.Flush = i.flush(i)
	}
	f.Runs = append(f.Runs, r)
	b.say("%s, %s: %.0f bytes each, %d MiB at most; at %.0f metrics/s lost %.3f %%, longest pause %v, %d longer than %v (unseen %v), idle %.2f %% of a core, flush %.3f s",
		s.name, what, float64(r.Most-r.Idle)/float64(f.Contexts), r.Most>>20, r.Rate, 100*r.Lost, r.Seen.Pause, r.Seen.Long, longPause, r.Seen.Unseen, 100*r.IdleCPU, r.Flush)
	return err
}
