package cardinality_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/metric"
)

// folded returns which keys are folded in the series of a metric.
func foldedKeys(b *metric.Batch, name string) []string {
	keys := map[string]bool{}
	for _, tags := range series(b, name) {
		for tag := range strings.SplitSeq(tags, ",") {
			if key, ok := strings.CutSuffix(tag, ":_other_"); ok {
				keys[key] = true
			}
		}
	}
	var all []string
	for key := range keys {
		all = append(all, key)
	}
	slices.Sort(all)
	return all
}

// Exactly the keys that are to blame are folded, however many, in one go.
func TestOnlyGuiltyKeysAreFolded(t *testing.T) {
	ten := func(i int) string {
		line := fmt.Sprintf("a:1|c|#endpoint:/e%d,env:prod", i%30)
		for k := range 10 {
			line += fmt.Sprintf(",id%d:%s", k, uuid())
		}
		return line
	}
	tests := map[string]struct {
		lines int
		line  func(i int) string
		want  string // keys
		most  int    // series after the fold
	}{
		"one": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#endpoint:/e%d,status:%d,user:%s", i%30, i%3, uuid())
		}, "user", 30},
		"two": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s,request:%s", i%30, uuid(), uuid())
		}, "request user", 30},
		"three": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#endpoint:/e%d,user:%s,request:%s,session:%s", i%30, uuid(), uuid(), uuid())
		}, "request session user", 30},
		"ten": {5000, ten, "id0 id1 id2 id3 id4 id5 id6 id7 id8 id9", 30},
		"correlated": {5000, func(i int) string {
			id := uuid()
			return fmt.Sprintf("a:1|c|#endpoint:/e%d,request_id:%s,trace_id:x%s", i%30, id, id)
		}, "request_id trace_id", 30},
		"below the limit": {990, func(i int) string {
			return fmt.Sprintf("a:1|c|#endpoint:/e%d,status:%d,region:r%d", i%33, i/33%5, i/165)
		}, "", 990},
		"just above the limit": {1050, func(i int) string {
			return fmt.Sprintf("a:1|c|#endpoint:/e%d,status:%d,region:r%d", i%42, i/42%5, i/210)
		}, "endpoint", 21 * 25},
		"many values of two keys": {100_000, func(i int) string {
			return fmt.Sprintf("a:1|c|#a:%d,b:%d", i*7919%100_000/300, i*7919%300)
		}, "a", 750}, // b alone is no trouble: rather fewer values of a keep their series
		"protected": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#service:%s,endpoint:/e%d", uuid(), i%30)
		}, "", 1000},
		"host": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#host:%s,endpoint:/e%d", uuid(), i%30)
		}, "", 30},
		"device": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#device:%s,endpoint:/e%d", uuid(), i%30)
		}, "", 30},
		"without a key": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#%s,endpoint:/e%d", uuid(), i%30)
		}, "", 30},
		"keys": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#%s:1,endpoint:/e%d", uuid(), i%30)
		}, "_other_", 30 + 64},
		"several values": {5000, func(i int) string {
			return fmt.Sprintf("a:1|c|#user:%s,user:%s,endpoint:/e%d,user2:x", uuid(), uuid(), i%30)
		}, "user", 30},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				var b *metric.Batch
				for round := range 3 {
					for i := range test.lines {
						w.send(test.line(i))
					}
					b = w.flush()
					// Each decision later than the first may have let as many in again.
					decided := w.logged("folded a tag key") + w.logged("lose their own series")
					if n := len(series(b, "a")); round == 0 && n > 1000*max(1, decided)+test.most {
						t.Errorf("%d series in the first interval", n)
					}
				}
				got := series(b, "a")
				if keys := strings.Join(foldedKeys(b, "a"), " "); keys != test.want || len(got) > test.most {
					t.Errorf("folded %q, %d series; want %q, %d at most\n%s\n%s", keys, len(got), test.want, test.most, strings.Join(got[:min(10, len(got))], "\n"), w.log.String())
				}
			})
		})
	}
}

// The values that come often keep their series, whenever they came first; those that
// were there first do not, and none comes and goes.
func TestFrequentValuesKeepTheirSeries(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.sendN(2000, func(int) string { return "a:1|c|#user:" + uuid() })
		w.flush()
		var last []string
		for round := range 30 {
			for i := range 2000 {
				w.send("a:1|c|#user:" + uuid())
				if i%4 == 0 {
					w.send(fmt.Sprintf("a:1|c|#user:frequent%d", i/4%5))
				}
			}
			got := series(w.flush(), "a")
			if round > 2 && (len(got) != 6 || !slices.Equal(got, last) && last != nil) {
				t.Fatalf("round %d: series %v, before %v; want five frequent ones and the others", round, got, last)
			}
			if round > 2 {
				last = got
			}
		}
	})
}

// Values that were frequent before the attack keep their series through it.
func TestValuesFromBeforeKeepTheirSeries(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		honest := func() {
			for i := range 15 {
				w.send(fmt.Sprintf("a:1|c|#user:known%d", i))
			}
		}
		for range 5 {
			honest()
			w.flush()
		}
		for round := range 20 {
			honest()
			w.sendN(3000, func(int) string { return "a:1|c|#user:" + uuid() })
			got := series(w.flush(), "a")
			known := 0
			for _, tags := range got {
				if strings.Contains(tags, "known") {
					known++
				}
			}
			if known != 15 || round > 1 && len(got) != 16 {
				t.Fatalf("round %d: %d of 15 values have their series, %d series", round, known, len(got))
			}
		}
	})
}

// All kinds but gauges merge what they fold: nothing is lost or counted twice.
func TestKindsFoldExactly(t *testing.T) {
	for kind, want := range map[string]float64{"h": 6000, "ms": 6000, "d": 6000, "s": 3000} {
		t.Run(kind, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				total := 0.0
				for round := range 2 {
					w.sendN(3000, func(i int) string { return fmt.Sprintf("a:%d|%s|#user:%s", i, kind, uuid()) })
					b := w.flush()
					if round == 1 && len(series(b, "a")) > 1 && kind != "s" {
						t.Errorf("%d series in the second interval", len(series(b, "a")))
					}
					for i := range b.Series {
						switch s := &b.Series[i]; {
						case s.Suffix == ".count":
							total += s.Value * interval.Seconds()
						case kind == "s" && round == 1:
							total += s.Value
						}
					}
					for i := range b.Sketches {
						total += float64(b.Sketches[i].Sketch.Count)
					}
				}
				if int(total+0.5) != int(want) {
					t.Errorf("%v came out, want %v", total, want)
				}
			})
		})
	}
}

// Gauges of further contexts are refused and counted; those there are stay. With
// latest they are folded.
func TestGauges(t *testing.T) {
	for _, policy := range []string{"refuse", "latest"} {
		t.Run(policy, func(t *testing.T) {
			inWorld(t, func(c *cardinality.Config) { c.Gauges = policy }, func(w *world) {
				w.send("a:7|g|#user:known")
				w.sendN(3000, func(int) string { return "a:1|g|#user:" + uuid() })
				w.send("a:8|g|#user:known")
				b := w.flush()
				refused := w.aggregator.Stats().Refused[metric.MetricLimit]
				n := len(series(b, "a"))
				if policy == "refuse" {
					if n != 1000 || refused != 2001 || !slices.Contains(series(b, "a"), "user:known") {
						t.Errorf("%d series and %d samples refused, want 1000 and 2001", n, refused)
					}
					if got := decisions(b); len(got) != 1 || got[0] != "refuse user" {
						t.Errorf("decided %v", got)
					}
					return
				}
				w.sendN(3000, func(int) string { return "a:1|g|#user:" + uuid() })
				if got := series(w.flush(), "a"); refused != 0 || len(got) != 1 {
					t.Errorf("%d refused, series %v", refused, got)
				}
			})
		})
	}
}
