package plan

import (
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// asFolder writes files and loads them.
func asFolder(t *testing.T, files []File) *Plan {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{}
	for _, f := range files {
		all[f.Name] = string(f.Text)
	}
	writeFiles(t, dir, all)
	return load(t, dir, DefaultOptions())
}

func bothOf(files []File) string {
	var b strings.Builder
	for _, f := range files {
		b.WriteString("==> " + f.Name + " <==\n")
		b.Write(f.Text)
	}
	return b.String()
}

// everything is a draft that uses all that a draft can say.
var everything = Draft{
	Event: "team.created", Description: "Somebody created a team in an organization.", Owner: "growth",
	URL: "https://git.example.com/shop/pulls/71", Milestone: "1.4", DataCategory: "operational",
	Attributes: []string{
		"user_id:int:required", "organization_id:int", "plan:enum(free|pro|it's, really)", "seats:int", "price:float:value",
		"trial:bool", "note", "referrer:string:drop", "starts_at:timestamp", "colour:identity",
	},
	Unique: []string{"user.id", "organization_id", "colour"}, Sum: []string{"seats"}, Total: true, TimeFrames: []string{"7d", "28d"},
}

func TestMake(t *testing.T) {
	d := everything
	files, e, err := Empty(DefaultOptions()).Make(d)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "made.golden", bothOf(files))
	p := asFolder(t, files)
	if got := p.Event(e.Name); got == nil || len(p.Metrics) != 5 {
		t.Errorf("%d metrics, want 5", len(p.Metrics))
	}
	for _, finding := range p.Lint() {
		t.Errorf("what was made has a finding: %v", finding)
	}
}

func TestMakeRefuses(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	sound := Draft{
		Event: "team.left", Description: "Somebody left a team on their own.", Owner: "growth",
		URL: "https://git.example.com/shop/pulls/72", Attributes: []string{"user_id:int"}, Unique: []string{"user.id"},
	}
	if _, _, err := p.Make(sound); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Draft){
		"team.created is defined in testdata/sound/events/team.created.yml already": func(d *Draft) { d.Event = "team.created" },
		`"Team Left" is not a name of an event`:                                     func(d *Draft) { d.Event = "Team Left" },
		"it has 5 characters and needs 20":                                          func(d *Draft) { d.Description = "left." },
		"url: it is missing":                                                        func(d *Draft) { d.URL = "" },
		"owner: it is missing":                                                      func(d *Draft) { d.Owner = "" },
		`there is no "3d"; use 1d, 7d, 28d`:                                         func(d *Draft) { d.TimeFrames = []string{"3d"} },
		"7d, month are of different windows":                                        func(d *Draft) { d.TimeFrames = []string{"7d", "month"} },
		"not over all time":                                                         func(d *Draft) { d.TimeFrames = []string{"all"} },
		"no identity user.idd; did you mean user.id?":                               func(d *Draft) { d.Unique = []string{"user.idd"} },
		"plan has role tag":                                                         func(d *Draft) { d.Attributes, d.Unique = []string{"plan:tag"}, []string{"plan"} },
		"no number seats":                                                           func(d *Draft) { d.Sum = []string{"seats"} },
		"user_id is there twice":                                                    func(d *Draft) { d.Attributes = append(d.Attributes, "user_id") },
		`there is no "itn"`:                                                         func(d *Draft) { d.Attributes = []string{"user_id:itn"} },
		"plan is an enum and needs its values":                                      func(d *Draft) { d.Attributes = []string{"plan:enum"} },
		"an identity is a tag":                                                      func(d *Draft) { d.Attributes = append(d.Attributes, "team_id:int:tag") },
		"it looks like a mail address":                                              func(d *Draft) { d.Attributes = append(d.Attributes, "mail") },
		"usage.teams.users is defined in":                                           func(d *Draft) { d.KeyPath = "usage.teams.users" },
		"there is nothing to count":                                                 func(d *Draft) { d.Unique, d.TimeFrames = nil, []string{"7d"} },
		`there is no "needed"`:                                                      func(d *Draft) { d.DataCategory = "needed" },
	} {
		d := sound
		d.Attributes = slices.Clone(d.Attributes)
		change(&d)
		if _, _, err := p.Make(d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Make: %v\nwant %q", err, want)
		}
	}
}

