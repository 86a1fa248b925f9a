//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what every server's sockets get, in the way of net.core.rmem_default,
// whatever the server asks for: the kernel doubles it.
const receiveBuffer = 16 << 20

// udpSocket is a line of /proc/net/udp.
type udpSocket struct {
	port  int
	inode uint64
	queue uint64 // bytes that wait
	drops uint64
}

// parseUDP reads /proc/net/udp or udp6.
//
//	sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
//	77: 0100007F:1FBD 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 40531 2 0000000000000000 12
//	             ^^^^                           ^^^^^^^^                                   ^^^^^                      ^^
func parseUDP(text string) (sockets []udpSocket, err error) {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) < 13 {
			return nil, fmt.Errorf("/proc/net/udp: %q has %d fields, want 13", line, len(fields))
		}
		var s udpSocket
		_, port, _ := strings.Cut(fields[1], ":")
		_, queue, _ := strings.Cut(fields[4], ":")
		p, err1 := strconv.ParseUint(port, 16, 16)
		q, err2 := strconv.ParseUint(queue, 16, 64)
		i, err3 := strconv.ParseUint(fields[9], 10, 64)
		d, err4 := strconv.ParseUint(fields[12], 10, 64)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, fmt.Errorf("/proc/net/udp: %q: %w", line, err)
		}
		s = udpSocket{port: int(p), queue: q, inode: i, drops: d}
		sockets = append(sockets, s)
	}
	return sockets, nil
}

// socketsAt returns the UDP sockets bound to a port.
func socketsAt(port int) (found []udpSocket, err error) {
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		text, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue // a system without IPv6
		}
		if err != nil {
			return nil, err
		}
		all, err := parseUDP(string(text))
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			if s.port == port {
				found = append(found, s)
			}
		}
	}
	return found, nil
}

// sockets is a server's, opened here too.
type sockets struct {
	fds []int
}

// openSockets gets hold of the sockets that a process has bound to a port, and gives
// them all the same receive buffer.
func openSockets(pid, port int) (*sockets, error) {
	bound, err := socketsAt(port)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for _, s := range bound {
		wanted[fmt.Sprintf("socket:[%d]", s.inode)] = true
	}
	folder := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(process)
	s := &sockets{}
	for _, entry := range entries {
		target, _ := os.Readlink(filepath.Join(folder, entry.Name()))
		if !wanted[target] {
			continue
		}
		delete(wanted, target)
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			s.close()
			return nil, fmt.Errorf("take a look at the server's socket: %w; run this as root", os.NewSyscallError("pidfd_getfd", err))
		}
		s.fds = append(s.fds, fd)
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
		if got, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF); got < 2*receiveBuffer {
			s.close()
			return nil, fmt.Errorf("the server's socket has a buffer of %d bytes, want %d: run this as root", got, 2*receiveBuffer)
		}
	}
	if len(s.fds) == 0 {
		return nil, fmt.Errorf("the process has no socket at port %d", port)
	}
	return s, nil
}

func (s *sockets) close() {
	for _, fd := range s.fds {
		_ = unix.Close(fd)
	}
	s.fds = nil
}

// The numbers of SO_MEMINFO (linux/sock_diag.h).
const (
	soMeminfo   = 55
	meminfoUsed = 0 // bytes of kernel memory that datagrams take
	meminfoDrop = 8 // datagrams there was no room for
	meminfoSize = 9
)

// state adds up what the kernel knows of all sockets.
func (s *sockets) state() (used, drops uint64) {
	for _, fd := range s.fds {
		var info [meminfoSize]uint32
		length := uint32(unsafe.Sizeof(info))
		_, _, _ = unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soMeminfo,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
		used += uint64(info[meminfoUsed])
		drops += uint64(info[meminfoDrop])
	}
	return used, drops
}

