//go:build holds

package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/internal/holds"
	"github.com/weir-agent/weir/parser"
)

// steps measures what one reader does from packet to packet, and who else holds what it
// waits for.
type steps struct {
	t       *testing.T
	in      *intake
	agg     *aggregator.Aggregator
	guard   *cardinality.Guard
	line    []byte
	n       int
	longest time.Duration // on the CPU
	waited  time.Duration // on the clock
	flushed time.Time
	cfg     config.Config
	stop    func()
}

func newSteps(t *testing.T, change func(*config.Config)) *steps {
	cfg := config.Default()
	if change != nil {
		change(&cfg)
	}
	p := parser.New(parser.DefaultConfig())
	log := slog.New(slog.DiscardHandler)
	guard := cardinality.New(cfg.Cardinality, log)
	agg := newAggregator(cfg, []aggregator.Describe{p.Describe}, guard, log)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { guard.Run(ctx); close(ended) }()
	s := &steps{
		t: t, in: &intake{parser: p, worker: agg.Worker(0)}, agg: agg, guard: guard, cfg: cfg,
		flushed: time.Now().Truncate(time.Minute), stop: func() { stop(); <-ended },
	}
	for range 100 {
		runtime.Gosched()
	}
	runtime.LockOSThread()
	runtime.GC()
	debug.SetGCPercent(-1)
	holds.Longest()
	return s
}

// send adds n lines, 120 at a time.
func (s *steps) send(n int, line func(to []byte, i int) []byte) {
	for i := range n {
		s.line = append(line(s.line, i), '\n')
		if i%120 == 119 || i == n-1 {
			wall, began := time.Now(), holds.ThreadTime()
			s.in.packet(s.line, false, "")
			s.in.end()
			s.longest = max(s.longest, holds.Since(wall, began))
			s.waited = max(s.waited, time.Since(wall))
			s.line = s.line[:0]
		}
	}
}

func (s *steps) flush() {
	began := time.Now()
	s.agg.Flush(s.flushed)
	s.flushed = s.flushed.Add(s.cfg.Aggregator.FlushInterval)
	s.t.Logf("    (a flush took %v)", time.Since(began).Round(time.Microsecond))
}

// tell logs the longest steps and holds since it was last called.
func (s *steps) tell(what string) {
	var text []string
	all := holds.Longest()
	for _, name := range slices.SortedFunc(maps.Keys(all), func(a, b string) int { return cmp.Compare(all[b], all[a]) }) {
		short := name[strings.LastIndexByte(name, '/')+1:]
		text = append(text, fmt.Sprintf("%s %.2f", short, all[name].Seconds()*1000))
	}
	s.t.Logf("%-28s reader's step %.2f ms (clock %.2f); held %s", what, s.longest.Seconds()*1000, s.waited.Seconds()*1000, strings.Join(text, ", "))
	s.longest, s.waited = 0, 0
}

func (s *steps) end() {
	s.stop()
	debug.SetGCPercent(100)
	runtime.UnlockOSThread()
	*s = steps{}
	runtime.GC()
}

func attackLine(to []byte, i int) []byte {
	return fmt.Appendf(to, "load.requests:1|c|#env:production,endpoint:e%d,region:r%d,request_id:%08x-%d", i%7, i%5, uint32(i)*2654435761, i)
}

func million(to []byte, i int) []byte {
	return fmt.Appendf(to, "load.requests.%d:%d|c|#env:production,region:eu-west-1%c,endpoint:checkout-%04d", i%1000, 1+i%9, 'a'+i/1000%3, i/1000)
}

