package forwarder

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/metric"
)

// packets are what an encoder makes of batches.
type packets struct {
	all     []string
	timed   []bool // by packet
	points  uint64
	dropped map[DropReason]uint64
}

func (p *packets) pack(t *testing.T, e packetEncoder, batches ...*metric.Batch) {
	t.Helper()
	if p.dropped == nil {
		p.dropped = map[DropReason]uint64{}
	}
	for _, b := range batches {
		e.pack(b, func(packet []byte, points uint64, timed bool) {
			p.all, p.timed = append(p.all, string(packet)), append(p.timed, timed)
			p.points += points
		}, func(points uint64, why DropReason) { p.dropped[why] += points })
	}
}

func (p *packets) lines() []string {
	return strings.Split(strings.TrimSuffix(strings.Join(p.all, ""), "\n"), "\n")
}

func dogStatsDForTest(t *testing.T, size int) *dogStatsD {
	d := newDogStatsD(size, discard())
	t.Cleanup(d.close)
	return d
}

func TestDogStatsDLines(t *testing.T) {
	for _, name := range []string{"DD_ENV", "DD_SERVICE", "DD_VERSION", "DD_ENTITY_ID", "DD_EXTERNAL_ENV"} {
		t.Setenv(name, "mine") // and nobody else's
	}
	t.Setenv("DD_CARDINALITY", "high")
	b := example()
	b.Series[3].Value = 0.3
	b.Sketches[0].Sketch.Sum = 4 // more than the values make: all are moved up, to the maximum
	b.Series = append(b.Series,
		metric.Series{Context: b.Series[0].Context, Value: 7, Type: metric.Count, Time: 1234},
		metric.Series{Context: b.Series[1].Context, Value: -1.5e-7, Type: metric.GaugeType, Time: 1235})
	b.Events = []metric.Event{
		{Title: "a\nb", Text: "c\nd|e", Time: 99, Priority: "low", AlertType: "error", Host: "h", AggregationKey: "k", SourceType: "s", Tags: []string{"x:1", "y"}},
		{Title: "t", Time: 98, Priority: "normal", AlertType: "info"},
	}
	b.Checks = []metric.ServiceCheck{{Name: "up", Status: metric.CheckCritical, Time: 97, Host: "h", Message: `m\: no`, Tags: []string{"x:1"}}}
	var got packets
	got.pack(t, dogStatsDForTest(t, packetForUDP), b)
	want := []string{
		"page.views:12|c|#host:web-1,env:prod|T1795255210",
		"load:0|g|#host:db-1,device:sda|T1795255210",
		"query.time.avg:-3|g|#host:,a,b:1,2|T1795255210",
		"query.time.count:3|c|#host:,a,b:1,2|T1795255210",
		"page.views:7|c|#host:web-1,env:prod|T1234",
		"load:-0.00000015|g|#host:db-1,device:sda|T1235",
		"size:0:2:-1:2|d|#host:web-1,device:sdb,env:prod",
		`_e{4,6}:a\nb|c\nd|e|d:99|h:h|k:k|p:low|s:s|t:error|#x:1,y`,
		"_e{1,0}:t||d:98|p:normal|t:info|#host:",
		`_sc|up|2|d:97|h:h|#x:1|m:m\: no`,
	}
	if diff := cmp.Diff(want, got.lines()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if got.points != b.Points() {
		t.Errorf("%d points, want %d", got.points, b.Points())
	}
}

// Sampled counts are not whole numbers, and the client takes no others: what is
// rounded off is made good in the next interval.
func TestFractionsOfCountsAreKept(t *testing.T) {
	d := dogStatsDForTest(t, packetForUDP)
	one, other := contextOf(metric.Counter, "one", metric.Host{}, ""), contextOf(metric.Counter, "other", metric.Host{}, "")
	sum, truth := 0.0, 0.0
	for i := range 30 {
		b := &metric.Batch{Start: start, Interval: 10 * time.Second}
		b.Add(one, metric.Series{Value: 1 / 0.3 / 10, Type: metric.Rate})
		b.Add(other, metric.Series{Value: float64(i) / 10, Type: metric.Rate})
		truth += 1 / 0.3
		var got packets
		got.pack(t, d, b)
		var n float64
		if _, err := fmt.Sscanf(got.lines()[0], "one:%f|c", &n); err != nil {
			t.Fatal(err)
		}
		if sum += n; math.Abs(sum-truth) > 0.5 {
			t.Fatalf("after %d intervals %v events, want %v", i+1, sum, truth)
		}
		if want := fmt.Sprintf("other:%d|c", i); !strings.HasPrefix(got.lines()[1], want) {
			t.Errorf("%q, want %q", got.lines()[1], want)
		}
	}
	if len(d.rest) > 1 {
		t.Errorf("%d rests are kept, of one series", len(d.rest))
	}
	b := &metric.Batch{Start: start, Interval: time.Second}
	b.Add(one, metric.Series{Value: 1e19, Type: metric.Rate})
	b.Add(one, metric.Series{Value: math.NaN(), Type: metric.GaugeType, Time: -5})
	var got packets
	got.pack(t, d, b)
	if got.dropped[DroppedTooLarge] != 1 || got.dropped[DroppedUnsupported] != 1 || len(d.rest) != 0 {
		t.Errorf("dropped = %v, rests = %v", got.dropped, d.rest)
	}
}

// sketchOf is a sketch of values, and of how often each is there.
func sketchOf(values []float64, n []uint32) metric.Sketch {
	s := metric.Sketch{Min: math.Inf(1), Max: math.Inf(-1)}
	bins := map[int32]uint32{}
	for i, v := range values {
		s.Count += int64(n[i])
		s.Sum += v * float64(n[i])
		s.Min, s.Max = min(s.Min, v), max(s.Max, v)
		bins[int32(metric.SketchKey(v))] += n[i]
	}
	s.Avg = s.Sum / float64(s.Count)
	for key := range bins {
		s.Keys = append(s.Keys, key)
	}
	slices.Sort(s.Keys)
	keys := s.Keys
	s.Keys = nil
	for _, key := range keys {
		for left := bins[key]; left > 0; left -= min(left, metric.MaxBinCount) {
			s.Keys, s.Counts = append(s.Keys, key), append(s.Counts, min(left, metric.MaxBinCount))
		}
	}
	return s
}

func randomSketch(random *rand.Rand) metric.Sketch {
	values, n := []float64{}, []uint32{}
	for range 1 + random.IntN(300) {
		v := math.Exp(random.NormFloat64()*3) * float64(random.IntN(3)-1)
		if random.IntN(10) > 0 {
			v = math.Abs(v)
		}
		values, n = append(values, v), append(n, 1+random.Uint32N(uint32(1)<<random.IntN(20)))
	}
	return sketchOf(values, n)
}

// What a server makes of the samples is the sketch they were made of.
func TestSamplesMakeTheSameSketch(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		want := randomSketch(random)
		values, n := []float64{}, []uint32{}
		for _, s := range appendSamples(nil, &want) {
			weight := 1 / rateOf(s.n)
			if int64(weight) != s.n {
				t.Fatalf("a rate for %d events stands for %v", s.n, weight)
			}
			values, n = append(values, s.value), append(n, uint32(s.n))
		}
		got := sketchOf(values, n)
		if got.Count != want.Count || got.Min != want.Min || got.Max != want.Max || !slices.Equal(got.Keys, want.Keys) || !slices.Equal(got.Counts, want.Counts) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		var size float64
		for i, v := range values {
			size += math.Abs(v) * float64(n[i])
		}
		if math.Abs(got.Sum-want.Sum) > 1e-9*size {
			t.Fatalf("sum = %v, want %v", got.Sum, want.Sum)
		}
	}
}

