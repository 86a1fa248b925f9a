package aggregator

// ref says where the samples of an identity go: an operation and an index,
// packed into 31 bits: 4 and 27. The zero ref is no place.
type ref uint32

// op is the first half of a ref.
type op uint8

const (
	opSighted op = iota // index, from 1 on, into a worker's sighted refs: samples of folded metrics
	opCounter
	opGauge
	opSet
	opHistogram
	opDistribution
	opKeptGauge
	opWeighted // index into a worker's weighted refs: samples at a rate, sampled by rules, or not counted
	opEvent    // index into a worker's event refs: samples of analytics events
)

// The operations but the last are those of the families, in their order.
func opOf(f family) op       { return op(f) + opCounter }
func familyOfOp(o op) family { return family(o - opCounter) }

const (
	indexBits = 27
	maxIndex  = 1<<indexBits - 1
	usedBit   = 1 << 31 // in a table entry: looked up since the last sweep with aging
)

func makeRef(o op, index uint32) ref { return ref(o)<<indexBits | ref(index) }
func (r ref) op() op                 { return op(r >> indexBits) }
func (r ref) index() uint32          { return uint32(r) & maxIndex }

const (
	segmentLen = 4096
	// segmentFull is when a segment is split. Linear probing is short up to
	// three quarters.
	segmentFull = segmentLen * 3 / 4
	maxDepth    = 24 // of the directory: 2^24 segments, far beyond any bound on identities
)

// identities maps the hash of a raw identity to where its samples go. It is
// extendible hashing: a directory indexed by the top bits of the hash points to
// segments with linear probing inside. Growth splits one segment at a time, so
// the longest pause is that of copying 64 KiB, however large the table is.
//
// One worker writes it, with that worker's lock held.
type identities struct {
	directory []*[segmentLen]identity // two neighbours may share a segment
	infos     []*segmentInfo          // parallel to directory
	shift     uint8                   // 64 - log2(len(directory))
	count     int
	inserted  uint64 // identities, ever
}

// identity is 16 bytes, four to a cache line.
type identity struct {
	hash  uint64
	check uint32
	ref   ref // 0: free
}

type segmentInfo struct {
	used  int
	depth uint8 // how many top bits all hashes in the segment share
}

func newIdentities() *identities {
	return &identities{
		directory: []*[segmentLen]identity{new([segmentLen]identity)},
		infos:     []*segmentInfo{{}},
		shift:     64,
	}
}

// lookup returns where the identity's samples go, or 0.
//
// Hot path: once per sample.
func (t *identities) lookup(hash uint64, check uint32) ref {
	segment := t.directory[hash>>t.shift]
	for i := hash; ; i++ {
		e := &segment[i%segmentLen]
		if e.hash == hash && e.check == check {
			if e.ref&usedBit == 0 && e.ref != 0 {
				e.ref |= usedBit
			}
			return e.ref &^ usedBit
		}
		if e.ref == 0 {
			return 0
		}
	}
}

// insert adds an identity that lookup did not find.
func (t *identities) insert(hash uint64, check uint32, r ref) {
	at := hash >> t.shift
	for t.infos[at].used >= segmentFull {
		t.split(at)
		at = hash >> t.shift
	}
	place(t.directory[at], identity{hash, check, r | usedBit})
	t.infos[at].used++
	t.count++
	t.inserted++
}

func place(segment *[segmentLen]identity, e identity) {
	i := e.hash
	for segment[i%segmentLen].ref != 0 {
		i++
	}
	segment[i%segmentLen] = e
}

// split divides the segment at a place of the directory in two, by the first
// bit of the hashes that they do not share.
func (t *identities) split(at uint64) {
	full, depth := t.directory[at], t.infos[at].depth
	if 64-t.shift == depth {
		if depth == maxDepth {
			panic("BUG: hashes of identities are not spread")
		}
		t.double()
		at *= 2
	}
	low, high := new([segmentLen]identity), new([segmentLen]identity)
	lowInfo, highInfo := &segmentInfo{depth: depth + 1}, &segmentInfo{depth: depth + 1}
	for i := range full {
		e := &full[i]
		switch {
		case e.ref == 0:
		case e.hash<<depth>>63 == 0:
			place(low, *e)
			lowInfo.used++
		default:
			place(high, *e)
			highInfo.used++
		}
	}
	span := uint64(1) << (64 - t.shift - depth) // directory places that pointed to full
	first := at / span * span
	for i := first; i < first+span/2; i++ {
		t.directory[i], t.infos[i] = low, lowInfo
	}
	for i := first + span/2; i < first+span; i++ {
		t.directory[i], t.infos[i] = high, highInfo
	}
}

func (t *identities) double() {
	directory := make([]*[segmentLen]identity, 2*len(t.directory))
	infos := make([]*segmentInfo, 2*len(t.infos))
	for i := range t.directory {
		directory[2*i], directory[2*i+1] = t.directory[i], t.directory[i]
		infos[2*i], infos[2*i+1] = t.infos[i], t.infos[i]
	}
	t.directory, t.infos = directory, infos
	t.shift--
}

// sweepSegment asks about each identity in the segment of the given hash whether
// it is to be removed; unused says that it was not looked up since the last
// sweep with aging. It returns the first hash of the next segment, 0 after the
// last one.
func (t *identities) sweepSegment(hash uint64, aging bool, remove func(r ref, unused bool) bool) (next uint64) {
	at := hash >> t.shift
	segment, info := t.directory[at], t.infos[at]
	removed := 0
	for i := range segment {
		e := &segment[i]
		if e.ref == 0 {
			continue
		}
		if remove(e.ref&^usedBit, aging && e.ref&usedBit == 0) {
			*e = identity{}
			removed++
		} else if aging {
			e.ref &^= usedBit
		}
	}
	if removed > 0 {
		survivors := *segment // probing may have carried them past what is now free
		clear(segment[:])
		for i := range survivors {
			if survivors[i].ref != 0 {
				place(segment, survivors[i])
			}
		}
		info.used -= removed
		t.count -= removed
	}
	return hash + 1<<(64-info.depth) // wraps to 0; so does a shift by 64
}
