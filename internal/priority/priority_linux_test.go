package priority

import (
	"runtime"
	"testing"

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
