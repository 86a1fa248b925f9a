package forwarder

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// logs writes every point as a line.
type logs struct {
	label   string
	account books
	output  string // stdout, stderr or the path of a file
	out     io.Writer
	file    *rotatedFile // nil for a standard stream
	format  lineFormat
	work    priority.Work
	torn    bool // the last write ended within a line
	log     *slog.Logger
}

// A system call writes up to linesAtOnce lines, and no further one after
// bytesAtOnce, since what is kept in memory for it is a client's to choose.
const (
	linesAtOnce = 512
	bytesAtOnce = 1 << 20
)

func openLogs(cfg DestinationConfig, name string, log *slog.Logger) (destination, error) {
	l := &logs{label: name, output: cfg.Output, log: log, format: jsonLines{}}
	if cfg.Format == FormatText {
		l.format = textLines{}
	}
	switch cfg.Output {
	case OutputStdout:
		l.out = os.Stdout
	case OutputStderr:
		l.out = os.Stderr
	default:
		file, err := openRotated(&cfg, log.With("forwarder", name))
		if err != nil {
			return nil, err
		}
		l.out, l.file = file, file
	}
	return l, nil
}

// close gives back what a destination that never ran has acquired.
func (l *logs) close() {
	if l.file != nil {
		_ = l.file.Close() // nothing was written
	}
}

// reopen opens the output once more, since another destination may have renamed it.
func (l *logs) reopen() {
	if l.file == nil {
		return
	}
	if err := l.file.reopen(); err != nil {
		l.log.Error("opening the output once more; lines go to the file that it was", "forwarder", l.label, "error", err)
	}
}

func (l *logs) name() string    { return l.label }
func (l *logs) books() []*books { return []*books{&l.account} }

// run writes batches. Should a write block for good, as one to a pipe that
// nobody reads does, it is left behind when ctx is done.
func (l *logs) run(ctx context.Context, batches <-chan *metric.Batch) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		priority.Lower()
		var buffer []byte
		for b := range batches {
			buffer = l.write(ctx, b, buffer)
		}
		if l.file != nil {
			if err := l.file.Close(); err != nil {
				l.log.Error("closing the output", "forwarder", l.label, "error", err)
			}
		}
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		l.account.abandon()
	}
}

// write writes one batch and returns the buffer for the next.
func (l *logs) write(ctx context.Context, b *metric.Batch, buffer []byte) []byte {
	points := int(b.Points())
	for done := 0; done < points; {
		var n int
		l.work.Begin()
		buffer, n = appendLines(buffer[:0], l.format, b, done)
		l.work.Yield()
		l.work.End() // for however long writing may take
		if ctx.Err() != nil {
			return buffer // abandoned: run has written them off
		}
		if l.torn { // the line ends here, so that it costs no other
			_, err := l.out.Write([]byte{'\n'})
			l.torn = err != nil
		}
		written, err := l.out.Write(buffer)
		if err != nil {
			l.torn = l.torn || written > 0 && buffer[written-1] != '\n'
			whole := bytes.Count(buffer[:written], []byte{'\n'})
			l.account.delivered(uint64(whole), written)
			l.account.dropped(uint64(points-done-whole), DroppedWrite)
			l.log.Error("dropped points: writing failed", "forwarder", l.label, "points", points-done-whole, "error", err)
			return buffer
		}
		l.account.delivered(uint64(n), len(buffer))
		done += n
	}
	return buffer
}
