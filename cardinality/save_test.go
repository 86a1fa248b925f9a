package cardinality_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/cardinality"
)

// What is near its limit is saved from time to time, what was decided at once, and all of
// it at the end; when there is nothing to remember, there is no file.
func TestRunSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "state", "cardinality.json")
		cfg := cardinality.DefaultConfig()
		cfg.MaxContextsPerMetric = 1000
		w := newWorld(t, cfg, file)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			w.guard.Run(ctx)
			close(ended)
		}()
		saved := func() []byte {
			synctest.Wait()
			text, _ := os.ReadFile(file)
			return text
		}

		w.sendN(600, func(i int) string { return fmt.Sprintf("near:1|c|#user:%d", i) })
		if saved() != nil {
			t.Error("it is saved before anything was decided")
		}
		for range 4 {
			w.flush()
		}
		first := saved()
		if !bytes.Contains(first, []byte("near")) {
			t.Errorf("after 40 s the file has no metric near its limit: %.200s", first)
		}
		w.sendN(1500, func(int) string { return "a:1|c|#user:" + uuid() })
		if text := saved(); !bytes.Contains(text, []byte(`"key":"user"`)) {
			t.Errorf("a fold is not saved at once: %.200s", text)
		}
		w.sendN(300, func(i int) string { return fmt.Sprintf("near:1|c|#user:%d", 600+i) })
		before := saved()
		cancel()
		<-ended
		if after := saved(); bytes.Equal(before, after) {
			t.Error("what came last is not saved at the end")
		}
		w.stop()
	})
}

// When nothing is near its limit any more, the file goes away.
func TestStateOfNothingIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cardinality.json")
		cfg := cardinality.DefaultConfig()
		cfg.MaxContextsPerMetric = 1000
		w := newWorld(t, cfg, file)
		w.sendN(600, func(i int) string { return fmt.Sprintf("near:1|c|#user:%d", i) })
		if err := w.guard.Save(); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			w.flush()
		}
		err := w.guard.Save()
		if _, missing := os.Stat(file); err != nil || !os.IsNotExist(missing) {
			t.Errorf("the file is still there, or %v", err)
		}
		w.stop()
	})
}

// What was saved too long ago says nothing of the window.
func TestOldStateIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cardinality.json")
		cfg := cardinality.DefaultConfig()
		cfg.MaxContextsPerMetric = 1000
		w := newWorld(t, cfg, file)
		w.sendN(1500, func(int) string { return "a:1|c|#user:" + uuid() })
		w.flush()
		if err := w.guard.Save(); err != nil {
			t.Fatal(err)
		}
		w.stop()
		time.Sleep(cfg.Window + time.Minute)
		later := newWorld(t, cfg, file)
		later.send("a:1|c|#user:x")
		if got := series(later.flush(), "a"); !slices.Equal(got, []string{"user:x"}) {
			t.Errorf("series %q, want user:x", got)
		}
		later.stop()
	})
}

// A snapshot shows the metrics with the most contexts, what is folded, and the keys with
// the most values.
func TestSnapshot(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for range 3 {
			for i := range 60 {
				w.sendN(i+1, func(n int) string { return fmt.Sprintf("m%02d:1|h|#x:%d", i, n) })
			}
			w.sendN(800, func(i int) string { return fmt.Sprintf("near:1|c|#id:%d", i) })
			w.sendN(1500, func(i int) string { return fmt.Sprintf("a:1|c|#endpoint:%d,user:%s", i%100, uuid()) })
			w.sendN(50, func(int) string { return "a:1|c|#endpoint:1,user:frequent" })
			w.flush()
		}
		s := w.guard.Snapshot()
		if len(s.Metrics) != 50 || s.Limit != 1_000_000 || s.Contexts != w.aggregator.Stats().Contexts {
			t.Errorf("%d metrics, %d of %d contexts; there are %d", len(s.Metrics), s.Contexts, s.Limit, w.aggregator.Stats().Contexts)
		}
		if m := s.Metrics[0]; m.Name != "near" || m.Contexts != 800 || m.Limit != 1000 || m.CustomMetrics != 800 || m.CostMonth != 40 {
			t.Errorf("the largest is %+v, want near with 800", m)
		}
		a := s.Metrics[slices.IndexFunc(s.Metrics, func(m cardinality.MetricSnapshot) bool { return m.Name == "a" })]
		if len(a.Folds) != 1 || a.Folds[0].Key != "user" || a.Folds[0].Dry || !slices.Contains(a.Folds[0].Kept, "frequent") || a.Demand < 4000 || a.Contexts > 250 {
			t.Errorf("the folded one is %+v", a)
		}
		if m := s.Metrics[2]; m.Name != "m59" || m.CustomMetrics != 60*5 {
			t.Errorf("a histogram is %+v, want m59 with 300 custom metrics", m)
		}
		if len(s.Keys) < 2 || s.Keys[0].Metric != "a" || s.Keys[0].Key != "user" || s.Keys[1].Metric != "near" || s.Keys[1].Key != "id" {
			t.Errorf("the keys are %+v, want user of a and id of near first", s.Keys)
		}
	})
}
