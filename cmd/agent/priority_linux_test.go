package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-agent/weir/internal/testkit"
)

// What flushes and forwards yields to the readers: it has threads with a lower priority,
// and the others keep theirs.
func TestWhatCanWaitYields(t *testing.T) {
	own := niceness(t, "/proc/self/stat")
	if own >= 5 {
		t.Skipf("the niceness of this process is %d", own)
	}
	intake := testkit.NewIntake(t)
	p := start(t, build(t), toIntake(intake)...)
	eventually(t, "threads of both priorities", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		byNiceness := map[int]int{}
		for _, thread := range threads {
			byNiceness[niceness(t, thread)]++
		}
		// The aggregator, what hands its batches out, a destination, and the guards' answers.
		return byNiceness[5] >= 4 && byNiceness[own] >= 2 && byNiceness[5]+byNiceness[own] == len(threads)
	})
}

// niceness reads that of a thread (proc(5): field 19, after a name in brackets).
func niceness(t *testing.T, stat string) int {
	t.Helper()
	text, err := os.ReadFile(stat)
	if err != nil {
		return -1 // it has ended
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	n, err := strconv.Atoi(fields[16])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
