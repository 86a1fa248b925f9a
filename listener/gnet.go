package listener

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"
)

// gnetEngine reads the sockets in gnet's event loops: one datagram each time one
// is ready and then, where the system can, all others that wait.
type gnetEngine struct {
	gnet.BuiltinEventEngine

	cfg   Config
	bound netip.AddrPort
	url   string // of the sockets, for gnet
	stats []readerStats
	// drains says to empty sockets beyond the one datagram that gnet reads.
	drains bool

	handle  Handler
	stopped atomic.Bool
	booted  chan gnet.Engine

	size int // of the receive buffer, as granted

	mu    sync.Mutex // guards loops
	loops map[int]*gnetLoop
}

// gnetLoop is the state of one event loop; its socket's descriptor is the key.
type gnetLoop struct {
	number  int
	stats   *readerStats
	sweeper *sweeper
	packets [1]Packet
}

// openGnet finds out whether the address is free. Gnet binds its sockets when it
// runs, and would share the address with another agent.
func openGnet(cfg Config, address *net.UDPAddr, stats []readerStats) (engine, error) {
	network := "udp"
	if address.IP.To4() != nil {
		network = "udp4" // or 0.0.0.0 would be all addresses of both families
	}
	probe, err := net.ListenUDP(network, address)
	if err != nil {
		return nil, err
	}
	bound := probe.LocalAddr().(*net.UDPAddr).AddrPort()
	_ = probe.SetReadBuffer(int(cfg.ReceiveBuffer)) // what comes of it, the sockets will get as well
	size := 0
	if raw, err := probe.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { size = receiveBufferOf(int(fd)) })
	}
	if err := probe.Close(); err != nil {
		return nil, err
	}
	url := network + "://" + bound.String()
	if address.IP == nil || address.IP.Equal(net.IPv6unspecified) {
		url = fmt.Sprintf("udp://:%d", bound.Port()) // all addresses of both families; "[::]" is for gnet those of one
	}
	return &gnetEngine{
		cfg: cfg, bound: bound, url: url, size: size, stats: stats, drains: haveRecvmmsg,
		booted: make(chan gnet.Engine, 1), loops: map[int]*gnetLoop{},
	}, nil
}

func (e *gnetEngine) name() string { return EngineGnet }

func (e *gnetEngine) address() string { return e.bound.String() }

// processors: its loops pause as the readers of recvmmsg do.
func (e *gnetEngine) processors() int {
	if !e.drains {
		return 0
	}
	return len(e.stats)
}

func (e *gnetEngine) close() error { return nil }

func (e *gnetEngine) granted() int { return e.size }

func (e *gnetEngine) drops() (total uint64, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, loop := range e.loops {
		n, ok := loop.sweeper.socket.drops()
		if !ok {
			return 0, false
		}
		total += n
	}
	return total, haveRecvmmsg
}

func (e *gnetEngine) dropsOf(reader int) (n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, loop := range e.loops {
		if loop.number == reader {
			n, _ = loop.sweeper.socket.drops()
		}
	}
	return n
}

func (e *gnetEngine) run(stop <-chan struct{}, handle Handler) error {
	e.handle = handle
	ended := make(chan error, 1)
	go func() {
		ended <- gnet.Run(e, e.url,
			gnet.WithNumEventLoop(len(e.stats)),
			gnet.WithReusePort(true),
			gnet.WithSocketRecvBuffer(int(e.cfg.ReceiveBuffer)),
			gnet.WithReadBufferCap(maxPacket), // gnet does not say when a datagram was longer than this
			gnet.WithLockOSThread(true),
			gnet.WithLogger(silentLogger{}),
		)
	}()
	select {
	case err := <-ended:
		return errors.Join(errors.New("the event loops ended"), err)
	case <-stop:
	}
	e.stopped.Store(true)
	select {
	case err := <-ended:
		return err
	case running := <-e.booted:
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		return errors.Join(running.Stop(ctx), <-ended)
	}
}

// OnBoot is called when the sockets are open, before the loops start.
func (e *gnetEngine) OnBoot(engine gnet.Engine) gnet.Action {
	e.booted <- engine
	return gnet.None
}

// OnShutdown is called before the sockets are closed.
func (e *gnetEngine) OnShutdown(gnet.Engine) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, loop := range e.loops {
		loop.sweeper.socket.retire()
	}
}

// OnTraffic is called by an event loop with one datagram.
func (e *gnetEngine) OnTraffic(c gnet.Conn) gnet.Action {
	loop := e.loop(c.Fd())
	loop.stats.wakeups.Add(1)
	data, err := c.Next(-1)
	if err != nil {
		return gnet.None
	}
	limit := int(e.cfg.MaxPacket)
	loop.packets[0] = Packet{Data: data[:min(len(data), limit)], Cut: len(data) > limit}
	e.handle(loop.number, loop.packets[:])
	if e.drains {
		if err := loop.sweeper.sweep(&e.stopped); err != nil {
			return gnet.Shutdown
		}
	}
	return gnet.None
}

func (e *gnetEngine) loop(fd int) *gnetLoop {
	e.mu.Lock()
	defer e.mu.Unlock()
	if loop := e.loops[fd]; loop != nil {
		return loop
	}
	number := len(e.loops)
	loop := &gnetLoop{number: number, stats: &e.stats[number]}
	loop.sweeper = newSweeper(&socket{fd: fd}, newDrain(int(e.cfg.MaxPacket), nil), pacer{}, loop.stats, func(packets []Packet) { e.handle(number, packets) })
	e.loops[fd] = loop
	return loop
}

// silentLogger keeps gnet from writing to standard output and error. What it
// could say, run returns.
type silentLogger struct{}

var _ logging.Logger = silentLogger{}

func (silentLogger) Debugf(string, ...any) {}
func (silentLogger) Infof(string, ...any)  {}
func (silentLogger) Warnf(string, ...any)  {}
func (silentLogger) Errorf(string, ...any) {}
func (silentLogger) Fatalf(string, ...any) {}
