package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// rehearsal counts events by the configured definitions as the agent would, apart from
// everything that an agent has counted. nil if there are none.
type rehearsal struct {
	engine *analytics.Engine
	plan   *plan.Plan
	folder string // for its state, to be removed
}

func rehearse(cfg *config.Config) (*rehearsal, error) {
	p, err := loadPlan(cfg)
	if p == nil || err != nil {
		return nil, err
	}
	folder, err := os.MkdirTemp("", "weir-events-*")
	if err != nil {
		return nil, fmt.Errorf("make a folder for the counts of a rehearsal: %w", err)
	}
	settings := cfg.Analytics
	settings.StateDir = folder
	settings.KeyFile, settings.Keys = "", "" // whoever asks need not be able to read them
	settings.DeadLetters.Enabled = false
	e, err := analytics.New(settings, p, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(folder))
	}
	return &rehearsal{e, p, folder}, nil
}

// connect lets an aggregator ask about events, without their gauges; r may be nil.
func (r *rehearsal) connect(a *aggregator.Aggregator) {
	if r != nil {
		a.SetEvents(resolveBy(r.engine), nil)
	}
}

func (r *rehearsal) close() error {
	if r == nil {
		return nil
	}
	return errors.Join(r.engine.Close(), os.RemoveAll(r.folder))
}

// explainEvents writes what a line's metrics are as events, and what becomes of each
// before rules and guards see it, if the configuration has definitions and a name is one
// of theirs.
func explainEvents(out io.Writer, cfg *config.Config, events *rehearsal, reader *parser.Parser, packet string) {
	if events == nil {
		return
	}
	var read metric.Lines
	reader.Packet([]byte(packet), false, &read)
	for i := range read.Samples {
		s := &read.Samples[i]
		var id metric.Identity
		if reader.Describe(s, &id) != metric.Accepted {
			continue
		}
		if _, found := cutPrefix(&id, cfg.Analytics.Prefixes); !found {
			continue
		}
		fmt.Fprintf(out, "\nanalytics event %q\n", id.Name)
		testSample(out, events.plan, reader, cfg.Analytics.Prefixes, s)
		fmt.Fprintln(out, "  what it counts, and for whom, no rule and no guard changes; these see its counter")
	}
}
