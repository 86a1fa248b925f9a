package forwarder

import (
	"fmt"
	"path"
	"slices"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

func TestPatterns(t *testing.T) {
	tests := map[string]struct{ match, differ []string }{
		"a.b":   {[]string{"a.b"}, []string{"", "a", "a.b.c", "xa.b", "a_b"}},
		"a.*":   {[]string{"a.", "a.b", "a.b.c"}, []string{"a", "b.a.c"}},
		"*.b":   {[]string{".b", "a.b", "a.x.b"}, []string{"b", "a.b.c"}},
		"*":     {[]string{"", "a", "a.b"}, nil},
		"a*b*c": {[]string{"abc", "aXbYc", "a.b.b.c", "abcbc"}, []string{"ab", "acb", "abcd", "ac"}},
		"ab*ba": {[]string{"abba", "abxba"}, []string{"aba", "ab"}},
		"*b*":   {[]string{"b", "abc"}, []string{"", "ac"}},
		"a**b":  {[]string{"ab", "axb"}, []string{"a"}},
		"[a]?":  {[]string{"[a]?"}, []string{"a", "ab"}},
	}
	for text, test := range tests {
		p := newPattern(text)
		for _, name := range test.match {
			if !p.match(name) {
				t.Errorf("%q does not match %q", text, name)
			}
		}
		for _, name := range test.differ {
			if p.match(name) {
				t.Errorf("%q matches %q", text, name)
			}
		}
	}
}

// Without slashes and its other signs, path.Match has the same stars.
func FuzzPattern(f *testing.F) {
	for _, pair := range [][2]string{{"a*b*c", "aXbYc"}, {"*.b", "a.b"}, {"ab*ba", "aba"}, {"*a*a*", "aa"}} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		for _, s := range text + name {
			if s != '*' && (s < 'a' || s > 'z') && s != '.' {
				t.Skip()
			}
		}
		want, err := path.Match(text, name)
		if err != nil {
			t.Skip()
		}
		if got := newPattern(text).match(name); got != want {
			t.Errorf("%q on %q: %v, want %v", text, name, got, want)
		}
	})
}

// Each destination has its part, by the whole name; what is not in it was not
// produced for it.
func TestIncludeAndExclude(t *testing.T) {
	batch := example()
	batch.Events = []metric.Event{{Title: "page deployed"}, {Title: "other"}}
	batch.Checks = []metric.ServiceCheck{{Name: "page.up"}, {Name: "db.up"}}
	tests := map[string]struct {
		cfg  DestinationConfig
		want []string
	}{
		"everything":   {DestinationConfig{}, []string{"page.views", "load", "query.time.avg", "query.time.count", "size", "page deployed", "other", "page.up", "db.up"}},
		"include":      {DestinationConfig{Include: []string{"page*", "size"}}, []string{"page.views", "size", "page deployed", "page.up"}},
		"a suffix":     {DestinationConfig{Include: []string{"*.avg"}}, []string{"query.time.avg"}},
		"no suffix":    {DestinationConfig{Include: []string{"query.time"}}, nil},
		"exclude":      {DestinationConfig{Exclude: []string{"*.up", "query.*", "other"}}, []string{"page.views", "load", "size", "page deployed"}},
		"both":         {DestinationConfig{Include: []string{"query.*"}, Exclude: []string{"*.count"}}, []string{"query.time.avg"}},
		"nothing left": {DestinationConfig{Include: []string{"nothing"}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.cfg.Type = TypeDiscard
			f, _ := deliver(t, Config{ShutdownTimeout: time.Minute, Forwarders: []DestinationConfig{test.cfg, {Type: TypeDiscard}}}, batch)
			stats := f.Stats()
			if got := stats[0].Produced; got != uint64(len(test.want)) || stats[0].Delivered != got {
				t.Errorf("stats = %+v, want %d produced", stats[0], len(test.want))
			}
			if stats[1].Delivered != batch.Points() {
				t.Errorf("the other destination got %d points, want %d", stats[1].Delivered, batch.Points())
			}
			if got := namesOf(newFilter(&test.cfg).apply(batch)); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	if batch.Points() != 9 || batch.Context(&batch.Series[1]).Name() != "load" {
		t.Error("a filter changed the batch that others read")
	}
}

func namesOf(b *metric.Batch) (names []string) {
	for i := range b.Series {
		s := &b.Series[i]
		names = append(names, b.Context(s).Name()+s.Suffix.String())
	}
	for _, p := range b.Sketches {
		names = append(names, p.Context.Name())
	}
	for _, e := range b.Events {
		names = append(names, e.Title)
	}
	for _, c := range b.Checks {
		names = append(names, c.Name)
	}
	return names
}

func filterOfThree() *filter {
	return newFilter(&DestinationConfig{Include: []string{"shop.*"}, Exclude: []string{"*.debug", "shop.*.internal.*"}})
}

func TestFilterDoesNotAllocate(t *testing.T) {
	f := filterOfThree()
	if n := testing.AllocsPerRun(100, func() { f.takes("shop.checkout.request.time", ".95percentile") }); n != 0 {
		t.Errorf("%v allocations a point", n)
	}
}

func BenchmarkFilter(b *testing.B) {
	batch := &metric.Batch{}
	for i := range 100_000 {
		batch.Add(contextOf(metric.Counter, fmt.Sprintf("shop.checkout.request.count%d", i), metric.Host{}, "", "env:prod"), metric.Series{})
	}
	f := filterOfThree()
	b.ReportAllocs()
	for b.Loop() {
		f.apply(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(batch.Series)), "ns/point")
}
