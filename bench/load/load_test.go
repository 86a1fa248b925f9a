//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

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
		return l.Addr().String(), func() *received { _ = l.Close(); reading.Wait(); return r }
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
					s, err := dial(network, address, 2)
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
	s, err := dial("udp", address, 1)
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

func TestParseKindsRejects(t *testing.T) {
	for _, text := range []string{"", "x=1", "c", "c=0", "c=-1", "c=1,", "c=NaN"} {
		if shares, err := parseKinds(text); err == nil {
			t.Errorf("%q: %v, want an error", text, shares)
		}
	}
}
