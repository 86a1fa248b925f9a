package aggregator

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
)

// hasher turns the bytes of an identity into 96 bits under a key that is drawn
// when the process starts, so that nobody who can send lines can know, let
// alone choose, which ones collide. By chance alone two of a million identities
// collide with a probability of 1 in 10^17; the bytes are therefore not
// compared (docs/decisions.md has the cost of doing so).
//
// Each of its two lanes is a chain of folded multiplications: the 128-bit
// product of two words, its halves xored. That is the mixing step of wyhash
// (Wang Yi, https://github.com/wangyi-fudan/wyhash), with secret words in place
// of its public ones, which an attacker could cancel out.
type hasher struct {
	start, mask [2]uint64
}

func newHasher() *hasher {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand crashes the program instead
	word := func(i int) uint64 { return binary.LittleEndian.Uint64(key[8*i:]) }
	return &hasher{start: [2]uint64{word(0), word(1)}, mask: [2]uint64{word(2), word(3)}}
}

// identity hashes a name and a tail. salt tells apart what comes from different
// senders; it is 0 or a hash made by bytes.
//
// Hot path: once per sample. BenchmarkSample pays for the loop being written out.
func (h *hasher) identity(name, tail []byte, salt uint64) (hash uint64, check uint32) {
	length := uint64(len(name))<<32 | uint64(len(tail))
	s, t := h.start[0]^length^salt, h.start[1]-length-salt
	s, t = h.absorb(s, t, name)
	s, t = h.absorb(s, t, tail)
	return h.finish(s, t), uint32(t>>32) ^ uint32(t)
}

// bytes hashes one string to 64 bits.
func (h *hasher) bytes(b []byte) uint64 {
	length := uint64(len(b))
	return h.finish(h.absorb(h.start[0]^length, h.start[1]-length, b))
}

// finish spreads what few steps left uneven: tables and sketches rely on every
// bit (TestHashIsSpread).
func (h *hasher) finish(s, t uint64) uint64 {
	return fold(s^h.mask[1], t^h.mask[0])
}

// absorb mixes b into both lanes, 16 bytes at a time. The last 1 to 16 bytes
// are read as two words that may overlap; the length, which is in the start
// values, tells apart what overlaps alike.
func (h *hasher) absorb(s, t uint64, b []byte) (uint64, uint64) {
	for len(b) > 16 {
		first, second := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		s, t = fold(first^h.mask[0], second^s), fold(first^t, second^h.mask[1])
		b = b[16:]
	}
	var first, second uint64
	switch n := len(b); {
	case n >= 8:
		first, second = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[n-8:])
	case n >= 4:
		first, second = uint64(binary.LittleEndian.Uint32(b)), uint64(binary.LittleEndian.Uint32(b[n-4:]))
	case n > 0:
		first = uint64(b[0]) | uint64(b[n>>1])<<8 | uint64(b[n-1])<<16
	}
	return fold(first^h.mask[0], second^s), fold(first^t, second^h.mask[1])
}

func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}
