package analytics

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/axiomhq/hyperloglog"
)

// murmur64A is MurmurHash64A of any bytes, as Redis applies it to an element.
func murmur64A(data []byte) uint64 {
	const (
		seed     = 0xadc83b19
		multiply = 0xc6a4a7935bd1e995
		shift    = 47
	)
	h := seed ^ uint64(len(data))*multiply
	for ; len(data) >= 8; data = data[8:] {
		k := binary.LittleEndian.Uint64(data) * multiply
		k ^= k >> shift
		h = (h ^ k*multiply) * multiply
	}
	if len(data) > 0 {
		var last [8]byte
		copy(last[:], data)
		h = (h ^ binary.LittleEndian.Uint64(last[:])) * multiply
	}
	h ^= h >> shift
	h *= multiply
	return h ^ h>>shift
}

// redisPlace is where Redis puts a hash: the low 14 bits are the register, and in the
// others, with a bit set beyond them, the place of the lowest bit that is set.
func redisPlace(hash uint64) (register uint16, rho uint8) {
	rest := hash>>precision | 1<<(64-precision)
	return uint16(hash & (registers - 1)), uint8(bits.TrailingZeros64(rest) + 1)
}

// The value is Redis's own for this element.
func TestMurmurIsThatOfRedis(t *testing.T) {
	if got := murmur64A([]byte("hello")); got != 0x0f656f01eecfe400 {
		t.Errorf("the hash of hello is %#x, want 0xf656f01eecfe400", got)
	}
	for range 1000 {
		e := element(rand.Uint64())
		if got, want := e.hash(), murmur64A(binary.LittleEndian.AppendUint64(nil, uint64(e))); got != want {
			t.Fatalf("the hash of element %#x is %#x, want %#x", uint64(e), got, want)
		}
	}
}

// What a sketch has in its registers is what Redis has, number by number, but that the
// bits of the registers' numbers are reversed; whether it began sparse or not.
func TestRegistersAreThoseOfRedis(t *testing.T) {
	const n = 200_000
	var redis [registers]uint8
	ours := newSketch()
	sparse, dense := hyperloglog.New14(), hyperloglog.NewNoSparse()
	for i := range n {
		hash := murmur64A(fmt.Appendf(nil, "user-%d", i))
		at, rho := redisPlace(hash)
		redis[at] = max(redis[at], rho)
		sparse.InsertHash(bits.Reverse64(hash))
		dense.InsertHash(bits.Reverse64(hash))
		ours.insertHash(hash)
	}
	for name, got := range map[string]*[registers]uint8{
		"ours": ours.registers, "born sparse": registersOf(encode(sparse)), "dense": registersOf(encode(dense)),
	} {
		different := 0
		for at, rho := range redis {
			if got[bits.Reverse16(uint16(at))>>(16-precision)] != rho {
				different++
			}
		}
		if different > 0 {
			t.Errorf("%s: %d registers differ from those of Redis", name, different)
		}
	}
	// The number is what PFCOUNT of a real Redis says for these elements.
	if got := redisCount(ours.registers); got != 200598 {
		t.Errorf("by Redis's estimator there are %d, want 200598", got)
	}
	// The library's estimator is another.
	if got := sketchEstimate(t, ours); math.Abs(got-n) > 0.01*n {
		t.Errorf("the estimate is %v, want %d within 1 %%", got, n)
	}
}

// redisCount is Redis's estimator: Otmar Ertl, New cardinality estimation algorithms
// for HyperLogLog sketches, arXiv:1702.01284, algorithm 6.
func redisCount(r *[registers]uint8) int {
	const m, q = registers, 64 - precision
	var histogram [q + 2]float64
	for _, rho := range r {
		histogram[rho]++
	}
	tau := func(x float64) float64 {
		if x == 0 || x == 1 {
			return 0
		}
		y, z := 1.0, 1-x
		for before := -1.0; before != z; {
			x, before, y = math.Sqrt(x), z, y/2
			z -= (1 - x) * (1 - x) * y
		}
		return z / 3
	}
	sigma := func(x float64) float64 {
		if x == 1 {
			return math.Inf(1)
		}
		y, z := 1.0, x
		for before := -1.0; before != z; {
			x, before = x*x, z
			z += x * y
			y += y
		}
		return z
	}
	z := m * tau((m-histogram[q+1])/m)
	for j := q; j >= 1; j-- {
		z = (z + histogram[j]) / 2
	}
	z += m * sigma(histogram[0]/m)
	return int(math.Round(m * m / (2 * math.Ln2 * z)))
}

