package analytics

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

// A file that is damaged anywhere is set aside or loses what is damaged; the agent
// starts, says so, and counts.
func TestDamagedFileIsSetAside(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.users("team.created", 0, 5000, ",plan:pro")
	h.stop()
	path := filepath.Join(h.cfg.StateDir, storeName)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(3, 4))
	damages := map[string][]byte{
		"empty":      {},
		"text":       []byte("this is no database\n"),
		"zeros":      make([]byte, len(sound)),
		"half":       sound[:len(sound)/2],
		"two pages":  sound[:2*4096],
		"three":      sound[:3*4096],
		"one byte":   sound[:1],
		"page wiped": append(append(bytes.Clone(sound[:2*4096]), make([]byte, 4096)...), sound[3*4096:]...),
	}
	for i := range 20 {
		broken := bytes.Clone(sound)
		for range 1 + i*10 {
			broken[random.IntN(len(broken))] ^= byte(1 + random.IntN(255))
		}
		damages[fmt.Sprintf("bytes changed %d", i)] = broken
	}
	for name, content := range damages {
		t.Run(name, func(t *testing.T) {
			h.t = t
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			h.log.Reset()
			h.at("2026-03-10 13:00")
			h.start()
			h.users("team.created", 10_000, 10_100, "")
			h.tick()
			h.at("2026-03-11 12:00")
			v := h.value("usage.creators.1d")
			if v.Value == nil || !(*v.Value >= 100 && *v.Value <= 5200) {
				t.Errorf("the value is %v, %s", v.Value, v.Status)
			}
			lost := *v.Value < 5000
			if said := strings.Contains(h.log.String(), "level=ERROR"); lost && !said {
				t.Errorf("the log does not say that counts are lost:\n%s", h.log.String())
			}
			h.stop()
			aside, _ := filepath.Glob(path + ".damaged-*")
			for _, file := range aside {
				os.Remove(file)
			}
		})
	}
}

// A file that cannot be opened for want of something else than what is in it stays where
// it is: when there is room again the counts are there.
func TestASoundFileIsNotSetAside(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.users("team.created", 0, 50, "")
	h.stop()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	few := limit
	few.Cur = 0 // files that are open stay so
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	_, err := newAt(h.cfg, h.plan, slog.New(slog.DiscardHandler), h.now)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), storeName) {
		t.Errorf("without any file to open: %v", err)
	}
	h.start()
	h.at("2026-03-11")
	h.want("usage.creators.1d", 50)
}

// Two agents cannot have one file.
func TestASecondAgentIsRefused(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	_, err := newAt(h.cfg, h.plan, slog.New(slog.DiscardHandler), h.now)
	if err == nil || !strings.Contains(err.Error(), "give each agent its own state_dir") {
		t.Errorf("a second agent: %v", err)
	}
	h.users("team.created", 0, 3, "")
	h.stop()
	h.start()
	h.at("2026-03-11")
	h.want("usage.creators.1d", 3)
}

// Days are erased after their retention, and from then on a month is what it was when
// it was complete; totals since ever stay.
func TestRetention(t *testing.T) {
	h := newHost(t, "2026-01-05 12:00")
	for d := date(t, "2026-01-05"); d < date(t, "2026-02-28"); d++ {
		h.at(d.String() + " 12:00")
		user := int(d - date(t, "2026-01-05"))
		h.users("team.created", user, user+1, "")
		h.tick()
		for range steadyFor/tickEvery + 1 {
			h.now = h.now.Add(tickEvery)
			h.engine.keepHouse(h.now)
		}
	}
	h.at("2026-02-28 12:00")
	h.want("usage.teams.all", 54)
	h.want("usage.calendar.month", 27) // January's first days are erased
	h.want("usage.creators.28d", 28)
	days := 0
	for _, r := range h.engine.rules {
		if r.text == "team.created unique user_id as user.id" {
			days = len(r.days)
		}
	}
	if days != 41 { // 40 and the one under way, as of yesterday
		t.Errorf("%d days are kept, want 41", days)
	}
	h.stop()
	h.start()
	h.want("usage.teams.all", 54)
	h.want("usage.calendar.month", 27)
	h.at("2026-03-20 12:00")
	h.want("usage.calendar.month", 27) // February, of which the agent saw 27 days
}

