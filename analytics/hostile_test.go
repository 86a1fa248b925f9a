package analytics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/internal/testkit"
)

// Whatever numbers clients send, sums are numbers: of a day, of several, of all time, and
// after a restart.
func TestSumsStayNumbers(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.IncludeToday = true })
	h.change(map[string]string{
		"events/paid.yml": `
event: invoice.paid
description: Somebody paid an invoice of the shop.
attributes: {amount: {type: float, role: value}}
`,
		"metrics/paid.yml": `
key_path: usage.paid
description: What was paid for all invoices together.
time_frame: [1d, 7d, all]
events: [{name: invoice.paid, operator: sum(amount)}]
`,
	}, nil)
	yesterday := h.now.Unix() - secondsPerDay
	for _, amount := range []string{"0", "1.7e308"} {
		h.send("analytics.invoice.paid:4294967296|c|@1e-300|#amount:"+amount, "analytics.invoice.paid:4294967296|c|#amount:"+amount,
			fmt.Sprintf("analytics.invoice.paid:4294967296|c|@1e-300|#amount:%s|T%d", amount, yesterday))
	}
	check := func() {
		t.Helper()
		for _, frame := range []string{"1d", "7d", "all"} {
			v := h.value("usage.paid." + frame)
			if v.Value == nil || math.IsInf(*v.Value, 0) || !(*v.Value >= maxTotal) {
				t.Errorf("%s is %v, %s", v.Name, v.Value, v.Status)
			}
		}
	}
	check()
	h.stop()
	h.start()
	check()
	if _, err := ReadReport(h.cfg.StateDir); err != nil {
		t.Error(err)
	}
	h.send("analytics.invoice.paid:1|c|#amount:-1.7e308")
	if text, err := json.Marshal(h.value("usage.paid.all")); err != nil {
		t.Errorf("%s, %v", text, err)
	}
}

// A file that is damaged while the agent runs is begun anew with all that is in memory:
// what was counted, since when, and the name that the host has in Redis, under which its
// totals are.
func TestDamageWhileRunning(t *testing.T) {
	server := testkit.StartRedis(t)
	h := newFleet(t, 1, server)[0]
	h.now = h.now.AddDate(0, 0, -2)
	h.stop()
	if err := os.Remove(filepath.Join(h.cfg.StateDir, storeName)); err != nil {
		t.Fatal(err)
	}
	h.start() // two days ago
	h.users("team.created", 0, 10, ",seats:2")
	h.tick()
	h.now = h.now.AddDate(0, 0, 2)
	h.users("team.created", 0, 20, ",seats:2")
	h.tick()
	round(h)
	instance := h.engine.share.instance
	path := filepath.Join(h.cfg.StateDir, storeName)
	if err := os.Truncate(path, 2*4096); err != nil {
		t.Fatal(err)
	}
	h.users("team.created", 20, 30, ",seats:2")
	h.tick()
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 {
		t.Fatalf("nothing was set aside: %v\n%s", aside, h.log.String())
	}
	h.stop()
	h.start()
	if h.engine.share.instance != instance {
		t.Error("after a restart the host has another name in Redis")
	}
	h.want("usage.creators.1d", 30)
	h.want("usage.creators.7d", 30)
	if v := h.value("usage.creators.7d"); v.Observed != 3 {
		t.Errorf("%d days were observed, want 3", v.Observed)
	}
	values := forAll(t, []*host{h})
	if got := number(t, values, "usage.teams.7d"); got != 40 {
		t.Errorf("the fleet counted %v teams, want 40", got)
	}
}

// A clock that was years ahead for hours has erased what was old by it, and no more:
// once it is right again windows that begin from then on have values.
func TestClockThatWasWrongForHours(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	hours := func() {
		for range 2 * steadyFor / tickEvery {
			h.now = h.now.Add(tickEvery)
			h.engine.drain(h.now)
			h.engine.keepHouse(h.now)
		}
	}
	h.users("team.created", 0, 10, "")
	h.tick()
	h.at("2028-01-01")
	hours()
	h.at("2026-03-11 12:00")
	h.users("team.created", 0, 20, "")
	hours()
	h.at("2026-03-12")
	h.want("usage.creators.1d", 20)
	if v := h.value("usage.creators.7d"); v.Status != StatusExpired {
		t.Errorf("a window with days that were erased is %v, %s", v.Value, v.Status)
	}
	h.stop()
	h.start()
	h.want("usage.creators.1d", 20)
	h.at("2026-04-30 12:00")
	hours()
	if want := date(t, "2026-04-30") - 40; h.engine.erased != want {
		t.Errorf("days before %v are erased, want %v", h.engine.erased, want)
	}
}

