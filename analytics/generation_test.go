package analytics

import (
	"maps"
	"strings"
	"testing"
	"time"
)

// change puts other definitions in force, as a reload does; a file without text is not
// there. What is known keeps counting by the old ones until that is settled.
func (h *host) change(files map[string]string, meanwhile func()) {
	h.t.Helper()
	all := maps.Clone(definitions)
	maps.Copy(all, files)
	maps.DeleteFunc(all, func(_, text string) bool { return text == "" })
	h.plan = loadPlan(h.t, all, h.cfg.Options())
	c, err := h.engine.prepareAt(h.cfg, h.plan, h.now)
	if err != nil {
		h.t.Fatal(err)
	}
	c.Commit()
	if meanwhile != nil {
		meanwhile()
	}
	h.known = map[string]*Occurrence{}
	c.settleAt(h.now)
}

const (
	usersOfJoined = `
key_path: usage.joiners
description: Users who joined at least one team, ever so often.
time_frame: [1d]
events: [{name: team.joined, unique: user.id}]
`
	inLisbon = `
key_path: usage.lisbon
description: Users who created at least one team, in Portugal's days.
time_frame: [1d]
timezone: Europe/Lisbon
events: [{name: team.created, unique: user.id}]
`
	tagFirst = `
event: team.created
description: Somebody created a team in an organization.
owner: growth
version: 1-1-0
attributes:
  seats:           {type: int, role: value}
  region:          {type: string, role: tag}
  plan:            {type: enum, values: [free, pro], role: tag}
  user_id:         {type: int, required: true, role: identity, identity: user.id}
`
)

// What a new plan has in common with the old one goes on counting: the same sketches and
// totals, whatever else has changed around them, and outcomes of events never go back.
func TestADifferentPlanGoesOnCounting(t *testing.T) {
	h := newHost(t, "2026-03-10 09:00", func(c *Config) { c.IncludeToday = true })
	h.users("team.created", 0, 60, ",plan:free,seats:2")
	h.users("team.joined", 0, 30, "")
	before := len(h.engine.rules)
	h.change(map[string]string{
		"events/team.created.yml": tagFirst, "metrics/joiners.yml": usersOfJoined, "metrics/lisbon.yml": inLisbon,
		"metrics/tokyo.yml": "", "metrics/both.yml": "",
	}, func() {
		h.users("team.created", 0, 60, ",plan:free,seats:2") // still by the old one
		h.users("team.created", 60, 80, ",plan:free,seats:2")
	})
	h.users("team.created", 70, 100, ",plan:free,seats:2,region:eu")
	h.want("usage.creators.1d", 100)
	h.want("usage.seats.1d", 2*(60+60+20+30))
	h.want("usage.teams.all", 60+60+20+30)
	h.want("usage.active.1d", 100)
	h.want("usage.joiners.1d", 30) // each identity has been counted all along
	// What is new counts from the moment on at which it was in force.
	h.want("usage.lisbon.1d", 20+30-10)
	h.wantOutcomes("team.created", map[string]uint64{"ok": 170})
	if got := h.counters["team.created plan:free,region:eu"]; got != 30 {
		t.Errorf("counters: %v", h.counters)
	}
	for _, v := range h.engine.Values() {
		if v.KeyPath == "usage.tokyo" || v.KeyPath == "usage.both" {
			t.Errorf("%s has no definition, and a value", v.Name)
		}
	}
	// The sketches of another zone and of organizations are forgotten; a new zone has one.
	if after := len(h.engine.rules); after != before-2+1 {
		t.Errorf("%d rules are kept, after %d", after, before)
	}
}

// What a plan does not have any more is saved, and there again when it comes back: in the
// same run, after another start, and if it was gone when the agent started.
func TestDefinitionsComeBack(t *testing.T) {
	h := newHost(t, "2026-03-10 09:00", func(c *Config) { c.IncludeToday = true })
	h.users("team.created", 0, 50, ",plan:pro")
	h.users("team.joined", 0, 20, "")
	gone := map[string]string{
		"events/team.joined.yml": "", "metrics/active.yml": "", "metrics/both.yml": "", "metrics/pro.yml": "", "metrics/tokyo.yml": "",
	}
	h.change(gone, func() { h.users("team.joined", 0, 5, "") }) // still known
	h.tick()                                                    // saves, and forgets
	for _, r := range h.engine.rules {
		if strings.Contains(r.text, "team.joined") {
			t.Errorf("%s is kept in memory", r.text)
		}
	}
	h.users("team.joined", 100, 120, "")
	h.wantOutcomes("(unplanned)", map[string]uint64{"unplanned_event": 20})
	h.wantOutcomes("team.joined", map[string]uint64{"ok": 25}) // totals do not go back
	h.at("2026-03-11 09:00")
	h.tick()
	h.change(nil, nil)
	h.users("team.joined", 25, 40, "")
	h.at("2026-03-12 00:00:01")
	h.want("usage.active.1d", 0)
	h.wantOutcomes("team.joined", map[string]uint64{"ok": 40})
	if got := h.engine.Totals("team.joined"); got["2026-03-10"] != 25 || got["2026-03-11"] != 15 {
		t.Errorf("joined: %v", got)
	}
	h.change(gone, nil)
	h.stop()
	h.start() // without them
	h.change(nil, nil)
	if got := h.engine.Totals("team.joined"); got["2026-03-10"] != 25 || got["2026-03-11"] != 15 {
		t.Errorf("joined, after another start: %v", got)
	}
	h.want("usage.creators.7d", 50)
	h.engine.cfg.Retention = leastRetention
	h.stop()
	h.start()
	h.want("usage.pro.1d", 0)
	if got := h.engine.Totals("team.joined"); got["2026-03-10"] != 25 {
		t.Errorf("joined, after a third start: %v", got)
	}
}

// Reloads leave nothing behind.
func TestReloadsTakeNoMemory(t *testing.T) {
	h := newHost(t, "2026-03-10 09:00")
	count := func() (rules, orphans, effects, tallies int) {
		h.tick()
		return len(h.engine.rules), len(h.engine.orphans), len(h.intake.effects), len(h.intake.tallies)
	}
	h.users("team.joined", 0, 3, "")
	rules, _, effects, tallies := count()
	for i := range 20 {
		h.now = h.now.Add(time.Second)
		h.change(map[string]string{"events/team.joined.yml": "", "metrics/active.yml": "", "metrics/both.yml": "", "metrics/lisbon.yml": inLisbon}, nil)
		h.tick()
		h.change(nil, nil)
		h.users("team.joined", i, i+3, "")
	}
	r, o, e, ta := count()
	if r != rules || e != effects || ta != tallies || o > 2 {
		t.Errorf("%d rules, %d orphans, %d effects and %d tallies after 20 reloads; before %d, 0, %d and %d", r, o, e, ta, rules, effects, tallies)
	}
	if zones := len(h.engine.generation.Load().zones); zones != 3 {
		t.Errorf("%d zones", zones)
	}
}
