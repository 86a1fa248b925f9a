//go:build linux || darwin || freebsd

package forwarder

import (
	"errors"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// openFlags keep a link from leading out of the folder, and a pipe from stopping
// whoever opens it.
const openFlags = unix.O_NOFOLLOW | unix.O_NONBLOCK

// lock takes the lock of a file, which it makes if need be and never removes: the
// lock of a file that is gone would keep nobody out. The kernel frees it when the
// process ends, however it ends.
func (osDisk) lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openFlags, 0o600)
	if errors.Is(err, unix.EROFS) { // what is there can still be sent
		f, err = os.OpenFile(path, os.O_RDONLY|openFlags, 0)
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
			err = errLocked
		}
		return nil, err
	}
	// For whoever wonders; a full disk is no reason to go without the lock.
	if f.Truncate(0) == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

func (osDisk) free(folder string) (int64, error) {
	var s unix.Statfs_t
	for {
		err := unix.Statfs(folder, &s)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return int64(s.Bavail) * int64(s.Bsize), err
	}
}
