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
	sockets []*socket
	size    int // of the first socket's receive buffer, as granted
	max     int
	stats   []readerStats
}

func openRecvmmsg(cfg Config, address *net.UDPAddr, stats []readerStats) (engine, error) {
	e := &recvmmsgEngine{max: int(cfg.MaxPacket), stats: stats}
	for i := range stats {
		s, err := openSocket(address, int(cfg.ReceiveBuffer), i == 0)
		if err != nil {
			return nil, errors.Join(err, e.close())
		}
		e.sockets = append(e.sockets, s)
		if i == 0 {
			address = net.UDPAddrFromAddrPort(e.address()) // the port, if any would do
			e.size = receiveBufferOf(s.fd)
		}
	}
	return e, nil
}

// openSocket binds a socket. The first one for an address must not share it with
// anybody, or a second agent would silently take half of the datagrams of the
// first: it allows sharing only once it has the address.
func openSocket(address *net.UDPAddr, receiveBuffer int, first bool) (*socket, error) {
	family, where := unix.AF_INET6, unix.Sockaddr(nil)
	if ip4 := address.IP.To4(); ip4 != nil {
		family, where = unix.AF_INET, &unix.SockaddrInet4{Port: address.Port, Addr: [4]byte(ip4)}
	} else {
		six := &unix.SockaddrInet6{Port: address.Port}
		copy(six.Addr[:], address.IP.To16()) // none: all addresses of both families
		if address.Zone != "" {
			zone, err := net.InterfaceByName(address.Zone)
			if err != nil {
				return nil, fmt.Errorf("find the interface of %v: %w", address, err)
			}
			six.ZoneId = uint32(zone.Index)
		}
		where = six
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
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

// setReceiveBuffer asks for a receive buffer, first as anybody may, then as only
// a process with CAP_NET_ADMIN may. What comes of it is read back by granted.
func setReceiveBuffer(fd, bytes int) {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	if receiveBufferOf(fd) < bytes {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes)
	}
}

func (e *recvmmsgEngine) address() netip.AddrPort {
	where, err := unix.Getsockname(e.sockets[0].fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch a := where.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
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

// shortWait is how long a reader waits for a datagram before it gives its
// processor back to the Go scheduler. It covers the gaps in a trickle, for which
// going through the scheduler costs more than the datagrams (see sweep).
const shortWait = 200 * time.Millisecond

// wait blocks until a datagram comes or wake becomes readable.
func (s *socket) wait(wake int) error {
	fds := [2]unix.PollFd{
		{Fd: int32(s.fd), Events: unix.POLLIN},
		{Fd: int32(wake), Events: unix.POLLIN},
	}
	for start := time.Now(); ; {
		left := shortWait - time.Since(start)
		if left <= 0 {
			break
		}
		timeout := unix.NsecToTimespec(int64(left))
		ready, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds)), uintptr(len(fds)),
			uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
		if errno == 0 && ready > 0 {
			return nil
		}
	}
	if _, err := unix.Poll(fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

func (e *recvmmsgEngine) close() error {
	var faults []error
	for _, s := range e.sockets {
		faults = append(faults, s.close())
	}
	return errors.Join(faults...)
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
			reader := newSweeper(s, e.max, &e.stats[i], func(packets []Packet) { handle(i, packets) })
			for faults[i] == nil && !stopped.Load() {
				faults[i] = errors.Join(reader.sweep(&stopped), s.wait(wake))
			}
			if faults[i] != nil {
				failed <- struct{}{}
				return
			}
			reader.last()
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
