package metric

import "testing"

// Suffixes are told apart.
func TestSuffixes(t *testing.T) {
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
}
