package plan

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// importOf imports files.
func importOf(t *testing.T, from func(string) (*Imported, error), files map[string]string) (*Plan, *Imported, string) {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, files)
	p, got := imported(t, from, dir)
	return p, got, strings.ReplaceAll(strings.Join(got.Notes, "\n"), dir+string(filepath.Separator), "")
}

// attributesOf returns an event's attributes in one line.
func attributesOf(p *Plan, event string) string {
	e := p.Event(event)
	if e == nil {
		return "no event"
	}
	var all []string
	for i := range e.Attributes {
		a := &e.Attributes[i]
		text := a.Name + " " + string(a.Type) + " " + string(a.Role)
		if a.Required {
			text += " required"
		}
		if a.Privacy.Kind != None && a.Role != Identity {
			text += " " + a.Privacy.String()
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// Definitions of GitLab as people write them: with anchors, properties from before
// internal_events, descriptions that are too short, and properties that say who it was.
func TestImportGitLabAsItIsWritten(t *testing.T) {
	p, got, notes := importOf(t, ImportGitLab, map[string]string{
		"config/events/anchors.yml": `---
shared: &shared
  label: {description: Which language it was}
description: A file was looked at, in the browser
internal_events: true
action: anchors
identifiers: &who
- user
additional_properties:
  <<: *shared
  property: {description: Which editor it was}
tiers: [free]
`,
		"config/events/aliased.yml": "x: &p\n  label: {description: Which}\naction: aliased\ndescription: Short\nmilestone: 17.10\nadditional_properties: *p\n",
		"config/events/several.yml": "x: &p\n  label: {description: Old}\ny: &q\n  value: {description: V}\naction: several\n" +
			"additional_properties:\n  <<: [*p, *q]\n  label: {description: New}\n",
		"config/events/old.yml": "category: projects:index\naction: old\nlabel_description: Which page\nproperty_description: Which way\nvalue_description: How many\n" +
			"extra_properties:\ndistributions: [ce]\n",
		"config/events/private.yml": "action: private\nadditional_properties:\n  user_name: {description: Whose}\n  access_token: {description: With}\n",
		"config/events/bomb.yml": "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\naction: bomb\nidentifiers: *f\n",
		"config/events/latin.yml": "action: latin\ndescription: caf\xe9\n",
		"config/events/huge.yml":  "action: huge\n#" + strings.Repeat("x", maxImportFile),
		"config/metrics/total.yml": `---
key_path: counts.total
description: Total of anchors
data_source: internal_events
value_type: number
time_frame: &frames
- 7d
- 28d
- all
events:
- name: anchors
  filter: {label: 3}
`,
		"config/metrics/alias.yml": "x: &f [28d]\nkey_path: counts.alias\ndata_source: internal_events\ntime_frame: *f\nevents: [{name: anchors}]\n",
		// It counts two kinds of who, and is left out: nobody has to send either for it.
		"config/metrics/unsound.yml": "key_path: counts.unsound\ndescription: Distinct labels or properties\ndata_source: internal_events\ntime_frame: 7d\n" +
			"events:\n- {name: anchors, unique: label}\n- {name: anchors, unique: property}\n",
		"config/metrics/half.yml": "key_path: counts.half\ndata_source: internal_events\ntime_frame: 7d\nevents:\n- {name: anchors, unique: user.id}\n- {name: nothing, unique: user.id}\n",
	})
	for event, want := range map[string]string{
		"anchors": "user_id int identity, label string raw, property string raw",
		"aliased": "label string raw",
		"several": "value float value, label string raw",
		"old":     "label string raw, property string raw, value float value",
		"private": "user_name string raw hmac, access_token string drop",
	} {
		if got := attributesOf(p, event); got != want {
			t.Errorf("%s: got  %s\nwant %s", event, got, want)
		}
	}
	if e := p.Event("several"); e != nil && e.Attributes[1].Description != "New" {
		t.Errorf("what is merged goes before what stands there: %v", e.Attributes)
	}
	if m := p.Metric("counts.alias"); m == nil || len(m.TimeFrames) != 1 || got.Metrics != 2 || len(p.Metrics) != 2 {
		t.Errorf("%d metrics: %v", got.Metrics, m)
	}
	for _, finding := range p.Lint() {
		if finding.Error {
			t.Errorf("what is imported has a finding: %v", finding)
		}
	}
	const want = `config/events/bomb.yml: left out, it is no event (yaml: line 5: cannot unmarshal !!seq into string)
config/events/huge.yml: left out, it is larger than 1024 KiB
config/events/latin.yml: left out, it is not valid YAML (yaml: incomplete UTF-8 octet sequence)
config/metrics/half.yml: left out, there is no event nothing
config/metrics/unsound.yml: left out, events: the rules count different identities, label and property; make two metrics of it`
	if notes != want {
		t.Errorf("notes:\n%s\nwant\n%s", notes, want)
	}
}

// A folder may be a link, and files in it may be; a link to a folder in it is not
// followed, since it may lead back.
func TestImportFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{"real/a.yml": "action: first\n", "elsewhere/b.yml": "action: second\n", "elsewhere/c/c.yml": "action: third\n"})
	for link, to := range map[string]string{
		"link": "real", "real/b.yml": "../elsewhere/b.yml", "real/c": "../elsewhere/c", "real/loop": ".", "real/nothing.yml": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	p, _ := imported(t, ImportGitLab, filepath.Join(dir, "link"))
	if len(p.Events) != 2 || p.Events[0].Name != "first" || p.Events[1].Name != "second" {
		t.Errorf("events: %v", p.Events)
	}
}

// Classes of Sentry as people write them. What cannot be read without running it is told.
func TestImportSentryAsItIsWritten(t *testing.T) {
	p, got, notes := importOf(t, ImportSentry, map[string]string{
		"a.py": `from __future__ import annotations
from sentry import analytics
from sentry.analytics import Attribute as Attr, Event as Base, eventclass as ec

CREATED = "const.created"
AREA: str = "area"
WHO = (
    Attr("user_id", type=int),  # who it was
    analytics.Attribute("organization_id", type=int, required=False),
)


class Const(analytics.Event):
    type = CREATED
    attributes = WHO + (Attr("plan"),)


class Filled(analytics.Event):
    type = f"{AREA}.created"


class Elsewhere(Base):
    type = constants.GONE
    attributes = ()


class Unread(Base):
    type = f"un" "read"
    attributes = OTHER + (Attr(NAME), make("x"), analytics.Attribute("z"))


@analytics.eventclass(event_name="keyword.x")
class Keyword(analytics.Event):
    flags: dict[str, int | None]
    maybe: "Optional[int]"
    either: Union[int, None]
    tagged: Annotated[int, None]
    plain: list[Optional[int]]
    text: typing.Optional[str]
    given: int = 3


@ec(CREATED_LATER)
class Late(Base):
    a: int


@analytics.eventclass()
class Abstract(analytics.Event):
    a: int


class NoEvent(Model):
    type = constants.GONE
`,
		"huge.py": "#" + strings.Repeat("x", maxImportFile),
	})
	for event, want := range map[string]string{
		"const.created": "user_id int identity required, organization_id int identity, plan string raw required",
		"unread":        "z string raw required",
		"keyword.x": "flags string raw required, maybe int raw, either int raw, tagged int raw required, plain string raw required, text string raw, " +
			"given int raw",
	} {
		if got := attributesOf(p, event); got != want {
			t.Errorf("%s: got  %s\nwant %s", event, got, want)
		}
	}
	const want = `a.py:18: Filled is left out, its type is not written as text
a.py:22: Elsewhere is left out, its type is not written as text
a.py:27: OTHER is not read; add the attributes that it stands for
a.py:27: an attribute whose name is no text is left out
a.py:27: make is not read; add the attributes that it stands for
a.py:44: Late is left out, its type is not written as text
huge.py: left out, it is larger than 1024 KiB`
	if got.Events != 3 || notes != want {
		t.Errorf("%d events; notes:\n%s\nwant\n%s", got.Events, notes, want)
	}
}

// A constant that stands for itself ends.
func TestImportSentryOfLoops(t *testing.T) {
	p, _, _ := importOf(t, ImportSentry, map[string]string{
		"a.py": "A = A + B + (Attribute('a'),)\nB = A\nclass X(Event):\n  type = 'x'\n  attributes = A + A\n",
	})
	if got := attributesOf(p, "x"); got != "a string raw required" {
		t.Errorf("got %s", got)
	}
	var bomb strings.Builder
	for i := range 60 {
		fmt.Fprintf(&bomb, "A%d = A%d + A%d\n", i, i+1, i+1)
	}
	p, _, _ = importOf(t, ImportSentry, map[string]string{"a.py": bomb.String() + "class X(Event):\n  type = 'x'\n  attributes = A0\n"})
	if p.Event("x") == nil {
		t.Error("there is no event")
	}
}
