package forwarder

import "testing"

func TestBooksInWords(t *testing.T) {
	s := DestinationStats{Produced: 120, Delivered: 120}
	if got, want := s.String(), "120 points = 120 delivered + 0 dropped"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	s = DestinationStats{Produced: 120, Restored: 30, Delivered: 100, Queued: 5, Spooled: 38}
	s.Dropped[DroppedTooOld], s.Dropped[DroppedRejected] = 5, 2
	want := "120 points + 30 found on disk = 100 delivered + 5 in memory + 38 on disk + 7 dropped (2 rejected, 5 too_old)"
	if got := s.String(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// What is on disk is not lost, nor is what nobody would have taken.
func TestLostSince(t *testing.T) {
	before := DestinationStats{Produced: 1}
	before.Dropped[DroppedShutdown] = 3
	for why := range dropReasons {
		now := before
		now.Spooled, now.Dropped[why] = 7, before.Dropped[why]+1
		want := why == DroppedShutdown || why == DroppedUnreachable || why == DroppedQueueFull || why == DroppedSpoolFull || why == DroppedSpoolError || why == DroppedRemoved
		if got := now.LostSince(&before); got != want {
			t.Errorf("%v: %v, want %v", why, got, want)
		}
	}
	if before.LostSince(&before) {
		t.Error("lost before is lost since")
	}
}