// What a reader does at one go, and what it may have to wait for. It asserts nothing: run
// it with -v and the tag holds.
func TestLongestHolds(t *testing.T) {
	run := os.Getenv("HOLDS")
	scenario := func(name string, change func(*config.Config), do func(s *steps)) {
		if run != "" && !strings.Contains(name, run) {
			return
		}
		t.Run(name, func(t *testing.T) {
			s := newSteps(t, change)
			defer s.end()
			do(s)
		})
	}
	unlimited := func(cfg *config.Config) {
		cfg.Aggregator.MaxContexts, cfg.Cardinality.MaxContexts = 3_000_000, 3_000_000
		cfg.Cardinality.MaxContextsPerMetric = 3_000_000
	}
	for _, limit := range []int{10_000, 1_000_000} {
		scenario(fmt.Sprintf("fold/%d", limit), func(cfg *config.Config) {
			unlimited(cfg)
			cfg.Cardinality.MaxContextsPerMetric = limit
		}, func(s *steps) {
			s.send(limit*9/10, attackLine)
			s.flush()
			s.tell("nine tenths of the limit")
			s.send(limit/5, func(to []byte, i int) []byte { return attackLine(to, i+limit*9/10) })
			s.tell("the fold")
			for i := range 3 {
				s.flush()
				s.tell(fmt.Sprintf("flush %d after the fold", i+1))
			}
			again := func(to []byte, i int) []byte { return attackLine(to, i/1000/3*1000+i%1000) }
			s.send(1_000_000, again)
			s.tell("folded ones come again")
			s.flush()
			s.tell("flush of these")
		})
	}
	scenario("fold/others", func(cfg *config.Config) {
		unlimited(cfg)
		cfg.Cardinality.MaxContextsPerMetric = 10_000
	}, func(s *steps) {
		s.send(1_000_000, million)
		s.flush()
		s.tell("a million of other metrics")
		s.send(20_000, attackLine)
		s.tell("the fold")
		s.flush()
		s.tell("flush after the fold")
	})
	scenario("drop", func(cfg *config.Config) {
		unlimited(cfg)
		cfg.Cardinality.MaxContextsPerMetric, cfg.Cardinality.Overflow = 1_000_000, "drop"
	}, func(s *steps) {
		s.send(1_200_000, attackLine)
		s.tell("a metric begins to refuse")
	})
	scenario("growth", func(cfg *config.Config) {
		unlimited(cfg)
		cfg.Aggregator.Expiry.Context, cfg.Aggregator.Expiry.ZeroFill = 20*time.Second, 0
	}, func(s *steps) {
		s.send(1_000_000, million)
		s.tell("a million new ones")
		s.flush()
		s.tell("flush")
		s.flush()
		s.flush()
		s.tell("all expire")
		s.send(1_000_000, million)
		s.tell("they come again")
		s.flush()
		s.tell("flush")
		s.agg.Reconfigure(s.cfg.Aggregator, nil, nil)
		s.tell("a reload")
		s.send(1_000_000, million)
		s.tell("all are resolved anew")
		next := s.cfg.Aggregator
		next.Tags = []string{"new:tag"}
		s.agg.Reconfigure(next, nil, nil)
		s.tell("a reload with other tags")
		s.send(1_000_000, million)
		s.tell("all are resolved anew")
		s.flush()
		s.flush()
		s.flush()
		s.tell("half of them expire")
	})
	scenario("metrics", unlimited, func(s *steps) {
		s.send(250_000, func(to []byte, i int) []byte { return fmt.Appendf(to, "metric.number.%d:1|c|#env:prod", i) })
		s.tell("250 thousand metrics")
		next := s.cfg.Aggregator
		next.Tags = []string{"new:tag"}
		s.agg.Reconfigure(next, nil, nil)
		s.tell("a reload with other tags")
		s.flush()
		s.tell("flush")
		s.guard.Snapshot()
		s.tell("snapshot")
	})
	for _, kind := range []string{"c|@0.5", "g", "ms", "d", "s"} {
		scenario("kind/"+kind, unlimited, func(s *steps) {
			line := func(to []byte, i int) []byte {
				return fmt.Appendf(to, "load.requests.%d:%d|%s|#env:production,endpoint:checkout-%04d", i%1000, 1+i%9, kind, i/1000)
			}
			s.send(1_000_000, line)
			s.tell("a million new ones")
			s.flush()
			s.tell("flush")
			s.send(1_000_000, line)
			s.tell("the other columns")
			s.flush()
			s.flush()
		})
	}
	scenario("beside", func(cfg *config.Config) {
		unlimited(cfg)
		cfg.Aggregator.Expiry.Context, cfg.Aggregator.Expiry.ZeroFill = 20*time.Second, 0
	}, func(s *steps) {
		s.send(1_000_000, million)
		s.flush()
		s.flush()
		s.tell("a million")
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.flush()
		}()
		fresh := 0
		for running := true; running; {
			select {
			case <-done:
				running = false
			default:
				s.send(120, func(to []byte, i int) []byte { return fmt.Appendf(to, "x.%d:1|c|#new:%d", fresh%1000, fresh+i) })
				fresh += 120
				time.Sleep(200 * time.Microsecond)
			}
		}
		s.tell("while all expire")
	})
	scenario("values", nil, func(s *steps) {
		s.send(300_000, func(to []byte, i int) []byte { return fmt.Appendf(to, "a:%d|c|T1700000000", i) })
		s.tell("points with times")
		spread := func(kind string) func([]byte, int) []byte {
			return func(to []byte, i int) []byte {
				return fmt.Appendf(to, "a:%de%d|%s", 1+i%9*997%900, i*7919%60-9, kind)
			}
		}
		for _, kind := range []string{"ms", "d"} {
			s.send(100_000, spread(kind))
			s.tell("spread values " + kind)
		}
		s.send(100_000, func(to []byte, i int) []byte { return fmt.Appendf(to, "a:%d|s", i) })
		s.tell("members of a set")
		s.send(12_000, func(to []byte, i int) []byte { return fmt.Appendf(to, "_e{5,5}:title|text%d|#a:b,c:d", i%9) })
		s.tell("events")
	})
}
