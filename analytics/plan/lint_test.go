package plan

import (
	"fmt"
	"strings"
	"testing"
)

func TestLint(t *testing.T) {
	var b strings.Builder
	for _, finding := range load(t, "testdata/lint", DefaultOptions()).Lint() {
		severity := "warning"
		if finding.Error {
			severity = "error"
		}
		fmt.Fprintf(&b, "%s %v\n", severity, finding.Fault)
	}
	golden(t, "lint.golden", b.String())
}

func changesText(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, c)
	}
	return b.String()
}

// A plan is no different from itself.
func TestDiffOfItself(t *testing.T) {
	for _, dir := range []string{"testdata/sound", "testdata/check", "testdata/lint"} {
		p := load(t, dir, DefaultOptions())
		if changes := p.Diff(load(t, dir, DefaultOptions())); len(changes) > 0 {
			t.Errorf("%s: %s", dir, changesText(changes))
		}
	}
}

// change returns the sound plan with some of its text replaced.
func change(t *testing.T, pairs ...string) *Plan {
	t.Helper()
	p := load(t, "testdata/sound", DefaultOptions())
	var files []File
	for _, e := range p.Events {
		files = append(files, File{e.FileName(), e.YAML()})
	}
	for _, m := range p.Metrics {
		files = append(files, File{m.FileName(), m.YAML()})
	}
	for i := 0; i < len(pairs); i += 2 {
		found := false
		for j, f := range files {
			if strings.Contains(string(f.Text), pairs[i]) {
				found, files[j].Text = true, []byte(strings.Replace(string(f.Text), pairs[i], pairs[i+1], 1))
				break
			}
		}
		if !found {
			t.Fatalf("there is no %q in:\n%s", pairs[i], bothOf(files))
		}
	}
	return asFolder(t, files)
}

