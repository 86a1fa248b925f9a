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
	folder string         // "": there are none
	opened map[string]int // how many there are for a base URL
	taken  []string       // names of the folders of endpoints
	log    *slog.Logger
}

// newSpools finds the folder for spools. Without one nothing is spooled, and the log
// says so.
func newSpools(cfg *Config, env func(string) string, log *slog.Logger) *spools {
	s := &spools{cfg: cfg.Spool, opened: map[string]int{}, log: log}
	spooled := func(d DestinationConfig) bool { return d.Type == TypeDatadog || d.Type == TypeDogStatsD }
	if !slices.ContainsFunc(cfg.Forwarders, spooled) {
		return s
	}
	if !cfg.Spool.Enabled {
		s.warn(errors.New("spool.enabled is false"))
		return s
	}
	folder, err := stateDir(cfg.StateDir, env)
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

// open opens the spool of the endpoint with the given base URL, nil if there is none.
// Endpoints with the same URL are told apart by their order, so that a key can change.
func (s *spools) open(base string, account *books) *spool {
	if s.folder == "" {
		return nil
	}
	s.opened[base]++
	name := spoolFolder(base)
	if n := s.opened[base]; n > 1 {
		name += "-" + strconv.Itoa(n)
	}
	s.taken = append(s.taken, name)
	opened, err := s.openFolder(name, account)
	if err != nil {
		s.warn(err)
		return nil
	}
	return opened
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
	opened, err := openSpool(cfg, s.log)
	if err != nil {
		return nil, err
	}
	account.restored(opened.stats().Recovered)
	return opened, nil
}

// orphans are the spools of endpoints that are not configured any more. Their payloads
// stay, since an endpoint may come back, until they are too old to be taken; then they
// are dropped and counted, and the folders removed.
type orphans struct {
	account books
	log     *slog.Logger

	mu     sync.Mutex // guards the field below
	spools []*spool
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
	o := &orphans{log: s.log}
	o.account.s.Name, o.account.s.Spools = orphanage, true
	o.account.status = o.status
	for _, f := range folders {
		path := filepath.Join(s.folder, f.Name())
		if _, err := os.Lstat(filepath.Join(path, lockName)); err != nil || !f.IsDir() || slices.Contains(s.taken, f.Name()) {
			continue // it is no spool, or one of ours
		}
		opened, err := s.openFolder(f.Name(), &o.account)
		if err != nil {
			s.log.Warn("a spool of an endpoint that is not configured is left alone", "folder", path, "error", err)
			continue
		}
		if is := opened.stats(); is.Records > 0 {
			s.log.Warn("payloads wait on disk for an endpoint that is not configured: configure it again to have them delivered, or they are dropped when they are older than spool.max_age",
				"endpoint", opened.target(), "folder", path, "points", is.Points, "bytes", is.Bytes, "oldest", is.Oldest, "max_age", s.cfg.MaxAge.String())
		}
		o.spools = append(o.spools, opened)
	}
	if o.tidy(time.Now()); len(o.spools) == 0 && o.account.s.Restored == 0 {
		return nil
	}
	return o
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
