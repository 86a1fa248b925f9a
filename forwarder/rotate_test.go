package forwarder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-agent/weir/metric"
)

// linesOf returns the lines of a file and those it was rotated to, oldest first, and
// fails if one of them is torn.
func linesOf(t *testing.T, path string, keep int) (lines []string, files int) {
	t.Helper()
	names := []string{path}
	for i := 1; i <= keep+1; i++ {
		names = append([]string{fmt.Sprintf("%s.%d", path, i)}, names...)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		files++
		if len(text) > 0 && text[len(text)-1] != '\n' {
			t.Errorf("the last line of %s is torn", name)
		}
		lines = append(lines, strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")...)
	}
	return lines, files
}

// With batch after batch, every line is in one of the files, whole and in order, and
// no file is larger than it may be.
func TestRotationBySizeLosesNoLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	const keep, most, batches, points = 500, 20_000, 30, 700
	var all []*metric.Batch
	for n := range batches {
		b := &metric.Batch{Start: start, Interval: time.Second}
		for i := range points {
			b.Add(contextOf(metric.Gauge, fmt.Sprintf("m.%d.%d", n, i), metric.Host{}, ""), metric.Series{Type: metric.GaugeType})
		}
		all = append(all, b)
	}
	for _, some := range [][]*metric.Batch{all[:10], all[10:]} { // a restart in between
		f := openForTest(t, DestinationConfig{Type: TypeLogs, Output: path, Format: FormatText, MaxBytes: most, Keep: keep})
		done := make(chan struct{})
		queue := make(chan *metric.Batch)
		go func() { defer close(done); f.Run(queue) }()
		for _, b := range some {
			queue <- b
			for f.Stats()[0].Queued > 0 {
				checkBooks(t, f)
			}
		}
		close(queue)
		<-done
		if s := f.Stats()[0]; s.Delivered != uint64(len(some)*points) {
			t.Errorf("stats = %+v", s)
		}
	}
	lines, files := linesOf(t, path, keep)
	if len(lines) != batches*points {
		t.Fatalf("%d lines, want %d", len(lines), batches*points)
	}
	for i, line := range lines {
		if !strings.Contains(line, fmt.Sprintf(" m.%d.%d ", i/points, i%points)) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	for i := range files - 1 {
		info, err := os.Stat(fmt.Sprintf("%s.%d", path, i+1))
		if err != nil || info.Size() > most || info.Size() < most-100 {
			t.Errorf("a renamed file of %v bytes, %v; want a full one", info.Size(), err)
		}
	}
	if files < 10 {
		t.Errorf("%d files", files)
	}
}

func openForTest(t *testing.T, destinations ...DestinationConfig) *Forwarder {
	t.Helper()
	cfg := Config{ShutdownTimeout: time.Minute, Forwarders: destinations}
	cfg.Resolve(Defaults{})
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	f, err := New(cfg, "weir/1.2.3", discard())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func rotated(t *testing.T, cfg DestinationConfig) *rotatedFile {
	t.Helper()
	f, err := openRotated(&cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func write(t *testing.T, f *rotatedFile, text string) {
	t.Helper()
	if n, err := f.Write([]byte(text)); n != len(text) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(text), err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		return "none"
	}
	return string(text)
}

func TestRotationKeepsSoManyFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	f := rotated(t, DestinationConfig{Output: path, MaxBytes: 8, Keep: 2})
	write(t, f, "1111\n22\n333333333333\n44\n55\n66\n")
	for name, want := range map[string]string{"": "66\n", ".1": "44\n55\n", ".2": "333333333333\n", ".3": "none"} {
		if got := read(t, path+name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
}

func TestRotationByAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	synctest.Test(t, func(t *testing.T) {
		f := rotated(t, DestinationConfig{Output: path, MaxAge: time.Hour, Keep: 5})
		write(t, f, "a\n")
		time.Sleep(59 * time.Minute)
		write(t, f, "bb\n")
		time.Sleep(2 * time.Minute)
		write(t, f, "cc\ndd\n")
		if got := [2]string{read(t, path), read(t, path+".1")}; got != [2]string{"cc\ndd\n", "a\nbb\n"} {
			t.Errorf("files = %q", got)
		}
	})
	// A file that is found has the age of its last change.
	yesterday := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(path, yesterday, yesterday); err != nil {
		t.Fatal(err)
	}
	f := rotated(t, DestinationConfig{Output: path, MaxAge: time.Hour, Keep: 5})
	write(t, f, "ee\n")
	if got := [3]string{read(t, path), read(t, path+".1"), read(t, path+".2")}; got != [3]string{"ee\n", "cc\ndd\n", "a\nbb\n"} {
		t.Errorf("files = %q", got)
	}
}

// A folder in which nothing can be renamed costs no line, and later rotation goes on.
func TestRotationThatFails(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "out.log")
	synctest.Test(t, func(t *testing.T) {
		f := rotated(t, DestinationConfig{Output: path, MaxBytes: 8, Keep: 2})
		// A folder that is not empty is in the way of the rename.
		if err := os.MkdirAll(path+".1/x", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(path+".2/x", 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, f, "1111\n2222\n3333\n")
		if got := read(t, path); got != "1111\n2222\n3333\n" {
			t.Errorf("the file is %q", got)
		}
		if err := errors.Join(os.RemoveAll(path+".1"), os.RemoveAll(path+".2")); err != nil {
			t.Fatal(err)
		}
		write(t, f, "4444\n") // not tried again yet
		time.Sleep(rotateAgain)
		write(t, f, "5555\n")
		if got := [2]string{read(t, path), read(t, path+".1")}; got != [2]string{"5555\n", "1111\n2222\n3333\n4444\n"} {
			t.Errorf("files = %q", got)
		}
	})
}

// The rest of a line that was torn by a full disk is not a line of the next file.
func TestATornLineEndsInItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.log")
	f := rotated(t, DestinationConfig{Output: path, MaxBytes: 8, Keep: 2})
	write(t, f, "1111\n222")
	write(t, f, "\n")
	write(t, f, "333\n")
	if got := [2]string{read(t, path), read(t, path+".1")}; got != [2]string{"333\n", "1111\n222\n"} {
		t.Errorf("files = %q", got)
	}
}

func TestOnlyFilesAreRotated(t *testing.T) {
	if f, err := openRotated(&DestinationConfig{Output: os.DevNull, MaxBytes: 8, Keep: 1}, discard()); err == nil {
		f.Close()
		t.Error("a device is rotated")
	}
	f := rotated(t, DestinationConfig{Output: os.DevNull, Keep: 1})
	write(t, f, "1\n")
}