// Dead letters name nobody, however a client writes it, and of those who want to stay
// unknown not even a pseudonym; they are short whatever was sent.
func TestDeadLettersOfHostileLines(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.Mode = "strict" })
	mail := "alice@example.com"
	escaped := plan.Escape(mail)
	h.send(
		"analytics.team.created:1|c|#"+mail+",note:"+escaped+",contact:"+escaped+","+mail+":1",
		"analytics.team.created:1|c|#username:alice,phone:alice,api_token:alice",
		"analytics.nobody:1|c|#"+mail+",text:"+escaped+",a:"+mail,
	)
	h.send("analytics.team.created:1|c|#user_id:4711,owner_id:4711,plan:gold,_anon:1")
	var many []string
	for i := range 400 {
		many = append(many, fmt.Sprintf("%s%d:\x01\x02", strings.Repeat("\x01", 10), i))
	}
	h.send("analytics.team.created:1|c|#" + strings.Join(many, ","))
	h.tick()
	lines := strings.Split(strings.TrimSpace(h.letters()), "\n")
	if len(lines) != 5 {
		t.Fatalf("%d letters", len(lines))
	}
	for _, line := range lines {
		if strings.Contains(line, "alice") || strings.Contains(line, strings.TrimPrefix(escaped, "b64.")) || strings.Contains(line, "4711") {
			t.Errorf("it names somebody: %s", line)
		}
		if len(line) > 16<<10 {
			t.Errorf("it has %d bytes", len(line))
		}
	}
	if strings.Contains(lines[3], "hmac.") || !strings.Contains(lines[3], "plan:gold") {
		t.Errorf("of an anonymous event is written %s", lines[3])
	}
}

// No dead letter is older than the retention, however few there are.
func TestDeadLettersExpire(t *testing.T) {
	h := newHost(t, time.Now().UTC().Format(time.DateTime))
	send := func(name string) {
		h.send("analytics." + name + ":1|c")
		h.tick()
	}
	expire := func(days int) {
		h.now = h.now.AddDate(0, 0, days)
		h.engine.letters.expire(h.now, 40*oneDay)
	}
	all := func() string {
		before, _ := os.ReadFile(filepath.Join(h.cfg.StateDir, lettersName+".1"))
		return string(before) + h.letters()
	}
	wrote := func() { // as of now
		if err := os.Chtimes(h.engine.letters.path, h.now, h.now); err != nil {
			t.Fatal(err)
		}
	}
	send("first")
	expire(15)
	send("second")
	wrote()
	h.stop()
	h.start()
	expire(6) // the first is 21 days old, the second 6
	send("third")
	wrote()
	if got := all(); !strings.Contains(got, "first") || !strings.Contains(got, "second") || !strings.Contains(got, "third") {
		t.Errorf("after three weeks there is\n%s", got)
	}
	expire(15) // 36, 21, 15
	if got := all(); strings.Contains(got, "first") || strings.Contains(got, "second") || !strings.Contains(got, "third") {
		t.Errorf("after five weeks there is\n%s", got)
	}
	expire(26)
	expire(21)
	if got := all(); got != "" {
		t.Errorf("after all there is\n%s", got)
	}
}

// After a loss of all data the host that speaks reads anew what the others brought back,
// and not only when that is due anyway: of what it counted itself, and of what it did not.
func TestTheSpeakerReadsWhatWasBroughtBack(t *testing.T) {
	server := testkit.StartRedis(t)
	hosts := newFleet(t, 2, server, func(c *Config) { c.Redis.RefreshInterval, c.Redis.RepairInterval = time.Hour, time.Hour })
	leader, other := hosts[0], hosts[1]
	leader.users("team.created", 0, 10, "")
	other.users("team.created", 0, 50, ",plan:pro")
	other.tick()
	round(other)
	if err := other.engine.share.lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	round(leader, other)
	if leader.engine.share.stats.leader.Load() != 1 {
		t.Fatal("the host that counted less does not lead")
	}
	check := func(when string) {
		t.Helper()
		values := forAll(t, hosts)
		if all, pro := number(t, values, "usage.creators.1d"), number(t, values, "usage.pro.1d"); all != 50 || pro != 50 {
			t.Errorf("%s: %v users, %v on plan pro, want 50 of each", when, all, pro)
		}
	}
	check("before")
	server.Do("FLUSHALL")
	round(leader, other)
	check("after")
}

