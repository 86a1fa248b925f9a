package priority

import (
	"testing"
	"time"
)

// TestNextTurn: work that others keep waiting gets its share of the processor after all,
// or a flush on a busy host would never end.
func TestNextTurn(t *testing.T) {
	tests := []struct{ waited, want time.Duration }{
		{0, turn},
		{400 * time.Microsecond, turn},
		{12 * time.Millisecond, 4 * time.Millisecond},
		{3 * time.Second, time.Second},
	}
	for _, test := range tests {
		if got := nextTurn(test.waited); got != test.want {
			t.Errorf("after %v the turn is %v, want %v", test.waited, got, test.want)
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
