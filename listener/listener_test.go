package listener

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

// engines runs a test with every engine this system has.
func engines(t *testing.T, test func(t *testing.T, cfg Config)) {
	names := []string{EngineGnet}
	if haveRecvmmsg {
		names = append(names, EngineRecvmmsg)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.UDP = "127.0.0.1:0"
			cfg.Readers = 2
			cfg.Engine = name
			test(t, cfg)
		})
	}
}

// running is a listener that runs, and what it received.
type running struct {
	*Listener
	stop func()

	mu      sync.Mutex
	heard   bool // a hello
	packets []string
	senders map[string]bool
	cut     int
	readers map[int]int
}

func start(t *testing.T, cfg Config) *running {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	l, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return startListener(t, l)
}

func startListener(t *testing.T, l *Listener) *running {
	t.Helper()
	r := &running{Listener: l, readers: map[int]int{}, senders: map[string]bool{}}
	busy := make([]atomic.Bool, l.Readers())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- l.Run(ctx, func(reader int, packets []Packet) {
			if busy[reader].Swap(true) {
				t.Errorf("reader %d calls twice at once", reader)
			}
			defer busy[reader].Store(false)
			r.mu.Lock()
			defer r.mu.Unlock()
			for _, p := range packets {
				if string(p.Data) == hello {
					r.heard = true
					continue
				}
				r.packets = append(r.packets, string(p.Data))
				r.senders[p.Sender] = true
				r.readers[reader]++
				if p.Cut {
					r.cut++
				}
			}
		})
	}()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *running) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.packets)
}

// lines returns all lines that were handed on, in order.
func (r *running) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.FieldsFunc(strings.Join(r.packets, "\n"), func(c rune) bool { return c == '\n' })
}

// has reports whether a line was handed on.
func (r *running) has(line string) func() bool {
	return func() bool { return slices.Contains(r.lines(), line) }
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	return dialTo(t, "udp", address)
}

func dialTo(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func write(t *testing.T, conn net.Conn, packet string) {
	t.Helper()
	if _, err := conn.Write([]byte(packet)); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// hello is a datagram that does not count.
const hello = "hello"

// untilHeard sends until the listener is up. Gnet opens its sockets only when it
// runs.
func untilHeard(t *testing.T, r *running, conn net.Conn) {
	t.Helper()
	eventually(t, "the listener hears", func() bool {
		_, _ = conn.Write([]byte(hello)) // may be refused
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.heard
	})
}

func TestEveryDatagramIsHandedOn(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		r := start(t, cfg)
		untilHeard(t, r, dial(t, r.Reader(0).Address))
		const clients, each = 64, 60
		want := map[string]bool{}
		for client := range clients {
			conn := dial(t, r.Reader(0).Address)
			for i := range each {
				packet := fmt.Sprintf("client%d.packet%d:1|c", client, i)
				want[packet] = true
				write(t, conn, packet)
			}
		}
		eventually(t, "all datagrams arrived", func() bool { return r.count() >= clients*each })
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, packet := range r.packets {
			if !want[packet] {
				t.Errorf("%q was never sent, or came twice", packet)
			}
			delete(want, packet)
		}
		if len(r.readers) != 2 {
			t.Errorf("packets by reader = %v; %d clients should meet both readers", r.readers, clients)
		}
		if s := r.Stats(); s.Datagrams < clients*each || s.Bytes == 0 || s.Wakeups == 0 || s.KernelDrops != 0 {
			t.Errorf("stats = %+v", s)
		}
	})
}

func TestLongDatagramsAreCutAndCounted(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		cfg.MaxPacket = 1024
		r := start(t, cfg)
		conn := dial(t, r.Reader(0).Address)
		untilHeard(t, r, conn)
		// One at a time and in a row: gnet reads the first of them itself.
		for range 3 {
			write(t, conn, strings.Repeat("a", 1024))
			write(t, conn, strings.Repeat("b", 1025))
			write(t, conn, strings.Repeat("c", 60_000))
		}
		eventually(t, "all arrived", func() bool { return r.count() >= 9 })
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, packet := range r.packets {
			if len(packet) != 1024 {
				t.Errorf("a packet has %d bytes", len(packet))
			}
		}
		if s := r.Stats(); r.cut != 6 || s.Cut != 6 {
			t.Errorf("%d packets marked as cut, %d counted; want 6", r.cut, s.Cut)
		}
	})
}

func TestEmptyDatagramsDoNoHarm(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		r := start(t, cfg)
		conn := dial(t, r.Reader(0).Address)
		untilHeard(t, r, conn)
		write(t, conn, "")
		write(t, conn, "")
		write(t, conn, "a:1|c")
		eventually(t, "the datagram after them arrived", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.packets) > 0 && r.packets[len(r.packets)-1] == "a:1|c"
		})
	})
}

func TestIPv6(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		if conn, err := net.ListenPacket("udp", "[::1]:0"); err != nil {
			t.Skipf("this machine has no IPv6: %v", err)
		} else {
			conn.Close()
		}
		cfg.UDP = "[::1]:0"
		r := start(t, cfg)
		untilHeard(t, r, dial(t, r.Reader(0).Address))
	})
}

// A second agent must not share the port with the first: each would get a part
// of the datagrams.
func TestPortTaken(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		first := start(t, cfg)
		untilHeard(t, first, dial(t, first.Reader(0).Address))
		cfg.UDP = first.Reader(0).Address
		_, err := New(cfg, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Fatal("a second listener got the port of the first")
		}
		for _, part := range []string{first.Reader(0).Address, "taken", "set listen.udp"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error does not say %q: %v", part, err)
			}
		}
	})
}

