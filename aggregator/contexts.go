package aggregator

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/weir-agent/weir/internal/holds"
	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// contexts are the contexts of all workers. A context has a slot: the place of
// its values in every worker's column of its family.
//
// It is asked only when a worker meets an identity for the first time, so one
// lock does for all.
type contexts struct {
	mu      holds.Mutex
	wanted  atomic.Bool    // by a reader, while another had it
	work    *priority.Work // of the flusher, which has the turns that endTurn ends
	texts   texts
	bySlot  [families]column[metric.ContextRef]
	byKey   keyIndex
	hasher  *hasher
	scratch []byte   // a key, to be reused
	profile profiles // of histograms, by slot
	guarded [families]column[guarded]
	dying   marks // about to be forgotten unless asked for again
	supply  [families][]supply
	next    [families]uint32 // the first slot that was never given out
	owners  [families][]int  // by chunk: the worker it was given to
	limit   int
	bytes   int // of the keys
	created uint64
	expired uint64
}

type slotID struct {
	family family
	slot   uint32
}

// marks is a set of slots.
type marks [families]column[bool]

func (m *marks) set(id slotID) { *m[id.family].at(id.slot) = true }

func (m *marks) has(id slotID) bool {
	at := m[id.family].peek(id.slot)
	return at != nil && *at
}

func (m *marks) clear(id slotID) {
	if m.has(id) {
		*m[id.family].at(id.slot) = false
	}
}

// supply is the slots that one worker may give to new contexts.
type supply struct {
	free      uint32 // 1 more than the last one of a forgotten context, 0: none; each leads to the one before
	next, end uint32 // the rest of a chunk
}

// The limit on contexts is one on their names and tags, too, which take some 100
// bytes each: so many may all of them take, or contexts of 8 KiB would be gigabytes.
const (
	keyBytesPerContext = 512
	freeKeyBytes       = 16 << 20
)

func newContexts(limit, workers int, h *hasher) *contexts {
	c := &contexts{hasher: h, limit: limit}
	for f := range c.supply {
		c.supply[f] = make([]supply, workers)
	}
	return c
}

// familyOf returns where a kind's values are kept.
func familyOf(kind metric.Kind) family {
	switch kind {
	case metric.Counter:
		return counters
	case metric.Gauge:
		return gauges
	case metric.Set:
		return sets
	case metric.Histogram, metric.Timer, metric.ClassicTimer:
		return histograms
	case metric.Distribution:
		return distributions
	case metric.KeptGauge:
		return keptGauges
	}
	panic("BUG: a sample of no kind")
}

// lock locks c for a reader.
func (c *contexts) lock() {
	if !c.mu.TryLock() {
		c.wanted.Store(true)
		c.mu.Lock()
	}
}

// pause is for how long the flusher leaves the contexts to readers that wanted them: a
// reader that makes one has others to make, and would wait for each.
const pause = 200 * time.Microsecond

// endTurn unlocks c for those who wait.
func (c *contexts) endTurn() {
	holds.EndTurn(&c.mu)
	c.work.Yield()
	if c.wanted.Swap(false) {
		time.Sleep(pause)
	}
}

// find returns the slot of the context with the given key. From then on the context
// has the given profile.
func (c *contexts) find(f family, key []byte, p *metric.Profile) (slot uint32, ok bool) {
	c.lock()
	defer c.mu.Unlock()
	return c.findLocked(f, key, p)
}

func (c *contexts) findLocked(f family, key []byte, p *metric.Profile) (slot uint32, ok bool) {
	return c.findHashed(f, key, c.hasher.bytes(key), p)
}

func (c *contexts) findHashed(f family, key []byte, hash uint64, p *metric.Profile) (slot uint32, ok bool) {
	slot, ok = c.lookup(f, key, hash)
	if ok {
		c.dying.clear(slotID{f, slot})
		c.profile.set(f, slot, p)
	}
	return slot, ok
}

func (c *contexts) lookup(f family, key []byte, hash uint64) (slot uint32, ok bool) {
	id, ok := c.byKey.find(hash, func(id slotID) bool {
		return id.family == f && c.texts.at(*c.bySlot[f].at(id.slot)).Key() == string(key)
	})
	return id.slot, ok
}

// make returns the slot of the context with the given key, and gives it one out of the
// worker's supply if it is new: then made is true, and it belongs to the guard's metric
// of the given number. ok is false if there are too many contexts already.
func (c *contexts) make(f family, key []byte, worker int, p *metric.Profile, number uint32) (slot uint32, made, ok bool) {
	c.lock()
	defer c.mu.Unlock()
	hash := c.hasher.bytes(key)
	if slot, ok := c.findHashed(f, key, hash, p); ok {
		return slot, false, true
	}
	if c.byKey.count >= c.limit || c.bytes+len(key) > freeKeyBytes+c.limit*keyBytesPerContext {
		return 0, false, false
	}
	at, ok := c.texts.add(key)
	if !ok {
		return 0, false, false
	}
	c.bytes += len(key)
	slot = c.take(f, worker)
	c.byKey.insert(hash, slotID{f, slot})
	*c.bySlot[f].at(slot) = at
	c.profile.set(f, slot, p)
	*c.guarded[f].at(slot) = newGuarded(number)
	c.created++
	return slot, true, true
}

