package forwarder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/metric"
)

// packetsOf are so many packets that hold a point each.
type packetsOf struct{ n int }

func (p *packetsOf) pack(b *metric.Batch, emit func([]byte, uint64, bool), _ func(uint64, DropReason)) {
	for i := range p.n {
		emit(fmt.Appendf(nil, "%d.%d:1|c\n", b.Start.Unix(), i), 1, untimed)
	}
}

func (p *packetsOf) close() {}

// stubbed is a relay whose packets go to a func.
func stubbed(t *testing.T, cfg DestinationConfig, log *lockedBuffer, write func(packet string) (sent int, err error)) (f *Forwarder, r *relay) {
	t.Helper()
	cfg.Address = "127.0.0.1:9"
	f = openForTest(t, cfg)
	r = f.destinations[0].(*relay)
	r.link.network = overUnix // nothing to pace
	r.endpoint.log = slog.New(slog.NewTextHandler(log, nil))
	r.write = func(_ context.Context, packet []byte) (int, error) { return write(string(packet)) }
	return f, r
}

var errAway = errors.New("connection refused")

// What a server has taken of a payload is not sent again, be it some packets or a part
// of one, and what could be sent in time of what has no time is delivered in order.
func TestPacketsAreSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got, want strings.Builder
		n := 0
		var f *Forwarder
		var r *relay
		f, r = stubbed(t, DestinationConfig{Type: TypeStatsD}, &lockedBuffer{}, func(packet string) (int, error) {
			if n%7 == 3 { // the last one failed
				if s, lines := f.Stats()[0], strings.Count(got.String(), "\n"); s.Delivered != uint64(lines) {
					t.Errorf("%d points are delivered, want %d", s.Delivered, lines)
				}
			}
			if n++; n%7 == 3 {
				return 0, errAway
			}
			if n%7 == 5 { // the first line of it, or nothing
				first := strings.IndexByte(packet, '\n') + 1
				if first == len(packet) {
					first = 0
				}
				got.WriteString(packet[:first])
				return first, errAway
			}
			got.WriteString(packet)
			return len(packet), nil
		})
		f.timeout = time.Hour // the pauses after so many failures add up
		r.open = func() packetEncoder { return &packetsOf{20} }
		queue := make(chan *metric.Batch)
		done := make(chan struct{})
		go func() { defer close(done); f.Run(queue) }()
		for range 5 {
			b := &metric.Batch{Start: time.Now(), Interval: time.Hour, Series: make([]metric.Series, 20)}
			for i := range b.Series {
				b.Series[i].Context = b.Contexts.Add(contextOf(metric.Counter, "c", metric.Host{}, ""))
				fmt.Fprintf(&want, "%d.%d:1|c\n", b.Start.Unix(), i)
			}
			queue <- b
			time.Sleep(time.Second)
		}
		close(queue)
		<-done
		checkBooks(t, f)
		if s := f.Stats()[0]; s.Delivered != 100 || s.DroppedInAll() != 0 || s.Retries < 5 {
			t.Errorf("stats = %+v", s)
		}
		if got.String() != want.String() {
			t.Errorf("got\n%s", got.String())
		}
		if r.endpoint.bytes != 0 {
			t.Errorf("%d bytes are held at the end", r.endpoint.bytes)
		}
	})
}

// A server that hangs up after every few packets gets them one pause after the other, and
// no pause becomes longer: it is there.
func TestALinkThatBreaksEveryFewPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const packets, few = 400, 4
		n := 0
		f, r := stubbed(t, DestinationConfig{Type: TypeStatsD}, &lockedBuffer{}, func(packet string) (int, error) {
			if n++; n%(few+1) == 0 {
				return 0, errAway
			}
			return len(packet), nil
		})
		r.open = func() packetEncoder { return &packetsOf{packets} }
		queue := make(chan *metric.Batch)
		done := make(chan struct{})
		go func() { defer close(done); f.Run(queue) }()
		b := &metric.Batch{Start: time.Now(), Interval: time.Hour, Series: make([]metric.Series, packets)}
		for i := range b.Series {
			b.Series[i].Context = b.Contexts.Add(contextOf(metric.Counter, "c", metric.Host{}, ""))
		}
		queue <- b
		time.Sleep(packets / few * firstRelayBackoff)
		if s := f.Stats()[0]; s.Delivered != packets {
			t.Errorf("stats = %+v", s)
		}
		close(queue)
		<-done
	})
}

