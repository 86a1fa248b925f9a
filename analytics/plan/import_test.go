package plan

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func imported(t *testing.T, from func(string) (*Imported, error), dir string) (*Plan, *Imported) {
	t.Helper()
	got, err := from(dir)
	if err != nil {
		t.Fatal(err)
	}
	return asFolder(t, got.Files), got
}

// What is imported loads without faults, and every note says what was left out.
func TestImportGitLab(t *testing.T) {
	p, got := imported(t, ImportGitLab, "testdata/gitlab")
	golden(t, "gitlab.golden", bothOf(got.Files)+"==> notes <==\n"+strings.Join(got.Notes, "\n")+"\n")
	if got.Events != len(p.Events) || got.Metrics != len(p.Metrics) {
		t.Errorf("it says %d events and %d metrics, and there are %d and %d", got.Events, got.Metrics, len(p.Events), len(p.Metrics))
	}
}

func TestImportSentry(t *testing.T) {
	p, got := imported(t, ImportSentry, "testdata/sentry")
	golden(t, "sentry.golden", bothOf(got.Files)+"==> notes <==\n"+strings.Join(got.Notes, "\n")+"\n")
	if got.Events != len(p.Events) {
		t.Errorf("it says %d events, and there are %d", got.Events, len(p.Events))
	}
	for _, finding := range p.Lint() {
		if finding.Error {
			t.Errorf("what is imported has a finding: %v", finding)
		}
	}
}

