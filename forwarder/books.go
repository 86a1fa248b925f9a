package forwarder

import (
	"fmt"
	"slices"
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
	DroppedRemoved                       // a reload took the destination away
	dropReasons
)

// String returns the reason's name.
func (r DropReason) String() string {
	return [dropReasons]string{"queue_full", "too_large", "rejected", "too_old", "shutdown", "write_error", "unreachable", "unsupported", "spool_full", "spool_error", "removed"}[r]
}

// MarshalText is String, for encoders.
func (r DropReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// books are the accounts of one place that points go to: in every snapshot
// produced + restored = delivered + queued + spooled + handed over + dropped.
type books struct {
	status func(*DestinationStats) // fills in what else there is to know; nil: nothing

	mu     sync.Mutex
	s      DestinationStats
	closed bool // nothing more is counted: what was queued then is dropped already
	leaves bool // the agent goes on without the destination
}

// DestinationStats is a snapshot of one destination's accounts, in points.
type DestinationStats struct {
	Name      string
	Produced  uint64
	Restored  uint64 // found in the spool when it was opened
	Delivered uint64
	Queued    uint64 // in memory
	Spooled   uint64 // on disk, or read from there and not yet delivered
	Dropped   [dropReasons]uint64

	HandedOver uint64 // on disk, and in the books of another destination since a reload

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

// String says the books in words:
//
//	120 points + 30 found on disk = 100 delivered + 5 in memory + 38 on disk + 7 dropped (5 too_old, 2 rejected)
func (s *DestinationStats) String() string {
	text := fmt.Appendf(nil, "%d points", s.Produced)
	if s.Restored > 0 {
		text = fmt.Appendf(text, " + %d found on disk", s.Restored)
	}
	text = fmt.Appendf(text, " = %d delivered", s.Delivered)
	if s.Queued > 0 {
		text = fmt.Appendf(text, " + %d in memory", s.Queued)
	}
	if s.Spooled > 0 {
		text = fmt.Appendf(text, " + %d on disk", s.Spooled)
	}
	if s.HandedOver > 0 {
		text = fmt.Appendf(text, " + %d handed over", s.HandedOver)
	}
	text = fmt.Appendf(text, " + %d dropped", s.DroppedInAll())
	separator := " ("
	for why, n := range s.Dropped {
		if n > 0 {
			text = fmt.Appendf(text, "%s%d %v", separator, n, DropReason(why))
			separator = ", "
		}
	}
	if separator == ", " {
		text = append(text, ')')
	}
	return string(text)
}

// LostSince reports whether points were lost since an earlier snapshot that with more
// time, room or luck would have been delivered. Those that no destination of that kind
// would have taken do not count.
func (s *DestinationStats) LostSince(before *DestinationStats) bool {
	for _, why := range [...]DropReason{DroppedShutdown, DroppedUnreachable, DroppedQueueFull, DroppedSpoolFull, DroppedSpoolError, DroppedRemoved} {
		if s.Dropped[why] > before.Dropped[why] {
			return true
		}
	}
	return false
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

// handedOver says that another destination has found points on disk that were in these
// books. A nil b has none.
func (b *books) handedOver(points uint64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	points = min(points, b.s.Spooled)
	b.s.Spooled -= points
	b.s.HandedOver += points
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

// add adds the accounts of a destination that had the name before. What there is to
// know besides them is left out.
func (s *DestinationStats) add(before *DestinationStats) {
	s.Produced += before.Produced
	s.Restored += before.Restored
	s.Delivered += before.Delivered
	s.Queued += before.Queued
	s.Spooled += before.Spooled
	s.HandedOver += before.HandedOver
	for why, n := range before.Dropped {
		s.Dropped[why] += n
	}
	s.Payloads += before.Payloads
	s.Bytes += before.Bytes
	s.Retries += before.Retries
	s.SpoolBytes += before.SpoolBytes
	s.SpoolErrors += before.SpoolErrors
	s.SpoolQuarantined += before.SpoolQuarantined
}

// Stats returns a snapshot of the accounts of each place that points go to. Those of
// destinations that a reload removed are part of them: added to those of the one that
// has the name now, if there is any.
func (f *Forwarder) Stats() []DestinationStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []DestinationStats
	place := func(account *books, d destination, gone bool) {
		s := account.snapshot()
		if s.Name == "" && d != nil {
			s.Name = d.name()
		}
		if at := slices.IndexFunc(all, func(other DestinationStats) bool { return other.Name == s.Name }); gone && at >= 0 {
			all[at].add(&s)
			return
		}
		s.Endpoint = s.Endpoint && !gone
		all = append(all, s)
	}
	for _, d := range f.destinations {
		for _, account := range d.books() {
			place(account, d, false)
		}
	}
	for _, o := range f.leaving {
		for _, account := range o.books() {
			place(account, o, true)
		}
	}
	for _, account := range f.retired {
		place(account, nil, true)
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
		total("points.handed_over", s.HandedOver)
		level("points.spooled", float64(s.Spooled))
		level("spool.bytes", float64(s.SpoolBytes))
		total("spool.errors", s.SpoolErrors)
		total("spool.quarantined", s.SpoolQuarantined)
	}
	return dst
}

// leave says that the agent goes on without the destination.
func (b *books) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leaves = true
}

// abandon drops everything that is still queued because the destination stops.
func (b *books) abandon() {
	b.mu.Lock()
	defer b.mu.Unlock()
	why := DroppedShutdown
	if b.leaves {
		why = DroppedRemoved
	}
	b.s.Dropped[why] += b.s.Queued
	b.s.Queued = 0
	b.closed = true
}
