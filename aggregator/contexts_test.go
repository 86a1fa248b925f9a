package aggregator

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

// counterKey returns the key of a context; long ones do not fit into a block.
func counterKey(i int) []byte {
	name := fmt.Sprintf("requests.%d", i)
	if i%997 == 0 {
		name += strings.Repeat("x", 5*metric.BlockWords)
	}
	return metric.AppendContextKey(nil, metric.Counter, []byte(name), metric.Host{}, nil, [][]byte{[]byte("env:prod")})
}

// However contexts come and go, each is found by its key and is what it was, also for a
// batch that has it since long, and the memory of those forgotten is used again.
func TestContextsComeAndGo(t *testing.T) {
	const most, rounds = 10_000, 12
	c := newContexts(most, 1, newHasher())
	random := rand.New(rand.NewPCG(1, 2))
	live := map[int]slotID{}
	held := map[*metric.Context]string{} // by a batch
	next := 0
	for range rounds {
		for len(live) < most {
			key := counterKey(next)
			if _, known := c.find(counters, key, nil); known {
				t.Fatalf("context %d is known before it is made", next)
			}
			slot, made, ok := c.make(counters, key, 0, nil, 7)
			if !made || !ok {
				t.Fatalf("context %d: made %v, ok %v", next, made, ok)
			}
			live[next] = slotID{counters, slot}
			next++
		}
		all := c.snapshot(counters)
		var doomed []slotID
		for i, id := range live {
			got := all.context(id.slot)
			if got.Key() != string(counterKey(i)) {
				t.Fatalf("context %d has the key %.100q", i, got.Key())
			}
			if slot, known := c.find(counters, counterKey(i), nil); !known || slot != id.slot {
				t.Fatalf("context %d is found at %d (%v), and is at %d", i, slot, known, id.slot)
			}
			if random.IntN(100) == 0 {
				held[got] = strings.Clone(got.Key())
			}
			if random.IntN(5) > 0 { // a fifth stays, anywhere
				doomed = append(doomed, id)
				delete(live, i)
			}
		}
		c.doom(doomed)
		gone := 0
		c.bury(doomed, func(_ slotID, was guarded) {
			if was.number() != 7 || was.stale() {
				t.Fatalf("the guard hears of metric %d, stale %v", was.number(), was.stale())
			}
			gone++
		})
		if n, _, _ := c.count(); gone != len(doomed) || n != len(live) {
			t.Fatalf("%d of %d are gone, %d of %d are left", gone, len(doomed), n, len(live))
		}
	}
	for context, key := range held {
		if context.Key() != key {
			t.Fatalf("what a batch holds was %.100q and is %.100q", key, context.Key())
		}
	}

	var filled, used, taken uint32
	for number := range c.texts.blocks {
		use := c.texts.use[number]
		filled, used = filled+use.filled, used+use.live
		taken += uint32(len(c.texts.blocks[number]))
	}
	if room := used/3*4 + 2*metric.BlockWords; filled > room || taken > 2*room {
		t.Errorf("contexts of %d words take %d of %d words", used, filled, taken)
	}
}

// What a batch says of its series stays, also while and after the aggregator forgets their
// contexts and puts others into blocks of the same numbers.
func TestBatchKeepsItsContexts(t *testing.T) {
	const n, rounds = 5000, 8 // a round takes more than two blocks
	cfg := DefaultConfig()
	cfg.FlushInterval = time.Second
	cfg.Expiry = ExpiryConfig{Context: time.Second}
	a := newForTest(cfg, 2)
	check := func(round int, b *metric.Batch) {
		got, timed := map[string]bool{}, 0
		for i := range b.Series {
			s := &b.Series[i]
			name := b.Context(s).Name()
			got[name] = true
			if s.Time != 0 {
				timed++
			}
			if want := fmt.Sprintf("round%d.%g", round, s.Value); name != want {
				t.Errorf("a series of %s belongs to %.100q", want, name)
				return
			}
		}
		if len(got) != n || timed != 4 {
			t.Errorf("round %d: %d metrics, %d with a time of their own; want %d and 4", round, len(got), timed, n)
		}
	}
	var batches []*metric.Batch
	var readers sync.WaitGroup
	for round := range rounds {
		for i := range n {
			line := fmt.Sprintf("round%d.%d:%d|g", round, i, i)
			if i >= n-4 {
				line += "|T1700000000" // its context is apart
			}
			a.sendForTest(i%2, line)
		}
		b := a.flusher.flush(time.Unix(int64(round), 0), nil)
		for i, w := range a.workers {
			if !reflect.ValueOf(w.spare.passing).IsZero() {
				t.Errorf("round %d: worker %d keeps the contexts of what it passed on", round, i)
			}
		}
		batches = append(batches, b)
		readers.Go(func() { check(round, b) })
	}
	readers.Wait()
	givenAway := 0 // numbers of blocks
	for round, b := range batches {
		check(round, b)
		numbers := map[uint32]bool{}
		for i := range b.Series[:n-4] {
			numbers[b.Series[i].Context.Block()] = true
		}
		for number := range numbers {
			if now := a.contexts.texts.blocks[number]; now != nil && &now[0] != &b.Contexts.Blocks[number][0] {
				givenAway++
			}
		}
	}
	if givenAway == 0 {
		t.Error("no number of a block was given to another")
	}
}

