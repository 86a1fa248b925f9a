package cardinality_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/metric"
)

// nonZero counts the series of a metric that are not sent as zero.
func nonZero(b *metric.Batch, name string) (n int) {
	for i := range b.Series {
		if s := &b.Series[i]; b.Context(s).Name() == name && s.Value != 0 {
			n++
		}
	}
	return n
}

// A tag that grows by a few values an interval, for hours, reaches the limit of the
// window or does not, whatever the total is.
func TestSteadyGrowth(t *testing.T) {
	for _, test := range []struct {
		perInterval int
		folds       bool
	}{
		{12, false}, // 720 in ten minutes
		{30, true},  // 1,800
	} {
		t.Run(fmt.Sprint(test.perInterval), func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				const hours = 4
				most, folds, lifts := 0, 0, 0
				for range hours * 360 {
					w.sendN(test.perInterval, func(i int) string {
						return fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s", i%6, uuid())
					})
					b := w.flush()
					for _, d := range decisions(b) {
						switch d {
						case "fold user":
							folds++
						case "lift user":
							lifts++
						default:
							t.Errorf("decided %s", d)
						}
					}
					most = max(most, len(series(b, "a")))
				}
				if test.folds && (folds != 1 || lifts != 0 || most > 1000) || !test.folds && folds+lifts != 0 {
					t.Errorf("%d folds, %d lifts, %d series at most", folds, lifts, most)
				}
			})
		})
	}
}

// Contexts that come back after they were forgotten are counted once.
func TestContextsThatComeBackCountOnce(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for round := range 90 {
			if round%40 == 0 { // every 400 s; they are forgotten after 300 s
				w.sendN(800, func(i int) string { return fmt.Sprintf("a:1|c|#user:%d", i) })
			}
			if got := decisions(w.flush()); len(got) > 0 {
				t.Fatalf("interval %d: decided %v about 800 contexts", round, got)
			}
		}
	})
}

// A key that explodes, is gone and comes back is folded, lifted and folded again, and
// never has more contexts than the limit.
func TestKeyThatComesBack(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		var all []string
		honest := func() {
			for i := range 10 {
				w.send(fmt.Sprintf("a:1|c|#endpoint:/e%d", i))
			}
		}
		for range 3 {
			for i := range 80 {
				honest()
				if i < 10 {
					w.sendN(3000, func(i int) string { return fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s", i%10, uuid()) })
				}
				b := w.flush()
				all = append(all, decisions(b)...)
				if n := nonZero(b, "a"); n > 1020 || i > 1 && n > 20 {
					t.Fatalf("%d series after %d intervals", n, i)
				}
			}
		}
		want := []string{"fold user", "lift user", "fold user", "lift user", "fold user", "lift user"}
		if !slices.Equal(all, want) {
			t.Errorf("decided %v, want %v", all, want)
		}
	})
}

// Honest values that are many, and stay, stay folded: their demand is there though no
// context is new.
func TestManyHonestValuesDoNotFlap(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		var all []string
		for range 150 {
			w.sendN(1500, func(i int) string { return fmt.Sprintf("a:1|c|#user:u%d", i) })
			all = append(all, decisions(w.flush())...)
		}
		if !slices.Equal(all, []string{"fold user"}) {
			t.Errorf("decided %v, want one fold", all)
		}
	})
}

