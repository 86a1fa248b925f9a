package listener

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// openUDP opens the sockets of a UDP address.
func openUDP(cfg Config, p planned, stats []readerStats) (engine, error) {
	if p.inherited != nil {
		return inheritRecvmmsg(cfg, p, stats)
	}
	address, err := net.ResolveUDPAddr("udp", p.Address)
	if err != nil {
		return nil, fmt.Errorf("look up the address of %s: %w", p.key, err)
	}
	var e engine
	switch cfg.engine() {
	case EngineGnet:
		e, err = openGnet(cfg, address, stats)
	default:
		e, err = openRecvmmsg(cfg, address, stats)
	}
	if err != nil {
		return nil, explain(err, p.keyed, address.String(), address.Port)
	}
	return e, nil
}

// explain says what to do about a socket that did not open.
func explain(err error, s keyed, address string, port int) error {
	what := fmt.Sprintf("listen on %s %s", s.Network, address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		flags := map[string]string{UDP: "-ulpn", TCP: "-tlpn"}[s.Network]
		return fmt.Errorf("%s: the port is taken (%w); stop the other StatsD server ('ss %s sport = :%d' names it) or set %s to another port", what, err, flags, port, s.key)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: no permission (%w); set %s to a port above 1023, or give the binary the capability CAP_NET_BIND_SERVICE", what, err, s.key)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: this machine does not have that address (%w); set %s to one that 'ip address' shows, or to 0.0.0.0:%d for all", what, err, s.key, port)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// explainPath says what to do about a Unix socket that did not open.
func explainPath(err error, s keyed) error {
	what := fmt.Sprintf("listen on %s %s", s.Network, s.Address)
	switch {
	case errors.Is(err, errTaken), errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: the path is taken (%w); stop the other StatsD server ('ss -xlp' names it) or set %s to another path", what, err, s.key)
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%s: no permission (%w); let the agent's user write to the folder, or set %s to another path", what, err, s.key)
	}
	return fmt.Errorf("%s: %w", what, err)
}
