package aggregator

import (
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
	"github.com/weir-agent/weir/rules"
)

// sampling returns rules that let a share of everything that can be sampled through.
func sampling(share float64) func() Treat {
	r := rules.New(rules.Config{Rules: []rules.Rule{
		{Match: "*", Sample: &share, Kinds: []string{"counter", "histogram", "timer", "distribution"}},
	}})
	return func() Treat { return r.NewSession().Apply }
}

// stream is what a client sends in one line: values at one rate.
type stream struct {
	values []float64
	rate   float64
}

// packedLine returns a line with all values of a stream.
func packedLine(s stream, kind string) *metric.Lines {
	line := fmt.Appendf(nil, "m:1|%s|@%v", kind, s.rate)
	return &metric.Lines{
		Count:   1,
		Samples: []metric.Sample{{Line: line, NameEnd: 1, Tail: 4, Value: s.values[0], More: 0, MoreEnd: uint32(len(s.values) - 1)}},
		Values:  s.values[1:],
	}
}

// Over a thousand runs the mean error of what is sampled is within three standard
// errors of zero: counts, sums and percentiles, whatever rates the clients sample at.
func TestSamplingIsUnbiased(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	draw := func(n int, low, high float64) []float64 {
		values := make([]float64, n)
		for i := range values {
			values[i] = low + (high-low)*random.Float64()
		}
		return values
	}
	streams := []stream{{draw(9000, 1, 3), 0.3}, {draw(9000, 2, 5), 1}, {draw(4000, 4, 8), 0.7}}
	few := []stream{{draw(900, 1, 3), 0.3}, {draw(900, 2, 5), 1}, {draw(400, 4, 8), 0.7}}
	// Without a rule a distribution counts the whole part of 1/rate.
	whole := []stream{{streams[0].values, 0.25}, {streams[1].values, 1}, {streams[2].values, 0.5}}
	classic := parser.New(parser.Config{Dialect: parser.DialectStatsD, TagStyle: parser.TagsDogStatsD})
	dogstatsd := parser.New(parser.DefaultConfig())
	for _, test := range []struct {
		name, kind string
		parser     *parser.Parser
		share      float64
		streams    []stream
	}{
		{"counter", "c", dogstatsd, 0.1, few},
		{"histogram", "h", dogstatsd, 0.15, streams},
		{"timer", "ms", dogstatsd, 0.04, few},
		{"classic timer", "ms", classic, 0.15, streams},
		{"distribution", "d", dogstatsd, 0.15, whole},
		{"distribution of few", "d", dogstatsd, 0.03, few},
	} {
		t.Run(test.name, func(t *testing.T) {
			var values, weights []float64 // as they would be without the rule
			var events float64
			var lines []*metric.Lines
			for _, s := range test.streams {
				lines = append(lines, packedLine(s, test.kind))
				for _, v := range s.values {
					weight := 1 / s.rate
					events += weight
					if test.parser == classic {
						weight = 1
					}
					values, weights = append(values, v), append(weights, weight)
				}
			}
			exact := referenceSummary(values, weights, []int{50, 95})
			want := map[string]float64{"count": events, "sum": exact.sum}
			if test.share > 0.05 { // a percentile of few values is biased by itself
				want["p50"], want["p95"] = exact.percentiles[0], exact.percentiles[1]
			}
			switch test.name {
			case "distribution": // a sketch has an error of its own
				sketch := sampleOnce(t, test.parser, sampling(1), 0, lines)
				want["p50"], want["p95"] = sketch["p50"], sketch["p95"]
			case "counter":
				want = map[string]float64{"sum": exact.sum}
			}

			const runs = 1000
			errors, squares := map[string]float64{}, map[string]float64{}
			for seed := range uint64(runs) {
				got := sampleOnce(t, test.parser, sampling(test.share), seed, lines)
				for what := range want {
					e := got[what] - want[what]
					errors[what] += e / runs
					squares[what] += e * e / runs
				}
			}
			for what, mean := range errors {
				deviation := math.Sqrt(squares[what] - mean*mean)
				if se := deviation / math.Sqrt(runs); !(math.Abs(mean) <= 3*se) || deviation == 0 {
					t.Errorf("%s of %v: the mean error is %v, %.1f standard errors", what, want[what], mean, mean/se)
				} else {
					t.Logf("%s of %v: mean error %.2g, %.1f standard errors; one run is off by %.2g", what, want[what], mean, mean/se, deviation)
				}
			}
		})
	}
}

