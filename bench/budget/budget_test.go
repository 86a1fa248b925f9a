package main

import "testing"

func TestParse(t *testing.T) {
	const out = `goos: linux
BenchmarkAdd/c-2         	     382	   1265599 ns/op	        12.66 ns/sample
BenchmarkAdd/c-2         	     382	   1265599 ns/op	        11.5 ns/sample
BenchmarkAdd/c/floor-2   	     382	   1265599 ns/op	        1.5 ns/sample
BenchmarkAdd/c2-2        	     382	   1265599 ns/op	        0.5 ns/sample	 0 B/op
PASS
`
	for name, want := range map[string]float64{"BenchmarkAdd/c": 11.5, "BenchmarkAdd/c/floor": 1.5} {
		if got, err := parse(out, name, "ns/sample"); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, want)
		}
	}
	if got, err := parse(out, "BenchmarkAdd/c", "ns/line"); err == nil {
		t.Errorf("%v, want an error", got)
	}
}
