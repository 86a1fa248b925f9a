package cardinality

import (
	"context"

	"github.com/weir-agent/weir/metric"
)

// question is what a Guard has to find out of the contexts of a metric.
type question struct {
	number uint32
	what   what
}

type what uint8

const (
	whatToFold  what = iota // the metric is full: candidates wait for the answer
	wouldFold               // if that were its policy
	refusal                 // to be told: which key has the most values
	wouldRefuse             // the same of a metric that would refuse
)

// ask leaves a question to Run, and reports whether there is anybody to answer it. The lock
// of the metric's shard is held. A metric asks each question once at a time.
func (g *Guard) ask(m *tracked, what what) bool {
	if !g.running.Load() {
		return false
	}
	g.askedMu.Lock()
	g.questions = append(g.questions, question{m.number, what})
	g.askedMu.Unlock()
	select {
	case g.asked <- struct{}{}:
	default: // it is known that there are some
	}
	return true
}

// answerAll answers questions until ctx is done.
func (g *Guard) answerAll(ctx context.Context) {
	g.running.Store(true)
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case <-g.asked:
		}
		g.Decide()
	}
	g.running.Store(false)
	g.Decide()
}

// Decide answers what was asked. Run does it as soon as it can; whoever needs the answers
// at once may do it, too.
func (g *Guard) Decide() {
	g.deciding.Lock()
	defer g.deciding.Unlock()
	g.work.Begin()
	defer g.work.End()
	for {
		g.askedMu.Lock()
		if len(g.questions) == 0 {
			g.questions = nil
			g.askedMu.Unlock()
			return
		}
		next := g.questions[0]
		g.questions = g.questions[1:]
		g.askedMu.Unlock()
		g.answer(next)
	}
}

// answer answers a question; g.deciding is held.
func (g *Guard) answer(q question) {
	s, m := g.lock(q.number)
	defer s.mu.Unlock()
	if m == nil {
		return
	}
	limit := g.limitOf(m)
	switch q.what {
	case whatToFold:
		if !m.undecided {
			return // a Tick was faster
		}
		if m.undecided = g.overflowOf(m) == metric.OverflowFold && g.foldable(m); !m.undecided {
			return // the configuration is another one now
		}
		if !g.decide(s, m, limit, false, true) {
			g.beginRefusing(s, m, limit, true)
		}
	case wouldFold:
		if m.folded == nil {
			g.observeOverflow(s, m, limit, true)
		}
	case refusal, wouldRefuse:
		g.describeRefusal(s, m, limit, q.what == wouldRefuse, true)
	}
}
