package listener

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// only is a configuration with one socket.
func only(t *testing.T, network string) Config {
	t.Helper()
	cfg := DefaultConfig()
	cfg.UDP = ""
	cfg.Readers = 2
	switch network {
	case UDP:
		cfg.UDP = "127.0.0.1:0"
	case UnixDatagram:
		cfg.UnixDatagram = filepath.Join(shortFolder(t), "d.sock")
	case UnixStream:
		cfg.UnixStream = filepath.Join(shortFolder(t), "s.sock")
	case TCP:
		cfg.TCP = "127.0.0.1:0"
	}
	return cfg
}

// shortFolder returns a folder for sockets, whose paths must be short.
func shortFolder(t *testing.T) string {
	t.Helper()
	folder, err := os.MkdirTemp("", "weir")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	return folder
}

// connect connects to a reader's socket.
func connect(t *testing.T, info ReaderInfo) net.Conn {
	t.Helper()
	return dialTo(t, map[string]string{UDP: "udp", UnixDatagram: "unixgram", UnixStream: "unix", TCP: "tcp"}[info.Network], info.Address)
}

// packed is a line as a client sends it by a network.
func packed(network, line string) string {
	switch network {
	case TCP:
		return line + "\n"
	case UnixStream:
		return frame(line)
	}
	return line
}

// streams runs a test with both kinds of streams.
func streams(t *testing.T, test func(t *testing.T, cfg Config)) {
	for _, network := range []string{TCP, UnixStream} {
		t.Run(network, func(t *testing.T) { test(t, only(t, network)) })
	}
}