// Ask asks only for what is missing, and again after an answer that will not do.
func TestAsk(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	answers := []string{
		"team.created", "team.left", // the first is there already
		"short", "Somebody left a team on their own.",
		"", "growth",
		"user_id:int:required", "plan:enum", "plan:enum(free|pro)", "user_id:int", "colour:string:tag", "price:float", "",
		"9", "1 2, 3",
		"",
	}
	var out strings.Builder
	d := Draft{URL: "https://git.example.com/shop/pulls/72"}
	if err := p.Ask(&d, strings.NewReader(strings.Join(answers, "\n")+"\n"), &out); err != nil {
		t.Fatalf("Ask: %v\n%s", err, out.String())
	}
	want := Draft{
		Event: "team.left", Description: "Somebody left a team on their own.", Owner: "growth", URL: d.URL,
		Attributes: []string{"user_id:int:required", "plan:enum(free|pro)", "price:float"},
		Unique:     []string{"user.id"}, Sum: []string{"price"}, Total: true, TimeFrames: []string{"7d", "28d"},
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Errorf("the draft (-want +got):\n%s", diff)
	}
	if strings.Contains(out.String(), "URL") {
		t.Errorf("it asks for what was given:\n%s", out.String())
	}
	// all is not offered for who did it.
	if strings.Contains(out.String(), " all\n") {
		t.Errorf("it offers what cannot be combined:\n%s", out.String())
	}
	if _, _, err := p.Make(d); err != nil {
		t.Errorf("what was asked for is refused: %v", err)
	}
	out.Reset()
	complete := d
	if err := p.Ask(&complete, strings.NewReader(""), &out); err != nil || out.Len() > 0 {
		t.Errorf("nothing is missing, and it asks: %v\n%s", err, out.String())
	}
	if err := p.Ask(&Draft{}, strings.NewReader("team.left\n"), io.Discard); err == nil {
		t.Error("an input that ends is no error")
	}
}

// A definition that is written is read as it was.
func TestWriteRoundTrip(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	var files []File
	for _, e := range p.Events {
		files = append(files, File{e.FileName(), e.YAML()})
	}
	for _, m := range p.Metrics {
		files = append(files, File{m.FileName(), m.YAML()})
	}
	again := asFolder(t, files)
	if changes := again.Diff(p); len(changes) > 0 {
		t.Errorf("writing changes: %v\n%s", changes, bothOf(files))
	}
	if !slices.EqualFunc(p.Events, again.Events, func(a, b *Event) bool { return string(a.YAML()) == string(b.YAML()) }) {
		t.Error("what is written twice is not the same")
	}
}

// Of several files none is written if one is there already.
func TestWriteFiles(t *testing.T) {
	dir := t.TempDir()
	files := []File{{"events/a.yml", []byte("a")}, {"metrics/b.yml", []byte("b")}}
	writeFiles(t, dir, map[string]string{"metrics/b.yml": "mine"})
	if err := WriteFiles(dir, files, false); err == nil || !strings.Contains(err.Error(), "b.yml is there already") {
		t.Errorf("WriteFiles: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "events")); err == nil {
		t.Error("some of the files are written")
	}
	if err := WriteFiles(dir, files, true); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(dir, f.Name))
		if err != nil || string(got) != string(f.Text) {
			t.Errorf("%s: %q, %v", f.Name, got, err)
		}
	}
}

