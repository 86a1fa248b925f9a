package analytics

import (
	"sync"

	"github.com/dchest/siphash"
)

// dedup remembers the _id of events, of the last maxIDs at least and of twice as many
// at most: two generations of keyed 64-bit hashes, of which the older one is forgotten
// when the newer is full. It is forgotten when the agent ends.
type dedup struct {
	key sipKey

	mu     sync.Mutex // guards the fields below
	recent *idTable
	older  *idTable
}

// maxIDs is how many ids a generation holds, in 8 bytes each at three quarters full.
const maxIDs = 196_608

const idSlots = 1 << 18

type idTable struct {
	slots [idSlots]uint64 // 0: free
	count int
}

func newDedup(k sipKey) *dedup { return &dedup{key: k} }

// hash returns what stands for an event's id, never 0.
func (d *dedup) hash(event string, id []byte) uint64 {
	h := siphash.Hash(d.key.k0, d.key.k1, id) ^ siphash.Hash(d.key.k1, d.key.k0, []byte(event))
	return max(h, 1)
}

// seen remembers an id and reports whether it was there before.
func (d *dedup) seen(hash uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.recent == nil {
		d.recent = new(idTable)
	}
	if d.older != nil && d.older.has(hash) {
		return true
	}
	if !d.recent.insert(hash) {
		return true
	}
	if d.recent.count >= maxIDs {
		if d.older == nil {
			d.older = new(idTable)
		}
		d.recent, d.older = d.older, d.recent
		clear(d.recent.slots[:])
		d.recent.count = 0
	}
	return false
}

func (t *idTable) find(hash uint64) *uint64 {
	for i := hash; ; i++ {
		if slot := &t.slots[i%idSlots]; *slot == hash || *slot == 0 {
			return slot
		}
	}
}

func (t *idTable) has(hash uint64) bool { return *t.find(hash) == hash }

func (t *idTable) insert(hash uint64) bool {
	slot := t.find(hash)
	if *slot == hash {
		return false
	}
	*slot = hash
	t.count++
	return true
}
