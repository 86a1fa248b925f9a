package forwarder

import (
	"math/rand/v2"
	"runtime"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/weir-agent/weir/metric"
)

// A thousand outages of every kind leave no goroutine, no connection and no memory
// behind. That every goroutine of the bubble ends, synctest sees to. Without WEIR_CHAOS
// there are fewer.
func TestAThousandOutages(t *testing.T) {
	before := goleak.IgnoreCurrent()
	chaosCertificates()
	folder := t.TempDir()
	outages := 200
	if chaosTime(t) > 0 {
		outages = 1000
	} else if raceEnabled {
		outages = 50
	}
	synctest.Test(t, func(t *testing.T) {
		n := newChaosNet(t, rand.New(rand.NewPCG(1, 1)), "https")
		cfg := toDatadog(n.url())
		cfg.Spool.Enabled, cfg.StateDir, cfg.Spool.MinFree = true, folder, 0
		r := runForwarder(t, cfg, n, defaultMaxQueue)
		load := &chaosLoad{random: rand.New(rand.NewPCG(2, 2)), made: map[string]bool{}}
		kinds := []fault{refused, noName, dialHangs, wrongCertificate, cut, answers500, answers404, answers429, resetsInBody, resetsAfterBody, hangs}
		type usage struct{ goroutines, ours, theirs, heap int }
		use := func() (u usage) {
			synctest.Wait()
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			n.mu.Lock()
			defer n.mu.Unlock()
			return usage{runtime.NumGoroutine(), n.dialed, len(n.conns), int(m.HeapAlloc)}
		}
		var early usage
		for i := range outages {
			how := kinds[i%len(kinds)]
			if how < cut {
				n.set(weather{fault: cut, share: 1})
			}
			n.set(weather{fault: how, share: 1})
			r.batches <- load.batch(time.Now().UTC().Truncate(time.Second), 3)
			time.Sleep(25 * time.Second)
			n.set(weather{})
			time.Sleep(35 * time.Second)
			if s := r.Stats()[0]; !s.Healthy || s.Queued+s.Spooled > 0 {
				t.Fatalf("after outage %d (%v): %+v", i, how, s)
			}
			// What the test remembers is no leak.
			n.forget()
			clear(load.made)
			r.log.forget()
			if i == outages/10 {
				early = use()
			}
		}
		late := use()
		const slack = 8
		if late.goroutines > early.goroutines+slack || late.ours > defaultConcurrency+1 || late.theirs > defaultConcurrency+1 || late.heap > early.heap+256<<10 {
			t.Errorf("after %d outages %+v, after %d %+v", outages/10, early, outages, late)
		}
		t.Logf("after %d outages %+v, after %d %+v (bytes of heap)", outages/10, early, outages, late)
		r.stop()
		n.end()
		if late := use(); late.ours+late.theirs > 0 {
			t.Errorf("at the end: %+v", late)
		}
	})
	goleak.VerifyNone(t, before)
}

// With a dead intake and 200 thousand contexts in every flush, memory is what the queue
// may take and a constant.
func TestMemoryWithADeadIntake(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	const (
		contexts = 200_000
		constant = 24 << 20 // what a batch is encoded in, and compressed, and read ahead
	)
	b := metric.Batch{Interval: time.Second, AgentHost: "web-1"}
	for i := range contexts {
		c := contextOf(metric.Gauge, "requests."+strconv.Itoa(i%1000), metric.Host{}, "", "user:"+strconv.Itoa(i), "env:prod")
		b.Add(c, metric.Series{Type: metric.GaugeType})
	}
	heap := func() int {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	for _, spooled := range []bool{false, true} {
		t.Run("spool "+strconv.FormatBool(spooled), func(t *testing.T) {
			folder := t.TempDir()
			watched := watch(t)
			synctest.Test(t, func(t *testing.T) {
				n := newChaosNet(t, rand.New(rand.NewPCG(1, 1)), "http")
				n.set(weather{fault: refused, share: 1})
				cfg := toDatadog(n.url())
				cfg.ShutdownTimeout = time.Second
				cfg.Spool.Enabled, cfg.StateDir, cfg.Spool.MinFree, cfg.Spool.MaxBytes = spooled, folder, 0, 32<<20
				r := runForwarder(t, cfg, n, defaultMaxQueue)
				watched.Store(r.Forwarder)
				idle, most := heap(), 0
				random := rand.New(rand.NewPCG(1, 1))
				flushes := uint64(0)
				for i := 0; r.Stats()[0].DroppedInAll() == 0 || i < 30; i++ {
					for i := range b.Series {
						b.Series[i].Value = random.Float64()
					}
					batch := b
					batch.Start = time.Now().UTC()
					r.batches <- &batch
					flushes++
					time.Sleep(time.Second)
					synctest.Wait() // nobody reads the values any more
					if i%5 == 0 {
						most = max(most, heap()-idle)
					}
				}
				most = max(most, heap()-idle)
				s := r.Stats()[0]
				t.Logf("%d flushes: %d MiB of heap; %+v", flushes, most>>20, s)
				if most > defaultMaxQueue+constant {
					t.Errorf("%d MiB of heap, and the queue may take %d", most>>20, defaultMaxQueue>>20)
				}
				if s.Produced != flushes*contexts || s.DroppedInAll() == 0 || spooled != (s.Spooled > 0) {
					t.Errorf("after %d flushes: %+v", flushes, s)
				}
				watched.Store(nil)
				r.stop()
				n.end()
			})
		})
	}
}
