package raw

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/parquet-go/parquet-go"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/internal/priority"
)

// converter makes Parquet of files that are whole: one for each event in it, since each
// has its own columns. Rows are written as NDJSON first, because a file of Parquet that
// is not finished cannot be read at all, and one of each event would have to be open.
type converter struct {
	files  *files
	plan   atomic.Pointer[plan.Plan]
	log    *slog.Logger
	shapes map[*plan.Event]reflect.Type

	mu      sync.Mutex // guards the fields below
	waiting []string
	failed  []string // to be tried again
	done    bool
	wake    chan struct{}
}

func newConverter(f *files, p *plan.Plan) *converter {
	c := &converter{files: f, log: f.log, shapes: map[*plan.Event]reflect.Type{}, wake: make(chan struct{}, 1)}
	c.plan.Store(p)
	return c
}

// add asks for a file to be converted.
func (c *converter) add(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, path)
	c.signal()
}

// again asks for those to be converted that could not be.
func (c *converter) again() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.failed) > 0 {
		c.waiting = append(c.waiting, c.failed...)
		c.failed = nil
		c.signal()
	}
}

// close ends run once all files are converted, or convertAtEnd is up.
func (c *converter) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
	c.signal()
}

func (c *converter) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// convertAtEnd is for how long files are still converted once the agent stops. Those
// that are left are converted at the next start.
const convertAtEnd = 5 * time.Second

// run converts files until close.
func (c *converter) run() {
	priority.Lower()
	var deadline time.Time
	for {
		c.mu.Lock()
		path, done := "", c.done
		if len(c.waiting) > 0 {
			path = c.waiting[0]
			c.waiting = c.waiting[1:]
		}
		c.mu.Unlock()
		if done && deadline.IsZero() {
			deadline = time.Now().Add(convertAtEnd)
		}
		switch {
		case path == "" && done, done && time.Now().After(deadline):
			return
		case path == "":
			<-c.wake
		default:
			c.try(path)
		}
	}
}

// try converts a file, or notes what becomes of it otherwise. One that is gone was too
// old, and one that is damaged will not get better.
func (c *converter) try(path string) {
	err := c.convert(path)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, errTorn):
		c.files.stats.setAside.Add(1)
		c.log.Error("a file of raw events is damaged and cannot be made Parquet; it was set aside", "file", path+damagedSuffix, "error", errors.Join(err, os.Rename(path, path+damagedSuffix)))
	default:
		c.log.Error("a file of raw events cannot be made Parquet; it is tried again in a minute", "file", path, "error", err)
		c.mu.Lock()
		c.failed = append(c.failed, path)
		c.mu.Unlock()
	}
}

// flushRows is how many rows are held in memory until they become row groups.
const flushRows = 20_000

