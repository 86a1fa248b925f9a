package listener

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strconv"

	"github.com/weir-agent/weir/metric"
)

// Config says where to listen. It is the section "listen" of the configuration.
type Config struct {
	UDP           string       `yaml:"udp"`            // host:port
	ReceiveBuffer metric.Bytes `yaml:"receive_buffer"` // of each socket
	MaxPacket     metric.Bytes `yaml:"max_packet"`     // longer ones are cut
	Readers       int          `yaml:"readers"`        // sockets per address; 0: one for each CPU
	Engine        string       `yaml:"engine"`         // auto, recvmmsg or gnet
}

// The engines. Auto takes recvmmsg on Linux and gnet elsewhere.
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

	maxReaders = 64
	// defaultMaxReaders is the most that 0 stands for: one reader takes over half a
	// million datagrams a second, and each one that is awake costs wakeups.
	defaultMaxReaders = 8
)

// DefaultConfig returns the defaults: the Datadog Agent's address and packet
// size.
func DefaultConfig() Config {
	return Config{
		UDP:           "127.0.0.1:8125",
		ReceiveBuffer: 4 << 20,
		MaxPacket:     8 << 10,
		Engine:        EngineAuto,
	}
}

// Validate returns all faults of the configuration, each naming its key.
func (c *Config) Validate() error {
	var faults []error
	fault := func(key, format string, args ...any) {
		faults = append(faults, fmt.Errorf("listen.%s: %s", key, fmt.Sprintf(format, args...)))
	}
	if c.UDP == "" {
		fault("udp", "there is nothing to listen on; set an address such as 127.0.0.1:8125")
	} else if err := checkAddress(c.UDP); err != nil {
		fault("udp", "%v", err)
	}
	if c.ReceiveBuffer < minReceiveBuffer || c.ReceiveBuffer > maxReceiveBuffer {
		fault("receive_buffer", "%v is out of range; use %v to %v", c.ReceiveBuffer, metric.Bytes(minReceiveBuffer), metric.Bytes(maxReceiveBuffer))
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
	return errors.Join(faults...)
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

// readers returns how many sockets share an address.
func (c *Config) readers() int {
	if c.Readers > 0 {
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
