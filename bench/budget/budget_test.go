package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

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

// Each benchmark that the table names is there: a renamed one does not go unnoticed
// until somebody measures.
func TestBenchmarksAreThere(t *testing.T) {
	for _, s := range stages {
		files, err := filepath.Glob("../../" + s.pkg + "/*_test.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %v", s.pkg, files, err)
		}
		var all strings.Builder
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
		for _, name := range []string{s.bench, s.less, s.floor} {
			function, _, _ := strings.Cut(name, "/")
			if name != "" && !regexp.MustCompile(`func `+function+`\(b `).MatchString(all.String()) {
				t.Errorf("%s has no %s", s.pkg, function)
			}
		}
	}
}

// The table takes the place of the one before, and nothing else changes.
func TestAround(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("a\n"+beginMark+"old\n"+endMark+"b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, after, err := around(file)
	if got, want := before+"new\n"+after, "a\n"+beginMark+"new\n"+endMark+"b\n"; err != nil || got != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	if err := os.WriteFile(file, []byte("a\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := around(file); err == nil {
		t.Error("a file without marks: want an error")
	}
	if _, _, err := around("../../docs/PERFORMANCE.md"); err != nil {
		t.Error(err)
	}
}