// With a new key before the old one both count; the old one is read until the new one
// has the whole window, and nobody counts twice.
func TestKeysAreRotated(t *testing.T) {
	const first, second = "old=00112233445566778899aabbccddeeff", "new=ffeeddccbbaa99887766554433221100"
	h := newHost(t, "2026-03-01 12:00", func(c *Config) { c.Keys = first })
	day := func(moment string, from, to int) {
		h.at(moment)
		h.users("team.created", from, to, "")
		h.tick()
	}
	restart := func(keys metric.Secret) {
		h.stop()
		h.cfg.Keys = keys
		h.start()
	}
	day("2026-03-01 12:00", 0, 100)
	day("2026-03-04 12:00", 0, 100)
	restart(second + "," + first)
	h.users("team.created", 0, 30, "") // who came before noon is in the old one only
	h.at("2026-03-05")
	h.want("usage.creators.1d", 100)
	day("2026-03-05 12:00", 100, 150)
	h.at("2026-03-06")
	h.want("usage.creators.7d", 150)
	h.want("usage.creators.1d", 50)
	h.at("2026-03-11")
	h.want("usage.creators.7d", 150) // it begins with the day of the change
	day("2026-03-13 12:00", 100, 160)
	h.at("2026-03-14")
	h.want("usage.creators.7d", 60)
	h.want("usage.creators.28d", 160)
	h.at("2026-04-04")
	h.want("usage.creators.28d", 60)
	restart(second)
	h.want("usage.creators.28d", 60)
}

// The key that the agent makes itself stays the same, and nobody else can read it.
func TestOwnKey(t *testing.T) {
	own := func(c *Config) { c.Keys = "" }
	h := newHost(t, "2026-03-10 12:00", own)
	before := h.engine.keys[0]
	h.stop()
	h.start()
	if after := h.engine.keys[0]; !bytes.Equal(before.secret, after.secret) || before.id != after.id {
		t.Error("the key is another after a restart")
	}
	other := newHost(t, "2026-03-10 12:00", own)
	if bytes.Equal(before.secret, other.engine.keys[0].secret) {
		t.Error("two agents made the same key")
	}
	if text := h.log.String(); strings.Contains(text, hex.EncodeToString(before.secret)) {
		t.Error("the key is in the log")
	}
}

