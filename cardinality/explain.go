package cardinality

import (
	"fmt"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// Explain says in sentences which limits and folds a candidate meets, and changes
// nothing.
func (g *Guard) Explain(c *metric.Candidate) []string {
	s, hash := g.shardOf(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.find(hash, c)
	if m == nil {
		m = &tracked{kind: c.Kind, name: string(c.Name)}
	}
	alike := *m
	alike.budget = c.Budget
	whose := "cardinality.max_contexts_per_metric"
	if c.Budget != nil && c.Budget.MaxContexts > 0 {
		whose = fmt.Sprintf("rules[%d].max_contexts", c.Budget.Rule)
	}
	beyond := "beyond that, "
	switch policy := g.overflowOf(&alike); {
	case policy == metric.OverflowObserve:
		beyond += "the log says what would be folded"
	case policy == metric.OverflowDrop:
		beyond += "samples of further contexts are refused"
	case !g.foldable(m):
		beyond += "samples of further contexts are refused: folded gauges would overwrite each other"
	default:
		beyond += "the tag key is folded whose values make so many"
	}
	lines := []string{fmt.Sprintf("%s %q may have %d contexts in %v (%s); %s",
		c.Kind, c.Name, g.limitOf(&alike), g.cfg.Load().Window, whose, beyond)}
	if m.folded == nil || m.folded.dry {
		return lines
	}
	for _, f := range m.folded.folds {
		lines = append(lines, g.explainFold(f, c))
	}
	return lines
}

// explainFold says what a fold in force makes of a candidate.
func (g *Guard) explainFold(f *fold, c *metric.Candidate) string {
	text := fmt.Sprintf("the tag key %s is folded: it had about %d values", keyText(f.key), f.valuesKnown)
	if kept := f.keptValues(); len(kept) > 0 {
		text += "; their own series have " + strings.Join(kept, ", ")
	}
	each := func(tag []byte) {
		switch {
		case !f.is(tag):
		case f.keeps(g.hash.bytes(tag), tag):
			text += fmt.Sprintf("; %s stays", tag)
		default:
			text += fmt.Sprintf("; %s becomes %s", tag, f.other)
		}
	}
	for _, tag := range c.Tags {
		each(tag)
	}
	forOther(c, each)
	return text
}
