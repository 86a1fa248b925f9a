package metric

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// A quantile is always a number that a log line can hold, and never outside what
// was measured, however extreme the samples were.
func TestQuantileStaysWithinTheSamples(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	extremes := []float64{
		0, 1, -1, 1e-300, -1e-300, math.SmallestNonzeroFloat64, 1e211, -1e211, 1e212, 1e300, -1e300, math.MaxFloat64, -math.MaxFloat64,
	}
	for range 3000 {
		var values []float64
		for range 1 + random.IntN(8) {
			values = append(values, extremes[random.IntN(len(extremes))])
		}
		slices.Sort(values)
		s := Sketch{Count: int64(len(values)), Min: values[0], Max: values[len(values)-1]}
		for _, v := range values {
			s.Keys, s.Counts = append(s.Keys, int32(SketchKey(v))), append(s.Counts, 1)
		}
		last := math.Inf(-1)
		for q := 0.0; q <= 1; q += 0.125 {
			v := s.Quantile(q)
			if !(v >= s.Min && v <= s.Max) || v < last {
				t.Fatalf("quantile %v of %v = %v, the one before it %v", q, values, v, last)
			}
			last = v
		}
	}
}

// What goes into a context's key comes out of the context.
func TestContextKeepsItsParts(t *testing.T) {
	for _, test := range []struct {
		host   Host
		device string
		tags   []string
		want   string
	}{
		{Host{}, "", nil, "agent"},
		{Host{}, "", []string{""}, "agent"},
		{Host{}, "eth0", []string{"a:1", "b"}, "agent"},
		{Host{Explicit: true}, "", []string{"a:1"}, ""},
		{Host{Explicit: true, Name: []byte("db-1")}, "sda", nil, "db-1"},
	} {
		var tags [][]byte
		for _, tag := range test.tags {
			tags = append(tags, []byte(tag))
		}
		key := AppendContextKey(nil, Timer, []byte("query.time"), test.host, []byte(test.device), tags)
		c := NewContext(key)
		clear(key) // it was borrowed
		got := slices.Collect(c.Tags())
		if c.Kind() != Timer || c.Name() != "query.time" || c.Host("agent") != test.want || c.Device() != test.device || !slices.Equal(got, test.tags) {
			t.Errorf("%+v became %v %q host %q device %q tags %q", test, c.Kind(), c.Name(), c.Host("agent"), c.Device(), got)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "512B": 512, "4MiB": 4 << 20, "8 KiB": 8 << 10, "1.5kb": 1500, "2GB": 2e9, "1TiB": 1 << 40,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "4", "4M", "-1KiB", "x MiB", "NaNB", "1e30TB", "infB"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
	for size, want := range map[Bytes]string{0: "0B", 1500: "1500B", 4 << 20: "4MiB", 3 << 10: "3KiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d is written as %q, want %q", int64(size), got, want)
		}
		if back, err := ParseBytes(want); err != nil || back != size {
			t.Errorf("%q does not read as %d", want, int64(size))
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	const key = "0123456789abcdef"
	holder := struct{ Key Secret }{key}
	encoded, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "key", holder.Key, "holder", holder)
	for _, text := range []string{
		fmt.Sprint(holder), fmt.Sprintf("%v %+v %#v %s %q", holder, holder, holder, holder.Key, holder.Key), string(encoded), logged.String(),
	} {
		if strings.Contains(text, key) {
			t.Errorf("%q has the secret", text)
		}
	}
	if holder.Key.Reveal() != key || Secret("").String() != "" {
		t.Error("a secret is lost, or none is shown as one")
	}
}

// The names are values of tags on dashboards: each reason has one, of its own.
func TestReasonsAreNamed(t *testing.T) {
	seen := map[string]bool{}
	for why := range Reasons {
		name := why.String()
		if name == "" || name == "unknown" || seen[name] {
			t.Errorf("reason %d is named %q", why, name)
		}
		seen[name] = true
		if why != Accepted && why.Rejects() == why.Refuses() {
			t.Errorf("%s must be either a parser's reason or an aggregator's", name)
		}
	}
}
