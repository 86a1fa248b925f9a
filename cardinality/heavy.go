package cardinality

import (
	"math"
	"slices"
)

// heavy finds the hashes that come most often. It is the Space-Saving algorithm
// (Metwally, Agrawal, El Abbadi, 2005) in buckets: a hash may only be in the bucket
// its bits name, where it takes the place of the least of eight, and inherits its
// count as a possible error. So one more hash costs a look at 128 bytes.
type heavy struct {
	buckets [heavyBuckets][8]heavyEntry
	total   uint64
}

const (
	heavyBuckets = 64
	heavyBytes   = heavyBuckets * 8 * 16
)

type heavyEntry struct {
	hash         uint64
	count, error uint32
}

// sure returns how often the hash came at least.
func (e heavyEntry) sure() uint32 { return e.count - e.error }

func (h *heavy) add(hash uint64, n uint32) {
	if h == nil {
		return
	}
	h.total += uint64(n)
	bucket := &h.buckets[hash>>58]
	least := 0
	for i := range bucket {
		if bucket[i].hash == hash {
			bucket[i].count = addClipped(bucket[i].count, n)
			return
		}
		if bucket[i].count < bucket[least].count {
			least = i
		}
	}
	e := &bucket[least]
	*e = heavyEntry{hash: hash, count: addClipped(e.count, n), error: e.count}
}

func addClipped(a, b uint32) uint32 {
	if a > math.MaxUint32-b {
		return math.MaxUint32
	}
	return a + b
}

// age halves all counts, so that what was frequent long ago does not stay so.
func (h *heavy) age() {
	if h == nil {
		return
	}
	h.total /= 2
	for i := range h.buckets {
		for j := range h.buckets[i] {
			h.buckets[i][j].count /= 2
			h.buckets[i][j].error /= 2
		}
	}
}

// remove forgets a hash and returns how often it came at least.
func (h *heavy) remove(hash uint64) uint32 {
	bucket := &h.buckets[hash>>58]
	for i := range bucket {
		if bucket[i].hash == hash {
			sure := bucket[i].sure()
			bucket[i] = heavyEntry{}
			return sure
		}
	}
	return 0
}

// top returns up to n hashes that surely came at least so often, the most frequent
// first.
func (h *heavy) top(n int, least uint32) []heavyEntry {
	var all []heavyEntry
	for i := range h.buckets {
		for _, e := range h.buckets[i] {
			if e.hash != 0 && e.sure() >= least {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, func(a, b heavyEntry) int {
		switch {
		case a.sure() != b.sure():
			return int(int64(b.sure()) - int64(a.sure()))
		case a.hash < b.hash:
			return -1
		}
		return 1
	})
	return all[:min(n, len(all))]
}
