package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inFolder runs `weir events` with a folder of definitions.
func inFolder(t *testing.T, folder string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	return execute(t, build(t), nil, append(append([]string{"events"}, args...), "--definitions", folder)...)
}

var newEvent = []string{
	"new", "--event", "team.created", "--description", "Somebody created a team in an organization.", "--owner", "growth",
	"--url", "https://git.example.com/shop/pulls/71", "--attr", "user_id:int:required", "--attr", "plan:enum(free|pro)",
	"--unique", "user.id", "--time-frames", "7d,28d",
}

// An event's life: it is defined, listed, checked, tried out, exported and changed.
func TestEventsCommands(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "analytics")
	wants := func(what string, code, wantCode int, output string, parts ...string) {
		t.Helper()
		if code != wantCode {
			t.Errorf("%s: exit code %d, want %d\n%s", what, code, wantCode, output)
		}
		for _, part := range parts {
			if !strings.Contains(output, part) {
				t.Errorf("%s: no %q in\n%s", what, part, output)
			}
		}
	}
	run := func(what string, wantCode int, args []string, parts ...string) {
		t.Helper()
		stdout, stderr, code := inFolder(t, folder, args...)
		wants(what, code, wantCode, stdout+stderr, parts...)
	}

	run("a dry run", 0, append(newEvent, "--dry-run"), "==> "+folder+"/events/team.created.yml <==", "event: team.created")
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("a dry run writes: %v", err)
	}
	run("no event yet", 1, []string{"list"}, "no such file")
	run("new", 0, newEvent, "wrote "+folder+"/events/team.created.yml", "metrics/usage.count_distinct_user_from_team_created.yml",
		`client.Count("analytics.team.created"`, "statsd.increment(", "client.incr(", "hot-shots")
	run("new again", 1, newEvent, "team.created is defined in "+folder+"/events/team.created.yml already")
	run("without a terminal nothing is asked", 1, []string{"new", "--event", "team.left"}, "description: it has 0 characters", "owner: it is missing", "url: it is missing")
	run("a client that is not known", 1, append(newEvent, "--client", "cobol"), `there is no "cobol"`)
	run("list", 0, []string{"list"}, "team.created  1-0-0", "user_id* plan", "usage.count_distinct_user_from_team_created  7d 28d")
	run("lint", 0, []string{"lint"}, "1 event and 1 metric are sound; 0 warnings")
	run("snippet", 0, []string{"snippet", "team.created", "--client", "javascript"}, `client.increment("analytics.team.created", 1, {`)
	run("snippet of nothing", 1, []string{"snippet", "team.create"}, `there is no event "team.create"`)
	run("test", 0, []string{"test", "analytics.team.created:1|c|#user_id:7,plan:pro"}, "it counts\n", "user_id = 7 (int identity)")
	run("test influx", 0, []string{"test", "--tag-style", "influx", "analytics.team.created,user_id=7:2|c"}, "it counts\n")
	run("test faults", 1, []string{"test", "analytics.team.created:1|c|#plan:gold", "analytics.team.crated:1|c", "page.views:1|c", "a:x|c", "analytics.team.created:0.5|c|#user_id:1", "_e{1,1}:a|b"},
		"required_missing: user_id is required", "not_in_enum: plan is not one of free, pro", "it counts as an event that nobody planned",
		"no event: its name begins with none of analytics.", "rejected: bad_value", "bad_count", "it is no metric", "something is wrong with 6 of 6 lines")
	run("strict", 1, []string{"test", "--mode", "strict", "analytics.team.created:1|c"}, "it does not count, and goes to the dead letters")
	run("a mode that is not known", 1, []string{"test", "--mode", "stern", "analytics.team.created:1|c"}, `analytics.mode: there is no mode "stern"`)

	run("markdown", 0, []string{"export", "markdown"}, "### team.created", "### usage.count_distinct_user_from_team_created")
	run("jsonschema", 0, []string{"export", "jsonschema"}, `"$id": "urn:weir:event:team.created:1-0-0"`)
	exported := t.TempDir()
	run("bigquery", 0, []string{"export", "bigquery", "--out", exported}, "wrote "+exported+"/load.sh")
	if _, err := os.Stat(filepath.Join(exported, "events.schema.json")); err != nil {
		t.Error(err)
	}
	run("an export that is not known", 1, []string{"export", "avro"}, `there is no form "avro"`)

	published := t.TempDir()
	if err := os.CopyFS(published, os.DirFS(folder)); err != nil {
		t.Fatal(err)
	}
	run("no difference", 0, []string{"diff", published})
	path := filepath.Join(folder, "events", "team.created.yml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change := func(old, now string) {
		t.Helper()
		changed := strings.ReplaceAll(string(text), old, now)
		if changed == string(text) {
			t.Fatalf("there is no %q in\n%s", old, text)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change("[free, pro]", "[free, pro, team]")
	run("a difference without a version", 1, []string{"diff", published}, "breaking: event team.created: version 1-0-0 must be 1-0-1 or later", "diff: 1 breaking change")
	change("role: tag", "role: tga")
	run("a fault", 1, []string{"list"}, "1 fault in the definitions\n"+path+":9: attributes.plan.role: there is no \"tga\"; did you mean tag?")
	change("plan: {type: enum, role: tag, values: [free, pro]}", "email: {role: raw}")
	run("findings", 1, []string{"lint"}, "error: "+path+":", "email: it looks like a mail address", "lint: 1 error, 0 warnings")
}

// The folder, the mode and the prefix come from the configuration, if the command line
// names none.
func TestEventsCommandsReadTheConfiguration(t *testing.T) {
	folder := t.TempDir()
	file := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(file, []byte("analytics: {definitions: '"+folder+"', mode: strict, prefixes: [shop.events.]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code := execute(t, build(t), nil, append([]string{"events", "--config", file}, newEvent...)...)
	if code != 0 || !strings.Contains(stdout, `"shop.events.team.created"`) {
		t.Errorf("new: exit code %d\n%s%s", code, stdout, stderr)
	}
	stdout, stderr, code = execute(t, build(t), nil, "events", "--config", file, "test", "shop.events.team.created:1|c")
	if code != 1 || !strings.Contains(stdout, "it does not count") {
		t.Errorf("test: exit code %d\n%s%s", code, stdout, stderr)
	}
	_, stderr, code = execute(t, build(t), nil, "events", "list")
	if code != 1 || !strings.Contains(stderr, "name one with --definitions") {
		t.Errorf("without a folder: exit code %d\n%s", code, stderr)
	}
}

func TestEventsImportCommand(t *testing.T) {
	const fixtures = "../../analytics/plan/testdata/"
	for source, want := range map[string]string{
		"gitlab": "wrote 3 events and 5 metrics", "sentry": "wrote 6 events and 0 metrics",
	} {
		t.Run(source, func(t *testing.T) {
			folder := t.TempDir()
			stdout, stderr, code := inFolder(t, folder, "import", source, fixtures+source)
			if code != 0 || !strings.Contains(stdout, want) || !strings.Contains(stdout, "note: ") {
				t.Errorf("exit code %d, want %q in\n%s%s", code, want, stdout, stderr)
			}
			if stdout, stderr, code := inFolder(t, folder, "list"); code != 0 {
				t.Errorf("what is imported has faults: %s%s", stdout, stderr)
			}
			if _, stderr, code := inFolder(t, folder, "import", source, fixtures+source); code != 1 || !strings.Contains(stderr, "is there already") {
				t.Errorf("a second import: exit code %d\n%s", code, stderr)
			}
			if _, stderr, code := inFolder(t, folder, "import", source, fixtures+source, "--replace"); code != 0 {
				t.Errorf("a second import that may replace: exit code %d\n%s", code, stderr)
			}
		})
	}
	// Somebody defined one of the events before, in a file of another name.
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "events", "growth"), 0o755); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(folder, "events", "growth", "mine.yml")
	if err := os.WriteFile(own, []byte("event: open_cookbook_in_kitchen\ndescription: It is what it is.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := inFolder(t, folder, "import", "gitlab", fixtures+"gitlab", "--replace"); code != 1 || !strings.Contains(stderr, "is defined in") {
		t.Errorf("an import that spoils a folder: exit code %d\n%s", code, stderr)
	}
	if stdout, stderr, code := inFolder(t, folder, "list"); code != 0 {
		t.Errorf("it is spoilt: %s%s", stdout, stderr)
	}
	if _, stderr, code := inFolder(t, t.TempDir(), "import", "segment", "."); code != 1 || !strings.Contains(stderr, `there is no source "segment"`) {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}
