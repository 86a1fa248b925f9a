package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-agent/weir/internal/testkit"
)

// fleetSettings are those of an agent that shares what it counts.
func fleetSettings(state, redis string) []string {
	return append(eventSettings(state), "WEIR_HOSTNAME="+filepath.Base(state),
		"WEIR_ANALYTICS_KEYS=000102030405060708090a0b0c0d0e0f", "WEIR_ANALYTICS_REDIS_ADDRESSES="+redis,
		"WEIR_ANALYTICS_REDIS_FLUSH_INTERVAL=200ms", "WEIR_ANALYTICS_REDIS_REFRESH_INTERVAL=400ms",
		"WEIR_ANALYTICS_REDIS_REPAIR_INTERVAL=2s", "WEIR_ANALYTICS_REDIS_LEASE=1s", "WEIR_ANALYTICS_REDIS_TIMEOUT=500ms")
}

// gauges returns the points of a metric on an agent's standard output.
func gauges(t *testing.T, p *process, name string) (points []string, last float64) {
	t.Helper()
	last = math.NaN()
	for line := range strings.Lines(p.output()) {
		var point struct {
			Time, Metric, Host string
			Value              float64
			Tags               []string
		}
		if !strings.HasSuffix(line, "\n") || json.Unmarshal([]byte(line), &point) != nil || point.Metric != name {
			continue
		}
		if tags := strings.Join(point.Tags, ","); tags != "scope:fleet" || point.Host != "" {
			t.Fatalf("%s is of host %q with tags %s", name, point.Host, tags)
		}
		points, last = append(points, point.Time), point.Value
	}
	return points, last
}

// Three agents see users, some of them the same; one agent emits how many there are on
// all of them. It is killed and another one does, Redis loses everything and has it
// back, Redis goes away and comes back, and all agents are started again.
func TestFleet(t *testing.T) {
	t.Parallel()
	server := testkit.StartRedis(t)
	binary, folder := build(t), t.TempDir()
	const name = "usage.teams.users.7d"
	state := func(i int) string { return filepath.Join(folder, fmt.Sprintf("host-%d", i)) }
	var hosts []*process
	for i := range 3 {
		hosts = append(hosts, start(t, binary, fleetSettings(state(i), server.Address)...))
	}
	send := func(p *process, from, to int) {
		for at := from; at < to; at += 20 {
			var lines []string
			for user := at; user < min(at+20, to); user++ {
				lines = append(lines, fmt.Sprintf("analytics.team.created:1|c|#user_id:%d,plan:pro", user))
			}
			sendLines(t, p.address, strings.Join(lines, "\n"))
		}
	}
	// awaited waits until the newest point of one of the agents is near what it is to be.
	awaited := func(what string, want float64) (leader int, value float64) {
		t.Helper()
		counts := make([]int, len(hosts))
		for i, p := range hosts {
			points, _ := gauges(t, p, name)
			counts[i] = len(points)
		}
		leader = -1
		eventually(t, what, func() bool {
			for i, p := range hosts {
				points, last := gauges(t, p, name)
				if len(points) > counts[i] && math.Abs(last-want) <= 0.02*want {
					leader, value = i, last
					return true
				}
			}
			return false
		})
		return leader, value
	}
	for i, p := range hosts {
		send(p, 1000*i, 1000*i+2000)
	}
	leader, value := awaited("the users of all hosts are counted", 4000)
	keys := server.Keys("weir:{u:*}:20*")
	agrees := false
	for _, key := range keys {
		agrees = agrees || server.Number("PFCOUNT", key) == value
	}
	if !agrees {
		t.Errorf("weir emits %v, and no key of %v has that PFCOUNT", value, keys)
	}
	eventually(t, "the report has both values", func() bool {
		stdout, _, _ := execute(t, binary, nil, "events", "report", "--state", state(leader), name[:len(name)-3])
		return strings.Contains(stdout, "all hosts") && strings.Contains(stdout, "this host")
	})

	server.Do("FLUSHALL")
	for _, p := range hosts {
		eventually(t, "all hosts notice", func() bool { return strings.Contains(p.log(), "Redis has lost data") })
	}
	leader, _ = awaited("what was lost is back", 4000)

	if err := hosts[leader].cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-hosts[leader].ended
	killed := leader
	if leader, _ = awaited("another host takes over", 4000); leader == killed {
		t.Error("a dead host speaks")
	}

	server.Kill()
	alive := hosts[leader]
	eventually(t, "the log says it", func() bool { return strings.Contains(alive.log(), "check analytics.redis.addresses") })
	send(alive, 5000, 6000)
	server.Start()
	eventually(t, "the log says that all is well", func() bool { return strings.Count(alive.log(), "counts are shared through Redis") == 2 })
	for i := range hosts { // what the dead host counted is on its disk only
		if i != killed {
			if code := hosts[i].stop(t); code != 0 {
				t.Errorf("exit code %d\n%s", code, hosts[i].log())
			}
		}
		if n := strings.Count(hosts[i].log(), "counts cannot be shared"); n > 1 {
			t.Errorf("the log says %d times that Redis is away:\n%s", n, hosts[i].log())
		}
	}
	for i := range hosts {
		hosts[i] = start(t, binary, fleetSettings(state(i), server.Address)...)
	}
	awaited("all hosts were started again", 5000)
	times := map[string]bool{}
	for _, p := range hosts {
		points, _ := gauges(t, p, name)
		for _, at := range points {
			if times[at] {
				t.Errorf("two hosts emit at %s", at)
			}
			times[at] = true
		}
	}
}

// Whether Redis answers or not, an agent starts, counts and stops; its log says what to
// do, and no password.
func TestRedisThatRefuses(t *testing.T) {
	const secret = "open-sesame"
	server := testkit.StartRedis(t, "--requirepass", "other")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := build(t)
	for name, test := range map[string]struct {
		settings []string
		want     string
	}{
		"wrong password": {[]string{"WEIR_ANALYTICS_REDIS_ADDRESSES=" + server.Address, "WEIR_ANALYTICS_REDIS_PASSWORD=" + secret}, "the server takes another password"},
		"wrong file":     {[]string{"WEIR_ANALYTICS_REDIS_ADDRESSES=" + server.Address, "WEIR_ANALYTICS_REDIS_PASSWORD_FILE=" + file}, "the server takes another password"},
		"wrong address":  {[]string{"WEIR_ANALYTICS_REDIS_ADDRESSES=127.0.0.1:1"}, "no answer from 127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			state := t.TempDir()
			p := start(t, binary, append(fleetSettings(state, ""), test.settings...)...)
			eventually(t, "the log says it", func() bool { return strings.Contains(p.log(), test.want) })
			sendLines(t, p.address, "analytics.team.created:1|c|#user_id:1,plan:pro")
			eventually(t, "the host goes on counting", func() bool { return reported(t, binary, state, "usage.teams.users.7d") == 1 })
			if code := p.stop(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if strings.Contains(p.log()+p.output(), secret) {
				t.Errorf("the password is in the log:\n%s", p.log())
			}
		})
	}
	_, stderr, code := execute(t, binary, append(eventSettings(t.TempDir()), "WEIR_ANALYTICS_REDIS_ADDRESSES=127.0.0.1:1"), "check")
	if code != 1 || !strings.Contains(stderr, "set analytics.key_file, or WEIR_ANALYTICS_KEYS, to the same key on all of them") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
