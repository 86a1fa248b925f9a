package raw

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

// aRow is what tests look at of a row.
type aRow struct {
	Time       time.Time         `json:"event_time"`
	Received   time.Time         `json:"received_at"`
	Source     string            `json:"source"`
	Count      int64             `json:"count"`
	SampleRate float64           `json:"sample_rate"`
	Flags      []string          `json:"flags"`
	Attrs      map[string]any    `json:"attrs"`
	Context    map[string]string `json:"context"`
}

func decoded(t *testing.T, dir string) (all []aRow) {
	t.Helper()
	for _, line := range rowsOf(t, dir) {
		var r aRow
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v\n%s", err, line)
		}
		all = append(all, r)
	}
	return all
}

// line is a line of team.created with flags.
func line(q *Queue, id *metric.Identity, flags uint32, sampling Sampling, tags ...string) *Line {
	var all [][]byte
	for _, tag := range tags {
		all = append(all, []byte(tag))
	}
	return q.Make(loadPlan(), []byte("team.created"), all, id, flags, sampling)
}

var everyRow = Sampling{Share: 1}

// The day of a row is that of its event, before 1970 too; of an event that is late it is
// the day that it came, so that no folder is opened for it.
func TestFolders(t *testing.T) {
	const came = 1795258450 // 2026-11-21
	for name, test := range map[string]struct {
		time  int64
		flags uint32
		want  string
	}{
		"now":       {came, 0, "dt=2026-11-21"},
		"yesterday": {came - secondsPerDay, 0, "dt=2026-11-20"},
		"late":      {came - 9*secondsPerDay, 1 << plan.Late, "dt=2026-11-21"},
		"midnight":  {came - came%secondsPerDay, 0, "dt=2026-11-21"},
		"before":    {came - came%secondsPerDay - 1, 0, "dt=2026-11-20"},
		"1969":      {-1, 0, "dt=1969-12-31"},
		"future":    {came + 3600*24*9, 1 << plan.Future, "dt=2026-11-21"},
	} {
		t.Run(name, func(t *testing.T) {
			s := testSink(t, DefaultConfig())
			q := s.NewQueue()
			q.Put(line(q, &metric.Identity{Rate: 1, Time: test.time}, test.flags, everyRow, "user_id:1", "plan:pro"), 1, came)
			end(t, s)
			files := glob(t, s.cfg.Dir, ndjsonSuffix)
			if len(files) != 1 || !strings.Contains(files[0], test.want) {
				t.Errorf("files %v, want %s", files, test.want)
			}
			r := decoded(t, s.cfg.Dir)[0]
			want := test.time
			if test.flags == 1<<plan.Future {
				want = came // its clock is wrong
			}
			if r.Time.Unix() != want || r.Received.Unix() != came {
				t.Errorf("it happened %v and came %v, want %v and %v", r.Time, r.Received, time.Unix(want, 0).UTC(), time.Unix(came, 0).UTC())
			}
		})
	}
}

// What is remembered of one line is never written for another: more lines than the cache
// has places take turns, each with its time.
func TestRememberedLines(t *testing.T) {
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	var lines []*Line
	for i := range cacheSize + 2 {
		l := line(q, &metric.Identity{Rate: 1}, 0, everyRow, fmt.Sprintf("user_id:%d", i), "plan:pro")
		if !l.Keep() {
			t.Fatal("a short line is not remembered")
		}
		lines = append(lines, l)
	}
	const came = 1795258450
	of := []int{0, cacheSize, 0, 1, cacheSize + 1, cacheSize}
	for i, n := range of {
		q.Put(lines[n], int64(i+1), came+int64(i))
	}
	end(t, s)
	rows := decoded(t, s.cfg.Dir)
	if len(rows) != len(of) {
		t.Fatalf("%d rows", len(rows))
	}
	for i, n := range of {
		want := string(fakePseudonym(nil, "user.id", fmt.Append(nil, n)))
		if r := rows[i]; r.Attrs["user_id"] != want || r.Count != int64(i+1) || r.Time.Unix() != came+int64(i) || r.Received.Unix() != came+int64(i) {
			t.Errorf("row %d: %+v, want user %s, count %d at %d", i, r, want, i+1, came+i)
		}
	}
	long := line(q, &metric.Identity{Rate: 1}, 0, everyRow, "user_id:1", "note:"+strings.Repeat("x", maxKept))
	if long.Keep() {
		t.Error("a long line is remembered")
	}
}

// Rows that are left to chance are kept at the rate of their event, and counted if not.
func TestChance(t *testing.T) {
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	const rows = 20_000
	l := line(q, &metric.Identity{Rate: 0.5}, 0, Sampling{Share: 0.25, Chance: true}, "plan:pro")
	for range rows {
		q.Put(l, 1, 1795258450)
	}
	end(t, s)
	kept := decoded(t, s.cfg.Dir)
	got := books(t, s)
	if n := len(kept); n < rows/5 || n > rows*3/10 || got["rows.written"] != float64(n) || got["rows.sampled_out"] != float64(rows-n) {
		t.Errorf("%d of %d rows are kept; books: %v", n, rows, got)
	}
	if r := kept[0].SampleRate; r != 0.125 {
		t.Errorf("they say that %v of the events are here, want 0.125", r)
	}
}

// A row says which container it came from, by the best name that there is.
func TestSource(t *testing.T) {
	for want, origin := range map[string]metric.Origin{
		"":          {},
		"id":        {Container: []byte("id"), ContainerName: []byte("name"), PodUID: []byte("pod")},
		"some/name": {ContainerName: []byte("some/name"), PodUID: []byte("pod")},
		"pod":       {PodUID: []byte("pod")},
	} {
		s := testSink(t, DefaultConfig())
		q := s.NewQueue()
		q.Put(line(q, &metric.Identity{Rate: 1, Origin: origin}, 0, everyRow, "user_id:1"), 1, 1795258450)
		end(t, s)
		if got := decoded(t, s.cfg.Dir)[0].Source; got != want {
			t.Errorf("source %q, want %q", got, want)
		}
	}
}

// Outcomes that took a clock stand in flags beside those that did not, each once and in
// their order.
func TestFlags(t *testing.T) {
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	q.Put(line(q, &metric.Identity{Rate: 1}, 1<<plan.Late|1<<plan.RequiredMissing, everyRow, "colour:red"), 1, 1795258450)
	end(t, s)
	if got := decoded(t, s.cfg.Dir)[0].Flags; !slices.Equal(got, []string{"required_missing", "additional_properties", "late"}) {
		t.Errorf("flags: %v", got)
	}
}

// The id of one event is not that of a row that stands for several: two such rows would be
// taken for one.
func TestIDsOfWeightedRows(t *testing.T) {
	s := testSink(t, DefaultConfig())
	q := s.NewQueue()
	l := line(q, &metric.Identity{Rate: 1}, 0, everyRow, "user_id:1", "_id:abc")
	for _, n := range []int64{2, 1, 2} {
		q.Put(l, n, 1795258450)
	}
	end(t, s)
	var ids []string
	for _, row := range rowsOf(t, s.cfg.Dir) {
		_, rest, _ := strings.Cut(row, `"event_id":"`)
		id, _, _ := strings.Cut(rest, `"`)
		ids = append(ids, id)
	}
	if len(ids) != 3 || ids[1] != "abc" || len(ids[0]) != 36 || len(ids[2]) != 36 || ids[0] == ids[2] {
		t.Errorf("ids: %v", ids)
	}
}
