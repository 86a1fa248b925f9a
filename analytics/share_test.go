package analytics

import (
	"bufio"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/fleet"
	"github.com/weir-agent/weir/internal/testkit"
)

// sharing makes hosts share counts. Intervals are as short as they may be, for leases
// end by the real clock.
func sharing(server *testkit.Redis) func(*Config) {
	return func(c *Config) {
		c.IncludeToday = true
		c.Keys = "fleet=000102030405060708090a0b0c0d0e0f"
		c.Redis.Addresses = []string{server.Address}
		c.Redis.FlushInterval, c.Redis.RefreshInterval, c.Redis.Lease = 100*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
		c.Redis.RepairInterval = time.Minute
	}
}

// newFleet returns hosts that share counts, as of a moment today: keys in Redis expire
// by its own clock.
func newFleet(t *testing.T, n int, server *testkit.Redis, change ...func(*Config)) []*host {
	t.Helper()
	hosts := make([]*host, n)
	for i := range hosts {
		hosts[i] = newHost(t, time.Now().UTC().Format("2006-01-02")+" 10:00", append([]func(*Config){sharing(server)}, change...)...)
		if err := hosts[i].cfg.Validate(); err != nil {
			t.Fatal(err)
		}
	}
	return hosts
}

// round lets all hosts share what they have.
func round(hosts ...*host) {
	for _, h := range hosts {
		h.engine.share.round(h.t.Context(), h.now)
	}
}

// forAll returns what one of the hosts says for all of them, by the name of the gauge.
// Rounds are a second apart by the hosts' clocks, so that what was read is read anew.
func forAll(t *testing.T, hosts []*host) map[string]Value {
	t.Helper()
	for i := range hosts {
		hosts[i].tick()
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		for range 2 {
			for _, h := range hosts {
				h.now = h.now.Add(time.Second)
			}
			round(hosts...)
		}
		values := map[string]Value{}
		for _, h := range hosts {
			said := h.engine.fleetValues(time.Now())
			if len(said) > 0 && len(values) > 0 {
				t.Fatal("two hosts speak for all")
			}
			for _, v := range said {
				values[v.Name] = v
			}
		}
		if len(values) > 0 {
			return values
		}
		if time.Now().After(deadline) {
			t.Fatalf("nobody speaks for all; the log of the first:\n%s", &hosts[0].log)
		}
	}
}

func number(t *testing.T, values map[string]Value, name string) float64 {
	t.Helper()
	v, there := values[name]
	if !there || v.Value == nil {
		t.Fatalf("%s has no value: %+v", name, v)
	}
	return *v.Value
}

// dayKeys returns what keys the last days of a value have, the newest first.
func dayKeys(v Value, now time.Time, days int) (keys []string) {
	for i := range days {
		keys = append(keys, v.Keys[0]+now.AddDate(0, 0, -i).Format("20060102"))
	}
	return keys
}

func servers(t *testing.T) map[string]func(*testing.T) (*testkit.Redis, func(*Config)) {
	t.Helper()
	return map[string]func(*testing.T) (*testkit.Redis, func(*Config)){
		"single": func(t *testing.T) (*testkit.Redis, func(*Config)) {
			return testkit.StartRedis(t, "--requirepass", "open-sesame"), func(c *Config) { c.Redis.Password = "open-sesame" }
		},
		"cluster": func(t *testing.T) (*testkit.Redis, func(*Config)) {
			server := testkit.StartRedis(t, "--cluster-enabled", "yes")
			server.Do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
			for deadline := time.Now().Add(20 * time.Second); !strings.Contains(server.Do("CLUSTER", "INFO"), "cluster_state:ok"); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the cluster does not come up")
				}
			}
			return server, func(c *Config) { c.Redis.Cluster = true }
		},
	}
}

// Of users whom several hosts see each counts once; events count as often as they
// were; and one host tells it, on a single server and in a cluster.
func TestHostsShareCounts(t *testing.T) {
	for name, start := range servers(t) {
		t.Run(name, func(t *testing.T) {
			server, change := start(t)
			hosts := newFleet(t, 3, server, change)
			for i, h := range hosts {
				h.users("team.created", 100*i, 100*i+200, ",plan:pro,seats:2") // 0 to 399
				h.users("team.joined", 100*i+150, 100*i+250, "")               // 150 to 449
				h.users("team.joined", 0, 1, "")
			}
			values := forAll(t, hosts)
			for name, want := range map[string]float64{
				"usage.creators.1d": 400, "usage.creators.28d": 400, "usage.pro.1d": 400, "usage.active.1d": 450,
				"usage.both.1d": 251, "usage.tokyo.1d": 400, "usage.calendar.month": 400, "usage.calendar.week": 400,
			} {
				if got := number(t, values, name); math.Abs(got-want) > 0.02*want {
					t.Errorf("%s = %v, want %v", name, got, want)
				}
			}
			for name, want := range map[string]float64{"usage.teams.1d": 600, "usage.teams.7d": 600, "usage.teams.all": 600, "usage.seats.1d": 1200} {
				if got := number(t, values, name); got != want {
					t.Errorf("%s = %v, want %v", name, got, want)
				}
			}
			v := values["usage.creators.1d"]
			if v.Scope != "fleet" || !v.Emitted || v.Observed != 1 {
				t.Errorf("the value is %+v", v)
			}
			if got := server.Number("PFCOUNT", dayKeys(v, hosts[0].now, 1)[0]); got != *v.Value {
				t.Errorf("PFCOUNT says %v, and weir %v", got, *v.Value)
			}
			for _, h := range hosts {
				for _, own := range h.engine.Values() {
					if own.Emitted {
						t.Errorf("a host emits its own %s besides", own.Name)
					}
				}
				if text := h.log.String(); strings.Contains(text, "ERROR") || strings.Contains(text, "sesame") {
					t.Errorf("the log:\n%s", text)
				}
			}
		})
	}
}

