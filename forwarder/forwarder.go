// Package forwarder delivers batches to their destinations.
//
// Every destination has a queue and goroutines of its own, so that one that is
// slow or dead costs the others nothing, and nobody ever waits for it: what a
// full queue has no room for is dropped, counted by reason and logged.
//
//	batches ─▶ filter ─▶ logs:    queue ─▶ encode, write, rotate
//	       ├─▶ filter ─▶ datadog: queue ─▶ encode, compress ─▶ payloads ─▶ send, retry
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
	// books keeps count of the points.
	books() *books
}

// Forwarder owns the destinations.
type Forwarder struct {
	destinations []destination
	filters      []*filter // by destination; none: everything goes everywhere
	timeout      time.Duration
	log          *slog.Logger
}

// New opens the destinations; cfg must have been resolved and have passed
// Validate. agent names the program and its version to destinations, as in
// "weir/1.2.3".
func New(cfg Config, agent string, log *slog.Logger) (*Forwarder, error) {
	f := &Forwarder{timeout: cfg.ShutdownTimeout, log: log}
	named := map[string]int{}
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
			opened, err = openDatadog(d, name, agent, log)
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
			return nil, fmt.Errorf("open forwarder %s: %w", name, err)
		}
		f.destinations = append(f.destinations, opened)
		f.filters = append(f.filters, newFilter(&d))
	}
	return f, nil
}

// Run delivers batches until the channel is closed, then whatever is still
// waiting, for at most the shutdown timeout. It never blocks the sender.
func (f *Forwarder) Run(batches <-chan *metric.Batch) {
	ctx, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	var running sync.WaitGroup
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
			d.books().produced(points)
			select {
			case queues[i] <- part:
			default:
				d.books().dropped(points, DroppedQueueFull)
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

// DropReason says why points were not delivered.
type DropReason uint8

// The reasons. Their names are values of the tag "reason" on weir's own metrics.
const (
	DroppedQueueFull   DropReason = iota // the destination was too far behind
	DroppedTooLarge                      // one item alone exceeds what the intake takes
	DroppedRejected                      // the intake will never take it
	DroppedTooOld                        // it was tried for longer than the intake takes points that old
	DroppedShutdown                      // the agent stopped
	DroppedWrite                         // the file or stream could not be written
	DroppedUnreachable                   // a relay's server could not be reached for an interval
	DroppedUnsupported                   // the destination's protocol has no words for it
	dropReasons
)

// String returns the reason's name.
func (r DropReason) String() string {
	return [dropReasons]string{"queue_full", "too_large", "rejected", "too_old", "shutdown", "write_error", "unreachable", "unsupported"}[r]
}

// MarshalText is String, for encoders.
func (r DropReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// books are the accounts of one destination: in every snapshot
// produced = delivered + queued + dropped.
type books struct {
	mu     sync.Mutex
	s      DestinationStats
	closed bool // nothing more is counted: what was queued then is dropped already
}

// DestinationStats is a snapshot of one destination's accounts, in points.
type DestinationStats struct {
	Name      string
	Produced  uint64
	Delivered uint64
	Queued    uint64
	Dropped   [dropReasons]uint64

	Payloads uint64 // delivered
	Bytes    uint64 // delivered, as compressed
	Retries  uint64 // attempts after the first
}

// DroppedInAll returns the points dropped for whatever reason.
func (s *DestinationStats) DroppedInAll() (n uint64) {
	for _, dropped := range s.Dropped {
		n += dropped
	}
	return n
}

func (b *books) produced(points uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Produced += points
	b.s.Queued += points
}

func (b *books) delivered(points uint64, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.s.Queued -= points
	b.s.Delivered += points
	b.s.Payloads++
	b.s.Bytes += uint64(bytes)
}

func (b *books) dropped(points uint64, why DropReason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.s.Queued -= points
	b.s.Dropped[why] += points
}

func (b *books) retried() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Retries++
}

func (b *books) snapshot() DestinationStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.s
}

// Stats returns a snapshot of each destination's accounts.
func (f *Forwarder) Stats() []DestinationStats {
	var all []DestinationStats
	for _, d := range f.destinations {
		s := d.books().snapshot()
		s.Name = d.name()
		all = append(all, s)
	}
	return all
}

// Readings appends the agent's own metrics about delivery to dst.
func (f *Forwarder) Readings(dst []metric.Reading) []metric.Reading {
	for _, s := range f.Stats() {
		tag := "forwarder:" + s.Name
		total := func(name string, n uint64, tags ...string) {
			dst = append(dst, metric.Reading{Name: "forwarder." + name, Tags: append([]string{tag}, tags...), Value: float64(n)})
		}
		total("points", s.Produced)
		total("points.delivered", s.Delivered)
		for why, n := range s.Dropped {
			total("points.dropped", n, "reason:"+DropReason(why).String())
		}
		total("payloads", s.Payloads)
		total("bytes", s.Bytes)
		total("retries", s.Retries)
		dst = append(dst, metric.Reading{Name: "forwarder.points.queued", Tags: []string{tag}, Value: float64(s.Queued), Level: true})
	}
	return dst
}

// abandon drops everything that is still queued because the agent stops.
func (b *books) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Dropped[DroppedShutdown] += b.s.Queued
	b.s.Queued = 0
	b.closed = true
}
