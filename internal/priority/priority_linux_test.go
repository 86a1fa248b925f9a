package priority

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func niceOfThread(t *testing.T) int {
	t.Helper()
	now, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err != nil {
		t.Fatal(err)
	}
	return usual - now
}

// TestLower: the thread of the goroutine is nicer, no other is, and one that is nicer
// already stays as it is.
func TestLower(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := niceOfThread(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Lower()
		if got, want := niceOfThread(t), max(before, niceness); got != want {
			t.Errorf("its niceness is %d, want %d", got, want)
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19); err != nil {
			t.Error(err)
		}
		Lower()
		if got := niceOfThread(t); got != 19 {
			t.Errorf("a niceness of 19 became %d", got)
		}
	}()
	<-done
	if got := niceOfThread(t); got != before {
		t.Errorf("another thread's niceness became %d, want %d as before", got, before)
	}
}

// TestYield: a thread that shares a worker's processor gets it when a turn of the worker's
// ends, not only when the kernel ticks: that would be twice in so short a time.
func TestYield(t *testing.T) {
	var processors unix.CPUSet
	if err := unix.SchedGetaffinity(0, &processors); err != nil {
		t.Fatal(err)
	}
	only := oneOf(&processors)
	var stop atomic.Bool
	var threads sync.WaitGroup
	pinned := func(f func()) {
		threads.Go(func() {
			runtime.LockOSThread() // and never unlocked: the thread ends with its affinity
			if err := unix.SchedSetaffinity(0, &only); err != nil {
				t.Error(err)
			}
			f()
		})
	}
	started := make(chan struct{})
	pinned(func() {
		close(started)
		for !stop.Load() {
			_, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
	})
	const turns = 50
	pinned(func() {
		defer stop.Store(true)
		<-started
		work := Work{began: time.Now(), turn: turn}
		before := interruptions(t)
		for range turns {
			for began := work.began; work.began.Equal(began); {
				work.Yield()
			}
		}
		// Not each time, since the kernel is fair: after a long turn the other has to wait.
		if got := interruptions(t) - before; got < turns/4 {
			t.Errorf("the other thread was let in %d times in %d turns", got, turns)
		}
	})
	threads.Wait()
}

// interruptions returns how often the thread lost the processor that it could have used.
func interruptions(t *testing.T) int64 {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &used); err != nil {
		t.Fatal(err)
	}
	return used.Nivcsw
}

func oneOf(processors *unix.CPUSet) (one unix.CPUSet) {
	for i := range 1024 {
		if processors.IsSet(i) {
			one.Set(i)
			return one
		}
	}
	panic("BUG: there is no processor")
}
