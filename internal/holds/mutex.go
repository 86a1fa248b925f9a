//go:build !holds

// Package holds is the mutexes that the readers of sockets wait for.
//
// Built with the tag holds, each notes how long it was held at most, and by whom, for the
// tests that look for pauses. In any other build it is a sync.Mutex.
//
// In: nothing. Out: a mutex.
package holds

import "sync"

// Mutex is a mutex that a reader waits for.
type Mutex = sync.Mutex
