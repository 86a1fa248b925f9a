//go:build unix

package forwarder

import (
	"net"
	"syscall"
)

// refusal returns what the network has answered to datagrams so far: on this
// machine that a port is closed is known at once, elsewhere after a round trip.
func refusal(conn net.Conn) error {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	var errno int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		errno, failed = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR)
	}); err != nil {
		return err
	}
	if failed == nil && errno != 0 {
		failed = syscall.Errno(errno)
	}
	return failed
}