// With observe nothing changes and everything is told; with drop further contexts are
// refused, and admitted again when there is room.
func TestObserveAndDrop(t *testing.T) {
	attack := func(i int) string { return fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s", i%10, uuid()) }
	t.Run("observe", func(t *testing.T) {
		inWorld(t, func(c *cardinality.Config) { c.Overflow = "observe" }, func(w *world) {
			w.sendN(3000, attack)
			b := w.flush()
			if n := len(series(b, "a")); n != 3000 {
				t.Errorf("%d series, want all 3000", n)
			}
			if got := decisions(b); !slices.Equal(got, []string{"would_fold user"}) {
				t.Errorf("decided %v", got)
			}
			var later []string
			for range 100 {
				later = append(later, decisions(w.flush())...)
			}
			if len(later) != 0 || w.logged("would no longer fold") != 1 {
				t.Errorf("decided %v later\n%s", later, w.log.String())
			}
		})
	})
	t.Run("drop", func(t *testing.T) {
		inWorld(t, func(c *cardinality.Config) { c.Overflow = "drop" }, func(w *world) {
			w.sendN(3000, attack)
			b := w.flush()
			if n := len(series(b, "a")); n != 1000 || w.aggregator.Stats().Refused[metric.MetricLimit] != 2000 {
				t.Errorf("%d series and %d samples refused, want 1000 and 2000", n, w.aggregator.Stats().Refused[metric.MetricLimit])
			}
			if got := decisions(b); !slices.Equal(got, []string{"refuse user"}) {
				t.Errorf("decided %v", got)
			}
			var later []string
			for range 70 {
				later = append(later, decisions(w.flush())...)
			}
			w.send("a:1|c|#endpoint:/e1,user:later")
			if b := w.flush(); nonZero(b, "a") != 1 || !slices.Equal(later, []string{"end_refuse"}) {
				t.Errorf("a later context got no series, or it was decided %v", later)
			}
		})
	})
}

// An agent that is restarted in the middle of an attack admits no burst: its folds and
// their frequent values are in force at once, and are lifted in their time.
func TestRestartInMidAttack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "state", "cardinality.json")
		cfg := cardinality.DefaultConfig()
		cfg.MaxContextsPerMetric = 1000
		attack := func(w *world) *metric.Batch {
			for i := range 3000 {
				w.send(fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s", i%10, uuid()))
				if i%10 == 0 {
					w.send("a:1|c|#endpoint:/e1,user:frequent")
				}
			}
			return w.flush()
		}
		first := newWorld(t, cfg, file)
		near := func(w *world) {
			w.sendN(900, func(int) string { return "near:1|c|#user:" + uuid() })
		}
		near(first)
		for range 5 {
			attack(first)
		}
		first.stop()
		first.checkTotals()
		if err := first.guard.Save(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("the state is %v, %v", info, err)
		}

		told := cardinality.New(cfg, slog.New(slog.DiscardHandler))
		if err := told.Load(file); err != nil {
			t.Fatal(err)
		}
		text := strings.Join(told.Explain(&metric.Candidate{
			Kind: metric.Counter, Name: []byte("a"), Tags: [][]byte{[]byte("endpoint:/e1"), []byte("user:x")},
		}), "\n")
		if !strings.Contains(text, "user:x becomes user:_other_") || !strings.Contains(text, "frequent") {
			t.Errorf("a line is explained by\n%s", text)
		}

		time.Sleep(15 * time.Second)
		second := newWorld(t, cfg, file)
		near(second)
		b := attack(second)
		if got := series(b, "a"); len(got) != 11 || !slices.Contains(got, "endpoint:/e1,user:frequent") {
			t.Errorf("after the restart there are %d series, want 10 folded and a frequent one: %.300q", len(got), got)
		}
		if n := len(series(b, "near")); n > 300 {
			t.Errorf("%d contexts of a metric near its limit were admitted, want about 100", n)
		}
		lifted := 0
		for ; second.logged("no longer folded") == 0 && lifted < 100; lifted++ {
			second.flush()
		}
		if lifted > 61 {
			t.Errorf("the fold is lifted after %d intervals, want 60 at most", lifted)
		}
		second.stop()
		second.checkTotals()
	})
}

