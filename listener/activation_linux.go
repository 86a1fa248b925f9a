package listener

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// activated reports whether systemd passed sockets to this process that nobody
// has taken yet.
func activated() bool {
	pid, err := strconv.Atoi(os.Getenv("LISTEN_PID"))
	if err != nil || pid != os.Getpid() {
		return false
	}
	n, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	return err == nil && n > 0
}

// inheritedSockets takes the sockets that systemd passed, and removes the
// variables that say so.
func inheritedSockets() ([]*inherited, error) {
	var all []*inherited
	for _, file := range activation.Files(true) {
		in, err := newInherited(file)
		if err != nil {
			_ = file.Close()
			for _, taken := range all {
				taken.close()
			}
			return nil, err
		}
		all = append(all, in)
	}
	return all, nil
}

// newInherited finds out what kind of socket a file is.
func newInherited(file *os.File) (*inherited, error) {
	fd := int(file.Fd())
	what := fmt.Sprintf("file descriptor %d (%s)", fd, file.Name())
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return nil, cannotUse(what, "no socket")
	}
	listening, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("ask for the address of %s: %w", what, os.NewSyscallError("getsockname", err))
	}
	in := &inherited{file: file}
	switch a := bound.(type) {
	case *unix.SockaddrUnix:
		in.address = a.Name
		in.network = map[int]string{unix.SOCK_DGRAM: UnixDatagram, unix.SOCK_STREAM: UnixStream}[kind]
	default:
		in.where = addrPort(bound)
		in.address = in.where.String()
		in.network = map[int]string{unix.SOCK_DGRAM: UDP, unix.SOCK_STREAM: TCP}[kind]
	}
	if in.network == "" || in.address == "" || in.address == (netip.AddrPort{}).String() {
		return nil, cannotUse(what, "a socket of another kind")
	}
	if kind == unix.SOCK_STREAM && listening == 0 {
		return nil, cannotUse(what, "a connection")
	}
	return in, nil
}

// addrPort returns an address of the Internet in the terms of Go; the zero
// AddrPort for any other.
func addrPort(where unix.Sockaddr) netip.AddrPort {
	switch a := where.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		address := netip.AddrFrom16(a.Addr)
		if a.ZoneId != 0 {
			if zone, err := net.InterfaceByIndex(int(a.ZoneId)); err == nil {
				address = address.WithZone(zone.Name)
			}
		}
		return netip.AddrPortFrom(address, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// take returns the descriptor of an inherited datagram socket, for good.
func (in *inherited) take() (fd int, err error) {
	defer in.close()
	fd, err = unix.FcntlInt(in.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, os.NewSyscallError("fcntl", unix.SetNonblock(fd, true))
}
