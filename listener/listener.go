// Package listener receives datagrams and streams and hands on what is in them.
//
// A UDP address is served by several readers, each with a socket of its own
// (SO_REUSEPORT). On Linux a reader empties its socket with recvmmsg into memory
// it reuses, and then pauses before it looks again: waking up costs several
// times what receiving a datagram does, so each time should be for many. The
// pause adapts to the rate and to what the receive buffer holds. Elsewhere
// gnet's event loops read the sockets. A Unix datagram socket is read in the same
// way, by one reader. The connections to a TCP or Unix stream socket are spread
// over gnet's event loops, each of which is a reader.
//
// TCP carries lines. A Unix stream carries packets, each behind its length in 4
// bytes, little-endian, as DogStatsD clients send them; a connection that begins
// with text carries lines, as StatsD clients send them.
//
// In: sockets. Out: packets, handed to a Handler with the reader's number. It
// never looks inside a packet but for the newlines that end lines, and keeps no
// queue: when the Handler returns, the packets are done with.
package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/weir-agent/weir/metric"
)

// Packet is one datagram, one frame, or whole lines of a stream. Its bytes are
// borrowed until the Handler returns.
type Packet struct {
	Data   []byte
	Cut    bool   // it was longer than max_packet
	Sender string // id of the container it came from; "" if that is not known
}

// Handler takes what a reader received. It is called by one goroutine for each
// reader, so calls with different readers are concurrent.
type Handler func(reader int, packets []Packet)

// ReaderInfo says what a reader reads. All but the address is as in the
// configuration; a port of 0 is the one the system chose.
type ReaderInfo struct {
	Network  string
	Address  string
	Dialect  string // "": the agent's
	TagStyle string // "": the agent's
}

// engine is one way to read one socket, or several that share an address. It
// counts its readers from 0.
type engine interface {
	// name says which way it is.
	name() string
	// run reads until stop is closed, then hands on what the sockets still hold (if
	// it can), and closes them.
	run(stop <-chan struct{}, handle Handler) error
	// address is where the sockets are bound.
	address() string
	// granted is the receive buffer that the kernel gave a UDP socket, in the
	// measure of the configuration; 0 if that is not known.
	granted() int
	// drops returns how many datagrams the kernel has dropped since the sockets
	// were opened, and whether it says.
	drops() (uint64, bool)
	// dropsOf returns how many of them were at the socket of one reader; 0 if the kernel
	// does not say.
	dropsOf(reader int) uint64
	// processors returns how many processors of the Go scheduler its readers keep
	// to themselves.
	processors() int
	// close closes the sockets of an engine that was never run.
	close() error
}

// Listener owns the sockets and their readers.
type Listener struct {
	cfg      Config
	sockets  []boundSocket
	readers  []readerStats
	warnings warnings
	log      *slog.Logger

	kernelMemory uint64 // see KernelMemory
}

// boundSocket is an address that is listened on.
type boundSocket struct {
	Socket
	engine  engine
	streams *streamStats // nil for datagrams
	first   int          // the number of its first reader
	count   int          // of readers
}

// readerStats is written by one reader, and read by anybody.
type readerStats struct {
	datagrams atomic.Uint64
	bytes     atomic.Uint64
	cut       atomic.Uint64
	wakeups   atomic.Uint64
	_         [64]byte // no two readers write to one cache line
}

// New opens the sockets; cfg must have passed Validate. Sockets that systemd
// passed to the process take the place of those with the same address, or are
// further ones.
func New(cfg Config, log *slog.Logger) (*Listener, error) {
	passed, err := inheritedSockets()
	if err != nil {
		return nil, err
	}
	plan := match(cfg.sockets(), passed)
	l := &Listener{cfg: cfg, log: log, warnings: warnings{log: log}}
	readers, udp := 0, 0
	for _, p := range plan {
		count := cfg.readers(p.Network, p.inherited != nil)
		readers += count
		if p.Network == UDP {
			udp += count
		}
	}
	l.cfg.ReceiveBuffer = cfg.receiveBuffer(udp)
	l.kernelMemory = 2 * uint64(l.cfg.ReceiveBuffer) * uint64(udp)
	l.readers = make([]readerStats, readers)
	first := 0
	for i, p := range plan {
		count := cfg.readers(p.Network, p.inherited != nil)
		s, err := l.open(p, l.readers[first:first+count])
		if err != nil {
			for _, unused := range plan[i+1:] {
				unused.inherited.close()
			}
			return nil, errors.Join(err, l.Close())
		}
		s.Socket, s.first, s.count = p.Socket, first, count
		l.sockets = append(l.sockets, s)
		first += count
	}
	return l, nil
}

// planned is a socket to open, or to take over.
type planned struct {
	keyed
	inherited *inherited // nil: to open
}

