package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/config"
)

// reloader loads the configuration, and the definitions of analytics events with it, anew
// while the agent runs.
type reloader struct {
	file    string
	watcher *config.Watcher // nil: there is no file
	agent   *agent
	level   *slog.LevelVar
	log     *slog.Logger
	moved   chan struct{} // the definitions are in another folder; holds one

	mu      sync.Mutex // one reload at a time; guards the field below
	running config.Config
}

// run reloads on each hangup and whenever the file or a definition changes, until ctx is
// done.
func (r *reloader) run(ctx context.Context, hangups <-chan os.Signal) {
	var working sync.WaitGroup
	defer working.Wait()
	if r.watcher != nil {
		working.Go(func() { r.watcher.Run(ctx, r.log, func() { r.reload("the file has changed") }) })
	}
	working.Go(func() { r.watchDefinitions(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			r.reload("SIGHUP")
		}
	}
}

// watchDefinitions reloads whenever a definition changes, until ctx is done.
func (r *reloader) watchDefinitions(ctx context.Context) {
	for ctx.Err() == nil {
		r.mu.Lock()
		folder := r.running.Analytics.Definitions
		r.mu.Unlock()
		watching, stop := context.WithCancel(ctx)
		var watch sync.WaitGroup
		if folder != "" {
			watch.Go(func() { config.NewFolderWatcher(folder).Run(watching, r.log, r.lookAtDefinitions) })
		}
		select {
		case <-ctx.Done():
		case <-r.moved:
		}
		stop()
		watch.Wait()
	}
}

// lookAtDefinitions reloads if the definitions are not those in force. Files may be
// touched and be what they were.
func (r *reloader) lookAtDefinitions() {
	r.mu.Lock()
	p, err := r.agent.changedPlan(&r.running)
	r.mu.Unlock()
	if p != nil || err != nil {
		r.reload("a definition has changed")
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
	p, err := r.agent.changedPlan(&next)
	if err != nil {
		r.reject(cause, err)
		return
	}
	if p != nil && !slices.Contains(changed, definitionsKey) {
		changed = append(changed, definitionsKey)
	}
	if len(changed) > 0 {
		if err := r.agent.apply(r.running, next, p); err != nil {
			r.reject(cause, err)
			return
		}
	}
	if next.Analytics.Definitions != r.running.Analytics.Definitions {
		select {
		case r.moved <- struct{}{}:
		default:
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
	if r.agent.memory != nil {
		r.agent.memory.warnIfShort(&r.running, r.agent.listener, r.log)
	}
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
	const nothing = "the configuration cannot be used: nothing has changed"
	var faults config.Faults
	var inDefinitions plan.Faults
	switch {
	case errors.As(err, &faults):
		r.log.Error(nothing, "cause", cause, "faults", len(faults))
		for _, fault := range faults {
			r.log.Error("a fault in the configuration", "fault", fault.String())
		}
	case errors.As(err, &inDefinitions):
		r.log.Error(nothing, "cause", cause, "faults", len(inDefinitions))
		for _, fault := range inDefinitions {
			r.log.Error("a fault in a definition", "fault", fault.String())
		}
	default:
		r.log.Error(nothing, "cause", cause, "error", err)
	}
}

const definitionsKey = "analytics.definitions"

// changedPlan reads the definitions; nil if they, and what is configured of them, are
// what is in force, or if there are none.
func (a *agent) changedPlan(cfg *config.Config) (*plan.Plan, error) {
	if a.analytics == nil {
		return nil, nil
	}
	p, err := loadPlan(cfg)
	if err != nil || a.analytics.Counts(cfg.Analytics, p) {
		return nil, err
	}
	return p, nil
}

// apply lets each room take over what has changed. Only what may fail comes first, and
// if it does nothing has changed. p is the definitions, nil if they are what is in force.
func (a *agent) apply(running, next config.Config, p *plan.Plan) error {
	commit, count, settle := func() {}, func() {}, func() {}
	if p != nil {
		change, err := a.analytics.Prepare(next.Analytics, p)
		if err != nil {
			return fmt.Errorf("count by other definitions: %w", err)
		}
		count, settle = change.Commit, change.Settle
	}
	if !reflect.DeepEqual(running.Forwarder, next.Forwarder) {
		change, err := a.forwarder.Prepare(next.Forwarder)
		if err != nil {
			return fmt.Errorf("open what the configuration asks for: %w", err)
		}
		commit = change.Commit
	}
	if p != nil || !reflect.DeepEqual(running.Aggregator, next.Aggregator) || !reflect.DeepEqual(running.Rules, next.Rules) {
		a.aggregator.Reconfigure(next.Aggregator, treatBy(next.Rules), count)
	}
	a.guard.SetConfig(next.Cardinality)
	commit()
	settle()
	return nil
}
