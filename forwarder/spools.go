package forwarder

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// spools opens the spool of an endpoint.
type spools struct {
	cfg    SpoolConfig
	folder string   // "": there are none
	taken  []string // names of the folders of endpoints
	log    *slog.Logger

	// leave makes others leave a folder, and returns the books that the points in it are
	// in; nil: none of this run. A nil leave: there are no others.
	leave func(name string) *books
}

// newSpools finds the folder for spools. Without one nothing is spooled, and the log
// says so.
func newSpools(cfg *Config, env func(string) string, log *slog.Logger) *spools {
	s := &spools{cfg: cfg.Spool, log: log}
	spooled := func(d DestinationConfig) bool { return d.Type == TypeDatadog || d.Type == TypeDogStatsD }
	if !slices.ContainsFunc(cfg.Forwarders, spooled) {
		return s
	}
	if !cfg.Spool.Enabled {
		s.warn(errors.New("spool.enabled is false"))
		return s
	}
	folder, err := StateDir(cfg.StateDir, env)
	if err != nil {
		s.warn(err)
		return s
	}
	s.folder = filepath.Join(folder, "spool")
	return s
}

func (s *spools) warn(err error) {
	s.log.Warn("there is no spool: what cannot be delivered waits in memory only, and is lost when the agent ends; see state_dir and spool", "error", err)
}

// assign names the folder of the spool of the endpoint with the given base URL, "" if
// there are no spools. Endpoints with the same URL are told apart by their order, so that
// a key can change.
func (s *spools) assign(base string) string {
	if s.folder == "" {
		return ""
	}
	name := spoolFolder(base)
	for n := 2; slices.Contains(s.taken, name); n++ {
		name = spoolFolder(base) + "-" + strconv.Itoa(n)
	}
	s.taken = append(s.taken, name)
	return name
}

// spoolFolder names the folder of a base URL.
func spoolFolder(base string) string {
	sum := sha256.Sum256([]byte(base))
	name := hex.EncodeToString(sum[:8])
	if u, err := url.Parse(base); err == nil {
		name = strings.Map(func(r rune) rune {
			if isHostName(string(r)) {
				return r
			}
			return '_'
		}, cmp.Or(u.Hostname(), u.Scheme)) + "-" + name
	}
	return name
}

func (s *spools) openFolder(name string, account *books) (*spool, error) {
	cfg := defaultSpoolConfig(filepath.Join(s.folder, name))
	cfg.MaxBytes, cfg.MaxAge, cfg.MinFree, cfg.Lost = s.cfg.MaxBytes, s.cfg.MaxAge, s.cfg.MinFree, account.lost
	var before *books
	if s.leave != nil {
		before = s.leave(name)
	}
	opened, err := openSpool(cfg, s.log)
	if err != nil {
		return nil, err
	}
	before.handedOver(opened.stats().Recovered)
	account.restored(opened.stats().Recovered)
	return opened, nil
}

// orphans are the spools of endpoints that are not configured any more. Their payloads
// stay, since an endpoint may come back, until they are too old to be taken; then they
// are dropped and counted, and the folders removed.
type orphans struct {
	account books
	log     *slog.Logger

	tidying sync.Mutex // held while folders are removed or given away; taken before mu
	mu      sync.Mutex // guards the field below
	spools  []*spool
}

func newOrphans(log *slog.Logger) *orphans {
	o := &orphans{log: log}
	o.account.s.Name, o.account.s.Spools = orphanage, true
	o.account.status = o.status
	return o
}

// orphanage is the name under which they are counted.
const orphanage = "unconfigured"

