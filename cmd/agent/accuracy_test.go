package main

import (
	"bufio"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/internal/testkit"
)

// What may happen on a day, at noon, when half of its people were seen.
const (
	everybodyAgain = 1 + iota // all who were seen come again
	redisLosesAll             // FLUSHALL
	hostsDie                  // kill -9 of all agents, which are started again
	bothAtOnce                // FLUSHALL while all agents are dead
	hostsStop                 // SIGTERM of all agents, which are started again
)

// Agents on several hosts see up to three million people over some weeks, through a real
// Redis that loses everything in between, and they die: what is emitted is what PFCOUNT
// says, and both are near what it was.
//
// WEIR_ACCURACY=whole: from a thousand to three million people on 1 and on 20 hosts over
// 28 days. WEIR_ACCURACY_SEED: the seed of the hash key, of an earlier run.
func TestAccuracy(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("WEIR_ACCURACY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("WEIR_ACCURACY_SEED: %v", err)
		}
	}
	binary := buildShifted(t)
	if os.Getenv("WEIR_ACCURACY") != "whole" {
		t.Run("a few days", func(t *testing.T) {
			t.Parallel()
			r := newTrial(t, binary, trial{hosts: 3, days: 4, sizes: []int{1000, 30_000}, identities: 8, element: "hmac", seed: seed})
			days := map[int]int{0: everybodyAgain, 1: redisLosesAll, 2: bothAtOnce, 3: hostsStop}
			liveThrough(r, days, countAtRedis(t, r.server))
		})
		t.Run("without a hash key", func(t *testing.T) {
			t.Parallel()
			r := newTrial(t, binary, trial{hosts: 2, days: 2, sizes: []int{1000, 30_000}, identities: 1, element: "raw", seed: seed})
			isThatOfRedis(r)
		})
		return
	}
	days := map[int]int{3: everybodyAgain, 8: redisLosesAll, 13: hostsDie, 18: bothAtOnce, 23: hostsStop}
	sizes := []int{1000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000}
	var all estimates
	for i, hosts := range []int{1, 20} {
		t.Run(fmt.Sprintf("%d hosts", hosts), func(t *testing.T) {
			r := newTrial(t, binary, trial{hosts: hosts, days: 28, sizes: sizes, identities: 8, element: "hmac", seed: seed + uint64(i)})
			all = append(all, liveThrough(r, days, nil)...)
		})
	}
	all.judge(t, "all hosts")
}

// isThatOfRedis lives through two days without a hash key. PFCOUNT of the people
// themselves, as the test adds them, is what weir emits, to the last digit: nobody is
// lost, nobody is made up.
func isThatOfRedis(r *trial) {
	r.Helper()
	for day, what := range []int{hostsDie, bothAtOnce} {
		r.live(what)
		r.night()
		r.share()
		var commands []string
		r.each(func(size int, keyPath string) {
			for d := range day + 1 { // FLUSHALL took those of the day before, too
				for person := size * d / 3; person < size*(d+2)/3; person++ {
					commands = append(commands, fmt.Sprintf("PFADD own:%s:%d %d", keyPath, d, r.value(size, 0, person)))
				}
			}
		})
		r.server.Numbers(commands)
		r.each(func(_ int, keyPath string) {
			r.awaitGauge(keyPath+".1d", r.server.Number("PFCOUNT", fmt.Sprintf("own:%s:%d", keyPath, day)))
			own := []string{"PFCOUNT"}
			for d := range day + 1 {
				own = append(own, fmt.Sprintf("own:%s:%d", keyPath, d))
			}
			r.awaitGauge(keyPath+".28d", r.server.Number(own...))
		})
	}
	r.end(syscall.SIGTERM)
}

