package raw

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readParquet returns the rows of a file as another reader, npm's hyparquet, reads them,
// and the names of its columns in their order.
func readParquet(t *testing.T, path string) (rows []map[string]any, columns []string) {
	t.Helper()
	modules, err := filepath.Abs("../../.ci/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "hyparquet")); err != nil {
		t.Skip("npm's hyparquet is not installed; .ci/run installs it")
	}
	const script = `
const [modules, path] = process.argv.slice(1);
const { asyncBufferFromFile, parquetReadObjects, parquetMetadataAsync } = await import(modules + '/hyparquet/src/node.js');
const { compressors } = await import(modules + '/hyparquet-compressors/src/index.js');
const file = await asyncBufferFromFile(path);
const metadata = await parquetMetadataAsync(file);
const rows = await parquetReadObjects({ file, compressors });
const columns = metadata.row_groups[0].columns.map(c => c.meta_data.path_in_schema.join('.'));
console.log(JSON.stringify({ rows, columns }, (_, v) => typeof v === 'bigint' ? v.toString() : v));
`
	out, err := exec.Command("node", "--input-type=module", "-e", script, modules, path).Output()
	if err != nil {
		detail := ""
		if exit, ok := err.(*exec.ExitError); ok {
			detail = string(exit.Stderr)
		}
		t.Fatalf("hyparquet: %v\n%s", err, detail)
	}
	var read struct {
		Rows    []map[string]any
		Columns []string
	}
	if err := json.Unmarshal(out, &read); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return read.Rows, read.Columns
}

// Another reader finds in Parquet what was put: each event in a file of its own, with
// its attributes as typed columns in the order of the definition.
func TestParquetIsReadByOthers(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Format, cfg.Dir = FormatParquet, t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	const received = 1795258450
	const rows = 500
	for i := range rows {
		put(q, "order.paid", fmt.Sprintf("user_id:%d,_consent:analytics+marketing,amount:1.5,items:9007199254740993,gift:true,placed_at:1795212000,env:prod", i), 2, received)
		put(q, "team.created", fmt.Sprintf("user_id:%d,plan:pro", i), 1, received)
	}
	end(t, s)
	files := glob(t, cfg.Dir, "-order.paid"+parquetSuffix)
	if len(files) != 1 || len(glob(t, cfg.Dir, "-team.created"+parquetSuffix)) != 1 || len(glob(t, cfg.Dir, convertSuffix))+len(glob(t, cfg.Dir, ndjsonSuffix)) > 0 {
		all, _ := filepath.Glob(filepath.Join(cfg.Dir, "*", "*"))
		t.Fatalf("files: %v", all)
	}
	got, columns := readParquet(t, files[0])
	if len(got) != rows {
		t.Fatalf("%d rows, want %d", len(got), rows)
	}
	id, _ := got[0]["event_id"].(string)
	want := map[string]any{
		"event_id": id, "event": "order.paid", "schema_version": got[0]["schema_version"], "event_time": "2026-11-21T10:54:10.000Z", "received_at": "2026-11-21T10:54:10.000Z",
		"host": "web-1", "source": nil, "count": "2", "sample_rate": 1.0, "consent": []any{"analytics", "marketing"}, "key_id": "k1", "flags": []any{},
		"attrs": map[string]any{
			"user_id": "p-user.id-30", "email": nil, "ip": nil, "amount": 1.5, "items": "9007199254740993", "gift": true, "note": nil, "placed_at": "2026-11-20T22:00:00.000Z",
		},
		"extra": map[string]any{}, "context": map[string]any{"env": "prod"},
	}
	if diff := cmp.Diff(want, got[0]); diff != "" || len(id) != 36 {
		t.Errorf("a row differs (-want +got):\n%s", diff)
	}
	wantColumns := "event_id event schema_version event_time received_at host source count sample_rate consent.list.element key_id flags.list.element " +
		"attrs.user_id attrs.email attrs.ip attrs.amount attrs.items attrs.gift attrs.note attrs.placed_at extra context"
	if got := strings.Join(columns, " "); got != wantColumns {
		t.Errorf("columns: %s\nwant:    %s", got, wantColumns)
	}
	total := int64(0)
	if err := s.files.manifest.each(func(e *manifestEntry, _ []byte) {
		total += e.Rows
		if e.Format != FormatParquet || e.Event == "" {
			t.Errorf("manifest: %+v", e)
		}
	}); err != nil || total != 2*rows {
		t.Errorf("%d rows in the manifest, %v", total, err)
	}
}

// What a stop or a crash left is converted at the next start; rows of an event that the
// plan does not know any more, or knows otherwise, stay NDJSON.
func TestConversionGoesOn(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	put(q, "team.created", "user_id:1,plan:pro", 1, 1795258450)
	put(q, "order.paid", "user_id:1,_consent:analytics+marketing", 1, 1795258450)
	end(t, s)
	whole := glob(t, cfg.Dir, ndjsonSuffix)[0]
	if err := os.Rename(whole, whole+convertSuffix); err != nil {
		t.Fatal(err)
	}
	cfg.Format = FormatParquet
	s = testSink(t, cfg)
	c := s.files.converter
	c.shapes[c.plan.Load().Event("order.paid")] = c.shape("team.created")
	end(t, s)
	if got := glob(t, cfg.Dir, parquetSuffix); len(got) != 1 || !strings.HasSuffix(got[0], "-team.created.parquet") {
		t.Errorf("Parquet: %v", got)
	}
	if left := rowsOf(t, cfg.Dir); len(left) != 1 || !strings.Contains(left[0], `"event":"order.paid"`) {
		t.Errorf("NDJSON: %v", left)
	}
	if got := glob(t, cfg.Dir, convertSuffix); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// The manifest says of a file of Parquet what is in it, once, whether the conversion was
// broken off before or not.
func TestManifestOfParquet(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Dir = t.TempDir()
	s := testSink(t, cfg)
	q := s.NewQueue()
	for _, at := range []int64{1795258460, 1795258450, 1795258455} {
		put(q, "team.created", "user_id:1,plan:pro", 1, at)
	}
	end(t, s)
	source := glob(t, cfg.Dir, ndjsonSuffix)[0]
	text, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Format = FormatParquet
	for range 2 { // the second time as if the source had not been removed before a crash
		if err := errors.Join(os.WriteFile(source+convertSuffix, text, 0o600), os.RemoveAll(source)); err != nil {
			t.Fatal(err)
		}
		s = testSink(t, cfg)
		end(t, s)
		if got := books(t, s); got["files"] != 1 {
			t.Errorf("books: %v", got)
		}
	}
	var all []manifestEntry
	if err := s.files.manifest.each(func(e *manifestEntry, _ []byte) { all = append(all, *e) }); err != nil {
		t.Fatal(err)
	}
	if len(all) != 1 || all[0].Rows != 3 || all[0].Event != "team.created" || all[0].MinTime.Unix() != 1795258450 || all[0].MaxTime.Unix() != 1795258460 {
		t.Errorf("the manifest: %+v", all)
	}
}
