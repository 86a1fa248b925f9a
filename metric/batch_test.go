package metric

import (
	"testing"
	"unsafe"
)

// Suffixes and times come out as they were put in, and a point stays small.
func TestSeriesKeepsItsParts(t *testing.T) {
	if got := PercentileSuffix(95).String(); got != ".95percentile" {
		t.Errorf("the 95th percentile is called %q", got)
	}
	seen := map[Suffix]bool{0: true, PercentileSuffix(1): true, PercentileSuffix(100): true}
	for _, name := range Aggregates {
		s := AggregateSuffix(name)
		if s.String() != "."+name || seen[s] {
			t.Errorf("the suffix of %s is %q, seen before: %v", name, s, seen[s])
		}
		seen[s] = true
	}
	for _, seconds := range []int64{0, 1, 1_700_000_000, 1<<32 + 5, 1<<48 - 1} {
		s := Series{Value: 1, Suffix: AggregateSuffix("sum"), Type: Rate}.At(seconds)
		if s.Time() != seconds || s.Suffix.String() != ".sum" || s.Type != Rate || s.Value != 1 {
			t.Errorf("at %d: %+v, at %d", seconds, s, s.Time())
		}
	}
	if late := (Series{}).At(1<<63 - 1); late.Time() != 1<<48-1 {
		t.Errorf("the end of time is %d", late.Time())
	}
	if size := unsafe.Sizeof(Series{}); size != 24 {
		t.Errorf("a series takes %d bytes", size)
	}
}