// snippetClients run a snippet, with the real client where it is installed, against a
// client that keeps the line for the test.
var snippetClients = map[string]struct {
	program       string
	check         []string // fails if the client is not there
	before, after string
	file          string
}{
	"python-statsd": {
		program: "/usr/bin/python3", check: []string{"-c", "import statsd"}, file: "snippet.py",
		before: "import statsd\nclient = statsd.StatsClient('127.0.0.1', PORT)\n",
	},
	"python": {
		program: "/usr/bin/python3", check: []string{"-c", "import datadog"}, file: "snippet.py",
		before: "from datadog import DogStatsd\nstatsd = DogStatsd(host='127.0.0.1', port=PORT, disable_telemetry=True, disable_buffering=True)\n",
	},
	// What datadog does to tags, for where it is not installed.
	"python stand-in": {
		program: "/usr/bin/python3", check: []string{"-c", ""}, file: "snippet.py",
		before: `import re
import socket


class Statsd:
    def increment(self, metric, value=1, tags=None):
        tags = ",".join(re.sub(r"[^\w\-:/.]", "_", tag) for tag in tags)
        line = "%s:%s|c|#%s" % (metric, value, tags)
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(line.encode(), ("127.0.0.1", PORT))


statsd = Statsd()
`,
	},
	"javascript": {
		program: "node", check: []string{"-e", "require('hot-shots')"}, file: "snippet.js",
		before: "const StatsD = require('hot-shots');\nconst client = new StatsD({host: '127.0.0.1', port: PORT});\n",
		after:  "client.close();\n",
	},
	"ruby": {
		program: "ruby", check: []string{"-e", "require 'datadog/statsd'"}, file: "snippet.rb",
		before: "require 'datadog/statsd'\nstatsd = Datadog::Statsd.new('127.0.0.1', PORT, telemetry_enable: false)\n",
		after:  "statsd.close\n",
	},
	// Debian has Ruby and not the gem; this writes its call as the gem does, which takes
	// what separates tags out of them.
	"ruby without the gem": {
		program: "ruby", check: []string{"--version"}, file: "snippet.rb",
		before: `require 'socket'
class Statsd
  def increment(name, tags: [])
    UDPSocket.new.send("#{name}:1|c|##{tags.map { |t| t.delete('|,') }.join(',')}", 0, '127.0.0.1', PORT)
  end
end
statsd = Statsd.new
`,
	},
}

func TestSnippets(t *testing.T) {
	files, e, err := Empty(DefaultOptions()).Make(everything)
	if err != nil {
		t.Fatal(err)
	}
	e.Consent = []string{"analytics", "ads"}
	p := asFolder(t, append([]File{{e.FileName(), e.YAML()}}, files[1:]...))
	var all strings.Builder
	for _, client := range Clients {
		all.WriteString("==> " + client + ": " + SnippetNeeds(client) + "\n" + e.Snippet(client, "analytics."))
	}
	golden(t, "snippets.golden", all.String())

	for _, key := range slices.Sorted(maps.Keys(snippetClients)) {
		client := snippetClients[key]
		name, _, _ := strings.Cut(key, " ")
		t.Run(key, func(t *testing.T) {
			modules, err := filepath.Abs("../../.ci/node_modules")
			if err != nil {
				t.Fatal(err)
			}
			environment := append(os.Environ(), "NODE_PATH="+modules, "PYTHONDONTWRITEBYTECODE=1")
			probe := exec.Command(client.program, client.check...)
			probe.Env = environment
			if err := probe.Run(); err != nil {
				t.Skipf("the client is not installed (%s); .ci/run installs some", SnippetNeeds(name))
			}
			socket := listenUDP(t)
			script := strings.ReplaceAll(client.before, "PORT", socket.port) + e.Snippet(name, "analytics.") + client.after
			path := filepath.Join(t.TempDir(), client.file)
			if err := os.WriteFile(path, []byte(script), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(client.program, path)
			cmd.Env = environment
			if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("%v\n%s\n%s", err, out, script)
			}
			acceptExample(t, p, socket.read(t), name == "python-statsd")
		})
	}
}
