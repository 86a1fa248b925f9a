package listener

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const haveRecvmmsg = true

const (
	// packetsAtOnce is how many datagrams one recvmmsg may return.
	packetsAtOnce = 64
	// callsAtOnce bounds how long a drain goes on without a look at anything
	// else.
	callsAtOnce = 64
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// drain empties datagram sockets into memory it owns.
type drain struct {
	headers []mmsghdr
	iovecs  []unix.Iovec
	memory  []byte
	stride  int
	max     int
	packets []Packet
}

func newDrain(max int) *drain {
	// Buffers a power of two apart would compete for the same few lines of the
	// cache.
	const line = 64
	d := &drain{
		headers: make([]mmsghdr, packetsAtOnce),
		iovecs:  make([]unix.Iovec, packetsAtOnce),
		stride:  (max+line-1)/line*line + line,
		max:     max,
		packets: make([]Packet, packetsAtOnce),
	}
	d.memory = make([]byte, d.stride*packetsAtOnce)
	for i := range d.headers {
		d.iovecs[i].Base = &d.memory[i*d.stride]
		d.iovecs[i].SetLen(max)
		d.headers[i].header.Iov = &d.iovecs[i]
		d.headers[i].header.SetIovlen(1)
	}
	return d
}

// all reads until the socket is empty, or for callsAtOnce calls, and hands each
// batch to handle. It returns how many datagrams there were and whether the
// socket was empty in the end.
//
// Hot path: the system call does not tell the Go scheduler, since it never
// blocks, and asks for no source address, which costs a tenth of the call.
func (d *drain) all(fd int, handle func([]Packet)) (datagrams int, empty bool, err error) {
	for range callsAtOnce {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&d.headers[0])),
			packetsAtOnce, unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN, unix.ENOMEM, unix.ENOBUFS: // the latter two pass
			return datagrams, true, nil
		case unix.EINTR:
			continue
		default:
			return datagrams, true, errno
		}
		for i := range int(n) {
			// With MSG_TRUNC the length is the datagram's, however much of it fits.
			length := int(d.headers[i].length)
			d.packets[i] = Packet{
				Data: d.memory[i*d.stride:][:min(length, d.max)],
				Cut:  length > d.max,
			}
		}
		handle(d.packets[:n])
		datagrams += int(n)
		if n < packetsAtOnce {
			return datagrams, true, nil
		}
	}
	return datagrams, false, nil
}

// sweeper keeps a socket empty: drain, pause, drain, until nothing comes.
type sweeper struct {
	socket *socket
	drain  *drain
	pacer  pacer
	stats  *readerStats
	handle func([]Packet)
}

func newSweeper(s *socket, max int, stats *readerStats, handle func([]Packet)) *sweeper {
	return &sweeper{socket: s, drain: newDrain(max), stats: stats, handle: handle}
}

// sweep empties the socket again and again until waiting for the next datagram
// is better than a pause, or until stopped.
//
// It sleeps without telling the Go scheduler, whose monitor would otherwise wake
// up every 20 microseconds for a while after each pause, which doubles the cost
// of a gentle rate (docs/decisions.md). The price: a reader keeps a processor of
// the scheduler (Listener.Processors), and the garbage collector interrupts a
// pause by a signal when it stops the world.
func (s *sweeper) sweep(stopped *atomic.Bool) error {
	for !stopped.Load() {
		before, _ := memoryOf(s.socket.fd)
		s.stats.wakeups.Add(1)
		datagrams := 0
		for empty := false; !empty && !stopped.Load(); {
			var n int
			var err error
			if n, empty, err = s.drain.all(s.socket.fd, s.handle); err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			datagrams += n
		}
		s.pacer.observe(before, datagrams, time.Now())
		pause := s.pacer.pause()
		if pause == 0 {
			return nil
		}
		if pause >= minPause {
			length := unix.NsecToTimespec(int64(pause))
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&length)), 0, 0)
		}
	}
	return nil
}

// lastDrain bounds how long a reader goes on when the agent stops and a client
// sends faster than it reads.
const lastDrain = time.Second

// last empties the socket for the last time.
func (s *sweeper) last() {
	for start := time.Now(); time.Since(start) < lastDrain; {
		if _, empty, err := s.drain.all(s.socket.fd, s.handle); empty || err != nil {
			return
		}
	}
}
