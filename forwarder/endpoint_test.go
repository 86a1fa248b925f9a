package forwarder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/metric"
)

// fakeIntake answers an endpoint's requests as a test says, on the clock of a synctest
// bubble.
type fakeIntake struct {
	answer func(p *payload) error
	takes  time.Duration // a request

	mu       sync.Mutex // guards the fields below
	sent     []sent     // in order of their beginnings
	now, top int        // requests at once
}

type sent struct {
	at    time.Duration // since the endpoint began
	start time.Time
	ok    bool
}

func (f *fakeIntake) post(ctx context.Context, p *payload, begun time.Time) error {
	f.mu.Lock()
	f.now++
	f.top = max(f.top, f.now)
	i := len(f.sent)
	f.sent = append(f.sent, sent{time.Since(begun), p.start, false})
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.now--
	}()
	if err := pause(ctx, f.takes); err != nil {
		return err
	}
	err := f.answer(p)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent[i].ok = err == nil
	return err
}

// seen returns the requests so far, and how many there were at once.
func (f *fakeIntake) seen() (all []sent, top int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.sent), f.top
}

func answered(status int) error { return &refusedError{status: status} }

// trial is an endpoint that runs.
type trial struct {
	*endpoint
	intake *fakeIntake
	begun  time.Time
	ended  chan struct{}
	cancel context.CancelFunc
}

func try(t *testing.T, s *spool, account *books, answer func(*payload) error) *trial {
	t.Helper()
	r := &trial{
		endpoint: newEndpoint("datadog", account, discard()),
		intake:   &fakeIntake{answer: answer, takes: 10 * time.Millisecond},
		begun:    time.Now(),
		ended:    make(chan struct{}),
	}
	r.spool, r.hasten, r.after = s, 5*time.Second, 15*time.Second
	r.post = func(ctx context.Context, p *payload) error { return r.intake.post(ctx, p, r.begun) }
	account.status = r.status
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.ended)
		r.run(ctx)
		account.abandon()
	}()
	return r
}

// give hands over a payload of the series route.
func (r *trial) give(points uint64, start time.Time, body int) {
	r.account.produced(points)
	r.add(payload{route: &seriesRoute, body: make([]byte, body), points: points, start: start})
}

func (r *trial) end() {
	r.finish()
	<-r.ended
	r.cancel()
}

func (r *trial) check(t *testing.T) DestinationStats {
	t.Helper()
	s := r.account.snapshot()
	checkIdentity(t, s)
	return s
}

// await waits until so many points are delivered.
func (r *trial) await(t *testing.T, points uint64) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); r.check(t).Delivered < points; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("not delivered: %+v; %+v, read %d, busy %d, lanes %+v", r.account.s, r.whole, r.read, r.busy, r.lanes)
		}
	}
}

func checkIdentity(t *testing.T, s DestinationStats) {
	t.Helper()
	if s.Produced+s.Restored != s.Delivered+s.Queued+s.Spooled+s.DroppedInAll() {
		t.Errorf("%s: produced %d + restored %d != delivered %d + queued %d + spooled %d + dropped %v",
			s.Name, s.Produced, s.Restored, s.Delivered, s.Queued, s.Spooled, s.Dropped)
	}
}

