package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The gate of a pull request in docs/ANALYTICS.md is a gate: in a shallow checkout it
// passes a change that may be, and fails on one that may not.
func TestGateOfDefinitions(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("there is no git; .ci/run installs it")
	}
	content, err := os.ReadFile("../../docs/ANALYTICS.md")
	if err != nil {
		t.Fatal(err)
	}
	gate := ""
	for _, at := range fence.FindAllStringSubmatch(string(content), -1) {
		if at[1] == "sh" && strings.Contains(at[2], "weir events diff") {
			gate = at[2]
		}
	}
	if gate == "" {
		t.Fatal("there is no gate in the document")
	}
	root := t.TempDir()
	w := walk{folder: root, path: t.TempDir()}
	if err := os.Symlink(build(t), filepath.Join(w.path, "weir")); err != nil {
		t.Fatal(err)
	}
	run := func(folder, command string) (string, error) {
		at := walk{folder: filepath.Join(root, folder), path: w.path}
		return at.shell("export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.com\n" + command)
	}
	must := func(folder, command string) {
		t.Helper()
		if out, err := run(folder, command); err != nil {
			t.Fatalf("%s\n%v\n%s", command, err, out)
		}
	}
	must("", `git init -q -b main work
cd work
weir events new --definitions analytics --event team.created --description 'Somebody created a team.' --owner growth \
  --url https://git.example.com/1 --attr user_id:int --attr 'plan:enum(free|pro)' --unique user.id > /dev/null
git add . && git commit -qm one && git commit -q --allow-empty -m two
git clone -q --depth 1 "file://$PWD" ../checkout
cd ../checkout && git checkout -qb change`)
	const definition = "analytics/events/team.created.yml"
	must("checkout", "sed -i 's/Somebody created a team/Somebody created a team, or two/' "+definition)
	if out, err := run("checkout", gate); err != nil || !strings.Contains(out, "event team.created: description: ") {
		t.Errorf("a change of words: %v\n%s", err, out)
	}
	must("checkout", "sed -i 's/, pro]/]/' "+definition)
	if out, err := run("checkout", gate); err == nil || !strings.Contains(out, "breaking: event team.created: version 1-0-0 must be 1-1-0 or later") {
		t.Errorf("a value less, and no version: %v\n%s", err, out)
	}
}
