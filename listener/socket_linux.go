package listener

import (
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// socket is a datagram socket and what the kernel dropped at it.
type socket struct {
	fd int

	mu      sync.Mutex // guards the fields below, and fd against being closed
	closed  bool
	dropped uint64
	last    uint32 // the kernel's counter when dropped was last brought up to date
}

// drops brings the count up to date and returns it; ok is false if the kernel
// does not say.
func (s *socket) drops() (total uint64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.dropped, true
	}
	m, ok := memoryOf(s.fd)
	if ok {
		s.dropped += uint64(m.dropped - s.last) // the kernel counts modulo 2^32
		s.last = m.dropped
	}
	return s.dropped, ok
}

// retire keeps the count as it is from now on, and reports whether it was the
// first call: the descriptor is about to be closed.
func (s *socket) retire() bool {
	s.drops()
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !s.closed
	s.closed = true
	return first
}

func (s *socket) close() error {
	if !s.retire() {
		return nil
	}
	return os.NewSyscallError("close", unix.Close(s.fd))
}

// memory is what SO_MEMINFO says of a socket (Linux 4.12).
type memory struct {
	used    uint32 // bytes of kernel memory that waiting datagrams occupy
	buffer  uint32 // how many they may occupy
	dropped uint32 // datagrams that found no room, modulo 2^32
}

func memoryOf(fd int) (memory, bool) {
	// The array's places are numbered in linux/sock_diag.h.
	const rmemAlloc, rcvbuf, drops, places = 0, 1, 8, 9
	var info [places]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 || size < uint32(unsafe.Sizeof(info)) {
		return memory{}, false
	}
	return memory{used: info[rmemAlloc], buffer: info[rcvbuf], dropped: info[drops]}, true
}

// receiveBufferOf returns a socket's receive buffer in the measure one asks for
// it: the kernel doubles that, to have room for its bookkeeping, and reports the
// double.
func receiveBufferOf(fd int) int {
	doubled, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0
	}
	return doubled / 2
}