func TestAllTransportsAtOnce(t *testing.T) {
	folder := shortFolder(t)
	cfg := DefaultConfig()
	cfg.UDP, cfg.TCP, cfg.Readers = "127.0.0.1:0", "127.0.0.1:0", 2
	cfg.UnixDatagram, cfg.UnixStream = folder+"/d", folder+"/s"
	cfg.More = []Socket{
		{Network: TCP, Address: "127.0.0.1:0", Dialect: "statsd", TagStyle: "librato"},
		{Network: UnixDatagram, Address: folder + "/d2", Dialect: "statsd"},
		{Network: UDP, Address: "127.0.0.1:0", TagStyle: "influx"},
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	l, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	sockets := map[ReaderInfo]bool{}
	for i := range l.Readers() {
		sockets[l.Reader(i)] = true
	}
	if len(sockets) != 7 || l.Readers() != 2+1+2+2+2+1+2 {
		t.Fatalf("%d readers of %v", l.Readers(), sockets)
	}

	var mu sync.Mutex
	missing := map[string]bool{}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- l.Run(ctx, func(reader int, packets []Packet) {
			info := l.Reader(reader)
			mu.Lock()
			defer mu.Unlock()
			for _, p := range packets {
				for line := range strings.SplitSeq(strings.Trim(string(p.Data), "\n"), "\n") {
					if !strings.HasPrefix(line, fmt.Sprintf("%s.%s.%s.%s.", info.Network, info.Address, info.Dialect, info.TagStyle)) || !missing[line] {
						t.Errorf("the reader of %v got %q, or got it twice", info, line)
					}
					delete(missing, line)
				}
			}
		})
	}()
	var clients sync.WaitGroup
	for info := range sockets {
		for client := range 4 {
			conn := connect(t, info)
			clients.Go(func() {
				for i := range 500 {
					line := fmt.Sprintf("%s.%s.%s.%s.%d.%d:1|c", info.Network, info.Address, info.Dialect, info.TagStyle, client, i)
					mu.Lock()
					missing[line] = true
					mu.Unlock()
					write(t, conn, packed(info.Network, line))
				}
			})
		}
	}
	clients.Wait()
	eventually(t, "everything arrived", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(missing) == 0
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	s := l.Stats()
	if s.Datagrams != 4*4*500 || s.KernelDrops != 0 || s.Connections != 3*4 || s.OpenConnections != 0 || s.Truncated != 0 {
		t.Errorf("stats = %+v", s)
	}
	for _, path := range []string{"d", "s", "d2"} {
		if _, err := os.Lstat(filepath.Join(folder, path)); err == nil {
			t.Errorf("the socket file %s was left behind", path)
		}
	}
}

// A line, a frame or a datagram longer than max_packet costs itself, and a frame
// its connection; the neighbours lose nothing.
func TestTooLong(t *testing.T) {
	streams(t, func(t *testing.T, cfg Config) {
		cfg.MaxPacket = 1024
		r := start(t, cfg)
		info := r.Reader(0)
		bad := connect(t, info)
		var neighbours []net.Conn
		for range 4 {
			neighbours = append(neighbours, connect(t, info))
		}
		write(t, bad, packed(info.Network, "before:1|c"))
		for i, conn := range neighbours {
			write(t, conn, packed(info.Network, fmt.Sprintf("first%d:1|c", i)))
		}
		eventually(t, "all are connected", func() bool { return r.Stats().OpenConnections == 5 })
		_, _ = bad.Write([]byte(packed(info.Network, strings.Repeat("x", 5000))))
		if info.Network == UnixStream {
			eventually(t, "the connection is closed", func() bool { return r.Stats().OversizedFrames == 1 && r.Stats().OpenConnections == 4 })
			if _, err := bad.Read(make([]byte, 1)); err == nil {
				t.Error("the connection is still open")
			}
		} else {
			write(t, bad, "after:1|c\n")
			eventually(t, "the line behind it arrived", r.has("after:1|c"))
			if s, lines := r.Stats(), r.lines(); s.OversizedLines != 1 || s.OpenConnections != 5 || !slices.Contains(lines, strings.Repeat("x", 1024)) {
				t.Errorf("stats = %+v; lines = %q", s, lines)
			}
		}
		for i, conn := range neighbours {
			write(t, conn, packed(info.Network, fmt.Sprintf("second%d:1|c", i)))
		}
		for i := range neighbours {
			eventually(t, "the neighbours' lines arrived", r.has(fmt.Sprintf("second%d:1|c", i)))
			eventually(t, "and their first ones", r.has(fmt.Sprintf("first%d:1|c", i)))
		}
		eventually(t, "what came before arrived", r.has("before:1|c"))
	})
}

// Clients that say nothing, stop in the middle, send garbage or send without end
// delay nobody.
func TestHostileConnectionsDelayNobody(t *testing.T) {
	streams(t, func(t *testing.T, cfg Config) {
		cfg.Readers = 1
		r := start(t, cfg)
		info := r.Reader(0)
		for range 20 {
			connect(t, info)
			write(t, connect(t, info), "\x05")
			write(t, connect(t, info), "\x40\x00\x00\x00half")
			_, _ = connect(t, info).Write([]byte("\xff\xff\xff\xff\xff\xff"))
		}
		flood := connect(t, info)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			chunk := []byte(strings.Repeat(packed(info.Network, strings.Repeat("f", 100)), 1000))
			for {
				if _, err := flood.Write(chunk); err != nil {
					return
				}
			}
		}()
		drip := connect(t, info)
		for i := range 20 {
			line := fmt.Sprintf("polite%d:1|c", i)
			conn := connect(t, info)
			write(t, conn, packed(info.Network, line))
			slow := packed(info.Network, "drip:1|c")
			write(t, drip, slow[i%len(slow):i%len(slow)+1])
			eventually(t, "the polite client is heard", func() bool {
				r.mu.Lock()
				defer r.mu.Unlock()
				for i, p := range r.packets {
					if strings.TrimSpace(p) == line {
						r.packets = nil // or the flood fills the memory
						return i >= 0
					}
				}
				r.packets = nil
				return false
			})
		}
		flood.Close()
		<-stopped
	})
}

