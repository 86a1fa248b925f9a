package priority

import (
	"testing"
	"time"
)

// TestNextTurn: work that others keep waiting gets its share of the processor after all,
// or a flush on a busy host would never end.
func TestNextTurn(t *testing.T) {
	tests := []struct {
		waited time.Duration
		behind bool
		want   time.Duration
	}{
		{0, false, turn},
		{400 * time.Microsecond, false, turn},
		{12 * time.Millisecond, false, 4 * time.Millisecond},
		{3 * time.Second, false, time.Second},
		{400 * time.Microsecond, true, turn},
		{18 * time.Millisecond, true, 2 * time.Millisecond},
	}
	for _, test := range tests {
		if got := nextTurn(test.waited, test.behind); got != test.want {
			t.Errorf("after %v, with a reader behind: %v, the turn is %v, want %v", test.waited, test.behind, got, test.want)
		}
	}
}

// TestReadersBehind: of several readers each counts once, whatever it says again.
func TestReadersBehind(t *testing.T) {
	var one, other Reader
	for _, step := range []struct {
		reader *Reader
		is     bool
		want   int32
	}{{&one, true, 1}, {&one, true, 1}, {&other, true, 2}, {&one, false, 1}, {&one, false, 1}, {&other, false, 0}, {&other, false, 0}} {
		step.reader.Behind(step.is)
		if got := behind.Load(); got != step.want {
			t.Errorf("%d readers are behind, want %d", got, step.want)
		}
	}
}

func TestBusy(t *testing.T) {
	if Busy() {
		t.Fatal("busy before any work began")
	}
	var one, other Work
	one.Begin()
	other.Begin()
	one.End()
	if !Busy() {
		t.Error("not busy while there is work")
	}
	other.End()
	if Busy() {
		t.Error("busy after all work ended")
	}
}

// TestNoWork: who works for a flush and for others calls it in either case.
func TestNoWork(*testing.T) {
	var w *Work
	w.Yield()
	w.Step()
}
