package main

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func TestRoomFor(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 4 << 20: 100, 16 << 20: 100, 32 << 20: 62, 128 << 20: 25, 256 << 20: 18, 16 << 30: 12} {
		if got := roomFor(live); got != want {
			t.Errorf("a heap of %d MiB may grow by %d %%, want %d %%", live>>20, got, want)
		}
	}
}

// It is not only the first collection after which the room is looked at.
func TestAfterCollections(t *testing.T) {
	var calls atomic.Int32
	afterCollections(func() { calls.Add(1) })
	for n := range int32(3) {
		for deadline := time.Now().Add(10 * time.Second); calls.Load() <= n; {
			runtime.GC()
			runtime.Gosched()
			if time.Now().After(deadline) {
				t.Fatalf("%d calls after many collections", n)
			}
		}
	}
}