func TestConnectionLimit(t *testing.T) {
	streams(t, func(t *testing.T, cfg Config) {
		cfg.MaxConnections = 3
		r := start(t, cfg)
		info := r.Reader(0)
		var conns []net.Conn
		for range 3 {
			conns = append(conns, connect(t, info))
		}
		eventually(t, "three are open", func() bool { return r.Stats().OpenConnections == 3 })
		fourth := connect(t, info)
		if _, err := fourth.Read(make([]byte, 1)); err == nil {
			t.Error("the fourth connection got an answer")
		}
		eventually(t, "the fourth is counted", func() bool { return r.Stats().Refused == 1 })
		conns[0].Close()
		eventually(t, "there is room again", func() bool { return r.Stats().OpenConnections == 2 })
		write(t, connect(t, info), packed(info.Network, "fifth:1|c"))
		eventually(t, "the fifth is heard", r.has("fifth:1|c"))
		write(t, conns[1], packed(info.Network, "second:1|c"))
		eventually(t, "the second is heard", r.has("second:1|c"))
		if s := r.Stats(); s.Connections != 4 || s.Refused != 1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

// A silent connection is closed; one that says a byte now and then is not.
func TestIdleTimeout(t *testing.T) {
	streams(t, func(t *testing.T, cfg Config) {
		cfg.IdleTimeout = 500 * time.Millisecond
		r := start(t, cfg)
		info := r.Reader(0)
		silent, alive := connect(t, info), connect(t, info)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_, _ = silent.Read(make([]byte, 1))
		}()
		// One byte a moment, for as long as it takes to close the silent one twice.
		line := packed(info.Network, strings.Repeat("x", 200))
		begin := time.Now()
		for i := 0; i < len(line)-1 && (r.Stats().IdleClosed == 0 || time.Since(begin) < 2*cfg.IdleTimeout); i++ {
			write(t, alive, line[i:i+1])
			time.Sleep(cfg.IdleTimeout / 50)
		}
		<-gone
		if s := r.Stats(); s.IdleClosed != 1 || s.OpenConnections != 1 {
			t.Errorf("stats = %+v", s)
		}
	})
}

// A connection is closed when it was silent for the whole time, and not before.
func TestIdleTimeoutCountsFromTheLastByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = time.Minute
		begin := time.Now()
		closed := make(chan time.Duration, 1)
		s := &stream{since: begin, conn: closer{closed: func() { closed <- time.Since(begin) }}}
		e := &streamEngine{cfg: Config{IdleTimeout: timeout}, conns: map[*stream]struct{}{s: {}}}
		done := make(chan struct{})
		go e.closeIdle(done)
		var last time.Duration
		for range 10 {
			time.Sleep(timeout * 9 / 10)
			s.active.Store(true)
			last = time.Since(begin)
		}
		if after := <-closed - last; after < timeout || after > timeout*5/4 {
			t.Errorf("closed %v after its last byte, want %v", after, timeout)
		}
		time.Sleep(10 * timeout)
		close(done)
		if len(closed) > 0 {
			t.Error("closed twice")
		}
	})
}

// closer is a connection of which only its end matters.
type closer struct {
	gnet.Conn
	closed func()
}

func (c closer) Close() error {
	c.closed()
	return nil
}

