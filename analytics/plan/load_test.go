package plan

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/metric"
)

func load(t *testing.T, dir string, options Options) *Plan {
	t.Helper()
	p, err := Load(dir, options)
	if err != nil {
		t.Fatalf("Load(%s):\n%v", dir, err)
	}
	return p
}

func TestLoadReadsWhatIsDefined(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	e := p.Event("order.paid")
	if e == nil || len(p.Events) != 2 {
		t.Fatalf("events: %v", p.Events)
	}
	want := []Attribute{
		{Name: "user_id", Type: Int, Required: true, Role: Identity, Identity: "user.id", Privacy: Privacy{Kind: HMAC}, MaxLength: 200},
		{Name: "email", Type: String, Role: Identity, Identity: "email", Privacy: Privacy{Kind: Truncate, Length: 3}, MaxLength: 200},
		{Name: "ip", Type: String, Role: Identity, Identity: "ip", Privacy: Privacy{Kind: TruncateIP, V4: 24, V6: 48}, MaxLength: 200},
		{Name: "amount", Type: Float, Role: Number, Privacy: Privacy{Kind: None}, MaxLength: 200}, // a metric adds it up
		{Name: "items", Type: Int, Role: Number, Privacy: Privacy{Kind: None}, MaxLength: 200},
		{Name: "gift", Type: Bool, Role: Tag, Privacy: Privacy{Kind: None}, MaxLength: 200},
		{Name: "note", Type: String, Role: RawOnly, Privacy: Privacy{Kind: None}, MaxLength: 10},
		{Name: "card", Type: String, Role: Drop, Privacy: Privacy{Kind: None}, MaxLength: 200},
		{Name: "placed_at", Type: Timestamp, Role: RawOnly, Privacy: Privacy{Kind: None}, MaxLength: 200},
	}
	got := append([]Attribute(nil), e.Attributes...)
	for i := range got {
		got[i].explicitRole, got[i].explicitPrivacy = false, false
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Attribute{})); diff != "" {
		t.Errorf("attributes (-want +got):\n%s", diff)
	}
	if e.Mode != Strict || e.Version != (Version{2, 1, 0}) || e.Counter != (Counter{true, "order.paid"}) || e.Raw != (Raw{SinkEvents, 1}) {
		t.Errorf("order.paid is %+v", e)
	}
	m := p.Metric("usage.orders.turnover")
	if m == nil || m.Window != Calendar || m.Emit != (Emit{true, Fleet}) || m.Rules[0].Key() != `order.paid[gift="true",items="1"] sum amount` {
		t.Errorf("turnover is %+v", m)
	}
	m = p.Metric("usage.teams.users")
	if m == nil || !m.Unique() || len(m.Rules) != 2 || m.Gauge(Frame7d) != "usage.teams.users.7d" ||
		m.Rules[0].Key() != `team.created[plan="pro"] unique user_id as user.id` {
		t.Errorf("users is %+v", m)
	}
}

// All faults are told at once, each with its file and line and what to write instead.
func TestLoadReportsAllFaults(t *testing.T) {
	_, err := Load("testdata/faulty", DefaultOptions())
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("Load: %v, want Faults", err)
	}
	golden(t, "faulty.golden", err.Error()+"\n")
}

func TestLoadBounds(t *testing.T) {
	const sound = "event: a\ndescription: It is what it is.\n"
	write := func(t *testing.T, files map[string]string) string {
		dir := t.TempDir()
		writeFiles(t, dir, files)
		return dir
	}
	many := func(n int) map[string]string {
		files := map[string]string{}
		for i := range n {
			files[fmt.Sprintf("events/%d.yml", i)] = strings.Replace(sound, "event: a", fmt.Sprintf("event: a%d", i), 1)
		}
		return files
	}
	repeat := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, test := range map[string]struct {
		files map[string]string
		want  string
	}{
		"size":       {map[string]string{"events/a.yml": sound + "#" + strings.Repeat("x", maxFile)}, "larger than 256 KiB"},
		"attributes": {map[string]string{"events/a.yml": sound + "attributes:\n" + repeat(maxAttributes+1, "  a%d: {}\n")}, "there are 33; an event has 32 at most"},
		"name":       {map[string]string{"events/a.yml": sound + "attributes:\n  " + strings.Repeat("a", maxName+1) + ": {}\n"}, "64 at most"},
		"values":     {map[string]string{"events/a.yml": sound + "attributes:\n  a: {type: enum, values: [" + repeat(maxValues+1, "v%d,") + "]}\n"}, "it has 101 items; 100 are allowed"},
		"rules":      {map[string]string{"events/a.yml": sound, "metrics/m.yml": "key_path: m\ndescription: d\ntime_frame: 7d\nevents: [" + repeat(maxRules+1, "{name: a, filter: {x%d: 1}},") + "]\n"}, "there are 33; a metric has 32 at most"},
		"prose":      {map[string]string{"events/a.yml": "event: a\ndescription: " + strings.Repeat("x", maxProse+1)}, "longer than 4000 bytes"},
		"faults":     {map[string]string{"events/a.yml": sound + repeat(maxFaults+5, "key%d: 1\n")}, "and 5 more faults"},
		"depth":      {map[string]string{"events/a.yml": sound, "events/1/2/3/4/5/b.yml": sound}, "events/1/2/3/4/5 is too deep"},
		"UTF-8":      {map[string]string{"events/a.yml": sound + "owner: \xe9\n"}, "a.yml:3: it is not UTF-8"},
		"nothing":    {map[string]string{"events/README.md": "text"}, "it holds no definitions"},
		"no folder":  {nil, "it holds no definitions"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Load(write(t, test.files), DefaultOptions()); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Load: %v\nwant %q", err, test.want)
			}
		})
	}
	full := write(t, many(maxFiles))
	if p, err := Load(full, DefaultOptions()); err != nil || len(p.Events) != maxFiles {
		t.Errorf("a folder that is just full: %v", err)
	}
	writeFiles(t, full, map[string]string{"metrics/m.yml": "key_path: m\n"})
	if _, err := Load(full, DefaultOptions()); err == nil || !strings.Contains(err.Error(), "more than 4096 definitions") {
		t.Errorf("a folder with one more: %v", err)
	}
}

