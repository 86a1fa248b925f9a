package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-agent/weir/metric"
)

func TestExports(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	golden(t, "jsonschema.golden", bothOf(p.ExportJSONSchema()))
	golden(t, "bigquery.golden", bothOf(p.ExportBigQuery()))
	golden(t, "markdown.golden", bothOf(p.ExportMarkdown()))
}

// fakePseudonym is no secret, but recognizable.
func fakePseudonym(dst []byte, identity string, value []byte) []byte {
	return fmt.Appendf(dst, "p-%s-%x", identity, value)
}

func TestAppendAttributesProtects(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	for _, test := range []struct{ line, want string }{
		{
			"analytics.order.paid:1|c|#user_id:7,email:jörg@example.com,ip:192.0.2.77,amount:1e3,items:9007199254740993,gift:0,note:" +
				Escape("a\"\n\x00") + ",card:4111,placed_at:0",
			`{"user_id":"p-user.id-37","email":"jör","ip":"192.0.2.0/24","amount":1000,"items":"9007199254740993","gift":false,"note":"a\"\u000a\u0000","placed_at":"1970-01-01T00:00:00.000Z"}`,
		},
		{
			"analytics.order.paid:1|c|#user_id:7,ip:2001:db8:1:2::3,items:-9007199254740992",
			`{"user_id":"p-user.id-37","email":null,"ip":"2001:db8:1::/48","amount":null,"items":-9007199254740992,"gift":null,"note":null,"placed_at":null}`,
		},
		{
			"analytics.order.paid:1|c|#user_id:7,ip:::ffff:192.0.2.77", // an IPv4 address in the dress of the other
			`{"user_id":"p-user.id-37","email":null,"ip":"192.0.2.0/24","amount":null,"items":null,"gift":null,"note":null,"placed_at":null}`,
		},
		{
			"analytics.order.paid:1|c|#user_id:7,ip:fe80::1%eth0",
			`{"user_id":"p-user.id-37","email":null,"ip":"fe80::/48","amount":null,"items":null,"gift":null,"note":null,"placed_at":null}`,
		},
		{
			"analytics.order.paid:1|c|#user_id:7,ip:nowhere",
			`{"user_id":"p-user.id-37","email":null,"ip":null,"amount":null,"items":null,"gift":null,"note":null,"placed_at":null}`,
		},
	} {
		r := check(t, p, test.line+",_consent:analytics+marketing")
		if got := string(r.AppendAttributes(nil, fakePseudonym)); got != test.want {
			t.Errorf("%s\ngot:  %s\nwant: %s", test.line, got, test.want)
		}
	}
	p = load(t, "testdata/check", DefaultOptions())
	r := check(t, p, "analytics.cart.filled:1|c|#_consent:ads+analytics,colour:red,owner_id:7")
	if got, want := string(r.AppendExtra(nil, fakePseudonym)), `{"colour":"red","owner_id":"p-owner.id-37"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// row is a raw event with these attributes.
func row(r *Result) string {
	var flags []string
	for o := range r.Outcomes {
		if o != OK {
			flags = append(flags, o.String())
		}
	}
	list, err := json.Marshal(append([]string{}, flags...))
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"event_id":"x","event":%q,"schema_version":%q,"event_time":"2026-11-21T10:00:00Z","received_at":"2026-11-21T10:00:00Z",`+
		`"host":"web-1","source":"udp","count":1,"sample_rate":0.5,"consent":["analytics"],"key_id":"k1","flags":%s,"attrs":%s,"extra":%s,"context":{"env":"prod"}}`,
		r.Event.Name, r.Version, list, r.AppendAttributes(nil, fakePseudonym), r.AppendExtra(nil, fakePseudonym))
}

func schemas(t *testing.T, p *Plan) map[string]*jsonschema.Schema {
	t.Helper()
	all := map[string]*jsonschema.Schema{}
	for _, f := range p.ExportJSONSchema() {
		compiler := jsonschema.NewCompiler()
		compiler.AssertFormat()
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(f.Text))
		if err == nil {
			err = compiler.AddResource(f.Name, document)
		}
		if err != nil {
			t.Fatal(err)
		}
		schema, err := compiler.Compile(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(f.Name, ".schema.json")] = schema
	}
	return all
}

func valid(t *testing.T, schema *jsonschema.Schema, text string) error {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return schema.Validate(document)
}

// Whatever Check lets count is a row that the exported schema takes.
func TestJSONSchemaTakesWhatCounts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pieces := []string{
		"", "7", "-0", "007", "9007199254740993", "1.5", "-1e300", "true", "False", "0", "pro", "free", "gold", "other", "192.0.2.7", "::1",
		"1795212000", "1795212000250", "-62135596800", "2026-11-20T23:00:00Z", "äöüäöüäöü", "b64.AAEC", "b64.YSJi", "x", "longer than ten bytes",
		"anna@example.com", strings.Repeat("y", 300),
	}
	for _, mode := range []Mode{Warn, Strict} {
		options := DefaultOptions()
		options.Mode = mode
		counted := map[string]int{}
		for _, dir := range []string{"testdata/sound", "testdata/check"} {
			p := load(t, dir, options)
			all := schemas(t, p)
			var r Result
			for range 4000 {
				e := p.Events[random.IntN(len(p.Events))]
				id := metric.Identity{Kind: metric.Counter, Rate: 1, Tags: [][]byte{[]byte("_consent:analytics+marketing+ads"), []byte("env:prod")}}
				for i := range e.Attributes {
					a := &e.Attributes[i]
					value := pieces[random.IntN(len(pieces))]
					if random.IntN(2) == 0 {
						value = Escape(a.Example())
					}
					if random.IntN(6) > 0 {
						id.Tags = append(id.Tags, []byte(a.Name+":"+value))
					}
				}
				if random.IntN(8) == 0 {
					id.Tags = append(id.Tags, []byte("colour:red"), []byte("owner_id:7"), []byte("_anon:1"))
				}
				if p.Check([]byte(e.Name), &id, &r); r.Verdict != Count {
					continue
				}
				counted[e.Name]++
				if err := valid(t, all[e.Name], row(&r)); err != nil {
					t.Fatalf("%s: %s\n%s\n%v", mode, bytes.Join(id.Tags, []byte(",")), row(&r), err)
				}
			}
			for _, e := range p.Events {
				if e.Status != Removed && counted[e.Name] < 20 {
					t.Errorf("%s: only %d events %s counted: nothing is shown", mode, counted[e.Name], e.Name)
				}
			}
		}
	}
}