func TestAddressOfAnotherMachine(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		cfg.UDP = "192.0.2.1:8125" // reserved for documentation
		_, err := New(cfg, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), "does not have that address") {
			t.Errorf("err = %v", err)
		}
	})
}

func TestExplain(t *testing.T) {
	err := explain(syscall.EACCES, keyed{Socket: Socket{Network: UDP}, key: "listen.udp"}, ":80", 80)
	if !strings.Contains(err.Error(), "no permission") || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("err = %v", err)
	}
}

// What the sockets hold when the agent is told to stop was sent to it, and is
// handed on.
func TestStopDrainsTheSockets(t *testing.T) {
	if !haveRecvmmsg {
		t.Skip("gnet closes its sockets at once")
	}
	cfg := DefaultConfig()
	cfg.UDP, cfg.Readers, cfg.Engine = "127.0.0.1:0", 1, EngineRecvmmsg
	l, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, l.Reader(0).Address)
	ctx, cancel := context.WithCancel(context.Background())
	var received atomic.Int32
	inHandler, goOn := make(chan struct{}), make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- l.Run(ctx, func(_ int, packets []Packet) {
			if received.Add(int32(len(packets))) == 1 {
				close(inHandler)
				<-goOn
			}
		})
	}()
	write(t, conn, "first:1|c")
	<-inHandler
	for range 1000 {
		write(t, conn, "waiting:1|c")
	}
	cancel()
	close(goOn)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := received.Load(); got != 1001 {
		t.Errorf("%d of 1001 datagrams were handed on", got)
	}
}

// While nobody reads, the kernel drops what does not fit, and says so: sent =
// received + dropped.
func TestKernelDropsAreCounted(t *testing.T) {
	if !haveRecvmmsg {
		t.Skip("only Linux says")
	}
	engines(t, func(t *testing.T, cfg Config) {
		cfg.Readers = 1
		cfg.ReceiveBuffer = minReceiveBuffer
		l, err := New(cfg, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var blocking, marked atomic.Bool
		blocked, goOn := make(chan struct{}), make(chan struct{})
		block := sync.OnceFunc(func() {
			close(blocked)
			<-goOn
		})
		ended := make(chan error)
		go func() {
			ended <- l.Run(ctx, func(_ int, packets []Packet) {
				if blocking.Load() {
					block()
				}
				if len(packets[len(packets)-1].Data) == 1 {
					marked.Store(true)
				}
			})
		}()
		conn := dial(t, l.Reader(0).Address)
		payload := bytes.Repeat([]byte("x"), 500)
		eventually(t, "the listener hears", func() bool {
			_, _ = conn.Write(payload) // may be refused
			return l.Stats().Datagrams > 0
		})
		write(t, conn, "m") // comes behind those under way
		eventually(t, "the mark arrived", marked.Load)
		sent := l.Stats().Datagrams
		send := func() {
			write(t, conn, string(payload))
			sent++
		}
		blocking.Store(true)
		send()
		<-blocked
		for range 2000 {
			send()
		}
		close(goOn)
		eventually(t, "received + dropped = sent", func() bool {
			s := l.Stats()
			return s.KernelDrops > 0 && s.Datagrams+s.KernelDrops == sent
		})
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if s := l.Stats(); !s.DropsKnown || s.Datagrams+s.KernelDrops != sent || l.Dropped(0) != s.KernelDrops {
			t.Errorf("after the end: %+v, sent %d, the reader's socket dropped %d", s, sent, l.Dropped(0))
		}
	})
}

func TestValidate(t *testing.T) {
	if cfg := DefaultConfig(); cfg.Validate() != nil {
		t.Errorf("the defaults: %v", cfg.Validate())
	}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"nothing to listen on": {func(c *Config) { c.UDP = "" }, "listen.udp"},
		"no port":              {func(c *Config) { c.UDP = "127.0.0.1" }, "not host:port"},
		"port out of range":    {func(c *Config) { c.UDP = "127.0.0.1:81250" }, "port 81250 is out of range"},
		"port is a word":       {func(c *Config) { c.UDP = "127.0.0.1:statsd" }, "not a port number"},
		"small buffer":         {func(c *Config) { c.ReceiveBuffer = 1 }, "listen.receive_buffer"},
		"small packets":        {func(c *Config) { c.MaxPacket = 0 }, "listen.max_packet"},
		"large packets":        {func(c *Config) { c.MaxPacket = 1 << 20 }, "listen.max_packet"},
		"negative readers":     {func(c *Config) { c.Readers = -1 }, "listen.readers"},
		"unknown engine":       {func(c *Config) { c.Engine = "io_uring" }, "listen.engine"},
	} {
		cfg := DefaultConfig()
		test.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: err = %v, want %q", name, err, test.want)
		}
	}
}

// Without a setting a socket has 16 MiB, or its share of an eighth of the memory there is,
// which the kernel doubles.
func TestReceiveBufferSuitsTheContainer(t *testing.T) {
	for _, test := range []struct {
		set     metric.Bytes
		memory  uint64
		sockets int
		want    metric.Bytes
	}{
		{0, 0, 8, 16 << 20},
		{0, 8 << 30, 8, 16 << 20},
		{0, 1 << 30, 8, 8 << 20},
		{0, 256 << 20, 2, 8 << 20},
		{0, 256 << 20, 8, 2 << 20},
		{0, 64 << 20, 8, 1 << 20},
		{0, 64 << 20, 0, 16 << 20}, // there is none
		{32 << 20, 64 << 20, 8, 32 << 20},
	} {
		cfg := Config{ReceiveBuffer: test.set, Memory: test.memory}
		if got := cfg.receiveBuffer(test.sockets); got != test.want {
			t.Errorf("%v, %d bytes of memory, %d sockets: %v, want %v", test.set, test.memory, test.sockets, got, test.want)
		}
	}
}
