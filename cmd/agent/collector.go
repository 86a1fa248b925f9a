package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// The garbage collector begins when the heap has grown by as much as was live, or, in a
// larger heap, by leastRoom and an eighth of it. With a million contexts nearly all of the
// heap is live and has no pointers: collecting often costs little, and room for as much
// again would be resident memory (docs/decisions.md).
const (
	leastRoom = 16 << 20
	roomShare = 8
	usualRoom = 100 // percent of the live heap: Go's default
)

// roomFor returns by how many percent the heap may grow over what is live.
func roomFor(live uint64) int {
	return int(min(usualRoom, (leastRoom+live/roomShare)*100/max(live, 1)))
}

// keepHeapSmall sets how far the heap may grow, again after each collection. What the
// environment's GOGC says goes before.
func keepHeapSmall() {
	if os.Getenv("GOGC") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	room := usualRoom
	afterCollections(func() {
		metrics.Read(live)
		now := roomFor(live[0].Value.Uint64())
		if now < room-room/8 || now > room+room/8 { // setting it stops the world
			room = now
			debug.SetGCPercent(room)
		}
	})
}

// afterCollections calls f after each garbage collection, on the goroutine of finalizers:
// the collector finds an object that nobody has, and finds its successor the next time.
func afterCollections(f func()) {
	type garbage struct{ _ *byte }
	runtime.SetFinalizer(new(garbage), func(*garbage) {
		f()
		afterCollections(f)
	})
}
