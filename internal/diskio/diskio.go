// Package diskio is what rooms that keep files ask of the disk.
//
// In: the path of a file or folder. Out: a file that was replaced as a whole, a lock, the
// room that is left. It never looks at what is in a file.
package diskio

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// ErrLocked says that another process, or somebody else in this one, has the lock.
var ErrLocked = errors.New("another process holds the lock")

// halfWritten is the end of a file's name that is not whole yet.
const halfWritten = ".tmp-*"

// RemoveHalfWritten removes what WriteFile left of a file when the process was killed.
// Nobody may be writing it.
func RemoveHalfWritten(path string) {
	for _, path := range Glob(path, halfWritten) {
		_ = os.Remove(path) // it is in nobody's way
	}
}

// Glob returns the files whose paths begin with start, taken as it is, and go on as
// pattern says, which must be one of filepath.Match.
func Glob(start, pattern string) []string {
	found, err := filepath.Glob(globEscape.Replace(start) + pattern)
	if err != nil {
		panic("BUG: " + pattern + ": " + err.Error())
	}
	return found
}

var globEscape = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// WriteFile replaces a file as a whole, for this user's eyes only: whenever the process or
// the machine ends, the file is what it was or what it is to be.
func WriteFile(path string, content []byte) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+halfWritten) // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone already if all went well
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
