package cardinality_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/metric"
)

// thoughtful is a guard that finds no answer until it may.
type thoughtful struct {
	*cardinality.Guard
	may chan struct{} // closed: it may
}

func (g *thoughtful) SetMembers(members func(metric.Kind, uint32, func(metric.Member))) {
	g.Guard.SetMembers(func(kind metric.Kind, number uint32, yield func(metric.Member)) {
		<-g.may
		members(kind, number, yield)
	})
}

// inThoughtfulWorld runs a test in a world with a guard that runs. think lets it think
// until the func it returns is called.
func inThoughtfulWorld(t *testing.T, change func(*cardinality.Config), test func(w *world, think func() (end func()))) {
	inWorld(t, change, func(w *world) {
		g := &thoughtful{Guard: w.guard, may: make(chan struct{})}
		close(g.may)
		w.aggregator.SetGuard(g)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			w.guard.Run(ctx)
			close(ended)
		}()
		synctest.Wait()
		test(w, func() func() {
			g.may = make(chan struct{})
			return func() { close(g.may) }
		})
		stop()
		<-ended
	})
}

// Samples that come while it is decided what to fold count in their interval, of every
// kind and in their order, and where they would if it had been decided at once; what has
// nothing to do with it counts meanwhile.
func TestSamplesWaitForAFold(t *testing.T) {
	change := func(cfg *cardinality.Config) { cfg.Gauges = cardinality.GaugesLatest }
	inThoughtfulWorld(t, change, func(w *world, think func() func()) {
		kinds := map[string]string{"c": "c", "ms": "ms", "d": "d", "s": "s", "g": "g"}
		const before, meanwhile = 999, 3000
		line := func(kind string, i int) string {
			if kind == "d" {
				return fmt.Sprintf("metric.%s:%d:%d|%s|#env:prod,user:%s", kind, i, 2*i, kind, uuid())
			}
			return fmt.Sprintf("metric.%s:%d|%s|#env:prod,user:%s", kind, i, kind, uuid())
		}
		w.sendN(before, func(i int) string {
			for kind := range kinds {
				w.send(line(kind, i))
			}
			return "other:1|c"
		})
		decide := think()
		for i := range meanwhile {
			for kind := range kinds {
				w.send(line(kind, before+i))
			}
			w.send(fmt.Sprintf("new.%d:1|c", i%100))
		}
		synctest.Wait()
		if s := w.aggregator.Stats(); s.Contexts > len(kinds)*1000+101 || s.Resolved < 100 {
			t.Errorf("%d contexts while it is undecided what to fold; %d identities were resolved", s.Contexts, s.Resolved)
		}
		decide()
		b := w.flush()
		for kind := range kinds {
			name := "metric." + kind
			all := series(b, name)
			if len(all) < 900 || len(all) > 1001 || !slices.Contains(all, "env:prod,user:_other_") {
				t.Errorf("%s has %d series, and the folded one among them: %v", name, len(all), slices.Contains(all, "env:prod,user:_other_"))
			}
		}
		folded := map[string]float64{}
		for i := range b.Series {
			s := &b.Series[i]
			c := b.Context(s)
			if name, _ := strings.CutPrefix(c.Name(), "metric."); strings.HasSuffix(c.Key(), "user:_other_") {
				folded[name+s.Suffix.String()] = s.Value
			}
		}
		own := func(kind string) int { return len(series(b, "metric."+kind)) - 1 }
		const n = before + meanwhile
		if got, want := folded["g"], float64(n-1); got != want {
			t.Errorf("the folded gauge is %v, want the last value, %v", got, want)
		}
		if got, want := folded["s"], float64(n-own("s")); got < want*0.99 || got > want*1.01 {
			t.Errorf("the folded set has %v members, want %v", got, want)
		}
		if got, want := folded["ms.count"]*interval.Seconds(), float64(n-own("ms")); got != want {
			t.Errorf("the folded timer has %v samples, want %v", got, want)
		}
		if got, want := folded["ms.max"], float64(n-1); got != want {
			t.Errorf("the folded timer's largest is %v, want %v", got, want)
		}
		count := int64(0)
		for i := range b.Sketches {
			count += b.Sketches[i].Sketch.Count
		}
		if want := int64(2 * n); count != want {
			t.Errorf("distributions have %d samples, want %d", count, want)
		}
		if got := len(decisions(b)); got != len(kinds) {
			t.Errorf("%d decisions, want %d", got, len(kinds))
		}
	})
}