// However points and packets lie to each other, each point counts once, with the
// packet its last value is in; nothing is longer than a packet may be.
func TestPacketsCountPoints(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "web-1"}
	for i := range 9000 {
		name := fmt.Sprintf("m%d.%s", i, strings.Repeat("x", random.IntN(300)))
		b.Add(contextOf(metric.Gauge, name, metric.Host{}, ""), metric.Series{Value: random.NormFloat64(), Type: metric.GaugeType})
	}
	for i := range 60 {
		name := fmt.Sprintf("d%d.%s", i, strings.Repeat("y", random.IntN(300)))
		b.Sketches = append(b.Sketches, metric.SketchPoint{Context: contextOf(metric.Distribution, name, metric.Host{}, ""), Sketch: randomSketch(random)})
		b.Events = append(b.Events, metric.Event{Title: name, Text: strings.Repeat("z\n", random.IntN(200)), Time: 1, Host: "h"})
		b.Checks = append(b.Checks, metric.ServiceCheck{Name: name, Time: 1, Host: "h"})
	}
	const size = 400
	for name, e := range map[string]packetEncoder{
		"dogstatsd": dogStatsDForTest(t, size), "statsd": &statsD{size: size, style: TagsDogStatsD, log: discard()},
	} {
		t.Run(name, func(t *testing.T) {
			var got packets
			got.pack(t, e, b)
			var dropped uint64
			for _, n := range got.dropped {
				dropped += n
			}
			if got.points+dropped != b.Points() || dropped == 0 {
				t.Errorf("%d points and %v dropped, want %d", got.points, got.dropped, b.Points())
			}
			for i, packet := range got.all {
				if len(packet) > size || packet[len(packet)-1] != '\n' {
					t.Fatalf("a packet of %d bytes: %q", len(packet), packet)
				}
				for line := range strings.Lines(packet) {
					if hasTime := strings.Contains(line, "|T") || strings.Contains(line, "|d:"); hasTime != got.timed[i] {
						t.Fatalf("timed is %v of %q", got.timed[i], line)
					}
				}
			}
			again := got.points
			if got.pack(t, e, b); got.points != 2*again {
				t.Errorf("%d points in the second batch, want %d", got.points-again, again)
			}
		})
	}
}

