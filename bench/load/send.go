//go:build linux

package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many datagrams a call sends at most.
const batch = 64

// mostBehind is for how long of not running a sender makes up.
const mostBehind = 5 * time.Millisecond

// patience is how often a sender that waits for a server asks whether it still should.
const patience = 100 * time.Millisecond

// grace is how long after its time a server that takes nothing is waited for.
const grace = 5 * time.Second

// pace is how fast and for how long to send.
type pace struct {
	rate      float64 // datagrams a second; 0: flat out
	tick      time.Duration
	duration  time.Duration
	datagrams int // instead of duration; 0: none
}

// report is what was sent.
type report struct {
	Datagrams          uint64            `json:"datagrams"`
	Metrics            uint64            `json:"metrics"`
	Bytes              uint64            `json:"bytes"`
	Kinds              map[string]uint64 `json:"kinds"`
	CounterSum         float64           `json:"counter_sum"`
	Seconds            float64           `json:"seconds"`
	DatagramsPerSecond float64           `json:"datagrams_per_second"`
	MetricsPerSecond   float64           `json:"metrics_per_second"`
	Behind             float64           `json:"behind"`
	Refused            uint64            `json:"refused"`
	CPUSeconds         float64           `json:"cpu_seconds"`
}

func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sent %d datagrams, %d metrics, %d bytes in %.3f s: %.0f datagrams/s, %.0f metrics/s\n",
		r.Datagrams, r.Metrics, r.Bytes, r.Seconds, r.DatagramsPerSecond, r.MetricsPerSecond)
	fmt.Fprintf(&b, "the sum of counters is %.0f\n", r.CounterSum)
	for _, kind := range []string{"c", "g", "ms", "h", "d", "s"} {
		if n := r.Kinds[kind]; n > 0 {
			fmt.Fprintf(&b, "of kind %s: %d\n", kind, n)
		}
	}
	if r.Behind > 0 {
		fmt.Fprintf(&b, "the sender did not get to run for %.3f s: so much is missing at this rate\n", r.Behind)
	}
	fmt.Fprintf(&b, "sending took %.3f s of CPU\n", r.CPUSeconds)
	return b.String()
}

// mmsghdr is the kernel's struct mmsghdr.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// sender is the sockets.
type sender struct {
	files  []*os.File
	fds    []int // of files, blocking
	stream bool
}

// dial opens sockets; from is the address to send from, or empty.
func dial(network, address, from string, sockets int) (*sender, error) {
	if sockets < 1 {
		return nil, fmt.Errorf("-sockets: %d is too few", sockets)
	}
	var dialer net.Dialer
	if from != "" {
		if network != "udp" || sockets > 1 {
			return nil, errors.New("-from: it is for one UDP socket")
		}
		local, err := net.ResolveUDPAddr(network, from)
		if err != nil {
			return nil, fmt.Errorf("-from: %w", err)
		}
		dialer.LocalAddr = local
	}
	s := &sender{stream: network == "tcp"}
	for range sockets {
		var file *os.File
		conn, err := dialer.Dial(network, address)
		if err == nil {
			filer, ok := conn.(interface{ File() (*os.File, error) })
			if !ok {
				err = errors.New("take udp, unixgram or tcp")
			} else {
				file, err = filer.File()
			}
			_ = conn.Close()
		}
		if err != nil {
			s.close()
			return nil, fmt.Errorf("-network %s -to %s: %w", network, address, err)
		}
		fd := int(file.Fd()) // from here on blocking, but not for ever
		wait := unix.NsecToTimeval(int64(patience))
		_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait)
		s.files, s.fds = append(s.files, file), append(s.fds, fd)
	}
	return s, nil
}

func (s *sender) close() {
	for _, file := range s.files {
		_ = file.Close()
	}
}

