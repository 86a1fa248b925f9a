package forwarder

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/metric"
)

// chaosLoad makes batches of which nothing is like anything else.
type chaosLoad struct {
	random *rand.Rand
	made   map[string]bool
	serial int
}

// batch makes a batch with at most so many series.
func (l *chaosLoad) batch(start time.Time, most int) *metric.Batch {
	b := &metric.Batch{Start: start, Interval: 10 * time.Second, AgentHost: "web-1"}
	name := func() string {
		l.serial++
		return fmt.Sprintf("at.%d.%d", start.Unix(), l.serial)
	}
	note := func(kind string, parts ...any) { l.made[fmt.Sprint(append([]any{kind}, parts...)...)] = true }
	for range l.random.IntN(most) {
		name, tag := name(), "padding:"+strconv.FormatUint(l.random.Uint64(), 36)
		value := float64(l.serial) / 8
		b.Add(contextOf(metric.Gauge, name, metric.Host{}, "", tag), metric.Series{Value: value, Type: metric.GaugeType})
		note("series ", name, []string{tag}, start.Unix(), value)
	}
	for range l.random.IntN(most/10 + 1) {
		name, sum := name(), float64(l.serial)
		b.Sketches = append(b.Sketches, metric.SketchPoint{
			Context: contextOf(metric.Distribution, name, metric.Host{}, "", "a:b"),
			Sketch:  metric.Sketch{Count: 1, Min: sum, Max: sum, Sum: sum, Avg: sum, Keys: []int32{1}, Counts: []uint32{1}},
		})
		note("sketch ", name, []string{"a:b"}, start.Unix(), sum)
	}
	for range l.random.IntN(4) {
		name := name()
		b.Events = append(b.Events, metric.Event{Title: name, Text: "t", Time: start.Unix(), Priority: "normal", AlertType: "info"})
		note("event ", name, start.Unix())
	}
	for range l.random.IntN(4) {
		name := name()
		b.Checks = append(b.Checks, metric.ServiceCheck{Name: name, Time: start.Unix()})
		note("check ", name, start.Unix())
	}
	return b
}

// watch looks at the books of whatever forwarder there is all the time, on a clock of
// its own, until the test ends.
func watch(t *testing.T) *atomic.Pointer[Forwarder] {
	var watched atomic.Pointer[Forwarder]
	over := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-over:
				return
			case <-time.After(100 * time.Microsecond):
			}
			f := watched.Load()
			if f == nil {
				continue
			}
			for _, s := range f.Stats() {
				checkIdentity(t, s)
				if in := s.Produced + s.Restored; s.Delivered > in || s.Queued > in || s.Spooled > in || s.DroppedInAll() > in {
					t.Errorf("%s: less than nothing in %+v", s.Name, s)
				}
			}
		}
	})
	t.Cleanup(func() {
		close(over)
		watching.Wait()
	})
	return &watched
}

// chaosRun is a forwarder that runs in a bubble.
type chaosRun struct {
	*Forwarder
	batches chan *metric.Batch
	ended   chan struct{}
	log     *lockedBuffer
}