func TestStatsDLines(t *testing.T) {
	b := example()
	b.Series[1].Value = 0.25
	b.Series = append(b.Series, metric.Series{Context: b.Series[0].Context, Value: 7, Type: metric.Count, Time: 1234})
	b.Events, b.Checks = make([]metric.Event, 2), make([]metric.ServiceCheck, 3)
	var got packets
	got.pack(t, &statsD{size: packetForUDP, style: TagsNone, log: discard()}, b)
	want := []string{
		"page.views:12|c", "load:0.25|g", "query.time.avg:0|g", "query.time.avg:-3|g", "query.time.count:10000000000000000000000|c",
		"size.sum:2.5|g", "size.min:0|g", "size.min:-1|g", "size.max:2|g", "size.avg:0.625|g",
		"size.p50:2|g", "size.p75:2|g", "size.p90:2|g", "size.p95:2|g", "size.p99:2|g", "size.count:4|c",
	}
	if diff := cmp.Diff(want, got.lines()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if got.points != 5 || got.dropped[DroppedUnsupported] != 6 {
		t.Errorf("%d points, dropped %v; want 5, and 6 that StatsD has no words for", got.points, got.dropped)
	}
	b = &metric.Batch{Start: start, Interval: time.Second, AgentHost: "web-1"}
	b.Add(contextOf(metric.Gauge, "a", metric.Host{}, "sda", "dd.internal.resource:x:y", "k:v=w:x", "plain"), metric.Series{Value: 1, Type: metric.GaugeType})
	b.Add(contextOf(metric.Gauge, "b", metric.Host{Explicit: true}, ""), metric.Series{Value: 1, Type: metric.GaugeType})
	for style, want := range map[string]string{
		TagsNone:      "a:1|g b:1|g",
		TagsDogStatsD: "a:1|g|#host:web-1,device:sda,k:v=w:x,plain b:1|g",
		TagsInflux:    "a,host=web-1,device=sda,k=v_w_x,plain:1|g b:1|g",
		TagsGraphite:  "a;host=web-1;device=sda;k=v_w_x;plain:1|g b:1|g",
		TagsSignalFx:  "a[host=web-1,device=sda,k=v_w_x,plain]:1|g b:1|g",
	} {
		var got packets
		got.pack(t, &statsD{size: packetForUDP, style: style, log: discard()}, b)
		if got := strings.Join(got.lines(), " "); got != want {
			t.Errorf("%s: %s, want %s", style, got, want)
		}
	}
}

// A negative gauge is two lines, and another packet between them could make of it
// what another client has set.
func TestNegativeGaugesStayTogether(t *testing.T) {
	b := &metric.Batch{Start: start, Interval: time.Second}
	for i := range 100 {
		b.Add(contextOf(metric.Gauge, fmt.Sprintf("g%d", i), metric.Host{}, ""), metric.Series{Value: -float64(i) - 1, Type: metric.GaugeType})
	}
	var got packets
	got.pack(t, &statsD{size: leastPacket, style: TagsNone, log: discard()}, b)
	for _, packet := range got.all {
		if strings.Count(packet, "\n")%2 != 0 {
			t.Errorf("a pair is torn: %q", packet)
		}
	}
	if len(got.all) < 3 {
		t.Errorf("%d packets", len(got.all))
	}
}

// server takes what relays send.
type server struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *server) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *server) count(line string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.text.String(), line)
}