// A batch has the contexts of all its series, also those that came, in new blocks, while
// it was made.
func TestBatchHasTheLatestContexts(t *testing.T) {
	const senders, n = 2, 1000
	cfg := DefaultConfig()
	cfg.FlushInterval = time.Second
	cfg.Expiry = ExpiryConfig{Context: time.Second}
	a := newForTest(cfg, senders)
	padding := strings.Repeat("x", 2*metric.BlockWords) // bytes: no two contexts are in one block
	var sending sync.WaitGroup
	for sender := range senders {
		sending.Go(func() {
			for i := range n {
				a.sendForTest(sender, fmt.Sprintf("%d%s:%d|g", i*senders+sender, padding, i*senders+sender))
			}
		})
	}
	sent := make(chan struct{})
	go func() { sending.Wait(); close(sent) }()
	came := map[int]bool{}
	for last := false; !last; {
		select {
		case <-sent:
			last = true
		default:
		}
		b := a.flusher.flush(time.Unix(0, 0), nil)
		for i := range b.Series {
			s := &b.Series[i]
			number, rest, _ := strings.Cut(b.Context(s).Name(), "x")
			if number != fmt.Sprint(s.Value) || len(rest) != len(padding)-1 || came[int(s.Value)] {
				t.Fatalf("%v belongs to %q, and came before: %v", s.Value, number, came[int(s.Value)])
			}
			came[int(s.Value)] = true
		}
	}
	if len(came) != senders*n {
		t.Errorf("%d of %d came", len(came), senders*n)
	}
}

// A search that has to go past others finds what it seeks, whatever was removed before.
func TestKeyIndexWithLikeHashes(t *testing.T) {
	var x keyIndex
	random := rand.New(rand.NewPCG(3, 4))
	slots := map[uint32]uint64{}
	check := func() {
		t.Helper()
		if x.count != len(slots) {
			t.Fatalf("%d slots are counted, and there are %d", x.count, len(slots))
		}
		for slot, hash := range slots {
			if id, ok := x.find(hash, func(id slotID) bool { return id.slot == slot }); !ok || id != (slotID{gauges, slot}) {
				t.Fatalf("slot %d with hash %x: got %v, %v", slot, hash, id, ok)
			}
		}
	}
	for slot := range uint32(20_000) {
		// One table, and a few hashes at its end, so that searches wrap around.
		hash := uint64(random.Uint32()) | random.Uint64N(4)<<30
		if random.IntN(3) == 0 {
			hash = 1<<32 - 1 - random.Uint64N(3)
		}
		x.insert(hash, slotID{gauges, slot})
		slots[slot] = hash
		for old, hash := range slots {
			if len(slots) > 60 || random.IntN(3) == 0 {
				x.remove(hash, slotID{gauges, old})
				delete(slots, old)
			} else {
				break
			}
		}
		if slot%64 == 0 {
			check()
		}
	}
	check()
}

// Contexts are no objects each, which the garbage collector would have to look at.
func TestContextsAreFewObjects(t *testing.T) {
	const n = 50_000
	keys := make([][]byte, n)
	for i := range keys {
		keys[i] = metric.AppendContextKey(nil, metric.Gauge, fmt.Appendf(nil, "requests.%d", i), metric.Host{}, nil, nil)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := newContexts(n, 1, newHasher())
	for _, key := range keys {
		if _, made, _ := c.make(gauges, key, 0, nil, 1); !made {
			t.Fatalf("%q is not made", key)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if objects := int(after.HeapObjects) - int(before.HeapObjects); objects > n/10 {
		t.Errorf("%d contexts are %d objects", n, objects)
	}
	if bytes := int(after.HeapAlloc) - int(before.HeapAlloc); bytes > 100*n {
		t.Errorf("a context takes %d bytes", bytes/n)
	}
	runtime.KeepAlive(c)
	runtime.KeepAlive(keys)
}
