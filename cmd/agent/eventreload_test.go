package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

const searchersByPlan = `
key_path: usage.searchers_on_pro
description: Users on the pro plan who searched at least once.
time_frame: [1d]
events: [{name: search.run, unique: user.id, filter: {plan: pro}}]
`

// newDefinitions returns a folder with definitions of searches and a configuration that
// counts by it, with some more lines.
func newDefinitions(t *testing.T) (folder, file string, configure func(more string)) {
	t.Helper()
	folder, file = t.TempDir(), filepath.Join(t.TempDir(), "weir.yaml")
	writeDefinitions(t, folder, searchDefinitions)
	configure = func(more string) {
		replace(t, file, "analytics: {include_today: true, save_interval: 1s, definitions: "+folder+"}\n"+more)
	}
	configure("")
	return folder, file, configure
}

// A definition that is written, changed or removed is in force without a restart, and
// what it does not concern goes on counting. One with faults changes nothing.
func TestDefinitionsAreReloaded(t *testing.T) {
	t.Parallel()
	binary, state := build(t), t.TempDir()
	folder, file, _ := newDefinitions(t)
	p := startConfigured(t, binary, file, "WEIR_STATE_DIR="+state, "WEIR_FLUSH_INTERVAL=1s")
	search := func(from, to int, tags string) {
		for i := from; i < to; i++ {
			sendLines(t, p.address, fmt.Sprintf("analytics.search.run:1|c|#user_id:%d,%s", i, tags))
		}
	}
	is := func(name string, want float64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s is %v", name, want), func() bool {
			got := reported(t, binary, state, name)
			return got == want || math.IsNaN(got) && math.IsNaN(want)
		})
	}
	search(0, 20, "plan:pro,term:a")
	is("usage.searchers.1d", 20)

	t.Log("a metric more")
	writeDefinitions(t, folder, map[string]string{"metrics/pro/users.yml": searchersByPlan})
	p.logged(t, inForce, 1)
	search(10, 30, "plan:pro,term:a")
	search(30, 40, "plan:free,term:a")
	is("usage.searchers_on_pro.1d", 20)
	is("usage.searchers.1d", 40)

	t.Log("a fault")
	writeDefinitions(t, folder, map[string]string{"events/search.run.yml": searchDefinitions["events/search.run.yml"] + "colour: red\n"})
	p.logged(t, notUsable, 1)
	p.logged(t, "search.run.yml:10: colour: ", 1)
	search(40, 50, "plan:free,term:a")
	is("usage.searchers.1d", 50)

	t.Log("another tag, and no file of the metric")
	changed := strings.Replace(searchDefinitions["events/search.run.yml"], "  term:    {type: string, role: tag}\n", "  term:    {type: string, role: drop}\n", 1)
	if err := os.Remove(filepath.Join(folder, "metrics/pro/users.yml")); err != nil {
		t.Fatal(err)
	}
	writeDefinitions(t, folder, map[string]string{"events/search.run.yml": changed})
	p.logged(t, inForce, 2)
	search(50, 60, "plan:free,term:b")
	is("usage.searchers.1d", 60)
	is("usage.searchers_on_pro.1d", math.NaN())
	is("usage.searches.all", 20+20+10+10+10)

	t.Log("what has only been touched is what it was")
	writeDefinitions(t, folder, map[string]string{"events/search.run.yml": changed})
	p.hangUp(t)
	p.logged(t, noChange, 1)

	t.Log("another folder")
	moved := t.TempDir()
	writeDefinitions(t, moved, searchDefinitions)
	writeDefinitions(t, moved, map[string]string{"metrics/pro.yml": searchersByPlan})
	replace(t, file, "analytics: {include_today: true, save_interval: 1s, definitions: "+moved+"}\n")
	is("usage.searchers_on_pro.1d", 20) // as before it was removed
	if err := os.Remove(filepath.Join(moved, "metrics/pro.yml")); err != nil {
		t.Fatal(err)
	}
	is("usage.searchers_on_pro.1d", math.NaN()) // the new folder is watched

	t.Log("without, only by a restart")
	replace(t, file, "analytics: {include_today: true, save_interval: 1s}")
	p.logged(t, "analytics.definitions changed: needs a restart", 1)
	search(60, 70, "plan:free,term:a")
	is("usage.searchers.1d", 70)
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d\n%s", code, p.log())
	}
	for line := range strings.Lines(p.output()) {
		if strings.Contains(line, `"metric":"search.run"`) && strings.Contains(line, "term:b") {
			t.Errorf("a tag that was dropped: %s", line)
		}
	}
	terms := map[string]int{}
	for _, row := range eventRows(t, state) {
		var event struct {
			Attrs struct{ Term string }
		}
		if err := json.Unmarshal([]byte(row), &event); err != nil {
			t.Errorf("%v: %s", err, row)
		}
		terms[event.Attrs.Term]++
	}
	if want := map[string]int{"a": 70, "": 10}; !maps.Equal(terms, want) {
		t.Errorf("raw events with terms %v, want %v: a row is as its event was defined", terms, want)
	}
}