// listen serves an address until stop is called.
func (s *server) listen(t *testing.T, network, address string) (at string, stop func()) {
	t.Helper()
	if network == "tcp" || network == "unix" {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		var conns sync.Map
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				conns.Store(conn, true)
				go s.read(conn)
			}
		}()
		return l.Addr().String(), func() {
			l.Close()
			conns.Range(func(conn, _ any) bool { conn.(net.Conn).Close(); return true })
		}
	}
	_ = os.Remove(address) // the file of a socket
	conn, err := net.ListenPacket(network, address)
	if err != nil {
		t.Fatal(err)
	}
	go s.read(conn.(net.Conn))
	return conn.LocalAddr().String(), func() { conn.Close() }
}

func (s *server) read(conn net.Conn) {
	buffer := make([]byte, 64<<10)
	for {
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		_, _ = s.Write(buffer[:n])
	}
}

// gaugeAndSizes is a batch of this moment, of a gauge and a distribution.
func gaugeAndSizes(name string, interval time.Duration) *metric.Batch {
	b := &metric.Batch{
		Start: time.Now(), Interval: interval,
		Sketches: []metric.SketchPoint{{
			Context: contextOf(metric.Distribution, name+".size", metric.Host{}, ""),
			Sketch:  metric.Sketch{Count: 1, Sum: 1, Min: 1, Max: 1, Avg: 1, Keys: []int32{1338}, Counts: []uint32{1}},
		}},
	}
	b.Add(contextOf(metric.Gauge, name, metric.Host{}, ""), metric.Series{Value: 1, Type: metric.GaugeType})
	return b
}

// A server that is down costs its own relay what has no time, counted, and the others
// nothing; when it is back it gets all that says its time, once.
func TestARelaysServerGoesAndComesBack(t *testing.T) {
	for _, test := range []struct{ kind, network string }{
		{TypeDogStatsD, "udp"},
		{TypeDogStatsD, "unixgram"},
		{TypeDogStatsD, "unix"},
		{TypeDogStatsD, "tcp"},
		{TypeStatsD, "udp"},
		{TypeStatsD, "tcp"},
	} {
		t.Run(test.kind+" by "+test.network, func(t *testing.T) {
			var s server
			address := "127.0.0.1:0"
			if strings.HasPrefix(test.network, "unix") {
				address = filepath.Join(t.TempDir(), "s")
			}
			address, stop := s.listen(t, test.network, address)
			scheme := strings.TrimSuffix(test.network, "gram")
			f := openForTest(t,
				DestinationConfig{Type: test.kind, Address: scheme + "://" + address}, DestinationConfig{Type: TypeDiscard})
			queue := make(chan *metric.Batch)
			done := make(chan struct{})
			go func() { defer close(done); f.Run(queue) }()
			settled := func(what string, until func(s DestinationStats) bool) {
				t.Helper()
				for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
					checkBooks(t, f)
					stats := f.Stats()[0]
					if until(stats) {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s: stats = %+v", what, stats)
					}
				}
			}
			const soon, late = 200 * time.Millisecond, time.Minute
			queue <- gaugeAndSizes("before", late)
			settled("delivered", func(d DestinationStats) bool {
				return d.Delivered == 2 && d.Healthy && s.count("before:1|g") == 1 && s.count("before.size") > 0
			})
			if test.network == "unix" && s.count("\x00\x00") == 0 {
				t.Errorf("no length stands before the packet: %q", s.text.String())
			}
			conn := f.destinations[0].(*relay).link.current()
			stop()
			// What TCP takes in the moment the server goes is lost, and nobody knows.
			for test.network == "tcp" && conn.SetDeadline(time.Time{}) == nil {
				time.Sleep(time.Millisecond)
			}
			kept := uint64(1) // of the points of a batch
			if test.kind == TypeStatsD {
				kept = 0
			}
			queue <- gaugeAndSizes("away.one", soon)
			queue <- gaugeAndSizes("away.two", soon)
			settled("given up", func(d DestinationStats) bool {
				return d.Dropped[DroppedUnreachable] == 2*(2-kept) && d.Queued == 2*kept && !d.Healthy
			})
			_, stop = s.listen(t, test.network, address)
			defer stop()
			queue <- gaugeAndSizes("after", late)
			settled("back", func(d DestinationStats) bool { return d.Queued == 0 && d.Healthy })
			close(queue)
			<-done
			if d := f.Stats()[0]; d.Produced != 8 || d.Delivered != 4+2*kept || d.Retries == 0 {
				t.Errorf("stats = %+v", d)
			}
			settled("read", func(DestinationStats) bool { return s.count("after.size") > 0 && s.count("after:1|g") > 0 })
			for name, want := range map[string]int{"away.one:1|g": int(kept), "away.two:1|g": int(kept), "after:1|g": 1, "away.one.size": 0} {
				if n := s.count(name); n != want {
					t.Errorf("%s came %d times, want %d: %q", name, n, want, s.text.String())
				}
			}
			if d := f.Stats()[1]; d.Delivered != 8 {
				t.Errorf("the other destination: %+v", d)
			}
		})
	}
}

