package forwarder

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"time"
)

// rotateAgain is how long after a rotation that did not succeed the next is tried.
const rotateAgain = time.Minute

// rotatedFile is a file of lines that is renamed to NAME.1 when it is large or old,
// NAME.1 to NAME.2 and so on. No line is in two files. It is used by one goroutine.
type rotatedFile struct {
	path     string
	maxBytes int64         // 0: any size. A line that alone is longer has a file of its own
	maxAge   time.Duration // 0: any age
	keep     int           // renamed files
	log      *slog.Logger

	file  *os.File
	size  int64
	since time.Time // when it began, or the last change to it before it was opened
	moved bool      // file was renamed already, and its successor could not be opened
	again time.Time // no rotation before that
}

func openRotated(cfg *DestinationConfig, log *slog.Logger) (*rotatedFile, error) {
	f := &rotatedFile{path: cfg.Output, maxBytes: int64(cfg.MaxBytes), maxAge: cfg.MaxAge, keep: cfg.Keep, log: log}
	if err := f.open(); err != nil {
		return nil, err
	}
	info, err := f.measure()
	if err == nil && !info.Mode().IsRegular() && (f.maxBytes > 0 || f.maxAge > 0) {
		err = errors.New("only a regular file can be rotated; remove max_bytes and max_age")
	}
	if err != nil {
		return nil, errors.Join(err, f.file.Close())
	}
	return f, nil
}

// measure takes note of what is in the file already.
func (f *rotatedFile) measure() (os.FileInfo, error) {
	info, err := f.file.Stat()
	if err != nil {
		return nil, err
	}
	if f.size = info.Size(); f.size > 0 {
		f.since = info.ModTime()
	}
	return info, nil
}

// reopen opens the file anew, nothing having been written to it. If it cannot, it stays
// as it is.
func (f *rotatedFile) reopen() error {
	old := f.file
	if err := f.open(); err != nil {
		return err
	}
	_, err := f.measure()
	return errors.Join(err, old.Close())
}

func (f *rotatedFile) open() error {
	// Metrics may hold what is nobody else's business.
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("open the output: %w", err)
	}
	f.file, f.size, f.since = file, 0, time.Now()
	return nil
}

// Write writes lines, to as many files as it takes.
func (f *rotatedFile) Write(lines []byte) (written int, err error) {
	for len(lines) > 0 {
		n, err := f.file.Write(lines[:f.next(lines)])
		f.size += int64(n)
		written += n
		if err != nil {
			return written, err
		}
		lines = lines[n:]
	}
	return written, nil
}

// next returns how many bytes of lines the file takes, after a rotation if it is
// time for one.
func (f *rotatedFile) next(lines []byte) int {
	line := bytes.IndexByte(lines, '\n') + 1
	if line == 0 {
		line = len(lines)
	}
	if line == 1 {
		return 1 // the end of a line that was torn
	}
	if f.size > 0 && f.due(int64(line)) && !f.rotate() {
		return len(lines) // rather a file too large than lines lost
	}
	if f.maxBytes == 0 || f.size+int64(len(lines)) <= f.maxBytes {
		return len(lines)
	}
	room := max(f.maxBytes-f.size, 0)
	return max(line, bytes.LastIndexByte(lines[:room], '\n')+1)
}

func (f *rotatedFile) due(line int64) bool {
	return f.maxBytes > 0 && f.size+line > f.maxBytes || f.maxAge > 0 && time.Since(f.since) >= f.maxAge
}

// rotate begins a new file and reports whether it could.
func (f *rotatedFile) rotate() bool {
	if time.Now().Before(f.again) {
		return false
	}
	old := f.file
	err := f.rename()
	if err == nil {
		err = f.open()
	}
	if err != nil {
		f.again = time.Now().Add(rotateAgain)
		f.log.Error("rotating the output; it grows on", "error", err, "again_in", rotateAgain.String())
		return false
	}
	f.moved = false
	if err := old.Close(); err != nil {
		f.log.Error("closing the output", "error", err)
	}
	return true
}

// rename makes room for a new file. Files move up to the first number that is free;
// if none is, the oldest is overwritten.
func (f *rotatedFile) rename() error {
	if f.moved {
		return nil
	}
	free := 1
	for ; free < f.keep; free++ {
		if _, err := os.Lstat(f.numbered(free)); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	for i := free - 1; i >= 1; i-- {
		if err := os.Rename(f.numbered(i), f.numbered(i+1)); err != nil {
			return fmt.Errorf("rename an old output: %w", err)
		}
	}
	err := os.Rename(f.path, f.numbered(1))
	if err != nil && !errors.Is(err, os.ErrNotExist) { // somebody else has moved it
		return fmt.Errorf("rename the output: %w", err)
	}
	f.moved = true
	return nil
}

func (f *rotatedFile) numbered(i int) string { return f.path + "." + strconv.Itoa(i) }

func (f *rotatedFile) Close() error { return f.file.Close() }
