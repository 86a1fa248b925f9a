package analytics

import (
	"context"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/internal/testkit"
)

func sortedWords(text string) []string {
	words := strings.Fields(text)
	slices.Sort(words)
	return words
}

// fiveDays has two hosts count users on five days, few on most and many on one, so
// that some of the days are on disk only.
func fiveDays(t *testing.T, server *testkit.Redis) []*host {
	t.Helper()
	hosts := newFleet(t, 2, server)
	start := hosts[0].now.AddDate(0, 0, -5)
	for date := range 5 {
		for i, h := range hosts {
			h.now = start.AddDate(0, 0, date)
			h.tick()
			n := 100
			if date == 1 {
				n = 6000
			}
			h.users("team.created", 50*i+20*date, 50*i+20*date+n, ",plan:pro,seats:3")
			h.tick()
		}
		round(hosts...)
	}
	return hosts
}

func compareRedis(t *testing.T, server *testkit.Redis, want map[string]string) {
	t.Helper()
	if diff := cmp.Diff(want, everything(server)); diff != "" {
		t.Errorf("Redis has something else (-before +now):\n%s", diff)
	}
	for key := range want {
		if left := server.Number("TTL", key); left < 30*24*3600 != strings.HasSuffix(key, ":all") {
			t.Errorf("%s expires in %v seconds", key, left)
		}
	}
}

// A flush of all data in mid-day loses nothing: neither days under way nor those that
// hosts have on disk only.
func TestFlushedRedisIsRepaired(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := fiveDays(t, server)
	want := everything(server)
	if len(want) < 20 {
		t.Fatalf("Redis has %d keys", len(want))
	}
	server.Do("FLUSHALL")
	round(hosts...) // the first of them notices, the second one may come before its epoch
	round(hosts...)
	compareRedis(t, server, want)
}

// So does the end of the server, and all counting that happens meanwhile; the log says
// it once.
func TestKilledRedisIsRepaired(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := fiveDays(t, server)
	before := everything(server)
	server.Kill()
	for range 5 {
		round(hosts...)
		for _, h := range hosts {
			h.users("team.created", 0, 30, ",plan:pro,seats:3")
			h.tick()
		}
	}
	for _, h := range hosts {
		if n := strings.Count(h.log.String(), "counts cannot be shared"); n != 1 {
			t.Errorf("the log says it %d times:\n%s", n, &h.log)
		}
		if h.engine.share.stats.healthy.Load() != 0 {
			t.Error("it is said to be healthy")
		}
	}
	server.Start()
	for deadline := time.Now().Add(20 * time.Second); hosts[0].engine.share.failing || hosts[1].engine.share.failing; time.Sleep(10 * time.Millisecond) {
		round(hosts...)
		if time.Now().After(deadline) {
			t.Fatalf("nothing is shared again:\n%s", &hosts[0].log)
		}
	}
	round(hosts...)
	after := everything(server)
	for key, was := range before {
		if after[key] == "" {
			t.Errorf("%s is lost", key)
		}
		if strings.HasPrefix(key, "weir:{u:") && len(after[key]) < len(was) {
			t.Errorf("%s was %s and is %s", key, was, after[key])
		}
	}
	if got := number(t, forAll(t, hosts), "usage.teams.all"); got != 2*(4*100+6000)+2*5*30 {
		t.Errorf("usage.teams.all = %v", got)
	}
	if n := strings.Count(hosts[0].log.String(), "counts are shared through Redis"); n != 2 {
		t.Errorf("the log tells %d times that all is well:\n%s", n, &hosts[0].log)
	}
}

// A restart of every host, with a Redis that lost all meanwhile.
func TestRestartedHostsRepair(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := fiveDays(t, server)
	want := everything(server)
	for _, h := range hosts {
		h.stop()
	}
	server.Do("FLUSHALL")
	for _, h := range hosts {
		h.start()
	}
	round(hosts...)
	compareRedis(t, server, want)
	calls := server.Calls("pfmerge") + server.Calls("pfadd")
	for _, h := range hosts { // and now with a Redis that has all
		h.stop()
		h.start()
	}
	round(hosts...)
	compareRedis(t, server, want)
	if again := server.Calls("pfmerge") + server.Calls("pfadd"); again != calls {
		t.Errorf("%d sketches were sent although Redis has them", again-calls)
	}
}

// Single keys that were evicted, or written back to what they were before, are
// repaired at the next look.
func TestEvictedKeysAreRepaired(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := fiveDays(t, server)
	round(hosts...) // of older days nothing is remembered any more
	want := everything(server)
	for key := range want {
		server.Do("DEL", key)
	}
	for _, h := range hosts {
		h.now = h.now.Add(h.cfg.Redis.RepairInterval)
	}
	round(hosts...) // the first one brings its part back,
	round(hosts...) // and all the others see that there is something to bring
	compareRedis(t, server, want)
}