// liveThrough lives through all days, and returns what is emitted of each.
func liveThrough(r *trial, events map[int]int, elements func() int) (all estimates) {
	r.Helper()
	began := time.Now()
	for r.today < r.days {
		r.live(events[r.today])
		r.night()
		r.share()
		all = append(all, r.compare()...)
		r.Logf("%v: day %d of %d is over, %d estimates, rms %.2f %%", time.Since(began).Round(time.Second), r.today, r.days, len(all), 100*all.rms())
	}
	if r.hosts == 1 {
		r.local().judge(r.T, "1 host's own")
	}
	r.awaitReport()
	r.end(syscall.SIGTERM)
	all.judge(r.T, fmt.Sprintf("%d hosts", r.hosts))
	r.bound(events, elements)
	for _, outcome := range []string{"required_missing", "datatype_mismatch", "late", "future", "bad_count"} {
		if n := r.sum("events outcome:" + outcome); n != 0 {
			r.Errorf("%v lines are %s", n, outcome)
		}
	}
	return all
}

// live sends a day's people.
func (r *trial) live(what int) {
	r.Helper()
	if what == 0 {
		r.send(wholeDay)
		return
	}
	r.send(morning)
	switch what {
	case everybodyAgain:
		r.share()
		calls := r.server.Calls("pfadd") + r.server.Calls("pfmerge")
		r.send(morning)
		r.share()
		if now := r.server.Calls("pfadd") + r.server.Calls("pfmerge"); now != calls {
			r.Errorf("day %d: everybody comes again, and Redis is sent %d commands", r.today, now-calls)
		}
	case redisLosesAll:
		r.share()
		before := r.inRedis()
		r.server.Do("FLUSHALL")
		r.send(afternoon)
		for i, w := range r.agents {
			r.await(fmt.Sprintf("host %d notices that Redis lost all", i), func() bool { return strings.Contains(w.log(), "Redis has lost data") })
		}
		r.share()
		r.mustHave(before)
		return
	case hostsDie:
		r.save()
		before := r.inRedis()
		r.end(syscall.SIGKILL)
		r.startAgain()
		r.share()
		r.mustHave(before)
	case bothAtOnce:
		r.share()
		r.save()
		before := r.inRedis()
		r.end(syscall.SIGKILL)
		r.server.Do("FLUSHALL")
		r.startAgain()
		r.share()
		r.mustHave(before)
	case hostsStop:
		r.end(syscall.SIGTERM)
		r.startAgain()
	}
	r.send(afternoon)
}

// inRedis returns what PFCOUNT says of each day.
func (r *trial) inRedis() map[string]float64 {
	r.Helper()
	var keys, commands []string
	r.each(func(_ int, keyPath string) {
		for day := range r.today + 1 {
			keys = append(keys, r.key(keyPath, day))
			commands = append(commands, "PFCOUNT "+keys[len(keys)-1])
		}
	})
	counts := map[string]float64{}
	for i, n := range r.server.Numbers(commands) {
		counts[keys[i]] = n
	}
	return counts
}

// mustHave compares with what Redis had: days that are over have the same, that under
// way as much at least.
func (r *trial) mustHave(before map[string]float64) {
	r.Helper()
	today := r.date(r.today).Format("20060102")
	now := r.inRedis()
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if n := now[key]; n != before[key] && !(strings.HasSuffix(key, today) && n > before[key]) {
			r.Errorf("day %d: %s is %v and was %v", r.today, key, n, before[key])
		}
	}
}

// estimate is what was emitted of some people.
type estimate struct {
	size   int
	frame  string
	last   bool // of all the days there are
	people float64
	off    float64 // relative
}

type estimates []estimate