func TestDiff(t *testing.T) {
	const version, versionTo = "version: 2-1-0", "version: "
	for _, test := range []struct {
		name  string
		pairs []string
		want  []string // parts of all changes, in order; those that break begin with !
	}{
		{"words", []string{"owner: checkout", "owner: payments", "Somebody created", "Someone created"}, []string{"owner: \"checkout\" is now \"payments\"", "description"}},

		{"a new attribute", []string{"  gift:", "  colour: {type: string}\n  gift:"}, []string{"colour: new", "!version 2-1-0 must be 2-1-1 or later, because of colour: new"}},
		{"a new attribute with an addition", []string{"  gift:", "  colour: {type: string}\n  gift:", version, versionTo + "2-1-1"}, []string{"colour: new", "version 2-1-0 is now 2-1-1"}},
		{"a new attribute with a model", []string{"  gift:", "  colour: {type: string}\n  gift:", version, versionTo + "3-0-0"}, []string{"colour: new", "version 2-1-0 is now 3-0-0"}},
		{"a new required one", []string{"  gift:", "  colour: {required: true}\n  gift:", version, versionTo + "2-2-0"}, []string{"colour: new, and required", "!must be 3-0-0"}},
		{"a type", []string{"{type: bool", "{type: string", "gift: \"true\"", "gift: x", version, versionTo + "3-0-0"}, []string{"gift: type bool is now string", "version", "!events: order.paid[gift="}},
		{"one is gone", []string{"  note: {type: string, role: raw, max_length: 10}\n", ""}, []string{"note: the attribute is gone", "!must be 3-0-0"}},
		{"one is required", []string{"note: {type: string", "note: {type: string, required: true", version, versionTo + "2-1-1"}, []string{"note: it is required now", "!must be 2-2-0"}},
		{"one is not required", []string{"user_id: {type: int, required: true", "user_id: {type: int", version, versionTo + "2-1-1"}, []string{"user_id: it is not required any more", "version"}},
		{"a role", []string{"role: tag}", "role: raw}"}, []string{"gift: role tag is now raw", "!must be 3-0-0"}},
		{"an identity", []string{"identity: email", "identity: mail"}, []string{"email: role identity email is now identity mail", "!must be 3-0-0"}},
		{"privacy", []string{"truncate(3)", "truncate(4)"}, []string{"privacy truncate(3) is now truncate(4)", "!must be 2-2-0"}},
		{"a shorter value", []string{"max_length: 10", "max_length: 9"}, []string{"max_length 10 is now 9", "!must be 2-2-0"}},
		{"a longer value", []string{"max_length: 10", "max_length: 11"}, []string{"max_length 10 is now 11", "!must be 2-1-1"}},
		{"values", []string{"[free, pro]", "[pro, team]"}, []string{"the value free is gone", "the value team is new", "!version 1-0-0 must be 1-1-0"}},
		{"additional attributes", []string{"additional_attributes: drop", "additional_attributes: reject"}, []string{"additional_attributes", "!must be 1-1-0"}},
		{"a version that falls", []string{version, versionTo + "2-0-9"}, []string{"!version 2-0-9 is before 2-1-0"}},
		{"a version that rises by itself", []string{version, versionTo + "2-1-1"}, []string{"version 2-1-0 is now 2-1-1"}},
		{"a counter", []string{"status: active\nversion: 2-1-0", "status: active\nmetric: {name: orders}\nversion: 2-1-0"}, []string{"!its counter order.paid would end"}},

		{"a time frame", []string{"[7d, 28d]", "[7d]"}, []string{"!time_frame: 28d is gone"}},
		{"another time frame", []string{"[7d, 28d]", "[1d, 7d, 28d]"}, []string{"time_frame: 1d is new"}},
		{"a window", []string{"time_frame: [7d, 28d]\nwindow: rolling", "time_frame: [7d, 28d]\nwindow: gitlab_weeks"}, []string{"!window: rolling is now gitlab_weeks"}},
		{"a zone", []string{"Europe/Berlin", "Europe/Paris"}, []string{"!timezone"}},
		{"a filter", []string{"filter: {plan: pro}", "filter: {plan: free}"}, []string{"!events"}},
		{"who", []string{"unique: user.id, filter: {plan: pro}", "unique: organization.id, filter: {plan: pro}", "  - {name: order.paid, unique: user.id}\n", ""}, []string{"!events"}},
		{"what is added up", []string{"sum(amount)", "sum(items)"}, []string{"!events"}},
		{"an operator", []string{"unique: user.id}\n", "unique: user.id}\noperator: and\n"}, []string{"!operator: or is now and"}},
		{"a scope", []string{"unique: user.id}\n", "unique: user.id}\nemit: {scope: host}\n"}, []string{"!emit.scope"}},
		{"the order of rules", []string{"  - {name: team.created, unique: user.id, filter: {plan: pro}}\n  - {name: order.paid, unique: user.id}\n", "  - {name: order.paid, unique: user.id}\n  - {name: team.created, unique: user.id, filter: {plan: pro}}\n"}, nil},
		{"a metric that ends", []string{"key_path: usage.orders.turnover\n", "key_path: usage.orders.turnover\nremoved_by_url: x\n", "status: active\ntime_frame: [week", "status: removed\ntime_frame: [week"}, []string{"status: active is now removed", "removed_by_url"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			changes := change(t, test.pairs...).Diff(change(t))
			good := len(changes) == len(test.want)
			for i := range min(len(changes), len(test.want)) {
				part, breaking := strings.CutPrefix(test.want[i], "!")
				good = good && strings.Contains(changes[i].Message, part) && changes[i].Breaking == breaking
			}
			if !good {
				t.Errorf("got:\n%swant: %q", changesText(changes), test.want)
			}
		})
	}
}

func TestDiffOfFiles(t *testing.T) {
	whole, part := change(t), asFolder(t, []File{{"events/a.yml", []byte("event: order.paid\ndescription: d\nstatus: removed\n")}})
	got := changesText(part.Diff(asFolder(t, []File{{"events/a.yml", []byte("event: order.paid\ndescription: d\n")}, {"events/b.yml", []byte("event: b\ndescription: d\n")}})))
	want := "breaking: event b: its definition is gone; keep it with status: removed, so that nobody uses the name again\n" +
		"event order.paid: status: active is now removed\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	got = changesText(whole.Diff(part))
	for _, part := range []string{
		"breaking: event order.paid: it was removed and is active", "event team.created: new, version 1-0-0\n", "metric usage.teams.users: new\n",
	} {
		if !strings.Contains(got, part) {
			t.Errorf("there is no %q in:\n%s", part, got)
		}
	}
}
