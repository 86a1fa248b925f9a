package config

import (
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weir-agent/weir/metric"
)

// needsRestart are the keys, with all below them, that do not change while the agent
// runs. What is not listed does.
var needsRestart = []string{"listen", "dialect", "tag_style", "origin.detect", "state_dir", "analytics.key_file", "analytics.keys", "analytics.dead_letters", "analytics.raw", "analytics.redis", "analytics.reports", "log.format"}

// Adopt returns what a running agent makes of a configuration that it has loaded: the
// same, but for what only a restart changes. restart lists the keys of that, and changed
// those of what does change; both in the order of the struct. A list is one key.
func Adopt(running, loaded Config) (next Config, changed, restart []string) {
	next = loaded
	compare(reflect.ValueOf(&running).Elem(), reflect.ValueOf(&next).Elem(), "", func(key string, before, after reflect.Value) {
		listed := slices.ContainsFunc(needsRestart, func(of string) bool { return key == of || strings.HasPrefix(key, of+".") })
		// Analytics begins, and ends, with the agent.
		if listed || key == "analytics.definitions" && (before.String() == "" || after.String() == "") {
			restart = append(restart, key)
			after.Set(before)
			return
		}
		changed = append(changed, key)
	})
	return next, changed, restart
}

// compare calls differ for each key whose values differ.
func compare(a, b reflect.Value, path string, differ func(key string, a, b reflect.Value)) {
	if a.Kind() != reflect.Struct {
		if !reflect.DeepEqual(a.Interface(), b.Interface()) {
			differ(path, a, b)
		}
		return
	}
	for i := range a.NumField() {
		name, options, _ := strings.Cut(a.Type().Field(i).Tag.Get("yaml"), ",")
		switch {
		case name == "-": // set by the wiring
		case options == "squash":
			compare(a.Field(i), b.Field(i), path, differ)
		default:
			compare(a.Field(i), b.Field(i), join(path, name), differ)
		}
	}
}

// Outcome is what became of an attempt to load the configuration anew.
type Outcome uint8

// The outcomes. Their names are values of the tag "result" on weir's own metrics.
const (
	Applied   Outcome = iota // it is in force, but for what needs a restart
	Unchanged                // it says what is in force
	Rejected                 // it cannot be used, and nothing has changed
	outcomes
)

// String returns the outcome's name.
func (o Outcome) String() string { return [outcomes]string{"applied", "unchanged", "rejected"}[o] }

// State says how what is in force compares with what is configured.
type State struct {
	Loaded  time.Time // when what is in force was loaded
	Stale   bool      // what is configured now cannot be used
	Fault   string    // why, without secrets
	Since   time.Time // for how long that has been so; zero if it is not
	Restart []string  // keys that were changed and need a restart
}

// Reloads keeps account of what became of the configuration while the agent ran.
type Reloads struct {
	mu     sync.Mutex // guards the fields below
	state  State
	counts [outcomes]uint64
}

// NewReloads returns the account of an agent that has just started.
func NewReloads() *Reloads { return &Reloads{state: State{Loaded: time.Now()}} }

// Succeeded notes that the configuration could be used.
func (r *Reloads) Succeeded(o Outcome, restart []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[o]++
	loaded := r.state.Loaded
	if o == Applied {
		loaded = time.Now()
	}
	r.state = State{Loaded: loaded, Restart: slices.Clone(restart)}
}

// Failed notes that it could not, and why.
func (r *Reloads) Failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[Rejected]++
	if !r.state.Stale {
		r.state.Since = time.Now()
	}
	r.state.Stale, r.state.Fault = true, err.Error()
}

// State returns a snapshot.
func (r *Reloads) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Restart = slices.Clone(s.Restart)
	return s
}

// Readings appends the agent's own metrics about its configuration to dst.
func (r *Reloads) Readings(dst []metric.Reading) []metric.Reading {
	r.mu.Lock()
	defer r.mu.Unlock()
	for o, n := range r.counts {
		dst = append(dst, metric.Reading{Name: "config.reloads", Tags: []string{"result:" + Outcome(o).String()}, Value: float64(n)})
	}
	stale := 0.0
	if r.state.Stale {
		stale = 1
	}
	return append(dst,
		metric.Reading{Name: "config.stale", Value: stale, Level: true},
		metric.Reading{Name: "config.restart_needed", Value: float64(len(r.state.Restart)), Level: true})
}
