// Package aggregator turns samples into points, one Batch an interval.
//
// Each reader has a Worker, which only that reader writes: it finds the place of
// a sample's values by a hash of the sample's raw bytes and adds them. At the end
// of an interval the flusher swaps every worker's columns for empty ones, merges
// what the workers saw, and sends a Batch.
//
//	raw identity ──hash──▶ ref ──▶ value in a column      known: that is all
//	                        │
//	                        └ unknown: describe, sort and dedupe tags,
//	                          find or make the context, remember the ref
//
// The semantics are the Datadog Agent's: counters become rates and are sent as
// zero for a while after they stop, gauges keep the last value, sets count
// distinct members, histograms and timers become their aggregates, distributions
// become sketches. Points with a time of their own, events and service checks are
// handed on as they are.
//
// In: Lines, by Worker.Add. Out: Batches, from Run. It never sends or formats,
// and no sample survives its packet here.
package aggregator

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Describe reads what a sample says apart from its values, or says why its line
// is rejected. It must not keep the sample's bytes.
type Describe func(*metric.Sample, *metric.Identity) metric.Reason

// Treat applies the rules to an identity: it changes the identity in place and says
// what else becomes of its samples. What it puts into the identity may be backed by
// the identity's own memory. It is called by one worker.
type Treat func(*metric.Identity, *metric.Treatment)

// Aggregator owns the workers, the contexts and the flusher.
type Aggregator struct {
	started  time.Time // what gauges are ordered by: it does not jump
	log      *slog.Logger
	hasher   *hasher
	contexts *contexts
	workers  []*Worker
	flusher  *flusher
	examples exampleLimiter
	guard    Guard   // nil: the limit of the whole agent is all there is
	dropped  Dropped // nil: nobody knows

	turn sync.Mutex // held for a flush, and for a change of the configuration; guards cfg
	cfg  Config
}

// New returns an idle Aggregator with a worker for each of describe, which is called
// by that worker's reader; cfg must have passed Validate.
func New(cfg Config, describe []Describe, log *slog.Logger) *Aggregator {
	h := newHasher()
	a := &Aggregator{
		cfg:      cfg,
		started:  time.Now(),
		log:      log,
		hasher:   h,
		contexts: newContexts(cfg.MaxContexts, len(describe), h),
	}
	p := newPolicy(&cfg)
	for i, d := range describe {
		a.workers = append(a.workers, newWorker(a, i, d, p))
	}
	a.flusher = newFlusher(a, p)
	return a
}

// SetRules lets each worker treat identities by a Treat of its own, before the first
// sample comes. Without it they are taken as they are.
func (a *Aggregator) SetRules(newTreat func() Treat) {
	for _, w := range a.workers {
		w.mu.Lock()
		w.treat = newTreat()
		w.mu.Unlock()
	}
}

// SetGuard lets a guard decide which contexts are made, before the first sample comes.
func (a *Aggregator) SetGuard(guard Guard) {
	a.guard = guard
	guard.SetMembers(a.contexts.members)
}

// Worker returns the worker of a reader.
func (a *Aggregator) Worker(reader int) *Worker { return a.workers[reader] }

// Readings appends weir's own measurements, of all rooms, to dst.
type Readings func(dst []metric.Reading) []metric.Reading

// Run flushes at the end of every interval, aligned to the wall clock, and sends
// the batch. When ctx is done it flushes the open interval and returns. own is
// asked at each flush for the agent's own measurements, which become points of
// the batch; it may be nil.
//
// Whoever receives from batches must do so promptly: a flush waits for it.
func (a *Aggregator) Run(ctx context.Context, own Readings, batches chan<- *metric.Batch) {
	clock := newClock(a.flusher.interval, time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(time.Until(clock.end()))
		select {
		case <-ctx.Done():
			batches <- a.flush(&clock, own)
			return
		case <-timer.C:
		}
		now := time.Now()
		if now.Before(clock.end()) && !clock.farBehind(now) {
			continue // the wall clock was set back a little while the timer ran
		}
		batches <- a.flush(&clock, own)
		if skipped := clock.next(now); skipped {
			a.log.Warn("the clock jumped, or the machine slept", "interval", clock.start)
		}
		a.adoptInterval(&clock)
	}
}

// Flush ends the interval that began at start now, and returns what it made: for
// replays, which have a clock of their own. It is no use beside Run.
func (a *Aggregator) Flush(start time.Time) *metric.Batch { return a.flusher.flush(start, nil) }

// flush ends the open interval.
func (a *Aggregator) flush(c *clock, own Readings) *metric.Batch {
	a.turn.Lock()
	defer a.turn.Unlock()
	a.flusher.length = c.length()
	return a.flusher.flush(c.start, own)
}

// example logs a rejected line, one a second at most, if anybody wants to see
// it.
func (a *Aggregator) example(why metric.Reason, line []byte) {
	if !a.log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	swallowed, ok := a.examples.allow(time.Now())
	if !ok {
		return
	}
	const longest = 200
	a.log.Debug("rejected a line", "reason", why, "line", string(line[:min(len(line), longest)]),
		"bytes", len(line), "unlogged", swallowed)
}

// exampleLimiter lets one event a second through and counts the others.
type exampleLimiter struct {
	mu        sync.Mutex
	last      time.Time
	swallowed uint64
}

func (l *exampleLimiter) allow(now time.Time) (swallowed uint64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.last) < time.Second {
		l.swallowed++
		return 0, false
	}
	swallowed, l.swallowed, l.last = l.swallowed, 0, now
	return swallowed, true
}