// waitUntilEmpty returns when nothing waits in the sockets, or after a while.
func (s *sockets) waitUntilEmpty(patience time.Duration) {
	for begin := time.Now(); time.Since(begin) < patience; time.Sleep(5 * time.Millisecond) {
		if used, _ := s.state(); used == 0 {
			return
		}
	}
}

// watch is what was seen of sockets while there was traffic.
type watch struct {
	Pause  time.Duration `json:"pause"`  // the longest time in which a queue that was not empty was not read
	Long   int           `json:"long"`   // how many times of more than longPause there were
	Unseen time.Duration `json:"unseen"` // the longest time in which nobody looked
	Peak   uint64        `json:"peak"`   // bytes that waited
}

// longPause is the longest that nobody is to see.
const longPause = 5 * time.Millisecond

// lookEvery is how often a watcher looks: about, since the kernel has to let it.
const lookEvery = 500 * time.Microsecond

// startWatch looks until finish is called. A pause is taken to begin at the last look
// that saw that datagrams had been read, or an empty queue, and to end at the first that
// sees so again; what the watcher itself did not get to run is taken off it, so that a
// busy machine does not count as the server's pause. It is true within lookEvery.
//
// A queue may grow while it is read, and datagrams come as the sender gets to run. So the
// kernel is asked how many it has handed over, to all processes: the server must be the
// only one that receives many.
//
// With cpus it looks from these processors, and takes nothing from a server that has the
// others.
func (s *sockets) startWatch(cpus *unix.CPUSet) (finish func() watch) {
	var stop atomic.Bool
	handed := openHandedOver()
	var w watch
	var done sync.WaitGroup
	look := func() error {
		// The thread must not end: servers are killed with the thread that started them,
		// and that may be this one. So it gets its usual slack (0) back.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0)
		nap := unix.NsecToTimespec(int64(lookEvery))
		defer handed.close()
		last, _ := s.state()
		lastRead := handed.count()
		lastLook := time.Now()
		reading := lastLook
		late := time.Duration(0)
		ended := func(now time.Time) {
			pause := now.Sub(reading) - late
			if w.Pause = max(w.Pause, pause); pause > longPause {
				w.Long++
			}
		}
		for !stop.Load() {
			// Not a call that Go's scheduler hears of: it takes twice the CPU, and
			// the server has to share.
			_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
			used, _ := s.state()
			read := handed.count()
			now := time.Now()
			gap := now.Sub(lastLook)
			w.Unseen = max(w.Unseen, gap)
			w.Peak = max(w.Peak, used)
			late += max(0, gap-2*lookEvery)
			if used < last || used == 0 || read != lastRead {
				if last > 0 {
					ended(now)
				}
				reading, late = now, 0
			}
			last, lastRead, lastLook = used, read, now
		}
		if last > 0 {
			ended(time.Now())
		}
		return nil
	}
	done.Go(func() {
		if err := runOn(cpus, look); err != nil {
			panic("BUG: processors that were there are not: " + err.Error())
		}
	})
	return func() watch {
		stop.Store(true)
		done.Wait()
		return w
	}
}

// handedOver reads how many datagrams of UDP the kernel has handed over to processes:
// InDatagrams in /proc/net/snmp, which counts what recvmsg and its like return.
type handedOver struct {
	fd   int // -1: this system does not say
	text [4096]byte
}

func openHandedOver() *handedOver {
	fd, err := unix.Open("/proc/net/snmp", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		fd = -1
	}
	return &handedOver{fd: fd}
}

func (h *handedOver) close() { _ = unix.Close(h.fd) }

// count returns the number, always the same if this system does not say.
func (h *handedOver) count() (n uint64) {
	size, _ := unix.Pread(h.fd, h.text[:], 0)
	_, text, _ := bytes.Cut(h.text[:max(0, size)], []byte("\nUdp: ")) // the names
	_, text, _ = bytes.Cut(text, []byte("\nUdp: "))
	for _, digit := range text {
		if digit < '0' || digit > '9' {
			break
		}
		n = 10*n + uint64(digit-'0')
	}
	return n
}
