package cardinality_test

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/metric"
)

// attackLines is how many lines the attack has: ten million if WEIR_GUARD=full.
func attackLines() int {
	if os.Getenv("WEIR_GUARD") == "full" {
		return 10_000_000
	}
	return 200_000
}

const attacked = "service.m77"

// A tag with a new value in every line is put on one of 200 metrics, for ten minutes:
// every count comes out exactly, the other 199 metrics are what they would be without
// it to the byte, memory stays flat, the log names the key, and after the window the
// fold is lifted.
func TestAttackOnOneOfManyMetrics(t *testing.T) {
	const attackIntervals, intervals = 60, 140
	perInterval := attackLines() / attackIntervals
	run := func(attack bool) (others []string, grown uint64) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, cardinality.DefaultConfig(), "")
			before := memory()
			lifted := 0
			for i := range intervals {
				honest(w)
				if attack && i >= 5 && i < 5+attackIntervals {
					attackByAll(w, perInterval)
				}
				b := w.flush()
				if grown = max(grown, memory()-min(before, memory())); len(decisions(b)) > 0 && decisions(b)[0] == "lift user_id" {
					lifted = i
				}
				others = append(others, textOfOthers(b)...)
			}
			w.stop()
			w.checkTotals()
			if attack && (w.logged("folded a tag key") != 1 || w.logged("key=user_id") != 2 || lifted == 0 || lifted > 5+attackIntervals+60) {
				t.Errorf("lifted in interval %d; the log says\n%s", lifted, w.log.String())
			}
		})
		return others, grown
	}
	want, _ := run(false)
	got, grown := run(true)
	if !slices.Equal(got, want) {
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Fatalf("line %d of the other metrics is\n%s, without the attack\n%s", i, got[i], want[i])
			}
		}
		t.Fatalf("the other metrics have %d lines, without the attack %d", len(got), len(want))
	}
	const most = 100 << 20
	t.Logf("%d lines, memory grew by %d MiB", attackLines(), grown>>20)
	if grown > most {
		t.Errorf("memory grew by %d MiB, want less than %d", grown>>20, most>>20)
	}
}

// honest sends what 200 metrics of a service send in an interval.
func honest(w *world) {
	for m := range 200 {
		for c := range 5 {
			kind := [...]string{"c", "ms", "g", "d", "s"}[m%5]
			w.send(fmt.Sprintf("service.m%d:%d|%s|#env:prod,endpoint:/e%d", m, m*7+c, kind, c))
		}
	}
	w.send("service.m77:3|c|#env:prod,endpoint:/e1", "service.m78:3|c|#env:prod")
}

// attackByAll sends counts by all readers at once, each line with an id of its own.
func attackByAll(w *world, lines int) {
	first := serial
	serial += lines
	var all sync.WaitGroup
	for reader := range readers {
		all.Go(func() {
			var parsed metric.Lines
			var packet []byte
			for i := reader; i < lines; i += readers {
				n := first + i
				packet = fmt.Appendf(packet, "%s:%d|c|#env:prod,endpoint:/e%d,user_id:%08x-9a7e-4c1d-8000-%012x\n", attacked, i%3+1, i%5, n*2654435761, n)
				if len(packet) < 1300 && i+readers < lines {
					continue
				}
				parsed.Reset()
				w.parser.Packet(packet, false, &parsed)
				w.aggregator.Worker(reader).Add(&parsed)
				packet = packet[:0]
			}
		})
	}
	all.Wait()
	for i := range lines {
		w.sent[attacked] += float64(i%3 + 1)
	}
}

// textOfOthers returns the lines of all metrics but the one attacked, sorted.
func textOfOthers(b *metric.Batch) (lines []string) {
	others := *b
	others.Events = nil
	for line := range strings.Lines(string(forwarder.AppendText(nil, &others))) {
		if !strings.Contains(line, attacked) {
			lines = append(lines, line)
		}
	}
	slices.Sort(lines)
	return lines
}

// memory returns how many bytes the process has of the system, those it gave back left
// out.
func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}

// A guard on one metric is asked by several readers at once; what they send is counted
// once, whoever folds first.
func TestReadersMeetAGuardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := cardinality.DefaultConfig()
		cfg.MaxContextsPerMetric = 500
		w := newWorld(t, cfg, "")
		for range 20 {
			attackByAll(w, 2000)
			b := w.flush()
			for i := range b.Series {
				if v := b.Series[i].Value; math.IsNaN(v) || v < 0 {
					t.Fatalf("a series has the value %v", v)
				}
			}
		}
		w.stop()
		w.checkTotals()
		if n := w.aggregator.Stats().Contexts; n > 20 {
			t.Errorf("%d contexts are left, want no more than 20", n)
		}
	})
}
