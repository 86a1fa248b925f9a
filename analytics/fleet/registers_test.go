package fleet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

func TestHashIsThatOfRedis(t *testing.T) {
	if got := Hash([]byte("hello")); got != 0x0f656f01eecfe400 {
		t.Errorf("Hash(hello) = %#x", got)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		want := random.Uint64()
		if got := Hash(binary.LittleEndian.AppendUint64(nil, Unhash(want))); got != want {
			t.Fatalf("Hash(Unhash(%#x)) = %#x", want, got)
		}
	}
}

// insert does what PFADD does, in the plainest way.
func insert(r *Registers, element []byte) {
	const upper = 1<<(64-precision) - 1
	hash := Hash(element)
	rho, rest := uint8(1), hash>>precision&upper
	for ; rho < maxRho && rest&1 == 0; rho++ {
		rest >>= 1
	}
	at := hash % count
	r[at] = max(r[at], rho)
}

func TestElementsRaiseTheirRegister(t *testing.T) {
	for _, at := range []int{0, 1, 77, count - 1} {
		for rho := uint8(1); rho <= maxRho; rho++ {
			var want, got Registers
			want[at] = rho
			insert(&got, binary.LittleEndian.AppendUint64(nil, want.Beyond(new(Registers), nil)[0]))
			if got != want {
				t.Fatalf("register %d, value %d: another register or value", at, rho)
			}
		}
	}
}

func TestRegistersSurviveEncoding(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var want Registers
	for i := range want {
		want[i] = uint8(random.IntN(maxRho + 1))
	}
	got, err := decode(want.encode())
	if err != nil || *got != want {
		t.Errorf("other registers come back: %v", err)
	}
}

// Whatever a key holds, reading it ends, and is an error unless it is a sketch.
func FuzzDecode(f *testing.F) {
	var some Registers
	some[5] = 3
	f.Add(some.encode())
	f.Add([]byte("HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x7f\xff"))
	f.Add([]byte("HYLL\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\x80\x7f\xfe"))
	f.Add([]byte("something else"))
	f.Fuzz(func(t *testing.T, value []byte) {
		r, err := decode(value)
		if (r == nil) == (err == nil) {
			t.Fatal("neither registers nor an error, or both")
		}
		if r == nil {
			return
		}
		again, err := decode(r.encode())
		if err != nil || *again != *r {
			t.Fatalf("what was read does not survive: %v", err)
		}
		if n := r.Estimate(); n < 0 {
			t.Fatalf("the estimate is %v", n)
		}
	})
}
