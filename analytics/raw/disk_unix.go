//go:build linux || darwin || freebsd

package raw

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// lock takes the lock of a file, which it makes if need be. The kernel frees it when the
// process ends, however it ends.
func lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
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
	return f, nil
}

// freeBytes is how much may still be written to the file system of a folder.
func freeBytes(folder string) (int64, error) {
	var s unix.Statfs_t
	for {
		err := unix.Statfs(folder, &s)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return int64(s.Bavail) * int64(s.Bsize), err
	}
}