func writeFiles(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// Folders below events/, hidden files of mounted volumes and links to files are as
// people and Kubernetes make them.
func TestLoadFindsFiles(t *testing.T) {
	dir := t.TempDir()
	const text = "description: It is what it is.\n"
	writeFiles(t, dir, map[string]string{
		"events/shop/cart/a.yaml": "event: a\n" + text,
		"events/..data/b.yml":     "event: b\n" + text,
		"events/.c.yml":           "event: [\n",
		"events/d.yml~":           "event: [\n",
	})
	if err := os.Symlink("..data/b.yml", filepath.Join(dir, "events", "b.yml")); err != nil {
		t.Fatal(err)
	}
	p := load(t, dir, DefaultOptions())
	if len(p.Events) != 2 || p.Event("a") == nil || p.Event("b") == nil {
		t.Errorf("found %d events, want a and b", len(p.Events))
	}
}

// FuzzLoad: no text makes Load panic, and what it takes is within the limits, can be
// checked against, linted and exported, and is the same after it was written and read
// again.
func FuzzLoad(f *testing.F) {
	for _, dir := range []string{"testdata/sound", "testdata/faulty"} {
		events, _ := filepath.Glob(dir + "/events/*.yml")
		metrics, _ := filepath.Glob(dir + "/metrics/*.yml")
		for i := range max(len(events), len(metrics)) {
			event, _ := os.ReadFile(events[i%len(events)])
			metric, _ := os.ReadFile(metrics[i%len(metrics)])
			f.Add(string(event), string(metric))
		}
	}
	f.Add("event: a\ndescription: d\nattributes: {a: {<<: &x {}, b: *x}}", "key_path: !!binary aaaa\nevents: [[[[")
	f.Fuzz(func(t *testing.T, event, definition string) {
		dir := t.TempDir()
		writeFiles(t, dir, map[string]string{"events/a.yml": event, "metrics/a.yml": definition})
		p, err := Load(dir, DefaultOptions())
		if err != nil {
			var faults Faults
			if !errors.As(err, &faults) || len(faults) == 0 {
				t.Fatalf("the error is no Faults: %v", err)
			}
			return
		}
		for _, e := range p.Events {
			if !dottedName.MatchString(e.Name) || len(e.Attributes) > maxAttributes {
				t.Errorf("took %+v", e)
			}
			var r Result
			p.Check([]byte(e.Name), &metric.Identity{Kind: metric.Counter, Rate: 1}, &r)
			if r.Event != e || len(r.Values) != len(e.Attributes) {
				t.Errorf("Check(%s) = %+v", e.Name, r)
			}
		}
		for _, m := range p.Metrics {
			if len(m.Rules) == 0 || len(m.TimeFrames) == 0 {
				t.Errorf("took %+v", m)
			}
		}
		p.Lint()
		p.ExportJSONSchema()
		p.ExportBigQuery()
		p.ExportMarkdown()
		var files []File
		for _, e := range p.Events {
			files = append(files, File{e.FileName(), e.YAML()})
		}
		for _, m := range p.Metrics {
			files = append(files, File{m.FileName(), m.YAML()})
		}
		faults := &faultList{}
		again := parseFiles(files, DefaultOptions(), faults)
		if len(faults.list) > 0 {
			t.Fatalf("what is written has faults: %v\n%s", faults.all(), bothOf(files))
		}
		if changes := again.Diff(p); len(changes) > 0 {
			t.Errorf("writing changes: %v\n%s", changes, bothOf(files))
		}
	})
}

// A link to a folder may lead back to where it is; a definition behind it is missed by
// nobody, since it is an error.
func TestLoadRefusesLinksToFolders(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"events/a.yml": "event: a\ndescription: It is what it is.\n", "common/b.yml": "event: [\n"})
	if err := os.Symlink("../common", filepath.Join(dir, "events", "shared")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, DefaultOptions()); err == nil || !strings.Contains(err.Error(), filepath.Join("events", "shared")+" is a link to a folder") {
		t.Errorf("Load: %v", err)
	}
}

// UTF-16 is YAML, too.
func TestLoadReadsUTF16(t *testing.T) {
	text := []byte{0xff, 0xfe}
	for _, r := range "event: a\ndescription: Café, and what it is.\n" {
		text = append(text, byte(r), byte(r>>8))
	}
	p := asFolder(t, []File{{"events/a.yml", text}})
	if got := p.Events[0].Description; got != "Café, and what it is." {
		t.Errorf("got %q", got)
	}
}
