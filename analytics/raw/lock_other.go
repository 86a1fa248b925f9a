//go:build !linux && !darwin && !freebsd

package raw

import (
	"io"
	"os"
)

// lock opens the file: there are no locks here.
func lock(path string) (io.Closer, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}