// orphans opens the spools that nobody has opened, nil if there are none. All endpoints
// must have opened theirs.
func (s *spools) orphans() *orphans {
	if s.folder == "" {
		return nil
	}
	folders, err := os.ReadDir(s.folder)
	if err != nil {
		return nil // without a folder there is none; the endpoints have told what else is wrong
	}
	o := newOrphans(s.log)
	for _, f := range folders {
		path := filepath.Join(s.folder, f.Name())
		if _, err := os.Lstat(filepath.Join(path, lockName)); err != nil || !f.IsDir() || slices.Contains(s.taken, f.Name()) {
			continue // it is no spool, or one of ours
		}
		o.adopt(s, f.Name())
	}
	if o.tidy(time.Now()); len(o.spools) == 0 && o.account.s.Restored == 0 {
		return nil
	}
	return o
}

// adopt takes care of a folder that no endpoint has.
func (o *orphans) adopt(s *spools, name string) {
	path := filepath.Join(s.folder, name)
	opened, err := s.openFolder(name, &o.account)
	if err != nil {
		s.log.Warn("a spool of an endpoint that is not configured is left alone", "folder", path, "error", err)
		return
	}
	if is := opened.stats(); is.Records > 0 {
		s.log.Warn("payloads wait on disk for an endpoint that is not configured: configure it again to have them delivered, or they are dropped when they are older than spool.max_age",
			"endpoint", opened.target(), "folder", path, "points", is.Points, "bytes", is.Bytes, "oldest", is.Oldest, "max_age", s.cfg.MaxAge.String())
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spools = append(o.spools, opened)
}

// leave closes the spool in a folder, and reports whether it was here.
func (o *orphans) leave(name string) bool {
	o.tidying.Lock()
	defer o.tidying.Unlock()
	o.mu.Lock()
	at := slices.IndexFunc(o.spools, func(s *spool) bool { return filepath.Base(s.cfg.Dir) == name })
	var found *spool
	if at >= 0 {
		found = o.spools[at]
		o.spools = slices.Delete(o.spools, at, at+1)
	}
	o.mu.Unlock()
	if found == nil {
		return false
	}
	if err := found.close(); err != nil {
		o.log.Error("closing the spool failed", "error", err)
	}
	return true
}

// run drops what becomes too old, until ctx is done.
func (o *orphans) run(ctx context.Context) {
	defer o.close()
	for pause(ctx, housekeeping) == nil {
		o.tidy(time.Now())
	}
}

// tidy drops what is too old, and removes the folders of spools that are empty.
func (o *orphans) tidy(now time.Time) {
	o.tidying.Lock()
	defer o.tidying.Unlock()
	empty := map[*spool]bool{}
	for _, s := range o.all() {
		before := s.stats().Points
		s.expire(now)
		after := s.stats()
		if lost := before - after.Points; lost > 0 {
			o.log.Error("dropped points of an endpoint that is not configured", "folder", s.cfg.Dir, "points", lost, "reason", DroppedTooOld.String())
		}
		if after.Records > 0 {
			continue
		}
		empty[s] = true
		// What is in the quarantine stays, and its folder with it.
		if os.Remove(s.quarantine.folder) == nil && os.Remove(filepath.Join(s.cfg.Dir, lockName)) == nil {
			_ = os.Remove(s.cfg.Dir)
		}
		if err := s.held.Close(); err != nil {
			o.log.Error("closing the spool failed", "folder", s.cfg.Dir, "error", err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spools = slices.DeleteFunc(o.spools, func(s *spool) bool { return empty[s] })
}

func (o *orphans) all() []*spool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.spools)
}

func (o *orphans) close() {
	for _, s := range o.all() {
		if err := s.close(); err != nil {
			o.log.Error("closing the spool failed", "error", err)
		}
	}
}

func (o *orphans) status(s *DestinationStats) {
	for _, spool := range o.all() {
		spool.status(s)
	}
}

// target returns where the oldest payload is to go.
func (s *spool) target() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if oldest := s.waiting.oldest(); oldest != nil {
		return oldest.target
	}
	return ""
}

// status adds what the books do not know.
func (s *spool) status(of *DestinationStats) {
	is := s.stats()
	of.SpoolBytes += is.Bytes
	of.SpoolErrors += is.WriteErrors + is.ReadErrors
	of.SpoolQuarantined += is.Quarantined + is.Foreign
}
