package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/weir-agent/weir/config"
)

// linesWaiting is how many lines of the log may wait to be written.
const linesWaiting = 1024

// asyncWriter writes lines in a goroutine of its own, so that a standard error
// which nobody reads stops neither readers nor shutdown. Lines it has no room for
// are swallowed, and counted in a line of their own when there is room again.
type asyncWriter struct {
	lines chan []byte
	ended chan struct{}

	mu        sync.Mutex // guards the field below
	swallowed int
}

func newAsyncWriter(out io.Writer) *asyncWriter {
	w := &asyncWriter{lines: make(chan []byte, linesWaiting), ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for line := range w.lines {
			_, _ = out.Write(line) // there is no other place to tell it
		}
	}()
	return w
}

// Write takes one line.
func (w *asyncWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.swallowed > 0 {
		note := fmt.Appendf(nil, "time=%s level=WARN msg=\"lines of the log were swallowed: it was not read\" lines=%d\n",
			time.Now().UTC().Format(time.RFC3339Nano), w.swallowed)
		select {
		case w.lines <- note:
			w.swallowed = 0
		default:
		}
	}
	select {
	case w.lines <- append([]byte(nil), line...):
	default:
		w.swallowed++
	}
	return len(line), nil
}

// close waits until all lines are written, for a second at most. Nothing may be
// written after it.
func (w *asyncWriter) close() {
	close(w.lines)
	select {
	case <-w.ended:
	case <-time.After(time.Second):
	}
}

// newLogger writes to standard error: standard output belongs to the logs
// forwarder. The level may be changed; flush writes what still waits.
func newLogger(cfg config.LogConfig) (log *slog.Logger, level *slog.LevelVar, flush func()) {
	configured, err := cfg.SlogLevel()
	if err != nil {
		panic("BUG: Load let a log level pass: " + err.Error())
	}
	level = new(slog.LevelVar)
	level.Set(configured)
	out := newAsyncWriter(os.Stderr)
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(out, options)), level, out.close
	}
	return slog.New(slog.NewTextHandler(out, options)), level, out.close
}
