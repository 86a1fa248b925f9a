package aggregator

import "math/bits"

// keyIndex finds the slots of contexts by the hash of their keys. It is a number of
// tables with linear probing, each for the hashes with the same first bits, that grow by
// a quarter one at a time: so it takes some 11 bytes a context, and none of its pauses is
// long. It has no pointers to contexts for the garbage collector to follow.
type keyIndex struct {
	tables [keyTables]keyTable
	count  int
}

const (
	keyTableBits = 10
	keyTables    = 1 << keyTableBits
)

type keyTable struct {
	entries []keyEntry
	used    int
}

// keyEntry is a slot and half of its hash.
type keyEntry struct {
	hash uint32
	slot uint32 // the family above slotBits, 1 more than the slot below; 0: free
}

const slotBits = 28

func packSlot(id slotID) uint32 { return uint32(id.family)<<slotBits | (id.slot + 1) }
func unpackSlot(packed uint32) slotID {
	return slotID{family(packed >> slotBits), packed%(1<<slotBits) - 1}
}

func (x *keyIndex) table(hash uint64) (*keyTable, uint32) {
	return &x.tables[hash>>(64-keyTableBits)], uint32(hash)
}

// home returns where the search for a hash begins.
func (t *keyTable) home(hash uint32) int {
	high, _ := bits.Mul64(uint64(hash)<<32, uint64(len(t.entries)))
	return int(high)
}

func (t *keyTable) after(i int) int {
	if i++; i == len(t.entries) {
		return 0
	}
	return i
}

// find returns the slot of a hash for which is holds.
func (x *keyIndex) find(hash uint64, is func(slotID) bool) (id slotID, ok bool) {
	t, half := x.table(hash)
	if t.used == 0 {
		return id, false
	}
	for i := t.home(half); t.entries[i].slot != 0; i = t.after(i) {
		if t.entries[i].hash == half {
			if id = unpackSlot(t.entries[i].slot); is(id) {
				return id, true
			}
		}
	}
	return slotID{}, false
}

// insert adds a slot that find did not find.
func (x *keyIndex) insert(hash uint64, id slotID) {
	t, half := x.table(hash)
	if t.used >= len(t.entries)*4/5 {
		before := t.entries
		t.entries = make([]keyEntry, max(8, len(before)*5/4))
		for _, e := range before {
			if e.slot != 0 {
				t.place(e)
			}
		}
	}
	t.place(keyEntry{half, packSlot(id)})
	t.used++
	x.count++
}

func (t *keyTable) place(e keyEntry) {
	i := t.home(e.hash)
	for t.entries[i].slot != 0 {
		i = t.after(i)
	}
	t.entries[i] = e
}

// remove takes a slot out. Those behind it that it had pushed on move up, so that no
// search ends before them.
func (x *keyIndex) remove(hash uint64, id slotID) {
	t, half := x.table(hash)
	hole := t.home(half)
	for t.entries[hole].slot != packSlot(id) {
		if t.entries[hole].slot == 0 {
			panic("BUG: a context that is not in the index")
		}
		hole = t.after(hole)
	}
	for i := t.after(hole); t.entries[i].slot != 0; i = t.after(i) {
		// It may move unless its home lies between the hole and itself.
		home, n := t.home(t.entries[i].hash), len(t.entries)
		if (i-home+n)%n >= (i-hole+n)%n {
			t.entries[hole] = t.entries[i]
			hole = i
		}
	}
	t.entries[hole] = keyEntry{}
	t.used--
	x.count--
}
