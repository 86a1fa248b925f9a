// Package listener receives datagrams and hands them on.
//
// An address is served by several readers, each with a socket of its own
// (SO_REUSEPORT). On Linux a reader empties its socket with recvmmsg into memory
// it reuses, and then pauses before it looks again: waking up costs several
// times what receiving a datagram does, so each time should be for many. The
// pause adapts to the rate and to what the receive buffer holds. Elsewhere
// gnet's event loops read the sockets.
//
// In: sockets. Out: packets, handed to a Handler with the reader's number. It
// never looks inside a packet and keeps no queue: when the Handler returns, the
// packets are done with.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/weir-agent/weir/metric"
)

// Packet is one datagram. Its bytes are borrowed until the Handler returns.
type Packet struct {
	Data []byte
	Cut  bool // the datagram was longer than max_packet
}

// Handler takes what a reader received. It is called by one goroutine for each
// reader, so calls with different readers are concurrent.
type Handler func(reader int, packets []Packet)

// engine is one way to read sockets.
type engine interface {
	// run reads until stop is closed, then hands on what the sockets still hold (if
	// it can), and closes them.
	run(stop <-chan struct{}, handle Handler) error
	// address is where the sockets are bound.
	address() netip.AddrPort
	// granted is the receive buffer that the kernel gave a socket, in the
	// measure of the configuration; 0 if that is not known.
	granted() int
	// drops returns how many datagrams the kernel has dropped since the sockets
	// were opened, and whether it says.
	drops() (uint64, bool)
	// close closes the sockets of an engine that was never run.
	close() error
}

// Listener owns the sockets and their readers.
type Listener struct {
	cfg     Config
	engine  engine
	readers []readerStats
	log     *slog.Logger
}

// readerStats is written by one reader, and read by anybody.
type readerStats struct {
	datagrams atomic.Uint64
	bytes     atomic.Uint64
	cut       atomic.Uint64
	wakeups   atomic.Uint64
	_         [64]byte // no two readers write to one cache line
}

// New opens the sockets; cfg must have passed Validate.
func New(cfg Config, log *slog.Logger) (*Listener, error) {
	address, err := net.ResolveUDPAddr("udp", cfg.UDP)
	if err != nil {
		return nil, fmt.Errorf("look up the address of listen.udp: %w", err)
	}
	l := &Listener{cfg: cfg, readers: make([]readerStats, cfg.readers()), log: log}
	switch cfg.engine() {
	case EngineGnet:
		l.engine, err = openGnet(cfg, address, l.readers)
	default:
		l.engine, err = openRecvmmsg(cfg, address, l.readers)
	}
	if err != nil {
		return nil, explain(err, address)
	}
	return l, nil
}

// explain says what to do about a socket that did not open.
func explain(err error, address *net.UDPAddr) error {
	what := fmt.Sprintf("listen on udp %v", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: the port is taken (%w); stop the other StatsD server ('ss -ulpn sport = :%d' names it) or set listen.udp to another port", what, err, address.Port)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: no permission (%w); set listen.udp to a port above 1023, or give the binary the capability CAP_NET_BIND_SERVICE", what, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine does not have that address (%w); set listen.udp to one that 'ip address' shows, or to 0.0.0.0:%d for all", what, err, address.Port)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Readers returns how many readers there are; their numbers count from 0.
func (l *Listener) Readers() int { return len(l.readers) }

// Processors returns how many processors of the Go scheduler the readers keep to
// themselves while they pause: GOMAXPROCS should be that much larger.
func (l *Listener) Processors() int {
	if haveRecvmmsg { // gnet's handler pauses in the same way
		return len(l.readers)
	}
	return 0
}

// Address returns where the sockets are bound.
func (l *Listener) Address() netip.AddrPort { return l.engine.address() }

// Run hands packets to handle until ctx is done and the sockets are empty.
func (l *Listener) Run(ctx context.Context, handle Handler) error {
	granted, asked := l.engine.granted(), int(l.cfg.ReceiveBuffer)
	l.log.Info("listening", "network", "udp", "address", l.Address(), "readers", len(l.readers),
		"engine", l.cfg.engine(), "receive_buffer", metric.Bytes(granted))
	if granted > 0 && granted < asked {
		l.log.Warn("the kernel granted a smaller receive buffer; bursts may be dropped",
			"asked", metric.Bytes(asked), "granted", metric.Bytes(granted),
			"remedy", fmt.Sprintf("sysctl -w net.core.rmem_max=%d, or give the binary the capability CAP_NET_ADMIN", asked))
	}
	if _, known := l.engine.drops(); !known {
		l.log.Warn("this system does not say how many datagrams it dropped")
	}
	var warn sync.Once
	return l.engine.run(ctx.Done(), func(reader int, packets []Packet) {
		if cut := l.count(reader, packets); cut != nil {
			warn.Do(func() {
				l.log.Warn("a datagram was cut; its last line is rejected, and so are those of all further ones",
					"max_packet", l.cfg.MaxPacket, "remedy", "raise listen.max_packet or lower the packet size of the client")
			})
		}
		handle(reader, packets)
	})
}

// count keeps the reader's statistics and returns a packet that was cut, if any.
func (l *Listener) count(reader int, packets []Packet) (cut *Packet) {
	stats := &l.readers[reader]
	var bytes, cuts uint64
	for i := range packets {
		bytes += uint64(len(packets[i].Data))
		if packets[i].Cut {
			cut = &packets[i]
			cuts++
		}
	}
	stats.datagrams.Add(uint64(len(packets)))
	stats.bytes.Add(bytes)
	if cuts > 0 {
		stats.cut.Add(cuts)
	}
	return cut
}

// Close closes the sockets if Run was never called.
func (l *Listener) Close() error { return l.engine.close() }

// Stats is a snapshot of what the listener counted.
//
// What clients sent to the sockets is Datagrams + KernelDrops.
type Stats struct {
	Datagrams     uint64
	Bytes         uint64
	Cut           uint64 // datagrams that were longer than max_packet
	Wakeups       uint64 // times a reader went to look for datagrams
	KernelDrops   uint64 // datagrams the kernel had no room for
	DropsKnown    bool   // false: the system does not say
	ReceiveBuffer int    // bytes granted to each socket; 0: not known
}

// Stats returns a snapshot.
func (l *Listener) Stats() Stats {
	s := Stats{ReceiveBuffer: l.engine.granted()}
	s.KernelDrops, s.DropsKnown = l.engine.drops()
	for i := range l.readers {
		r := &l.readers[i]
		s.Datagrams += r.datagrams.Load()
		s.Bytes += r.bytes.Load()
		s.Cut += r.cut.Load()
		s.Wakeups += r.wakeups.Load()
	}
	return s
}

// Readings appends the agent's own metrics about receiving to dst.
func (l *Listener) Readings(dst []metric.Reading) []metric.Reading {
	s := l.Stats()
	for _, total := range []struct {
		name string
		n    uint64
	}{
		{"listener.datagrams", s.Datagrams},
		{"listener.bytes", s.Bytes},
		{"listener.datagrams.cut", s.Cut},
		{"listener.wakeups", s.Wakeups},
	} {
		dst = append(dst, metric.Reading{Name: total.name, Value: float64(total.n)})
	}
	if s.DropsKnown {
		dst = append(dst, metric.Reading{Name: "listener.kernel_drops", Value: float64(s.KernelDrops)})
	}
	return append(dst, metric.Reading{Name: "listener.receive_buffer", Value: float64(s.ReceiveBuffer), Level: true})
}
