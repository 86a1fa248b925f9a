package listener

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The test binary is also the sender of its benchmarks, in a process of its own
// so that CPU times do not mix.
const senderEnv = "LISTENER_BENCH_SENDER"

func TestMain(m *testing.M) {
	if os.Getenv(senderEnv) != "" {
		if err := runSender(os.Args[1], os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runSender sends 40-byte datagrams to an address or a path: rate of them a second
// (0: as fast as it can) for a duration, and prints how many it sent. When the
// receiver has no room, it waits.
func runSender(address, rateText, durationText string) error {
	rate, err := strconv.Atoi(rateText)
	if err != nil {
		return err
	}
	duration, err := time.ParseDuration(durationText)
	if err != nil {
		return err
	}
	network := "udp"
	if strings.HasPrefix(address, "/") {
		network = "unixgram"
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	file, err := conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return err
	}
	fd := file.Fd() // blocking
	const most = 64
	payload := []byte("some.metric.of.forty.bytes:12345|c|#a:bc")
	iov := unix.Iovec{Base: &payload[0]}
	iov.SetLen(len(payload))
	headers := make([]mmsghdr, most)
	for i := range headers {
		headers[i].header.Iov = &iov
		headers[i].header.SetIovlen(1)
	}
	sent := 0
	start := time.Now()
	for time.Since(start) < duration {
		n := most
		if rate > 0 {
			n = min(most, int(time.Since(start).Seconds()*float64(rate))-sent)
			if n <= 0 {
				time.Sleep(100 * time.Microsecond)
				continue
			}
		}
		done, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&headers[0])), uintptr(n), 0, 0, 0)
		if errno != 0 {
			return errno
		}
		sent += int(done)
	}
	fmt.Println(sent)
	return nil
}

func cpuTime() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// BenchmarkReceive compares the engines with the same handler, which counts: CPU
// time of the receiving process for each datagram, and how many were lost. It
// interleaves them, one after the other at each rate; run it with -count.
func BenchmarkReceive(b *testing.B) {
	for _, rate := range []int{1_000, 20_000, 100_000, 0} {
		for _, name := range []string{"gnet", "gnet+drain", "recvmmsg"} {
			b.Run(fmt.Sprintf("rate=%d/%s", rate, name), func(b *testing.B) {
				for b.Loop() {
					receive(b, name, rate)
				}
			})
		}
	}
}

func receive(b *testing.B, name string, rate int) {
	processors := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(processors)
	cfg := DefaultConfig()
	cfg.UDP = "127.0.0.1:0"
	cfg.Readers = 1
	cfg.Engine = EngineGnet
	if name == "recvmmsg" {
		cfg.Engine = EngineRecvmmsg
	}
	l, err := New(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	if g, ok := l.sockets[0].engine.(*gnetEngine); ok {
		g.drains = name == "gnet+drain"
	}
	measure(b, l, rate)
}

// BenchmarkReceiveUnix shows what a Unix datagram costs and how fast a client that
// waits for room can go, by what the reader believes the socket holds: what it
// does; one datagram, so that it waits for each; or a million, so that it pauses
// for as long as with UDP. With senders, it looks them up.
func BenchmarkReceiveUnix(b *testing.B) {
	for _, rate := range []int{1_000, 20_000, 100_000, 0} {
		for _, variant := range []struct {
			name  string
			queue int
		}{{"paced", 0}, {"waiting", 1}, {"pausing", 1e6}, {"senders", 0}} {
			b.Run(fmt.Sprintf("rate=%d/%s", rate, variant.name), func(b *testing.B) {
				for b.Loop() {
					processors := runtime.GOMAXPROCS(0)
					cfg := DefaultConfig()
					cfg.UDP, cfg.UnixDatagram = "", b.TempDir()+"/d"
					cfg.OriginDetection = variant.name == "senders"
					l, err := New(cfg, slog.New(slog.DiscardHandler))
					if err != nil {
						b.Fatal(err)
					}
					if variant.queue > 0 {
						l.sockets[0].engine.(*recvmmsgEngine).queue = variant.queue
					}
					measure(b, l, rate)
					runtime.GOMAXPROCS(processors)
				}
			})
		}
	}
}

// measure runs a listener with one reader and a sender in another process.
func measure(b *testing.B, l *Listener, rate int) {
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + l.Processors())
	ctx, cancel := context.WithCancel(b.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx, func(int, []Packet) {}); err != nil {
			b.Error(err)
		}
	})
	waitForReader(b, l)

	cmd := exec.Command(os.Args[0], l.Reader(0).Address, strconv.Itoa(rate), "2s")
	cmd.Env = append(os.Environ(), senderEnv+"=1")
	cmd.Stderr = os.Stderr
	before, received := cpuTime(), l.Stats().Datagrams
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond) // the rest is in the socket
	used, got := cpuTime()-before, l.Stats().Datagrams-received
	cancel()
	running.Wait()
	sent, err := strconv.Atoi(string(out[:len(out)-1]))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(used.Nanoseconds())/float64(got), "cpu-ns/datagram")
	b.ReportMetric(float64(sent)-float64(got), "lost")
	b.ReportMetric(float64(got)/float64(l.Stats().Wakeups), "datagrams/wakeup")
	b.ReportMetric(float64(sent)/2e3, "thousand/s")
	b.ReportMetric(0, "ns/op")
}

// waitForReader sends datagrams until one arrives.
func waitForReader(tb testing.TB, l *Listener) {
	info := l.Reader(0)
	conn, err := net.Dial(map[string]string{UDP: "udp", UnixDatagram: "unixgram"}[info.Network], info.Address)
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close()
	for l.Stats().Datagrams == 0 {
		if _, err := conn.Write([]byte("x:1|c")); err != nil && tb.Context().Err() != nil {
			tb.Fatal("no datagram arrived")
		}
		time.Sleep(time.Millisecond)
	}
}
