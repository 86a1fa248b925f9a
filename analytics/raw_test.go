package analytics

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/weir-agent/weir/analytics/raw"
	"github.com/weir-agent/weir/metric"
)

// rawRow is what the tests look at of a row.
type rawRow struct {
	ID     string         `json:"event_id"`
	Event  string         `json:"event"`
	Time   string         `json:"event_time"`
	Host   string         `json:"host"`
	Count  int            `json:"count"`
	Rate   float64        `json:"sample_rate"`
	KeyID  string         `json:"key_id"`
	Flags  []string       `json:"flags"`
	Attrs  map[string]any `json:"attrs"`
	Source string         `json:"source"`
}

func withRaw(cfg *Config) { cfg.Raw.Format, cfg.Host = raw.FormatNDJSON, "web-1" }

// rawRows stops writing and returns all rows.
func (h *host) rawRows() (all []rawRow) {
	h.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := h.engine.RunRaw(ctx); err != nil {
		h.t.Fatal(err)
	}
	files, _ := filepath.Glob(filepath.Join(h.cfg.StateDir, "events", "dt=*", "*.ndjson.gz"))
	for _, path := range files {
		file, err := os.Open(path)
		if err != nil {
			h.t.Fatal(err)
		}
		defer file.Close()
		unpacked, err := gzip.NewReader(file)
		if err != nil {
			h.t.Fatal(err)
		}
		for rows := json.NewDecoder(unpacked); rows.More(); {
			var r rawRow
			if err := rows.Decode(&r); err != nil {
				h.t.Fatal(err)
			}
			all = append(all, r)
		}
	}
	return all
}

// Every line of an event that counts is a row, and no other line is.
func TestWhatBecomesARow(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", withRaw)
	h.send(
		"analytics.team.created:1|c|#user_id:1,plan:pro", "analytics.team.created:1|c|#user_id:1,plan:pro", // known
		"analytics.team.created:3|c|#user_id:1,plan:pro",
		"analytics.team.created:1|c|#user_id:2,plan:pro,_id:once", "analytics.team.created:1|c|#user_id:2,plan:pro,_id:once", // a duplicate
		"analytics.team.created:1|c|@0.5|#user_id:3,plan:pro",
		"analytics.team.created:1|c|#user_id:3,plan:pro,_ts:1770000000000", // late
		"analytics.team.created:1|c|#user_id:3,plan:pro,_ts:1790000000000", // from the future
		"analytics.team.created:0.5|c|#user_id:1,plan:pro",                 // no whole number
		"analytics.team.created:1|g|#user_id:1",                            // no counter
		"analytics.nobody.planned:1|c|#user_id:1",
		"web.requests:1|c|#user_id:1",
	)
	var got []string
	pseudonym := h.engine.keys[0].pseudonym("user.id", []byte("1"))
	for _, r := range h.rawRows() {
		text := fmt.Sprintf("%d @%v %s %v", r.Count, r.Rate, r.Time[:10], r.Flags)
		if r.ID == "once" {
			text += " once"
		}
		if r.Attrs["user_id"] == pseudonym {
			text += " 1"
		}
		got = append(got, text)
		if r.Host != "web-1" || r.Event != "team.created" || r.KeyID != h.engine.keys[0].id {
			t.Errorf("row: %+v", r)
		}
	}
	want := []string{
		"1 @0.5 2026-03-10 [sampled_unique]", "1 @1 2026-02-02 [late]", "1 @1 2026-03-10 [] 1", "1 @1 2026-03-10 [] 1", "1 @1 2026-03-10 [] once",
		"1 @1 2026-03-10 [future]", "3 @1 2026-03-10 [] 1",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A share of the rows is all rows of a share of the people, the same for every event.
func TestRawSampling(t *testing.T) {
	files := map[string]string{}
	for _, event := range []string{"page.viewed", "page.left"} {
		files["events/"+event+".yml"] = "event: " + event + "\ndescription: Somebody looked at a page of ours.\n" +
			"attributes: {user_id: {type: int}}\nraw: {sample_rate: 0.25}\n"
	}
	files["events/none.yml"] = "event: nothing\ndescription: Nobody wants to see rows of this one.\nraw: {sink: none}\n"
	h := newHost(t, "2026-03-10 12:00", withRaw)
	_ = h.engine.Close()
	h.plan = loadPlan(t, files, h.cfg.Options())
	h.start()
	const users = 2000
	for i := range users {
		h.send(fmt.Sprintf("analytics.page.viewed:1|c|#user_id:%d", i), fmt.Sprintf("analytics.page.left:1|c|#user_id:%d", i))
		h.send("analytics.page.viewed:1|c", "analytics.nothing:1|c")
	}
	seen, nobody := map[any]int{}, 0
	for _, r := range h.rawRows() {
		if r.Rate != 0.25 || r.Event == "nothing" {
			t.Errorf("row: %+v", r)
		}
		if user := r.Attrs["user_id"]; user != nil {
			seen[user]++
		} else {
			nobody++
		}
	}
	for user, n := range seen {
		if n != 2 {
			t.Errorf("%v has %d rows of 2", user, n)
		}
	}
	if share := float64(len(seen)) / users; share < 0.2 || share > 0.3 {
		t.Errorf("%v of the users have rows, want about 0.25", share)
	}
	if share := float64(nobody) / users; share < 0.2 || share > 0.3 {
		t.Errorf("%v of the lines without a user have rows, want about 0.25", share)
	}
}

// Rows cost a known line no allocation, and one with its own id only one.
func TestRowsDoNotAllocate(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", withRaw)
	h.send("analytics.team.created:1|c|#user_id:1,plan:pro,seats:3")
	var known *Occurrence
	for _, o := range h.known {
		known = o
	}
	now := h.now.Unix()
	if n := testing.AllocsPerRun(100, func() { known.Add(2, nil, now) }); n != 0 || known.raw == nil {
		t.Errorf("a known line allocates %v times", n)
	}
	var all metric.Lines
	h.parser.Packet([]byte("analytics.team.created:1|c|#user_id:1,plan:pro,seats:3,_id:x,_ts:1773144000000"), false, &all)
	var id metric.Identity
	if n := testing.AllocsPerRun(100, func() {
		h.parser.Describe(&all.Samples[0], &id)
		h.intake.Resolve(&id, now).Add(1, nil, now)
	}); n > 1 {
		t.Errorf("a line with an id allocates %v times", n)
	}
	if rows := h.rawRows(); len(rows) < 100 {
		t.Errorf("%d rows", len(rows))
	}
}

// The func for one goroutine makes the same pseudonyms as the method.
func TestPseudonyms(t *testing.T) {
	k := key{secret: []byte("0123456789abcdef")}
	of := k.pseudonyms()
	for _, value := range []string{"", "1", strings.Repeat("x", 300), "1"} {
		if got, want := string(of(nil, "user.id", []byte(value))), k.pseudonym("user.id", []byte(value)); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
}
