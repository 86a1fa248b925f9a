package forwarder

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/weir-agent/weir/metric"
)

// logs writes every point as a line.
type logs struct {
	label   string
	account books
	out     io.Writer
	file    *os.File // to be closed; nil for a standard stream
	format  func(dst []byte, b *metric.Batch, from int) ([]byte, int)
	torn    bool // the last write ended within a line
	log     *slog.Logger
}

// linesAtOnce is how many lines are written in one system call.
const linesAtOnce = 512

func openLogs(cfg DestinationConfig, name string, log *slog.Logger) (destination, error) {
	l := &logs{label: name, log: log, format: appendJSONLines}
	if cfg.Format == FormatText {
		l.format = appendTextLines
	}
	switch cfg.Output {
	case OutputStdout:
		l.out = os.Stdout
	case OutputStderr:
		l.out = os.Stderr
	default:
		// Metrics may hold what is nobody else's business.
		file, err := os.OpenFile(cfg.Output, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, fmt.Errorf("open the output: %w", err)
		}
		l.out, l.file = file, file
	}
	return l, nil
}

func (l *logs) name() string  { return l.label }
func (l *logs) books() *books { return &l.account }

// run writes batches. Should a write block for good, as one to a pipe that
// nobody reads does, it is left behind when ctx is done.
func (l *logs) run(ctx context.Context, batches <-chan *metric.Batch) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
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
		buffer, n = l.format(buffer[:0], b, done)
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

// quantiles are those a distribution is logged with.
var quantiles = []struct {
	name string
	q    float64
}{{"p50", 0.50}, {"p75", 0.75}, {"p90", 0.90}, {"p95", 0.95}, {"p99", 0.99}}

// appendJSONLines appends one JSON object a line for up to linesAtOnce points of
// b, the first of which is number from (series before sketches), and returns how
// many. The format is part of the configuration's contract; README.md shows it.
func appendJSONLines(dst []byte, b *metric.Batch, from int) ([]byte, int) {
	to := min(from+linesAtOnce, int(b.Points()))
	var start [len(time.RFC3339)]byte
	stamp := b.Start.AppendFormat(start[:0], time.RFC3339)
	interval := int64(b.Interval / time.Second)
	head := func(context *metric.Context, suffix, kind string) {
		dst = append(append(append(dst, `{"time":"`...), stamp...), `","metric":`...)
		dst = appendJSONString(dst, context.Name(), suffix)
		dst = append(append(append(dst, `,"type":"`...), kind...), '"')
	}
	tail := func(context *metric.Context) {
		dst = appendInt(append(dst, `,"interval":`...), interval)
		dst = appendJSONString(append(dst, `,"host":`...), context.Host(b.AgentHost), "")
		if device := context.Device(); device != "" {
			dst = appendJSONString(append(dst, `,"device":`...), device, "")
		}
		dst = append(dst, `,"tags":[`...)
		first := true
		for tag := range context.Tags() {
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = appendJSONString(dst, tag, "")
		}
		dst = append(dst, "]}\n"...)
	}
	for i := from; i < to; i++ {
		if i < len(b.Series) {
			s := &b.Series[i]
			head(s.Context, s.Suffix, s.Type.String())
			dst = appendJSONNumber(append(dst, `,"value":`...), s.Value)
			tail(s.Context)
			continue
		}
		p := &b.Sketches[i-len(b.Series)]
		head(p.Context, "", "distribution")
		dst = appendInt(append(dst, `,"count":`...), p.Sketch.Count)
		for _, f := range summaryOf(&p.Sketch) {
			dst = append(append(append(dst, `,"`...), f.name...), `":`...)
			dst = appendJSONNumber(dst, f.value)
		}
		tail(p.Context)
	}
	return dst, to - from
}

type namedValue struct {
	name  string
	value float64
}

// summaryOf returns what is logged of a sketch besides its count.
func summaryOf(s *metric.Sketch) [9]namedValue {
	values := [9]namedValue{{"sum", s.Sum}, {"min", s.Min}, {"max", s.Max}, {"avg", s.Avg}}
	for i, q := range quantiles {
		values[4+i] = namedValue{q.name, s.Quantile(q.q)}
	}
	return values
}

// appendTextLines is appendJSONLines for people:
//
//	2026-11-21T10:00:10Z rate page.views 1.2 host=web-1 env:prod
func appendTextLines(dst []byte, b *metric.Batch, from int) ([]byte, int) {
	to := min(from+linesAtOnce, int(b.Points()))
	head := func(context *metric.Context, suffix, kind string) {
		dst = b.Start.AppendFormat(dst, time.RFC3339)
		dst = append(append(append(dst, ' '), kind...), ' ')
		dst = appendPlain(appendPlain(dst, context.Name()), suffix)
	}
	tail := func(context *metric.Context) {
		if host := context.Host(b.AgentHost); host != "" {
			dst = appendPlain(append(dst, " host="...), host)
		}
		if device := context.Device(); device != "" {
			dst = appendPlain(append(dst, " device="...), device)
		}
		for tag := range context.Tags() {
			dst = appendPlain(append(dst, ' '), tag)
		}
		dst = append(dst, '\n')
	}
	for i := from; i < to; i++ {
		if i < len(b.Series) {
			s := &b.Series[i]
			head(s.Context, s.Suffix, s.Type.String())
			dst = appendJSONNumber(append(dst, ' '), s.Value)
			tail(s.Context)
			continue
		}
		p := &b.Sketches[i-len(b.Series)]
		head(p.Context, "", "distribution")
		dst = appendInt(append(dst, " count="...), p.Sketch.Count)
		for _, f := range summaryOf(&p.Sketch) {
			dst = append(append(append(dst, ' '), f.name...), '=')
			dst = appendJSONNumber(dst, f.value)
		}
		tail(p.Context)
	}
	return dst, to - from
}
