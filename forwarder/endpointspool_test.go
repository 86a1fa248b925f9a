package forwarder

import (
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// tryWithSpool is try with a spool, in which a test may have put something.
func tryWithSpool(t *testing.T, answer func(*payload) error, records ...*record) *trial {
	t.Helper()
	account := &books{}
	cfg := testSpoolConfig(t)
	cfg.Lost = account.lost
	s := mustOpenSpool(t, cfg)
	for _, r := range records {
		account.restored(r.points)
	}
	mustPut(t, s, records...)
	return try(t, s, account, answer)
}

// failing returns an answer that is an error for as long as fails.
func failing(err error) (fails *atomic.Bool, answer func(*payload) error) {
	fails = &atomic.Bool{}
	fails.Store(true)
	return fails, func(*payload) error {
		if fails.Load() {
			return err
		}
		return nil
	}
}

// Payloads on disk of a route that nobody answers do not hold up those of the others
// that lie behind them, nor does one that always fails.
func TestADeadRouteDoesNotHoldUpTheSpool(t *testing.T) {
	for name, fails := range map[string]func(p *payload) bool{
		"dead routes":                 func(p *payload) bool { return p.route != &seriesRoute },
		"some payloads of each route": func(p *payload) bool { return p.points == 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var records []*record
				const n = 6 * defaultConcurrency
				dead := []*route{&sketchRoute, &checkRoute, &eventRoute}
				for i := range 2 * n {
					r := small(1, time.Now().Add(time.Duration(i)*time.Second-10*time.Minute))
					r.route = seriesRoute.path
					if i < n {
						r.route, r.points = dead[i*len(dead)/n].path, 1000
					}
					records = append(records, r)
				}
				r := tryWithSpool(t, func(p *payload) error {
					if fails(p) {
						return answered(500)
					}
					return nil
				}, records...)
				time.Sleep(10 * time.Minute)
				if s := r.check(t); s.Delivered != n {
					t.Errorf("%d points are not held up: %+v", n, s)
				}
				if all, _ := r.intake.seen(); len(all) > 1000 {
					t.Errorf("%d requests", len(all))
				}
				time.Sleep(oldestPoints)
				if s := r.check(t); s.Dropped[DroppedTooOld] != 1000*n {
					t.Errorf("an hour later: %+v", s)
				}
				r.end()
			})
		})
	}
}

// What is on disk is delivered as soon as the other side may be back, even if nothing new
// comes that would ask.
func TestASpooledPayloadIsTriedAgain(t *testing.T) {
	for name, err := range map[string]error{"one route fails": answered(500), "nothing works": errors.New("no network")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fails, answer := failing(err)
				start := time.Now()
				r := tryWithSpool(t, answer, small(1, start), small(2, start), small(3, start))
				time.Sleep(maxPause / 4)
				if r.check(t).Retries == 0 {
					t.Fatal("nothing was tried")
				}
				fails.Store(false)
				time.Sleep(maxPause)
				if s := r.check(t); s.Delivered != 6 {
					t.Errorf("a pause later: %+v", s)
				}
				r.end()
			})
		})
	}
}

// A payload that always fails is tried less and less, whatever else does well; also when it
// is on disk, and when it goes there meanwhile.
func TestASpooledPayloadThatAlwaysFails(t *testing.T) {
	for _, spooled := range []bool{true, false} {
		t.Run("spooled from the beginning "+strconv.FormatBool(spooled), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tried := 0
				answer := func(p *payload) error {
					if p.points != 1000 {
						return nil
					}
					tried++ // one at a time
					return answered(500)
				}
				var r *trial
				if spooled {
					r = tryWithSpool(t, answer, small(1000, time.Now()))
				} else {
					r = tryWithSpool(t, answer)
					r.give(1000, time.Now(), 100)
				}
				const minutes = 20
				for i := range minutes * 60 {
					r.give(1, time.Now(), 100)
					time.Sleep(time.Second)
					if i == 60 && tried > 9 {
						t.Errorf("tried %d times in a minute", tried)
					}
				}
				if s := r.check(t); tried < minutes/2 || tried > 8+2*minutes || s.Delivered < 60*minutes-64 || s.Spooled != 1000 {
					t.Errorf("tried %d times in %d minutes: %+v", tried, minutes, s)
				}
				r.end()
			})
		})
	}
}