// A metric that folding does not help refuses what waited, and no more is lost than that.
func TestSamplesWaitForARefusal(t *testing.T) {
	change := func(cfg *cardinality.Config) { cfg.Protect = []string{"user"} }
	inThoughtfulWorld(t, change, func(w *world, think func() func()) {
		decide := think()
		w.sendN(3000, func(int) string { return "a:1|c|#user:" + uuid() })
		synctest.Wait()
		if n := w.aggregator.Stats().Refused[metric.MetricLimit]; n != 0 {
			t.Errorf("%d samples are refused before it is decided", n)
		}
		decide()
		b := w.flush()
		refused := w.aggregator.Stats().Refused[metric.MetricLimit]
		if n := len(series(b, "a")); n < 950 || n > 1050 || refused != uint64(3000-n) {
			t.Errorf("%d series, and %d samples are refused", n, refused)
		}
		if got := decisions(b); !slices.Equal(got, []string{"refuse"}) && !slices.Equal(got, []string{"refuse user"}) {
			t.Errorf("decisions: %v", got)
		}
	})
}

// What waits is bounded: beyond it samples are refused, and counted, and other metrics are
// as they were.
func TestWaitingIsBounded(t *testing.T) {
	inThoughtfulWorld(t, nil, func(w *world, think func() func()) {
		decide := think()
		long := strings.Repeat("x", 4000)
		const lines = 9000 // 36 MB
		w.sendN(lines, func(int) string { return "a:1|c|#long:" + long + ",user:" + uuid() })
		w.send("b:1|c|#user:1")
		refused := w.aggregator.Stats().Refused[metric.MetricLimit]
		if refused < lines/4 || refused > lines*3/4 {
			t.Errorf("%d of %d samples are refused", refused, lines)
		}
		decide()
		b := w.flush()
		if len(series(b, "b")) != 1 {
			t.Error("another metric has no series")
		}
		if s := w.aggregator.Stats(); s.Refused[metric.MetricLimit] != refused || w.got["a"] != float64(lines-refused) {
			t.Errorf("%v of %d counted, and %d are refused", w.got["a"], lines, s.Refused[metric.MetricLimit])
		}
		w.sendN(100, func(int) string { return "a:1|c|#long:" + long + ",user:" + uuid() })
		w.flush()
		if got, want := w.got["a"], float64(lines-refused+100); got != want {
			t.Errorf("%v counted after the decision, want %v", got, want)
		}
	})
}

// A metric that needs a second key folded while its first is folded waits again.
func TestSamplesWaitForADeeperFold(t *testing.T) {
	inThoughtfulWorld(t, nil, func(w *world, think func() func()) {
		w.sendN(2000, func(int) string { return "a:1|c|#user:" + uuid() })
		synctest.Wait()
		if got := decisions(w.flush()); !slices.Equal(got, []string{"fold user"}) {
			t.Fatalf("decisions: %v", got)
		}
		w.flush()
		decide := think()
		w.sendN(3000, func(int) string { return "a:1|c|#session:" + uuid() + ",user:" + uuid() })
		synctest.Wait()
		decide()
		b := w.flush()
		if all := series(b, "a"); !slices.Contains(all, "session:_other_,user:_other_") || len(all) > 1050 {
			t.Errorf("%d series: %.200s", len(all), strings.Join(all, " "))
		}
		if got := decisions(b); !slices.Equal(got, []string{"deeper_fold session"}) {
			t.Errorf("decisions: %v", got)
		}
	})
}

// A gauge that waits does not take the place of a later value.
func TestLaterGaugesWaitToo(t *testing.T) {
	change := func(cfg *cardinality.Config) { cfg.Gauges = cardinality.GaugesLatest }
	inThoughtfulWorld(t, change, func(w *world, think func() func()) {
		decide := think()
		w.sendN(1500, func(i int) string { return fmt.Sprintf("a:%d|g|#user:%s", i, uuid()) })
		decide()
		synctest.Wait()
		// Each line lets some go on that wait: not all of them have.
		w.send("a:7|g|#user:" + uuid())
		var last float64
		b := w.flush()
		for i := range b.Series {
			if s := &b.Series[i]; strings.HasSuffix(b.Context(s).Key(), "user:_other_") {
				last = s.Value
			}
		}
		if last != 7 {
			t.Errorf("the folded gauge is %v, want the last value, 7", last)
		}
	})
}
