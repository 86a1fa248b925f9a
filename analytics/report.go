package analytics

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/internal/diskio"
)

// Report is what the engine has counted, as it stands in a file beside the counts. The
// file of counts itself has one reader at a time, which is the agent.
type Report struct {
	Time   time.Time     `json:"time"`
	Host   string        `json:"host"`
	Values []Value       `json:"values"`
	Events []EventReport `json:"events"`

	Records int `json:"records"` // in the file of counts
}

// EventReport is what became of the lines of one event since the agent started.
type EventReport struct {
	Event    string            `json:"event"`
	LastSeen *time.Time        `json:"last_seen"` // nil: not since the agent started
	Outcomes map[string]uint64 `json:"outcomes"`
}

const reportName = "report.json"

func (e *Engine) report(now time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := Report{Time: now.UTC(), Host: e.cfg.Host, Values: slices.Concat(e.Values(), e.fleetValues(time.Now())), Events: []EventReport{}, Records: e.store.records}
	for _, ev := range e.generation.Load().books {
		one := EventReport{Event: ev.name, Outcomes: map[string]uint64{}}
		if at := ev.lastSeen.Load(); at != 0 {
			t := time.Unix(at, 0).UTC()
			one.LastSeen = &t
		}
		for o := range plan.Outcomes {
			if n := ev.outcomes[o].Load(); n > 0 {
				one.Outcomes[o.String()] = n
			}
		}
		r.Events = append(r.Events, one)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic("BUG: a report cannot be written as JSON: " + err.Error())
	}
	err = diskio.WriteFile(filepath.Join(e.cfg.StateDir, reportName), text)
	if err != nil && !e.unreported {
		e.log.Error("the report cannot be written", "error", err)
	}
	e.unreported = err != nil
}

const (
	watchName = "watch"
	// lookEvery is how often the engine looks whether somebody watches.
	lookEvery = time.Second
	// watchedFor is how long after the last Watch somebody still does.
	watchedFor = 5 * time.Second
)

// Watch tells the agent that keeps its counts in folder that somebody watches its
// report: for the next seconds it is written every second.
func Watch(folder string) error {
	path := filepath.Join(folder, watchName)
	now := time.Now()
	if err := os.Chtimes(path, now, now); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("watch an agent: %w", err)
	}
	return file.Close()
}

// showWatchers writes the report if somebody watches.
func (e *Engine) showWatchers(now time.Time) {
	info, err := os.Stat(filepath.Join(e.cfg.StateDir, watchName))
	if err != nil || now.Sub(info.ModTime()) > watchedFor {
		return
	}
	e.drain(now)
	e.compute(now)
	e.report(now)
}

// ReadReport returns the report of the agent that keeps its counts in folder.
func ReadReport(folder string) (*Report, error) {
	text, err := os.ReadFile(filepath.Join(folder, reportName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no report in %s: no agent with analytics.definitions has run for half a minute with this state_dir", folder)
	}
	if err != nil {
		return nil, fmt.Errorf("read the report: %w", err)
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("read the report: %w", err)
	}
	return &r, nil
}
