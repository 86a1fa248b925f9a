package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Config says where to listen. It is the section "listen" of the configuration.
type Config struct {
	UDP           string       `yaml:"udp"`            // host:port; "" for none
	UnixDatagram  string       `yaml:"unix_datagram"`  // path of a socket file; "" for none
	UnixStream    string       `yaml:"unix_stream"`    // path of a socket file; "" for none
	TCP           string       `yaml:"tcp"`            // host:port; "" for none
	More          []Socket     `yaml:"more"`           // further sockets
	ReceiveBuffer metric.Bytes `yaml:"receive_buffer"` // of each UDP socket; 0: see receiveBuffer
	MaxPacket     metric.Bytes `yaml:"max_packet"`     // longer datagrams and lines are cut, longer frames end their connection
	Readers       int          `yaml:"readers"`        // for each address; 0: one for each CPU
	Engine        string       `yaml:"engine"`         // of UDP: auto, recvmmsg or gnet
	SocketMode    string       `yaml:"socket_mode"`    // of Unix sockets, octal

	MaxConnections int           `yaml:"max_connections"` // to each TCP or Unix stream socket
	IdleTimeout    time.Duration `yaml:"idle_timeout"`    // of a connection; 0: never

	// OriginDetection asks the kernel for the processes behind Unix sockets. It
	// belongs to another section of the configuration.
	OriginDetection bool `yaml:"-"`

	// Memory is how much the process may take, in bytes; 0: as much as there is. Nobody
	// configures it.
	Memory uint64 `yaml:"-"`
}

// Socket is one address to listen on. Dialect and tag style are not for the
// listener: Reader hands them to whoever parses what arrives there.
type Socket struct {
	Network  string `yaml:"network"`   // udp, unix_datagram, unix_stream or tcp
	Address  string `yaml:"address"`   // host:port or a path
	Dialect  string `yaml:"dialect"`   // "": the agent's
	TagStyle string `yaml:"tag_style"` // "": the agent's
}

// The networks. Their names are keys of the configuration and values of the tag
// "network", so they do not change.
const (
	UDP          = "udp"
	UnixDatagram = "unix_datagram"
	UnixStream   = "unix_stream"
	TCP          = "tcp"
)

// networks in the order in which they are listed.
var networks = []string{UDP, UnixDatagram, UnixStream, TCP}

// The engines of UDP. Auto takes recvmmsg on Linux and gnet elsewhere.
const (
	EngineAuto     = "auto"
	EngineRecvmmsg = "recvmmsg"
	EngineGnet     = "gnet"
)

const (
	minPacket = 512
	maxPacket = 64 << 10 // no datagram is longer

	minReceiveBuffer = 64 << 10
	maxReceiveBuffer = 512 << 20 // the kernel counts twice that in 31 bits

	// What 0 stands for: largestReceiveBuffer, or as much less as leaves all sockets of UDP
	// together one in so many parts of the memory, but no less than leastReceiveBuffer.
	largestReceiveBuffer = 16 << 20
	leastReceiveBuffer   = 1 << 20
	receiveBufferShare   = 8

	maxReaders = 64
	// defaultMaxReaders is the most that 0 stands for: one reader takes over half a
	// million datagrams a second, and each one that is awake costs wakeups.
	defaultMaxReaders = 8

	mostConnections = 100_000
	minIdleTimeout  = 100 * time.Millisecond

	// maxPath is how long the path of a Unix socket may be on every system.
	maxPath = 103
)

// DefaultConfig returns the defaults: the Datadog Agent's address, packet size
// and mode of Unix sockets.
func DefaultConfig() Config {
	return Config{
		UDP:            "127.0.0.1:8125",
		More:           []Socket{},
		MaxPacket:      8 << 10,
		Engine:         EngineAuto,
		SocketMode:     "0722",
		MaxConnections: 1024,
		IdleTimeout:    5 * time.Minute,
	}
}

// keyed is a socket with the key of the configuration that names its address.
type keyed struct {
	Socket
	key string // "listen.udp", "listen.more[0].address"; "" if it is systemd's
}

// sockets returns all sockets that are configured.
func (c *Config) sockets() []keyed {
	var all []keyed
	for _, short := range []Socket{
		{Network: UDP, Address: c.UDP},
		{Network: UnixDatagram, Address: c.UnixDatagram},
		{Network: UnixStream, Address: c.UnixStream},
		{Network: TCP, Address: c.TCP},
	} {
		if short.Address != "" {
			all = append(all, keyed{short, "listen." + short.Network})
		}
	}
	for i, socket := range c.More {
		all = append(all, keyed{socket, fmt.Sprintf("listen.more[%d].address", i)})
	}
	return all
}

