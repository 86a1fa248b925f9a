package aggregator

import (
	"github.com/weir-agent/weir/internal/holds"
	"github.com/weir-agent/weir/metric"
)

// waiting holds samples of which the guard cannot tell yet where they go, in the order they
// came. It has copies of their lines, in pieces that are given back one by one.
type waiting struct {
	pieces   []*waitingPiece
	taken    int             // samples of the first piece that wait no more
	bytes    int             // of all pieces
	gauges   map[string]bool // names of gauges that may be among them
	resuming *waitingSample  // nil: what is resolved has not waited
	again    bool            // and it has to
}

type waitingPiece struct {
	samples []waitingSample
	text    []byte // their lines
	lines   metric.Lines
	bytes   int
}

type waitingSample struct {
	sample metric.Sample
	hash   uint64
	check  uint32
	event  bool   // it is an analytics event that has taken it
	now    int64  // when it came
	sender string // as of its Lines
}

const (
	// maxWaitingBytes bounds what waits with a worker. Ten thousand contexts are decided on
	// in some milliseconds, in which a reader meets some thousand samples.
	maxWaitingBytes = 16 << 20

	waitingSamples = 512 // in a piece
	waitingText    = 64 << 10
	waitingBytes   = waitingText + waitingSamples*112 // 112: of a waitingSample

	// resumedAtOnce is how many samples that waited are added at one go.
	resumedAtOnce = 128
)

// wait keeps a sample until the guard knows where it goes; false if there is no room.
func (w *Worker) wait(s *metric.Sample, hash uint64, check uint32, event bool) bool {
	q := &w.waiting
	if q.resuming != nil {
		q.again = true
		return true
	}
	packed := w.packed(s)
	if q.bytes+len(s.Line)+8*len(packed) > maxWaitingBytes {
		return false
	}
	p := q.room(len(s.Line))
	from := len(p.text)
	p.text = append(p.text, s.Line...)
	one := waitingSample{sample: *s, hash: hash, check: check, event: event, now: w.now, sender: w.lines.Sender}
	one.sample.Line = p.text[from:len(p.text):len(p.text)]
	one.sample.More = uint32(len(p.lines.Values))
	p.lines.Values = append(p.lines.Values, packed...)
	one.sample.MoreEnd = uint32(len(p.lines.Values))
	if len(packed) == 0 {
		one.sample.More, one.sample.MoreEnd = 0, 0
	}
	p.samples = append(p.samples, one)
	p.bytes += 8 * len(packed)
	q.bytes += 8 * len(packed)
	if heedsOrder(w.id.Kind) {
		if q.gauges == nil {
			q.gauges = map[string]bool{}
		}
		q.gauges[string(w.id.Name)] = true
	}
	return true
}

// room returns a piece with room for a line.
func (q *waiting) room(line int) *waitingPiece {
	if n := len(q.pieces); n > 0 {
		if p := q.pieces[n-1]; len(p.samples) < cap(p.samples) && len(p.text)+line <= cap(p.text) {
			return p
		}
	}
	p := &waitingPiece{
		samples: make([]waitingSample, 0, waitingSamples),
		text:    make([]byte, 0, max(line, waitingText)),
		bytes:   waitingBytes + max(0, line-waitingText),
	}
	q.pieces = append(q.pieces, p)
	q.bytes += p.bytes
	return p
}

func heedsOrder(kind metric.Kind) bool { return kind == metric.Gauge || kind == metric.KeptGauge }

// goesLast reports whether w.id has to wait because a gauge's samples do that came before:
// the last value counts.
func (w *Worker) goesLast() bool {
	q := &w.waiting
	return len(q.pieces) > 0 && q.resuming == nil && heedsOrder(w.id.Kind) && q.gauges[string(w.id.Name)]
}

// resume adds up to n samples that waited, unless the guard cannot tell yet, and reports
// whether it may go on. The lock is held.
func (w *Worker) resume(n int) bool {
	q := &w.waiting
	lines, now, salt := w.lines, w.now, w.salt
	defer func() {
		w.lines, w.now, w.salt = lines, now, salt
		q.resuming = nil
	}()
	for ; n > 0 && len(q.pieces) > 0; n-- {
		p := q.pieces[0]
		one := &p.samples[q.taken]
		w.lines, w.now = &p.lines, one.now
		w.lines.Sender = one.sender
		q.resuming, q.again = one, false
		w.addWaiting(one)
		if q.again {
			return false
		}
		if q.taken++; q.taken == len(p.samples) {
			q.pieces[0] = nil
			q.pieces, q.taken = q.pieces[1:], 0
			q.bytes -= p.bytes
		}
	}
	if len(q.pieces) == 0 {
		q.pieces, q.gauges = nil, nil
		return false
	}
	return true
}

func (w *Worker) addWaiting(one *waitingSample) {
	r := w.identities.lookup(one.hash, one.check)
	if r == 0 {
		w.addNew(&one.sample, one.hash, one.check)
		return
	}
	if !w.isOvertaken(r) {
		w.add(r, &one.sample)
	}
}

// isOvertaken reports whether a gauge was set after the sample that waited came.
func (w *Worker) isOvertaken(r ref) bool {
	if w.waiting.resuming == nil {
		return false
	}
	switch to := w.destination(r); to.op() {
	case opGauge:
		return w.active.gauges.at(to.index()).stamp > w.now
	case opKeptGauge:
		return w.active.keptGauges.at(to.index()).stamp > w.now
	}
	return false
}

// settle lets what waits for the guard count in the open interval. The readers get their
// turn in between; what they add meanwhile may have to wait for the next interval.
func (a *Aggregator) settle() {
	const attempts = 100
	for range attempts {
		waits := false
		for _, w := range a.workers {
			w.mu.Lock()
			waits = waits || len(w.waiting.pieces) > 0
			w.mu.Unlock()
		}
		if !waits {
			return
		}
		a.guard.Decide()
		for _, w := range a.workers {
			for more := true; more; {
				w.mu.Lock()
				more = w.resume(resumedAtOnce)
				holds.EndTurn(&w.mu)
			}
		}
	}
}