// sampleOnce aggregates lines by one worker with a seed of its own, and returns what
// one interval made of them.
func sampleOnce(t *testing.T, p *parser.Parser, treat func() Treat, seed uint64, lines []*metric.Lines) map[string]float64 {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Histogram = HistogramConfig{Aggregates: []string{"count", "sum"}, Percentiles: []float64{0.5, 0.95}}
	a := New(cfg, []Describe{p.Describe}, slog.New(slog.DiscardHandler))
	a.SetRules(treat)
	w := a.Worker(0)
	w.random = rand.New(rand.NewPCG(seed, 2))
	for _, l := range lines {
		w.Add(l)
	}
	b := a.flusher.flush(time.Unix(0, 0), nil)
	got := map[string]float64{}
	for _, s := range b.Series {
		switch s.Suffix.String() {
		case "":
			got["sum"] = s.Value * 10
		case ".count":
			got["count"] = s.Value * 10
		case ".sum":
			got["sum"] = s.Value
		case ".50percentile":
			got["p50"] = s.Value
		case ".95percentile":
			got["p95"] = s.Value
		}
	}
	for _, p := range b.Sketches {
		got["count"], got["sum"] = float64(p.Sketch.Count), p.Sketch.Sum
		got["p50"], got["p95"] = p.Sketch.Quantile(0.5), p.Sketch.Quantile(0.95)
	}
	return got
}

// Whatever rules drop and sample, every sample is in the books once; what is dropped is
// remembered, does not count for the limit on contexts and is forgotten when nobody
// sends it.
func TestRulesInTheBooks(t *testing.T) {
	half, by := 0.5, 0.5
	r := rules.New(rules.Config{Rules: []rules.Rule{
		{Match: "drop.*", Drop: true},
		{Match: "weirdly.*", Name: "$1"}, // may come to what is weir's own
		{Match: "half.*", Sample: &half},
		{Match: "by.*", Sample: &by, SampleBy: "user"},
		{Match: "long.*", Name: "$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1$1"},
	}})
	cfg := DefaultConfig()
	cfg.FlushInterval, cfg.Expiry = time.Second, ExpiryConfig{Context: 2 * time.Second, ZeroFill: 0, KeptGauge: time.Hour}
	cfg.MaxContexts = 60
	p := parser.New(parser.DefaultConfig())
	a := New(cfg, []Describe{p.Describe, p.Describe}, slog.New(slog.DiscardHandler))
	a.SetRules(func() Treat { return r.NewSession().Apply })
	random := rand.New(rand.NewPCG(3, 3))
	long := make([]byte, 4000)
	for i := range long {
		long[i] = 'n'
	}
	want := map[string]uint64{}
	for interval := range 40 {
		for range 300 {
			kind := []string{"c", "d", "ms"}[random.IntN(3)]
			var line, why string
			switch random.IntN(6) {
			case 0:
				line, why = fmt.Sprintf("drop.%d:1|%s", random.IntN(200), kind), "dropped_by_rule"
			case 1:
				line, why = "weirdly.weir.x:1|"+kind, "reserved_name"
			case 2:
				line = fmt.Sprintf("half.%d:1:2:3|%s|@0.5", random.IntN(3), kind)
			case 3:
				line = fmt.Sprintf("by.x:1|%s|#user:%d", kind, random.IntN(10))
			case 4:
				line, why = fmt.Sprintf("long.%s:1|%s", long, kind), "too_long"
			case 5:
				line = fmt.Sprintf("half.t:1|g|T%d", 1_700_000_000+interval)
			}
			want["samples"]++
			want[why]++
			var lines metric.Lines
			p.Packet([]byte(line), false, &lines)
			a.Worker(random.IntN(2)).Add(&lines)
		}
		a.flusher.flush(time.Unix(int64(interval), 0), nil)
	}
	s := a.Stats()
	if s.SampledOut == 0 || s.Passed == 0 || s.Contexts == 0 {
		t.Errorf("sampled out %d, passed %d, contexts %d: the test shows nothing", s.SampledOut, s.Passed, s.Contexts)
	}
	refused := uint64(0)
	for why, n := range s.Refused {
		refused += n
		if n != want[metric.Reason(why).String()] && metric.Reason(why) != metric.Accepted {
			t.Errorf("refused as %v: %d, want %d", metric.Reason(why), n, want[metric.Reason(why).String()])
		}
	}
	if s.Samples != want["samples"] || s.Aggregated+s.SampledOut+s.Passed+refused != s.Samples {
		t.Errorf("%d samples, want %d = %d aggregated + %d sampled out + %d passed + %d refused", s.Samples, want["samples"], s.Aggregated, s.SampledOut, s.Passed, refused)
	}
	if s.Identities > 2*2*cfg.MaxContexts {
		t.Errorf("%d identities are remembered", s.Identities)
	}
	for range 6 {
		a.flusher.flush(time.Unix(50, 0), nil)
	}
	if s := a.Stats(); s.Identities != 0 || s.Contexts != 0 {
		t.Errorf("%d identities and %d contexts after a long silence", s.Identities, s.Contexts)
	}
	for i, w := range a.workers {
		free := uint32(0)
		for at := w.freeWeight; at != 0 && free <= w.weights; at = w.weighted.at(at).skip {
			free++
		}
		if free != w.weights-fixedWeighted {
			t.Errorf("worker %d: %d of %d weighted refs are free", i, free, w.weights-fixedWeighted)
		}
	}
}

