//go:build !linux && !darwin && !freebsd

package forwarder

import (
	"errors"
	"io"
	"runtime"
)

var errNoSpool = errors.New("there is no spool on " + runtime.GOOS + "; run without one")

func (osDisk) lock(string) (io.Closer, error) { return nil, errNoSpool }

func (osDisk) free(string) (int64, error) { return 0, errNoSpool }
