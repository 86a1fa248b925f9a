package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What weir rules import writes is a configuration that weir check takes and that does
// what the mappings did.
func TestImportRulesCommand(t *testing.T) {
	binary := build(t)
	folder := t.TempDir()
	file := filepath.Join(folder, "mapping.yaml")
	mappings := "mappings:\n- {match: 'a.*.b', name: 'a_$1', labels: {k: 'it''s $1', two: \"2\"}}\n"
	if err := os.WriteFile(file, []byte(mappings), 0o600); err != nil {
		t.Fatal(err)
	}
	converted, stderr, code := execute(t, binary, nil, "rules", "import", "--from", "statsd_exporter", file)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	cfg := filepath.Join(folder, "weir.yaml")
	if err := os.WriteFile(cfg, []byte(converted), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := execute(t, binary, nil, "explain", "--config", cfg, "a.x.b:1|g|#k:old")
	if code != 0 || !strings.Contains(stdout, `gauge "a_x", tags "k:it's x" "two:2"`) {
		t.Errorf("exit code %d:\n%s%s\nby\n%s", code, stdout, stderr, converted)
	}
	for _, arguments := range [][]string{{"--from", "nothing", file}, {"--from", "datadog", file}, {"--from", "datadog", file + "x"}, {file}} {
		if stdout, stderr, code := execute(t, binary, nil, append([]string{"rules", "import"}, arguments...)...); code != 1 || stdout != "" || stderr == "" {
			t.Errorf("%v: exit code %d, %q, %q", arguments, code, stdout, stderr)
		}
	}
}