// The schema refuses what is not of the plan.
func TestJSONSchemaRefuses(t *testing.T) {
	p := load(t, "testdata/sound", DefaultOptions())
	schema := schemas(t, p)["order.paid"]
	r := check(t, p, "analytics.order.paid:1|c|#user_id:7,amount:1,items:2,gift:0,note:x,email:a,_consent:analytics+marketing")
	sound := row(r)
	if err := valid(t, schema, sound); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{`"amount":1`, `"amount":"1"`},
		{`"items":2`, `"items":2.5`},
		{`"items":2`, `"items":"two"`},
		{`"gift":false`, `"gift":"no"`},
		{`"note":"x"`, `"note":"longer than ten"`},
		{`"email":"a"`, `"email":"anna"`},
		{`"email":"a"`, `"card":"a"`},
		{`"count":1`, `"count":0`},
		{`"event":"order.paid"`, `"event":"order.payed"`},
		{`"event_time":"2026-11-21T10:00:00Z"`, `"event_time":"yesterday"`},
		{`"flags":[]`, `"flags":["odd"]`},
	} {
		if changed := strings.Replace(sound, change[0], change[1], 1); changed == sound {
			t.Errorf("there is no %s in %s", change[0], sound)
		} else if valid(t, schema, changed) == nil {
			t.Errorf("it takes %s", change[1])
		}
	}
}

// An attribute with the name of a column of all events has another in the view.
func TestBigQueryViewHasNoNameTwice(t *testing.T) {
	p := asFolder(t, []File{{"events/a.yml", []byte("event: a\ndescription: d\nattributes: {count: {type: int}, host: {}}\n")}})
	views := string(p.ExportBigQuery()[1].Text)
	if !strings.Contains(views, "AS `attr_count`") || !strings.Contains(views, "AS `attr_host`") {
		t.Errorf("got:\n%s", views)
	}
	// Views share a dataset with the table.
	p = asFolder(t, []File{
		{"events/a.yml", []byte("event: events\ndescription: d\nattributes: {count: {type: int}, attr_count: {}, plan: {}}\n")},
		{"events/b.yml", []byte("event: events_once\ndescription: d\n")},
		{"events/c.yml", []byte("event: a.b\ndescription: d\n")},
		{"events/d.yml", []byte("event: a__b\ndescription: d\n")},
	})
	names := regexp.MustCompile("(?m)(?:VIEW `DATASET\\.| AS `)([^`]*)`").FindAllStringSubmatch(string(p.ExportBigQuery()[1].Text), -1)
	var got []string
	for _, name := range names {
		got = append(got, name[1])
	}
	if want := "events_once a__b a__b_ events_ plan attr_count attr_count_ events_once_"; len(got) != 8 || !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(strings.Fields(want)))) {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The script for BigQuery is a script: with a bq that only says what it was told, the
// table is made once and each file is loaded by a job with its name.
func TestBigQueryScript(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("there is no sh")
	}
	dir := t.TempDir()
	p := load(t, "testdata/sound", DefaultOptions())
	for _, f := range p.ExportBigQuery() {
		writeFiles(t, dir, map[string]string{f.Name: string(f.Text)})
	}
	// It knows a job that did its work, and one that failed.
	writeFiles(t, dir, map[string]string{"bin/bq": `#!/bin/sh
case "$*" in
"show --format json --job weir_done-1") echo '{"status":{"state":"DONE"}}' ;;
"show --format json --job weir_failed-1") echo '{"status":{"errorResult":{"reason":"invalid"},"state":"DONE"}}' ;;
show*) exit 2 ;;
*) echo "$@" ;;
esac
`})
	if err := os.Chmod(filepath.Join(dir, "bin", "bq"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(shell, "load.sh", "usage", "/data/done-1.ndjson.gz", "/data/failed-1.ndjson.gz", "/data/dt=2026-11-21/web.1-2.ndjson.gz")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	want := "mk --table --time_partitioning_type DAY --time_partitioning_field event_time --clustering_fields event usage.events ./events.schema.json\n" +
		"/data/done-1.ndjson.gz is loaded already, by job weir_done-1\n" +
		"load --job_id weir_failed-1_2 --source_format NEWLINE_DELIMITED_JSON usage.events /data/failed-1.ndjson.gz\n" +
		"load --job_id weir_web_1-2 --source_format NEWLINE_DELIMITED_JSON usage.events /data/dt=2026-11-21/web.1-2.ndjson.gz\n"
	if err != nil || string(out) != want {
		t.Errorf("%v\ngot:\n%swant:\n%s", err, out, want)
	}
}
