package aggregator

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// The table agrees with a map through insertions, splits and sweeps.
func TestIdentitiesAgreeWithAMap(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	table, want := newIdentities(), map[uint64]ref{}
	check := func(hash uint64) uint32 { return uint32(hash*0x9e3779b97f4a7c15>>32) ^ 7 }
	for round := range 6 {
		for range 20_000 {
			hash := random.Uint64()
			r := makeRef(op(1+random.IntN(6)), random.Uint32N(maxIndex))
			if _, known := want[hash]; !known {
				table.insert(hash, check(hash), r)
				want[hash] = r
			}
		}
		if round%2 == 1 {
			drop := func(r ref) bool { return r.index()%3 == uint32(round)%3 }
			for hash, more := uint64(0), true; more; more = hash != 0 {
				hash = table.sweepSegment(hash, false, func(r ref, _ bool) bool { return drop(r) })
			}
			for hash, r := range want {
				if drop(r) {
					delete(want, hash)
				}
			}
		}
		if table.count != len(want) {
			t.Fatalf("round %d: count = %d, want %d", round, table.count, len(want))
		}
		for hash, r := range want {
			if got := table.lookup(hash, check(hash)); got != r {
				t.Fatalf("round %d: lookup(%#x) = %v, want %v", round, hash, got, r)
			}
			if got := table.lookup(hash, check(hash)+1); got != 0 {
				t.Fatalf("round %d: another check finds %v", round, got)
			}
		}
		for range 1000 {
			if hash := random.Uint64(); table.lookup(hash, check(hash)) != want[hash] {
				t.Fatalf("round %d: %#x was never inserted", round, hash)
			}
		}
	}
}

// What is looked up between two sweeps with aging stays; the rest goes.
func TestSweepRemovesWhatIsNotUsed(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	table := newIdentities()
	var hashes []uint64
	for range 10_000 {
		hash := random.Uint64()
		hashes = append(hashes, hash)
		table.insert(hash, 1, makeRef(opCounter, 1))
	}
	sweep := func() {
		for hash, more := uint64(0), true; more; more = hash != 0 {
			hash = table.sweepSegment(hash, true, func(_ ref, unused bool) bool { return unused })
		}
	}
	sweep()
	if table.count != len(hashes) {
		t.Fatalf("new identities were removed: %d of %d are left", table.count, len(hashes))
	}
	for _, hash := range hashes[:3000] {
		table.lookup(hash, 1)
	}
	sweep()
	if table.count != 3000 {
		t.Fatalf("%d identities are left, want the 3000 that were used", table.count)
	}
	for _, hash := range hashes[:3000] {
		if table.lookup(hash, 1) == 0 {
			t.Fatalf("%#x was used and is gone", hash)
		}
	}
}

func TestHashTellsApartWhatTheWireTellsApart(t *testing.T) {
	h := newHasher()
	type sum struct {
		hash  uint64
		check uint32
	}
	seen := map[sum]string{}
	add := func(name, tail string) {
		hash, check := h.identity([]byte(name), []byte(tail), 0)
		if before, dup := seen[sum{hash, check}]; dup && before != name+"\x00"+tail {
			t.Errorf("%q and %q have one hash", before, name+"\x00"+tail)
		}
		seen[sum{hash, check}] = name + "\x00" + tail
	}
	// All lengths around the sizes of words, with bytes that repeat: the words
	// that overlap at the end of one are equal to those of another.
	same := "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for i := 1; i < 50; i++ {
		for j := 1; j < 50; j++ {
			add(same[:i], same[:j])
		}
	}
	// A byte moved from name to tail.
	add("ab", "c")
	add("a", "bc")
	// Zero bytes at the end.
	for i := range 20 {
		add("zero"+string(make([]byte, i)), "c")
	}
	hash1, check1 := h.identity([]byte("x"), []byte("c"), 0)
	hash2, check2 := newHasher().identity([]byte("x"), []byte("c"), 0)
	if hash1 == hash2 && check1 == check2 {
		t.Error("two processes hash alike: the key is not random")
	}
}

// Names and members count up, and differ in few bytes; under every key, all bits
// of their hashes must look random, the high ones to the directory, the low ones
// to the segments, both to HyperLogLog.
func TestHashIsSpread(t *testing.T) {
	const n, buckets = 1 << 16, 256
	texts := map[string]func(i int) (name, tail string){
		"short":  func(i int) (string, string) { return fmt.Sprintf("m%d", i), "" },
		"member": func(i int) (string, string) { return fmt.Sprintf("member%d", i), "" },
		"tag":    func(i int) (string, string) { return "page.views", fmt.Sprintf("c|#user:%d", i) },
		"long": func(i int) (string, string) {
			return "http.server.requests", fmt.Sprintf("c|#env:prod,user:%08x,region:eu-1", i)
		},
		"zero pad": func(i int) (string, string) { return fmt.Sprintf("%016d", i), "c" },
	}
	for kind, text := range texts {
		for key := range 20 {
			h := newHasher()
			var high, low [buckets]float64
			for i := range n {
				name, tail := text(i)
				hash, _ := h.identity([]byte(name), []byte(tail), 0)
				if tail == "" {
					hash = h.bytes([]byte(name))
				}
				high[hash>>56]++
				low[hash&0xff]++
			}
			for which, counts := range map[string][buckets]float64{"high": high, "low": low} {
				chi := 0.0
				for _, count := range counts {
					chi += (count - n/buckets) * (count - n/buckets) / (n / buckets)
				}
				// 255 degrees of freedom: mean 255, deviation 22.6.
				if chi > 255+7*22.6 {
					t.Errorf("%s, key %d: the %s bits are uneven: chi² = %.0f", kind, key, which, chi)
				}
			}
		}
	}
}

func BenchmarkHash(b *testing.B) {
	h := newHasher()
	name, tail := []byte("http.server.requests"), []byte("c|#env:prod,route:checkout,status:200,region:eu")
	for b.Loop() {
		h.identity(name, tail, 0)
	}
}
