//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is the command itself if it is told so, so that tests can run it.
func TestMain(m *testing.M) {
	if os.Getenv("WEIR_LOAD") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is the command with its flags.
func command(flags ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], flags...)
	cmd.Env = append(os.Environ(), "WEIR_LOAD=1")
	return cmd
}

// received is what a server counts that reads everything.
type received struct {
	datagrams, metrics, bytes uint64
	kinds                     map[string]uint64
	sum                       float64
	contexts                  map[string]bool
	largest                   int
}

func (r *received) packet(t *testing.T, packet []byte) {
	r.datagrams++
	r.bytes += uint64(len(packet))
	r.largest = max(r.largest, len(packet))
	for line := range strings.SplitSeq(strings.TrimSuffix(string(packet), "\n"), "\n") {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Split(rest, "|")
		tags, rate := "", 1.0
		for _, field := range fields[2:] {
			switch field[0] {
			case '#':
				tags = field
			case '@':
				var err error
				if rate, err = strconv.ParseFloat(field[1:], 64); err != nil {
					t.Errorf("%s: %v", line, err)
				}
			}
		}
		r.metrics++
		r.kinds[fields[1]]++
		r.contexts[name+tags] = true
		if fields[1] == "c" {
			value, err := strconv.ParseFloat(fields[0], 64)
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			r.sum += value / rate
		}
	}
}

// listen counts what comes to an address until the sender has ended and nothing comes
// any more.
func listen(t *testing.T, network string) (address string, finish func() *received) {
	t.Helper()
	r := &received{kinds: map[string]uint64{}, contexts: map[string]bool{}}
	var reading sync.WaitGroup
	if network == "tcp" {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		reading.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				reading.Go(func() {
					all, err := io.ReadAll(conn)
					if err != nil || !bytes.HasSuffix(all, []byte("\n")) {
						t.Errorf("a stream without an end: %v", err)
					}
					mu.Lock()
					defer mu.Unlock()
					r.packet(t, all)
				})
			}
		})
		return l.Addr().String(), func() *received {
			_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(300 * time.Millisecond)) // who has connected is taken before
			reading.Wait()
			_ = l.Close()
			return r
		}
	}
	address = "127.0.0.1:0"
	if network == "unixgram" {
		address = t.TempDir() + "/socket"
	}
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	reading.Go(func() {
		buffer := make([]byte, 1<<16)
		for {
			n, _, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			r.packet(t, buffer[:n])
		}
	})
	return conn.LocalAddr().String(), func() *received {
		_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond)) // what is in the socket is read before
		reading.Wait()
		_ = conn.Close()
		return r
	}
}

// What the report says is what arrives, by every network, in every packing.
func TestReportIsWhatArrives(t *testing.T) {
	for _, network := range []string{"udp", "unixgram", "tcp"} {
		for _, packet := range []int{0, 1432, 8192} {
			for _, tags := range []int{0, 3} {
				t.Run(fmt.Sprintf("%s/packet=%d/tags=%d", network, packet, tags), func(t *testing.T) {
					const contexts = 500
					kinds, err := parseKinds("mix")
					if err != nil {
						t.Fatal(err)
					}
					tr := traffic{packet: packet, contexts: contexts, tags: tags, kinds: kinds, sampleRate: 0.5, seed: 3, prefix: "t", pool: 700, newline: network == "tcp"}
					built, err := tr.build()
					if err != nil {
						t.Fatal(err)
					}
					address, finish := listen(t, network)
					s, err := dial(network, address, "", 2)
					if err != nil {
						t.Fatal(err)
					}
					// More than once round, so that it begins anew within a batch.
					report, err := s.send(built, pace{rate: 20_000, tick: time.Millisecond, datagrams: len(built.datagrams) * 5 / 4}, nil)
					s.close()
					if err != nil {
						t.Fatal(err)
					}
					got := finish()
					if network == "tcp" { // packets have no bounds there
						got.datagrams, got.largest = report.Datagrams, packet
					}
					if want := uint64(len(built.datagrams) * 5 / 4); report.Datagrams != want {
						t.Errorf("sent %d datagrams, want %d", report.Datagrams, want)
					}
					if got.datagrams != report.Datagrams || got.metrics != report.Metrics || got.bytes != report.Bytes || got.sum != report.CounterSum {
						t.Errorf("arrived: %d datagrams, %d metrics, %d bytes, sum %v; reported: %d, %d, %d, %v",
							got.datagrams, got.metrics, got.bytes, got.sum, report.Datagrams, report.Metrics, report.Bytes, report.CounterSum)
					}
					if len(got.contexts) != contexts {
						t.Errorf("%d contexts arrived, want %d", len(got.contexts), contexts)
					}
					for _, kind := range []string{"c", "g", "ms", "h", "d", "s"} {
						if got.kinds[kind] != report.Kinds[kind] || got.kinds[kind] == 0 {
							t.Errorf("of kind %s %d arrived, %d reported", kind, got.kinds[kind], report.Kinds[kind])
						}
					}
					if packet > 0 && got.largest > packet {
						t.Errorf("a datagram of %d bytes, want at most %d", got.largest, packet)
					}
					if packet == 0 && network != "tcp" && got.metrics != got.datagrams {
						t.Errorf("%d metrics in %d datagrams, want one in each", got.metrics, got.datagrams)
					}
				})
			}
		}
	}
}

