package cardinality

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/axiomhq/hyperloglog"

	"github.com/weir-agent/weir/internal/diskio"
	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

const (
	stateVersion = 1
	saveEvery    = 30 * time.Second
	// maxStateBytes is the largest file that is read.
	maxStateBytes = 64 << 20
)

// state is the file: what must be known of folds and of metrics near their limit so
// that a restart admits no more contexts than there would have been without it.
type state struct {
	Version int           `json:"version"`
	Saved   time.Time     `json:"saved"`
	Hash    hasher        `json:"hash"`
	Metrics []metricState `json:"metrics"`
}

type metricState struct {
	Name     string      `json:"name"`
	Kind     metric.Kind `json:"kind"`
	Rule     string      `json:"rule,omitempty"`
	Contexts []byte      `json:"contexts,omitempty"` // a sketch of those in the window
	Demand   int         `json:"demand,omitempty"`   // about how many there would be without folds
	Folds    []foldState `json:"folds,omitempty"`
}

type foldState struct {
	Key    string      `json:"key"`
	Apart  []string    `json:"apart,omitempty"`
	Values int         `json:"values"`
	Saved  int         `json:"saved"`
	Kept   []keptState `json:"kept"`
}

type keptState struct {
	Value string `json:"value"` // the whole tag
	Count uint32 `json:"count"`
}

// Run answers what Admit asks, and saves the state when something was decided, and from
// time to time, until ctx is done; then it saves it for the last time.
func (g *Guard) Run(ctx context.Context) {
	var answers sync.WaitGroup
	answers.Go(func() { // the disk may be slow
		priority.Lower()
		g.answerAll(ctx)
	})
	defer answers.Wait()
	ticker := time.NewTicker(saveEvery)
	defer ticker.Stop()
	failing := false
	for running := true; running; {
		select {
		case <-ctx.Done():
			running = false
		case <-ticker.C:
		case <-g.save:
		}
		err := g.Save()
		if err != nil && !failing {
			g.log.Warn("the state of the cardinality guards cannot be saved: a restart will forget folds; see state_dir", "error", err)
		}
		failing = err != nil
	}
}

func (g *Guard) saveSoon() {
	select {
	case g.save <- struct{}{}:
	default: // it is to be saved already
	}
}

// Save writes the state, atomically.
func (g *Guard) Save() error {
	if g.file == "" {
		return nil
	}
	err := g.write(g.state())
	if err != nil {
		g.counts.saveErrors.Add(1)
	}
	return err
}

func (g *Guard) write(s state) error {
	if len(s.Metrics) == 0 {
		if err := os.Remove(g.file); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(g.file), 0o700); err != nil {
		return err
	}
	return diskio.WriteFile(g.file, text)
}

func (g *Guard) state() state {
	s := state{Version: stateVersion, Saved: time.Unix(g.now.Load(), 0).UTC(), Hash: g.hash}
	g.each(func(_ *shard, m *tracked) {
		one := metricState{Name: m.name, Kind: m.kind, Rule: m.rule}
		if m.folded != nil && !m.folded.dry {
			one.Demand = m.folded.demand.estimate()
			for _, f := range m.folded.folds {
				one.Folds = append(one.Folds, f.state())
			}
		}
		if m.watch != nil {
			if all := m.watch.contexts.union(); all != nil {
				one.Contexts, _ = all.MarshalBinary() // of a dense sketch it cannot fail
			}
		}
		if one.Folds != nil || one.Contexts != nil {
			s.Metrics = append(s.Metrics, one)
		}
	})
	return s
}

func (f *fold) state() foldState {
	s := foldState{Key: f.key, Values: max(f.valuesKnown, f.values.estimate()), Saved: f.saved}
	for _, k := range f.kept {
		if k.value != "" {
			s.Kept = append(s.Kept, keptState{k.value, k.count})
		}
	}
	slices.SortFunc(s.Kept, func(a, b keptState) int { return int(int64(b.Count) - int64(a.Count)) })
	for key := range f.apart {
		s.Apart = append(s.Apart, key)
	}
	slices.Sort(s.Apart)
	return s
}

