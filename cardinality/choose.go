package cardinality

import (
	"cmp"
	"slices"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// choice finds the keys to fold. It looks at the contexts there are, which say what
// no sketch of single keys can: how many are left if several keys are folded
// together.
type choice struct {
	keys   []choiceKey
	byKey  map[string]int
	rows   []choiceRow
	values []uint64 // hash of the tag, by row and key; 0: none
	seen   hashSet
	work   *priority.Work // nil: it cannot wait
}

// choiceKey is a tag key of the contexts.
type choiceKey struct {
	name      string
	contexts  int
	values    int             // distinct
	kept      map[uint64]bool // those that would keep their own series
	other     uint64          // hash of what the rest would become
	forbidden bool
}

type choiceRow struct {
	sum uint64 // of the hashes of all tags
	age uint32
}

const (
	maxChoiceKeys = 64 // further ones are pooled
	minScore      = 4
	// foldTarget is what folding is to leave of a limit, in quarters: there must be some
	// room, and no key is to be folded for more.
	foldTarget = 3
)

// find returns which keys to fold so that at most target contexts are left, and how
// many will be, which is more if that cannot be had. keep is how many values of each
// key keep their own series, and most how many keys may be folded.
//
// Keys are chosen one by one, each the one that leaves the fewest contexts; if none
// leaves fewer, because several change together, the one with the most values. Those
// without which it can be done are left out again in the end.
func (c *choice) find(target, keep, most int) (folded []int, left int) {
	for i := range c.keys {
		c.rank(i, keep)
	}
	left = c.left(nil)
	for left > target && len(folded) < most {
		best, bestLeft := -1, 0
		for i := range c.keys {
			k := &c.keys[i]
			if k.forbidden || k.values <= len(k.kept) || slices.Contains(folded, i) {
				continue
			}
			n := c.left(append(folded, i))
			// A few contexts less are no reason: two keys that change together differ so.
			if best < 0 || n < bestLeft-bestLeft/32 || n <= bestLeft+bestLeft/32 && k.values > c.keys[best].values {
				best, bestLeft = i, n
			}
		}
		if best < 0 {
			break
		}
		folded, left = append(folded, best), bestLeft
	}
	if left > target {
		return folded, left
	}
	byValues := slices.Clone(folded)
	slices.SortFunc(byValues, func(a, b int) int { return cmp.Compare(c.keys[a].values, c.keys[b].values) })
	for _, i := range byValues {
		without := slices.DeleteFunc(slices.Clone(folded), func(j int) bool { return j == i })
		if n := c.left(without); n <= target {
			folded, left = without, n
		}
	}
	return folded, left
}

// rank finds the values of a key that would keep their own series: the keep most
// frequent, by how many contexts have them and in how many intervals these had samples.
// What is in one context, with samples in an interval and the next, is not frequent.
func (c *choice) rank(i, keep int) {
	k := &c.keys[i]
	scores := make(map[uint64]uint64)
	for row := range c.rows {
		if h := c.value(row, i); h != 0 {
			scores[h] += uint64(c.rows[row].age) + 1
		}
		c.work.Step()
	}
	k.values = len(scores)
	type scored struct{ hash, score uint64 }
	var all []scored
	for h, score := range scores {
		if score >= minScore {
			all = append(all, scored{h, score})
		}
	}
	slices.SortFunc(all, func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.hash, b.hash)) })
	k.kept = make(map[uint64]bool, keep)
	for _, s := range all[:min(keep, len(all))] {
		k.kept[s.hash] = true
	}
}

func (c *choice) value(row, key int) uint64 { return c.values[row*len(c.keys)+key] }

// left returns how many contexts there would be with some keys folded.
func (c *choice) left(folded []int) int {
	c.seen.reset(len(c.rows))
	for row := range c.rows {
		c.seen.add(c.foldedSum(row, folded))
		c.work.Step()
	}
	return c.seen.count
}

func (c *choice) foldedSum(row int, folded []int) uint64 {
	sum := c.rows[row].sum
	for _, i := range folded {
		if h := c.value(row, i); h != 0 && !c.keys[i].kept[h] {
			sum += c.keys[i].other - h
		}
	}
	return sum
}

// load reads the contexts of a metric, of which some keys may be folded already; nil: none.
func (g *Guard) load(c *choice, m *tracked, already *folded) {
	var contexts []metric.Member
	counts := map[string]int{}
	pool := false
	g.members(m.kind, m.number, func(member metric.Member) {
		c.work.Step()
		if member.Stale {
			return
		}
		contexts = append(contexts, member)
		eachTag(member.Context, func(tag []byte) {
			key := keyOf(tag)
			if n, known := counts[stringOf(key)]; known {
				counts[stringOf(key)] = n + 1
			} else if len(counts) < 16*maxChoiceKeys && len(key) <= maxKeyBytes {
				counts[string(key)] = 1
			} else {
				pool = true
			}
		})
	})
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b)) })
	if pool || len(names) > maxChoiceKeys {
		names = append(names[:min(len(names), maxChoiceKeys)], pooledKey)
	}
	protected := g.cfg.Load().protected
	*c = choice{work: c.work, byKey: make(map[string]int, len(names))}
	for i, name := range names {
		forbidden := protected[name] || already.has(name)
		f := fold{key: name}
		f.name(g)
		c.keys = append(c.keys, choiceKey{name: name, contexts: counts[name], other: f.otherHash, forbidden: forbidden})
		c.byKey[name] = i
	}
	c.rows = make([]choiceRow, len(contexts))
	c.values = make([]uint64, len(contexts)*len(c.keys))
	pooled, hasPool := c.byKey[pooledKey]
	for row, member := range contexts {
		c.work.Step()
		c.rows[row].age = member.Age
		eachTag(member.Context, func(tag []byte) {
			h := g.hash.bytes(tag)
			c.rows[row].sum += h
			i, known := c.byKey[stringOf(keyOf(tag))]
			if !known {
				if i = pooled; !hasPool || protected[stringOf(keyOf(tag))] {
					return
				}
			}
			c.values[row*len(c.keys)+i] += h // several values of a key are one
		})
	}
}

// has reports whether a key is folded already.
func (m *folded) has(key string) bool {
	return m != nil && slices.ContainsFunc(m.folds, func(f *fold) bool { return f.key == key })
}

// hashSet counts distinct hashes.
type hashSet struct {
	table []uint64
	zero  bool
	count int
}

// reset empties the set and makes room for n.
func (s *hashSet) reset(n int) {
	size := 16
	for size < 2*n {
		size *= 2
	}
	if cap(s.table) < size {
		s.table = make([]uint64, size)
	}
	s.table = s.table[:size]
	clear(s.table)
	s.zero, s.count = false, 0
}

func (s *hashSet) add(hash uint64) {
	if hash == 0 {
		if !s.zero {
			s.zero, s.count = true, s.count+1
		}
		return
	}
	mask := uint64(len(s.table) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		switch s.table[i] {
		case hash:
			return
		case 0:
			s.table[i] = hash
			s.count++
			return
		}
	}
}