// A known sample that rules concern costs no allocation.
func TestAddTreatedDoesNotAllocate(t *testing.T) {
	share := 0.1
	r := rules.New(rules.Config{Rules: []rules.Rule{{Match: "drop.*", Drop: true}, {Match: "*", Sample: &share}}})
	p := parser.New(parser.DefaultConfig())
	a := New(DefaultConfig(), []Describe{p.Describe}, slog.New(slog.DiscardHandler))
	a.SetRules(func() Treat { return r.NewSession().Apply })
	var lines metric.Lines
	packet := []byte("drop.x:1|c\na:1:2|d\nb:1|ms|@0.5\ndrop.x:2|d")
	add := func() {
		lines.Reset()
		p.Packet(packet, false, &lines)
		a.Worker(0).Add(&lines)
	}
	for range 1000 {
		add()
	}
	a.flusher.flush(time.Unix(0, 0), nil)
	for range 1000 {
		add() // both columns have memory now
	}
	a.flusher.flush(time.Unix(1, 0), nil)
	if n := testing.AllocsPerRun(100, add); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

// Even if every value has an identity of its own, fractions of events are not lost.
func TestSamplingByATagIsUnbiased(t *testing.T) {
	share := 0.3
	r := rules.New(rules.Config{Rules: []rules.Rule{{Match: "*", Sample: &share, SampleBy: "user", DropTags: []string{"user"}}}})
	const users = 20_000
	var lines metric.Lines
	p := parser.New(parser.DefaultConfig())
	for user := range users {
		p.Packet(fmt.Appendf(nil, "m:1|d|#user:%d", user), false, &lines)
	}
	got := sampleOnce(t, p, func() Treat { return r.NewSession().Apply }, 1, []*metric.Lines{&lines})
	if se := math.Sqrt(users * (1 - share) / share); math.Abs(got["count"]-users) > 3*se {
		t.Errorf("count %v, want %v, give or take %.0f", got["count"], users, se)
	}
	if math.Abs(got["sum"]-got["count"]) > 100 {
		t.Errorf("sum %v and count %v of ones differ", got["sum"], got["count"])
	}
}
