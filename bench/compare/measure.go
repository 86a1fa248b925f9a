//go:build linux

package main

import (
	"fmt"
	"math"
	"time"
)

// scenario is traffic with two rates.
type scenario struct {
	Name     string
	Title    string
	packet   int
	contexts int
	mix      bool
	gentle   float64 // a second: datagrams if they hold a metric each, else metrics
	first    float64 // datagrams a second to begin the search with
}

var scenarios = []scenario{
	{Name: "one", Title: "one metric a datagram, 1 thousand contexts, counters", contexts: 1000, gentle: 20_000, first: 60_000},
	{Name: "packed", Title: "packed to 1,432 bytes, 1 thousand contexts, counters", packet: 1432, contexts: 1000, gentle: 100_000, first: 12_000},
	{Name: "mix", Title: "the mix of kinds, 10 thousand contexts, packed to 1,432 bytes", packet: 1432, contexts: 10_000, mix: true, gentle: 100_000, first: 12_000},
}

// traffic returns what a server gets in a scenario.
func (sc scenario) traffic(s *server, tags int) traffic {
	t := traffic{packet: sc.packet, contexts: sc.contexts, tags: tags, kinds: "counters"}
	if sc.mix {
		t.kinds = "mix"
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
	Highest  float64 `json:"highest_datagrams_per_second"` // without loss
	AtLeast  bool    `json:"limited_by_the_sender"`
	Metrics  float64 `json:"highest_metrics_per_second"`
	Near     []run   `json:"near"`
	Gentle   []run   `json:"gentle"`
}

// run is a window of traffic.
type run struct {
	NanosPerMetric float64 `json:"cpu_ns_per_metric"`
	Metrics        float64 `json:"metrics_per_second"`
	Lost           float64 `json:"lost"` // the part of datagrams
	Behind         float64 `json:"behind"`
}

func nanos(runs []run) []float64 {
	var all []float64
	for _, r := range runs {
		all = append(all, r.NanosPerMetric)
	}
	return all
}

// bench is what measuring needs.
type bench struct {
	load     string
	window   time.Duration
	trial    time.Duration
	attempts int
	say      func(format string, values ...any)
	books    []book
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
	s, err := prepare(b.load, i.port, t, rate, !perDatagram, b.window-settle, 0)
	if err != nil {
		return run{}, err
	}
	drops := i.dropped()
	before, err := cpuTime(i.pid())
	if err != nil {
		return run{}, err
	}
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
	lost := float64(i.dropped()-drops) / float64(report.Datagrams)
	return run{
		NanosPerMetric: float64((after - before).Nanoseconds()) / (float64(report.Metrics) * (1 - lost)),
		Metrics:        report.MetricsPerSecond,
		Lost:           lost,
		Behind:         report.Behind / report.Seconds,
	}, nil
}

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
func (b *bench) search(s *server, sc scenario, tags int, c *cell) error {
	t := sc.traffic(s, tags)
	i, err := s.start(sc.contexts, false)
	if err != nil {
		return err
	}
	defer func() { i.stop(); i.remove() }()
	perDatagram := 1.0
	much := false // was lost at the last try
	try := func(rate float64, duration time.Duration) (lossless, reached bool, err error) {
		much = true
		for range b.attempts {
			drops := i.dropped()
			report, err := b.trialOf(i, t, rate, duration)
			if err != nil {
				return false, false, err
			}
			perDatagram = float64(report.Metrics) / float64(report.Datagrams)
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
				i.stop()
				i.remove()
				if i, err = s.start(sc.contexts, false); err != nil {
					return false, false, err
				}
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
	for rate := max(low, sc.first/4); rate > sc.first/20; {
		lossless, _, err := try(rate, b.window)
		if err != nil {
			return err
		}
		if lossless {
			break
		}
		c.AtLeast = false
		if rate *= 0.93; much {
			rate *= 0.8 / 0.93
		}
	}
	c.Metrics = c.Highest * perDatagram
	return nil
}

func (b *bench) trialOf(i *instance, t traffic, rate float64, duration time.Duration) (sent, error) {
	s, err := prepare(b.load, i.port, t, rate, false, duration, 0)
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

// throughput measures a server once at both rates. What it costs to meet contexts for
// the first time is before that.
func (b *bench) throughput(s *server, sc scenario, tags int, c *cell) error {
	i, err := s.start(sc.contexts, true)
	if err != nil {
		return err
	}
	defer i.remove()
	defer i.stop()
	t := sc.traffic(s, tags)
	if _, err := b.warm(i, t, c.Highest); err != nil {
		return err
	}
	for _, what := range []struct {
		name        string
		rate        float64
		perDatagram bool
		to          *[]run
	}{
		{"near", near * c.Highest, true, &c.Near},
		{"gentle", sc.gentle, sc.packet == 0, &c.Gentle},
	} {
		r, err := b.measure(i, t, what.rate, what.perDatagram)
		if err != nil {
			return err
		}
		b.say("%s, %d tags, %s, %s: %.0f ns a metric at %.0f metrics/s, lost %.3f %%, the sender behind %.1f %%",
			s.name, tags, sc.Name, what.name, r.NanosPerMetric, r.Metrics, 100*r.Lost, 100*r.Behind)
		*what.to = append(*what.to, r)
	}
	return b.audit(i, sc.Name)
}

// warm sends every context once, gently.
func (b *bench) warm(i *instance, t traffic, highest float64) (sent, error) {
	s, err := prepare(b.load, i.port, t, min(highest/2, 20_000), false, time.Minute, 1)
	if err != nil {
		return sent{}, err
	}
	report, err := b.letGo(i, s)
	i.sockets.waitUntilEmpty(time.Second)
	time.Sleep(settle)
	return report, err
}

// footprint is a server with many contexts.
type footprint struct {
	Server   string  `json:"server"`
	Tags     int     `json:"tags"`
	Contexts int     `json:"contexts"`
	Idle     int64   `json:"idle_bytes"` // resident, before the first metric
	Most     int64   `json:"most_bytes"` // resident, flushes included
	Now      int64   `json:"bytes"`      // resident, in the end
	Rate     float64 `json:"metrics_per_second"`
	Lost     float64 `json:"lost"`
	Seen     watch   `json:"seen"`
	IdleCPU  float64 `json:"idle_cpu"` // of a core, between flushes, with all contexts and no traffic
	Flush    float64 `json:"flush_seconds"`
}

// each returns the bytes a context takes at most.
func (f footprint) each() float64 { return float64(f.Most-f.Idle) / float64(f.Contexts) }

// footprintOf sends counters of so many contexts, at half the highest rate of packed
// datagrams, through at least three flushes.
func (b *bench) footprintOf(s *server, tags, contexts int, highestMetrics float64) (footprint, error) {
	f := footprint{Server: s.name, Tags: tags, Contexts: contexts}
	i, err := s.start(contexts, false)
	if err != nil {
		return f, err
	}
	defer i.remove()
	defer i.stop()
	time.Sleep(time.Second)
	idle, err := i.memory()
	if err != nil {
		return f, err
	}
	t := traffic{packet: 1432, contexts: contexts, tags: tags, kinds: "counters"}
	rate := highestMetrics / 2
	duration := max(3*b.window, time.Duration(2*float64(contexts)/rate*float64(time.Second)))
	if _, err := b.warm(i, t, rate/20); err != nil { // about 20 metrics a datagram
		return f, err
	}
	sending, err := prepare(b.load, i.port, t, rate, true, duration, 0)
	if err != nil {
		return f, err
	}
	drops := i.dropped()
	finish := i.sockets.startWatch()
	report, err := b.letGo(i, sending)
	f.Seen = finish()
	if err != nil {
		return f, err
	}
	time.Sleep(settle)
	m, err := i.memory()
	if err != nil {
		return f, err
	}
	f.Idle, f.Most, f.Now = idle.now, m.most, m.now
	f.Rate, f.Lost = report.MetricsPerSecond, float64(i.dropped()-drops)/float64(report.Datagrams)
	// Flushes are aligned to tens of seconds where they are aligned at all.
	now := time.Now()
	time.Sleep(now.Truncate(10 * time.Second).Add(13 * time.Second).Sub(now))
	before, err := cpuTime(i.pid())
	if err != nil {
		return f, err
	}
	const quiet = 6 * time.Second
	time.Sleep(quiet)
	after, err := cpuTime(i.pid())
	if err != nil {
		return f, err
	}
	f.IdleCPU = (after - before).Seconds() / quiet.Seconds()
	f.Flush = longestFlush(i)
	b.say("%s, %d tags, %d contexts: %.0f bytes each, %d MiB at most; at %.0f metrics/s lost %.3f %%, longest pause %v (unseen %v), idle %.2f %% of a core, flush %.3f s",
		s.name, tags, contexts, f.each(), f.Most>>20, f.Rate, 100*f.Lost, f.Seen.Pause, f.Seen.Unseen, 100*f.IdleCPU, f.Flush)
	return f, b.audit(i, fmt.Sprintf("%d contexts", contexts))
}
