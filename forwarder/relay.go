package forwarder

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/weir-agent/weir/metric"
)

const (
	firstRelayBackoff = 100 * time.Millisecond
	maxRelayBackoff   = 5 * time.Second

	// A UDP server's receive buffer is mostly 208 KiB, which this many packets fit
	// into; after them there is a pause in which it may read.
	packetsInABurst = 32
	burstPause      = time.Millisecond
)

// The sizes of packets, unless configured: what an Ethernet frame holds, and what
// servers of DogStatsD read at once.
const (
	packetForUDP    = 1432
	packetForOthers = 8192
)

// packetEncoder makes packets of batches. It is used by one goroutine.
type packetEncoder interface {
	// pack hands the packets of a batch to send, in order, each with the number of
	// points that end in it, until there are no more or send returns false. A packet
	// is whole lines and borrowed. What there can be no line for goes to drop.
	pack(b *metric.Batch, send func(packet []byte, points uint64) bool, drop func(points uint64, why DropReason))
	close()
}

// relay sends points on to a server of DogStatsD or StatsD.
type relay struct {
	label   string
	account books
	link    link
	log     *slog.Logger
	burst   int // packets since the last pause

	// open returns the encoder; it may start goroutines that its close ends.
	open func() packetEncoder
}

func newRelay(cfg *DestinationConfig, name string, log *slog.Logger) *relay {
	r := &relay{label: name, log: log.With("forwarder", name)}
	r.link.timeout = writeTimeout
	r.link.network, r.link.address = splitRelayAddress(cfg.Address)
	return r
}

// packetBytes is how large packets may be.
func (r *relay) packetBytes(cfg *DestinationConfig) int {
	switch {
	case cfg.MaxPacket > 0:
		return int(cfg.MaxPacket)
	case r.link.network == overUDP:
		return packetForUDP
	}
	return packetForOthers
}

func (r *relay) name() string    { return r.label }
func (r *relay) books() []*books { return []*books{&r.account} }

func (r *relay) run(ctx context.Context, batches <-chan *metric.Batch) {
	stop := context.AfterFunc(ctx, r.link.interrupt)
	defer stop()
	encoder := r.open()
	for b := range batches {
		if ctx.Err() == nil {
			r.deliver(ctx, encoder, b)
		}
	}
	encoder.close()
	r.link.hangUp()
	r.account.abandon()
}

// deliver sends a batch. If the server cannot be reached for about an interval,
// what is left of the batch is dropped: the next one is there by then.
func (r *relay) deliver(ctx context.Context, encoder packetEncoder, b *metric.Batch) {
	left := b.Points()
	until := time.Now().Add(b.Interval - b.Interval/10)
	r.link.refresh(ctx)
	encoder.pack(b, func(packet []byte, points uint64) bool {
		if err := r.send(ctx, packet, until); err != nil {
			if ctx.Err() != nil {
				return false // run writes off what is left
			}
			r.account.dropped(left, DroppedUnreachable)
			r.log.Error("dropped points: the server cannot be reached", "address", r.link.address, "points", left, "interval", b.Start, "error", err)
			return false
		}
		left -= points
		r.account.delivered(points, len(packet))
		return true
	}, func(points uint64, why DropReason) {
		left -= points
		r.account.dropped(points, why)
	})
}

// send sends a packet, and tries again until that time has come.
func (r *relay) send(ctx context.Context, packet []byte, until time.Time) error {
	for backoff := firstRelayBackoff; ; backoff = min(2*backoff, maxRelayBackoff) {
		sent, err := r.link.write(ctx, packet)
		if err == nil {
			r.pace(ctx)
			return nil
		}
		packet = packet[sent:]
		left := time.Until(until)
		if left <= 0 || ctx.Err() != nil {
			return err
		}
		if backoff == firstRelayBackoff {
			r.log.Warn("sending failed; trying again", "address", r.link.address, "error", err)
		}
		r.account.retried()
		// Half of it is chance, so that not all agents come back at once.
		if err := pause(ctx, min(backoff/2+rand.N(backoff/2), left)); err != nil {
			return err
		}
	}
}

// pace keeps UDP from coming faster than a server reads.
func (r *relay) pace(ctx context.Context) {
	if r.burst++; r.link.network == overUDP && r.burst >= packetsInABurst {
		r.burst = 0
		_ = pause(ctx, burstPause) // the packet was sent, whatever becomes of the pause
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