// The host that speaks for all dies; another one takes over, and says the same.
func TestAnotherHostTakesOver(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := newFleet(t, 2, server)
	hosts[0].users("team.created", 0, 100, "")
	hosts[1].users("team.created", 50, 150, "")
	before := number(t, forAll(t, hosts), "usage.creators.1d")
	leader, other := hosts[0], hosts[1]
	if len(leader.engine.fleetValues(time.Now())) == 0 {
		leader, other = other, leader
	}
	// It does nothing any more, and yet tells what it knew until its time is over.
	for deadline := time.Now().Add(20 * time.Second); len(other.engine.fleetValues(time.Now())) == 0; time.Sleep(time.Millisecond) {
		round(other)
		if time.Now().After(deadline) {
			t.Fatal("nobody takes over")
		}
		if len(leader.engine.fleetValues(time.Now())) > 0 && len(other.engine.fleetValues(time.Now())) > 0 {
			t.Fatal("two hosts speak for all")
		}
	}
	if after := number(t, forAll(t, []*host{other}), "usage.creators.1d"); after != before {
		t.Errorf("it was %v and is %v", before, after)
	}
	round(leader) // it is back
	if len(leader.engine.fleetValues(time.Now())) > 0 {
		t.Error("two hosts speak for all")
	}
	var gauges []string
	for _, r := range other.engine.Gauges(nil) {
		if r.Name == "usage.creators.1d" {
			gauges = append(gauges, fmt.Sprint(r.Tags, r.Value))
		}
	}
	if got := fmt.Sprint(gauges); got != fmt.Sprintf("[[host: scope:fleet] %v]", before) {
		t.Errorf("gauges %s", got)
	}
}

// With element raw the keys are GitLab's, and hold what PFADD of the plain identities
// puts there.
func TestRawElementsAreThoseOfGitLab(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := newFleet(t, 2, server, func(c *Config) { c.Keys, c.Redis.Element = "", "raw" })
	week := hosts[0].now.AddDate(0, 0, -7) // the last complete one
	for i, h := range hosts {
		h.now = week
		h.tick()
		h.users("team.created", 30*i, 30*i+200, ",plan:pro")
	}
	for _, h := range hosts {
		h.tick()
		round(h)
	}
	year, number7 := week.ISOWeek()
	for _, name := range []string{"team.created-user", "team.created-filter:[plan:pro]-user"} {
		key := fmt.Sprintf("{hll_counters}_%s-%04d-%02d", name, year, number7)
		words := []string{"PFADD", "plain"}
		for user := range 230 {
			words = append(words, fmt.Sprint(user))
		}
		server.Do(words...)
		if got, want := server.Number("PFCOUNT", key), server.Number("PFCOUNT", "plain"); got != want {
			t.Errorf("PFCOUNT %s = %v, want %v", key, got, want)
		}
		server.Do("PFADD", key, "0", "229") // GitLab itself sees users that are there
		if got, want := server.Number("PFCOUNT", key), server.Number("PFCOUNT", "plain"); got != want {
			t.Errorf("the same users make of %s %v, want %v", key, got, want)
		}
	}
	server.Do("PFADD", fmt.Sprintf("{hll_counters}_team.created-user-%04d-%02d", year, number7), "5000") // and one who is not
	for _, h := range hosts {
		h.now = week.AddDate(0, 0, 7)
	}
	if got, want := number(t, forAll(t, hosts), "usage.weeks.7d"), server.Number("PFCOUNT", "plain")+1; got != want {
		t.Errorf("usage.weeks.7d = %v, want %v", got, want)
	}
}

// Hosts with different keys do not count together, and say so.
func TestHostsWithOtherKeysDoNotMix(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := newFleet(t, 2, server)
	other := newFleet(t, 1, server, func(c *Config) { c.Keys = "fleet=100102030405060708090a0b0c0d0e0f" })[0]
	for _, h := range append(hosts, other) {
		h.users("team.created", 0, 100, "")
	}
	values := forAll(t, append(hosts, other))
	if got := number(t, values, "usage.creators.1d"); math.Abs(got-100) > 2 {
		t.Errorf("usage.creators.1d = %v, want 100", got)
	}
	for _, h := range append(hosts, other) {
		if n := strings.Count(h.log.String(), "with different keys"); n != 1 {
			t.Errorf("the log says it %d times", n)
		}
	}
}

// A Redis that takes connections and says nothing stops nothing else.
func TestSilentRedisBlocksNobody(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	silent := &testkit.Redis{Address: listener.Addr().String()}
	h := newFleet(t, 1, silent, func(c *Config) { c.Redis.Timeout = 2 * time.Second })[0]
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.engine.share.run(ctx)
	}()
	connection, err := listener.Accept() // it waits for an answer from now on
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	h.users("team.created", 0, 100, "")
	if v := h.value("usage.creators.1d"); v.Value == nil || *v.Value != 100 {
		t.Errorf("the value is %+v", v)
	}
	if gauges := h.engine.Gauges(nil); len(gauges) > 0 {
		t.Errorf("there are gauges of all hosts: %v", gauges)
	}
	h.engine.Readings(nil)
	stop() // it ends without an answer, too
	<-ended
}
