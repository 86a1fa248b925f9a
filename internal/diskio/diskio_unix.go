//go:build linux || darwin || freebsd

package diskio

import (
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OpenFlags keep a link from leading out of a folder, and a pipe from stopping whoever
// opens it.
const OpenFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// Lock takes the lock of a file, which it makes if need be and never removes: the lock of
// a file that is gone would keep nobody out. The kernel frees it when the process ends,
// however it ends. The error is ErrLocked if somebody has it.
func Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|OpenFlags, 0o600)
	if errors.Is(err, unix.EROFS) { // what is there can still be read
		f, err = os.OpenFile(path, os.O_RDONLY|OpenFlags, 0)
	}
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, err
	}
	// For whoever wonders; a full disk is no reason to go without the lock.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// Free returns how many bytes may still be written to the file system of a folder.
func Free(folder string) (int64, error) {
	var s unix.Statfs_t
	for {
		err := unix.Statfs(folder, &s)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return int64(s.Bavail) * int64(s.Bsize), err
	}
}
