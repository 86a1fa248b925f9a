package raw

import (
	"sync/atomic"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

// Line is what the rows of one identity's lines are made of.
type Line struct {
	plan   *plan.Plan // by which it is an event
	text   []byte     // name and tags as sent, each with a newline before it
	rate   float64    // of the line
	time   int64      // |T of the line, Unix seconds; 0 without
	source string     // which container it came from; "" if that is not known
	flags  uint32     // outcomes that took a clock to find out, a bit for each
	share  float64    // which is kept of lines like this: sample_rate of the event
	chance bool       // which of them is for chance to say, and not for who it was
	number uint64     // of its kind: names it in the encoder's cache
	met    bool       // it had a row; for the encoder only
	queued int64      // bytes that it takes while it waits, 0 if it is kept anyway; for the reader only
}

// Sampling says which share of rows is kept.
type Sampling struct {
	Share  float64
	Chance bool // nobody was named by whom to choose
}

// Make copies what is needed of a line that is an event by p: its name without the prefix,
// and tags with those that are for the agent. flags are outcomes, a bit for each, that
// plan.Check does not find.
func (q *Queue) Make(p *plan.Plan, name []byte, tags [][]byte, id *metric.Identity, flags uint32, sampling Sampling) *Line {
	q.made++
	size := len(name) + len(tags)
	for _, tag := range tags {
		size += len(tag)
	}
	l := newLine(size)
	l.plan, l.rate, l.time, l.flags = p, id.Rate, id.Time, flags
	l.share, l.chance, l.number, l.queued = sampling.Share, sampling.Chance, q.made, int64(size)+lineBytes
	l.text = append(l.text, name...)
	for _, tag := range tags {
		l.text = append(append(l.text, '\n'), tag...)
	}
	switch o := &id.Origin; {
	case len(o.Container) > 0:
		l.source = string(o.Container)
	case len(o.ContainerName) > 0:
		l.source = string(o.ContainerName)
	case len(o.PodUID) > 0:
		l.source = string(o.PodUID)
	}
	return l
}

// newLine returns a Line with room for its text; mostly both are one allocation.
func newLine(size int) *Line {
	const short, medium = 128, 256
	switch {
	case size <= short:
		l := new(struct {
			Line
			text [short]byte
		})
		l.Line.text = l.text[:0]
		return &l.Line
	case size <= medium:
		l := new(struct {
			Line
			text [medium]byte
		})
		l.Line.text = l.text[:0]
		return &l.Line
	}
	return &Line{text: make([]byte, 0, size)}
}

const (
	// lineBytes is about what a Line takes besides its text.
	lineBytes = 160
	// maxKept is how long the text of a line may be that is remembered.
	maxKept = 512
	// maxQueuedBytes bounds the lines in a queue that are in no other place.
	maxQueuedBytes = 32 << 20
)

// Keep reports whether the line may be remembered for further rows, and notes that it
// is.
func (l *Line) Keep() bool {
	if len(l.text) > maxKept {
		return false
	}
	l.queued = 0
	return true
}

// entry is a row that waits.
type entry struct {
	line     *Line
	n        int64 // events that it stands for
	received int64 // Unix seconds
}

// Queue holds one reader's rows until they are written. That reader puts, and the Sink
// takes; neither ever waits for the other.
type Queue struct {
	entries []entry // a power of two
	wake    chan<- struct{}

	// Of the reader.
	head    atomic.Uint64 // rows put
	dropped atomic.Uint64
	seen    uint64 // tail as of lately
	made    uint64 // Lines
	_       [64]byte

	// Of the Sink.
	tail  atomic.Uint64 // rows taken
	bytes atomic.Int64  // of lines in no other place
}

func newQueue(entries int, wake chan<- struct{}) *Queue {
	size := 1
	for size < entries {
		size *= 2
	}
	return &Queue{entries: make([]entry, size), wake: wake}
}

// Put adds a row for a line that came at received, in Unix seconds, and stands for n
// events. Without room it is dropped and counted.
//
// Hot path: once per line of an event. No allocation, lock or clock;
// TestPutDoesNotAllocate checks the first.
func (q *Queue) Put(l *Line, n, received int64) {
	head := q.head.Load()
	if head-q.seen >= uint64(len(q.entries)) {
		if q.seen = q.tail.Load(); head-q.seen >= uint64(len(q.entries)) {
			q.dropped.Add(1)
			return
		}
	}
	e := &q.entries[head&uint64(len(q.entries)-1)]
	if e.n = n; l.queued > 0 {
		if q.bytes.Load()+l.queued > maxQueuedBytes {
			q.dropped.Add(1)
			return
		}
		q.bytes.Add(l.queued)
		e.n = -n // it is to be given back
	}
	e.line, e.received = l, received
	q.head.Store(head + 1)
	if (head+1)&(uint64(len(q.entries))/4-1) == 0 {
		select {
		case q.wake <- struct{}{}:
		default: // it will come anyway
		}
	}
}

// drain takes all rows that are there; kept says that the line comes again.
func (q *Queue) drain(take func(l *Line, n, received int64, kept bool)) {
	head := q.head.Load()
	for tail := q.tail.Load(); tail != head; {
		e := &q.entries[tail&uint64(len(q.entries)-1)]
		l, n := e.line, e.n
		received := e.received
		kept := n > 0
		if e.line = nil; !kept {
			n = -n
			q.bytes.Add(-(int64(len(l.text)) + lineBytes))
		}
		take(l, n, received, kept)
		tail++
		q.tail.Store(tail)
	}
}