// What is tried again and what is not, and when.
func TestFateOfEachAnswer(t *testing.T) {
	for _, test := range []struct {
		name        string
		err         error
		least, most time.Duration // of the pause; 0: it is not tried again
	}{
		{"400", answered(400), 0, 0},
		{"403", answered(403), blockedPause, blockedPause},
		{"404", answered(404), firstBackoff / 2, firstBackoff},
		{"302", answered(302), firstBackoff / 2, firstBackoff},
		{"408", answered(408), firstBackoff / 2, firstBackoff},
		{"429", answered(429), firstBackoff / 2, firstBackoff},
		{"429 with Retry-After", &refusedError{status: 429, retryAfter: 40 * time.Second}, 40 * time.Second, 45 * time.Second},
		{"503 with Retry-After", &refusedError{status: 503, retryAfter: 40 * time.Second}, 40 * time.Second, 45 * time.Second},
		{"500", answered(500), firstBackoff / 2, firstBackoff},
		{"network", errors.New("connection refused"), firstBackoff / 2, firstBackoff},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := false
				r := try(t, nil, &books{}, func(*payload) error {
					if failed {
						return nil
					}
					failed = true
					return test.err
				})
				r.give(7, time.Now(), 10)
				synctest.Wait()
				time.Sleep(20 * time.Millisecond)
				synctest.Wait()
				s := r.check(t)
				if again := test.most > 0; again != (s.Queued == 7) || again == s.Healthy {
					t.Errorf("after the answer: %+v", s)
				}
				r.end()
				s = r.check(t)
				if test.most == 0 {
					if s.Dropped[DroppedRejected] != 7 {
						t.Errorf("stats = %+v", s)
					}
					return
				}
				all, _ := r.intake.seen()
				pause := all[1].at - all[0].at - r.intake.takes
				if s.Delivered != 7 || s.Retries != 1 || pause < test.least || pause > test.most {
					t.Errorf("after %v: %+v", pause, s)
				}
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0": 0, "-3": 0, "soon": 0, "3600": maxRetryAfter, "99999999999999999999": 0,
		"18446744073709551615":          maxRetryAfter,
		"Sat, 21 Nov 2026 10:00:30 GMT": 30 * time.Second,
		"Sat, 21 Nov 2026 09:00:30 GMT": 0,
		"Sun, 22 Nov 2026 09:00:30 GMT": maxRetryAfter,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// While the other side is away there is one probe at a time, after pauses that
// stay shorter than a flush interval; the
// first that does well brings all senders back. Then fresh payloads go by turns with the
// oldest.
func TestAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const outage = 30 * time.Minute
		begun := time.Now()
		r := try(t, nil, &books{}, func(*payload) error {
			if time.Since(begun) < outage {
				return errors.New("no route to host")
			}
			return nil
		})
		flushes := 0
		for ; time.Since(r.begun) < outage; flushes++ {
			r.give(1, time.Now(), 1000)
			time.Sleep(10 * time.Second)
			r.check(t)
		}
		during, top := r.intake.seen()
		if len(during) < 220 || len(during) > 460 || top != 1 {
			t.Errorf("%d requests during the outage, %d at once", len(during), top)
		}
		for i, s := range during[1:] {
			// One that failed before comes behind one that did not.
			if s.start.Before(during[i].start.Add(-time.Minute)) {
				t.Errorf("probe %d is not of the freshest payloads", i+1)
			}
		}
		time.Sleep(2 * maxBackoff)
		synctest.Wait()
		all, top := r.intake.seen()
		after := slices.DeleteFunc(all, func(s sent) bool { return !s.ok })
		if top != defaultConcurrency {
			t.Errorf("%d requests at once after the outage, want %d", top, defaultConcurrency)
		}
		// The probe is fresh, then the turns begin.
		var fresh, old []time.Time
		for _, s := range after[:20] {
			if s.start.After(r.begun.Add(outage / 2)) {
				fresh = append(fresh, s.start)
			} else {
				old = append(old, s.start)
			}
		}
		if len(fresh) < 9 || len(old) < 9 {
			t.Errorf("of the first 20 are %d fresh and %d old", len(fresh), len(old))
		}
		if !slices.IsSortedFunc(old, time.Time.Compare) {
			t.Errorf("not the oldest first: %v", old)
		}
		r.end()
		if s := r.check(t); s.Delivered != uint64(flushes) {
			t.Errorf("%d flushes, %+v", flushes, s)
		}
	})
}

// A payload that always fails does not keep the others from being delivered.
func TestOnePayloadThatAlwaysFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := try(t, nil, &books{}, func(p *payload) error {
			if p.points == 100 {
				return answered(500)
			}
			return nil
		})
		r.give(100, time.Now(), 10)
		for range 200 {
			r.give(1, time.Now(), 10)
		}
		time.Sleep(time.Minute)
		if s := r.check(t); s.Delivered != 200 || s.Queued != 100 {
			t.Errorf("stats = %+v", s)
		}
		time.Sleep(oldestPoints + 2*maxBackoff)
		if s := r.check(t); s.Dropped[DroppedTooOld] != 100 {
			t.Errorf("stats = %+v", s)
		}
		if all, _ := r.intake.seen(); len(all) > 200+120 {
			t.Errorf("%d requests", len(all))
		}
		r.end()
	})
}

