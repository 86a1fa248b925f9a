package cardinality

import (
	"crypto/rand"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// hasher turns tags into 64 bits that sketches can rely on, under a key that nobody
// who can send lines knows. The key outlives the process with the sketches.
//
// It is a chain of folded multiplications, as in wyhash
// (Wang Yi, https://github.com/wangyi-fudan/wyhash), with secret words.
type hasher [4]uint64

func newHasher() (h hasher) {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails: crypto/rand crashes the program instead
	for i := range h {
		h[i] = binary.LittleEndian.Uint64(key[8*i:])
	}
	return h
}

// bytes hashes one tag.
func (h *hasher) bytes(b []byte) uint64 {
	s := h[0] ^ uint64(len(b))
	for len(b) > 16 {
		s = multiply(binary.LittleEndian.Uint64(b)^h[1], binary.LittleEndian.Uint64(b[8:])^s)
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
	return multiply(multiply(first^h[1], second^s)^h[2], s^h[3])
}

func multiply(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

// bytesOf returns the bytes of a string, which must not be written.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
