package listener

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// socketFile is the file of a Unix socket that this process has bound.
type socketFile struct {
	path string
	file fs.FileInfo // as it was made
}

// errTaken says that somebody answers at a path.
var errTaken = errors.New("another process listens there")

// alone keeps other agents away from a folder's sockets until release is called: one
// that starts at the same moment would take a file that was just made for one that
// was left behind. Where folders cannot be locked, it does nothing.
func alone(path string) (release func()) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return func() {} // clearPath says why
	}
	lockFolder(folder)
	return func() { _ = folder.Close() }
}

// clearPath makes room for a socket. What an agent that crashed has left behind
// is removed; a socket somebody listens on, and anything that is no socket, stays.
func clearPath(path string) error {
	folder := filepath.Dir(path)
	if info, err := os.Stat(folder); err != nil || !info.IsDir() {
		return fmt.Errorf("there is no folder %s; make it, or name another path", folder)
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s exists and is no socket; remove it yourself if nobody needs it, or name another path", path)
	}
	if alive(path) {
		return errTaken
	}
	return os.Remove(path)
}

// alive reports whether anybody has the socket at a path open, or that cannot be
// found out. Only of one that nobody has does the system say that it refuses; of a
// stream socket it says that it is of another type.
func alive(path string) bool {
	conn, err := net.Dial("unixgram", path)
	if err == nil {
		_ = conn.Close()
	}
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// claim gives a socket's file its mode, whatever the umask is, and remembers it.
func claim(path string, mode os.FileMode) (*socketFile, error) {
	file, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	return &socketFile{path, file}, os.Chmod(path, mode)
}

// remove removes the file unless another process has put its own in its place.
// The socket must still be open: until then the file's number is not given out
// again.
func (f *socketFile) remove() {
	if f == nil {
		return
	}
	if now, err := os.Lstat(f.path); err == nil && os.SameFile(now, f.file) {
		_ = os.Remove(f.path)
	}
}

// beforeBind limits a socket's mode before there is a file, so that the file never
// has more than that. Where the system cannot, claim does it a moment later.
func beforeBind(mode os.FileMode) func(network, address string, raw syscall.RawConn) error {
	return func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { limitMode(int(fd), mode) })
	}
}