// A damaged file is set aside, and nothing else happens.
func TestDamagedState(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":99}`, `{"version":1,"metrics":[{"name":"a","kind":77}]}`, `{"version":1,"metrics":[{"name":"a","kind":1,"contexts":"AAAA"}]}`} {
		synctest.Test(t, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "cardinality.json")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			w := newWorld(t, cardinality.DefaultConfig(), file)
			w.stop()
			if aside, err := os.ReadFile(file + ".damaged"); err != nil || string(aside) != text || w.logged("damaged") == 0 {
				t.Errorf("%q was not set aside: %q, %v", text, aside, err)
			}
		})
	}
}

// When the whole agent is near its limit the largest metrics pay, and not those that
// come late.
func TestTheLargestPayForTheWholeAgent(t *testing.T) {
	inWorld(t, func(c *cardinality.Config) { c.MaxContexts, c.MaxContextsPerMetric = 10_000, 5000 }, func(w *world) {
		var b *metric.Batch
		for range 8 {
			for m := range 4 {
				w.sendN(2400, func(i int) string { return fmt.Sprintf("large%d:1|c|#user:u%d", m, i) })
			}
			for m := range 100 {
				w.sendN(5, func(i int) string { return fmt.Sprintf("small%d:1|c|#x:%d", m, i) })
			}
			b = w.flush()
		}
		for m := range 100 {
			if n := len(series(b, fmt.Sprintf("small%d", m))); n != 5 {
				t.Fatalf("a small metric has %d series, want 5", n)
			}
		}
		folded := 0
		for m := range 4 {
			if len(foldedKeys(b, fmt.Sprintf("large%d", m))) > 0 {
				folded++
			}
		}
		if s := w.aggregator.Stats(); folded == 0 || s.Contexts > 9000 || s.Refused[metric.ContextLimit] > 200 {
			t.Errorf("%d of 4 large metrics are folded, there are %d contexts, %d samples were refused", folded, s.Contexts, s.Refused[metric.ContextLimit])
		}
	})
}

// Identifiers in names are nobody's tag: the limit of the whole agent holds, and the
// log says what to look for.
func TestNamesThatExplode(t *testing.T) {
	inWorld(t, func(c *cardinality.Config) { c.MaxContexts = 5000 }, func(w *world) {
		var text strings.Builder
		for range 3 {
			w.sendN(4000, func(int) string { return "a." + uuid() + ":1|c" })
			for _, e := range w.flush().Events {
				text.WriteString(e.Text)
			}
		}
		s := w.aggregator.Stats()
		if s.Contexts > 5000 || s.Refused[metric.ContextLimit] == 0 || !strings.Contains(text.String(), "too many names") {
			t.Errorf("%d contexts, %d samples refused, events %q", s.Contexts, s.Refused[metric.ContextLimit], text.String())
		}
	})
}

// Limits that are lowered and raised while the agent runs hold from the next interval
// on.
func TestLimitsChangeWhileRunning(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		send := func() *metric.Batch {
			w.sendN(800, func(i int) string { return fmt.Sprintf("a:1|c|#user:u%d", i) })
			return w.flush()
		}
		cfg := cardinality.DefaultConfig()
		set := func(limit int, overflow string) {
			cfg.MaxContextsPerMetric, cfg.Overflow = limit, overflow
			w.guard.SetConfig(cfg)
			for range 3 {
				send()
			}
		}
		for _, step := range []struct {
			limit    int
			overflow string
			series   int
		}{
			{1000, "fold", 800},
			{100, "fold", 1},
			{2000, "fold", 800},
			{300, "fold", 1},
			{300, "observe", 800},
			{300, "fold", 1},
		} {
			set(step.limit, step.overflow)
			got := 0
			for _, tags := range series(send(), "a") {
				if step.series == 1 || !strings.Contains(tags, "_other_") {
					got++
				}
			}
			// Of values that are all as frequent some keep their series.
			if got != step.series && (step.series != 1 || got > 21) {
				t.Errorf("with a limit of %d and %s there are %d series, want %d\n%s", step.limit, step.overflow, got, step.series, w.log.String())
			}
		}
	})
}
