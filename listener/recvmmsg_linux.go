package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvmmsgEngine reads each socket on a thread of its own.
type recvmmsgEngine struct {
	sockets   []*socket
	size      int // of the first socket's receive buffer, as granted
	max       int
	queue     int         // datagrams that a Unix socket holds; 0 for UDP
	where     string      // the address or path
	file      *socketFile // nil if there is none or it is not ours
	ours      bool        // nobody else has the sockets open
	proc      string      // where to look up senders: /proc; "": nobody asks for them
	shortWait time.Duration
	stats     []readerStats
}

func openRecvmmsg(cfg Config, address *net.UDPAddr, stats []readerStats) (engine, error) {
	e := &recvmmsgEngine{max: int(cfg.MaxPacket), ours: true, shortWait: shortWait, stats: stats}
	for i := range stats {
		s, err := openSocket(address, int(cfg.ReceiveBuffer), i == 0)
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.sockets = append(e.sockets, s)
		if i == 0 {
			address = &net.UDPAddr{IP: address.IP, Zone: address.Zone, Port: int(boundTo(s.fd).Port())} // if any would do
			e.where = boundTo(s.fd).String()
			e.size = receiveBufferOf(s.fd)
		}
	}
	return e, nil
}

// inheritRecvmmsg takes over a UDP socket.
func inheritRecvmmsg(cfg Config, p planned, stats []readerStats) (engine, error) {
	fd, err := p.inherited.take()
	if err != nil {
		return nil, fmt.Errorf("take over %s %s: %w", p.Network, p.Address, err)
	}
	setReceiveBuffer(fd, int(cfg.ReceiveBuffer))
	return &recvmmsgEngine{
		sockets: []*socket{{fd: fd}}, where: p.inherited.address, size: receiveBufferOf(fd),
		max: int(cfg.MaxPacket), shortWait: shortWait, stats: stats,
	}, nil
}

