package analytics

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/raw"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// definitions are the files of the tests' plan.
var definitions = map[string]string{
	"events/team.created.yml": `
event: team.created
description: Somebody created a team in an organization.
owner: growth
version: 1-0-0
attributes:
  user_id:         {type: int, required: true, role: identity, identity: user.id}
  organization_id: {type: int, role: identity, identity: organization.id}
  plan:            {type: enum, values: [free, pro], role: tag}
  seats:           {type: int, role: value}
  note:            {type: string, role: tag}
`,
	"events/team.joined.yml": `
event: team.joined
description: Somebody joined a team of an organization.
owner: growth
version: 1-0-0
attributes:
  user_id: {type: int, role: identity, identity: user.id}
`,
	"events/site.visited.yml": `
event: site.visited
description: Somebody looked at a page of the site.
owner: growth
version: 1-0-0
consent: [analytics]
mode: strict
attributes:
  user_id: {type: int, required: true, role: identity, identity: user.id}
`,
	"metrics/metrics.yml": `
key_path: usage.creators
description: Users who created at least one team.
time_frame: [1d, 7d, 28d]
events: [{name: team.created, unique: user.id}]
`,
	"metrics/pro.yml": `
key_path: usage.pro
description: Users who created at least one team on plan pro.
time_frame: [1d]
events: [{name: team.created, unique: user.id, filter: {plan: pro}}]
`,
	"metrics/active.yml": `
key_path: usage.active
description: Users who created or joined at least one team.
time_frame: [1d]
events: [{name: team.created, unique: user.id}, {name: team.joined, unique: user.id}]
`,
	"metrics/both.yml": `
key_path: usage.both
description: Users who created and joined at least one team.
time_frame: [1d]
operator: and
events: [{name: team.created, unique: user.id}, {name: team.joined, unique: user.id}]
`,
	"metrics/weeks.yml": `
key_path: usage.weeks
description: Users who created at least one team, in whole weeks.
time_frame: [7d, 28d]
window: gitlab_weeks
events: [{name: team.created, unique: user.id}]
`,
	"metrics/calendar.yml": `
key_path: usage.calendar
description: Users who created at least one team, in the calendar.
time_frame: [week, month]
window: calendar
events: [{name: team.created, unique: user.id}]
`,
	"metrics/total.yml": `
key_path: usage.teams
description: Teams that were created, however many.
time_frame: [1d, 7d, all]
events: [{name: team.created}]
`,
	"metrics/seats.yml": `
key_path: usage.seats
description: Seats of the teams that were created.
time_frame: [1d]
events: [{name: team.created, operator: sum(seats)}]
`,
	"metrics/tokyo.yml": `
key_path: usage.tokyo
description: Users who created at least one team, in Japan's days.
time_frame: [1d]
timezone: Asia/Tokyo
events: [{name: team.created, unique: user.id}]
`,
}

// host is an engine with one reader, and a clock that the test moves.
type host struct {
	t      *testing.T
	cfg    Config
	plan   *plan.Plan
	now    time.Time
	log    strings.Builder
	engine *Engine
	intake *Intake
	parser *parser.Parser
	known  map[string]*Occurrence
	// counters is what went to the ordinary pipeline: occurrences, by name and tags.
	counters map[string]float64
	refused  int
}

func loadPlan(t testing.TB, files map[string]string, options plan.Options) *plan.Plan {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := plan.Load(dir, options)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newHost(t *testing.T, now string, change ...func(*Config)) *host {
	t.Helper()
	h := &host{t: t, cfg: DefaultConfig(), parser: parser.New(parser.DefaultConfig()), counters: map[string]float64{}}
	h.cfg.StateDir = filepath.Join(t.TempDir(), "analytics")
	h.cfg.Raw.Format = raw.FormatNone                    // raw events have tests of their own
	h.cfg.Keys = "test=000102030405060708090a0b0c0d0e0f" // estimates depend on it
	for _, c := range change {
		c(&h.cfg)
	}
	h.plan = loadPlan(t, definitions, h.cfg.Options())
	h.at(now)
	h.start()
	t.Cleanup(func() { _ = h.engine.Close() })
	return h
}

// at sets the clock.
func (h *host) at(moment string) {
	h.t.Helper()
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, moment); err == nil {
			h.now = t
			return
		}
	}
	h.t.Fatalf("%q is no time", moment)
}

func (h *host) start() {
	h.t.Helper()
	e, err := newAt(h.cfg, h.plan, slog.New(slog.NewTextHandler(&h.log, nil)), h.now)
	if err != nil {
		h.t.Fatal(err)
	}
	h.engine, h.intake, h.known = e, e.NewIntake(), map[string]*Occurrence{}
}