// What a client sent before it closed its connection is complete; what it sent
// before it broke may not be.
func TestEndOfConnections(t *testing.T) {
	t.Run("a line without a newline", func(t *testing.T) {
		r := start(t, only(t, TCP))
		conn := connect(t, r.Reader(0))
		write(t, conn, "a:1|c\nrest:1|c")
		conn.Close()
		eventually(t, "the rest arrived", r.has("rest:1|c"))
	})
	t.Run("a broken connection", func(t *testing.T) {
		r := start(t, only(t, TCP))
		conn := connect(t, r.Reader(0))
		write(t, conn, "a:1|c\nrest:1|c")
		eventually(t, "the line arrived", r.has("a:1|c"))
		if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		conn.Close()
		eventually(t, "it is counted", func() bool { return r.Stats().Truncated == 1 })
		if r.has("rest:1|c")() {
			t.Error("half a line was handed on")
		}
	})
	t.Run("half a frame", func(t *testing.T) {
		r := start(t, only(t, UnixStream))
		conn := connect(t, r.Reader(0))
		write(t, conn, frame("a:1|c")+frame("b:1|c")[:6])
		conn.Close()
		eventually(t, "it is counted", func() bool { return r.Stats().Truncated == 1 })
		if got := r.lines(); !slices.Equal(got, []string{"a:1|c"}) {
			t.Errorf("got %q", got)
		}
	})
	t.Run("text in a Unix stream", func(t *testing.T) {
		r := start(t, only(t, UnixStream))
		conn := connect(t, r.Reader(0))
		write(t, conn, "a:1|c\nb:1|c\nrest:1|c")
		conn.Close()
		eventually(t, "the rest arrived", r.has("rest:1|c"))
		if got := r.lines(); !slices.Equal(got, []string{"a:1|c", "b:1|c", "rest:1|c"}) {
			t.Errorf("got %q", got)
		}
	})
}

// What clients have sent when the agent is told to stop is handed on.
func TestStopDrainsEverything(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			if !haveRecvmmsg && network != TCP && network != UnixStream {
				t.Skip("only Linux empties its sockets")
			}
			cfg := only(t, network)
			cfg.Readers = 1
			l, err := New(cfg, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			clients, each := 3, 3 // a Unix datagram socket holds ten
			if network == TCP || network == UnixStream {
				each = 4000 // more than a turn, and less than the kernel holds
			}
			var conns []net.Conn
			for range clients {
				conns = append(conns, connect(t, l.Reader(0)))
			}
			ctx, cancel := context.WithCancel(context.Background())
			var mu sync.Mutex
			var got []string
			inHandler, goOn := make(chan struct{}), make(chan struct{})
			var blocked atomic.Bool
			ended := make(chan error)
			go func() {
				ended <- l.Run(ctx, func(_ int, packets []Packet) {
					if !blocked.Swap(true) {
						close(inHandler)
						<-goOn
					}
					mu.Lock()
					defer mu.Unlock()
					for _, p := range packets {
						got = append(got, strings.Fields(string(p.Data))...)
					}
				})
			}()
			write(t, conns[0], packed(network, "first:1|c"))
			<-inHandler
			want := []string{"first:1|c"}
			for i, conn := range conns {
				var waiting []byte
				for j := range each {
					line := fmt.Sprintf("waiting%d.%d:1|c", i, j)
					want = append(want, line)
					waiting = append(waiting, packed(network, line)...)
					if each < 10 || j == each-1 {
						write(t, conn, string(waiting))
						waiting = waiting[:0]
					}
				}
			}
			cancel()
			close(goOn)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("got %d lines, want %d", len(got), len(want))
			}
			for _, conn := range conns {
				eventually(t, "the client notices", func() bool {
					_, err := conn.Write([]byte("x"))
					return err != nil
				})
			}
		})
	}
}

// Connections that come and go while the agent stops are neither lost nor waited
// for.
func TestStopWhileConnecting(t *testing.T) {
	streams(t, func(t *testing.T, cfg Config) {
		for range 10 {
			r := start(t, cfg)
			info := r.Reader(0)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					conn, err := net.Dial(map[string]string{UnixStream: "unix", TCP: "tcp"}[info.Network], info.Address)
					if err != nil {
						return
					}
					_, _ = conn.Write([]byte(packed(info.Network, "a:1|c")))
					conn.Close()
				}
			}()
			eventually(t, "some were heard", func() bool { return r.count() > 10 })
			r.stop()
			<-ended
			if s := r.Stats(); s.OpenConnections != 0 {
				t.Errorf("stats = %+v", s)
			}
		}
	})
}

