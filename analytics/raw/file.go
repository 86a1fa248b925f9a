package raw

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/gzip"
)

// file is a file of NDJSON, compressed with gzip, that is being written.
type file struct {
	path     string // when it is finished
	file     *os.File
	text     *compressor
	sum      hash.Hash
	bytes    int64 // that reached the system
	rows     int64
	fresh    int64 // of these, those that may not have reached the system
	min, max int64 // times of events, Unix milliseconds
	begun    time.Time
	unsynced bool
	synced   time.Time
}

func createFile(path string) (*file, error) {
	to, err := os.OpenFile(path+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return &file{path: path, file: to, text: newCompressor(), sum: sha256.New(), begun: now, synced: now}, nil
}

// writeBytes is how much that is compressed is worth a call of the system.
const writeBytes = 64 << 10

// write hands what is compressed to the system.
func (f *file) write() error {
	b := f.text.out
	f.text.out = b[:0]
	n, err := f.file.Write(b)
	f.sum.Write(b[:n])
	f.bytes += int64(n)
	return err
}

// size is about how large the file would be if it were finished now.
func (f *file) size() int64 { return f.bytes + int64(len(f.text.out)) }

// added notes a row that was compressed.
func (f *file) added(at int64) error {
	if f.rows == 0 {
		f.min, f.max = at, at
	}
	f.min, f.max = min(f.min, at), max(f.max, at)
	f.rows++
	f.unsynced = true
	if len(f.text.out) >= writeBytes {
		return f.write()
	}
	return nil
}

// addLine writes a row of which nothing is known.
func (f *file) addLine(json []byte, at int64) error {
	f.text.add(json, []part{{end: int32(len(json))}}, 0)
	return f.added(at)
}

// sync hands everything to the system, so that kill -9 does not lose it.
func (f *file) sync() error {
	f.unsynced = false
	f.text.flush()
	return f.write()
}

// finish makes sure that everything is on disk, and gives the file its name.
func (f *file) finish(to string) error {
	f.text.close()
	err := f.write()
	if err == nil {
		err = f.file.Sync()
	}
	if err := errors.Join(err, f.file.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.path+tmpSuffix, to); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(to))
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func (f *file) entry() manifestEntry {
	return manifestEntry{
		File: f.path, Format: FormatNDJSON, Rows: f.rows, Bytes: f.bytes,
		MinTime: time.UnixMilli(f.min).UTC(), MaxTime: time.UnixMilli(f.max).UTC(), SHA256: hex.EncodeToString(f.sum.Sum(nil)),
	}
}

// maxRow is how long a row may be that is read back: 32 attributes of 4 KiB and as many
// that are not declared fit in.
const maxRow = 4 << 20

// rebuild reads a file of NDJSON as far as it is whole and writes it anew, whole, under
// to, which may be its own name without .tmp. whole is nil if there is not one row.
func rebuild(from, to string) (whole *file, err error) {
	source, err := os.Open(from)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	copyPath := to + rebuiltSuffix
	_ = os.Remove(copyPath + tmpSuffix) // of an attempt that was broken off
	fresh, err := createFile(copyPath)
	if err != nil {
		return nil, err
	}
	readErr := eachRow(source, func(line []byte) error { return fresh.addLine(line, timeOf(line)) })
	if readErr != nil && !errors.Is(readErr, errTorn) {
		return nil, errors.Join(readErr, fresh.file.Close(), os.Remove(copyPath+tmpSuffix))
	}
	if fresh.rows == 0 {
		return nil, errors.Join(fresh.file.Close(), os.Remove(copyPath+tmpSuffix))
	}
	if err := fresh.finish(to); err != nil {
		return nil, err
	}
	fresh.path = to
	return fresh, os.Remove(from)
}

// errTorn says that a file ends before its end.
var errTorn = errors.New("the file is not whole")

// eachRow calls visit with each row of a compressed file, its newline included, and
// returns errTorn if it was cut or is damaged behind them.
func eachRow(source io.Reader, visit func(line []byte) error) error {
	unpacked, err := gzip.NewReader(bufio.NewReaderSize(source, 1<<16))
	if err != nil {
		return errTorn
	}
	lines := bufio.NewReaderSize(unpacked, 1<<16)
	var long []byte
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) && len(long)+len(line) <= maxRow {
			long = append(long, line...)
			continue
		}
		if len(long) > 0 {
			long = append(long, line...)
			line, long = long, long[:0]
		}
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case err != nil:
			return errTorn
		}
		if err := visit(line); err != nil {
			return err
		}
	}
}

var timeKey = []byte(`,"event_time":"`)

// timeOf returns the time of the event in a row that the encoder wrote. What a client
// says cannot come before it unescaped.
func timeOf(line []byte) int64 {
	_, rest, found := bytes.Cut(line, timeKey)
	if !found || len(rest) < len(timeLayout) {
		return 0
	}
	at, err := time.Parse(timeLayout, string(rest[:len(timeLayout)]))
	if err != nil {
		return 0
	}
	return at.UnixMilli()
}
