package oracle

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/DataDog/agent-payload/v5/gogen"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/metric"
)

// capture is an intake that keeps what it gets.
type capture struct {
	mu       sync.Mutex // guards the fields below
	payloads map[string][][]byte
	problems []string
}

func (c *capture) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet {
		return // the key is valid
	}
	raw, err := decompress(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.problems = append(c.problems, err.Error())
	}
	c.payloads[r.URL.Path] = append(c.payloads[r.URL.Path], raw)
	w.WriteHeader(http.StatusAccepted)
}

func decompress(r *http.Request) ([]byte, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "zstd" {
		return nil, fmt.Errorf("Content-Encoding is %q", encoding)
	}
	decoder, err := zstd.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	defer decoder.Close()
	return io.ReadAll(decoder)
}

// deliver forwards a batch to an intake and returns the payloads by route,
// decompressed.
func deliver(t *testing.T, b *metric.Batch) map[string][][]byte {
	t.Helper()
	got := &capture{payloads: map[string][][]byte{}}
	server := httptest.NewServer(got)
	defer server.Close()
	cfg := forwarder.DefaultConfig()
	cfg.Spool.Enabled = false
	cfg.Forwarders = []forwarder.DestinationConfig{{Type: forwarder.TypeDatadog, APIKey: "0123456789abcdef0123456789abcdef", URL: server.URL}}
	cfg.Resolve(forwarder.Defaults{})
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	f, err := forwarder.New(cfg, "weir/1.2.3", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	batches := make(chan *metric.Batch, 1)
	batches <- b
	close(batches)
	f.Run(batches)
	if stats := f.Stats()[0]; stats.Delivered != b.Points() {
		t.Fatalf("delivered %d points of %d", stats.Delivered, b.Points())
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	if len(got.problems) > 0 {
		t.Fatal(got.problems)
	}
	return got.payloads
}

// message is a payload's message.
type message interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// decode reads a payload into m, and has the library write it again: if that gives
// the same bytes, the payload is canonical and has no field that the library does
// not know.
func decode(t *testing.T, payload []byte, m message) {
	t.Helper()
	if err := m.Unmarshal(payload); err != nil {
		t.Fatal(err)
	}
	again, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again, payload) {
		t.Errorf("the library writes the message in %d bytes, weir in %d, or in others", len(again), len(payload))
	}
}

// wantSeries is the message of a series.
func wantSeries(b *metric.Batch, s *metric.Series) *gogen.MetricPayload_MetricSeries {
	c := b.Context(s)
	var resources []*gogen.MetricPayload_Resource
	if host := c.Host(b.AgentHost); host != "" {
		resources = append(resources, &gogen.MetricPayload_Resource{Type: "host", Name: host})
	}
	if device := c.Device(); device != "" {
		resources = append(resources, &gogen.MetricPayload_Resource{Type: "device", Name: device})
	}
	seconds := b.Start.Unix()
	if s.Time != 0 {
		seconds = s.Time
	}
	return &gogen.MetricPayload_MetricSeries{
		Resources: resources,
		Metric:    c.Name() + s.Suffix.String(),
		Tags:      slices.Collect(c.Tags()),
		Points:    []*gogen.MetricPayload_MetricPoint{{Value: s.Value, Timestamp: seconds}},
		Type:      map[metric.SeriesType]gogen.MetricPayload_MetricType{metric.Count: gogen.MetricPayload_COUNT, metric.Rate: gogen.MetricPayload_RATE, metric.GaugeType: gogen.MetricPayload_GAUGE}[s.Type],
		Unit:      s.Unit(c),
		Interval:  int64(b.Interval / time.Second),
		Metadata:  fromDogStatsD,
	}
}

// fromDogStatsD says that a metric is the agent's (product 10), by DogStatsD
// (category 10).
var fromDogStatsD = &gogen.Metadata{Origin: &gogen.Origin{OriginProduct: 10, OriginCategory: 10}}

// wantSketch is the message of a sketch.
func wantSketch(b *metric.Batch, p *metric.SketchPoint) gogen.SketchPayload_Sketch {
	tags := slices.Collect(p.Context.Tags())
	if device := p.Context.Device(); device != "" {
		tags = append([]string{"device:" + device}, tags...) // there are no resources
	}
	s := p.Sketch
	return gogen.SketchPayload_Sketch{
		Metric: p.Context.Name(), Host: p.Context.Host(b.AgentHost), Tags: tags, Metadata: fromDogStatsD,
		Dogsketches: []gogen.SketchPayload_Sketch_Dogsketch{{
			Ts: b.Start.Unix(), Cnt: s.Count, Min: s.Min, Max: s.Max, Avg: s.Avg, Sum: s.Sum, K: s.Keys, N: s.Counts,
		}},
	}
}

func TestPayloadsAreWhatTheLibraryReads(t *testing.T) {
	forEachSeed(t, func(t *testing.T, r *rand.Rand) {
		b := randomBatch(r)
		payloads := deliver(t, b)

		series := map[string]*gogen.MetricPayload_MetricSeries{}
		for _, payload := range payloads["/api/v2/series"] {
			var m gogen.MetricPayload
			decode(t, payload, &m)
			for _, s := range m.Series {
				series[s.Metric] = s
			}
		}
		if len(series) != len(b.Series) {
			t.Errorf("%d series arrived, want %d", len(series), len(b.Series))
		}
		for i := range b.Series {
			want := wantSeries(b, &b.Series[i])
			if diff := cmp.Diff(want, series[want.Metric]); diff != "" {
				t.Fatalf("series (-batch +payload):\n%s", diff)
			}
		}

		sketches := map[string]gogen.SketchPayload_Sketch{}
		for _, payload := range payloads["/api/beta/sketches"] {
			var m gogen.SketchPayload
			decode(t, payload, &m)
			for _, s := range m.Sketches {
				sketches[s.Metric] = s
			}
		}
		if len(sketches) != len(b.Sketches) {
			t.Errorf("%d sketches arrived, want %d", len(sketches), len(b.Sketches))
		}
		for i := range b.Sketches {
			want := wantSketch(b, &b.Sketches[i])
			if diff := cmp.Diff(want, sketches[want.Metric]); diff != "" {
				t.Fatalf("sketch (-batch +payload):\n%s", diff)
			}
		}
	})
}

// randomBatch draws a batch in which every name is there once. Now and then it is
// too large for one payload.
func randomBatch(r *rand.Rand) *metric.Batch {
	b := &metric.Batch{
		Start:     time.Unix(1_700_000_000+10*r.Int64N(1e8), 0).UTC(),
		Interval:  time.Duration(1+r.IntN(600)) * time.Second,
		AgentHost: []string{"web-1", ""}[r.IntN(2)],
	}
	most := 50
	if r.IntN(16) == 0 {
		most = 12_000
	}
	kinds := []metric.Kind{metric.Counter, metric.Gauge, metric.Set, metric.Histogram, metric.Timer}
	for i := range r.IntN(most) {
		b.Add(randomContext(r, kinds[r.IntN(len(kinds))], fmt.Sprintf("series.%d", i)), metric.Series{
			Suffix: []metric.Suffix{0, metric.AggregateSuffix("avg"), metric.PercentileSuffix(95)}[r.IntN(3)],
			Value:  randomValue(r),
			Type:   []metric.SeriesType{metric.Count, metric.Rate, metric.GaugeType}[r.IntN(3)],
			Time:   []int64{0, 0, 1_700_000_000 + r.Int64N(1e9)}[r.IntN(3)],
		})
	}
	for i := range r.IntN(50) {
		s := metric.Sketch{
			Count: 1 + r.Int64N(math.MaxInt64), Min: randomValue(r), Max: randomValue(r), Sum: randomValue(r), Avg: randomValue(r),
		}
		for range 1 + r.IntN(100) {
			s.Keys = append(s.Keys, int32(r.IntN(1<<16))-1<<15)
			s.Counts = append(s.Counts, 1+r.Uint32N(metric.MaxBinCount))
		}
		s.Keys[0] = 0
		slices.Sort(s.Keys)
		b.Sketches = append(b.Sketches, metric.SketchPoint{
			Context: randomContext(r, metric.Distribution, fmt.Sprintf("sketch.%d", i)), Sketch: s,
		})
	}
	return b
}

func randomValue(r *rand.Rand) float64 {
	switch r.IntN(3) {
	case 0:
		return 0
	case 1:
		return float64(r.IntN(1000) - 500)
	}
	for {
		if v := math.Float64frombits(r.Uint64()); !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	}
}

func randomContext(r *rand.Rand, kind metric.Kind, name string) *metric.Context {
	host := []metric.Host{{}, {Explicit: true}, {Explicit: true, Name: []byte("db-é")}}[r.IntN(3)]
	device := []string{"", "sda"}[r.IntN(2)]
	var tags [][]byte
	for i := range r.IntN(6) {
		tags = append(tags, []byte([]string{"", "env:prod", "b:1,2", "größe:" + strings.Repeat("x", r.IntN(300)), "flag"}[r.IntN(5)]+fmt.Sprint(i)))
	}
	return metric.NewContext(metric.AppendContextKey(nil, kind, []byte(name), host, []byte(device), tags))
}
