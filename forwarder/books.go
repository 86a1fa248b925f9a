package forwarder

import (
	"sync"

	"github.com/weir-agent/weir/metric"
)

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
	DroppedSpoolFull                     // there was no room for it in memory and the spool
	DroppedSpoolError                    // the spool failed
	dropReasons
)

// String returns the reason's name.
func (r DropReason) String() string {
	return [dropReasons]string{"queue_full", "too_large", "rejected", "too_old", "shutdown", "write_error", "unreachable", "unsupported", "spool_full", "spool_error"}[r]
}

// MarshalText is String, for encoders.
func (r DropReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// books are the accounts of one place that points go to: in every snapshot
// produced + restored = delivered + queued + spooled + dropped.
type books struct {
	status func(*DestinationStats) // fills in what else there is to know; nil: nothing

	mu     sync.Mutex
	s      DestinationStats
	closed bool // nothing more is counted: what was queued then is dropped already
}

// DestinationStats is a snapshot of one destination's accounts, in points.
type DestinationStats struct {
	Name      string
	Produced  uint64
	Restored  uint64 // found in the spool at the start
	Delivered uint64
	Queued    uint64 // in memory
	Spooled   uint64 // on disk, or read from there and not yet delivered
	Dropped   [dropReasons]uint64

	Payloads uint64 // delivered
	Bytes    uint64 // delivered, as compressed
	Retries  uint64 // attempts after the first

	Endpoint bool // what is sent there over the network has a state of health
	Healthy  bool // the last requests did well

	Spools           bool   // what cannot be sent goes to disk
	SpoolBytes       uint64 // on disk
	SpoolErrors      uint64 // files that could not be written, removed or read
	SpoolQuarantined uint64 // files that were damaged, or not the spool's
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

// spooled says that points are on disk now, or about to be; unspooled takes it back.
func (b *books) spooled(points uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Queued -= points
	b.s.Spooled += points
}

func (b *books) unspooled(points uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Queued += points
	b.s.Spooled -= points
}

// restored says that points were found on disk.
func (b *books) restored(points uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Restored += points
	b.s.Spooled += points
}

func (b *books) deliveredSpooled(points uint64, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Spooled -= points
	b.s.Delivered += points
	b.s.Payloads++
	b.s.Bytes += uint64(bytes)
}

func (b *books) droppedSpooled(points uint64, why DropReason) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Spooled -= points
	b.s.Dropped[why] += points
}

func (b *books) retried() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.s.Retries++
}

func (b *books) snapshot() DestinationStats {
	b.mu.Lock()
	s := b.s
	b.mu.Unlock()
	if b.status != nil {
		b.status(&s)
	}
	return s
}

// Stats returns a snapshot of the accounts of each place that points go to.
func (f *Forwarder) Stats() []DestinationStats {
	var all []DestinationStats
	for _, d := range f.destinations {
		for _, account := range d.books() {
			s := account.snapshot()
			if s.Name == "" {
				s.Name = d.name()
			}
			all = append(all, s)
		}
	}
	if f.orphans != nil {
		all = append(all, f.orphans.account.snapshot())
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
		level := func(name string, value float64) {
			dst = append(dst, metric.Reading{Name: "forwarder." + name, Tags: []string{tag}, Value: value, Level: true})
		}
		level("points.queued", float64(s.Queued))
		if s.Endpoint {
			healthy := 0.0
			if s.Healthy {
				healthy = 1
			}
			level("healthy", healthy)
		}
		if !s.Spools {
			continue
		}
		total("points.restored", s.Restored)
		level("points.spooled", float64(s.Spooled))
		level("spool.bytes", float64(s.SpoolBytes))
		total("spool.errors", s.SpoolErrors)
		total("spool.quarantined", s.SpoolQuarantined)
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