// The shares of the mix hold for any number of names that is a multiple of 100.
func TestMix(t *testing.T) {
	kinds, err := parseKinds("mix")
	if err != nil {
		t.Fatal(err)
	}
	tr := traffic{contexts: 10_000, tags: 3, kinds: kinds, sampleRate: 1, pool: 10_000}
	l, err := tr.build()
	if err != nil {
		t.Fatal(err)
	}
	var sent []uint64
	for range l.datagrams {
		sent = append(sent, 1)
	}
	got := l.count(sent)
	for kind, want := range map[string]uint64{"c": 6000, "g": 2000, "ms": 500, "h": 500, "d": 500, "s": 500} {
		if got.Kinds[kind] != want {
			t.Errorf("%d metrics of kind %s, want %d", got.Kinds[kind], kind, want)
		}
	}
}

// Without a server the sender says so instead of counting what nobody gets.
func TestNobodyListens(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := conn.LocalAddr().String()
	_ = conn.Close()
	s, err := dial("udp", address, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	tr := traffic{contexts: 10, kinds: []share{{"c", 1}}, sampleRate: 1, pool: 1000}
	l, err := tr.build()
	if err != nil {
		t.Fatal(err)
	}
	report, err := s.send(l, pace{duration: 5 * time.Second}, nil)
	if err == nil || report.Refused == 0 {
		t.Errorf("err %v, refused %d: want an error", err, report.Refused)
	}
}

// A server with several readers sees all runs from one address at the same reader.
func TestFrom(t *testing.T) {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	from := free.LocalAddr().String()
	_ = free.Close()
	for range 2 {
		if out, err := command("-to", server.LocalAddr().String(), "-from", from, "-contexts", "1", "-pool", "1", "-passes", "1").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if _, sender, err := server.ReadFrom(make([]byte, 1<<16)); err != nil || sender.String() != from {
			t.Errorf("a datagram from %v, error %v; want one from %s", sender, err, from)
		}
	}
	for _, wrong := range [][]string{{"-sockets", "2"}, {"-network", "tcp"}, {"-from", "nowhere"}} {
		if out, err := command(append([]string{"-from", from}, wrong...)...).CombinedOutput(); err == nil || !strings.Contains(string(out), "-from: ") {
			t.Errorf("%v: error %v, %q; want one of -from", wrong, err, out)
		}
	}
}

func TestParseKindsRejects(t *testing.T) {
	for _, text := range []string{"", "x=1", "c", "c=0", "c=-1", "c=1,", "c=NaN"} {
		if shares, err := parseKinds(text); err == nil {
			t.Errorf("%q: %v, want an error", text, shares)
		}
	}
}

// The command as anyone runs it: what it reports as JSON is what arrives, and everything
// is sent as often as -passes says.
func TestCommand(t *testing.T) {
	address, finish := listen(t, "udp")
	out, err := command("-to", address, "-kinds", "mix", "-contexts", "300", "-pool", "1000", "-passes", "3", "-rate", "5000",
		"-sockets", "2", "-sample-rate", "0.25", "-prefix", "shop", "-json").Output()
	got := finish()
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if r.Metrics != 3000 || r.Metrics != got.metrics || r.Datagrams != got.datagrams || r.Bytes != got.bytes || r.CounterSum != got.sum {
		t.Errorf("reported %+v, arrived %d metrics in %d datagrams, %d bytes, sum %v: want 3,000 metrics and the same",
			r, got.metrics, got.datagrams, got.bytes, got.sum)
	}
	for context := range got.contexts {
		if !strings.HasPrefix(context, "shop.") {
			t.Errorf("%s lacks -prefix", context)
		}
	}
}

// It holds the rate asked for, by the books it keeps of its time: what it could not send
// in time is in behind.
func TestCommandHoldsTheRate(t *testing.T) {
	address, finish := listen(t, "udp")
	out, err := command("-to", address, "-metrics", "40000", "-duration", "1s", "-json").Output()
	finish()
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, want := float64(r.Metrics), 40_000*(r.Seconds-r.Behind); got < 0.9*want || got > 1.1*want {
		t.Errorf("%v metrics in %v s, of which it was behind for %v, want about %v", got, r.Seconds, r.Behind, want)
	}
}

// A server that stops reading makes the sender wait, and a signal ends it all the same:
// with a report of what went out.
func TestCommandEndsWithAStuckServer(t *testing.T) {
	for _, network := range []string{"tcp", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			var address string
			if network == "tcp" {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				address = l.Addr().String()
			} else {
				address = t.TempDir() + "/socket"
				conn, err := net.ListenPacket("unixgram", address)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
			}
			cmd := command("-network", network, "-to", address, "-duration", "1h", "-wait", "-json")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stdout)
			if line, err := lines.ReadString('\n'); line != "ready\n" {
				t.Fatalf("%q, %v, want ready", line, err)
			}
			if _, err := io.WriteString(in, "\n"); err != nil {
				t.Fatal(err)
			}
			waitUntilAsleep(t, cmd.Process.Pid)
			if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			killed := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
			var r report
			if err := json.NewDecoder(lines).Decode(&r); err != nil || r.Datagrams == 0 {
				t.Errorf("%+v, %v, want a report of what went out", r, err)
			}
			// The last packet of a stream may not be whole, which it has to say.
			if err := cmd.Wait(); err != nil && !strings.Contains(stderr.String(), errStuck.Error()) {
				t.Errorf("%v: %s", err, stderr.String())
			}
			if !killed.Stop() {
				t.Error("it had to be killed")
			}
		})
	}
}

