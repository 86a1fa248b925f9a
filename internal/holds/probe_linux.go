//go:build holds

package holds

import (
	"maps"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Mutex is a mutex that a reader waits for.
type Mutex struct {
	mu    sync.Mutex
	wall  time.Time
	began time.Duration // CPU time of the thread
}

// Lock locks m.
func (m *Mutex) Lock() {
	m.mu.Lock()
	m.wall, m.began = time.Now(), ThreadTime()
}

// TryLock tries to lock m.
func (m *Mutex) TryLock() bool {
	ok := m.mu.TryLock()
	if ok {
		m.wall, m.began = time.Now(), ThreadTime()
	}
	return ok
}

// Unlock unlocks m.
func (m *Mutex) Unlock() {
	held := Since(m.wall, m.began)
	m.mu.Unlock()
	note(held)
}

// Since returns how much of the CPU the thread has had since a moment: what others on the
// machine take from it is no part of a hold. Where the scheduler moved the goroutine to
// another thread it is the time that passed.
func Since(wall time.Time, began time.Duration) time.Duration {
	passed, used := time.Since(wall), ThreadTime()-began
	if used < 0 {
		return passed
	}
	return min(passed, used)
}

// ThreadTime returns the CPU time of the thread.
func ThreadTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		panic(err)
	}
	return time.Duration(now.Nano())
}

var (
	mu      sync.Mutex                       // guards longest
	longest = map[[2]uintptr]time.Duration{} // by the callers of Unlock
)

func note(held time.Duration) {
	const some = 50 * time.Microsecond
	if held < some {
		return
	}
	var callers [2]uintptr
	runtime.Callers(3, callers[:])
	mu.Lock()
	defer mu.Unlock()
	longest[callers] = max(longest[callers], held)
}

// Longest returns the longest hold of each function that unlocked a Mutex since it was
// last called, if it was at least 50 microseconds.
func Longest() map[string]time.Duration {
	mu.Lock()
	all := maps.Clone(longest)
	clear(longest)
	mu.Unlock()
	byName := map[string]time.Duration{}
	for callers, held := range all {
		frames := runtime.CallersFrames(callers[:])
		frame, _ := frames.Next()
		if strings.HasSuffix(frame.Function, ".EndTurn") {
			frame, _ = frames.Next()
		}
		byName[frame.Function] = max(byName[frame.Function], held)
	}
	return byName
}