// timedPackets hand each batch over as one packet whose points say their time.
type timedPackets struct{}

func (timedPackets) pack(b *metric.Batch, emit func([]byte, uint64, bool), _ func(uint64, DropReason)) {
	emit([]byte(b.AgentHost), 1, timed)
}

func (timedPackets) close() {}

// A packet that the server's socket never takes is tried every few seconds, and the others
// go on.
func TestAPacketThatNeverPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tried := 0
		f, r := stubbed(t, DestinationConfig{Type: TypeDogStatsD}, &lockedBuffer{}, func(packet string) (int, error) {
			if packet == "huge" {
				tried++
				return 0, errors.New("message too long")
			}
			return len(packet), nil
		})
		r.open = func() packetEncoder { return timedPackets{} }
		queue := make(chan *metric.Batch)
		done := make(chan struct{})
		go func() { defer close(done); f.Run(queue) }()
		const minutes = 10
		for i := range minutes * 60 {
			host := "small"
			if i == 0 {
				host = "huge"
			}
			queue <- &metric.Batch{Start: time.Now(), Interval: time.Second, AgentHost: host, Checks: make([]metric.ServiceCheck, 1)}
			time.Sleep(time.Second)
		}
		if s := f.Stats()[0]; s.Delivered < 60*minutes-2 || tried < minutes*60/int(maxRelayBackoff/time.Second) || tried > 60*minutes {
			t.Errorf("tried %d times in %d minutes: %+v", tried, minutes, s)
		}
		close(queue)
		<-done
	})
}

// A server that is away for minutes, as for an upgrade, gets every count and gauge once
// when it is back, the fresh ones within seconds, and of the distributions those of about
// an interval.
func TestARelaysServerIsAwayForMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval, away, intervals = 10 * time.Second, 5 * time.Minute, 40
		var log lockedBuffer
		begun := time.Now()
		lines := map[string]int{}
		var back time.Duration // when the first packet came after it was away
		writing := false
		f, _ := stubbed(t, DestinationConfig{Type: TypeDogStatsD}, &log, func(packet string) (int, error) {
			if writing {
				t.Error("two packets are written at once")
			}
			writing = true
			time.Sleep(10 * time.Millisecond)
			writing = false
			now := time.Since(begun)
			if now > time.Minute && now < time.Minute+away {
				return 0, errAway
			}
			if now > time.Minute && back == 0 {
				back = now
			}
			for line := range strings.Lines(packet) {
				name, _, _ := strings.Cut(line, ":")
				lines[name]++
			}
			return len(packet), nil
		})
		queue := make(chan *metric.Batch)
		done := make(chan struct{})
		go func() { defer close(done); f.Run(queue) }()
		for i := range intervals {
			queue <- gaugeAndSizes(fmt.Sprintf("g%d", i), interval)
			time.Sleep(interval)
			checkBooks(t, f)
		}
		close(queue)
		<-done
		checkBooks(t, f)
		s := f.Stats()[0]
		if s.Dropped[DroppedUnreachable] != s.DroppedInAll() || s.Delivered != 2*intervals-s.DroppedInAll() {
			t.Errorf("stats = %+v", s)
		}
		if n := s.Dropped[DroppedUnreachable]; n < uint64(away/interval)-2 || n > uint64(away/interval) {
			t.Errorf("%d distributions dropped", n)
		}
		for i := range intervals {
			if n := lines[fmt.Sprintf("g%d", i)]; n != 1 {
				t.Errorf("gauge %d came %d times", i, n)
			}
		}
		if back > time.Minute+away+maxRelayBackoff {
			t.Errorf("back after %v", back)
		}
		// A relay that is tried every few seconds is not told as often.
		if n := strings.Count(log.String(), "sending failed"); n < 3 || n > 6 {
			t.Errorf("told %d times:\n%s", n, log.String())
		}
	})
}

