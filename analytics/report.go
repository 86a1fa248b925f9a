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
)

// Report is what the engine has counted, as it stands in a file beside the counts. The
// file of counts itself has one reader at a time, which is the agent.
type Report struct {
	Time   time.Time     `json:"time"`
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
	r := Report{Time: now.UTC(), Values: slices.Concat(e.Values(), e.fleetValues(time.Now())), Events: []EventReport{}, Records: e.store.records}
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
	if err := writeFile(filepath.Join(e.cfg.StateDir, reportName), text); err != nil {
		e.log.Error("the report cannot be written", "error", err)
	}
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