// convert makes the files of Parquet and removes the one that they were made of. Rows of
// events whose definition has changed since, so that they do not fit, stay NDJSON.
func (c *converter) convert(path string) error {
	base := strings.TrimSuffix(path, ndjsonSuffix+convertSuffix)
	source, err := os.Open(path)
	if err != nil {
		return err
	}
	defer source.Close()
	tables := map[string]*table{}
	var misfits *file
	defer func() { // of a failure
		for _, t := range tables {
			t.discard()
		}
		if misfits != nil {
			_ = misfits.file.Close()
			_ = os.Remove(misfits.path + tmpSuffix)
		}
	}()
	held := 0
	err = eachRow(source, func(line []byte) error {
		fits, err := c.addTo(tables, base, line)
		if err != nil {
			return err
		}
		if !fits {
			if misfits == nil {
				_ = os.Remove(base + ndjsonSuffix + tmpSuffix) // of an attempt that was broken off
				if misfits, err = createFile(base + ndjsonSuffix); err != nil {
					return err
				}
			}
			return misfits.addLine(line, timeOf(line))
		}
		if held++; held%flushRows == 0 {
			for _, t := range tables {
				if err := t.writer.Flush(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var entries []manifestEntry
	for event, t := range tables {
		e, err := t.finish()
		if err != nil {
			return err
		}
		delete(tables, event)
		entries = append(entries, e)
	}
	if misfits != nil {
		if err := misfits.finish(misfits.path); err != nil {
			return err
		}
		entries = append(entries, misfits.entry())
		misfits = nil
	}
	return c.note(entries, path)
}

// note puts new files into the manifest, in the place of those of an attempt that was
// broken off, and removes the one they were made of.
func (c *converter) note(entries []manifestEntry, path string) error {
	m := &c.files.manifest
	again := map[string]bool{}
	for i := range entries {
		again[m.name(entries[i].File)] = true
	}
	known := false
	if err := m.each(func(e *manifestEntry, _ []byte) { known = known || again[e.File] }); err != nil {
		return err
	}
	if known {
		if err := m.forget(again); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := m.append(e); err != nil {
			return err
		}
		c.files.stats.files.Add(1)
	}
	return os.Remove(path)
}

// addTo adds a row to the table of its event, which it makes if need be. fits is false
// if it does not fit into one.
func (c *converter) addTo(tables map[string]*table, base string, line []byte) (fits bool, err error) {
	_, rest, _ := bytes.Cut(line, []byte(`,"event":"`))
	event, _, _ := bytes.Cut(rest, []byte{'"'})
	shape := c.shape(string(event))
	if shape == nil {
		return false, nil
	}
	value := reflect.New(shape)
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if decoder.Decode(value.Interface()) != nil {
		return false, nil
	}
	t := tables[string(event)]
	if t == nil {
		if t, err = newTable(base+"-"+string(event)+parquetSuffix, string(event), shape); err != nil {
			return false, err
		}
		tables[string(event)] = t
	}
	at := timeOf(line)
	if t.rows == 0 {
		t.min, t.max = at, at
	}
	t.min, t.max = min(t.min, at), max(t.max, at)
	t.rows++
	_, err = t.writer.Write([]any{value.Interface()})
	return true, err
}

// table is a file of Parquet under way.
type table struct {
	path     string
	event    string
	file     *os.File
	sum      hash.Hash
	bytes    int64
	writer   *parquet.GenericWriter[any]
	rows     int64
	min, max int64
}

func newTable(path, event string, shape reflect.Type) (*table, error) {
	file, err := os.OpenFile(path+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return nil, err
	}
	t := &table{path: path, event: event, file: file, sum: sha256.New()}
	schema := parquet.SchemaOf(reflect.New(shape).Interface())
	t.writer = parquet.NewGenericWriter[any](t, schema, parquet.Compression(&parquet.Zstd), parquet.KeyValueMetadata("event", event))
	return t, nil
}

// Write implements io.Writer for what is encoded.
func (t *table) Write(b []byte) (int, error) {
	n, err := t.file.Write(b)
	t.sum.Write(b[:n])
	t.bytes += int64(n)
	return n, err
}

func (t *table) discard() {
	_ = t.file.Close()
	_ = os.Remove(t.path + tmpSuffix)
}

func (t *table) finish() (e manifestEntry, err error) {
	if err = t.writer.Close(); err == nil {
		err = t.file.Sync()
	}
	if err = errors.Join(err, t.file.Close()); err != nil {
		return e, err
	}
	if err = os.Rename(t.path+tmpSuffix, t.path); err != nil {
		return e, err
	}
	return manifestEntry{
		File: t.path, Format: FormatParquet, Event: t.event, Rows: t.rows, Bytes: t.bytes,
		MinTime: time.UnixMilli(t.min).UTC(), MaxTime: time.UnixMilli(t.max).UTC(), SHA256: hex.EncodeToString(t.sum.Sum(nil)),
	}, syncFolder(filepath.Dir(t.path))
}

// Values of rows in Parquet that JSON has in another form.
type (
	whole    int64  // a number, or beyond 2^53 its digits in a text
	moment   int64  // a time, in Unix milliseconds
	document string // an object, as its text
)

// UnmarshalJSON implements json.Unmarshaler.
func (w *whole) UnmarshalJSON(text []byte) error {
	n, err := strconv.ParseInt(strings.Trim(string(text), `"`), 10, 64)
	*w = whole(n)
	return err
}

// UnmarshalJSON implements json.Unmarshaler.
func (m *moment) UnmarshalJSON(text []byte) error {
	at, err := time.Parse(`"`+time.RFC3339+`"`, string(text))
	*m = moment(at.UnixMilli())
	return err
}

// UnmarshalJSON implements json.Unmarshaler.
func (d *document) UnmarshalJSON(text []byte) error {
	if len(text) == 0 || text[0] != '{' {
		return errors.New("it is no object")
	}
	*d = document(text)
	return nil
}

// shape returns the type of an event's rows, whose fields are the columns in their
// order; nil if there is no such event.
func (c *converter) shape(event string) reflect.Type {
	p := c.plan.Load()
	def := p.Event(event)
	if def == nil {
		return nil
	}
	if t, known := c.shapes[def]; known {
		return t
	}
	maps.DeleteFunc(c.shapes, func(known *plan.Event, _ reflect.Type) bool { return p.Event(known.Name) != known })
	var columns, attributes []reflect.StructField
	for i := range def.Attributes {
		if a := &def.Attributes[i]; a.Written() {
			kind, as := attributeType(a)
			attributes = append(attributes, column(len(attributes), a.Name, kind, as))
		}
	}
	for i := range plan.Columns {
		kind, as := columnType(plan.Columns[i].Name)
		if plan.Columns[i].Name == "attrs" {
			if len(attributes) == 0 {
				kind, as = reflect.TypeFor[document](), ",json"
			} else {
				kind = reflect.StructOf(attributes)
			}
		}
		columns = append(columns, column(i, plan.Columns[i].Name, kind, as))
	}
	t := reflect.StructOf(columns)
	c.shapes[def] = t
	return t
}

func column(i int, name string, kind reflect.Type, as string) reflect.StructField {
	return reflect.StructField{
		Name: "C" + strconv.Itoa(i), Type: kind,
		Tag: reflect.StructTag(fmt.Sprintf(`json:%q parquet:%q`, name, name+as)),
	}
}

// columnType returns the type of a column in Go, and the tags that make it one in
// Parquet.
func columnType(name string) (kind reflect.Type, as string) {
	switch name {
	case "event_time", "received_at":
		return reflect.TypeFor[moment](), ",timestamp(millisecond)"
	case "count":
		return reflect.TypeFor[int64](), ""
	case "sample_rate":
		return reflect.TypeFor[float64](), ""
	case "consent", "flags":
		return reflect.TypeFor[[]string](), ",list"
	case "extra", "context":
		return reflect.TypeFor[document](), ",json"
	case "source":
		return reflect.TypeFor[*string](), ""
	}
	return reflect.TypeFor[string](), ""
}

// attributeType is columnType for attributes, each of which may be null.
func attributeType(a *plan.Attribute) (kind reflect.Type, as string) {
	if a.Plain() {
		switch a.Type {
		case plan.Int:
			return reflect.TypeFor[*whole](), ""
		case plan.Float:
			return reflect.TypeFor[*float64](), ""
		case plan.Bool:
			return reflect.TypeFor[*bool](), ""
		case plan.Timestamp:
			return reflect.TypeFor[*moment](), ",timestamp(millisecond)"
		}
	}
	return reflect.TypeFor[*string](), ""
}