// compare awaits that what is emitted of yesterday, and of all days until then, is what
// PFCOUNT says, and compares it with how many people there were.
func (r *trial) compare() (all estimates) {
	r.Helper()
	yesterday := r.today - 1
	var commands []string
	r.each(func(_ int, keyPath string) {
		window := "PFCOUNT"
		for day := max(0, r.today-28); day < r.today; day++ {
			window += " " + r.key(keyPath, day)
		}
		commands = append(commands, "PFCOUNT "+r.key(keyPath, yesterday), window)
	})
	counts := r.server.Numbers(commands)
	r.each(func(size int, keyPath string) {
		for frame, people := range map[string]float64{
			".1d": r.people(size, yesterday, yesterday), ".28d": r.people(size, max(0, r.today-28), yesterday),
		} {
			count := counts[0]
			if frame == ".28d" {
				count = counts[1]
			}
			r.awaitGauge(keyPath+frame, count)
			all = append(all, estimate{size, frame, r.today == r.days, people, count/people - 1})
		}
		counts = counts[2:]
	})
	return all
}

// awaitGauge waits until one agent, and the only one, emits a value of this day.
func (r *trial) awaitGauge(name string, want float64) {
	r.Helper()
	today := r.date(r.today).Format(time.RFC3339)
	newest := gauge{}
	defer func() {
		if r.Failed() {
			r.Logf("%s was %v at %s", name, newest.value, newest.at)
		}
	}()
	r.await(fmt.Sprintf("%s is %v", name, want), func() bool {
		seen := map[string]bool{}
		for i, w := range r.agents {
			w.seen.Lock()
			g := w.gauges[name]
			w.seen.Unlock()
			if g.at != "" && seen[g.at] {
				r.Fatalf("host %d emits %s at %s, and so does another one", i, name, g.at)
			}
			seen[g.at] = true
			if g.at > newest.at {
				newest = g
			}
		}
		return newest.at >= today && newest.value == want
	})
}

// awaitReport waits until the report of whom speaks for all says that all days were
// counted, those included that Redis lost.
func (r *trial) awaitReport() {
	r.Helper()
	yesterday := r.date(r.today - 1).Format(time.DateOnly)
	r.await("a report says that all days were counted", func() bool {
		counted := 0
		for _, w := range r.agents {
			report, err := analytics.ReadReport(filepath.Join(w.state, "analytics"))
			if err != nil {
				continue
			}
			for _, v := range report.Values {
				if v.Scope == "fleet" && v.Frame == "28d" && v.Last.String() == yesterday && v.Status == analytics.StatusOK && v.Observed == min(28, r.days) {
					counted++
				}
			}
		}
		return counted == len(r.sizes)*r.identities
	})
}

// local returns what the only host says of itself, by an estimator of its own.
func (r *trial) local() (all estimates) {
	r.Helper()
	of := map[string]int{}
	r.each(func(size int, keyPath string) { of[keyPath] = size })
	yesterday := r.date(r.today - 1).Format(time.DateOnly)
	r.await("the host's own report", func() bool {
		all = nil
		report, err := analytics.ReadReport(filepath.Join(r.agents[0].state, "analytics"))
		if err != nil {
			return false
		}
		for _, v := range report.Values {
			if v.Scope == "host" && v.Frame == "28d" && v.Value != nil && v.Last.String() == yesterday {
				people := r.people(of[v.KeyPath], max(0, r.today-28), r.today-1)
				all = append(all, estimate{of[v.KeyPath], ".28d", true, people, *v.Value/people - 1})
			}
		}
		return len(all) == len(r.sizes)*r.identities
	})
	return all
}

func (all estimates) rms() float64 {
	squares := 0.0
	for _, e := range all {
		squares += e.off * e.off
	}
	return math.Sqrt(squares / float64(max(1, len(all))))
}

const (
	standardError = 1.04 / 128 // of HyperLogLog with 2^14 registers
	// improbable is how many standard errors an estimate is never off: one of 1.7
	// million is.
	improbable = 5
	// rareBeyond is the share of estimates that are more than 2 % off, 2.46 standard
	// errors.
	rareBeyond = 0.0139
)

