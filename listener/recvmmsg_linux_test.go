package listener

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func recvmmsgConfig(readers int) Config {
	cfg := DefaultConfig()
	cfg.UDP, cfg.Readers, cfg.Engine = "127.0.0.1:0", readers, EngineRecvmmsg
	return cfg
}

// Readers wait behind the scheduler's back. A collection must not have to wait for
// them, or every allocation in the agent does.
func TestReadersDoNotHoldUpTheCollector(t *testing.T) {
	l, err := New(recvmmsgConfig(2), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	l.sockets[0].engine.(*recvmmsgEngine).shortWait = 25 * time.Second
	r := startListener(t, l)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + r.Processors()))
	untilHeard(t, r, dial(t, r.Reader(0).Address))
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for range 5 {
			runtime.GC()
		}
	}()
	select {
	case <-collected:
	case <-time.After(20 * time.Second):
		r.stop()
		t.Fatal("the collector waited for the readers")
	}
}

// A socket that breaks ends the listener with an error at once, and does not wait
// for the next datagram or for the other readers.
func TestBrokenSocketIsReported(t *testing.T) {
	l, err := New(recvmmsgConfig(2), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// recvmmsg fails on what is not a socket.
	if err := unix.Dup3(int(null.Fd()), l.sockets[0].engine.(*recvmmsgEngine).sockets[1].fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(context.Background(), func(int, []Packet) {}) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a broken socket is no error")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the listener went on with a broken socket")
	}
}

// Clients that go on sending while the agent stops do not keep it, and what they
// sent is received, counted as dropped, or refused to them; only what arrives
// between a reader's last look and its closing the socket has no trace.
func TestStopUnderLoad(t *testing.T) {
	l, err := New(recvmmsgConfig(2), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	received := make(chan struct{}, 1)
	go func() {
		ended <- l.Run(ctx, func(int, []Packet) {
			select {
			case received <- struct{}{}:
			default:
			}
		})
	}()
	var sent atomic.Uint64
	const clients = 4
	refused := make(chan struct{}, clients)
	for range clients {
		conn := dial(t, l.Reader(0).Address)
		go func() {
			for {
				if _, err := conn.Write([]byte("page.views:1|c")); err != nil {
					refused <- struct{}{}
					return
				}
				sent.Add(1)
			}
		}()
	}
	<-received
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	for range clients {
		<-refused
	}
	s := l.Stats()
	accounted := s.Datagrams + s.KernelDrops
	// A few per reader and client at most are in the gap.
	if missing := sent.Load() - accounted; accounted > sent.Load() || missing > sent.Load()/10+64 {
		t.Errorf("sent %d, received %d, dropped %d: %d have no trace", sent.Load(), s.Datagrams, s.KernelDrops, missing)
	}
}

// All addresses are those of both families.
func TestWildcardTakesBothFamilies(t *testing.T) {
	for _, address := range []string{":0", "[::]:0"} {
		t.Run(address, func(t *testing.T) {
			cfg := recvmmsgConfig(2)
			cfg.UDP = address
			r := start(t, cfg)
			_, port, err := net.SplitHostPort(r.Reader(0).Address)
			if err != nil {
				t.Fatal(err)
			}
			untilHeard(t, r, dial(t, "127.0.0.1:"+port))
			if conn, err := net.ListenPacket("udp", "[::1]:0"); err == nil {
				conn.Close()
				untilHeard(t, r, dial(t, "[::1]:"+port))
			}
		})
	}
}

// A link-local address means nothing without its interface.
func TestZoneIsKept(t *testing.T) {
	address := linkLocal(t)
	cfg := recvmmsgConfig(3)
	cfg.UDP = net.JoinHostPort(address, "0")
	r := start(t, cfg)
	if bound, err := netip.ParseAddrPort(r.Reader(0).Address); err != nil || bound.Addr().String() != address || bound.Addr().Zone() == "" {
		t.Errorf("bound to %v, want %s", r.Reader(0).Address, address)
	}
	untilHeard(t, r, dial(t, r.Reader(0).Address))
}

func linkLocal(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addresses, _ := i.Addrs()
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsLinkLocalUnicast() {
				return n.IP.String() + "%" + i.Name
			}
		}
	}
	t.Skip("this machine has no link-local IPv6 address")
	return ""
}
