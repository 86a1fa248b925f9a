package forwarder

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

// sizes draws sizes of records: small ones, large ones, and such as fill payloads.
func sizes(r *rand.Rand, most limits) func() int {
	shapes := []func() int{
		func() int { return r.IntN(100) },
		func() int { return r.IntN(20_000) },
		func() int { return most.compressed/(1+r.IntN(4)) - r.IntN(64) },
		func() int { return most.uncompressed/(1+r.IntN(4)) - r.IntN(64) },
		func() int { return r.IntN(most.compressed) },
		func() int { return most.uncompressed + r.IntN(100) - 90 },
	}
	usual := shapes[r.IntN(2)]
	hostile := []int{0, 2, 20, 200}[r.IntN(4)] // of a thousand
	return func() int {
		if r.IntN(1000) < hostile {
			return max(0, shapes[2+r.IntN(4)]())
		}
		return usual()
	}
}

var longNoise = sync.OnceValue(func() string { return noise(rand.New(rand.NewPCG(1, 1)), 7<<20) })

// filler makes text of a size that shrinks much, a bit or not.
func filler(r *rand.Rand) func(size int) string {
	random := longNoise()
	return func(size int) string {
		at := r.IntN(len(random) - size)
		switch r.IntN(3) {
		case 0:
			return strings.Repeat("m", size)
		case 1:
			return strings.Repeat(random[at:at+size/16], 16)
		}
		return random[at : at+size]
	}
}

// hostileBatch draws a batch whose records are marked by their number: "<n>|".
func hostileBatch(r *rand.Rand, kind string) *metric.Batch {
	b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: strings.Repeat("h", r.IntN(200))}
	most := otherLimits
	if strings.HasPrefix(kind, "series") {
		most = seriesLimits
	}
	size, text := sizes(r, most), filler(r)
	total := most.uncompressed * (1 + r.IntN(3)) // of all records
	for n := 0; total > 0 && n < 25_000; n++ {
		length := size()
		total -= length + 50
		mark := fmt.Sprintf("<%d|", n)
		switch kind {
		case "series", "series as JSON":
			b.Add(contextOf(metric.Gauge, mark, metric.Host{}, "", text(length)), metric.Series{Type: metric.GaugeType, Value: r.Float64()})
		case "sketches":
			s := metric.Sketch{Count: 1, Keys: []int32{1}, Counts: []uint32{1}}
			b.Sketches = append(b.Sketches, metric.SketchPoint{Context: contextOf(metric.Distribution, mark, metric.Host{}, "", text(length)), Sketch: s})
		case "checks":
			b.Checks = append(b.Checks, metric.ServiceCheck{Name: mark, Message: text(length), Time: 1})
		case "events":
			e := metric.Event{Title: mark, Text: text(length), Time: 1, Priority: "low", AlertType: "info", SourceType: fmt.Sprint(n / 50)}
			if r.IntN(500) == 0 {
				e.SourceType, e.Text = text(length), ""
			}
			b.Events = append(b.Events, e)
		}
	}
	return b
}