// With a dead intake memory is bounded: the oldest go to the spool, and are delivered
// when the intake is back.
func TestOverflowGoesToTheSpool(t *testing.T) {
	account := &books{}
	cfg := testSpoolConfig(t)
	cfg.Lost = account.lost
	s := mustOpenSpool(t, cfg)
	var mu sync.Mutex
	dead := true
	delivered := map[uint64]bool{}
	r := try(t, s, account, func(p *payload) error {
		mu.Lock()
		defer mu.Unlock()
		if dead {
			return errors.New("connection refused")
		}
		if delivered[p.points] {
			t.Errorf("payload %d was delivered twice", p.points)
		}
		delivered[p.points] = true
		return nil
	})
	const n, size = 40, 4 << 20
	begun := time.Now().Add(-n * time.Second)
	for i := range n {
		r.give(uint64(i+1), begun.Add(time.Duration(i)*time.Second), size)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // as slow as the disk
			r.mu.Lock()
			low := r.bytes <= r.spoolAbove()
			r.mu.Unlock()
			checkIdentity(t, account.snapshot())
			if low {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("nothing goes to the spool any more: %+v; %+v", account.snapshot(), s.stats())
			}
		}
	}
	stats := r.check(t)
	if stats.DroppedInAll() != 0 || stats.Spooled == 0 || stats.Healthy {
		t.Errorf("with a dead intake: %+v", stats)
	}
	if oldest := s.stats().Oldest; oldest.After(begun.Add(time.Second)) {
		t.Errorf("the oldest in the spool is of %v, the oldest of all of %v", oldest, begun)
	}
	mu.Lock()
	dead = false
	mu.Unlock()
	r.await(t, n*(n+1)/2)
	r.end()
	if stats := r.check(t); stats.Queued+stats.Spooled != 0 {
		t.Errorf("at the end: %+v", stats)
	}
}

