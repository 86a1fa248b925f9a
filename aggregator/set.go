package aggregator

import "github.com/axiomhq/hyperloglog"

// maxSetMembers is how many members of a set are counted exactly in one interval;
// from then on they are estimated (HyperLogLog with 2^14 registers: within 0.8 %
// rms, 16 KiB).
const maxSetMembers = 4096

// set counts distinct members by their 64-bit hashes: exactly in an open
// addressing table, then by a sketch.
type set struct {
	table  []uint64 // 0: free; the length is a power of two
	count  int      // hashes in the table
	sketch *hyperloglog.Sketch
}

func (s *set) empty() bool { return s.count == 0 && s.sketch == nil }

// add takes the hash of a member. No allocation for one that is known or fits.
func (s *set) add(hash uint64) {
	if s.sketch != nil {
		s.sketch.InsertHash(hash)
		return
	}
	if hash == 0 { // 0 marks a free place
		hash = 1
	}
	if 4*(s.count+1) > 3*len(s.table) {
		s.grow()
	}
	if insertHash(s.table, hash) {
		if s.count++; s.count > maxSetMembers {
			s.toSketch()
		}
	}
}

func insertHash(table []uint64, hash uint64) bool {
	mask := uint64(len(table) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		switch table[i] {
		case hash:
			return false
		case 0:
			table[i] = hash
			return true
		}
	}
}

func (s *set) grow() {
	table := make([]uint64, max(8, 2*len(s.table)))
	for _, hash := range s.table {
		if hash != 0 {
			insertHash(table, hash)
		}
	}
	s.table = table
}

func (s *set) toSketch() {
	s.sketch = hyperloglog.New14()
	for _, hash := range s.table {
		if hash != 0 {
			s.sketch.InsertHash(hash)
		}
	}
	s.table, s.count = nil, 0
}

// merge adds other's members to s and leaves other as it is.
func (s *set) merge(other *set) {
	if other.sketch != nil {
		if s.sketch == nil {
			s.toSketch()
		}
		if err := s.sketch.Merge(other.sketch); err != nil {
			panic("BUG: sketches of one precision do not merge: " + err.Error())
		}
		return
	}
	for _, hash := range other.table {
		if hash != 0 {
			s.add(hash)
		}
	}
}

// size returns the number of distinct members.
func (s *set) size() float64 {
	if s.sketch != nil {
		return float64(s.sketch.Estimate())
	}
	return float64(s.count)
}

// release gives memory back after an interval without a sample.
func (s *set) release(all bool) {
	if all || len(s.table) > keptIdle {
		*s = set{}
	}
}

// reset empties s for the next interval. A table stays if the interval filled a
// good part of it.
func (s *set) reset() {
	if s.sketch != nil || 8*s.count < len(s.table) {
		*s = set{}
		return
	}
	clear(s.table)
	s.count = 0
}