func (l *Listener) open(p planned, stats []readerStats) (boundSocket, error) {
	var s boundSocket
	var err error
	switch p.Network {
	case UDP:
		s.engine, err = openUDP(l.cfg, p, stats)
	case UnixDatagram:
		s.engine, err = openUnixDatagram(l.cfg, p, stats)
	default:
		s.streams = &streamStats{}
		s.engine, err = openStream(l.cfg, p, stats, s.streams, &l.warnings)
	}
	return s, err
}

// Readers returns how many readers there are; their numbers count from 0.
func (l *Listener) Readers() int { return len(l.readers) }

// Reader returns what the reader with the given number reads.
func (l *Listener) Reader(number int) ReaderInfo {
	for i := range l.sockets {
		if s := &l.sockets[i]; number < s.first+s.count {
			return ReaderInfo{Network: s.Network, Address: s.engine.address(), Dialect: s.Dialect, TagStyle: s.TagStyle}
		}
	}
	panic(fmt.Sprintf("BUG: there is no reader %d", number))
}

// Processors returns how many processors of the Go scheduler the readers keep to
// themselves while they pause: GOMAXPROCS should be that much larger.
func (l *Listener) Processors() int {
	sum := 0
	for i := range l.sockets {
		sum += l.sockets[i].engine.processors()
	}
	return sum
}

// Run hands packets to handle until ctx is done and the sockets are empty. A
// socket that breaks ends it with an error.
func (l *Listener) Run(ctx context.Context, handle Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	faults := make([]error, len(l.sockets))
	for i := range l.sockets {
		l.announce(&l.sockets[i])
	}
	var engines sync.WaitGroup
	for i := range l.sockets {
		engines.Go(func() {
			s := &l.sockets[i]
			count := l.countDatagrams
			if s.streams != nil {
				count = l.countStream
			}
			err := s.engine.run(ctx.Done(), func(reader int, packets []Packet) {
				count(s.first+reader, packets)
				handle(s.first+reader, packets)
			})
			if err != nil {
				faults[i] = fmt.Errorf("%s %s: %w", s.Network, s.engine.address(), err)
				cancel()
			}
		})
	}
	engines.Wait()
	return errors.Join(faults...)
}

// KernelMemory returns how many bytes the kernel may take for what waits in the sockets of
// UDP.
func (l *Listener) KernelMemory() uint64 { return l.kernelMemory }

// announce logs where a socket listens and what its clients should know.
func (l *Listener) announce(s *boundSocket) {
	about := []any{"network", s.Network, "address", s.engine.address(), "readers", s.count, "engine", s.engine.name()}
	if s.Network != UDP {
		l.log.Info("listening", about...)
		return
	}
	granted, asked := s.engine.granted(), int(l.cfg.ReceiveBuffer)
	l.log.Info("listening", append(about, "receive_buffer", metric.Bytes(granted))...)
	if granted > 0 && granted < asked {
		l.log.Warn("the kernel granted a smaller receive buffer; bursts may be dropped",
			"asked", metric.Bytes(asked), "granted", metric.Bytes(granted),
			"remedy", fmt.Sprintf("sysctl -w net.core.rmem_max=%d, or give the binary the capability CAP_NET_ADMIN", asked))
	}
	if _, known := s.engine.drops(); !known {
		l.log.Warn("this system does not say how many datagrams it dropped")
	}
}

// countDatagrams keeps the statistics of a reader of datagrams.
func (l *Listener) countDatagrams(reader int, packets []Packet) {
	stats := &l.readers[reader]
	var bytes, cuts uint64
	for i := range packets {
		bytes += uint64(len(packets[i].Data))
		if packets[i].Cut {
			cuts++
		}
	}
	stats.datagrams.Add(uint64(len(packets)))
	stats.bytes.Add(bytes)
	if cuts > 0 {
		stats.cut.Add(cuts)
		l.warnings.once(&l.warnings.cut, "a datagram was cut; its last line is rejected, and so are those of all further ones",
			"max_packet", l.cfg.MaxPacket, "remedy", "raise listen.max_packet or lower the packet size of the client")
	}
}

// countStream keeps the statistics of a reader of streams.
func (l *Listener) countStream(reader int, packets []Packet) {
	var bytes uint64
	for i := range packets {
		bytes += uint64(len(packets[i].Data))
	}
	l.readers[reader].bytes.Add(bytes)
}

// Close closes the sockets if Run was never called.
func (l *Listener) Close() error {
	var faults []error
	for i := range l.sockets {
		faults = append(faults, l.sockets[i].engine.close())
	}
	return errors.Join(faults...)
}

// warnings tells of each kind of thing that is turned away once. How often it
// happens, the statistics tell.
type warnings struct {
	log *slog.Logger

	cut, refused, idle, frame, truncated, line, accept, enroll, unread sync.Once
}

func (w *warnings) once(kind *sync.Once, message string, about ...any) {
	kind.Do(func() { w.log.Warn(message, about...) })
}