// Without a spool, or with one that takes nothing, the oldest are dropped under the
// reason why.
func TestOverflowIsCounted(t *testing.T) {
	for name, test := range map[string]struct {
		spool func(t *testing.T, account *books) *spool
		want  DropReason
	}{
		"no spool": {func(*testing.T, *books) *spool { return nil }, DroppedQueueFull},
		"full": {func(t *testing.T, account *books) *spool {
			cfg := testSpoolConfig(t)
			cfg.MinFree, cfg.Lost = 1<<60, account.lost
			return mustOpenSpool(t, cfg)
		}, DroppedSpoolFull},
	} {
		t.Run(name, func(t *testing.T) {
			account := &books{}
			r := try(t, test.spool(t, account), account, func(*payload) error { return errors.New("connection refused") })
			for i := range 30 {
				r.give(1, time.Now().Add(time.Duration(i)*time.Millisecond), 4<<20)
				checkIdentity(t, account.snapshot())
				for r.spool != nil && i == 13 && r.spool.stats().Refused == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			s := r.check(t)
			if s.Queued > 15+defaultConcurrency || s.Dropped[test.want] < 15-defaultConcurrency || s.Dropped[test.want] != s.DroppedInAll() {
				t.Errorf("stats = %+v", s)
			}
			r.cancel()
			<-r.ended
			if s := r.check(t); s.Dropped[DroppedShutdown] == 0 || s.Queued != 0 {
				t.Errorf("at the end: %+v", s)
			}
		})
	}
}

// What is not delivered at the end is delivered by the next run, once.
func TestRestartDeliversTheBacklog(t *testing.T) {
	cfg := testSpoolConfig(t)
	first := &books{}
	cfg.Lost = first.lost
	r := try(t, mustOpenSpool(t, cfg), first, func(*payload) error { return errors.New("connection refused") })
	const n = 20
	for i := range n {
		r.give(uint64(i+1), time.Now(), 1000)
	}
	r.end()
	s := r.check(t)
	if s.Spooled != n*(n+1)/2 || s.Queued != 0 || s.DroppedInAll() != 0 {
		t.Fatalf("after the first run: %+v", s)
	}

	second := &books{}
	cfg.Lost = second.lost
	reopened := mustOpenSpool(t, cfg)
	second.restored(reopened.stats().Recovered)
	var mu sync.Mutex
	got := map[uint64]int{}
	r = try(t, reopened, second, func(p *payload) error {
		mu.Lock()
		defer mu.Unlock()
		got[p.points]++
		return nil
	})
	r.await(t, n*(n+1)/2)
	r.end()
	for i := range n {
		if got[uint64(i+1)] != 1 {
			t.Errorf("payload %d was delivered %d times", i+1, got[uint64(i+1)])
		}
	}
	if s := r.check(t); s.Restored != n*(n+1)/2 || s.Spooled != 0 {
		t.Errorf("after the second run: %+v", s)
	}
}

// At the end a request that hangs is given up in time for the spool.
func TestTheEndDoesNotWaitForOneThatHangs(t *testing.T) {
	account := &books{}
	cfg := testSpoolConfig(t)
	cfg.Lost = account.lost
	r := try(t, mustOpenSpool(t, cfg), account, func(*payload) error { return nil })
	r.hasten = 10 * time.Millisecond
	r.intake.takes = time.Hour
	for range 10 {
		r.give(1, time.Now(), 100)
	}
	r.end()
	if s := r.check(t); s.Spooled != 10 {
		t.Errorf("stats = %+v", s)
	}
}

// exampleOfMany is a batch with several of everything.
func exampleOfMany() *metric.Batch {
	b := &metric.Batch{Start: time.Now(), Interval: 10 * time.Second, AgentHost: "web-1"}
	for i := range 21 {
		name := fmt.Sprintf("a <%d> \"b\"", i)
		b.Add(contextOf(metric.Gauge, name, metric.Host{}, "", "a:b"), metric.Series{Value: float64(i), Type: metric.GaugeType})
		b.Sketches = append(b.Sketches, metric.SketchPoint{
			Context: contextOf(metric.Distribution, name, metric.Host{}, ""), Sketch: metric.Sketch{Count: 1, Keys: []int32{0}, Counts: []uint32{1}},
		})
		b.Events = append(b.Events, metric.Event{Title: name, Text: "t", SourceType: []string{"", "x", "y<"}[i%3]})
		b.Checks = append(b.Checks, metric.ServiceCheck{Name: name})
	}
	return b
}

// A payload that is too large for the intake arrives in parts; one point that is too
// large alone is dropped and named.
func TestTooLargeIsSplit(t *testing.T) {
	for _, compression := range compressions {
		t.Run(compression, func(t *testing.T) {
			b := exampleOfMany()
			const monster = "the.monster"
			b.Series[7].Context = b.Contexts.Add(contextOf(metric.Gauge, monster, metric.Host{}, ""))
			p, err := newPacker(compression, discard())
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			items := map[string]int{}
			log := &lockedBuffer{}
			r := try(t, nil, &books{}, nil)
			r.log = slog.New(slog.NewTextHandler(log, nil))
			r.intake.answer = func(p *payload) error {
				raw, err := decompress(p.encoding, p.body, maxRecordBody)
				if err != nil {
					t.Error(err)
				}
				c, err := unpack(p.route, raw)
				if err != nil || uint64(len(c.items)) != p.points {
					t.Errorf("%d items, %d points, %v", len(c.items), p.points, err)
				}
				if len(c.items) > 3 || strings.Contains(string(raw), monster) {
					return answered(http.StatusRequestEntityTooLarge)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, one := range c.items {
					items[p.route.path+" "+itemName(p.route, one.raw)]++
				}
				return nil
			}
			r.account.produced(b.Points())
			p.pack(b, r.add, r.account.dropped)
			r.end()
			for name, n := range items {
				if n != 1 || strings.HasSuffix(name, " ") {
					t.Errorf("%q arrived %d times", name, n)
				}
			}
			if s := r.check(t); len(items) != int(b.Points())-1 || s.Delivered != b.Points()-1 || s.Dropped[DroppedTooLarge] != 1 {
				t.Errorf("%d items of %d arrived; %+v", len(items), b.Points(), s)
			}
			if !strings.Contains(log.String(), monster) {
				t.Errorf("the log does not name the point:\n%s", log)
			}
		})
	}
}
