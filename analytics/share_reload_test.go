package analytics

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// Other definitions keep what is shared: Redis is asked for nothing and told nothing that
// it has, what is new is shared from then on, what is gone is not told any more, and what
// comes back is shared as if it had never gone.
func TestADifferentPlanKeepsWhatIsShared(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := newFleet(t, 2, server, func(c *Config) { c.Redis.RepairInterval = 24 * time.Hour })
	for i, h := range hosts {
		h.users("team.created", 100*i, 100*i+200, ",plan:pro,seats:2")
		h.users("team.joined", 0, 50, "")
	}
	if got := number(t, forAll(t, hosts), "usage.teams.1d"); got != 400 {
		t.Fatalf("usage.teams.1d = %v", got)
	}
	before, sent := everything(server), server.Calls("pfadd")+server.Calls("pfmerge")
	var reads []uint64
	for _, h := range hosts {
		round(h) // has nothing left to read
		reads = append(reads, h.engine.share.stats.fetches.Load())
		h.change(map[string]string{"metrics/joiners.yml": usersOfJoined}, nil)
		round(h)
	}
	for i, h := range hosts {
		if again := h.engine.share.stats.fetches.Load() - reads[i]; again > 0 {
			t.Errorf("host %d reads %d keys again that it knows", i, again)
		}
	}
	changed := map[string]string{"events/team.created.yml": tagFirst, "metrics/joiners.yml": usersOfJoined, "metrics/lisbon.yml": inLisbon, "metrics/tokyo.yml": ""}
	for _, h := range hosts {
		h.change(changed, nil)
	}
	// Rounds read all that may have changed, and send what is new.
	values := forAll(t, hosts)
	if got := number(t, values, "usage.creators.1d"); math.Abs(got-300) > 6 {
		t.Errorf("usage.creators.1d = %v, want 300", got)
	}
	if got := number(t, values, "usage.joiners.1d"); math.Abs(got-50) > 1 {
		t.Errorf("usage.joiners.1d = %v, want 50", got)
	}
	if got := number(t, values, "usage.teams.1d"); got != 400 {
		t.Errorf("usage.teams.1d = %v, want 400", got)
	}
	if _, told := values["usage.tokyo.1d"]; told {
		t.Error("usage.tokyo has no definition, and a value")
	}
	after := everything(server)
	for key, was := range before {
		if after[key] != was {
			t.Errorf("%s was %s and is %s", key, was, after[key])
		}
	}
	if again := server.Calls("pfadd") + server.Calls("pfmerge"); again > sent {
		t.Errorf("%d commands sent what Redis has", again-sent)
	}
	// A day in Lisbon, which is new, is shared.
	for _, h := range hosts {
		h.users("team.created", 500, 600, ",plan:pro,seats:2")
	}
	values = forAll(t, hosts)
	if got := number(t, values, "usage.lisbon.1d"); math.Abs(got-100) > 2 {
		t.Errorf("usage.lisbon.1d = %v, want 100", got)
	}
	if got := number(t, values, "usage.creators.1d"); math.Abs(got-400) > 8 {
		t.Errorf("usage.creators.1d = %v, want 400", got)
	}
	// Tokyo's days come back, after they were forgotten.
	for _, h := range hosts {
		h.tick()
		for _, r := range h.engine.rules {
			if strings.HasSuffix(r.text, "Tokyo") {
				t.Errorf("%s is kept in memory", r.text)
			}
		}
		h.change(nil, nil)
	}
	for _, h := range hosts {
		h.users("team.created", 700, 710, ",plan:pro,seats:2")
	}
	if got := number(t, forAll(t, hosts), "usage.tokyo.1d"); math.Abs(got-310) > 7 {
		t.Errorf("usage.tokyo.1d = %v, want 310", got)
	}
	for _, h := range hosts {
		if n := len(h.engine.share.rules); n != len(h.engine.share.byRule) {
			t.Errorf("%d rules are shared twice", n)
		}
		if strings.Contains(h.log.String(), "ERROR") {
			t.Errorf("the log:\n%s", &h.log)
		}
	}
}