func sketchEstimate(t testing.TB, s *sketch) float64 {
	t.Helper()
	u := newUnion()
	if err := u.add(s.blob()); err != nil {
		t.Fatal(err)
	}
	return u.estimate()
}

// The library's sparse form and ours agree on where a hash belongs for every value a
// register can have.
func TestPlaceIsThatOfTheLibrary(t *testing.T) {
	for zeros := range 64 - precision + 1 {
		hash := uint64(1)<<(precision+zeros) | 0x1234
		if zeros == 64-precision {
			hash = 0x1234
		}
		at, rho := place(hash)
		library := hyperloglog.NewNoSparse()
		library.InsertHash(bits.Reverse64(hash))
		if got := registersOf(encode(library))[at]; got != rho || int(rho) != zeros+1 {
			t.Errorf("%d zeros: register %d is %d by our count, %d by the library's", zeros, at, rho, got)
		}
	}
}

// Counts stay true across all sizes, for one day and for the union of 28.
func TestEstimatesAreAccurate(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	var squares, worst float64
	trials := 0
	check := func(what string, got float64, want int) {
		relative := got/float64(want) - 1
		squares += relative * relative
		worst = max(worst, math.Abs(relative))
		trials++
		if math.Abs(relative) > 0.02 {
			t.Errorf("%s: %v, want %d: %+.2f %%", what, got, want, 100*relative)
		}
	}
	for trial := range 3 {
		sip := key{secret: []byte{byte(trial), 5: 1}}.sip("user.id")
		day, days := newSketch(), make([]*sketch, 28)
		for i := range days {
			days[i] = newSketch()
		}
		random := rand.New(rand.NewPCG(uint64(trial), 1))
		for id, next := 1, 1000; id <= 3_000_000; id++ {
			e := sip.element(fmt.Appendf(nil, "%d", id))
			day.insert(e)
			days[random.IntN(28)].insert(e) // most come on several days
			days[random.IntN(28)].insert(e)
			if id != next {
				continue
			}
			check(fmt.Sprintf("%d in a day", id), sketchEstimate(t, day), id)
			u := newUnion()
			for _, d := range days {
				if err := u.add(d.blob()); err != nil {
					t.Fatal(err)
				}
			}
			check(fmt.Sprintf("%d in 28 days", id), u.estimate(), id)
			next = next * 7 / 4
		}
	}
	rms := math.Sqrt(squares / float64(trials))
	t.Logf("%d estimates: %.2f %% rms, %.2f %% worst", trials, 100*rms, 100*worst)
	if rms > 0.009 {
		t.Errorf("the error is %.2f %% rms, want 0.9 %% at most", 100*rms)
	}
}

// A sketch says when it changes, and goes on where it was saved.
func TestSketchTellsChangesAndIsRestored(t *testing.T) {
	sip := key{secret: []byte("0123456789abcdef")}.sip("user.id")
	for _, n := range []int{0, 1, 100, maxSparseInserts - 1, maxSparseInserts, 50_000} {
		s := newSketch()
		for i := range n {
			s.insert(sip.element(fmt.Appendf(nil, "%d", i)))
		}
		back, err := restored(s.blob())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := sketchEstimate(t, back), sketchEstimate(t, s); got != want {
			t.Errorf("of %d, %v are restored, want %v", n, got, want)
		}
		if (s.registers != nil) != (n >= maxSparseInserts) {
			t.Errorf("with %d insertions registers are %v", n, s.registers != nil)
		}
		if s.registers == nil {
			continue
		}
		for i := range n {
			if s.insert(sip.element(fmt.Appendf(nil, "%d", i))) || back.insert(sip.element(fmt.Appendf(nil, "%d", i))) {
				t.Fatalf("of %d, number %d changes the sketch a second time", n, i)
			}
		}
	}
}

// How often registers change is bounded by the sketch and not by the events.
func TestRegisterChangesAreBounded(t *testing.T) {
	sip := key{secret: []byte("0123456789abcdef")}.sip("user.id")
	s := newSketch()
	s.toRegisters()
	changes := 0
	for i := range 1_000_000 {
		if s.insert(sip.element(fmt.Appendf(nil, "%d", i))) {
			changes++
		}
	}
	if changes < 55_000 || changes > 63_000 {
		t.Errorf("a million identities made %d changes, want about 59,000", changes)
	}
}