// What is kept is for the agent's own eyes.
func TestFilesArePrivate(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.Keys = "" })
	h.send("analytics.nobody:1|c")
	h.tick()
	h.stop()
	err := filepath.WalkDir(h.cfg.StateDir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeys(t *testing.T) {
	for text, want := range map[string]string{
		"00112233445566778899aabbccddeeff":                                            "",
		"k1=00112233445566778899aabbccddeeff":                                         "",
		"# two\n\nk1=ABEiM0RVZneImaq7zN3u/w==\nk2=00112233445566778899aabbccddeeff\n": "",
		"":                                     "there is no key",
		"short":                                "no secret of 16 bytes",
		"00112233":                             "no secret of 16 bytes",
		"a b=00112233445566778899aabbccddeeff": "an id is",
		"k=00112233445566778899aabbccddeeff\nk=10112233445566778899aabbccddeeff":                               "two keys have the id k",
		"00112233445566778899aabbccddee00\n00112233445566778899aabbccddee01\n00112233445566778899aabbccddee02": "keep 2 at most",
	} {
		ring, err := readKeys(strings.NewReader(text))
		switch {
		case want == "" && (err != nil || len(ring) == 0):
			t.Errorf("%q: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want an error with %q", text, err, want)
		case err != nil && len(text) > 8 && strings.Contains(err.Error(), text):
			t.Errorf("the error shows the key: %v", err)
		}
	}
}

// One person has one pseudonym and one element for each key and type of identity.
func TestPseudonymsDependOnKeyAndType(t *testing.T) {
	a, b := key{secret: []byte("0123456789abcdef")}, key{secret: []byte("0123456789abcdeg")}
	seen := map[string]string{}
	for name, text := range map[string]string{
		"a user 1": a.pseudonym("user.id", []byte("1")), "b user 1": b.pseudonym("user.id", []byte("1")),
		"a user 2": a.pseudonym("user.id", []byte("2")), "a team 1": a.pseudonym("team.id", []byte("1")),
		"moved": a.pseudonym("user.id1", nil),
	} {
		if other, is := seen[text]; is || len(text) != 22 {
			t.Errorf("%s: %q, as %s", name, text, other)
		}
		seen[text] = name
	}
	same := key{id: "other", secret: a.secret}
	if a.pseudonym("user.id", []byte("1")) != same.pseudonym("user.id", []byte("1")) || a.sip("user.id") != same.sip("user.id") {
		t.Error("one secret makes two pseudonyms")
	}
	if a.sip("user.id") == a.sip("team.id") || a.sip("user.id") == b.sip("user.id") {
		t.Error("sketches of two types or keys are alike")
	}
}

// Beyond the limits a metric has no value rather than a wrong one.
func TestTooMuchToCountHasNoValue(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"sketches": func(c *Config) { c.MaxSketches = 1 },
		"values":   func(c *Config) { c.MaxValuesPerFilter = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, "2026-03-10 12:00", change)
			files := map[string]string{"metrics/free.yml": strings.ReplaceAll(strings.ReplaceAll(definitions["metrics/pro.yml"], "usage.pro", "usage.xfree"), "plan: pro", "plan: free")}
			for name, text := range definitions {
				files[name] = text
			}
			h.stop()
			h.plan = loadPlan(t, files, h.cfg.Options())
			h.start()
			h.users("team.created", 0, 50, ",plan:free")
			h.at("2026-03-11")
			values, overflows := 0, 0
			for _, name := range []string{"usage.pro.1d", "usage.xfree.1d", "usage.active.1d", "usage.teams.1d"} {
				switch v := h.value(name); {
				case v.Status == StatusOverflow && v.Value == nil:
					overflows++
				case v.Status == StatusOK && v.Value != nil:
					values++
				default:
					t.Errorf("%s is %+v", name, v)
				}
			}
			if overflows == 0 || values == 0 || !strings.Contains(h.log.String(), "max_sketches") {
				t.Errorf("%d metrics have a value, %d overflow; the log:\n%s", values, overflows, h.log.String())
			}
			h.want("usage.teams.1d", 50)
		})
	}
}

// Who is in two rules is not told from the errors of the estimates.
func TestSmallIntersectionsHaveNoValue(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.users("team.created", 0, 20_000, "")
	h.users("team.joined", 18_500, 38_500, "")
	h.at("2026-03-11")
	if v := h.value("usage.both.1d"); v.Value != nil || v.Status != StatusUncertain {
		t.Errorf("1,500 of 38,500 are %v, %s", v.Value, v.Status)
	}
	h.want("usage.active.1d", 38_500)
}

