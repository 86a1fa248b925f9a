package priority

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Lower gives the calling goroutine a thread of its own for good, with a lower priority
// if it does not have one already. It cannot be taken back, since raising a priority is a
// privilege; so it is for goroutines that do one thing until they end. The thread ends
// with them.
func Lower() {
	runtime.LockOSThread()
	thread := unix.Gettid()
	if now, err := unix.Getpriority(unix.PRIO_PROCESS, thread); err == nil && usual-now < niceness {
		_ = unix.Setpriority(unix.PRIO_PROCESS, thread, niceness) // refused by a sandbox: then it is as it was
	}
}

// usual is what the kernel says of a niceness of 0 (getpriority(2): its own call returns
// 20 less the niceness, so that it is never below 0).
const usual = 20

// yield lets another thread run that waits for this processor. Go's scheduler does not
// hear of it: what it has to run is not what is waited for.
func yield() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
