//go:build linux || darwin || freebsd

package forwarder

import (
	"io"

	"github.com/weir-agent/weir/internal/diskio"
)

func (osDisk) lock(path string) (io.Closer, error) { return diskio.Lock(path) }

func (osDisk) free(folder string) (int64, error) { return diskio.Free(folder) }
