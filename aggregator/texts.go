package aggregator

import "github.com/weir-agent/weir/metric"

// texts holds the contexts themselves, one behind the other in blocks without pointers:
// to the garbage collector a million of them are some thousand objects that it need not
// look into. A block is never written where a context is, so a Batch may refer to one
// for as long as it likes, and the collector keeps its block.
//
// When enough of a block is forgotten, what is left of it is copied elsewhere. So blocks
// are at least three quarters alive, apart from the one that is being filled.
type texts struct {
	blocks [][]uint32 // by number; the first is none
	use    []blockUse // parallel to blocks
	free   []uint32   // numbers of blocks that are gone
	open   uint32     // the block that is being filled
}

type blockUse struct {
	filled, live uint32 // words: of all contexts, of those that are not forgotten
}

func (t *texts) at(a metric.ContextRef) *metric.Context { return a.In(t.blocks) }

// add makes a context; ok is false if there are too many.
func (t *texts) add(key []byte) (a metric.ContextRef, ok bool) {
	words := uint32(metric.ContextWords(len(key)))
	number := t.open
	if number == 0 || t.use[number].filled+words > metric.BlockWords {
		if number, ok = t.newBlock(max(words, metric.BlockWords)); !ok {
			return 0, false
		}
		if words <= metric.BlockWords {
			t.open = number
		}
	}
	use := &t.use[number]
	a = metric.RefTo(number, use.filled)
	metric.PlaceContext(t.blocks[number][use.filled:], key)
	use.filled += words
	use.live += words
	return a, true
}

func (t *texts) newBlock(words uint32) (number uint32, ok bool) {
	if n := len(t.free); n > 0 {
		number, t.free = t.free[n-1], t.free[:n-1]
		t.blocks[number] = make([]uint32, words)
		return number, true
	}
	if len(t.blocks) == 0 {
		t.blocks, t.use = make([][]uint32, 1), make([]blockUse, 1)
	}
	if len(t.blocks) == metric.MaxBlocks {
		return 0, false
	}
	t.blocks, t.use = append(t.blocks, make([]uint32, words)), append(t.use, blockUse{})
	return uint32(len(t.blocks) - 1), true
}

// forget says that the context at a place is gone.
func (t *texts) forget(a metric.ContextRef) {
	t.use[a.Block()].live -= uint32(metric.ContextWords(len(t.at(a).Key())))
}

// isSparse reports whether it is time to empty a block.
func (t *texts) isSparse(number uint32) bool {
	use := t.use[number]
	return number != t.open && use.filled > 0 && use.live < use.filled/4*3
}

// empty moves the contexts of a block and lets the block go. slot returns where the
// ref of a context is kept, nil if it is forgotten.
func (t *texts) empty(number uint32, slot func(metric.ContextRef, *metric.Context) *metric.ContextRef) {
	words, filled := t.blocks[number], t.use[number].filled
	for i := uint32(0); i < filled && t.use[number].live > 0; {
		context := metric.ContextAt(words[i:])
		key := context.Key()
		size := uint32(metric.ContextWords(len(key)))
		if at := slot(metric.RefTo(number, i), context); at != nil {
			to, ok := t.add([]byte(key))
			if !ok {
				return // it stays, until there are fewer
			}
			*at = to
			t.use[number].live -= size
		}
		i += size
	}
	t.blocks[number], t.use[number] = nil, blockUse{}
	t.free = append(t.free, number)
}
