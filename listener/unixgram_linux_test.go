package listener

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// The kernel tells who sends: this process, which the stand-in for /proc has in a
// container.
func TestSenders(t *testing.T) {
	for _, network := range []string{UnixDatagram, UnixStream} {
		for _, detect := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", network, detect), func(t *testing.T) {
				cfg := only(t, network)
				cfg.OriginDetection = detect
				l, err := New(cfg, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				want := ""
				if detect {
					want = hex64
					proc := fakeProc(t, os.Getpid(), "0::/docker/"+hex64)
					switch e := l.sockets[0].engine.(type) {
					case *recvmmsgEngine:
						e.proc = proc
					case *streamEngine:
						e.origins.folder = proc
					}
				}
				r := startListener(t, l)
				conn := connect(t, r.Reader(0))
				for range 100 {
					write(t, conn, packed(network, "a:1|c"))
				}
				eventually(t, "all arrived", func() bool { return len(r.lines()) == 100 })
				r.mu.Lock()
				defer r.mu.Unlock()
				if len(r.senders) != 1 || !r.senders[want] {
					t.Errorf("senders = %v, want %q", r.senders, want)
				}
			})
		}
	}
}

// On a host without containers there is no sender, and everything arrives.
func TestSendersOnABareHost(t *testing.T) {
	if list, err := os.ReadFile("/proc/self/cgroup"); err != nil || containerID(list) != "" {
		t.Skip("this is a container")
	}
	cfg := only(t, UnixDatagram)
	cfg.OriginDetection = true
	r := start(t, cfg)
	write(t, connect(t, r.Reader(0)), "a:1|c")
	eventually(t, "it arrived", r.has("a:1|c"))
	if len(r.senders) != 1 || !r.senders[""] {
		t.Errorf("senders = %v", r.senders)
	}
}