// judge says how far off estimates are, and whether that is what HyperLogLog has to be.
func (all estimates) judge(t *testing.T, whose string) {
	t.Helper()
	tell := func(what string, chosen func(estimate) bool) {
		var some estimates
		worst, beyond := 0.0, 0
		for _, e := range all {
			if chosen(e) {
				some = append(some, e)
				worst = max(worst, math.Abs(e.off))
				if math.Abs(e.off) > 0.02 {
					beyond++
				}
			}
		}
		if len(some) == 0 {
			return
		}
		t.Logf("%s, %s: %d estimates, rms %.2f %%, worst %.2f %%, %d beyond 2 %%", whose, what, len(some), 100*some.rms(), 100*worst, beyond)
		if worst > improbable*standardError {
			t.Errorf("%s, %s: %.2f %% off", whose, what, 100*worst)
		}
		// Those of one person on several days are not independent.
		n := float64(len(some)) / 2
		if share := float64(beyond) / float64(len(some)); share > rareBeyond+5*math.Sqrt(rareBeyond/n)+1/n {
			t.Errorf("%s, %s: %.1f %% of the estimates are off by more than 2 %%", whose, what, 100*share)
		}
	}
	for _, size := range []int{1000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000} {
		tell(fmt.Sprintf("%d people in all days", size), func(e estimate) bool { return e.size == size && e.last && e.frame == ".28d" })
	}
	tell("all days", func(e estimate) bool { return e.last && e.frame == ".28d" })
	tell("single days", func(e estimate) bool { return e.frame == ".1d" })
	tell("all", func(estimate) bool { return true })
	if rms := all.rms(); rms > 0.009 {
		t.Errorf("%s: rms error %.2f %%", whose, 100*rms)
	}
}

// bound compares what was sent with how many registers changed. elements counts at
// Redis; nil asks the agents.
func (r *trial) bound(events map[int]int, elements func() int) {
	r.Helper()
	const registers = 1 << 14
	changes, again, lines := 0.0, 0.0, 0
	for day := range r.days {
		for _, size := range r.sizes {
			for host := range r.hosts {
				_, _, from, until := r.span(size, host, day, wholeDay)
				load := float64(until-from) / registers
				// Of the first of those who would raise a register to 1, 2, 3, … at least,
				// every second one raises it to just that.
				for one := load; one > 1e-9; one /= 2 {
					changes += registers * float64(r.identities) * (1 - math.Exp(-one)) / 2
				}
				// One sketch is as good as 1,000 elements.
				anew := min(1000, registers*(1-math.Exp(-load))) * float64(r.identities)
				for when, what := range events {
					if day <= when && (what == redisLosesAll || what == bothAtOnce) {
						again += anew
					}
				}
			}
		}
	}
	for _, w := range slices.Concat(r.agents, r.gone) {
		lines += w.lines
	}
	sent, uploads := r.sum("redis.elements"), r.sum("redis.uploads")
	if elements != nil {
		sent = float64(elements())
	}
	r.Logf("%d hosts: %d lines with %d identities each changed %.0f registers, and to bring back what was lost took %.0f at most; sent: %.0f elements, and %.0f sketches of 1,000 changes or more",
		r.hosts, lines, r.identities, changes, again, sent, uploads)
	if sent == 0 || sent+1000*uploads > 1.02*(changes+again) {
		r.Errorf("%.0f elements and %.0f sketches were sent", sent, uploads)
	}
}

// countAtRedis counts the elements of PFADD, as the server sees them, until the func it
// returns is called.
func countAtRedis(t *testing.T, server *testkit.Redis) func() int {
	t.Helper()
	conn, err := net.Dial("tcp", server.Address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprint(conn, "MONITOR\r\n")
	lines := bufio.NewReaderSize(conn, 1<<20)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	elements := 0
	var counting sync.WaitGroup
	counting.Go(func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil || strings.Contains(line, `"ping" "over"`) {
				return
			}
			if words := strings.Split(line, `" "`); strings.Contains(words[0], `"pfadd`) {
				elements += len(words) - 2
			}
		}
	})
	return func() int {
		server.Do("ping", "over")
		counting.Wait()
		return elements
	}
}
