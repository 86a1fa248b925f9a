package analytics

import (
	"math/bits"

	"github.com/dchest/siphash"
)

// What a sketch is made of. Redis has no other precision, and sketches of different
// precisions do not merge.
const (
	precision = 14
	registers = 1 << precision
)

// sipKey is the secret that the identities of one type are hashed with. Without it
// nobody can tell from a sketch who is in it, or make up identities that inflate it.
type sipKey struct{ k0, k1 uint64 }

// element is what stands for an identity: a keyed hash (SipHash-2-4) of its canonical
// value. Its eight bytes, lowest first, are what Redis would be given.
type element uint64

func (k sipKey) element(canonical []byte) element {
	return element(siphash.Hash(k.k0, k.k1, canonical))
}

// hash returns what Redis makes of the element: MurmurHash64A of its eight bytes, with
// the seed that Redis uses (https://github.com/redis/redis, hyperloglog.c).
func (e element) hash() uint64 {
	const (
		seed     = 0xadc83b19
		multiply = 0xc6a4a7935bd1e995
		shift    = 47
		length   = 8
		start    = seed ^ (length*multiply)&(1<<64-1)
	)
	k := uint64(e) * multiply
	k ^= k >> shift
	k *= multiply
	h := (start ^ k) * multiply
	h ^= h >> shift
	h *= multiply
	return h ^ h>>shift
}

// place returns the register that a hash belongs to, as axiomhq/hyperloglog numbers
// them, and the value it raises it to. Redis numbers them from the other end: it takes
// the low bits of a hash for the register and counts zeros upwards, where axiomhq takes
// the high bits and counts downwards. So the bits are reversed, and with them the bits
// of the register's number.
func place(hash uint64) (register uint16, rho uint8) {
	reversed := bits.Reverse64(hash)
	zeros := bits.LeadingZeros64(reversed<<precision | 1<<(precision-1))
	return uint16(reversed >> (64 - precision)), uint8(zeros + 1)
}
