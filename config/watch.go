package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settling is how long nothing may happen to a file before it is read: editors and
	// tools write in several steps.
	settling = 250 * time.Millisecond
	// mostSettling is how long it may go on happening.
	mostSettling = 2 * time.Second
	// lookEvery is how often one looks at the file though nothing was told: not all file
	// systems tell, and a folder may be replaced.
	lookEvery = 10 * time.Second
)

// Watcher notices that the content of the configuration file changes, or of the files
// below a folder, or whether it can be read at all. It watches folders and not files:
// editors put a new file in the old one's place, and Kubernetes a new link to another
// folder (..data). Where nothing can be watched, it looks from time to time.
type Watcher struct {
	watched
	log    *slog.Logger
	last   glimpse
	notify *fsnotify.Watcher // nil: nothing can be watched
}

// watched is what a Watcher watches.
type watched interface {
	look() glimpse
	// folders returns those in which something may happen to it.
	folders() []string
	// concerns reports whether an event in one of these may be about it.
	concerns(fsnotify.Event) bool
}

type watchedFile struct{ path string }

// NewWatcher returns a Watcher for which what is in the file now is known. It has
// acquired nothing.
func NewWatcher(file string) *Watcher {
	w := &Watcher{watched: &watchedFile{file}}
	w.last = w.look()
	return w
}

// Run calls changed after each change until ctx is done.
func (w *Watcher) Run(ctx context.Context, log *slog.Logger, changed func()) {
	w.log = log
	notify, err := fsnotify.NewWatcher()
	if err == nil {
		w.notify = notify
		defer notify.Close()
	} else {
		log.Warn("changes of files cannot be watched; they are looked at from time to time", "every", lookEvery.String(), "error", err)
	}
	regularly := time.NewTicker(lookEvery)
	defer regularly.Stop()
	for more := true; more; more = w.wait(ctx, regularly.C) {
		w.follow()
		if now := w.look(); now != w.last {
			w.last = now
			changed()
		}
	}
}

// glimpse tells one content of what is watched from another. One that cannot be read is told
// by the reason.
type glimpse struct {
	sum [sha256.Size]byte
	err string
}

func (w *watchedFile) look() glimpse {
	f, err := os.Open(w.path)
	if err != nil {
		return glimpse{err: err.Error()}
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, maxFile+1)); err != nil {
		return glimpse{err: err.Error()}
	}
	return glimpse{sum: [sha256.Size]byte(sum.Sum(nil))}
}

// folders returns the folder of the file and, if it is a link, that of what it leads to.
func (w *watchedFile) folders() []string {
	folders := []string{filepath.Dir(w.path)}
	if real, err := filepath.EvalSymlinks(w.path); err == nil {
		folders = append(folders, filepath.Dir(real))
	}
	return folders
}

// follow watches the folders there are now. What is watched already, or gone, is no
// matter.
func (w *Watcher) follow() {
	if w.notify == nil {
		return
	}
	for _, folder := range w.folders() {
		if err := w.notify.Add(folder); err != nil && !errors.Is(err, os.ErrNotExist) {
			w.log.Debug("a folder cannot be watched; it is looked at from time to time", "folder", folder, "error", err)
		}
	}
}

// wait returns when something has happened and settled, or when it is time to look
// anyway; false when ctx is done.
func (w *Watcher) wait(ctx context.Context, regularly <-chan time.Time) bool {
	var events chan fsnotify.Event
	var faults chan error
	if w.notify != nil {
		events, faults = w.notify.Events, w.notify.Errors
	}
	var settled <-chan time.Time
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return false
		case <-regularly:
			if settled == nil {
				return true
			}
		case <-settled:
			return true
		case <-faults: // events were lost
			settled = time.After(settling)
		case e := <-events:
			if !w.concerns(e) {
				continue
			}
			if settled == nil {
				since = time.Now()
			}
			settled = time.After(max(0, min(settling, mostSettling-time.Since(since))))
		}
	}
}

// concerns reports whether an event may be about the file. In its own folder there may
// be others, such as one that the agent writes to all the time.
func (w *watchedFile) concerns(e fsnotify.Event) bool {
	folder, name := filepath.Split(e.Name)
	return name == filepath.Base(w.path) || strings.HasPrefix(name, "..") || filepath.Clean(folder) != filepath.Dir(w.path)
}