// stop ends the engine as a signal does.
func (h *host) stop() {
	h.t.Helper()
	if err := h.engine.close(h.now); err != nil {
		h.t.Fatal(err)
	}
}

// crash gives up everything since the last save.
func (h *host) crash() {
	h.t.Helper()
	if err := h.engine.Close(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) tick() { h.engine.tick(h.now, true) }

// send takes lines in as the aggregator does.
func (h *host) send(lines ...string) {
	h.t.Helper()
	for _, line := range lines {
		var all metric.Lines
		h.parser.Packet([]byte(line), false, &all)
		if len(all.Samples) != 1 {
			h.t.Fatalf("%q is no metric", line)
		}
		s := &all.Samples[0]
		bytes := string(s.Name()) + "|" + string(s.TailBytes())
		o := h.known[bytes]
		var id metric.Identity
		if o == nil {
			if why := h.parser.Describe(s, &id); why != metric.Accepted {
				h.t.Fatalf("%q: %v", line, why)
			}
			if o = h.intake.Resolve(&id, h.now.Unix()); o == nil {
				h.counters[line]++ // a plain metric
				continue
			}
		}
		if !o.Add(s.Value, all.Packed(s), h.now.Unix()) {
			h.refused++
			continue
		}
		if h.known[bytes] != nil {
			continue
		}
		if o.Metered() {
			var tags []string
			for _, tag := range id.Tags {
				tags = append(tags, string(tag))
			}
			slices.Sort(tags)
			h.counters[string(id.Name)+" "+strings.Join(tags, ",")] += s.Value / id.Rate
		}
		if kept := o.Keep(); kept != nil {
			h.known[bytes] = kept
		}
	}
}

// users sends an event for each of some users.
func (h *host) users(event string, from, to int, tags string) {
	h.t.Helper()
	for i := from; i < to; i++ {
		h.send(fmt.Sprintf("analytics.%s:1|c|#user_id:%d%s", event, i, tags))
	}
}

// value returns a metric's value, by the name of its gauge.
func (h *host) value(name string) *Value {
	h.t.Helper()
	h.tick()
	for _, v := range h.engine.Values() {
		if v.Name == name {
			return &v
		}
	}
	h.t.Fatalf("there is no %s", name)
	return nil
}

// want checks a metric's value.
func (h *host) want(name string, want float64) {
	h.t.Helper()
	v := h.value(name)
	got := math.NaN()
	if v.Value != nil {
		got = *v.Value
	}
	if !(math.Abs(got-want) <= 0.02*want) {
		h.t.Errorf("%s: %s is %v (%s), want %v", h.now.Format(time.DateTime), name, got, v.Status, want)
	}
}

func (h *host) outcomes(event string) map[string]uint64 {
	h.engine.drain(h.now)
	all := map[string]uint64{}
	for _, e := range h.engine.generation.Load().books {
		if e.name != event {
			continue
		}
		for o := range plan.Outcomes {
			if n := e.outcomes[o].Load(); n > 0 {
				all[o.String()] = n
			}
		}
	}
	return all
}

func (h *host) wantOutcomes(event string, want map[string]uint64) {
	h.t.Helper()
	if diff := cmp.Diff(want, h.outcomes(event)); diff != "" {
		h.t.Errorf("outcomes of %s (-want +got):\n%s", event, diff)
	}
}

// What one day brings is in the windows that begin with the next one.
func TestMetricsCountEvents(t *testing.T) {
	h := newHost(t, "2026-03-10 09:00")
	h.users("team.created", 0, 100, ",plan:free,seats:2")
	h.users("team.created", 50, 90, ",plan:pro,seats:3,organization_id:7")
	h.users("team.created", 50, 90, ",plan:pro,seats:3,organization_id:7") // known by now
	h.users("team.joined", 80, 130, "")
	h.want("usage.creators.1d", 0)
	h.at("2026-03-11 00:00:01")
	h.want("usage.creators.1d", 100)
	h.want("usage.creators.7d", 100)
	h.want("usage.pro.1d", 40)
	h.want("usage.active.1d", 130)
	h.want("usage.both.1d", 20)
	h.want("usage.teams.1d", 180)
	h.want("usage.teams.all", 180)
	h.want("usage.seats.1d", 200+240)
	h.at("2026-03-12 00:00:01")
	h.want("usage.creators.1d", 0)
	h.want("usage.creators.7d", 100)
	h.at("2026-03-18 00:00:01")
	h.want("usage.creators.7d", 0)
	h.want("usage.creators.28d", 100)
	h.at("2026-04-08")
	h.want("usage.creators.28d", 0)
	h.want("usage.teams.all", 180)
}

// With include_today what was counted just now is there.
func TestTheRunningDayCountsIfAsked(t *testing.T) {
	h := newHost(t, "2026-03-10 09:00", func(c *Config) { c.IncludeToday = true })
	h.users("team.created", 0, 100, "")
	h.want("usage.creators.1d", 100)
	h.users("team.created", 100, 150, "")
	h.want("usage.creators.1d", 150)
	h.want("usage.calendar.week", 150)
	h.want("usage.weeks.7d", 0) // whole weeks are whole weeks
	h.at("2026-03-11")
	h.users("team.created", 140, 170, "")
	h.want("usage.creators.1d", 30)
	h.want("usage.creators.7d", 170)
	h.at("2026-03-17")
	h.want("usage.creators.7d", 30)
}

// A restart loses nothing, a crash what came after the last save.
func TestRestart(t *testing.T) {
	h := newHost(t, "2026-03-10 09:00")
	h.users("team.created", 0, 6000, ",seats:1")
	h.stop()
	h.at("2026-03-10 09:05")
	h.start()
	h.users("team.created", 3000, 9000, ",seats:1")
	h.tick()
	h.users("team.created", 9000, 9500, ",seats:1")
	h.crash()
	h.at("2026-03-10 10:00")
	h.start()
	h.users("team.created", 8000, 10000, ",seats:1")
	h.at("2026-03-11 00:00:01")
	h.want("usage.creators.1d", 10000)
	h.want("usage.teams.1d", 6000+6000+2000)
	h.want("usage.seats.1d", 6000+6000+2000)
	h.stop()
	h.start()
	h.want("usage.creators.1d", 10000)
	h.want("usage.teams.all", 14000)
	h.at("2026-03-30") // the day is on disk only by now
	h.stop()
	h.start()
	h.want("usage.creators.28d", 10000)
}

// Who comes again after midnight counts for the new day, and one who is known costs
// nothing but a comparison until then.
func TestMidnight(t *testing.T) {
	h := newHost(t, "2026-03-10 23:59:59")
	h.users("team.created", 0, 10, "")
	h.at("2026-03-11 00:00:00")
	h.users("team.created", 0, 5, "")
	h.at("2026-03-11 00:20:00")
	h.tick()
	h.users("team.created", 5, 7, "")
	h.want("usage.creators.1d", 10)
	h.want("usage.teams.1d", 10)
	for _, name := range []string{"usage.creators.1d", "usage.teams.1d"} {
		if v := h.value(name); v.Revision != 0 {
			t.Errorf("%s changed %d times after its day, and nothing was late", name, v.Revision)
		}
	}
	h.at("2026-03-12")
	h.want("usage.creators.1d", 7)
	h.want("usage.teams.1d", 7)
	h.want("usage.creators.7d", 10)
	h.want("usage.teams.7d", 17)
}

// A clock that is set forward or back makes no double count and erases nothing.
func TestClockJumps(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.users("team.created", 0, 10, "")
	h.tick()
	h.at("2028-01-01") // somebody mistyped the year
	h.users("team.created", 0, 3, "")
	h.tick()
	h.at("2026-03-10 12:10")
	h.users("team.created", 0, 20, "")
	h.tick()
	h.at("2026-03-14")
	h.users("team.created", 100, 101, "")
	h.tick() // the 10th is on disk only
	h.at("2026-03-10 13:00")
	h.users("team.created", 10, 30, "")
	h.tick()
	h.at("2026-03-11")
	h.want("usage.creators.1d", 30)
	h.want("usage.teams.1d", 10+20+20)
	h.at("2028-01-02")
	h.want("usage.creators.1d", 3)
}

// An event with a time of its own counts for its own day while that is at most two
// days ago; the values change, and say so.
func TestLateEvents(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.users("team.created", 0, 10, "")
	h.at("2026-03-11")
	h.want("usage.creators.1d", 10)
	before := h.value("usage.creators.1d")
	late := func(user int, at string) string {
		moment, err := time.Parse(time.DateTime, at)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("analytics.team.created:1|c|#user_id:%d|T%d", user, moment.Unix())
	}
	h.send(late(11, "2026-03-10 23:59:59"), late(11, "2026-03-10 23:59:59"), late(12, "2026-03-09 00:00:00"), late(13, "2026-03-08 23:59:59"))
	h.send("analytics.team.created:1|c|#user_id:14,_ts:1773187200000") // 2026-03-11 00:00
	h.want("usage.creators.1d", 11)
	h.want("usage.teams.1d", 12)
	h.want("usage.creators.7d", 12)
	h.want("usage.teams.7d", 13)
	after := h.value("usage.creators.1d")
	if after.Revision != before.Revision+1 || before.Final || after.Final {
		t.Errorf("revision %d, final %v; before it was %d, %v", after.Revision, after.Final, before.Revision, before.Final)
	}
	h.wantOutcomes("team.created", map[string]uint64{"ok": 14, "late": 1})
	h.at("2026-03-13")
	h.send(late(15, "2026-03-10 01:00:00"))
	h.at("2026-03-14")
	if v := h.value("usage.creators.28d"); v.Final {
		t.Error("a window that ended yesterday is final")
	}
	h.at("2026-03-12")
	h.want("usage.creators.1d", 1)
	h.at("2026-03-11")
	h.want("usage.creators.1d", 11)
}

// An event from the future counts for now.
func TestFutureEvents(t *testing.T) {
	h := newHost(t, "2026-03-10 23:58:00")
	unix := h.now.Unix()
	h.send(fmt.Sprintf("analytics.team.created:1|c|#user_id:1|T%d", unix+300)) // the 11th by its clock: near enough
	h.send(fmt.Sprintf("analytics.team.created:1|c|#user_id:2|T%d", unix+301))
	h.wantOutcomes("team.created", map[string]uint64{"ok": 1, "future": 1})
	h.at("2026-03-11 12:00")
	h.want("usage.creators.1d", 1)
	h.at("2026-03-12")
	h.want("usage.creators.1d", 1)
	h.want("usage.creators.7d", 2)
}

// A zone's day begins at its own midnight.
func TestZones(t *testing.T) {
	h := newHost(t, "2026-03-10 14:59:59") // Tokyo is nine hours ahead
	h.send("analytics.team.created:1|c|#user_id:1")
	h.at("2026-03-10 15:00:00")
	h.send("analytics.team.created:1|c|#user_id:1", "analytics.team.created:1|c|#user_id:2")
	h.want("usage.tokyo.1d", 1)
	h.at("2026-03-11 15:00:00")
	h.want("usage.tokyo.1d", 2)
	h.want("usage.creators.1d", 2)
	h.at("2026-03-12 15:00:00")
	h.want("usage.tokyo.1d", 0)
}

// A line that was sampled does not say who is missing: totals are scaled, and the
// counts of users say that they are too low.
func TestSampledLines(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.send("analytics.team.created:1|c|#user_id:1,seats:2", "analytics.team.created:2|c|@0.1|#user_id:2,seats:2")
	h.wantOutcomes("team.created", map[string]uint64{"ok": 1, "sampled_unique": 1})
	h.at("2026-03-11")
	h.want("usage.creators.1d", 1)
	h.want("usage.teams.1d", 21)
	h.want("usage.seats.1d", 42)
	if !h.value("usage.creators.1d").Sampled || h.value("usage.teams.1d").Sampled {
		t.Error("a count of users is not marked as sampled, or a total is")
	}
	h.stop()
	h.start()
	if !h.value("usage.creators.1d").Sampled {
		t.Error("after a restart the mark is gone")
	}
	if got := h.counters["team.created "]; got != 21 {
		t.Errorf("the counter has %v, want 21", got)
	}
}

// A line may stand for several occurrences; anything but a whole number is none.
func TestCountsOfLines(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.send("analytics.team.created:3|c|#user_id:1", "analytics.team.created:3|c|#user_id:1", "analytics.team.created:1:2:4|c|#user_id:1")
	for _, bad := range []string{"0", "-1", "1.5", "1e300", "4294967297", "2:0", "2:0.5"} {
		h.send("analytics.team.created:"+bad+"|c|#user_id:1", "analytics.team.created:"+bad+"|c|#user_id:99")
	}
	h.wantOutcomes("team.created", map[string]uint64{"ok": 3, "bad_count": 14})
	h.tick()
	letters := strings.Split(strings.TrimSpace(h.letters()), "\n")
	for _, l := range letters {
		if !strings.Contains(l, "send 1, 2, 3") {
			t.Errorf("a dead letter does not say why: %s", l)
		}
	}
	if len(letters) < 5 {
		t.Errorf("%d dead letters", len(letters))
	}
	h.at("2026-03-11")
	h.want("usage.teams.1d", 13)
	h.want("usage.creators.1d", 1)
	if h.refused != 14 {
		t.Errorf("%d lines are refused, want 14", h.refused)
	}
}

// An _id counts once, whoever sends it again; on a line of several occurrences it
// names the line and means nothing.
func TestRepeatedIDsCountOnce(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	for range 3 {
		h.send("analytics.team.created:1|c|#user_id:1,_id:a1", "analytics.team.created:2|c|#user_id:1,_id:a2", "analytics.team.joined:1|c|#user_id:1,_id:a1")
	}
	h.wantOutcomes("team.created", map[string]uint64{"ok": 4, "duplicate": 2})
	h.wantOutcomes("team.joined", map[string]uint64{"ok": 1, "duplicate": 2})
	h.at("2026-03-11")
	h.want("usage.teams.1d", 7)
}

// The memory for ids is bounded, and what is within the bound is known for certain.
func TestIDsAreForgottenInOrder(t *testing.T) {
	d := newDedup(sipKey{1, 2})
	const n = 3 * maxIDs
	for i := range n {
		if d.seen(d.hash("e", fmt.Append(nil, i))) {
			t.Fatalf("id %d is taken for another", i)
		}
	}
	for i := n - maxIDs; i < n; i++ {
		if !d.seen(d.hash("e", fmt.Append(nil, i))) {
			t.Fatalf("id %d of %d is forgotten", i, n)
		}
	}
	if d.seen(d.hash("e", []byte("0"))) {
		t.Error("the first id is still known")
	}
}

// Identities are in no tag of the counter, whatever the client sends.
func TestIdentitiesAreNoTags(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.Prefixes = []string{"analytics.", "sentry.analytics."} })
	h.send(
		"analytics.team.created:1|c|#user_id:17,organization_id:18,plan:pro,env:prod,other_id:19,dd.internal.entity_id:pod,dd.internal.user:17",
		"sentry.analytics.team.created:1|c|#user_id:17,plan:pro,note:b64.YSxifGMKZA", // "a,b|c\nd"
		"analytics.unknown:1|c|#user_id:17",
		"analytics.:1|c|#user_id:17", // a prefix and no name
		"analytics:1|c|#user_id:17",
		"analyticsteam.created:1|c",
	)
	if diff := cmp.Diff(map[string]float64{
		"team.created dd.internal.entity_id:pod,env:prod,plan:pro": 1,
		"team.created note:a_b_c_d,plan:pro":                       1,
		"analytics.unplanned " + h.bucket("unknown"):               1,
		"analytics.unplanned " + h.bucket(""):                      1,
		"analytics:1|c|#user_id:17":                                1, // no event at all
		"analyticsteam.created:1|c":                                1,
	}, h.counters); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