func TestImportOfNothing(t *testing.T) {
	for name, from := range map[string]func(string) (*Imported, error){"GitLab": ImportGitLab, "Sentry": ImportSentry} {
		if _, err := from(t.TempDir()); err == nil || !strings.Contains(err.Error(), "there are no events below") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := from("testdata/none"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// GitLab's own outcomes, with what an import makes of its definitions.
func TestOutcomesOfGitLab(t *testing.T) {
	p, _ := imported(t, ImportGitLab, "testdata/gitlab")
	const event = "analytics.open_cookbook_in_kitchen:1|c|#"
	for _, test := range []struct{ fault, line, want string }{
		{"nothing is wrong", event + "user_id:1,project_id:2,namespace_id:3,label:thai,property:paper,value:12", "count ok user_id=1 project_id=2 namespace_id=3 label=thai property=paper value=12"},
		{"an unknown event is told and not counted as one", "analytics.open_cookbok_in_kitchen:1|c|#user_id:1", "unplanned unplanned_event"},
		{"an identifier of the wrong class is told, and processing goes on", event + "user_id:anna,label:thai", "count datatype_mismatch label=thai"},
		{"a custom property that nobody declared is told and sent all the same", event + "user_id:1,label:thai,mood:good", "count additional_properties user_id=1 label=thai +mood=good"},
		{"a base property that nobody declared is told", "analytics.ring_timer:1|c|#user_id:1,label:thai", "count additional_properties user_id=1 +label=thai"},
		{"a property of the wrong type is told", event + "user_id:1,label:thai,value:long", "count datatype_mismatch user_id=1 label=thai"},
		{"without the identifier of a unique rule that is told; totals count", event + "label:thai", "count required_missing label=thai"},
		{"without a value a sum passes the event over in silence", event + "user_id:1,label:thai", "count ok user_id=1 label=thai"},
		{"what is removed is not counted", "analytics.burn_toast:1|c|#project_id:1", "refuse removed_event project_id=1"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			if got := check(t, p, test.line).String(); got != test.want {
				t.Errorf("%s\ngot:  %s\nwant: %s", test.line, got, test.want)
			}
		})
	}
	// The rule that lacks its identifier does not match anybody; the total does.
	r := check(t, p, event+"label:thai")
	users := p.Metric("redis_hll_counters.count_distinct_user_id_from_open_cookbook_in_kitchen")
	if v := r.Values[users.Rules[0].By]; !v.Null() {
		t.Errorf("the rule counts %s", v.Text)
	}
	total := p.Metric("counts.count_total_open_cookbook_in_kitchen")
	if r.Verdict != Count || !total.Rules[0].Matches(r.Values) {
		t.Error("the total does not count")
	}
	sum := p.Metric("counts.minutes_of_open_cookbooks")
	if v := r.Values[sum.Rules[0].Of]; !v.Null() {
		t.Errorf("the sum adds %s", v.Text)
	}
}

// Sentry's own outcomes, with what an import makes of its classes.
func TestOutcomesOfSentry(t *testing.T) {
	p, _ := imported(t, ImportSentry, "testdata/sentry")
	options := DefaultOptions()
	options.Mode = Strict // an event that nobody defined is an error as well
	p.options = options
	const event = "analytics.garden.planted:1|c|#default_user_id:2,garden_id:3,organic:True,soil_kind:sand"
	for _, test := range []struct{ fault, line, want string }{
		{"nothing is wrong; what is optional and absent is null", event, "count ok default_user_id=2 garden_id=3 organic=true soil_kind=sand"},
		{"an unknown type raises KeyError", "analytics.garden.plantd:1|c", "refuse unplanned_event"},
		{"a required attribute that is absent raises ValueError", "analytics.garden.planted:1|c|#garden_id:3,organic:True,soil_kind:sand", "refuse required_missing garden_id=3 organic=true soil_kind=sand"},
		{"a required attribute that is None raises ValueError", "analytics.garden.planted:1|c|#default_user_id:,garden_id:3,organic:True,soil_kind:sand", "refuse required_missing garden_id=3 organic=true soil_kind=sand"},
		{"record() drops what nobody declared in silence", event + ",colour:red", "count additional_properties default_user_id=2 garden_id=3 organic=true soil_kind=sand"},
		{"a number for text becomes text", event + ",garden_id:3", "count ok default_user_id=2 garden_id=3 organic=true soil_kind=sand"},
		{"a cast that fails raises", event + ",area:large", "refuse datatype_mismatch default_user_id=2 garden_id=3 organic=true soil_kind=sand"},
	} {
		t.Run(test.fault, func(t *testing.T) {
			if got := check(t, p, test.line).String(); got != test.want {
				t.Errorf("%s\ngot:  %s\nwant: %s", test.line, got, test.want)
			}
		})
	}
	// Event(…) and the newer classes raise where record() is silent.
	p.Event("garden.planted").Additional = AdditionalReject
	if got := check(t, p, event+",colour:red"); got.Verdict != Refuse || !got.Has(AdditionalProperties) {
		t.Errorf("with additional_attributes: reject: %s", got)
	}
}

// FuzzImportSentry: no text makes the reader of Python panic or hang, and what it
// makes of it loads.
func FuzzImportSentry(f *testing.F) {
	paths, _ := filepath.Glob("testdata/sentry/*/*.py")
	deeper, _ := filepath.Glob("testdata/sentry/*/*/*.py")
	for _, path := range append(paths, deeper...) {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("@eventclass('a')\nclass A(A):\n  a: int;b: str\n  attributes = A.attributes + (Map('', (Map('x', (Attribute")
	f.Fuzz(func(t *testing.T, text string) {
		s := &sentryImport{out: &Imported{}, byName: map[string][]*sentryClass{}, events: map[string]*Event{}}
		s.file("a.py", text)
		for _, c := range s.classes {
			s.event(c)
		}
		var events []*Event
		for _, e := range s.events {
			events = append(events, e)
		}
		if faults := s.out.prove(events, nil); len(faults) > 0 {
			t.Error(faults)
		}
	})
}

// FuzzImportGitLab: no text makes the import panic, and what it makes of it loads.
func FuzzImportGitLab(f *testing.F) {
	events, _ := filepath.Glob("testdata/gitlab/config/events/*.yml")
	metrics, _ := filepath.Glob("testdata/gitlab/config/metrics/*/*.yml")
	for i, path := range metrics {
		event, _ := os.ReadFile(events[i%len(events)])
		metric, _ := os.ReadFile(path)
		f.Add(string(event), string(metric))
	}
	f.Fuzz(func(t *testing.T, event, metric string) {
		dir := t.TempDir()
		writeFiles(t, dir, map[string]string{"a.yml": event, "b.yml": metric})
		got, err := ImportGitLab(dir)
		if err != nil {
			if !strings.Contains(err.Error(), "there are no events") {
				t.Error(err)
			}
			return
		}
		faults := &faultList{}
		if parseFiles(got.Files, DefaultOptions(), faults); len(faults.list) > 0 {
			t.Errorf("what is imported has faults: %v", faults.all())
		}
	})
}