// What the relay holds of points that say their time outlives the agent; what does not
// is dropped.
func TestARelaysSpool(t *testing.T) {
	var s server
	address, stop := s.listen(t, "unixgram", filepath.Join(t.TempDir(), "s"))
	stop()
	cfg := DefaultConfig()
	cfg.StateDir, cfg.ShutdownTimeout = t.TempDir(), 2*time.Second
	cfg.Forwarders = []DestinationConfig{{Type: TypeDogStatsD, Address: "unix://" + address}}
	f, _ := deliver(t, cfg, gaugeAndSizes("kept", time.Hour))
	if s := f.Stats()[0]; s.Spooled != 1 || s.Dropped[DroppedShutdown] != 1 || s.DroppedInAll() != 1 {
		t.Errorf("stats = %+v", s)
	}
	_, stop = s.listen(t, "unixgram", address)
	defer stop()
	f, _ = deliverUntilIdle(t, cfg)
	if s := f.Stats()[0]; s.Restored != 1 || s.Delivered != 1 {
		t.Errorf("stats = %+v", s)
	}
	for s.count("kept:1|g") == 0 {
		time.Sleep(time.Millisecond)
	}
	if n := spooledFiles(t, cfg.StateDir); n != 0 || s.count("kept") != 1 {
		t.Errorf("%d files are left; %q", n, s.text.String())
	}
}

// Of a spooled payload that was taken in part only the rest stays in the spool.
func TestASpooledPayloadTakenInPart(t *testing.T) {
	for _, test := range []struct {
		name string
		free metric.Bytes // of the disk
	}{{"the rest is written", 1}, {"the disk is full", 1 << 60}} {
		t.Run(test.name, func(t *testing.T) {
			cfg := testSpoolConfig(t)
			s := mustOpenSpool(t, cfg)
			account := &books{}
			body := []byte("one two three")
			mustPut(t, s, &record{route: timedRoute.path, start: time.Now(), points: 9, body: body})
			account.restored(9)
			s.cfg.MinFree = test.free
			asked, release := make(chan string), make(chan error)
			r := try(t, s, account, func(p *payload) error {
				asked <- string(p.body)
				return <-release
			})
			if got := <-asked; got != string(body) {
				t.Fatalf("asked for %q", got)
			}
			release <- &partError{points: 4, bytes: 3, rest: body[4:], err: errAway}
			if got := <-asked; got != "two three" {
				t.Fatalf("asked for %q", got)
			}
			if s := r.check(t); s.Delivered != 4 || s.Bytes != 3 || s.Spooled+s.Queued != 5 || s.Healthy {
				t.Errorf("in between: %+v", s)
			}
			release <- nil
			r.await(t, 9)
			r.end()
			if s := r.check(t); s.Delivered != 9 || s.Bytes != uint64(3+len("two three")) || s.Queued+s.Spooled != 0 {
				t.Errorf("at the end: %+v", s)
			}
			if n := mustOpenSpool(t, cfg).stats().Recovered; n != 0 {
				t.Errorf("%d points are left in the spool", n)
			}
		})
	}
}

// No body makes the relay crash or hang; what is no list of packets is rejected.
func FuzzPackets(f *testing.F) {
	f.Add(appendPacket(appendPacket(nil, []byte("a:1|c\n"), 1), []byte("b:1|c\n"), 2))
	f.Add([]byte{0, 0})
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 1, 'x'})
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, body []byte) {
		r := newRelay(&DestinationConfig{Address: "unix:///nowhere"}, "dogstatsd", time.Second, discard())
		sent := 0
		r.write = func(_ context.Context, packet []byte) (int, error) {
			sent += len(packet)
			return len(packet), nil
		}
		if err := r.post(context.Background(), &payload{body: body}); err != nil && !errors.Is(err, errNoPackets) || sent > len(body) {
			t.Errorf("%v; %d bytes sent of %d", err, sent, len(body))
		}
	})
}
