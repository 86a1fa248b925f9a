package forwarder

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/weir-agent/weir/internal/diskio"
)

var errPower = errors.New("the process is dead")

// memDisk is a disk in memory that can fail, or stop for good, at any step. It
// knows what would survive the loss of power: of a file what was synced, of names
// those up to some moment after the last sync of the folder.
type memDisk struct {
	mu      sync.Mutex
	files   map[string]*memFile
	durable map[string]*memFile    // names as of the last sync
	journal []func(names memNames) // what was done to them since
	holder  *memLock               // of the lock
	space   int64                  // free bytes, those of files not deducted
	steps   int                    // done so far
	dieAt   int                    // the step that does not happen, nor any behind it
	failAt  int                    // the step that fails with failure
	failTo  int                    // the last that does; 0: only that one
	failure error
	before  func(what, path string) // called before each step, without the lock
	most    int64                   // bytes that records and temporary files ever took, in blocks
	folder  string                  // of the records, for most
	dead    bool
	frozen  map[string]fs.FileMode // kinds of files that are not regular
}

type memNames = map[string]*memFile

type memFile struct {
	disk   *memDisk
	name   string
	data   []byte
	synced []byte
}

type memLock struct{ disk *memDisk }

func newMemDisk(folder string) *memDisk {
	return &memDisk{files: memNames{}, durable: memNames{}, frozen: map[string]fs.FileMode{}, space: 1 << 40, folder: folder}
}

// step is called by everything that happens, with mu held.
func (d *memDisk) step() error {
	if d.dead {
		return errPower
	}
	d.steps++
	if d.steps == d.dieAt {
		d.dead = true
		return errPower
	}
	if d.steps == d.failAt || d.steps > d.failAt && d.steps <= d.failTo {
		return d.failure
	}
	return nil
}

func (d *memDisk) do(what, path string, f func() error) error {
	if d.before != nil {
		d.before(what, path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return &fs.PathError{Op: what, Path: path, Err: err}
	}
	err := f()
	var used int64
	for name, file := range d.files {
		if filepath.Dir(name) == d.folder {
			used += blocks(int64(len(file.data)))
		}
	}
	d.most = max(d.most, used)
	return err
}

// change does something to the names, now and, once they are synced, for good.
func (d *memDisk) change(f func(memNames)) {
	f(d.files)
	d.journal = append(d.journal, f)
}

// crash returns what the next process finds. After the loss of power, chance says
// how much of what was not synced got to the disk.
func (d *memDisk) crash(powerLost bool, chance *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	next := newMemDisk(d.folder)
	next.space, next.frozen = d.space, d.frozen
	names := d.files
	if powerLost {
		names = d.durable
		for _, f := range d.journal[:chance.IntN(len(d.journal)+1)] {
			f(names)
		}
	}
	for name, file := range names {
		data := file.data
		if powerLost && !bytes.Equal(file.data, file.synced) {
			data = file.data[:len(file.synced)+chance.IntN(len(file.data)-len(file.synced)+1)]
		}
		data = bytes.Clone(data)
		next.files[name] = &memFile{next, name, data, data}
		next.durable[name] = next.files[name]
	}
	return next
}

func (d *memDisk) put(path string, data []byte) {
	d.files[path] = &memFile{d, path, data, data}
	d.durable[path] = d.files[path]
}

// names returns the names of the files in a folder.
func (d *memDisk) names(folder string) (names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for path := range d.files {
		if name := filepath.Base(path); filepath.Dir(path) == folder && name != lockName {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (d *memDisk) mkdir(folder string) error {
	return d.do("mkdir", folder, func() error { return nil })
}

func (d *memDisk) protect(folder string) error {
	return d.do("chmod", folder, func() error { return nil })
}

func (d *memDisk) list(folder string) (all []fs.DirEntry, err error) {
	err = d.do("list", folder, func() error {
		for path, file := range d.files {
			if filepath.Dir(path) == folder {
				all = append(all, fs.FileInfoToDirEntry(memInfo{filepath.Base(path), int64(len(file.data)), d.frozen[path]}))
			}
		}
		slices.SortFunc(all, func(a, b fs.DirEntry) int { return bytes.Compare([]byte(a.Name()), []byte(b.Name())) })
		return nil
	})
	return all, err
}

func (d *memDisk) create(path string) (diskFile, error) {
	f := &memFile{disk: d, name: path}
	return f, d.do("create", path, func() error {
		if d.files[path] != nil {
			return fs.ErrExist
		}
		d.change(func(names memNames) { names[path] = f })
		return nil
	})
}

func (d *memDisk) open(path string) (f diskFile, err error) {
	err = d.do("open", path, func() error {
		file := d.files[path]
		if file == nil {
			return fs.ErrNotExist
		}
		f = file
		return nil
	})
	return f, err
}

func (d *memDisk) rename(from, to string) error {
	return d.do("rename", from, func() error {
		if d.files[from] == nil {
			return fs.ErrNotExist
		}
		d.change(func(names memNames) {
			if names[from] != nil {
				names[to] = names[from]
				delete(names, from)
			}
		})
		return nil
	})
}

func (d *memDisk) remove(path string) error {
	return d.do("remove", path, func() error {
		if d.files[path] == nil {
			return fs.ErrNotExist
		}
		d.change(func(names memNames) { delete(names, path) })
		return nil
	})
}

func (d *memDisk) syncFolder(folder string) error {
	return d.do("sync", folder, func() error {
		for _, f := range d.journal {
			f(d.durable)
		}
		d.journal = nil
		return nil
	})
}

func (d *memDisk) free(folder string) (free int64, err error) {
	err = d.do("free", folder, func() error {
		free = d.space
		for _, f := range d.files {
			free -= blocks(int64(len(f.data)))
		}
		return nil
	})
	return free, err
}

func (d *memDisk) lock(path string) (io.Closer, error) {
	lock := &memLock{d}
	return lock, d.do("lock", path, func() error {
		if d.holder != nil {
			return diskio.ErrLocked
		}
		d.holder = lock
		d.files[path] = &memFile{disk: d, name: path}
		d.durable[path] = d.files[path]
		return nil
	})
}

func (l *memLock) Close() error {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if l.disk.holder == l {
		l.disk.holder = nil
	}
	return nil
}

// Write is cut short if it fails.
func (f *memFile) Write(p []byte) (n int, err error) {
	err = f.disk.do("write", f.name, func() error {
		f.data = append(f.data, p...)
		n = len(p)
		return nil
	})
	if err != nil {
		f.disk.mu.Lock()
		defer f.disk.mu.Unlock()
		f.data = append(f.data, p[:len(p)/2]...)
	}
	return n, err
}

func (f *memFile) Sync() error {
	return f.disk.do("fsync", f.name, func() error { f.synced = bytes.Clone(f.data); return nil })
}

func (f *memFile) Close() error {
	return f.disk.do("close", f.name, func() error { return nil })
}

func (f *memFile) ReadAt(p []byte, at int64) (n int, err error) {
	err = f.disk.do("read", f.name, func() error {
		n, err = bytes.NewReader(f.data).ReadAt(p, at)
		return err
	})
	return n, err
}

func (f *memFile) Stat() (info fs.FileInfo, err error) {
	err = f.disk.do("stat", f.name, func() error {
		info = memInfo{filepath.Base(f.name), int64(len(f.data)), f.disk.frozen[f.name]}
		return nil
	})
	return info, err
}

type memInfo struct {
	name string
	size int64
	mode fs.FileMode
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }
