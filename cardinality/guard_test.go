package cardinality_test

import (
	"fmt"
	"strings"
	"testing"
)

// A tag that explodes is found by name and folded, and only that; when it is gone, so
// is the fold, within the window.
func TestGuiltyKeyIsFoldedAndLifted(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		honest := func() {
			for i := range 50 {
				w.send(fmt.Sprintf("web.requests:1|c|#env:prod,endpoint:/e%d,status:%d", i, 200+i%3))
			}
		}
		honest()
		before := series(w.flush(), "web.requests")
		attacked := func() {
			w.sendN(20_000, func(i int) string {
				return fmt.Sprintf("web.requests:1|c|#env:prod,endpoint:/e%d,status:%d,user_id:%s", i%50, 200+i%50%3, uuid())
			})
			honest()
		}
		attacked()
		b := w.flush()
		if got := decisions(b); len(got) != 1 || got[0] != "fold user_id" {
			t.Errorf("decided %v, want to fold user_id", got)
		}
		if n := w.logged("key=user_id"); n != 1 {
			t.Errorf("the log names the key %d times:\n%s", n, w.log.String())
		}
		if n := len(series(b, "web.requests")); n > 1100 {
			t.Errorf("%d series in the interval in which the attack began", n)
		}
		for range 3 {
			attacked()
			b = w.flush()
		}
		got := series(b, "web.requests")
		folded := 0
		for _, tags := range got {
			if strings.Contains(tags, "user_id:_other_") {
				folded++
			}
		}
		if folded != 50 || len(got) != 100 {
			t.Errorf("%d series, %d of them folded, want 100 and 50:\n%s", len(got), folded, strings.Join(got, "\n"))
		}
		lifted := 0
		for lifted = 1; len(decisions(b)) == 0; lifted++ {
			honest()
			if b = w.flush(); lifted > 100 {
				t.Fatal("the fold is not lifted")
			}
		}
		if got := decisions(b); got[0] != "lift user_id" || lifted > 61 {
			t.Errorf("decided %v after %d intervals, want to lift the fold within 60", got, lifted)
		}
		honest()
		w.flush()
		honest()
		if got := series(w.flush(), "web.requests"); strings.Join(got, "\n") != strings.Join(before, "\n") {
			t.Logf("%d series after the attack, %d before", len(got), len(before))
		}
	})
}