// Who looks at the books, and who adds payloads, does not wait for a disk that hangs.
func TestNobodyWaitsForTheDisk(t *testing.T) {
	for name, test := range map[string]struct {
		answer error
		age    time.Duration
	}{
		"refused":      {answered(400), 0},
		"of no route":  {nil, 0},
		"tried enough": {answered(500), oldestPoints - 10*time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			d := newMemDisk(modelFolder)
			cfg := defaultSpoolConfig(modelFolder)
			cfg.MinFree = 0
			s, err := openSpoolOn(d, cfg, discard())
			if err != nil {
				t.Fatal(err)
			}
			one := small(7, time.Now().Add(-test.age))
			if name == "of no route" {
				one.route = "/nowhere"
			}
			mustPut(t, s, one)
			hanging, goOn := make(chan struct{}), make(chan struct{})
			d.before = func(step, path string) {
				if step == "remove" {
					d.before = nil
					close(hanging)
					<-goOn
				}
			}
			account := &books{}
			account.restored(7)
			r := try(t, s, account, func(p *payload) error {
				if p.points == 7 {
					return test.answer
				}
				return nil
			})
			<-hanging
			looked := make(chan struct{})
			go func() {
				defer close(looked)
				account.snapshot()
				r.give(1, time.Now(), 10)
			}()
			select {
			case <-looked:
			case <-time.After(30 * time.Second):
				t.Error("the books wait for the disk")
			}
			close(goOn)
			<-looked
			r.end()
			if s := r.check(t); s.DroppedInAll() != 7 || s.Delivered+s.Spooled != 1 {
				t.Errorf("stats = %+v", s)
			}
		})
	}
}

// In an outage a payload goes to disk after a while, and not before; what is fresh is
// still in memory for the probe.
func TestWhatWaitsGoesToDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails, answer := failing(errors.New("connection refused"))
		r := tryWithSpool(t, answer)
		r.give(1, time.Now(), 100)
		time.Sleep(r.after - time.Second)
		r.give(2, time.Now(), 100)
		synctest.Wait()
		if s := r.check(t); s.Queued != 3 {
			t.Errorf("before: %+v", s)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if s := r.check(t); s.Spooled != 1 || s.Queued != 2 {
			t.Errorf("after: %+v", s)
		}
		fails.Store(false)
		time.Sleep(2 * maxPause)
		if s := r.check(t); s.Delivered != 3 {
			t.Errorf("at the end: %+v", s)
		}
		r.end()
	})
}

// While the key is refused for hours there is one request a minute, and points get lost
// by their age only.
func TestARefusedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails, answer := failing(answered(403))
		r := tryWithSpool(t, answer)
		const hours = 2
		for range hours * 120 {
			r.give(1, time.Now(), 100)
			time.Sleep(30 * time.Second)
		}
		s := r.check(t)
		if left := s.Produced - s.DroppedInAll(); left < 118 || left > 122 || s.Dropped[DroppedTooOld] != s.DroppedInAll() {
			t.Errorf("after %d hours: %+v", hours, s)
		}
		if all, _ := r.intake.seen(); len(all) > hours*60+1 {
			t.Errorf("%d requests in %d hours", len(all), hours)
		}
		fails.Store(false)
		time.Sleep(blockedPause + time.Minute)
		if got := r.check(t); got.Queued+got.Spooled != 0 || got.Delivered < 115 {
			t.Errorf("with the key right again: %+v", got)
		}
		r.end()
	})
}

// After the clock was set back, points come from the future; they are delivered, from
// memory and from disk.
func TestPointsFromTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fails, answer := failing(errors.New("connection refused"))
		r := tryWithSpool(t, answer)
		r.give(1, time.Now().Add(3*time.Hour), 100)
		time.Sleep(time.Minute)
		r.give(2, time.Now().Add(2*time.Hour), 100)
		r.give(4, time.Now(), 100)
		fails.Store(false)
		time.Sleep(time.Minute)
		if s := r.check(t); s.Delivered != 7 {
			t.Errorf("stats = %+v", s)
		}
		r.end()
	})
}
