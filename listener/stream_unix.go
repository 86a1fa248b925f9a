//go:build unix

package listener

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readNow reads what there is; io.EOF means that the other end has closed, and any
// other error that there is nothing.
func readNow(fd int, buffer []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buffer)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// lockFolder waits until nobody else has locked an open folder, and locks it until it
// is closed.
func lockFolder(folder *os.File) { _ = unix.Flock(int(folder.Fd()), unix.LOCK_EX) }
