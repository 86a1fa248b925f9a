package main

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shiftVariable names the file by which the clock of a binary of buildShifted is moved:
// seconds, 8 bytes in the machine's order.
const shiftVariable = "TEST_CLOCK_SHIFT"

// shiftSource goes into package time of such a binary. The file is mapped, so that a
// moment after it was written every clock has moved.
const shiftSource = `package time

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var shifted = mapShift()

func mapShift() *int64 {
	path, _ := syscall.Getenv("` + shiftVariable + `")
	if path == "" {
		return new(int64)
	}
	file, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		panic("` + shiftVariable + `: " + path + ": " + err.Error())
	}
	page, err := syscall.Mmap(file, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("` + shiftVariable + `: " + path + ": " + err.Error())
	}
	return (*int64)(unsafe.Pointer(&page[0]))
}

func shift() int64 { return atomic.LoadInt64(shifted) }
`

// buildShifted returns the path of the agent's binary with a wall clock that the test
// moves, as somebody with root's rights would: the monotonic clock and timers go on as
// they do. Nothing else is different in it. The first build on a machine compiles
// everything, the standard library included.
func buildShifted(t *testing.T) string {
	t.Helper()
	const key = "another clock"
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if path, done := builds.paths[key]; done {
		return path
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatalf("go env GOROOT: %v", err)
	}
	folder := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(folder, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const before, after = "\tsec, nsec, mono := runtimeNow()\n", "\tsec += shift()\n"
	if n := strings.Count(string(source), before); n != 1 {
		t.Fatalf("%s has %q %d times, want once, in Now: this Go reads the clock in another way, and the test must follow", folder, before, n)
	}
	mine := t.TempDir()
	replaced := map[string]string{}
	for name, text := range map[string]string{
		"time.go":  strings.Replace(string(source), before, before+after, 1),
		"shift.go": shiftSource,
	} {
		replaced[filepath.Join(folder, name)] = filepath.Join(mine, name)
		if err := os.WriteFile(filepath.Join(mine, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(mine, "overlay.json"), overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(builds.folder, "weir-"+shiftVariable)
	if out, err := exec.Command("go", "build", "-overlay", filepath.Join(mine, "overlay.json"), "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build with another clock: %v\n%s", err, out)
	}
	builds.paths[key] = binary
	return binary
}

// shiftedClock is the wall clock of all processes that have it in their environment.
type shiftedClock struct {
	t    *testing.T
	path string
}

func newShiftedClock(t *testing.T) *shiftedClock {
	c := &shiftedClock{t, filepath.Join(t.TempDir(), "clock")}
	c.shift(0)
	return c
}

// shift makes the clock that much fast.
func (c *shiftedClock) shift(by time.Duration) {
	c.t.Helper()
	file, err := os.OpenFile(c.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(int64(by/time.Second))), 0); err != nil {
		c.t.Fatal(err)
	}
}

// A binary with a clock that a test moves goes by it, in its log and in what it emits,
// and by nothing but the clock if nobody moves it.
func TestShiftedClock(t *testing.T) {
	binary, clock := buildShifted(t), newShiftedClock(t)
	now := time.Now().UTC()
	p := start(t, binary, shiftVariable+"="+clock.path, "WEIR_FLUSH_INTERVAL=1s")
	if day := now.Format(time.DateOnly); !strings.Contains(p.log(), "time="+day) && time.Now().UTC().Format(time.DateOnly) == day {
		t.Errorf("the log is not of %s:\n%s", day, p.log())
	}
	const day = 24 * time.Hour
	clock.shift(40 * day)
	later := now.Add(40 * day).Format("2006-01-02T15")
	eventually(t, "points have the time of the other clock", func() bool {
		return strings.Contains(p.output(), `{"time":"`+later) || time.Now().UTC().Hour() != now.Hour()
	})
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