// waitUntilAsleep returns when a process has used no CPU for a while: it waits.
func waitUntilAsleep(t *testing.T, pid int) {
	t.Helper()
	last, same := "", 0
	for begin := time.Now(); same < 10; time.Sleep(20 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatal("it does not wait for the server")
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')'):]))
		if now := fields[12] + " " + fields[13]; now == last { // utime and stime
			same++
		} else {
			last, same = now, 0
		}
	}
}

// Flags that make no sense are refused, with a word on what to do.
func TestCommandRefuses(t *testing.T) {
	for flags, want := range map[string]string{
		"-kinds x=1":                "-kinds",
		"-rate 1 -metrics 1":        "take one of them",
		"-rate -1":                  "-rate",
		"-packet 20":                "-packet",
		"-contexts 0":               "-contexts",
		"-tags 51":                  "-tags",
		"-sample-rate 2":            "-sample-rate",
		"-sockets 0":                "-sockets",
		"-network sctp":             "-network",
		"127.0.0.1:1":               "-help",
		"-network unixgram -to /no": "/no",
	} {
		var stderr bytes.Buffer
		cmd := command(strings.Fields(flags)...)
		cmd.Stderr = &stderr
		if err := cmd.Run(); err == nil || !strings.Contains(stderr.String(), want) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: %v, %q, want a line with %q", flags, err, stderr.String(), want)
		}
	}
}