// Dead letters say why, name nobody, and are bounded in rate and size.
func TestDeadLetters(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) {
		c.Mode = "strict"
		c.DeadLetters.MaxBytes, c.DeadLetters.MaxRate = 64<<10, 3
	})
	const who = "4711471147"
	h.send("analytics.team.created:1|c|#plan:free,organization_id:"+who, "analytics.team.created:1|c|#user_id:"+who+",nonsense:1,email:"+who, "analytics.nobody:1|c|#user:"+who+",x:1")
	h.send("analytics.nobody:1|c|#x:2") // one too many for a second
	h.tick()
	lines := strings.Split(strings.TrimSpace(h.letters()), "\n")
	if len(lines) != 3 || strings.Contains(h.letters(), who) {
		t.Fatalf("%d dead letters:\n%s", len(lines), h.letters())
	}
	var l letter
	if err := json.Unmarshal([]byte(lines[0]), &l); err != nil {
		t.Fatal(err)
	}
	if l.Event != "team.created" || len(l.Outcomes) != 1 || l.Outcomes[0] != "required_missing" || len(l.Why) != 1 || !strings.Contains(l.Why[0], "user_id") ||
		len(l.Tags) != 2 || l.Tags[0] != "plan:free" || !strings.HasPrefix(l.Tags[1], "organization_id:hmac.") || l.KeyID == "" {
		t.Errorf("the first is %s", lines[0])
	}
	if got := h.engine.letters.dropped.Load(); got != 1 {
		t.Errorf("%d are dropped, want 1", got)
	}
	for i := range 300 {
		h.now = h.now.Add(time.Second)
		for range 3 {
			h.send(fmt.Sprintf("analytics.nobody:1|c|#text:%s%d", strings.Repeat("x", 150), i))
		}
		h.engine.keepHouse(h.now)
	}
	for _, name := range []string{lettersName, lettersName + ".1"} {
		info, err := os.Stat(filepath.Join(h.cfg.StateDir, name))
		if err != nil || info.Size() > 32<<10 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// Known lines and lines with their own ids are taken without an allocation.
func TestAddDoesNotAllocate(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00")
	h.send("analytics.team.created:1|c|#user_id:1,plan:pro,seats:3")
	var known *Occurrence
	for _, o := range h.known {
		known = o
	}
	now := h.now.Unix()
	if n := testing.AllocsPerRun(100, func() { known.Add(2, nil, now) }); n != 0 {
		t.Errorf("a known line allocates %v times", n)
	}
	var all metric.Lines
	h.parser.Packet([]byte("analytics.team.created:1|c|#user_id:1,plan:pro,seats:3,_id:x,_ts:1773144000000"), false, &all)
	var id metric.Identity
	if n := testing.AllocsPerRun(100, func() {
		h.parser.Describe(&all.Samples[0], &id)
		h.intake.Resolve(&id, now).Add(1, nil, now)
	}); n != 0 {
		t.Errorf("a line with an id allocates %v times", n)
	}
}

// 100 events with two identities each, 29 full days of them, fit into 64 MiB.
func TestMemoryOfManyEvents(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	files := map[string]string{}
	for i := range 100 {
		files[fmt.Sprintf("events/e%d.yml", i)] = fmt.Sprintf("event: e%d\ndescription: Something that happens rather often.\nowner: growth\nversion: 1-0-0\nattributes:\n  user_id: {type: int, role: identity, identity: user.id}\n  team_id: {type: int, role: identity, identity: team.id}\n", i)
		files[fmt.Sprintf("metrics/m%d.yml", i)] = fmt.Sprintf("key_path: usage.e%d\ndescription: Users who did something rather often.\ntime_frame: [7d, 28d]\nevents: [{name: e%d, unique: user.id}]\n", i, i)
	}
	cfg := DefaultConfig()
	cfg.StateDir = t.TempDir()
	cfg.MaxSketches = 200
	p := loadPlan(t, files, plan.DefaultOptions())
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	before := heap()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	e, err := newAt(cfg, p, slog.New(slog.DiscardHandler), now)
	if err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(5, 6))
	many := newSketch()
	for range 10_000 {
		many.insert(element(random.Uint64()))
	}
	for d := range 29 {
		at := now.AddDate(0, 0, d)
		today := dayOf(at.Unix(), time.UTC)
		for _, r := range e.rules {
			r.add(today, today, 1)
			if r.unique {
				copied := *many.registers
				*r.days[today].sketch = sketch{registers: &copied}
			}
		}
		e.drain(at)
		if err := e.save(at); err != nil {
			t.Fatal(err)
		}
		e.keepHouse(at)
	}
	e.tick(now.AddDate(0, 0, 29), true)
	used := heap() - before
	t.Logf("%.1f MiB for %d sketches a day", float64(used)/(1<<20), e.generation.Load().sketches)
	if used > 64<<20 {
		t.Errorf("29 days of %d sketches take %d MiB, want less than 64", e.generation.Load().sketches, used>>20)
	}
	if v := e.Values()[1]; v.Value == nil || *v.Value < 9800 || *v.Value > 10_200 {
		t.Errorf("28 days of the same 10,000 are %+v", v)
	}
	if err := e.close(now.AddDate(0, 0, 29)); err != nil {
		t.Fatal(err)
	}
	runtime.KeepAlive(p)
}
