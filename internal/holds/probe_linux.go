//go:build holds

package holds

import (
	"maps"
	"runtime"
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
	mu      sync.Mutex // guards longest
	longest = map[uintptr]time.Duration{}
)

func note(held time.Duration) {
	const some = 50 * time.Microsecond
	if held < some {
		return
	}
	var caller [1]uintptr
	runtime.Callers(3, caller[:])
	mu.Lock()
	defer mu.Unlock()
	longest[caller[0]] = max(longest[caller[0]], held)
}

// Longest returns the longest hold of each function that unlocked a Mutex since it was
// last called, if it was at least 50 microseconds.
func Longest() map[string]time.Duration {
	mu.Lock()
	all := maps.Clone(longest)
	clear(longest)
	mu.Unlock()
	byName := map[string]time.Duration{}
	for caller, held := range all {
		frame, _ := runtime.CallersFrames([]uintptr{caller}).Next()
		byName[frame.Function] = max(byName[frame.Function], held)
	}
	return byName
}