// A datagram whose sender is known costs nothing but itself.
func TestDrainWithSendersDoesNotAllocate(t *testing.T) {
	cfg := only(t, UnixDatagram)
	fd, file, err := bindUnixDatagram(cfg.UnixDatagram, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	defer file.remove()
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	o := newOrigins()
	o.folder = fakeProc(t, os.Getpid(), "0::/docker/"+hex64)
	d := newDrain(8192, o)
	conn := dialTo(t, "unixgram", cfg.UnixDatagram)
	packet := []byte("a:1|c")
	handle := func(packets []Packet) {
		for _, p := range packets {
			if p.Sender != hex64 {
				t.Fatalf("sender = %q", p.Sender)
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		for range 5 {
			_, _ = conn.Write(packet)
		}
		if found, err := d.all(fd, handle); err != nil || found.datagrams != 5 {
			t.Fatal(found, err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Files that a client attaches are not taken: they would use up what the process
// may open.
func TestAttachedFilesAreNotTaken(t *testing.T) {
	for _, network := range []string{UnixDatagram, UnixStream} {
		t.Run(network, func(t *testing.T) {
			cfg := only(t, network)
			cfg.OriginDetection = true
			r := start(t, cfg)
			conn := connect(t, r.Reader(0)).(*net.UnixConn)
			write(t, conn, packed(network, "first:1|c"))
			eventually(t, "it listens", r.has("first:1|c"))
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			for i := range 50 {
				packet := []byte(packed(network, fmt.Sprintf("file%d:1|c", i)))
				if err := raw.Write(func(fd uintptr) bool {
					return unix.Sendmsg(int(fd), packet, unix.UnixRights(0, 1, 2), nil, 0) == nil
				}); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "all arrived", r.has("file49:1|c"))
			if after := openFiles(t); after > before+10 {
				t.Errorf("%d files are open, %d were before", after, before)
			}
		})
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// What a client could send to a Unix socket is received, even what it sent while
// the agent stopped.
func TestUnixDatagramsAreNeverLost(t *testing.T) {
	for range 5 {
		l, err := New(only(t, UnixDatagram), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var sent, received atomic.Uint64
		ended := make(chan error, 1)
		some := make(chan struct{})
		enough := sync.OnceFunc(func() { close(some) })
		go func() {
			ended <- l.Run(ctx, func(_ int, packets []Packet) {
				if received.Add(uint64(len(packets))) > 1000 {
					enough()
				}
			})
		}()
		var clients sync.WaitGroup
		for range 4 {
			conn := connect(t, l.Reader(0))
			clients.Go(func() {
				for {
					if _, err := conn.Write([]byte("page.views:1|c")); err != nil {
						return
					}
					sent.Add(1)
				}
			})
		}
		<-some
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		clients.Wait()
		if s := l.Stats(); sent.Load() != received.Load() || s.Datagrams != received.Load() || s.KernelDrops != 0 {
			t.Errorf("sent %d, received %d; stats = %+v", sent.Load(), received.Load(), s)
		}
	}
}

// From the moment at which the reader looks for the last time, clients get an
// error.
func TestUnixDatagramsAreRefusedBeforeTheLastLook(t *testing.T) {
	l, err := New(only(t, UnixDatagram), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := l.sockets[0].engine.(*recvmmsgEngine)
	conn := connect(t, l.Reader(0))
	write(t, conn, "before:1|c")
	e.refuse(e.sockets[0])
	if _, err := conn.Write([]byte("after:1|c")); err == nil {
		t.Error("a datagram was taken that nobody will read")
	}
	if _, err := net.Dial("unixgram", l.Reader(0).Address); err == nil {
		t.Error("a client could still connect")
	}
	var got []string
	if _, err := newDrain(8192, nil).all(e.sockets[0].fd, func(packets []Packet) {
		for _, p := range packets {
			got = append(got, string(p.Data))
		}
	}); err != nil || strings.Join(got, " ") != "before:1|c" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What a connection holds is read to its end, in however many turns, and no other
// connection waits for it; one that goes on sending is left at some time.
func TestDrainOfConnections(t *testing.T) {
	var got []string
	e := &streamEngine{cfg: DefaultConfig(), counts: &streamStats{}, warnings: &warnings{log: slog.New(slog.DiscardHandler)}}
	l := &streamLoop{engine: e, conns: map[*stream]struct{}{}}
	l.out.handle = func(packets []Packet) {
		for _, p := range packets {
			got = append(got, strings.Fields(string(p.Data))...)
		}
	}
	add := func(sent string) (*stream, int) {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(pair[0]) })
		if n, err := unix.Write(pair[1], []byte(sent)); n != len(sent) {
			t.Fatal(n, err)
		}
		s := &stream{conn: readable{fd: pair[0]}, framer: framer{max: 8192, form: byLines}}
		l.conns[s] = struct{}{}
		return s, pair[1]
	}
	const lines = 15_000 // several turns
	long, far := add(strings.Repeat("long:1|c\n", lines))
	short, near := add("short:1|c\nrest")
	defer unix.Close(far)
	unix.Close(near)
	l.drain(time.Now().Add(time.Minute))
	if len(got) != lines+1 || !slices.Contains(got[:2*readAtOnce/len("long:1|c\n")], "short:1|c") {
		t.Errorf("%d lines, want %d, and the short one not last", len(got), lines+1)
	}
	if !short.orderly || long.orderly || !short.ended || !long.ended {
		t.Errorf("ended %v and %v, orderly %v and %v", long.ended, short.ended, long.orderly, short.orderly)
	}
	got = nil
	late, _ := add("late:1|c\n")
	if l.drain(time.Now().Add(-time.Second)); len(got) > 0 || late.ended {
		t.Error("it went on for too long")
	}
}

// readable is a connection of which only the descriptor matters.
type readable struct {
	gnet.Conn
	fd int
}

func (r readable) Fd() int { return r.fd }

// The file never allows more than it is to, not even for a moment, and has its
// mode in the end, whatever the umask is.
func TestModeWhateverTheUmask(t *testing.T) {
	for _, umask := range []int{0, 0o077, 0o777} {
		before := unix.Umask(umask)
		cfg := only(t, UnixDatagram)
		if err := os.Chmod(filepath.Dir(cfg.UnixDatagram), 0o700); err != nil {
			t.Fatal(err)
		}
		cfg.UnixStream = filepath.Join(filepath.Dir(cfg.UnixDatagram), "s")
		cfg.SocketMode = "0622"
		l, err := New(cfg, slog.New(slog.DiscardHandler))
		unix.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{cfg.UnixDatagram, cfg.UnixStream} {
			if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o622 {
				t.Errorf("umask %o: %v, %v", umask, info.Mode(), err)
			}
		}
		_ = l.Close()
	}
	// Before claim, a socket has at most what limitMode left it.
	before := unix.Umask(0)
	defer unix.Umask(before)
	path := filepath.Join(shortFolder(t), "s")
	open := net.ListenConfig{Control: beforeBind(0o600)}
	l, err := open.Listen(context.Background(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("right after it was bound: %v, %v", info.Mode(), err)
	}
}

func TestMatchInherited(t *testing.T) {
	socket := func(network, address string) *inherited {
		in := &inherited{network: network, address: address}
		if network == UDP || network == TCP {
			in.where = netip.MustParseAddrPort(address)
		}
		return in
	}
	cfg := DefaultConfig()
	cfg.UnixStream = "/run/s"
	cfg.More = []Socket{{Network: UDP, Address: "127.0.0.1:9000", Dialect: "statsd"}, {Network: UDP, Address: ":9001", Dialect: "statsd"}}
	plan := match(cfg.sockets(), []*inherited{
		socket(UDP, "127.0.0.1:9000"), socket(UDP, "127.0.0.1:9000"), socket(UDP, "[::]:8125"), socket(UDP, "[::]:9001"),
		socket(UnixStream, "/run/other"), socket(UnixDatagram, "/run/s"), socket(TCP, "127.0.0.1:8125"),
	})
	var got []string
	for _, p := range plan {
		from := "opened"
		if p.inherited != nil {
			from = "is " + p.inherited.address
		}
		got = append(got, fmt.Sprintf("%s %s %q %s", p.Network, p.Address, p.Dialect, from))
	}
	want := []string{
		`udp 127.0.0.1:8125 "" is [::]:8125`, // nobody else could have that port
		`unix_stream /run/s "" opened`,
		`udp 127.0.0.1:9000 "statsd" is 127.0.0.1:9000`,
		`udp :9001 "statsd" is [::]:9001`,
		`udp 127.0.0.1:9000 "" is 127.0.0.1:9000`, // one of several that share it
		`unix_stream /run/other "" is /run/other`,
		`unix_datagram /run/s "" is /run/s`,
		`tcp 127.0.0.1:8125 "" is 127.0.0.1:8125`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A reader of a Unix socket stays away no longer than its clients could go on
// without it.
func TestQueuePacer(t *testing.T) {
	for _, test := range []struct {
		name        string
		queue, size int
		rate        float64
		least, most time.Duration
	}{
		{"ten datagrams leave no time", 10, 40, 100, 0, 0},
		{"at no rate", 10, 40, 100_000, 0, 0},
		{"512 leave some", 512, 40, 20_000, 500 * time.Microsecond, time.Millisecond},
		{"but a trickle is waited for", 512, 40, 100, 0, 0},
		{"and less at a high rate", 512, 40, 500_000, minPause, 140 * time.Microsecond},
		{"large datagrams use up the senders' memory", 512, 8000, 20_000, 0, minPause + 15*time.Microsecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := pacer{queue: float64(test.queue), sendBuffer: usualSendBuffer}
			now := time.Unix(0, 0)
			p.observe(memory{}, drained{}, now)
			for range 100 {
				elapsed := max(p.pause(false), time.Millisecond)
				now = now.Add(elapsed)
				n := int(test.rate * elapsed.Seconds())
				p.observe(memory{}, drained{datagrams: n, bytes: n * test.size}, now)
			}
			pause := p.pause(false)
			if pause < test.least || pause > test.most {
				t.Errorf("pause = %v, want %v to %v", pause, test.least, test.most)
			}
			if came := pause.Seconds() * test.rate; came > float64(test.queue)/4 {
				t.Errorf("in a pause of %v %.1f of %d datagrams come", pause, came, test.queue)
			}
		})
	}
}