// What a kill left half written is gone after the next start, and a report that cannot be
// written is told once.
func TestReportsThatCannotBeWritten(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.stop()
	left := filepath.Join(h.cfg.StateDir, reportName+".tmp-17")
	if err := os.WriteFile(left, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
	path := filepath.Join(h.cfg.StateDir, reportName)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "folder"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		h.tick()
	}
	if n := strings.Count(h.log.String(), "the report cannot be written"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}

// While nothing can be saved, days stay in memory however old they are; once they are on
// disk they do not.
func TestDaysThatAreNotSavedStay(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.users("team.created", 0, 100, "")
	if err := h.engine.store.db.Close(); err != nil {
		t.Fatal(err)
	}
	inMemory := func() (n int) {
		for _, r := range h.engine.rules {
			if c := r.days[date(t, "2026-03-10")]; c != nil && c.sketch != nil {
				n++
			}
		}
		return n
	}
	before := inMemory()
	h.at("2026-03-15 12:00")
	h.tick()
	if got := inMemory(); got != before || h.engine.stats.saveErrors.Load() == 0 {
		t.Errorf("%d of %d sketches are left, and saves failed %d times", got, before, h.engine.stats.saveErrors.Load())
	}
	if _, err := h.engine.store.open(func(*record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	h.tick()
	if got := inMemory(); got != 0 {
		t.Errorf("%d sketches are in memory, and on disk", got)
	}
	h.stop()
	h.start()
	h.want("usage.creators.7d", 100)
}

// A file of counts that is sound and older than the report is told.
func TestAnOlderFileIsTold(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.stop()
	path := filepath.Join(h.cfg.StateDir, storeName)
	older, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	h.users("team.created", 0, 10, "")
	h.stop()
	if h.start(); strings.Contains(h.log.String(), "holds less") {
		t.Errorf("a file that is as it was left is told:\n%s", h.log.String())
	}
	h.stop()
	if err := os.WriteFile(path, older, 0o600); err != nil {
		t.Fatal(err)
	}
	if h.start(); !strings.Contains(h.log.String(), "holds less than was saved") || h.engine.stats.damaged.Load() != 1 {
		t.Errorf("the log says\n%s", h.log.String())
	}
}

// Of a record that is not what was written nothing is believed, be it only the number.
func TestDamagedRecords(t *testing.T) {
	p := newPacker()
	text := p.append(nil, &record{rule: "team.created", day: date(t, "2026-03-10"), total: 41})
	if r, err := readRecord(text); err != nil || r.total != 41 {
		t.Fatalf("%v, %v", r, err)
	}
	for i := range text {
		broken := bytes.Clone(text)
		broken[i] ^= 4
		if r, err := readRecord(broken); err == nil {
			t.Errorf("with byte %d of %d changed it is %v", i, len(text), r)
		}
	}
}

// A server that went back to what it had a while ago is brought up to date by the host
// that reads it, without waiting for the next repair.
func TestARedisThatWentBackIsRepaired(t *testing.T) {
	server := testkit.StartRedis(t)
	h := newFleet(t, 1, server, func(c *Config) { c.Redis.RepairInterval = time.Hour })[0]
	next := func() {
		h.now = h.now.Add(time.Second)
		round(h)
	}
	h.users("team.created", 0, 50, "")
	next()
	key := dayKeys(forAll(t, []*host{h})["usage.creators.1d"], h.now, 1)[0]
	server.Do("COPY", key, "older")
	h.users("team.created", 50, 100, "")
	next()
	if got := server.Number("PFCOUNT", key); got != 100 {
		t.Fatalf("%v users before", got)
	}
	server.Do("COPY", "older", key, "REPLACE")
	next() // it sees what is missing
	next()
	if got := server.Number("PFCOUNT", key); got != 100 {
		t.Errorf("%v users after, want 100", got)
	}
}
