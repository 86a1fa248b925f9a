package fleet

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
)

// What Redis makes a HyperLogLog of (https://github.com/redis/redis, hyperloglog.c).
const (
	precision = 14
	count     = 1 << precision
	maxRho    = 64 - precision + 1 // of a hash whose remaining bits are all zero

	headerBytes = 16
	denseBytes  = headerBytes + count*6/8
	// maxSketchBytes is as much of a value as is read. A sparse sketch is no longer: the
	// server makes a dense one of it before.
	maxSketchBytes = 16 << 10
)

// Registers are those of a HyperLogLog, in the order in which Redis numbers them.
type Registers [count]uint8

// Raise takes in what others has, and reports whether that changed anything.
func (r *Registers) Raise(others *Registers) (changed bool) {
	for i, rho := range others {
		if rho > r[i] {
			r[i] = rho
			changed = true
		}
	}
	return changed
}

// Beyond appends to dst an element for each register that is higher than in known: one
// that raises this register to this value.
func (r *Registers) Beyond(known *Registers, dst []uint64) []uint64 {
	for i, rho := range r {
		if rho > known[i] {
			dst = append(dst, element(i, rho))
		}
	}
	return dst
}

// Lacks reports whether a register is lower than in others.
func (r *Registers) Lacks(others *Registers) bool {
	for i, rho := range others {
		if rho > r[i] {
			return true
		}
	}
	return false
}

// element returns a number whose eight bytes, lowest first, Redis hashes to a register
// and a value: its hash can be computed backwards.
func element(register int, rho uint8) uint64 {
	hash := uint64(register)
	if rho < maxRho {
		hash |= 1 << (precision - 1 + rho)
	}
	return Unhash(hash)
}

// Unhash returns the number whose eight bytes, lowest first, have a hash in Redis: the
// inverse of MurmurHash64A for that length, step by step from its end.
func Unhash(hash uint64) uint64 {
	const (
		inverse = 0x5f7a0ea7e59b19bd // of the multiplier, modulo 2^64
		shift   = 47
	)
	hash ^= hash >> shift
	hash *= inverse
	hash ^= hash >> shift
	hash *= inverse
	k := (hash ^ murmurStart(8)) * inverse
	k ^= k >> shift
	return k * inverse
}

const (
	murmurSeed     = 0xadc83b19
	murmurMultiply = 0xc6a4a7935bd1e995
)

func murmurStart(length int) uint64 { return murmurSeed ^ uint64(length)*murmurMultiply }

// Hash returns what Redis makes of an element: MurmurHash64A, with the seed it uses.
func Hash(text []byte) uint64 {
	const shift = 47
	mix := func(k uint64) uint64 {
		k *= murmurMultiply
		return (k ^ k>>shift) * murmurMultiply
	}
	h := murmurStart(len(text))
	for ; len(text) >= 8; text = text[8:] {
		h = (h ^ mix(binary.LittleEndian.Uint64(text))) * murmurMultiply
	}
	if len(text) > 0 {
		var rest [8]byte
		copy(rest[:], text)
		h = (h ^ binary.LittleEndian.Uint64(rest[:])) * murmurMultiply
	}
	h = (h ^ h>>shift) * murmurMultiply
	return h ^ h>>shift
}

// Estimate returns how many different elements there were, as PFCOUNT does: by the
// estimator of Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog
// sketches" (arXiv:1702.01284), algorithm 6.
func (r *Registers) Estimate() float64 {
	const m = count
	var histogram [64]int
	for _, rho := range r {
		histogram[rho&63]++
	}
	z := m * tau(1-float64(histogram[maxRho])/m)
	for rho := maxRho - 1; rho >= 1; rho-- {
		z = (z + float64(histogram[rho])) / 2
	}
	z += m * sigma(float64(histogram[0])/m)
	return math.Round(m * m / (2 * math.Ln2) / z)
}

// sigma is x + Σ x^(2^k) 2^(k-1) for k from 1.
func sigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	sum, weight := x, 1.0
	for before := math.NaN(); sum != before; weight *= 2 {
		x *= x
		before = sum
		sum += x * weight
	}
	return sum
}

// tau is (1 - x - Σ (1 - x^(2^-k))² 2^-k) / 3 for k from 1.
func tau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	sum, weight := 1-x, 1.0
	for before := math.NaN(); sum != before; {
		x = math.Sqrt(x)
		weight /= 2
		before = sum
		sum -= (1 - x) * (1 - x) * weight
	}
	return sum / 3
}

// Redis's header: four letters, the encoding, three zeros, and a cached cardinality
// whose last byte says with staleCache that it is none.
var magic = [4]byte{'H', 'Y', 'L', 'L'}

const (
	dense      = 0
	sparse     = 1
	staleCache = 0x80
)

// encode returns the registers as Redis keeps a dense HyperLogLog: six bits each, the
// lowest bits of a byte first.
func (r *Registers) encode() []byte {
	value := make([]byte, denseBytes)
	copy(value, magic[:])
	value[headerBytes-1] = staleCache
	body := value[headerBytes:]
	for i := 0; i < count; i += 4 { // four registers fill three bytes
		four := uint32(r[i]) | uint32(r[i+1])<<6 | uint32(r[i+2])<<12 | uint32(r[i+3])<<18
		at := i / 4 * 3
		body[at], body[at+1], body[at+2] = byte(four), byte(four>>8), byte(four>>16)
	}
	return value
}

// errForeign says that a key holds something that is none of ours.
var errForeign = errors.New("it holds something else than was put there")

// decode reads what Redis keeps, in both of its encodings.
func decode(value []byte) (*Registers, error) {
	if len(value) < headerBytes || [4]byte(value) != magic {
		return nil, errForeign
	}
	body := value[headerBytes:]
	switch {
	case value[4] == dense && len(value) == denseBytes:
		r := new(Registers)
		for i := 0; i < count; i += 4 {
			at := i / 4 * 3
			four := uint32(body[at]) | uint32(body[at+1])<<8 | uint32(body[at+2])<<16
			for k := range 4 {
				r[i+k] = uint8(four >> (6 * k) & 63)
			}
		}
		return r, nil
	case value[4] == sparse:
		return decodeSparse(body)
	}
	return nil, errForeign
}

// decodeSparse reads runs of registers:
//
//	00xxxxxx           x+1 registers are 0
//	01xxxxxx yyyyyyyy  xy+1 registers are 0
//	1vvvvvxx           x+1 registers are v+1
func decodeSparse(body []byte) (*Registers, error) {
	r := new(Registers)
	at := 0
	for len(body) > 0 {
		op := body[0]
		body = body[1:]
		run, rho := int(op&63)+1, uint8(0)
		switch {
		case op&0x80 != 0:
			run, rho = int(op&3)+1, op>>2&31+1
		case op&0x40 != 0:
			if len(body) == 0 {
				return nil, errForeign
			}
			run = int(op&63)<<8 + int(body[0]) + 1
			body = body[1:]
		}
		if at+run > count {
			return nil, errForeign
		}
		for i := range run {
			r[at+i] = rho
		}
		at += run
	}
	if at != count {
		return nil, errForeign
	}
	return r, nil
}

// Number returns where Redis has the register that a library has which counts the bits
// of a hash from the other end.
func Number(reversed int) int { return int(bits.Reverse16(uint16(reversed)) >> (16 - precision)) }
