package forwarder

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/weir-agent/weir/internal/diskio"
)

// disk is what the spool asks of a file system. It is an interface so that tests
// can have one that fails, or loses power, at any step.
type disk interface {
	mkdir(folder string) error   // if it is not there, and those above it; for nobody else
	protect(folder string) error // from everybody else
	list(folder string) ([]fs.DirEntry, error)
	create(path string) (diskFile, error) // an error if there is such a file
	open(path string) (diskFile, error)   // for reading; links are not followed
	rename(from, to string) error
	remove(path string) error
	syncFolder(folder string) error      // makes its names durable
	free(folder string) (int64, error)   // bytes that may be written
	lock(path string) (io.Closer, error) // diskio.ErrLocked if another process has it
}

type diskFile interface {
	io.Writer
	io.ReaderAt
	io.Closer
	Sync() error
	Stat() (fs.FileInfo, error)
}

// osDisk is the machine's own file systems.
type osDisk struct{}

func (d osDisk) mkdir(folder string) error {
	info, err := os.Stat(folder)
	if err == nil && !info.IsDir() {
		return errors.New("it is a file")
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	above := filepath.Dir(folder)
	if above != folder {
		if err := d.mkdir(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	// A folder that may be written but not read cannot be synced.
	if err := d.syncFolder(above); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func (osDisk) protect(folder string) error {
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm() == 0o700 {
		return err
	}
	return os.Chmod(folder, 0o700)
}

func (osDisk) list(folder string) ([]fs.DirEntry, error) { return os.ReadDir(folder) }

func (osDisk) create(path string) (diskFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|diskio.OpenFlags, 0o600)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

func (osDisk) open(path string) (diskFile, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|diskio.OpenFlags, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) remove(path string) error { return os.Remove(path) }

func (osDisk) syncFolder(folder string) error {
	f, err := os.Open(folder)
	if err != nil {
		return err
	}
	defer f.Close()
	// File systems that cannot do it (some network and user-space ones) say EINVAL
	// or ENOTSUP; there, what a power cut takes is up to them.
	if err := f.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return err
	}
	return nil
}
