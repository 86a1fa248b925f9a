package listener

import (
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openUnixDatagram opens a Unix datagram socket, for one reader.
func openUnixDatagram(cfg Config, p planned, stats []readerStats) (engine, error) {
	e := &recvmmsgEngine{
		max: int(cfg.MaxPacket), queue: queueLimit(), where: p.Address,
		shortWait: shortWait, stats: stats,
	}
	var fd int
	var err error
	if p.inherited != nil {
		if fd, err = p.inherited.take(); err != nil {
			return nil, fmt.Errorf("take over %s %s: %w", p.Network, p.Address, err)
		}
	} else {
		e.ours = true
		if fd, e.file, err = bindUnixDatagram(p.Address, cfg.mode()); err != nil {
			return nil, explainPath(err, p.keyed)
		}
	}
	e.sockets = []*socket{{fd: fd}}
	if cfg.OriginDetection {
		e.proc = procFolder
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
			return nil, errors.Join(os.NewSyscallError("setsockopt SO_PASSCRED", err), e.close())
		}
	}
	return e, nil
}

func bindUnixDatagram(path string, mode os.FileMode) (fd int, file *socketFile, err error) {
	defer alone(path)()
	if err := clearPath(path); err != nil {
		return -1, nil, err
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	limitMode(fd, mode)
	if err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: path})); err == nil {
		file, err = claim(path, mode)
	}
	if err != nil {
		file.remove()
		return -1, nil, errors.Join(err, os.NewSyscallError("close", unix.Close(fd)))
	}
	return fd, file, nil
}

// limitMode sets the mode a socket's file will have, before the umask.
func limitMode(fd int, mode os.FileMode) { _ = unix.Fchmod(fd, uint32(mode)) }

// queueLimit returns how many datagrams wait in a Unix socket before their senders
// have to.
func queueLimit() int { return kernelSetting("net/unix/max_dgram_qlen", usualQueue) }

// credentialsSize is the room for one control message with the sender's process
// and users, and for nothing else: files that a client attaches are closed by the
// kernel.
var credentialsSize = unix.CmsgSpace(unix.SizeofUcred)

// expectCredentials makes room for control messages; the kernel writes into the
// headers how much of it it has used.
func (d *drain) expectCredentials() {
	for i := range d.headers {
		h := &d.headers[i].header
		h.Control = &d.control[i*credentialsSize]
		h.SetControllen(credentialsSize)
	}
}

// readSenders fills in the senders of the first n packets.
func (d *drain) readSenders(n int) {
	now := time.Now()
	for i := range n {
		if int(d.headers[i].header.Controllen) < unix.CmsgLen(unix.SizeofUcred) {
			continue
		}
		message := d.control[i*credentialsSize:]
		header := (*unix.Cmsghdr)(unsafe.Pointer(&message[0]))
		if header.Level != unix.SOL_SOCKET || header.Type != unix.SCM_CREDENTIALS {
			continue
		}
		sender := (*unix.Ucred)(unsafe.Pointer(&message[unix.CmsgLen(0)]))
		d.packets[i].Sender = d.origins.container(sender.Pid, now)
	}
}

// peerProcess returns the process at the other end of a connection; 0 if it is
// not known.
func peerProcess(fd int) int32 {
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return peer.Pid
}