// send sends at a pace until that is done or interrupted says so.
func (s *sender) send(l *load, p pace, interrupted <-chan os.Signal) (r report, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // else a tick is 50 µs late

	iovs := make([]unix.Iovec, len(l.datagrams))
	for i, d := range l.datagrams {
		iovs[i].Base = &d[0]
		iovs[i].SetLen(len(d))
	}
	headers := make([]mmsghdr, len(l.datagrams))
	for i := range headers {
		headers[i].header.Iov = &iovs[i]
		headers[i].header.SetIovlen(1)
	}
	sent := make([]uint64, len(l.datagrams)) // how often
	next, total, stopped := 0, uint64(0), false
	done := func() bool {
		select {
		case <-interrupted:
			stopped = true
		default:
		}
		return stopped || p.datagrams > 0 && total >= uint64(p.datagrams)
	}

	begin, cpu := time.Now(), cpuTime()
	behind, turn := time.Duration(0), 0
	giveUp := func() bool { return done() || p.datagrams == 0 && time.Since(begin) > p.duration+grace }
	for !done() {
		elapsed := time.Since(begin)
		if p.datagrams == 0 && elapsed >= p.duration {
			break
		}
		n := batch
		if p.rate > 0 {
			due := (elapsed-behind).Seconds()*p.rate - float64(total)
			if late := time.Duration((due/p.rate)*float64(time.Second)) - mostBehind - p.tick; late > 0 {
				behind += late
				due -= late.Seconds() * p.rate
			}
			if n = min(batch, int(due)); n <= 0 {
				pause(p.tick)
				continue
			}
		}
		if p.datagrams > 0 {
			n = int(min(uint64(n), uint64(p.datagrams)-total))
		}
		n = min(n, len(iovs)-next)
		fd := s.fds[turn%len(s.fds)]
		turn++
		if s.stream {
			n, err = writeAll(fd, iovs[next:next+n], giveUp)
		} else {
			n, err = sendSome(fd, headers[next:next+n])
		}
		for i := next; i < next+n; i++ {
			sent[i]++
		}
		if err != nil {
			break
		}
		total += uint64(n)
		next = (next + n) % len(iovs)
	}
	r = l.count(sent)
	r.Seconds = time.Since(begin).Seconds()
	r.Behind = behind.Seconds()
	r.CPUSeconds = (cpuTime() - cpu).Seconds()
	r.DatagramsPerSecond, r.MetricsPerSecond = float64(r.Datagrams)/r.Seconds, float64(r.Metrics)/r.Seconds
	if errors.Is(err, unix.ECONNREFUSED) {
		r.Refused++
		err = errors.New("nobody listens there: start the server first")
	}
	return r, err
}

// sendSome sends datagrams and returns how many of them went out: none if the server
// takes none for a while.
func sendSome(fd int, headers []mmsghdr) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), uintptr(len(headers)), 0, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EAGAIN, unix.EINTR: // Go's scheduler interrupts, too, and begins the wait anew
			return 0, nil
		case unix.ENOBUFS:
			pause(time.Millisecond)
		default:
			return 0, os.NewSyscallError("sendmmsg", errno)
		}
	}
}

// errStuck is the end of a stream whose last packet is not whole.
var errStuck = errors.New("the server does not read: the last packet is not whole")

// writeAll writes packets to a stream, and returns how many went out as a whole.
func writeAll(fd int, iovs []unix.Iovec, giveUp func() bool) (whole int, err error) {
	part := 0 // bytes of the next packet that went out
	for whole < len(iovs) {
		first := iovs[whole] // the caller's stays as it is
		rest := unsafe.Slice(first.Base, first.Len)[part:]
		var wrote uintptr
		var errno unix.Errno
		if part > 0 {
			wrote, _, errno = unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)))
		} else {
			wrote, _, errno = unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&iovs[whole])), uintptr(len(iovs)-whole))
		}
		switch {
		case errno == unix.EAGAIN || errno == unix.EINTR:
			if !giveUp() {
				continue
			}
			if part > 0 {
				err = errStuck
			}
			return whole, err
		case errno != 0:
			return whole, os.NewSyscallError("write", errno)
		}
		for part += int(wrote); whole < len(iovs) && part >= int(iovs[whole].Len); whole++ {
			part -= int(iovs[whole].Len)
		}
	}
	return whole, nil
}

// pause sleeps without telling the Go scheduler, which would make it longer.
func pause(d time.Duration) {
	t := unix.NsecToTimespec(int64(d))
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&t)), 0, 0)
}

// count adds up what was sent so often each.
func (l *load) count(sent []uint64) report {
	r := report{Kinds: map[string]uint64{}}
	sum := uint64(0)
	for i, times := range sent {
		r.Datagrams += times
		r.Bytes += times * uint64(len(l.datagrams[i]))
		sum += times * l.counts[i].sum
		for kind, name := range l.kinds {
			n := times * uint64(l.counts[i].kinds[kind])
			r.Kinds[name] += n
			r.Metrics += n
		}
	}
	r.CounterSum = float64(sum) / l.rate
	return r
}

// cpuTime returns the CPU time of this process.
func cpuTime() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
