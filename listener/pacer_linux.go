package listener

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// pacer decides how long a reader stays away from its socket.
//
// A pause is at most maxPause, which nobody notices in numbers that are
// aggregated for seconds, and shorter beside work that can keep the reader
// waiting. At the rate just seen it must not gather more than enough, nor fill
// more than a quarter of the receive buffer; and a sender that goes flat out all
// of a sudden must not be able to fill all of it. BenchmarkReceive and
// docs/decisions.md have the figures.
//
// A Unix socket has no receive buffer: it holds a number of datagrams, and each
// sender may have some memory of them under way. Beyond either, senders wait for
// the reader, so the same bounds hold for the number. Where that leaves no time to
// sleep, the reader waits for the next datagram: to look again and again costs more
// CPU time (docs/decisions.md).
type pacer struct {
	queue      float64 // datagrams that a Unix socket holds; 0 for UDP
	sendBuffer float64 // bytes that a sender may have under way, for a Unix socket

	buffer    float64   // bytes of kernel memory
	lastEmpty time.Time // when the socket was last seen empty
	memory    float64   // bytes a second that datagrams took lately
	datagrams float64   // a second
	bytes     float64   // in them, a second
	size      float64   // bytes of kernel memory that one takes
}

// queuePacer returns a pacer for a Unix socket that holds so many datagrams.
func queuePacer(queue int) pacer {
	return pacer{queue: float64(queue), sendBuffer: float64(kernelSetting("net/core/wmem_default", usualSendBuffer))}
}

// kernelSetting returns a number from /proc/sys.
func kernelSetting(name string, otherwise int) int {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return otherwise
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return otherwise
	}
	return n
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
	// enough datagrams, or bytes in them, make the cost of waking up small among theirs.
	// More are not cheaper, only later (docs/decisions.md).
	enough      = 1024
	enoughBytes = 384 << 10
	// worthwhile is how many datagrams a pause has to be expected to gather.
	worthwhile = 2
	// hurriedPause is the longest while there is work that can keep a reader waiting
	// when it comes back, and hurriedEnough gathers enough even then: a host with many
	// contexts is busy only now and then, one with few datagrams need not hurry.
	hurriedPause  = time.Millisecond
	hurriedEnough = 64
	// bookkeeping is the kernel memory that a datagram takes beside its bytes.
	bookkeeping = 768
	// usualQueue and usualSendBuffer are what most systems are set to.
	usualQueue      = 10
	usualSendBuffer = 208 << 10
)

// memoryOf returns what there is to know of a socket before it is emptied.
func (p *pacer) memoryOf(fd int) memory {
	if p.queue > 0 {
		return memory{}
	}
	m, _ := memoryOf(fd)
	return m
}

// observe takes note of a drain that began when the socket's memory was as
// given, found what it found and left the socket empty at now.
func (p *pacer) observe(m memory, found drained, now time.Time) {
	datagrams := found.datagrams
	p.buffer = float64(m.buffer)
	elapsed := now.Sub(p.lastEmpty).Seconds()
	p.lastEmpty = now
	if elapsed <= 0 {
		return
	}
	switch {
	case datagrams > 0 && p.queue > 0:
		p.size = bookkeeping + float64(found.bytes)/float64(datagrams)
	case datagrams > 0 && m.used > 0:
		p.size = float64(m.used) / float64(datagrams)
	}
	// A burst is remembered for a while: rates fall slower than they rise.
	const forget = 7.0 / 8
	p.memory = max(float64(m.used)/elapsed, p.memory*forget)
	p.datagrams = max(float64(datagrams)/elapsed, p.datagrams*forget)
	p.bytes = max(float64(found.bytes)/elapsed, p.bytes*forget)
}

// pause returns how long to stay away; 0 means to wait for the next datagram. busy says
// that there is work which can keep the reader waiting when it comes back.
func (p *pacer) pause(busy bool) time.Duration {
	longest := min(maxPause.Seconds(), p.bound())
	if p.datagrams > 0 {
		longest = min(longest, enough/p.datagrams, enoughBytes/max(p.bytes, 1))
		if busy {
			longest = min(longest, max(hurriedPause.Seconds(), hurriedEnough/p.datagrams))
		}
	}
	if p.datagrams*longest < worthwhile || p.queue > 0 && longest < minPause.Seconds() {
		return 0
	}
	return time.Duration(longest * float64(time.Second))
}

// bound returns for how many seconds the socket has room.
func (p *pacer) bound() float64 {
	if p.queue > 0 {
		holds := min(p.queue, p.sendBuffer/max(p.size, bookkeeping))
		return holds / max(flatOutDatagrams, 4*p.datagrams)
	}
	longest := p.buffer / max(flatOut, flatOutDatagrams*p.size)
	if p.memory > 0 {
		longest = min(longest, p.buffer/4/p.memory)
	}
	return longest
}
