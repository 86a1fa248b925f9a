package forwarder

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/metric"
)

func TestLogsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	cfg := DefaultConfig()
	cfg.Forwarders = []DestinationConfig{{Type: TypeLogs, Output: path}}
	f, _ := deliver(t, cfg, example())
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"time":"2026-11-21T10:00:10Z","metric":"page.views","type":"rate","value":1.2,"interval":10,"host":"web-1","tags":["env:prod"]}
{"time":"2026-11-21T10:00:10Z","metric":"load","type":"gauge","value":0,"interval":10,"host":"db-1","device":"sda","tags":[]}
{"time":"2026-11-21T10:00:10Z","metric":"query.time.avg","type":"gauge","value":-3,"interval":10,"host":"","tags":["a","b:1,2"]}
{"time":"2026-11-21T10:00:10Z","metric":"query.time.count","type":"rate","value":1e+21,"interval":10,"host":"","tags":["a","b:1,2"]}
{"time":"2026-11-21T10:00:10Z","metric":"size","type":"distribution","count":4,"sum":2.5,"min":-1,"max":2,"avg":0.625,"p50":2,"p75":2,"p90":2,"p95":2,"p99":2,"interval":10,"host":"web-1","device":"sdb","tags":["env:prod"]}
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if s := f.Stats()[0]; s.Delivered != 5 || s.Bytes != uint64(len(want)) {
		t.Errorf("stats = %+v", s)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm()&0o027 != 0 {
		t.Errorf("mode = %v, %v; others must not read it", info.Mode(), err)
	}
}

func TestLogsText(t *testing.T) {
	b := example()
	b.Series[0].Context = b.Contexts.Add(contextOf(metric.Counter, "evil\x1b[2J\u2028\xff", metric.Host{}, "", "env:prod"))
	got, n := appendLines(nil, textLines{}, b, 0)
	want := `2026-11-21T10:00:10Z rate evil'\x1b'[2J'\u2028''\ufffd' 1.2 host=web-1 env:prod
2026-11-21T10:00:10Z gauge load 0 host=db-1 device=sda
2026-11-21T10:00:10Z gauge query.time.avg -3 a b:1,2
2026-11-21T10:00:10Z rate query.time.count 1e+21 a b:1,2
2026-11-21T10:00:10Z distribution size count=4 sum=2.5 min=-1 max=2 avg=0.625 p50=2 p75=2 p90=2 p95=2 p99=2 host=web-1 device=sdb env:prod
`
	if diff := cmp.Diff(want, string(got)); diff != "" || n != 5 {
		t.Errorf("%d lines (-want +got):\n%s", n, diff)
	}
}

// halfWriter takes half of what it is given, once.
type halfWriter struct {
	bytes.Buffer
	full bool
}

func (w *halfWriter) Write(p []byte) (int, error) {
	if !w.full {
		w.full = true
		n, _ := w.Buffer.Write(p[:len(p)/2])
		return n, errors.New("no space left on device")
	}
	return w.Buffer.Write(p)
}

// A disk that was full for a while costs the lines that were not written, and no
// other.
func TestATornLineCostsOnlyItself(t *testing.T) {
	out := &halfWriter{}
	l := &logs{label: "logs", out: out, format: jsonLines{}, log: discard()}
	f := &Forwarder{destinations: []destination{l}, timeout: time.Minute, log: discard()}
	batches := make(chan *metric.Batch, 2)
	batches <- example()
	batches <- example()
	close(batches)
	f.Run(batches)
	checkBooks(t, f)
	whole := 0
	for _, line := range strings.Split(out.String(), "\n") {
		if json.Valid([]byte(line)) {
			whole++
		}
	}
	if s := f.Stats()[0]; s.Delivered != uint64(whole) || whole != 7 || s.Dropped[DroppedWrite] != 3 {
		t.Errorf("%d whole lines, stats = %+v\n%s", whole, s, out.String())
	}
}

type brokenWriter struct{ after int }

func (w *brokenWriter) Write(p []byte) (int, error) {
	if w.after--; w.after < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

func TestLogsThatCannotBeWrittenAreCounted(t *testing.T) {
	b, some := &metric.Batch{Start: start, Interval: time.Second}, example()
	for range 3 * linesAtOnce {
		b.Add(some.Context(&some.Series[0]), some.Series[0])
	}
	var log lockedBuffer
	l := &logs{label: "logs", out: &brokenWriter{after: 1}, format: jsonLines{}, log: slog.New(slog.NewTextHandler(&log, nil))}
	f := &Forwarder{destinations: []destination{l}, timeout: time.Minute, log: discard()}
	batches := make(chan *metric.Batch, 1)
	batches <- b
	close(batches)
	f.Run(batches)
	checkBooks(t, f)
	if s := f.Stats()[0]; s.Delivered != linesAtOnce || s.Dropped[DroppedWrite] != 2*linesAtOnce {
		t.Errorf("stats = %+v", s)
	}
	if !strings.Contains(log.String(), "no space left") {
		t.Errorf("log: %s", log.String())
	}
}

// A reader of standard output that does not read must not keep the agent from
// stopping.
func TestABlockedPipeIsLeftBehind(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	l := &logs{label: "logs", out: w, format: jsonLines{}, log: discard()}
	f := &Forwarder{destinations: []destination{l}, timeout: 10 * time.Millisecond, log: discard()}
	batches := make(chan *metric.Batch, 1)
	batches <- example()
	close(batches)
	f.Run(batches)
	checkBooks(t, f)
	if s := f.Stats()[0]; s.Dropped[DroppedShutdown] != 5 {
		t.Errorf("stats = %+v", s)
	}
}