// From a thousand identities to three million over 28 days, each on some days and
// hosts: what is emitted is right, and PFCOUNT of the keys says exactly the same.
func TestFleetEstimatesAreAccurate(t *testing.T) {
	sizes := []int{1000, 10_000, 100_000, 1_000_000, 3_000_000}
	if testing.Short() || raceEnabled {
		sizes = sizes[:2]
	}
	server := testkit.StartRedis(t)
	squares, cases := 0.0, 0
	for _, n := range sizes {
		for _, width := range []int{1, 20} {
			server.Do("FLUSHALL")
			hosts := newFleet(t, width, server, func(c *Config) { c.Redis.RefreshInterval = time.Hour; c.Redis.RepairInterval = 24 * time.Hour })
			start := hosts[0].now.AddDate(0, 0, -27)
			for date := range 28 {
				rules := make([]*rule, width)
				for i, h := range hosts {
					h.now = start.AddDate(0, 0, date)
					h.engine.drain(h.now)
					rules[i] = ruleOf(t, h, "team.created unique user_id as user.id")
				}
				today := hosts[0].engine.generation.Load().today(rules[0])
				// Identity x comes on days x and 7x+3, each time on hosts x and 3x+1.
				for x := range n {
					if x%28 != date && (7*x+3)%28 != date {
						continue
					}
					e := rules[0].sip.element(fmt.Appendf(nil, "%d-%d", n, x))
					for _, i := range []int{x / 28 % width, (3*(x/28) + 1) % width} {
						rules[i].insert(today, today, e)
					}
				}
				round(hosts...)
			}
			values := forAll(t, hosts)
			v := values["usage.creators.28d"]
			if got := server.Number(append([]string{"PFCOUNT"}, dayKeys(v, hosts[0].now, 28)...)...); got != *v.Value {
				t.Errorf("%d on %d hosts: PFCOUNT says %v, and weir %v", n, width, got, *v.Value)
			}
			off := *v.Value/float64(n) - 1
			t.Logf("%d on %d hosts: %v, %.2f %% off", n, width, *v.Value, 100*off)
			if math.Abs(off) > 0.02 {
				t.Errorf("%d on %d hosts: %v, %.2f %% off", n, width, *v.Value, 100*off)
			}
			squares, cases = squares+off*off, cases+1
			for _, h := range hosts {
				h.crash()
			}
		}
	}
	if rms := math.Sqrt(squares / float64(cases)); rms > 0.009 {
		t.Errorf("rms error %.2f %%", 100*rms)
	}
}

func ruleOf(t *testing.T, h *host, text string) *rule {
	t.Helper()
	for _, r := range h.engine.rules {
		if r.text == text {
			return r
		}
	}
	t.Fatalf("there is no rule %q", text)
	return nil
}

// What is sent is what changes registers, however many events there are: as the server
// itself sees it.
func TestOnlyChangesAreSent(t *testing.T) {
	server := testkit.StartRedis(t)
	monitor, err := net.Dial("tcp", server.Address)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(monitor, "MONITOR\r\n")
	lines := bufio.NewReaderSize(monitor, 1<<20)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	var counted sync.WaitGroup
	elements, uploads := 0, 0
	counted.Go(func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			words := strings.Split(line, `" "`)
			switch {
			case strings.Contains(words[0], `"pfadd`):
				elements += len(words) - 2
			case strings.Contains(words[0], `"pfmerge`):
				uploads++
			}
		}
	})
	h := newFleet(t, 1, server)[0]
	r := ruleOf(t, h, "team.created unique user_id as user.id")
	today := h.engine.generation.Load().today(r)
	events, changes, all := 0, 0, new(fleet.Registers)
	for repeat := range 3 {
		for x := range 50_000 {
			r.insert(today, today, r.sip.element(fmt.Appendf(nil, "%d", x)))
			events++
			if x%300 == 299 || x == 49_999 {
				now, err := h.engine.share.read(h.engine.share.byRule[r], window{today, today})
				if err != nil {
					t.Fatal(err)
				}
				n := len(now.Beyond(all, nil))
				if n > 0 && repeat > 0 {
					t.Fatalf("%d registers change when everybody comes again", n)
				}
				changes += n
				all = now
				round(h)
			}
		}
	}
	server.Do("PING")
	_ = monitor.Close()
	counted.Wait()
	t.Logf("%d events, %d changes, %d elements, %d uploads", events, changes, elements, uploads)
	if elements == 0 || elements > changes || uploads > 0 {
		t.Errorf("%d events changed %d registers in all rounds, and %d elements and %d uploads were sent", events, changes, elements, uploads)
	}
	if stats := &h.engine.share.stats; stats.elements.Load() != uint64(elements) {
		t.Errorf("weir counts %d elements, and the server %d", stats.elements.Load(), elements)
	}
}

// everything returns the counts that Redis has, by key.
func everything(server *testkit.Redis) map[string]string {
	all := map[string]string{}
	for _, key := range server.Keys("weir:{u:*}:2*") {
		all[key] = server.Do("PFCOUNT", key)
	}
	for _, key := range server.Keys("weir:{t:*}:*") {
		if !strings.HasSuffix(key, ":since") {
			all[key] = fmt.Sprint(sortedWords(server.Do("HGETALL", key)))
		}
	}
	return all
}
