//go:build !linux

package priority

import "runtime"

// Lower does nothing: a priority of a thread is Linux's own.
func Lower() {}

func yield() { runtime.Gosched() }
