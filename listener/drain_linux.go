package listener

import (
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/weir-agent/weir/internal/priority"
)

const haveRecvmmsg = true

const (
	// packetsAtOnce is how many datagrams one recvmmsg may return.
	packetsAtOnce = 64
	// behindShare: a reader is behind that finds more than one of so many parts of its
	// receive buffer full, or behindBytes. In a hurried pause less comes in, unless the
	// buffer is small.
	behindShare = 8
	behindBytes = 1 << 20
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

	origins *origins // nil: nobody asks for senders
	control []byte   // what the kernel says of them
}

// newDrain returns a drain for datagrams of up to max bytes. With origins, the
// sockets must have SO_PASSCRED set.
func newDrain(max int, origins *origins) *drain {
	// Buffers a power of two apart would compete for the same few lines of the
	// cache.
	const line = 64
	d := &drain{
		headers: make([]mmsghdr, packetsAtOnce),
		iovecs:  make([]unix.Iovec, packetsAtOnce),
		stride:  (max+line-1)/line*line + line,
		max:     max,
		packets: make([]Packet, packetsAtOnce),
		origins: origins,
	}
	if origins != nil {
		d.control = make([]byte, credentialsSize*packetsAtOnce)
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

// drained is what a drain found.
type drained struct {
	datagrams int
	bytes     int  // in them, however much of it fits
	empty     bool // whether the socket was empty in the end
}

// all reads until the socket is empty, or for callsAtOnce calls, and hands each
// batch to handle.
//
// Hot path: the system call does not tell the Go scheduler, since it never
// blocks, and asks for no source address, which costs a tenth of the call.
func (d *drain) all(fd int, handle func([]Packet)) (found drained, err error) {
	for range callsAtOnce {
		if d.origins != nil {
			d.expectCredentials()
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&d.headers[0])),
			packetsAtOnce, unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		switch errno {
		case 0:
		case unix.EAGAIN, unix.ENOMEM, unix.ENOBUFS: // the latter two pass
			found.empty = true
			return found, nil
		case unix.EINTR:
			continue
		default:
			return found, errno
		}
		for i := range int(n) {
			// With MSG_TRUNC the length is the datagram's, however much of it fits.
			length := int(d.headers[i].length)
			d.packets[i] = Packet{
				Data: d.memory[i*d.stride:][:min(length, d.max)],
				Cut:  length > d.max,
			}
			found.bytes += length
		}
		if d.origins != nil {
			d.readSenders(int(n))
		}
		handle(d.packets[:n])
		found.datagrams += int(n)
		if n < packetsAtOnce {
			found.empty = true
			return found, nil
		}
	}
	return found, nil
}

// sweeper keeps a socket empty: drain, pause, drain, until nothing comes.
type sweeper struct {
	socket *socket
	drain  *drain
	pacer  pacer
	stats  *readerStats
	handle func([]Packet)
	reader priority.Reader
}

func newSweeper(s *socket, d *drain, p pacer, stats *readerStats, handle func([]Packet)) *sweeper {
	return &sweeper{socket: s, drain: d, pacer: p, stats: stats, handle: handle}
}

// sweep empties the socket again and again until waiting for the next datagram
// is better than a pause, or until stopped.
//
// While it reads, work that can wait hears if the receive buffer was filling up.
//
// It sleeps without telling the Go scheduler, whose monitor would otherwise wake
// up every 20 microseconds for a while after each pause, which doubles the cost
// of a gentle rate (docs/decisions.md). The price: a reader keeps a processor of
// the scheduler (Listener.Processors), and the garbage collector interrupts a
// pause by a signal when it stops the world.
func (s *sweeper) sweep(stopped *atomic.Bool) error {
	defer s.reader.Behind(false)
	for !stopped.Load() {
		before := s.pacer.memoryOf(s.socket.fd)
		s.tell(before)
		s.stats.wakeups.Add(1)
		var sum drained
		for !sum.empty && !stopped.Load() {
			found, err := s.drain.all(s.socket.fd, s.handle)
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			sum = drained{sum.datagrams + found.datagrams, sum.bytes + found.bytes, found.empty}
			if !found.empty { // callsAtOnce were not enough
				s.tell(s.pacer.memoryOf(s.socket.fd))
			}
		}
		s.pacer.observe(before, sum, time.Now())
		pause := s.pacer.pause(priority.Busy())
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

// tell lets work that can wait hear whether the reader is behind.
func (s *sweeper) tell(m memory) { s.reader.Behind(m.used > min(m.buffer/behindShare, behindBytes)) }

// last empties the socket for the last time.
func (s *sweeper) last() {
	for start := time.Now(); time.Since(start) < lastDrain; {
		if found, err := s.drain.all(s.socket.fd, s.handle); found.empty || err != nil {
			return
		}
	}
}