// openSocket binds a socket. The first one for an address must not share it with
// anybody, or a second agent would silently take half of the datagrams of the
// first: it allows sharing only once it has the address.
func openSocket(address *net.UDPAddr, receiveBuffer int, first bool) (*socket, error) {
	family, where, err := sockaddr(address)
	if err != nil {
		return nil, err
	}
	const kind = unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(family, kind, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) && address.IP == nil { // no IPv6 here: all addresses are those of IPv4
		where = &unix.SockaddrInet4{Port: address.Port}
		family = unix.AF_INET
		fd, err = unix.Socket(family, kind, 0)
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if family == unix.AF_INET6 && (address.IP == nil || address.IP.IsUnspecified()) {
		// All addresses means those of IPv4, too, whatever the system's default is.
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	s := &socket{fd: fd}
	share := func() error {
		return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	}
	bind := func() error { return os.NewSyscallError("bind", unix.Bind(fd, where)) }
	steps := []func() error{share, bind}
	if first {
		steps = []func() error{bind, share}
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	setReceiveBuffer(fd, receiveBuffer)
	return s, nil
}

// sockaddr returns an address in the terms of the system. Without an IP it means
// all addresses of both families.
func sockaddr(address *net.UDPAddr) (family int, where unix.Sockaddr, err error) {
	if ip4 := address.IP.To4(); ip4 != nil {
		return unix.AF_INET, &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte(ip4)}, nil
	}
	six := &unix.SockaddrInet6{Port: address.Port}
	copy(six.Addr[:], address.IP.To16())
	if address.Zone != "" {
		zone, err := net.InterfaceByName(address.Zone)
		if err != nil {
			return 0, nil, fmt.Errorf("find the interface of %v: %w", address, err)
		}
		six.ZoneId = uint32(zone.Index)
	}
	return unix.AF_INET6, six, nil
}

// setReceiveBuffer asks for a receive buffer, first as anybody may, then as only
// a process with CAP_NET_ADMIN may. What comes of it is read back by granted.
func setReceiveBuffer(fd, bytes int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	if receiveBufferOf(fd) < bytes {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	}
}

func (e *recvmmsgEngine) name() string { return EngineRecvmmsg }

func (e *recvmmsgEngine) processors() int { return len(e.sockets) }

func (e *recvmmsgEngine) address() string { return e.where }

// boundTo returns the address of a socket.
func boundTo(fd int) netip.AddrPort {
	where, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	return addrPort(where)
}

func (e *recvmmsgEngine) granted() int { return e.size }

func (e *recvmmsgEngine) drops() (total uint64, known bool) {
	known = true
	for _, s := range e.sockets {
		n, ok := s.drops()
		total += n
		known = known && ok
	}
	return total, known
}

func (e *recvmmsgEngine) dropsOf(reader int) uint64 {
	n, _ := e.sockets[reader].drops()
	return n
}

// shortWait is how long a reader waits for a datagram before it gives its
// processor back to the Go scheduler. It covers the gaps in a trickle, for which
// going through the scheduler costs more than the datagrams (see sweep).
const shortWait = 200 * time.Millisecond

// wait blocks until a datagram comes or wake becomes readable, for the first while
// without giving its processor back.
func (s *socket) wait(wake int, short time.Duration) error {
	fds := [2]unix.PollFd{
		{Fd: int32(s.fd), Events: unix.POLLIN},
		{Fd: int32(wake), Events: unix.POLLIN},
	}
	for start := time.Now(); ; {
		left := short - time.Since(start)
		if left <= 0 {
			break
		}
		if ppoll(&fds, left) {
			return nil
		}
	}
	if _, err := unix.Poll(fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// ppoll waits for one of the descriptors, without telling the Go scheduler, and
// reports whether one is ready.
//
// The garbage collector interrupts the wait by a signal when it stops the world
// (TestReadersDoNotHoldUpTheCollector).
func ppoll(fds *[2]unix.PollFd, timeout time.Duration) bool {
	limit := unix.NsecToTimespec(int64(timeout))
	ready, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	return errno == 0 && ready > 0
}

func (e *recvmmsgEngine) close() error {
	e.file.remove()
	var faults []error
	for _, s := range e.sockets {
		faults = append(faults, s.close())
	}
	return errors.Join(faults...)
}

// originsOfReader returns what finds out about senders; nil if nobody asks.
func (e *recvmmsgEngine) originsOfReader() *origins {
	if e.proc == "" {
		return nil
	}
	o := newOrigins()
	o.folder = e.proc
	return o
}

func (e *recvmmsgEngine) pacer() pacer {
	if e.queue == 0 {
		return pacer{}
	}
	return queuePacer(e.queue)
}

// refuse lets a Unix socket take no more datagrams: from now on their senders get
// an error, and what is in the socket can still be read. A socket that systemd
// holds for the next agent is left as it is.
func (e *recvmmsgEngine) refuse(s *socket) {
	if e.queue > 0 && e.ours {
		e.file.remove()
		_ = unix.Shutdown(s.fd, unix.SHUT_RD)
	}
}

func (e *recvmmsgEngine) run(stop <-chan struct{}, handle Handler) error {
	var stopped atomic.Bool
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return errors.Join(os.NewSyscallError("eventfd", err), e.close())
	}
	failed := make(chan struct{}, len(e.sockets))
	faults := make([]error, len(e.sockets))
	var readers sync.WaitGroup
	for i, s := range e.sockets {
		readers.Go(func() {
			reader := newSweeper(s, newDrain(e.max, e.originsOfReader()), e.pacer(), &e.stats[i], func(packets []Packet) { handle(i, packets) })
			for faults[i] == nil && !stopped.Load() {
				if faults[i] = reader.sweep(&stopped); faults[i] == nil {
					faults[i] = s.wait(wake, e.shortWait)
				}
			}
			if faults[i] != nil {
				failed <- struct{}{}
				return
			}
			e.refuse(s)
			reader.last()
			// At once: while it is open, it takes datagrams that nobody will read.
			faults[i] = s.close()
		})
	}
	select {
	case <-stop:
	case <-failed:
	}
	stopped.Store(true)
	_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // readable for all readers from now on
	readers.Wait()
	return errors.Join(errors.Join(faults...), e.close(), os.NewSyscallError("close", unix.Close(wake)))
}
