// Package forwarder delivers batches to their destinations.
//
// Every destination has a queue and goroutines of its own, so that one that is
// slow or dead costs the others nothing, and nobody ever waits for it: what a
// full queue has no room for is dropped, counted by reason and logged.
//
//	batches ─▶ filter ─▶ logs:    queue ─▶ encode, write, rotate
//	       ├─▶ filter ─▶ datadog: queue ─▶ encode, compress ─▶ payloads ─▶ endpoint: send, retry, spool
//	       └─▶ filter ─▶ relay:   queue ─▶ packets ─▶ send, retry
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
	"strconv"
	"sync"
	"time"

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
	destinations []destination
	filters      []*filter // by destination; none: everything goes everywhere
	orphans      *orphans  // nil: there are none
	timeout      time.Duration
	log          *slog.Logger
}

// New opens the destinations; cfg must have been resolved and have passed
// Validate. agent names the program and its version to destinations, as in
// "weir/1.2.3".
func New(cfg Config, agent string, log *slog.Logger) (*Forwarder, error) {
	f := &Forwarder{timeout: cfg.ShutdownTimeout, log: log}
	named := map[string]int{}
	spools := newSpools(&cfg, os.Getenv, log)
	for _, d := range cfg.Forwarders {
		name := d.Type
		if named[d.Type]++; named[d.Type] > 1 {
			name += "." + strconv.Itoa(named[d.Type])
		}
		var opened destination
		var err error
		switch d.Type {
		case TypeLogs:
			opened, err = openLogs(d, name, log)
		case TypeDatadog:
			opened, err = openDatadog(&d, name, agent, cfg.ShutdownTimeout, spools, log)
		case TypeDogStatsD:
			opened = openDogStatsD(d, name, log)
		case TypeStatsD:
			opened = openStatsD(d, name, log)
		case TypeDiscard:
			opened = &sink{label: name}
		default:
			panic("BUG: Validate let a forwarder of type " + d.Type + " pass")
		}
		if err != nil {
			f.close()
			return nil, fmt.Errorf("open forwarder %s: %w", name, err)
		}
		f.destinations = append(f.destinations, opened)
		f.filters = append(f.filters, newFilter(&d))
	}
	f.orphans = spools.orphans()
	return f, nil
}

// close gives back what was opened and never ran.
func (f *Forwarder) close() {
	for _, d := range f.destinations {
		if d, ok := d.(*datadog); ok {
			d.close()
		}
	}
}

// Run delivers batches until the channel is closed, then whatever is still
// waiting, for at most the shutdown timeout. It never blocks the sender.
func (f *Forwarder) Run(batches <-chan *metric.Batch) {
	ctx, giveUp := context.WithCancel(context.Background())
	var running, tidying sync.WaitGroup
	defer tidying.Wait()
	defer giveUp()
	if f.orphans != nil {
		tidying.Go(func() { f.orphans.run(ctx) })
	}
	queues := make([]chan *metric.Batch, len(f.destinations))
	for i, d := range f.destinations {
		queues[i] = make(chan *metric.Batch, batchesWaiting)
		running.Go(func() { d.run(ctx, queues[i]) })
	}
	for b := range batches {
		for i, d := range f.destinations {
			part := b
			if i < len(f.filters) {
				part = f.filters[i].apply(b)
			}
			points := part.Points()
			if points == 0 {
				continue
			}
			for _, account := range d.books() {
				account.produced(points)
			}
			select {
			case queues[i] <- part:
			default:
				for _, account := range d.books() {
					account.dropped(points, DroppedQueueFull)
				}
				f.log.Error("dropped a batch: the destination is too slow",
					"forwarder", d.name(), "points", points, "interval", b.Start)
			}
		}
	}
	for _, queue := range queues {
		close(queue)
	}
	timer := time.AfterFunc(f.timeout, giveUp)
	defer timer.Stop()
	running.Wait()
}
