package listener

import (
	"testing"
	"time"
)

// TestPacerWhileThereIsWork: a pause is short if what comes after it may be long, and not so
// short that waking up costs more than the datagrams.
func TestPacerWhileThereIsWork(t *testing.T) {
	tests := []struct {
		name      string
		datagrams float64 // a second
		want      time.Duration
	}{
		{"packed, at a high rate", 133_000, time.Millisecond},
		{"a gentle rate", 20_000, hurriedEnough * time.Second / 20_000},
		{"very few", 2_000, maxPause},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := pacer{buffer: 8 << 20, datagrams: test.datagrams, bytes: 1400 * test.datagrams, size: 2304}
			if got := p.pause(true); (got - test.want).Abs() > time.Microsecond {
				t.Errorf("pause = %v, want %v", got, test.want)
			}
			if got := p.pause(false); got < p.pause(true) {
				t.Errorf("without work it is %v", got)
			}
		})
	}
}

func TestPacer(t *testing.T) {
	const small = 768 // bytes of kernel memory for a small datagram on loopback
	tests := []struct {
		name   string
		buffer uint32
		rate   float64 // datagrams a second
		bytes  int     // in each
		least  time.Duration
		most   time.Duration
	}{
		{"silence", 8 << 20, 0, 40, 0, 0},
		{"a trickle is waited for", 8 << 20, 100, 40, 0, 0},
		{"a gentle rate is gathered", 8 << 20, 20_000, 40, maxPause, maxPause},
		{"a high rate is enough in less", 8 << 20, 500_000, 40, time.Millisecond, 3 * time.Millisecond},
		{"and so are packed ones", 8 << 20, 130_000, 1400, time.Millisecond, 2200 * time.Microsecond},
		{"a small buffer is emptied more often", 416 << 10, 20_000, 40, minPause, 450 * time.Microsecond},
		{"and often at a high rate", 416 << 10, 500_000, 40, minPause, 280 * time.Microsecond},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var p pacer
			now := time.Unix(0, 0)
			p.observe(memory{buffer: test.buffer}, drained{}, now)
			for range 100 { // the pacer lives with its own pauses
				elapsed := max(p.pause(false), time.Millisecond)
				now = now.Add(elapsed)
				datagrams := test.rate * elapsed.Seconds()
				p.observe(memory{buffer: test.buffer, used: uint32(datagrams * small)}, drained{datagrams: int(datagrams), bytes: int(datagrams) * test.bytes}, now)
			}
			pause := p.pause(false)
			if pause < test.least || pause > test.most {
				t.Errorf("pause = %v, want %v to %v", pause, test.least, test.most)
			}
			if fill := pause.Seconds() * test.rate * small; fill > float64(test.buffer)/4 {
				t.Errorf("a pause of %v fills %.0f of %d bytes", pause, fill, test.buffer)
			}
			if hurried := p.pause(true); hurried > pause || hurried > 0 && hurried < min(pause, time.Millisecond) {
				t.Errorf("while there is other work, pause = %v instead of %v", hurried, pause)
			}
			if fill := pause.Seconds() * flatOut; fill > float64(test.buffer) {
				t.Errorf("in a pause of %v a sender that goes flat out could fill %.0f of %d bytes", pause, fill, test.buffer)
			}
		})
	}
}
