package cardinality_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/metric"
)

// Values get their own series only where the limit leaves room for all of their contexts.
func TestKeptValuesTakeNoRoomOfOthers(t *testing.T) {
	for _, limit := range []int{1, 2, 10, 1000} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			inWorld(t, func(c *cardinality.Config) { c.MaxContextsPerMetric = limit }, func(w *world) {
				endpoints := 50
				if limit < 100 {
					endpoints = 1
				}
				var b *metric.Batch
				var all []string
				for range 100 {
					for i := range 3000 {
						w.send(fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s", i%endpoints, uuid()))
						w.send(fmt.Sprintf("a:1|c|#endpoint:/e%d,user:u%d", i%endpoints, i/50%30))
					}
					b = w.flush()
					all = append(all, decisions(b)...)
				}
				got := series(b, "a")
				want := "fold user"
				if limit == 1 { // one series is left if all keys are folded
					want = "fold endpoint fold user"
				}
				if strings.Join(all, " ") != want || len(got) > limit {
					t.Errorf("decided %q, %d series", all, len(got))
				}
				if n := w.aggregator.Stats().Refused[metric.MetricLimit]; n > 0 {
					t.Errorf("%d refused", n)
				}
				if limit == 1000 && len(got) < 10*endpoints {
					t.Errorf("%d series: values that came often have none", len(got))
				}
			})
		})
	}
}

// Values that turn out to have more contexts than there is room for lose their series
// before another key is folded.
func TestKeptValuesGoBeforeAnotherKeyIsFolded(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		var all []string
		var b *metric.Batch
		for round := range 120 {
			endpoints := 3 // of a frequent value; later all of them
			if round > 40 {
				endpoints = 100
			}
			for i := range 3000 {
				w.send(fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s", i%3, uuid()))
				w.send(fmt.Sprintf("a:1|c|#endpoint:/e%d,user:u%d", i/20%endpoints, i%20))
			}
			b = w.flush()
			all = append(all, decisions(b)...)
		}
		if got := series(b, "a"); len(all) != 1 || len(got) > 1000 || len(got) < 100 {
			t.Errorf("decided %q, %d series", all, len(got))
		}
		if w.logged("lose their own series") != 1 {
			t.Errorf("it is logged %d times", w.logged("lose their own series"))
		}
	})
}

// A reload that changes no limit changes no fold, even one that new limits would end.
func TestTheSameLimitsChangeNothing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.sendN(1500, func(int) string { return "a:1|c|#user:" + uuid() })
		w.flush()
		for range 80 { // wants more than half of the limit, and less than three quarters
			w.sendN(650, func(i int) string { return fmt.Sprintf("a:1|c|#user:u%d", i) })
			w.flush()
		}
		cfg := cardinality.DefaultConfig()
		cfg.MaxContextsPerMetric = 1000
		w.guard.SetConfig(cfg)
		if got := decisions(w.flush()); len(got) != 0 {
			t.Errorf("decided %q", got)
		}
		cfg.MaxContextsPerMetric = 1001
		w.guard.SetConfig(cfg)
		if got := decisions(w.flush()); len(got) != 1 {
			t.Errorf("decided %q, want to lift the fold", got)
		}
	})
}

// A reload that gives all metrics another tag makes twice as many contexts for a while,
// and is no reason to fold one; what explodes then is folded all the same.
func TestRenamedContextsAreNoAttack(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		send := func(rounds int) {
			for range rounds {
				w.sendN(900, func(i int) string { return fmt.Sprintf("a:1|c|#user:u%d", i) })
				if got := decisions(w.flush()); len(got) != 0 {
					t.Fatalf("decided %q", got)
				}
			}
		}
		send(20)
		for i := range 2 {
			w.config.Tags = []string{fmt.Sprintf("reload:%d", i)}
			w.aggregator.Reconfigure(w.config, nil)
			send(120)
		}
		w.sendN(3000, func(int) string { return "a:1|c|#user:" + uuid() })
		if got := decisions(w.flush()); len(got) != 1 || got[0] != "fold user" {
			t.Errorf("decided %q, want to fold user", got)
		}
	})
}

