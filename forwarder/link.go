package forwarder

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The networks of a relay, as its address names them.
const (
	overUDP  = "udp"  // host:port; the default
	overTCP  = "tcp"  // host:port
	overUnix = "unix" // a path; of datagrams or of a stream, whichever it is
)

// addressSchemes are what may stand before an address, by type.
var (
	addressSchemes = map[string][]string{
		TypeDogStatsD: {overUDP, overUnix, overTCP},
		TypeStatsD:    {overUDP, overTCP},
	}
	addressExamples = map[string]string{
		TypeDogStatsD: "10.0.0.1:8125, unix:///run/datadog/dsd.socket or tcp://10.0.0.1:8125",
		TypeStatsD:    "10.0.0.1:8125 or tcp://10.0.0.1:8125",
	}
)

// splitRelayAddress returns the network and the address in text.
func splitRelayAddress(text string) (network, address string) {
	if network, address, found := strings.Cut(text, "://"); found {
		return network, address
	}
	return overUDP, text
}

func checkRelayAddress(kind, text string) error {
	network, address := splitRelayAddress(text)
	known := false
	for _, scheme := range addressSchemes[kind] {
		known = known || scheme == network
	}
	switch {
	case !known:
		return fmt.Errorf("a forwarder of type %s does not send to %s://; write an address such as %s", kind, network, addressExamples[kind])
	case network == overUnix:
		if !filepath.IsAbs(address) {
			return fmt.Errorf("%q is not an absolute path; write one such as unix:///run/datadog/dsd.socket", address)
		}
		return nil
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not host:port; write an address such as %s", address, addressExamples[kind])
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q is not a port; use 1 to 65535", port)
	}
	return nil
}

const (
	dialTimeout  = 5 * time.Second
	writeTimeout = 5 * time.Second
	// redialUDP is how old a UDP socket gets before its host's name is looked up
	// again: nobody says when a datagram goes to where nobody is any more.
	redialUDP = time.Minute
)

// link is the connection of a relay. It dials when there is something to write and
// no connection. One goroutine writes; interrupt and close may come from others.
type link struct {
	network, address string
	timeout          time.Duration // of a write
	dialed           time.Time
	framed           bool   // a Unix stream: each packet stands behind its length
	frame            []byte // the packet behind its length

	mu          sync.Mutex // guards the fields below
	conn        net.Conn   // nil: none
	interrupted bool
}

var errInterrupted = errors.New("the agent stops")

// refresh dials UDP anew from time to time. What does not succeed changes nothing.
func (l *link) refresh(ctx context.Context) {
	if l.network == overUDP && l.current() != nil && time.Since(l.dialed) > redialUDP {
		_ = l.dial(ctx)
	}
}

func (l *link) current() net.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// dial replaces the connection.
func (l *link) dial(ctx context.Context) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	network := l.network
	if network == overUnix {
		network = "unixgram"
	}
	conn, err := dialer.DialContext(ctx, network, l.address)
	if errors.Is(err, syscall.EPROTOTYPE) {
		network = "unix"
		conn, err = dialer.DialContext(ctx, network, l.address)
	}
	if err != nil {
		return err
	}
	l.framed = network == "unix"
	if network == "unix" || network == overTCP {
		// A server says nothing. What can be read is that it has gone, which a write
		// would not notice.
		go func() {
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}()
	}
	l.dialed = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.interrupted {
		conn.Close()
		return errInterrupted
	}
	if l.conn != nil {
		l.conn.Close()
	}
	l.conn = conn
	return nil
}

// write sends a packet of whole lines. If it cannot, it returns how many bytes
// need not be sent again, which are whole lines, too.
func (l *link) write(ctx context.Context, packet []byte) (sent int, err error) {
	conn := l.current()
	if conn == nil {
		if err := l.dial(ctx); err != nil {
			return 0, err
		}
		if conn = l.current(); conn == nil {
			return 0, errInterrupted
		}
	}
	if err := conn.SetWriteDeadline(time.Now().Add(l.timeout)); err != nil {
		l.hangUp()
		return 0, err
	}
	out := packet
	if l.framed {
		l.frame = append(binary.LittleEndian.AppendUint32(l.frame[:0], uint32(len(packet))), packet...)
		out = l.frame
	}
	n, err := conn.Write(out)
	if err == nil && l.network == overUDP {
		err = refusal(conn)
	}
	if err == nil {
		return len(packet), nil
	}
	l.hangUp()
	if l.network == overTCP {
		return bytes.LastIndexByte(packet[:n], '\n') + 1, err
	}
	return 0, err
}

func (l *link) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// interrupt ends a write that is waiting, and all that follow.
func (l *link) interrupt() {
	l.mu.Lock()
	l.interrupted = true
	l.mu.Unlock()
	l.hangUp()
}
