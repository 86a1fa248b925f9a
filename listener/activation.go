package listener

import (
	"fmt"
	"net"
	"net/netip"
	"os"
)

// inherited is a socket that systemd opened before the process began.
type inherited struct {
	file    *os.File
	network string
	address string         // a path or host:port
	where   netip.AddrPort // of the latter
}

func (in *inherited) close() {
	if in != nil {
		_ = in.file.Close()
	}
}

// match gives each inherited socket to the configured one it is meant for; the
// others are further sockets with the agent's own dialect.
func match(configured []keyed, passed []*inherited) []planned {
	plan := make([]planned, len(configured))
	for i, k := range configured {
		plan[i].keyed = k
	}
next:
	for _, in := range passed {
		for i := range plan {
			if plan[i].inherited == nil && in.serves(plan[i].Socket) {
				plan[i].inherited = in
				continue next
			}
		}
		plan = append(plan, planned{keyed{Socket: Socket{Network: in.network, Address: in.address}}, in})
	}
	return plan
}

// serves reports whether a configured socket is this one. One that listens on all
// addresses is each of them: nobody could open another on its port.
func (in *inherited) serves(s Socket) bool {
	if in.network != s.Network {
		return false
	}
	if !in.where.IsValid() {
		return in.address == s.Address
	}
	where, err := resolve(s.Address)
	if err != nil {
		return false // reported when the socket is opened
	}
	mine := netip.AddrPortFrom(in.where.Addr().Unmap(), in.where.Port())
	return mine == where || mine.Port() == where.Port() && mine.Addr().IsUnspecified()
}

// resolve looks up host:port. Without a host the address is that of all.
func resolve(address string) (netip.AddrPort, error) {
	a, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	ip, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		ip = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(ip.Unmap().WithZone(a.Zone), uint16(a.Port)), nil
}

// cannotUse says what to do about an inherited socket that is of no use.
func cannotUse(name, what string) error {
	return fmt.Errorf("systemd passed %s, which is %s; write ListenDatagram= or ListenStream= with an address or a path, and Accept=no, in the socket unit", name, what)
}
