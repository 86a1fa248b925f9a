package forwarder

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/weir-agent/weir/metric"
)

const (
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
	// pack hands the packets of a batch to emit, in order, each with the number of
	// points that end in it and whether all of them say their own time. A packet is
	// whole lines and borrowed. What there can be no line for goes to drop.
	pack(b *metric.Batch, emit func(packet []byte, points uint64, timed bool), drop func(points uint64, why DropReason))
	close()
}

// Whether points say their own time. What does may come late.
const (
	timed   = true
	untimed = false
)

// What packets go by. Those without a time would be counted in the interval in which they
// come, so they are worth something for an interval, and in the order of their making.
var (
	timedRoute   = route{path: "packets/timed"}
	untimedRoute = route{path: "packets/untimed", inOrder: true}
)

// payloadOfPackets is about how many bytes of packets go together through the endpoint.
const payloadOfPackets = 64 << 10

// relay sends points on to a server of DogStatsD or StatsD. Some packets at a time
// become the body of a payload, each as
//
//	length (uvarint), points that end in it (uvarint), packet
//
// and the endpoint delivers it.
type relay struct {
	label    string
	endpoint *endpoint
	address  string // with the network
	link     link
	log      *slog.Logger
	burst    int // packets since the last pause

	// write is link.write, but in tests.
	write func(ctx context.Context, packet []byte) (sent int, err error)
	// open returns the encoder; it may start goroutines that its close ends.
	open func() packetEncoder
}

func newRelay(cfg *DestinationConfig, name string, shutdown time.Duration, log *slog.Logger) *relay {
	r := &relay{label: name}
	r.link.timeout = writeTimeout
	r.link.network, r.link.address = splitRelayAddress(cfg.Address)
	r.address = r.link.network + "://" + r.link.address
	r.write = r.link.write
	account := &books{}
	account.s.Name, account.s.Endpoint = name, true
	e := newEndpoint(name, account, log.With("address", r.link.address))
	e.post, e.hasten, e.senders = r.post, shutdown/4*3, 1
	e.quick()
	account.status = e.status
	r.endpoint, r.log = e, e.log
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
func (r *relay) books() []*books { return []*books{r.endpoint.account} }
func (r *relay) close()          { r.endpoint.closeSpool() }

func (r *relay) run(ctx context.Context, batches <-chan *metric.Batch) {
	var running sync.WaitGroup
	running.Go(func() { r.endpoint.run(ctx) })
	encoder := r.open()
	for b := range batches {
		if ctx.Err() == nil {
			r.pack(encoder, b)
		}
	}
	encoder.close()
	r.endpoint.finish()
	running.Wait()
	r.link.hangUp()
	r.endpoint.account.abandon()
}

// pack hands the packets of a batch to the endpoint. What has no time is dropped after
// about an interval: the next one is there by then.
func (r *relay) pack(encoder packetEncoder, b *metric.Batch) {
	with := payload{route: &timedRoute, start: b.Start}
	without := payload{route: &untimedRoute, start: b.Start}
	until := time.Now().Add(b.Interval - b.Interval/10)
	seal := func(p *payload) {
		if len(p.body) == 0 {
			return
		}
		if p.route == &untimedRoute {
			r.endpoint.addUntil(*p, until)
		} else {
			r.endpoint.add(*p)
		}
		p.body, p.points = nil, 0
	}
	encoder.pack(b, func(packet []byte, points uint64, timed bool) {
		p := &without
		if timed {
			p = &with
		}
		if len(p.body)+len(packet) > payloadOfPackets {
			seal(p)
		}
		p.body = appendPacket(p.body, packet, points)
		p.points += points
	}, r.endpoint.account.dropped)
	seal(&with)
	seal(&without)
}

func appendPacket(body, packet []byte, points uint64) []byte {
	body = binary.AppendUvarint(body, uint64(len(packet)))
	body = binary.AppendUvarint(body, points)
	return append(body, packet...)
}

// cutPacket returns the first packet of a body and what is behind it; ok is false if
// there is none.
func cutPacket(body []byte) (packet []byte, points uint64, rest []byte, ok bool) {
	length, n := binary.Uvarint(body)
	if n <= 0 {
		return nil, 0, nil, false
	}
	points, m := binary.Uvarint(body[n:])
	if m <= 0 {
		return nil, 0, nil, false
	}
	rest = body[n+m:]
	if length == 0 || length > uint64(len(rest)) {
		return nil, 0, nil, false
	}
	return rest[:length], points, rest[length:], true
}

// errNoPackets is of a payload that another program has written.
var errNoPackets = &refusedError{status: http.StatusBadRequest, answer: "this is not how packets are kept"}

// post sends the packets of a payload. It returns a *partError if the server has taken
// some of them.
func (r *relay) post(ctx context.Context, p *payload) error {
	stop := context.AfterFunc(ctx, r.link.interrupt)
	defer stop()
	r.link.refresh(ctx)
	part := partError{rest: p.body}
	for len(part.rest) > 0 {
		packet, points, behind, ok := cutPacket(part.rest)
		if part.err = errNoPackets; ok {
			var sent int
			sent, part.err = r.write(ctx, packet)
			part.bytes += sent
			if part.err != nil && sent > 0 {
				part.rest = append(appendPacket(nil, packet[sent:], points), behind...)
			}
		}
		if part.err != nil {
			if part.bytes == 0 {
				return part.err
			}
			return &part
		}
		part.rest, part.points = behind, part.points+points
		r.pace(ctx)
	}
	return nil
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