func runForwarder(t *testing.T, cfg Config, n *chaosNet, room int64) *chaosRun {
	t.Helper()
	cfg.Resolve(Defaults{})
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	r := &chaosRun{batches: make(chan *metric.Batch), ended: make(chan struct{}), log: &lockedBuffer{}}
	f, err := New(cfg, "weir/1.2.3", slog.New(slog.NewTextHandler(r.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	r.Forwarder = f
	for _, d := range f.destinations {
		n.connect(d.(*datadog))
		for _, e := range d.(*datadog).endpoints {
			e.maxBytes = room
		}
	}
	go func() {
		defer close(r.ended)
		f.Run(r.batches)
	}()
	return r
}

// stop ends the run and returns its last account.
func (r *chaosRun) stop() DestinationStats {
	close(r.batches)
	<-r.ended
	return r.Stats()[0]
}

// chaosSeeds returns the seeds to try: that of WEIR_CHAOS_SEED, or so many.
func chaosSeeds(t *testing.T, n int) (seeds []uint64) {
	if text := os.Getenv("WEIR_CHAOS_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("WEIR_CHAOS_SEED: %v", err)
		}
		return []uint64{seed}
	}
	for i := range n {
		seeds = append(seeds, uint64(i+1))
	}
	return seeds
}

// chaosTime returns how long tests of chaos may take, 0 if nobody says.
func chaosTime(t *testing.T) time.Duration {
	text := os.Getenv("WEIR_CHAOS")
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("WEIR_CHAOS: %v", err)
	}
	return d
}

// TestChaos has an intake that fails in every way there is, by a plan that the seed
// decides, and agents that stop and start. At the end every point was accepted once, or
// is counted as dropped; and the books were right at every moment.
//
// WEIR_CHAOS says for how long new seeds are drawn (a duration), WEIR_CHAOS_SEED which one
// is tried.
func TestChaos(t *testing.T) {
	few := 8
	if raceEnabled {
		few = 3
	}
	begun := time.Now()
	lasts := chaosTime(t)
	seen := map[fault]int{}
	points := 0
	seeds := chaosSeeds(t, few)
	for i := 0; i < len(seeds); i++ {
		t.Run(strconv.FormatUint(seeds[i], 10), func(t *testing.T) { points += chaos(t, seeds[i], seen) })
		if lasts > 0 && len(seeds) >= few && i == len(seeds)-1 && time.Since(begun) < lasts {
			seeds = append(seeds, rand.Uint64())
		}
	}
	t.Logf("%d seeds, %d points; %v", len(seeds), points, seen)
}

func chaos(t *testing.T, seed uint64, seen map[fault]int) (points int) {
	random := rand.New(rand.NewPCG(seed, 0))
	protocol := []string{"http", "https", "h2"}[random.IntN(3)]
	spooled := random.IntN(4) > 0
	room := []int64{8 << 10, 100 << 10, defaultMaxQueue}[random.IntN(3)]
	runs := 1 + random.IntN(3)
	plan := forecast(random, time.Duration(1+random.IntN(10))*time.Minute)
	folder := t.TempDir()
	watched := watch(t)
	defer func() {
		if t.Failed() {
			t.Logf("WEIR_CHAOS_SEED=%d: %s, spool %v, %d bytes in memory, %d runs\n%s", seed, protocol, spooled, room, runs, describe(plan))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		n := newChaosNet(t, rand.New(rand.NewPCG(seed, 1)), protocol)
		load := &chaosLoad{random: random, made: map[string]bool{}}
		cfg := toDatadog(n.url())
		cfg.ShutdownTimeout = 10 * time.Second
		cfg.Spool.Enabled, cfg.StateDir, cfg.Spool.MinFree = spooled, folder, 0
		living := make(chan struct{})
		go func() {
			defer close(living)
			n.live(plan)
		}()
		var sum DestinationStats // of what does not go on from run to run
		for i := range runs {
			r := runForwarder(t, cfg, n, room)
			watched.Store(r.Forwarder)
			if got := r.Stats()[0].Restored; got != sum.Spooled {
				t.Errorf("run %d found %d points in the spool, the one before left %d", i, got, sum.Spooled)
			}
			last := i == runs-1
			for range 10 + random.IntN(30) {
				r.batches <- load.batch(time.Now().UTC().Truncate(time.Second), 200)
				time.Sleep(rand2(random, 10*time.Second))
			}
			if last {
				<-living
				// As long as the intake may ask for, and the longest backoff.
				time.Sleep(maxRetryAfter*9/8 + 2*maxBackoff)
				synctest.Wait()
				if s := r.Stats()[0]; s.Queued+s.Spooled > 0 || !s.Healthy {
					t.Errorf("long after the last fault: %+v", s)
				}
			}
			s := r.stop()
			sum.Produced += s.Produced
			sum.Delivered += s.Delivered
			sum.Spooled = s.Spooled
			for why, dropped := range s.Dropped {
				sum.Dropped[why] += dropped
			}
			if t.Failed() {
				t.Log(r.log.String())
			}
		}
		n.end()
		checkContent(t, n, load, &sum, spooled, room)
		for f, requests := range n.seen {
			seen[f] += requests
		}
		points = len(load.made)
	})
	return points
}

// checkContent compares what was produced with what the intake has, and with the books.
func checkContent(t *testing.T, n *chaosNet, load *chaosLoad, sum *DestinationStats, spooled bool, room int64) {
	t.Helper()
	got := n.content()
	for what, times := range got {
		if times != 1 || !load.made[what] {
			t.Errorf("%q was accepted %d times; produced: %v", what, times, load.made[what])
		}
	}
	if produced := uint64(len(load.made)); sum.Produced != produced || sum.Delivered != uint64(len(got)) ||
		sum.Delivered+sum.DroppedInAll() != produced || sum.Spooled != 0 {
		t.Errorf("%d points produced, %d accepted: %+v", produced, len(got), sum)
	}
	why := sum.Dropped
	if why[DroppedRejected] != n.rejected || why[DroppedTooLarge] != n.tooLarge {
		t.Errorf("%d points refused with 400, %d with 413: %+v", n.rejected, n.tooLarge, sum)
	}
	why[DroppedRejected], why[DroppedTooLarge] = 0, 0
	if !spooled {
		why[DroppedShutdown] = 0
	}
	if room < defaultMaxQueue {
		why[DroppedQueueFull] = 0 // the disk may be slower than the batches
	}
	if why != [dropReasons]uint64{} {
		t.Errorf("dropped: %+v", sum)
	}
	if problems := n.intake.Problems(); len(problems) > 0 {
		t.Errorf("the intake says: %q", problems)
	}
}

// filesIn returns the spool's records in a state folder.
func filesIn(t *testing.T, folder string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "spool", "*", "*"+spoolSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// linesWith returns how often a line of the log holds the text.
func linesWith(log *lockedBuffer, text string) int { return strings.Count(log.String(), text) }