// Open puts what an earlier process saved into force, and lets Run save to the same
// file. It is called before the first candidate comes. A file that is damaged is set
// aside.
func (g *Guard) Open(file string) {
	g.file = file
	diskio.RemoveHalfWritten(file)
	if err := g.Load(file); err != nil {
		moved := os.Rename(file, file+".damaged")
		g.log.Warn("the state of the cardinality guards is damaged and was set aside: folds of the last run are forgotten",
			"file", file, "error", errors.Join(err, moved))
	}
}

// Load puts what an earlier process saved into force, and leaves the file as it is. It
// is called before the first candidate comes.
func (g *Guard) Load(file string) error {
	s, err := readState(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	age := time.Since(s.Saved)
	window := g.cfg.Load().Window
	if age > window || age < -time.Minute {
		return nil // nothing of it is in the window
	}
	g.hash = s.Hash
	for i := range s.Metrics {
		g.restoreMetric(&s.Metrics[i], window-max(0, age))
	}
	return nil
}

func readState(name string) (s state, err error) {
	info, err := os.Stat(name)
	if err != nil {
		return s, err
	}
	if info.Size() > maxStateBytes {
		return s, fmt.Errorf("it is larger than %d bytes", maxStateBytes)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, err
	}
	if s.Version != stateVersion {
		return s, fmt.Errorf("it is of version %d, and not %d", s.Version, stateVersion)
	}
	for _, m := range s.Metrics {
		if m.Name == "" || m.Kind < metric.Counter || m.Kind > metric.ClassicTimer || len(m.Folds) > maxFolds {
			return s, fmt.Errorf("it has a metric %q of kind %d with %d folds", m.Name, m.Kind, len(m.Folds))
		}
		for _, f := range m.Folds {
			if len(f.Kept) > maxKeepTop {
				return s, fmt.Errorf("it has a fold of %q with %d values", m.Name, len(f.Kept))
			}
		}
		if m.Contexts == nil {
			continue
		}
		if err := new(hyperloglog.Sketch).UnmarshalBinary(m.Contexts); err != nil {
			return s, err
		}
	}
	return s, nil
}

// restoreMetric puts what is known of a metric into force. It is not lifted before what
// the earlier process saw has left the window.
func (g *Guard) restoreMetric(from *metricState, hold time.Duration) {
	c := &metric.Candidate{Kind: from.Kind, Name: []byte(from.Name), Budget: &metric.Budget{Part: from.Rule}}
	s, hash := g.shardOf(c)
	m := s.find(hash, c)
	if m == nil {
		if m = g.track(s, hash, c); m == nil {
			return
		}
	}
	if from.Contexts != nil {
		g.restoreWatch(m, from.Contexts)
	}
	if len(from.Folds) == 0 || m.folded != nil {
		return
	}
	m.folded = &folded{version: g.version.Add(1), demand: newWindowIn(g), known: from.Demand}
	for _, saved := range from.Folds {
		f := g.newFold(saved.Key)
		f.until, f.valuesKnown, f.saved = hold, saved.Values, saved.Saved
		for _, k := range saved.Kept {
			f.kept[g.hash.bytes([]byte(k.Value))] = &keptValue{k.Value, k.Count}
		}
		if f.key == pooledKey {
			f.apart = map[string]bool{}
			for _, key := range saved.Apart {
				f.apart[key] = true
			}
		}
		m.folded.folds = append(m.folded.folds, f)
		g.counts.folds.Add(1)
		g.log.Info("a tag key is still folded, as it was before the restart", "metric", m.name, "kind", m.kind, "key", keyText(f.key), "values", f.valuesKnown)
	}
}

func (g *Guard) restoreWatch(m *tracked, contexts []byte) {
	sketch := newSketch(contextPrecision)
	earlier := new(hyperloglog.Sketch)
	if err := earlier.UnmarshalBinary(contexts); err != nil {
		return // it was read before
	}
	if err := sketch.Merge(earlier); err != nil {
		return // of another precision, as an older version wrote it
	}
	g.beginWatch(m)
	if m.watch == nil {
		return
	}
	m.watch.contexts.parts[0] = sketch
	m.watch.known = int(min(sketch.Estimate(), math.MaxInt32))
	m.watch.next = max(0, g.limitOf(m)-m.watch.known)
	m.watch.fed = true
}