func (h *host) bucket(name string) string {
	return fmt.Sprintf("bucket:%d", h.engine.ids.hash("", []byte(name))%64)
}

// However many names nobody planned there are, they are so many counters at most.
func TestUnplannedNamesAreBounded(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.UnplannedBuckets = 5 })
	for i := range 1000 {
		h.send(fmt.Sprintf("analytics.page_%d:1|c", i))
	}
	if len(h.counters) != 5 {
		t.Errorf("there are %d counters, want 5: %v", len(h.counters), h.counters)
	}
	h.wantOutcomes("(unplanned)", map[string]uint64{"unplanned_event": 1000})
}

// Mode strict refuses what mode warn counts as far as it is right.
func TestModes(t *testing.T) {
	for mode, want := range map[string]float64{"warn": 3, "strict": 1} {
		h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.Mode = mode })
		h.send("analytics.team.created:1|c|#user_id:1", "analytics.team.created:1|c", "analytics.team.created:1|c|#user_id:x", "analytics.team.created:1|ms|#user_id:1")
		h.send("analytics.nobody:1|c", "analytics.nobody:7|g")
		h.at("2026-03-11")
		h.want("usage.teams.1d", want)
		h.want("usage.creators.1d", 1)
		h.wantOutcomes("team.created", map[string]uint64{"ok": 1, "required_missing": 1, "datatype_mismatch": 1, "not_a_counter": 1})
	}
}

// What consent was denied for leaves no trace but a number.
func TestConsentDenied(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.send("analytics.site.visited:1|c|#user_id:4711", "analytics.site.visited:1|c|#user_id:4711,_consent:marketing", "analytics.site.visited:1|c|#user_id:4712,_consent:analytics")
	h.wantOutcomes("site.visited", map[string]uint64{"consent_denied": 2, "ok": 1})
	h.tick()
	if letters := h.letters(); len(letters) > 0 {
		t.Errorf("there are dead letters: %s", letters)
	}
	if diff := cmp.Diff(map[string]float64{"site.visited ": 1}, h.counters); diff != "" {
		t.Errorf("counters (-want +got):\n%s", diff)
	}
}

func (h *host) letters() string {
	text, _ := os.ReadFile(filepath.Join(h.cfg.StateDir, lettersName))
	return string(text)
}