// While clients send events, a hundred reloads between two configurations and two sets of
// definitions lose nothing and count nothing twice.
func TestReloadsUnderLoadOfEvents(t *testing.T) {
	for name, flags := range map[string][]string{"plain": nil, "race": {"-race"}} {
		t.Run(name, func(t *testing.T) { reloadEventsUnderLoad(t, build(t, flags...)) })
	}
}

func reloadEventsUnderLoad(t *testing.T, binary string) {
	intake, state := testkit.NewIntake(t), t.TempDir()
	folder, file, configure := newDefinitions(t)
	socket := filepath.Join(t.TempDir(), "s") // whose senders wait, where those of UDP would lose
	p := startConfigured(t, binary, file, append(toIntake(intake), "WEIR_STATE_DIR="+state, "WEIR_LISTEN_UNIX_DATAGRAM="+socket)...)
	const senders, reloads = 3, 100
	stop := make(chan struct{})
	var sending sync.WaitGroup
	events, plain := make([]int, senders), make([]int, senders)
	users := make([]map[int]bool, senders)
	for i := range senders {
		sending.Go(func() {
			conn, err := net.Dial("unixgram", socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			users[i] = map[int]bool{}
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				// Most users are known; counts and sampled lines are among them.
				user := i*100_000 + n%500
				if n%50 == 0 {
					user = i*100_000 + 500 + n/50%500
				}
				users[i][user] = true
				if _, err := fmt.Fprintf(conn, "analytics.search.run:1|c|#user_id:%d,plan:pro,term:a\nanalytics.search.run:2|c|#user_id:%d,plan:pro\nplain:1|c", user, user); err != nil {
					t.Error(err)
					return
				}
				events[i] += 3
				plain[i]++
				if n%5 == 4 {
					time.Sleep(2 * time.Millisecond)
				}
			}
		})
	}
	other := strings.Replace(searchDefinitions["events/search.run.yml"], "attributes:\n", "attributes:\n  page: {type: int, role: value}\n", 1)
	for i := range reloads {
		if i%2 == 0 {
			writeDefinitions(t, folder, map[string]string{"metrics/pro.yml": searchersByPlan, "events/search.run.yml": other})
			configure("rules: [{match: search.run, name: searches, drop_tags: [term]}]\n")
		} else {
			if err := os.Remove(filepath.Join(folder, "metrics/pro.yml")); err != nil {
				t.Fatal(err)
			}
			writeDefinitions(t, folder, map[string]string{"events/search.run.yml": searchDefinitions["events/search.run.yml"]})
			configure("")
		}
		p.hangUp(t)
		p.logged(t, "cause=SIGHUP", i+1) // if the change was not noticed before
	}
	if n := strings.Count(p.log(), inForce); n < reloads {
		t.Errorf("%d changes came into force, want %d or more", n, reloads)
	}
	close(stop)
	sending.Wait()
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	wantEvents, wantUsers, wantPlain := 0, 0, 0
	for i := range senders {
		wantEvents, wantUsers, wantPlain = wantEvents+events[i], wantUsers+len(users[i]), wantPlain+plain[i]
	}
	got := map[string]float64{}
	for key, n := range newTotals(intake).counts {
		name, _, _ := strings.Cut(key, " ")
		got[name] += n
	}
	if sum := got["search.run"] + got["searches"]; !near(sum, float64(wantEvents)) || got["search.run"] == 0 || got["searches"] == 0 {
		t.Errorf("the counters count %v and %v, want %d", got["search.run"], got["searches"], wantEvents)
	}
	if !near(got["plain"], float64(wantPlain)) {
		t.Errorf("plain counts %v, want %d", got["plain"], wantPlain)
	}
	if n := reported(t, binary, state, "usage.searches.all"); n != float64(wantEvents) {
		t.Errorf("%v searches are reported, want %d", n, wantEvents)
	}
	if n := reported(t, binary, state, "usage.searchers.1d"); math.Abs(n-float64(wantUsers)) > 0.03*float64(wantUsers) {
		t.Errorf("%v users are reported, want %d", n, wantUsers)
	}
	if strings.Contains(p.log(), "DATA RACE") {
		t.Error("the race detector found a race")
	}
}