// A rule for some tags limits the contexts with these tags, and no others; what it says
// holds from the next interval on.
func TestARuleForSomeTagsLimitsOnlyThese(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		budget := &metric.Budget{Part: "env:dev", MaxContexts: 50}
		w.aggregator.SetRules(func() aggregator.Treat {
			return func(id *metric.Identity, to *metric.Treatment) {
				if bytes.Contains(bytes.Join(id.Tags, []byte{','}), []byte("env:dev")) {
					to.Budget = budget
				}
			}
		})
		send := func() *metric.Batch {
			for i := range 600 {
				w.send(fmt.Sprintf("a:1|c|#env:prod,user:u%d", i))
				w.send(fmt.Sprintf("a:1|c|#env:dev,user:u%d", i))
			}
			return w.flush()
		}
		count := func(b *metric.Batch, env string) (n, other int) {
			for _, tags := range series(b, "a") {
				if strings.Contains(tags, env) {
					n++
					if strings.Contains(tags, "_other_") {
						other++
					}
				}
			}
			return n, other
		}
		var b *metric.Batch
		for range 5 {
			b = send()
		}
		if n, other := count(b, "env:prod"); n != 600 || other != 0 {
			t.Errorf("%d series of env:prod, %d folded; want 600 and none", n, other)
		}
		if n, other := count(b, "env:dev"); n > 50 || other != 1 {
			t.Errorf("%d series of env:dev, %d folded; want 50 at most and one", n, other)
		}
		budget = nil
		w.aggregator.Reconfigure(w.config, func() aggregator.Treat {
			return func(id *metric.Identity, to *metric.Treatment) {
				to.Budget = &lowered
			}
		})
		for range 4 {
			w.sendN(600, func(i int) string { return fmt.Sprintf("a:1|c|#env:prod,user:u%d", i) })
			b = w.flush()
		}
		if n, _ := count(b, "env:prod"); n > 100 {
			t.Errorf("%d series with a lower limit of a rule, want 100 at most", n)
		}
	})
}

var lowered = metric.Budget{MaxContexts: 100}

// What a metric belongs to is no tag that could be folded, alone or with rare keys.
func TestResourcesAreNotFolded(t *testing.T) {
	inWorld(t, func(c *cardinality.Config) { c.Protect = nil }, func(w *world) {
		for range 2 {
			for i := range 2000 {
				w.send(fmt.Sprintf("a:1|c|#dd.internal.resource:pod:%s", uuid()))
				w.send(fmt.Sprintf("b:1|c|#dd.internal.resource:pod:p%d,%s:1", i%5, uuid()))
			}
			w.flush()
		}
		w.sendN(100, func(i int) string { return fmt.Sprintf("b:1|c|#dd.internal.resource:pod:p%d,%s:1", i%5, uuid()) })
		b := w.flush()
		if keys := foldedKeys(b, "a"); len(keys) > 0 {
			t.Errorf("%q are folded", keys)
		}
		for _, tags := range series(b, "b") {
			if !strings.Contains(tags, "dd.internal.resource:pod:p") {
				t.Errorf("a series has the tags %q", tags)
			}
		}
	})
}

// Keys with odd names are keys like others; very long ones are told apart from none.
func TestOddKeysAreFolded(t *testing.T) {
	long := strings.Repeat("k", 1000)
	for key, want := range map[string]string{"*": "*:_other_", ":": "_other_", "_other_": "_other_:_other_", "a.b-c": "a.b-c:_other_", long: "_other_:_other_"} {
		t.Run(key[:min(len(key), 10)], func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				var got []string
				for range 3 {
					w.sendN(3000, func(i int) string { return fmt.Sprintf("a:1|c|#endpoint:/e%d,%s:%s", i%5, key, uuid()) })
					got = series(w.flush(), "a")
				}
				if n := w.aggregator.Stats().Refused[metric.MetricLimit]; n > 0 || len(got) != 5 {
					t.Errorf("%d samples refused, %d series: %.300q", n, len(got), got)
				}
				for _, tags := range got {
					if !strings.Contains(","+tags+",", ","+want+",") {
						t.Errorf("a series has the tags %.200q, want %s", tags, want)
					}
				}
			})
		})
	}
}

// With observe a metric of which further contexts would be refused is told as such, and
// gauges are not told to be folded.
func TestObserveTellsWhatWouldBeRefused(t *testing.T) {
	for line, want := range map[string]string{
		"a:1|g|#user:%s":    "would_refuse user",
		"a:1|c|#service:%s": "would_refuse",
	} {
		inWorld(t, func(c *cardinality.Config) { c.Overflow = "observe" }, func(w *world) {
			var all []string
			for range 20 {
				w.sendN(1500, func(int) string { return fmt.Sprintf(line, uuid()) })
				b := w.flush()
				all = append(all, decisions(b)...)
				if n := nonZero(b, "a"); n != 1500 {
					t.Fatalf("%d series, want 1500", n)
				}
			}
			if strings.Join(all, ", ") != want {
				t.Errorf("%s: decided %q, want %q once", line, all, want)
			}
			for range 70 {
				w.flush()
			}
			if w.logged("would no longer refuse") != 1 {
				t.Errorf("its end is not told:\n%s", w.log.String())
			}
		})
	}
}
