package analytics

import (
	"fmt"
	"math/bits"

	"github.com/axiomhq/hyperloglog"
)

// sketch counts who one selection rule met on one day.
//
// While few came it is a sparse sketch of axiomhq/hyperloglog, small and nearly exact.
// Then only its registers are kept: they are the sketch, and they tell at the price of
// a comparison whether an identity changes anything, which the library does not say.
type sketch struct {
	sparse    *hyperloglog.Sketch
	registers *[registers]uint8 // once set, sparse is nil
	inserts   int               // into sparse
}

// maxSparseInserts is after how many insertions a sketch becomes registers. A sparse
// insertion costs several times what one into registers does.
const maxSparseInserts = 4096

func newSketch() *sketch { return &sketch{sparse: hyperloglog.New14()} }

// insert adds an element and reports whether that may have changed the estimate: of
// registers it knows, of a sparse sketch it does not.
func (s *sketch) insert(e element) (changed bool) { return s.insertHash(e.hash()) }

// insertHash is insert for what Redis makes of an element.
func (s *sketch) insertHash(hash uint64) (changed bool) {
	if s.registers != nil {
		at, rho := place(hash)
		if rho <= s.registers[at] {
			return false
		}
		s.registers[at] = rho
		return true
	}
	s.sparse.InsertHash(bits.Reverse64(hash))
	if s.inserts++; s.inserts >= maxSparseInserts {
		s.toRegisters()
	}
	return true
}

func (s *sketch) toRegisters() {
	dense := hyperloglog.NewNoSparse()
	if err := dense.Merge(s.sparse); err != nil {
		panic("BUG: sketches of one precision do not merge: " + err.Error())
	}
	s.registers, s.sparse = registersOf(encode(dense)), nil
}

// A dense sketch in the library's format is this and the registers.
var denseHeader = [8]byte{2, precision, 0, 0, 0, 0, registers >> 8, 0}

func encode(sk *hyperloglog.Sketch) []byte {
	blob, err := sk.MarshalBinary()
	if err != nil {
		panic("BUG: a sketch cannot be encoded: " + err.Error())
	}
	return blob
}

// registersOf returns the registers in an encoded sketch, nil if it is sparse.
func registersOf(blob []byte) *[registers]uint8 {
	if len(blob) != len(denseHeader)+registers || [8]byte(blob) != denseHeader {
		return nil
	}
	r := [registers]uint8(blob[len(denseHeader):])
	return &r
}

// blob returns the sketch in the library's format.
func (s *sketch) blob() []byte {
	if s.registers == nil {
		return encode(s.sparse)
	}
	return append(append(make([]byte, 0, len(denseHeader)+registers), denseHeader[:]...), s.registers[:]...)
}

// decode reads a sketch in the library's format.
func decode(blob []byte) (*hyperloglog.Sketch, error) {
	sk := new(hyperloglog.Sketch)
	if err := sk.UnmarshalBinary(blob); err != nil {
		return nil, err
	}
	if len(blob) < 2 || blob[1] != precision {
		return nil, fmt.Errorf("a sketch of precision %d, not %d", blob[1], precision)
	}
	return sk, nil
}

// restored returns a sketch that goes on from an encoded one.
func restored(blob []byte) (*sketch, error) {
	sk, err := decode(blob)
	if err != nil {
		return nil, err
	}
	s := &sketch{}
	if s.registers = registersOf(blob); s.registers == nil {
		s.sparse = sk
	}
	return s, nil
}

// union is the sketch of everyone whom any of several sketches met.
type union struct{ all *hyperloglog.Sketch }

func newUnion() *union { return &union{hyperloglog.New14()} }

// add takes an encoded sketch in.
func (u *union) add(blob []byte) error {
	sk, err := decode(blob)
	if err != nil {
		return err
	}
	return u.all.Merge(sk)
}

func (u *union) merge(other *union) {
	if err := u.all.Merge(other.all); err != nil {
		panic("BUG: sketches of one precision do not merge: " + err.Error())
	}
}

func (u *union) clone() *union { return &union{u.all.Clone()} }

// estimate returns how many there are. It takes up to a millisecond.
func (u *union) estimate() float64 { return float64(u.all.Estimate()) }

// relativeError is the standard error of an estimate.
const relativeError = 0.0081
