package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"

	"github.com/weir-agent/weir/config"
)

// reloader loads the configuration anew while the agent runs.
type reloader struct {
	file    string
	watcher *config.Watcher // nil: there is no file
	agent   *agent
	level   *slog.LevelVar
	log     *slog.Logger

	mu      sync.Mutex // one reload at a time; guards the field below
	running config.Config
}

// run reloads on each hangup and whenever the file changes, until ctx is done.
func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) {
	var working sync.WaitGroup
	defer working.Wait()
	if r.watcher != nil {
		working.Go(func() { r.watcher.Run(ctx, r.log, func() { r.reload("the file has changed") }) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			r.reload("SIGHUP")
		}
	}
}

// reload puts what is configured now in force, or says why that cannot be.
func (r *reloader) reload(cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	loaded, warnings, err := r.load()
	if err != nil {
		r.reject(cause, err)
		return
	}
	next, changed, restart := config.Adopt(r.running, loaded)
	if len(changed) > 0 {
		if err := r.agent.apply(r.running, next); err != nil {
			r.reject(cause, err)
			return
		}
	}
	r.running = next
	level, _ := next.Log.SlogLevel() // load has seen to it
	r.level.Set(level)
	for _, warning := range warnings {
		r.log.Warn(warning)
	}
	for _, key := range restart {
		r.log.Warn(key + " changed: needs a restart; until then it is as it was")
	}
	if len(changed) == 0 {
		r.agent.reloads.Succeeded(config.Unchanged, restart)
		r.log.Info("the configuration was loaded, and nothing in it has changed", "cause", cause)
		return
	}
	r.agent.reloads.Succeeded(config.Applied, restart)
	r.log.Info("the configuration was loaded and is in force", "cause", cause, "changed", changed)
}

func (r *reloader) load() (config.Config, []string, error) {
	if info, err := os.Stat(r.file); err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return config.Config{}, nil, errors.New("the configuration is empty: somebody may be about to write it; for nothing but defaults, write {}")
	}
	return load(r.file)
}

// reject reports all faults, each in a line.
func (r *reloader) reject(cause string, err error) {
	r.agent.reloads.Failed(err)
	var faults config.Faults
	if !errors.As(err, &faults) {
		r.log.Error("the configuration cannot be used: nothing has changed", "cause", cause, "error", err)
		return
	}
	r.log.Error("the configuration cannot be used: nothing has changed", "cause", cause, "faults", len(faults))
	for _, fault := range faults {
		r.log.Error("a fault in the configuration", "fault", fault.String())
	}
}

// apply lets each room take over what has changed. Only what may fail comes first, and
// if it does nothing has changed.
func (a *agent) apply(running, next config.Config) error {
	commit := func() {}
	if !reflect.DeepEqual(running.Forwarder, next.Forwarder) {
		change, err := a.forwarder.Prepare(next.Forwarder)
		if err != nil {
			return fmt.Errorf("open what the configuration asks for: %w", err)
		}
		commit = change.Commit
	}
	if !reflect.DeepEqual(running.Aggregator, next.Aggregator) || !reflect.DeepEqual(running.Rules, next.Rules) {
		a.aggregator.Reconfigure(next.Aggregator, treatBy(next.Rules), nil)
	}
	a.guard.SetConfig(next.Cardinality)
	commit()
	return nil
}
