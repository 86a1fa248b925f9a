// Package forwarder delivers batches to their destinations.
//
// Every destination has a queue and goroutines of its own, so that one that is
// slow or dead costs the others nothing, and nobody ever waits for it: what a
// full queue has no room for is dropped, counted by reason and logged.
//
//	batches ─▶ filter ─▶ logs:    queue ─▶ encode, write, rotate
//	       ├─▶ filter ─▶ datadog: queue ─▶ encode, compress ─▶ payloads ─▶ endpoint: send, retry, spool
//	       └─▶ filter ─▶ relay:   queue ─▶ packets ─▶ payloads ─▶ endpoint: the same
//
// In: Batches. Out: lines of a log, payloads of Datadog's intake, packets for other
// servers of DogStatsD and StatsD. It never changes a point, and forgets none
// without a count.
package forwarder

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// batchesWaiting is how many batches a destination may be behind.
const batchesWaiting = 2

// destination is where batches go.
type destination interface {
	// name tells it from the others: "logs", "datadog", "datadog.2".
	name() string
	// run delivers the batches until the channel is closed and everything is
	// delivered, or ctx is done. What is left then it drops.
	run(ctx context.Context, batches <-chan *metric.Batch)
	// books keep count of the points, of each place they go to.
	books() []*books
}

// Forwarder owns the destinations.
type Forwarder struct {
	agent string
	log   *slog.Logger

	mu           sync.Mutex // guards the fields below
	cfg          Config
	timeout      time.Duration
	destinations []destination
	filters      []*filter // by destination; none: everything goes everywhere
	outlets      []*outlet // by destination, once Run has begun
	orphans      *orphans  // nil: there are none
	spools       *spools   // as they were when they were last asked for

	// What reloads have removed.
	leaving []*outlet         // still has something to deliver
	retired []*books          // one for each name
	heirs   map[string]*books // by name of a folder: in whose books the points in a spool are that nobody has open

	ctx     context.Context // of everything that runs; nil before Run
	working sync.WaitGroup  // destinations
	tidying sync.WaitGroup  // orphans, and the books of what was removed
	stopped bool            // no batches will come

	began   chan struct{} // closed when Run has begun
	folders sync.Mutex    // held while it changes who has which spool; taken before mu
}

// outlet is a destination that runs.
type outlet struct {
	destination
	queue  chan *metric.Batch
	giveUp context.CancelFunc
	ended  chan struct{}
	gone   chan struct{} // closed after that, if it was removed: its books are kept elsewhere
}

// New opens the destinations; cfg must have been resolved and have passed
// Validate. agent names the program and its version to destinations, as in
// "weir/1.2.3".
func New(cfg Config, agent string, log *slog.Logger) (*Forwarder, error) {
	f := &Forwarder{agent: agent, cfg: cfg, timeout: cfg.ShutdownTimeout, log: log, heirs: map[string]*books{}, began: make(chan struct{})}
	spools := newSpools(&cfg, os.Getenv, log)
	f.spools = spools
	for i := range cfg.Forwarders {
		d := &cfg.Forwarders[i]
		opened, err := f.open(d, f.freeName(d.Type, f.destinations), &cfg, spools)
		if err != nil {
			f.close()
			return nil, err
		}
		f.destinations = append(f.destinations, opened)
		f.filters = append(f.filters, newFilter(d))
		if err := openSpools(opened, spools); err != nil {
			spools.warn(err)
		}
	}
	f.orphans = spools.orphans()
	return f, nil
}

// freeName returns the name for a further destination of a type.
func (f *Forwarder) freeName(kind string, others []destination) string {
	name := kind
	for n := 2; slices.ContainsFunc(others, func(d destination) bool { return d.name() == name }); n++ {
		name = kind + "." + strconv.Itoa(n)
	}
	return name
}

// open opens a destination, but for its spools.
func (f *Forwarder) open(d *DestinationConfig, name string, cfg *Config, spools *spools) (opened destination, err error) {
	switch d.Type {
	case TypeLogs:
		opened, err = openLogs(*d, name, f.log)
	case TypeDatadog:
		opened, err = openDatadog(d, name, f.agent, cfg.ShutdownTimeout, spools, f.log)
	case TypeDogStatsD:
		opened = openDogStatsD(d, name, cfg.ShutdownTimeout, spools, f.log)
	case TypeStatsD:
		opened = openStatsD(d, name, cfg.ShutdownTimeout, f.log)
	case TypeDiscard:
		opened = &sink{label: name}
	default:
		panic("BUG: Validate let a forwarder of type " + d.Type + " pass")
	}
	if err != nil {
		return nil, fmt.Errorf("open forwarder %s: %w", name, err)
	}
	return opened, nil
}

// close gives back what was opened and never ran.
func (f *Forwarder) close() { closeAll(f.destinations) }

func closeAll(never []destination) {
	for _, d := range never {
		if d, ok := d.(interface{ close() }); ok {
			d.close()
		}
	}
}

// Run delivers batches until the channel is closed, then whatever is still
// waiting, for at most the shutdown timeout. It never blocks the sender.
func (f *Forwarder) Run(batches <-chan *metric.Batch) {
	ctx, giveUp := context.WithCancel(context.Background())
	defer f.tidying.Wait()
	defer giveUp()
	f.mu.Lock()
	f.ctx = ctx
	if f.orphans != nil {
		f.tidying.Go(func() { f.orphans.run(ctx) })
	}
	for _, d := range f.destinations {
		f.outlets = append(f.outlets, f.start(d, batchesWaiting, func() {}))
	}
	f.mu.Unlock()
	if f.began != nil {
		close(f.began)
	}
	for b := range batches {
		f.hand(b)
	}
	f.mu.Lock()
	f.stopped = true
	for _, o := range f.outlets {
		close(o.queue)
	}
	timer := time.AfterFunc(f.timeout, giveUp)
	f.mu.Unlock()
	defer timer.Stop()
	f.working.Wait()
}

// start lets a destination run, once begin has returned.
func (f *Forwarder) start(d destination, waiting int, begin func()) *outlet {
	ctx, giveUp := context.WithCancel(f.ctx)
	o := &outlet{destination: d, queue: make(chan *metric.Batch, waiting), giveUp: giveUp, ended: make(chan struct{}), gone: make(chan struct{})}
	f.working.Go(func() {
		defer close(o.ended)
		defer giveUp()
		begin()
		priority.Lower() // it encodes and compresses
		d.run(ctx, o.queue)
	})
	return o
}

// hand gives a batch to all destinations. What is whose is found before the first of them
// begins: Go has as many processors beside the readers' as there are, and if more want one,
// its scheduler, which knows no priorities, lets a reader wait 10 ms for each.
func (f *Forwarder) hand(b *metric.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	parts := make([]*metric.Batch, len(f.outlets))
	for i := range parts {
		parts[i] = b
		if i < len(f.filters) {
			parts[i] = f.filters[i].apply(b)
		}
	}
	for i, o := range f.outlets {
		part := parts[i]
		points := part.Points()
		if points == 0 {
			continue
		}
		for _, account := range o.books() {
			account.produced(points)
		}
		select {
		case o.queue <- part:
		default:
			for _, account := range o.books() {
				account.dropped(points, DroppedQueueFull)
			}
			f.log.Error("dropped a batch: the destination is too slow",
				"forwarder", o.name(), "points", points, "interval", b.Start)
		}
	}
}
