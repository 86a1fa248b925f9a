package aggregator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

// modelContext is what the simplest imaginable aggregator keeps of a context: all
// its samples of the interval.
type modelContext struct {
	kind            string
	values, weights []float64
	members         map[string]bool
	lastSampled     int // interval
}

// points adds what the interval's end makes of the context to want.
func (m *modelContext) points(id string, interval, zeroFill int, want map[string]float64) {
	if len(m.values) == 0 {
		if m.kind == "c" && interval-m.lastSampled <= zeroFill {
			want[id] = 0
		}
		return
	}
	s := referenceSummary(m.values, m.weights, []int{95})
	switch m.kind {
	case "c":
		want[id] = s.sum
	case "g":
		want[id] = m.values[len(m.values)-1]
	case "s":
		want[id] = float64(len(m.members))
	case "d":
		want[id+".count"], want[id+".sum"] = s.weight, s.sum
		want[id+".min"], want[id+".max"] = s.min, s.max
	default:
		want[id+".max"], want[id+".avg"], want[id+".count"] = s.max, s.avg, s.weight
		want[id+".median"], want[id+".95percentile"] = s.median, s.percentiles[0]
	}
}

// modelLine is a random line and what it says.
type modelLine struct {
	text, kind, id string
	values         []float64
	rate           float64
	member         string
}

func randomLine(random *rand.Rand, name string, unique int) modelLine {
	l := modelLine{kind: []string{"c", "g", "s", "h", "ms", "d"}[random.IntN(6)], rate: 1}
	var texts []string
	for range 1 + random.IntN(3) {
		v := float64(random.IntN(100) - 20)
		l.values = append(l.values, v)
		texts = append(texts, fmt.Sprint(v))
	}
	l.member = strings.Join(texts, ":")
	tags := []struct{ wire, sorted string }{
		{"", ""}, {"|#a:1,b:2", "a:1 b:2"}, {"|#b:2,a:1", "a:1 b:2"}, {"|#a:1,b:2,a:1", "a:1 b:2"}, {"|#c:3", "c:3"},
	}[random.IntN(5)]
	fields := []string{tags.wire, "", ""}
	switch random.IntN(4) {
	case 0:
		l.rate, fields[1] = 0.5, "|@0.5"
	case 1:
		l.rate, fields[1] = 0.25, "|@0.25"
	}
	if random.IntN(3) == 0 { // a spelling that never comes again
		fields[2] = fmt.Sprintf("|unknown%d", unique)
	}
	random.Shuffle(3, func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	l.text = fmt.Sprintf("%s:%s|%s%s", name, l.member, l.kind, strings.Join(fields, ""))
	l.id = l.kind + " " + name + " " + tags.sorted
	return l
}

// Whatever comes, on however many readers, in whatever spelling, while contexts
// come and go and the tables overflow: each interval's points are those of the
// model, exactly.
func TestAgreesWithTheModel(t *testing.T) {
	unremembered, expired := uint64(0), uint64(0)
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 8))
		cfg := DefaultConfig()
		cfg.FlushInterval = time.Second
		zeroFill := random.IntN(5)
		cfg.Expiry.Context = time.Duration(1+random.IntN(4)) * time.Second
		cfg.Expiry.ZeroFill = time.Duration(zeroFill) * time.Second
		names, perName := 6, 15
		switch {
		case seed%5 == 0:
			names = 150
		case seed%3 == 0: // their spellings are more than the tables hold
			cfg.MaxContexts, perName = 300, 150
		}
		workers := 1 + random.IntN(3)
		a := newForTest(cfg, workers)
		model := map[string]*modelContext{}
		unique := 0
		for interval := 1; interval <= 25; interval++ {
			samples := random.IntN(perName * names)
			if random.IntN(4) == 0 {
				samples = 0
			}
			for range samples {
				unique++
				l := randomLine(random, fmt.Sprintf("metric%d", random.IntN(names)+interval/5*2), unique)
				a.sendForTest(random.IntN(workers), l.text)
				m := model[l.id]
				if m == nil {
					m = &modelContext{kind: l.kind, members: map[string]bool{}}
					model[l.id] = m
				}
				m.lastSampled = interval
				m.members[l.member] = true
				for _, v := range l.values {
					m.values, m.weights = append(m.values, v), append(m.weights, 1/l.rate)
				}
			}
			got, want := pointsOf(t, a.flusher.flush(time.Unix(int64(interval), 0), nil)), map[string]float64{}
			for id, m := range model {
				m.points(id, interval, zeroFill, want)
				m.values, m.weights = nil, nil
				clear(m.members)
			}
			if a.Stats().Refused[metric.ContextLimit] > 0 {
				t.Fatalf("seed %d: the limit on contexts is not what this test is about", seed)
			}
			compareWithModel(t, fmt.Sprintf("seed %d, interval %d", seed, interval), got, want)
			if t.Failed() {
				return
			}
		}
		unremembered += a.Stats().Unremembered
		expired += a.Stats().Expired
	}
	if unremembered == 0 || expired == 0 {
		t.Errorf("%d identities unremembered, %d contexts expired: the test did not test what it should", unremembered, expired)
	}
}

func compareWithModel(t *testing.T, where string, got, want map[string]float64) {
	t.Helper()
	for id, w := range want {
		if g, sent := got[id]; !sent || math.Abs(g-w) > 1e-9*max(1, math.Abs(w)) {
			t.Errorf("%s: %s = %v (sent: %v), want %v", where, id, g, sent, w)
		}
		delete(got, id)
	}
	for id, g := range got {
		t.Errorf("%s: %s = %v should not be there", where, id, g)
	}
}

// pointsOf returns the values of a batch by kind, name, tags and suffix.
func pointsOf(t *testing.T, b *metric.Batch) map[string]float64 {
	t.Helper()
	points := map[string]float64{}
	put := func(c *metric.Context, suffix string, v float64) {
		letters := map[metric.Kind]string{
			metric.Counter: "c", metric.Gauge: "g", metric.Set: "s",
			metric.Histogram: "h", metric.Timer: "ms", metric.Distribution: "d",
		}
		id := letters[c.Kind()] + " " + c.Name() + " " + strings.Join(slices.Collect(c.Tags()), " ") + suffix
		if _, twice := points[id]; twice {
			t.Fatalf("two points for %s", id)
		}
		points[id] = v
	}
	for i := range b.Series {
		s := &b.Series[i]
		put(b.Context(s), s.Suffix.String(), s.Value)
	}
	for _, p := range b.Sketches {
		put(p.Context, ".count", float64(p.Sketch.Count))
		put(p.Context, ".sum", p.Sketch.Sum)
		put(p.Context, ".min", p.Sketch.Min)
		put(p.Context, ".max", p.Sketch.Max)
	}
	return points
}
