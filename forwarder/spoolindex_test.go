package forwarder

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The index gives what a plain sorted list would.
func TestSpoolIndex(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	begun := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for range 2000 {
		var index spoolIndex
		var plain []*spoolEntry
		now := begun.Add(time.Duration(random.IntN(100)) * time.Second)
		for i := range random.IntN(20) {
			e := &spoolEntry{start: begun.Add(time.Duration(random.IntN(40)) * time.Second), route: fmt.Sprint(random.IntN(3))}
			e.name = spoolName{uint64(e.start.Unix()), uint64(i / 2), uint64(i)} // serials of two folders may be the same
			if random.IntN(2) == 0 {
				e.notBefore = begun.Add(time.Duration(random.IntN(200)) * time.Second)
			}
			index.insert(e)
			plain = append(plain, e)
		}
		tooOld := func(e *spoolEntry) bool { return now.Sub(e.start) > 80*time.Second }
		for len(plain) > 0 {
			slices.SortFunc(plain, compareEntries)
			if got := index.oldest(); got != plain[0] {
				t.Fatalf("the oldest is %v, want %v", got, plain[0])
			}
			leftAlone := []string{"0", "1", "2"}[:random.IntN(4)]
			var want *spoolEntry
			var wantAt time.Time
			for _, e := range plain {
				alone := slices.Contains(leftAlone, e.route)
				if tooOld(e) || !alone && !e.notBefore.After(now) {
					want, wantAt = e, time.Time{}
					break
				}
				if !alone && (wantAt.IsZero() || e.notBefore.Before(wantAt)) {
					wantAt = e.notBefore
				}
			}
			got, at := index.first(now, leftAlone, tooOld)
			if got != want || !at.Equal(wantAt) {
				t.Fatalf("without %v: %v at %v, want %v at %v", leftAlone, got, at, want, wantAt)
			}
			gone := plain[random.IntN(len(plain))]
			index.remove(gone)
			plain = slices.DeleteFunc(plain, func(e *spoolEntry) bool { return e == gone })
		}
		if left := index.removeAll(func(*spoolEntry) bool { return true }); len(left) > 0 || index.oldest() != nil {
			t.Fatalf("%d are left", len(left))
		}
	}
}
