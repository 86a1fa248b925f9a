package forwarder

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// During an outage of half an hour everything is kept, with what it does to the disk;
// of one and a half hours, what the intake would not take any more is dropped and
// counted. After either, fresh points arrive within one flush; the backlog arrives
// oldest first and by turns with what is fresh, in as many requests at once as are
// configured, and nothing older than the intake's hour is sent.
func TestAfterAnOutage(t *testing.T) {
	for _, test := range []struct {
		outage time.Duration
		how    fault
		room   int64
		often  bool // also without WEIR_CHAOS
	}{
		{30 * time.Minute, refused, defaultMaxQueue, true},
		{30 * time.Minute, dialHangs, 20 << 10, true},
		{30 * time.Minute, answers503, defaultMaxQueue, false},
		{30 * time.Minute, resetsInBody, defaultMaxQueue, false},
		{90 * time.Minute, wrongCertificate, 20 << 10, false},
		{90 * time.Minute, noName, defaultMaxQueue, false},
		{90 * time.Minute, answers404, defaultMaxQueue, true},
	} {
		t.Run(fmt.Sprint(test.outage, " ", test.how), func(t *testing.T) {
			if raceEnabled && test.outage > time.Hour {
				t.Skip("it takes a minute under the race detector")
			}
			if !test.often && chaosTime(t) == 0 {
				t.Skip("WEIR_CHAOS is not set")
			}
			t.Parallel()
			afterOutage(t, test.outage, test.how, test.room)
		})
	}
}

func afterOutage(t *testing.T, outage time.Duration, how fault, room int64) {
	const (
		flush   = 10 * time.Second
		latency = 50 * time.Millisecond
	)
	folder := t.TempDir()
	watched := watch(t)
	chaosCertificates()
	synctest.Test(t, func(t *testing.T) {
		n := newChaosNet(t, rand.New(rand.NewPCG(1, 1)), "https")
		n.latency = latency
		load := &chaosLoad{random: rand.New(rand.NewPCG(2, 2)), made: map[string]bool{}}
		cfg := toDatadog(n.url())
		cfg.Spool.Enabled, cfg.StateDir, cfg.Spool.MinFree = true, folder, 0
		r := runForwarder(t, cfg, n, room)
		watched.Store(r.Forwarder)
		flushes := func(lasts time.Duration) {
			for end := time.Now().Add(lasts); time.Now().Before(end); time.Sleep(flush) {
				r.batches <- load.batch(time.Now().UTC().Add(-flush), 50)
			}
		}
		flushes(time.Minute)
		if how < cut {
			n.set(weather{fault: cut}) // first, as it is new connections that go wrong
		}
		n.set(weather{fault: how, share: 1})
		time.Sleep(3 * time.Second)
		flushes(outage)
		n.mu.Lock()
		n.top = 0
		before := len(n.arrivals)
		n.mu.Unlock()
		recovery := time.Now()
		n.set(weather{})
		flushes(5 * time.Minute)
		s := r.stop()
		n.end()
		defer func() {
			if t.Failed() && os.Getenv("WEIR_CHAOS_LOG") != "" {
				t.Log("recovery at", recovery, r.log.String())
			}
		}()

		arrivals := n.arrivals[before:]
		slices.SortStableFunc(arrivals, func(a, b arrival) int { return a.at.Compare(b.at) })
		old := map[string][]arrival{} // by route
		fresh := time.Duration(-1)
		for _, a := range arrivals {
			if a.at.Sub(a.start) > oldestPoints+latency {
				t.Errorf("points of %v were sent at %v", a.start, a.at)
			}
			if a.start.Before(recovery.Add(-2 * flush)) {
				old[a.path] = append(old[a.path], a)
			} else if fresh < 0 {
				fresh = a.at.Sub(recovery)
			}
		}
		if fresh < 0 || fresh > flush {
			t.Errorf("fresh points arrived %v after the intake was back, and a flush is %v", fresh, flush)
		}
		if n.top > defaultConcurrency || n.top < 2 {
			t.Errorf("%d requests at once, want no more than %d", n.top, defaultConcurrency)
		}
		// Some are read from the spool and sent at the same time, and the probe was one of
		// the freshest.
		for path, old := range old {
			disorder := 0
			for i := 1; i < len(old); i++ {
				if old[i].start.Before(old[i-1].start.Add(-2 * defaultConcurrency * flush)) {
					disorder++
				}
			}
			if disorder > 2 || len(old) < 120 {
				t.Errorf("%s: of %d old payloads %d came behind newer ones", path, len(old), disorder)
			}
		}
		tooOld := s.Dropped[DroppedTooOld]
		if (tooOld > 0) != (outage > oldestPoints) || tooOld != s.DroppedInAll() {
			t.Errorf("dropped: %+v", s)
		}
		if s.Delivered+tooOld != uint64(len(load.made)) {
			t.Errorf("%d points produced: %+v", len(load.made), s)
		}
		for what, times := range n.content() {
			if times != 1 || !load.made[what] {
				t.Errorf("%q was accepted %d times", what, times)
			}
		}
	})
}
