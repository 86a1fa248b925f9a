//go:build !linux

package priority

// Lower does nothing: a priority of a thread is Linux's own.
func Lower() {}
