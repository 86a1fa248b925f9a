package metric

// ContextRef tells which context a point belongs to. It is no pointer, since a batch of a
// million contexts has a million of them, and the garbage collector would look at each.
//
// Most are a place in a block: the block's number and the word in it. Those with the
// highest bit set count in Contexts.apart.
type ContextRef uint32

// The layout of a ContextRef in a block. Block 0 is none.
const (
	BlockWords = 1 << blockBits // words of a block of contexts, 64 KiB
	MaxBlocks  = apart >> blockBits

	blockBits = 14
	apart     = 1 << 31
)

// RefTo returns the ref of the context at a word of a block.
func RefTo(block, word uint32) ContextRef { return ContextRef(block<<blockBits | word) }

// Block returns the number of the block.
func (r ContextRef) Block() uint32 { return uint32(r >> blockBits) }

// Word returns where in the block the context is.
func (r ContextRef) Word() uint32 { return uint32(r % BlockWords) }

// In returns the context in its block.
func (r ContextRef) In(blocks [][]uint32) *Context { return ContextAt(blocks[r.Block()][r.Word():]) }

// Contexts are what the ContextRefs of a batch refer to.
type Contexts struct {
	// Blocks are memory in which PlaceContext put contexts, by number. Nobody writes where
	// a context is, or to the slice itself.
	Blocks [][]uint32

	apart []*Context // those that are in no block
}

// At returns the context of a ref, of which the Contexts must have the block.
func (c *Contexts) At(r ContextRef) *Context {
	if r&apart != 0 {
		return c.apart[r&^apart]
	}
	return r.In(c.Blocks)
}

// Take adds those of another that are in no block, and returns by how much their refs
// have moved.
func (c *Contexts) Take(other *Contexts) ContextRef {
	by := ContextRef(len(c.apart))
	c.apart = append(c.apart, other.apart...)
	return by
}

// Add returns a ref to a context that is in no block. Of batches that share Contexts, as
// parts of one do, none may add any.
func (c *Contexts) Add(context *Context) ContextRef {
	c.apart = append(c.apart, context)
	return apart | ContextRef(len(c.apart)-1)
}