// checkPacking packs a batch and checks that every payload is within all limits, that
// every record comes once, in the order of its section, or is dropped because it fits
// into none, and that a payload is only ended when the next record does not fit.
func checkPacking(t *testing.T, b *metric.Batch, compression string, asJSON bool) {
	t.Helper()
	p, err := newPacker(compression, discard())
	if err != nil {
		t.Fatal(err)
	}
	p.seriesAsJSON = asJSON
	scratch, err := newBody(compression)
	if err != nil {
		t.Fatal(err)
	}
	compress := func(raw []byte) int {
		scratch.begin()
		scratch.add(raw, nil)
		return len(scratch.end(nil))
	}
	var payloads []payload
	var dropped int
	p.pack(b, func(p payload) { payloads = append(payloads, p) }, func(points uint64, why DropReason) {
		dropped += int(points)
		if why != DroppedTooLarge {
			t.Errorf("dropped for %v", why)
		}
	})
	sections := []section{p.seriesSection(b), p.sketchSection(b), checkSection(b.Checks), eventSection(b.Events, b.AgentHost)}
	for i := range sections {
		s := &sections[i]
		most := s.route.limits
		// What record i alone makes, as a whole payload.
		alone := func(i int) []byte {
			var raw []byte
			if s.before != nil {
				raw = s.before(raw, i, true)
			}
			return append(s.append(raw, i), s.after...)
		}
		fits := func(raw []byte) bool { return len(raw) <= most.uncompressed && compress(raw) <= most.compressed }
		next := 0 // record
		for len(payloads) > 0 && payloads[0].route == s.route {
			made := payloads[0]
			payloads = payloads[1:]
			raw, err := decompress(made.encoding, made.body, most.uncompressed)
			if err != nil {
				t.Fatalf("%s: %v", s.route.path, err)
			}
			if len(made.body) > most.compressed || made.points > uint64(most.points) || made.points == 0 {
				t.Fatalf("%s: %d bytes, %d points", s.route.path, len(made.body), made.points)
			}
			// The payload record by record, without those that were dropped.
			at := 0
			for k := uint64(0); k < made.points; next++ {
				if next == s.n {
					t.Fatalf("%s: a payload of %d points has other bytes from %d of %d", s.route.path, made.points, at, len(raw))
				}
				var want []byte
				if s.before != nil {
					want = s.before(want, next, k == 0)
				}
				if want = s.append(want, next); bytes.HasPrefix(raw[at:], want) {
					at += len(want)
					k++
					continue
				}
				if fits(alone(next)) {
					t.Fatalf("%s: record %d is missing", s.route.path, next)
				}
				dropped--
			}
			if !bytes.Equal(raw[at:], s.after) {
				t.Fatalf("%s: a payload ends with %.100q", s.route.path, raw[at:])
			}
			// A record that fits nowhere ends its payload, too.
			if next == s.n || made.points == uint64(most.points) || !fits(alone(next)) {
				continue
			}
			more := s.append(nil, next)
			if s.before != nil {
				more = append(s.before(nil, next, false), more...)
			}
			full := len(raw)+len(more) > most.uncompressed ||
				len(made.body)+leastInPiece+1024 > most.compressed ||
				len(made.body)+compress(more) > most.compressed-1024
			if !full {
				t.Errorf("%s: a payload of %d points has %d bytes, %d uncompressed, and the next record has %d (%d compressed)",
					s.route.path, made.points, len(made.body), len(raw), len(more), compress(more))
			}
		}
		for ; next < s.n; next++ {
			if fits(alone(next)) {
				t.Fatalf("%s: record %d is missing", s.route.path, next)
			}
			dropped--
		}
	}
	if dropped != 0 || len(payloads) > 0 {
		t.Errorf("%d records too many were dropped; %d payloads out of turn", dropped, len(payloads))
	}
}

var packKinds = []string{"series", "series as JSON", "sketches", "checks", "events"}

func TestPackingKeepsTheLimits(t *testing.T) {
	for _, compression := range compressions {
		for k, kind := range packKinds {
			t.Run(compression+"/"+kind, func(t *testing.T) {
				t.Parallel()
				for seed := range uint64(2) {
					r := rand.New(rand.NewPCG(seed, uint64(k)))
					checkPacking(t, hostileBatch(r, kind), compression, kind == "series as JSON")
				}
			})
		}
	}
}

// FuzzPacking lets the fuzzer choose what each record is: its size, how well it
// shrinks, and, of an event, whether another source begins.
func FuzzPacking(f *testing.F) {
	f.Add(uint8(0), uint8(0), []byte{1, 0, 0, 2, 255, 255, 0, 9, 9})
	f.Add(uint8(4), uint8(1), []byte{1, 255, 255, 130, 3, 3, 1, 255, 255})
	f.Fuzz(func(t *testing.T, kind, compression uint8, records []byte) {
		random := longNoise()
		b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "web-1"}
		asked := packKinds[int(kind)%len(packKinds)]
		total := 0
		for n := 0; len(records) >= 3 && total < 8<<20; n++ {
			size := int(binary.LittleEndian.Uint16(records[1:])) * []int{1, 1, 16, 96}[records[0]>>6]
			var text string
			switch records[0] & 3 {
			case 0:
				text = strings.Repeat("m", size)
			case 1:
				text = strings.Repeat(random[n:n+size/16], 16)
			default:
				text = random[n : n+size]
			}
			total += size
			mark, repeat := fmt.Sprintf("<%d|", n), 1+int(records[0]>>2&15)
			records = records[3:]
			switch asked {
			case "series", "series as JSON":
				b.Add(contextOf(metric.Gauge, mark, metric.Host{}, "", text), metric.Series{Type: metric.GaugeType})
			case "sketches":
				s := metric.Sketch{Count: 1, Keys: []int32{1}, Counts: []uint32{1}}
				b.Sketches = append(b.Sketches, metric.SketchPoint{Context: contextOf(metric.Distribution, mark, metric.Host{}, "", text), Sketch: s})
			case "checks":
				b.Checks = append(b.Checks, metric.ServiceCheck{Name: mark, Message: text, Time: 1})
			case "events":
				e := metric.Event{Title: mark, Text: text, Time: 1, Priority: "low", AlertType: "info", SourceType: fmt.Sprint(n / repeat)}
				if repeat == 7 {
					e.SourceType, e.Text = text, ""
				}
				b.Events = append(b.Events, e)
			}
		}
		checkPacking(t, b, compressions[int(compression)%len(compressions)], asked == "series as JSON")
	})
}
