package raw

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/weir-agent/weir/internal/diskio"
)

// manifest is a file with a line of JSON for each file that is finished. A loader reads
// it to know what there is.
type manifest struct {
	path string
	mu   sync.Mutex // held while the file is changed
}

const (
	manifestName = "manifest.ndjson"
	// maxManifestLine is far beyond what a line can be.
	maxManifestLine = 64 << 10
)

// manifestEntry is one line.
type manifestEntry struct {
	File    string    `json:"file"` // from the folder of the manifest
	Format  string    `json:"format"`
	Event   string    `json:"event,omitempty"` // of Parquet, which has one only
	Rows    int64     `json:"rows"`
	Bytes   int64     `json:"bytes"`
	MinTime time.Time `json:"min_event_time"`
	MaxTime time.Time `json:"max_event_time"`
	SHA256  string    `json:"sha256"`
}

// name is a file's name in the manifest.
func (m *manifest) name(path string) string {
	name, err := filepath.Rel(filepath.Dir(m.path), path)
	if err != nil {
		return path
	}
	return filepath.ToSlash(name)
}

func (m *manifest) append(e manifestEntry) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.File = m.name(e.File)
	text, err := json.Marshal(e)
	if err != nil {
		panic("BUG: a line of the manifest is no JSON: " + err.Error())
	}
	file, err := os.OpenFile(m.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, fileMode)
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// each calls visit with each line that can be read.
func (m *manifest) each(visit func(e *manifestEntry, line []byte)) error {
	file, err := os.Open(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, maxManifestLine)
	for lines.Scan() {
		var e manifestEntry
		if json.Unmarshal(lines.Bytes(), &e) == nil && e.File != "" {
			visit(&e, lines.Bytes())
		}
	}
	return lines.Err()
}

// forget takes files out.
func (m *manifest) forget(gone map[string]bool) error {
	return m.rewrite(func(e *manifestEntry) bool { return !gone[e.File] })
}

// rewrite writes the lines that are to stay, all or nothing.
func (m *manifest) rewrite(stays func(e *manifestEntry) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var kept bytes.Buffer
	if err := m.each(func(e *manifestEntry, line []byte) {
		if stays(e) {
			kept.Write(line)
			kept.WriteByte('\n')
		}
	}); err != nil {
		return err
	}
	return diskio.WriteFile(m.path, kept.Bytes())
}

// prune takes out files that somebody took away.
func (m *manifest) prune() error {
	gone := map[string]bool{}
	err := m.each(func(e *manifestEntry, _ []byte) {
		if !m.there(e) {
			gone[e.File] = true
		}
	})
	if err != nil || len(gone) == 0 {
		return err
	}
	return m.forget(gone)
}

// there reports whether the file of a line is.
func (m *manifest) there(e *manifestEntry) bool {
	_, err := os.Lstat(filepath.Join(filepath.Dir(m.path), filepath.FromSlash(e.File)))
	return !errors.Is(err, fs.ErrNotExist)
}

// complete brings the manifest and the files together again, after a crash between a
// file and its line, within a line, or files that were taken away.
func (m *manifest) complete(all []found, log *slog.Logger) error {
	known := map[string]bool{}
	if err := m.rewrite(func(e *manifestEntry) bool {
		there := m.there(e)
		known[e.File] = known[e.File] || there
		return there
	}); err != nil {
		return err
	}
	for _, one := range all {
		if !strings.HasSuffix(one.path, ndjsonSuffix) || known[m.name(one.path)] {
			continue
		}
		e, err := describe(one.path)
		if err == nil {
			err = m.append(e)
		}
		if err != nil {
			log.Warn("a file of raw events is not in the manifest", "file", one.path, "error", err)
		}
	}
	return nil
}

// describe reads a file that is finished.
func describe(path string) (e manifestEntry, err error) {
	source, err := os.Open(path)
	if err != nil {
		return e, err
	}
	defer source.Close()
	sum := sha256.New()
	f := file{path: path, sum: sum}
	first := true
	err = eachRow(source, func(line []byte) error {
		at := timeOf(line)
		if first {
			f.min, f.max, first = at, at, false
		}
		f.min, f.max = min(f.min, at), max(f.max, at)
		f.rows++
		return nil
	})
	if err != nil {
		return e, err
	}
	if _, err := source.Seek(0, io.SeekStart); err != nil {
		return e, err
	}
	if f.bytes, err = io.Copy(sum, source); err != nil {
		return e, err
	}
	e = f.entry()
	e.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return e, nil
}
