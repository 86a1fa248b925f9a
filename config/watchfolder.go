package config

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// Bounds on what is looked at below a folder; what is beyond them is not noticed.
const (
	maxWatchedFiles   = 10_000
	maxWatchedFolders = 1000
	maxWatchedDepth   = 6
)

// NewFolderWatcher returns a Watcher of all files below a folder: of their names, sizes
// and times. Nothing is known of it yet, so that Run begins with a change. It has
// acquired nothing.
func NewFolderWatcher(folder string) *Watcher {
	return &Watcher{watched: &watchedFolder{folder}}
}

type watchedFolder struct{ path string }

func (f *watchedFolder) look() glimpse {
	sum, left := sha256.New(), maxWatchedFiles
	if err := lookBelow(f.path, maxWatchedDepth, &left, sum); err != nil {
		return glimpse{err: err.Error()}
	}
	return glimpse{sum: [sha256.Size]byte(sum.Sum(nil))}
}

// lookBelow adds what is to be seen of each file to sum, and counts them off left.
func lookBelow(folder string, depth int, left *int, sum hash.Hash) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if *left--; *left < 0 {
			return nil
		}
		path := filepath.Join(folder, entry.Name())
		info, err := os.Stat(path) // of what a link leads to
		switch {
		case err != nil:
			fmt.Fprintf(sum, "%q is gone\n", path) // or a link that leads nowhere
		case info.IsDir() && depth > 0:
			if err := lookBelow(path, depth-1, left, sum); err != nil {
				fmt.Fprintf(sum, "%q: %v\n", path, err)
			}
		default:
			fmt.Fprintf(sum, "%q %d %d\n", path, info.Size(), info.ModTime().UnixNano())
		}
	}
	return nil
}

func (f *watchedFolder) folders() []string {
	all := []string{f.path}
	for i, depth := 0, 0; depth < maxWatchedDepth && i < len(all); depth++ {
		end := len(all)
		for ; i < end; i++ {
			entries, err := os.ReadDir(all[i])
			if err != nil {
				continue
			}
			for _, entry := range entries {
				if entry.IsDir() && len(all) < maxWatchedFolders {
					all = append(all, filepath.Join(all[i], entry.Name()))
				}
			}
		}
	}
	return all
}

// concerns reports true: what it was is seen by looking.
func (f *watchedFolder) concerns(fsnotify.Event) bool { return true }
