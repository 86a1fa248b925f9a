package listener

import "time"

// pacer decides how long a reader stays away from its socket.
//
// A pause is at most maxPause, which nobody notices in numbers that are
// aggregated for seconds. At the rate just seen it must not gather more
// datagrams than enough, nor fill more than a quarter of the receive buffer; and
// a sender that goes flat out all of a sudden must not be able to fill all of
// it. BenchmarkReceive and docs/decisions.md have the figures.
type pacer struct {
	buffer    float64   // bytes of kernel memory
	lastEmpty time.Time // when the socket was last seen empty
	memory    float64   // bytes a second that datagrams took lately
	datagrams float64   // a second
	size      float64   // bytes that one takes
}

const (
	maxPause = 5 * time.Millisecond
	// minPause: the kernel's timers are no finer than this.
	minPause = 50 * time.Microsecond
	// flatOut is the kernel memory a sender on the same machine can fill in a
	// second with small datagrams: about a million of 768 bytes each. Of larger
	// ones it sends fewer, but they take more.
	flatOut          = 1e9
	flatOutDatagrams = 4e5
	// enough is how many datagrams make the cost of waking up small among theirs.
	// More would push each other out of the cache before they are read.
	enough = 1024
	// worthwhile is how many datagrams a pause has to be expected to gather.
	worthwhile = 2
)

// observe takes note of a drain that began when the socket's memory was as
// given, found so many datagrams and left the socket empty at now.
func (p *pacer) observe(m memory, datagrams int, now time.Time) {
	p.buffer = float64(m.buffer)
	elapsed := now.Sub(p.lastEmpty).Seconds()
	p.lastEmpty = now
	if elapsed <= 0 {
		return
	}
	if datagrams > 0 && m.used > 0 {
		p.size = float64(m.used) / float64(datagrams)
	}
	// A burst is remembered for a while: rates fall slower than they rise.
	const forget = 7.0 / 8
	p.memory = max(float64(m.used)/elapsed, p.memory*forget)
	p.datagrams = max(float64(datagrams)/elapsed, p.datagrams*forget)
}

// pause returns how long to stay away; 0 means to wait for the next datagram.
func (p *pacer) pause() time.Duration {
	longest := min(maxPause.Seconds(), p.buffer/max(flatOut, flatOutDatagrams*p.size))
	if p.memory > 0 {
		longest = min(longest, p.buffer/4/p.memory)
	}
	if p.datagrams > 0 {
		longest = min(longest, enough/p.datagrams)
	}
	if p.datagrams*longest < worthwhile {
		return 0
	}
	return time.Duration(longest * float64(time.Second))
}