func (c *contexts) take(f family, worker int) uint32 {
	s := &c.supply[f][worker]
	if s.free > 0 {
		return c.takeFree(f, s)
	}
	if s.next == s.end {
		// Another worker's slots are better than ever more of them.
		for i := range c.supply[f] {
			if other := &c.supply[f][i]; other.free > 0 {
				return c.takeFree(f, other)
			}
		}
		s.next, s.end = c.next[f], c.next[f]+chunkLen
		c.next[f] = s.end
		c.owners[f] = append(c.owners[f], worker)
	}
	slot := s.next
	s.next++
	return slot
}

func (c *contexts) takeFree(f family, s *supply) uint32 {
	slot := s.free - 1
	s.free = c.guarded[f].at(slot).nextFree()
	return slot
}

// profileChunks returns the profiles of histograms by slot.
func (c *contexts) profileChunks() profiles {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.profile
}

// snapshot is the contexts of a family by slot. The flusher may read those whose samples
// it has seen; others may be written meanwhile. It lasts until contexts are buried.
type snapshot struct {
	places  []*[chunkLen]metric.ContextRef
	guarded []*[chunkLen]guarded
	blocks  [][]uint32
}

func (s *snapshot) context(slot uint32) *metric.Context { return s.ref(slot).In(s.blocks) }

func (s *snapshot) ref(slot uint32) metric.ContextRef { return s.places[slot/chunkLen][slot%chunkLen] }

// blocks returns the blocks that contexts are in, for a batch.
func (c *contexts) blocks() [][]uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.texts.blocks)
}

func (c *contexts) snapshot(f family) snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	return snapshot{c.bySlot[f].chunks, c.guarded[f].chunks, c.texts.blocks}
}

// lockedAtOnce is how many contexts are dealt with before readers that wait for
// the lock get a turn.
const lockedAtOnce = 256

// doom marks contexts that nobody sampled for long. Those still marked when
// bury is called are forgotten; find, make and revive take the mark away.
func (c *contexts) doom(ids []slotID) {
	for some := range slices.Chunk(ids, lockedAtOnce) {
		c.mu.Lock()
		for _, id := range some {
			c.dying.set(id)
		}
		c.endTurn()
	}
}

func (c *contexts) revive(id slotID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dying.clear(id)
}

// bury forgets those of ids that are still marked, and calls gone for each, without
// the lock.
func (c *contexts) bury(ids []slotID, gone func(slotID, guarded)) {
	type grave struct {
		id  slotID
		was guarded
	}
	graves := make([]grave, 0, lockedAtOnce)
	for some := range slices.Chunk(ids, lockedAtOnce) {
		graves = graves[:0]
		c.mu.Lock()
		for _, id := range some {
			if !c.dying.has(id) {
				continue
			}
			c.dying.clear(id)
			at := c.bySlot[id.family].at(id.slot)
			key := c.texts.at(*at).Key()
			c.bytes -= len(key)
			c.scratch = append(c.scratch[:0], key...)
			c.byKey.remove(c.hasher.bytes(c.scratch), id)
			c.texts.forget(*at)
			*at = 0
			// Back to the worker whose chunk it is, so that chunks stay with one reader.
			s := &c.supply[id.family][c.owners[id.family][id.slot/chunkLen]]
			c.expired++
			was := c.guarded[id.family].at(id.slot)
			graves = append(graves, grave{id, *was})
			*was = freeAfter(s.free)
			s.free = id.slot + 1
		}
		c.endTurn()
		for _, g := range graves {
			gone(g.id, g.was)
		}
	}
	c.tidy()
}

// tidy moves contexts out of blocks that are mostly of forgotten ones. Readers get their
// turn between blocks.
func (c *contexts) tidy() {
	for number := uint32(0); ; number++ {
		c.mu.Lock()
		if int(number) >= len(c.texts.blocks) {
			c.mu.Unlock()
			return
		}
		if c.texts.isSparse(number) {
			c.texts.empty(number, func(from metric.ContextRef, context *metric.Context) *metric.ContextRef {
				c.scratch = append(c.scratch[:0], context.Key()...)
				f := familyOf(context.Kind())
				if slot, ok := c.lookup(f, c.scratch, c.hasher.bytes(c.scratch)); ok && *c.bySlot[f].at(slot) == from {
					return c.bySlot[f].at(slot)
				}
				return nil // forgotten
			})
		}
		c.endTurn()
	}
}

// setLimit changes how many contexts there may be. Those there are stay.
func (c *contexts) setLimit(limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
}

// count returns how many contexts there are, and how many were ever made and
// forgotten.
func (c *contexts) count() (live int, created, expired uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byKey.count, c.created, c.expired
}