func TestUnixSocketFiles(t *testing.T) {
	for _, network := range []string{UnixDatagram, UnixStream} {
		open := func(cfg Config) error {
			l, err := New(cfg, slog.New(slog.DiscardHandler))
			if err == nil {
				_ = l.Close()
			}
			return err
		}
		path := func(cfg Config) string { return cfg.UnixDatagram + cfg.UnixStream }
		expect := func(t *testing.T, err error, parts ...string) {
			t.Helper()
			for _, part := range append(parts, "listen."+network) {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("the error does not say %q: %v", part, err)
				}
			}
		}
		t.Run(network+"/stale", func(t *testing.T) {
			cfg := only(t, network)
			for _, kind := range []string{"unixgram", "unix"} {
				leaveBehind(t, kind, path(cfg))
				r := start(t, cfg)
				write(t, connect(t, r.Reader(0)), packed(network, "a:1|c"))
				eventually(t, "it listens", r.has("a:1|c"))
				r.stop()
			}
		})
		t.Run(network+"/live", func(t *testing.T) {
			for _, other := range []string{UnixDatagram, UnixStream} {
				cfg := only(t, other)
				r := start(t, cfg)
				second := only(t, network)
				second.UnixDatagram, second.UnixStream = "", ""
				*map[string]*string{UnixDatagram: &second.UnixDatagram, UnixStream: &second.UnixStream}[network] = path(cfg)
				expect(t, open(second), path(cfg), "taken", "another path")
				write(t, connect(t, r.Reader(0)), packed(other, "a:1|c"))
				eventually(t, "the first still listens", r.has("a:1|c"))
			}
		})
		t.Run(network+"/no socket", func(t *testing.T) {
			cfg := only(t, network)
			if err := os.WriteFile(path(cfg), []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			err := open(cfg)
			if err == nil || !strings.Contains(err.Error(), "is no socket") {
				t.Errorf("err = %v", err)
			}
			if text, err := os.ReadFile(path(cfg)); err != nil || string(text) != "precious" {
				t.Errorf("the file became %q, %v", text, err)
			}
		})
		t.Run(network+"/no folder", func(t *testing.T) {
			cfg := only(t, network)
			if err := os.Remove(filepath.Dir(path(cfg))); err != nil {
				t.Fatal(err)
			}
			if err := open(cfg); err == nil || !strings.Contains(err.Error(), "there is no folder "+filepath.Dir(path(cfg))) {
				t.Errorf("err = %v", err)
			}
		})
		t.Run(network+"/mode", func(t *testing.T) {
			for text, want := range map[string]os.FileMode{"0722": 0o722, "0666": 0o666, "600": 0o600} {
				cfg := only(t, network)
				cfg.SocketMode = text
				r := start(t, cfg)
				info, err := os.Lstat(path(cfg))
				if err != nil || info.Mode().Perm() != want {
					t.Errorf("socket_mode %s: %v, %v", text, info.Mode(), err)
				}
				r.stop()
			}
		})
		t.Run(network+"/replaced", func(t *testing.T) {
			cfg := only(t, network)
			r := start(t, cfg)
			if err := os.Remove(path(cfg)); err != nil {
				t.Fatal(err)
			}
			leaveBehind(t, "unixgram", path(cfg))
			r.stop()
			if _, err := os.Lstat(path(cfg)); err != nil {
				t.Errorf("another process's socket was removed: %v", err)
			}
		})
	}
}

// leaveBehind makes a socket file as a process that crashed would.
func leaveBehind(t *testing.T, kind, path string) {
	t.Helper()
	if kind == "unix" {
		l, err := net.ListenUnix(kind, &net.UnixAddr{Name: path, Net: kind})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
		return
	}
	conn, err := net.ListenUnixgram(kind, &net.UnixAddr{Name: path, Net: kind})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
}

func TestTCPPortTaken(t *testing.T) {
	cfg := only(t, TCP)
	first := start(t, cfg)
	cfg.TCP = first.Reader(0).Address
	_, err := New(cfg, slog.New(slog.DiscardHandler))
	for _, part := range []string{cfg.TCP, "taken", "set listen.tcp", "ss -tlpn"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q: %v", part, err)
		}
	}
}

