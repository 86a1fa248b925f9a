//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// floorName is what the floor is called among the servers.
const floorName = "floor"

// runFloor is a bare loop that only counts bytes: recvmmsg of 64 until the socket is
// empty, then a pause like Weir's (what gathers 1,024 datagrams or 384 KiB in them, or
// fills a quarter of the buffer, at the rate just seen; 5 ms at most), or poll if that
// would gather less than two. What a server costs beyond it is its own work. Told to
// end, it says what it counted.
func runFloor(address string) error {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		return err
	}
	_ = conn.Close()
	fd := int(file.Fd())
	var datagrams, bytes atomic.Uint64
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, unix.SIGTERM)
	go func() {
		<-ended
		fmt.Printf("datagrams %d bytes %d\n", datagrams.Load(), bytes.Load())
		os.Exit(0)
	}()
	runtime.LockOSThread()

	const batch, room = 64, 8192
	type mmsghdr struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
	memory := make([]byte, batch*(room+64))
	headers, iovs := make([]mmsghdr, batch), make([]unix.Iovec, batch)
	for i := range headers {
		iovs[i].Base = &memory[i*(room+64)]
		iovs[i].SetLen(room)
		headers[i].header.Iov = &iovs[i]
		headers[i].header.SetIovlen(1)
	}
	var rate, fill, text float64
	lastEmpty := time.Now()
	for {
		var info [meminfoSize]uint32
		length := uint32(unsafe.Sizeof(info))
		_, _, _ = unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soMeminfo,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
		found, size := 0, uint64(0)
		for {
			n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&headers[0])), batch, unix.MSG_DONTWAIT, 0, 0)
			if errno != 0 {
				break
			}
			for i := range int(n) {
				size += uint64(headers[i].length)
			}
			if found += int(n); n < batch {
				break
			}
		}
		datagrams.Add(uint64(found))
		bytes.Add(size)
		now := time.Now()
		elapsed := now.Sub(lastEmpty).Seconds()
		lastEmpty = now
		rate = max(float64(found)/elapsed, rate*7/8)
		text = max(float64(size)/elapsed, text*7/8)
		fill = max(float64(info[meminfoUsed])/elapsed, fill*7/8)
		pause := min(0.005, 1024/max(rate, 1), 384<<10/max(text, 1), receiveBuffer*2/4/max(fill, 1))
		if rate*pause < 2 {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			_, _ = unix.Poll(poll, -1)
			continue
		}
		span := unix.NsecToTimespec(int64(pause * 1e9))
		_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&span)), 0, 0)
	}
}