// A large batch is on its way before all of it was encoded.
func TestDogStatsDHoldsFewPointsAtOnce(t *testing.T) {
	d := dogStatsDForTest(t, packetForUDP)
	b := manySeries(5 * valuesAtOnce)
	most := 0
	d.pack(b, func([]byte, uint64, bool) {
		most = max(most, len(d.owed))
	}, func(uint64, DropReason) {})
	if most > valuesAtOnce {
		t.Errorf("%d points wait in the client, want %d at most", most, valuesAtOnce)
	}
}

func manySeries(n int) *metric.Batch {
	b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "web-1"}
	for i := range n {
		c := contextOf(metric.Counter, fmt.Sprintf("shop.checkout.count%d", i), metric.Host{}, "", "env:prod", "service:shop")
		b.Add(c, metric.Series{Value: float64(i) / 10, Type: metric.Rate})
	}
	return b
}

func BenchmarkRelayPack(b *testing.B) {
	batch := manySeries(20_000)
	for name, e := range map[string]packetEncoder{
		"dogstatsd": newDogStatsD(packetForUDP, discard()), "statsd": &statsD{size: packetForUDP, style: TagsDogStatsD, log: discard()},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.pack(batch, func([]byte, uint64, bool) {}, func(uint64, DropReason) {})
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Series)), "ns/point")
		})
		e.close()
	}
}

// A server that takes nothing does not keep the agent from stopping.
func TestARelaysServerThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := openForTest(t, DestinationConfig{Type: TypeStatsD, Address: "tcp://" + l.Addr().String()})
	f.timeout = 50 * time.Millisecond
	f.destinations[0].(*relay).link.timeout = time.Hour
	b := &metric.Batch{Start: start, Interval: time.Hour}
	one := contextOf(metric.Gauge, strings.Repeat("x", 4000), metric.Host{}, "")
	for range 10_000 { // more than the buffers of a connection hold
		b.Add(one, metric.Series{Value: 1, Type: metric.GaugeType})
	}
	queue := make(chan *metric.Batch, 1)
	queue <- b
	close(queue)
	f.Run(queue)
	checkBooks(t, f)
	if s := f.Stats()[0]; s.Dropped[DroppedShutdown] == 0 || s.Queued != 0 {
		t.Errorf("stats = %+v", s)
	}
}

func TestRelayAddresses(t *testing.T) {
	for text, kinds := range map[string]string{
		"localhost:8125": "dogstatsd statsd", "udp://[::1]:8125": "dogstatsd statsd", "tcp://a.b:1": "dogstatsd statsd", "unix:///run/x": "dogstatsd",
		"localhost": "", ":8125": "", "a:0": "", "a:http": "", "unix://x": "", "http://a:1": "", "/run/x": "",
	} {
		for _, kind := range []string{TypeDogStatsD, TypeStatsD} {
			if got, want := checkRelayAddress(kind, text) == nil, slices.Contains(strings.Fields(kinds), kind); got != want {
				t.Errorf("%s to %s: %v, want %v", kind, text, got, want)
			}
		}
	}
}