// A socket that does not open closes the others again.
func TestAllOrNothing(t *testing.T) {
	cfg := only(t, UnixStream)
	cfg.UnixDatagram = filepath.Join(filepath.Dir(cfg.UnixStream), "d")
	cfg.More = []Socket{{Network: TCP, Address: "192.0.2.1:1"}}
	if _, err := New(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "listen.more[0].address") {
		t.Errorf("err = %v", err)
	}
	for _, path := range []string{cfg.UnixDatagram, cfg.UnixStream} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was left behind", path)
		}
	}
}

// Each kind of thing that is turned away is told once, and where it listens once
// for each socket.
func TestLog(t *testing.T) {
	cfg := only(t, TCP)
	cfg.UnixStream = only(t, UnixStream).UnixStream
	cfg.MaxConnections = 1
	var mu sync.Mutex
	var log bytes.Buffer
	l, err := New(cfg, slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r := startListener(t, l)
	first := connect(t, r.Reader(2))
	eventually(t, "one is open", func() bool { return r.Stats().OpenConnections == 1 })
	for range 3 {
		_, _ = connect(t, r.Reader(2)).Read(make([]byte, 1))
		write(t, first, strings.Repeat("x", 10_000)+"\n")
	}
	eventually(t, "both are counted", func() bool { return r.Stats().Refused == 3 && r.Stats().OversizedLines == 3 })
	r.stop()
	mu.Lock()
	defer mu.Unlock()
	for part, want := range map[string]int{"msg=listening": 2, "listening network=tcp address=127.0.0.1:": 1, "closed at once": 1, "a line of a stream was too long": 1} {
		if got := strings.Count(log.String(), part); got != want {
			t.Errorf("%q is there %d times, want %d:\n%s", part, got, want, log.String())
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}

// Of two agents that start at the same moment where a crashed one left its socket,
// one gets it, and the other one is told.
func TestTwoAgentsAtOnce(t *testing.T) {
	if !haveRecvmmsg {
		t.Skip("folders are locked on Unix systems only")
	}
	for _, network := range []string{UnixDatagram, UnixStream} {
		t.Run(network, func(t *testing.T) {
			for range 100 {
				cfg := only(t, network)
				path := cfg.UnixDatagram + cfg.UnixStream
				leaveBehind(t, map[string]string{UnixDatagram: "unixgram", UnixStream: "unix"}[network], path)
				type outcome struct {
					listener *Listener
					err      error
				}
				outcomes := make(chan outcome, 2)
				for range 2 {
					go func() {
						l, err := New(cfg, slog.New(slog.DiscardHandler))
						outcomes <- outcome{l, err}
					}()
				}
				one, two := <-outcomes, <-outcomes
				if (one.err == nil) == (two.err == nil) {
					t.Fatalf("the errors are %v and %v; want one", one.err, two.err)
				}
				for _, o := range []outcome{one, two} {
					if o.err == nil {
						o.listener.Close()
					}
				}
			}
		})
	}
}

// All addresses are those of both families, or of IPv4 if it says so, whatever reads
// the sockets.
func TestWildcards(t *testing.T) {
	engines(t, func(t *testing.T, cfg Config) {
		for _, address := range []string{":0", "[::]:0", "0.0.0.0:0"} {
			cfg.UDP = address
			r := start(t, cfg)
			_, port, err := net.SplitHostPort(r.Reader(0).Address)
			if err != nil {
				t.Fatal(err)
			}
			untilHeard(t, r, dial(t, "127.0.0.1:"+port))
			if conn, err := net.ListenPacket("udp", "[::1]:0"); err == nil && address != "0.0.0.0:0" {
				conn.Close()
				untilHeard(t, r, dial(t, "[::1]:"+port))
			}
			r.stop()
		}
	})
}