// Validate returns all faults of the configuration, each naming its key.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("listen.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	faults = append(faults, c.validateSockets()...)
	if c.ReceiveBuffer != 0 && (c.ReceiveBuffer < minReceiveBuffer || c.ReceiveBuffer > maxReceiveBuffer) {
		fault("receive_buffer", "%v is out of range; use %v to %v, or 0 for what suits the container", c.ReceiveBuffer, metric.Bytes(minReceiveBuffer), metric.Bytes(maxReceiveBuffer))
	}
	if c.MaxPacket < minPacket || c.MaxPacket > maxPacket {
		fault("max_packet", "%v is out of range; use %v to %v", c.MaxPacket, metric.Bytes(minPacket), metric.Bytes(maxPacket))
	}
	if c.Readers < 0 || c.Readers > maxReaders {
		fault("readers", "%d is out of range; use 1 to %d, or 0 for one for each CPU", c.Readers, maxReaders)
	}
	switch c.Engine {
	case EngineAuto, EngineGnet:
	case EngineRecvmmsg:
		if !haveRecvmmsg {
			fault("engine", "recvmmsg needs Linux; use auto")
		}
	default:
		fault("engine", "there is no engine %q; use auto, recvmmsg or gnet", c.Engine)
	}
	if _, err := parseMode(c.SocketMode); err != nil {
		fault("socket_mode", "%v", err)
	}
	if c.MaxConnections < 1 || c.MaxConnections > mostConnections {
		fault("max_connections", "%d is out of range; use 1 to %d", c.MaxConnections, mostConnections)
	}
	if c.IdleTimeout != 0 && c.IdleTimeout < minIdleTimeout {
		fault("idle_timeout", "%v is too short; use %v or more, or 0s for no limit", c.IdleTimeout, minIdleTimeout)
	}
	return errors.Join(faults...)
}

func (c *Config) validateSockets() (faults []error) {
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
	}
	all := c.sockets()
	if len(all) == 0 && !activated() {
		fault("listen.udp", "there is nothing to listen on; set an address such as 127.0.0.1:8125")
	}
	seen := map[string]string{}
	for _, s := range all {
		check := checkAddress
		switch s.Network {
		case UDP, TCP:
		case UnixDatagram, UnixStream:
			check = checkPath
		case "":
			fault(strings.TrimSuffix(s.key, "address")+"network", "it is missing; use one of %s", strings.Join(networks, ", "))
			continue
		default:
			fault(strings.TrimSuffix(s.key, "address")+"network", "there is no network %q; use one of %s", s.Network, strings.Join(networks, ", "))
			continue
		}
		if err := check(s.Address); err != nil {
			fault(s.key, "%v", err)
			continue
		}
		id := s.Network + " " + s.Address
		if strings.HasPrefix(s.Network, "unix_") {
			id = filepath.Clean(s.Address) // a path is one socket, of whatever network
		}
		if other, twice := seen[id]; twice && !strings.HasSuffix(id, ":0") {
			fault(s.key, "%s is the address of %s already; remove one", s.Address, other)
		}
		seen[id] = s.key
	}
	return faults
}

func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port; write an address such as 127.0.0.1:8125 or [::1]:8125", address)
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return fmt.Errorf("%q is not a port number; use 1 to 65535", port)
	}
	if n < 0 || n > 65535 {
		return fmt.Errorf("port %d is out of range; use 1 to 65535", n)
	}
	return nil
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) || strings.HasSuffix(path, "/") || strings.ContainsRune(path, 0) {
		return fmt.Errorf("%q is not the path of a socket file; write an absolute one such as /run/weir/dogstatsd.sock", path)
	}
	if len(path) > maxPath {
		return fmt.Errorf("the path has %d bytes, and a socket's may have %d; use a shorter one", len(path), maxPath)
	}
	return nil
}

// parseMode reads permissions in octal.
func parseMode(text string) (os.FileMode, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("%q is not a mode; write three octal digits such as 0722 or 0660", text)
	}
	return os.FileMode(n), nil
}

// mode returns the mode of Unix sockets; the configuration has passed Validate.
func (c *Config) mode() os.FileMode {
	mode, _ := parseMode(c.SocketMode)
	return mode
}

// receiveBuffer returns what each of so many sockets of UDP asks for. What the kernel
// holds for readers that are behind is not to take a small container's memory from the
// rest of the agent (docs/decisions.md). The kernel doubles it.
func (c *Config) receiveBuffer(sockets int) metric.Bytes {
	if c.ReceiveBuffer > 0 {
		return c.ReceiveBuffer
	}
	if c.Memory == 0 || sockets == 0 {
		return largestReceiveBuffer
	}
	share := c.Memory / receiveBufferShare / 2 / uint64(sockets)
	return metric.Bytes(min(max(share, leastReceiveBuffer), largestReceiveBuffer))
}

// readers returns how many readers serve a socket. A Unix datagram socket cannot
// share its path with another, and an inherited one is the only one there is.
func (c *Config) readers(network string, inherited bool) int {
	switch {
	case network == UnixDatagram, network == UDP && inherited:
		return 1
	case c.Readers > 0:
		return c.Readers
	}
	return min(runtime.GOMAXPROCS(0), defaultMaxReaders)
}

func (c *Config) engine() string {
	if c.Engine == EngineAuto && haveRecvmmsg {
		return EngineRecvmmsg
	}
	if c.Engine == EngineAuto {
		return EngineGnet
	}
	return c.Engine
}
