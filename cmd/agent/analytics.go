package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/analytics/report"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/metric"
)

// analyticsFolder returns where analytics keeps its state.
func analyticsFolder(cfg *config.Config) (string, error) {
	folder, err := cfg.Forwarder.StateFolder(os.Getenv)
	return filepath.Join(folder, "analytics"), err
}

// loadPlan reads the definitions; nil if there are none.
func loadPlan(cfg *config.Config) (*plan.Plan, error) {
	if !cfg.Analytics.Enabled() {
		return nil, nil
	}
	p, err := plan.Load(cfg.Analytics.Definitions, cfg.Analytics.Options())
	var faults plan.Faults
	if errors.As(err, &faults) {
		return nil, fmt.Errorf("the definitions of analytics events have faults\n%w", faults)
	}
	if err != nil {
		return nil, fmt.Errorf("analytics.definitions: %w", err)
	}
	return p, nil
}

// newAnalytics reads the definitions and the counts of an earlier run; nil if there are
// no definitions.
func newAnalytics(cfg config.Config, log *slog.Logger) (*analytics.Engine, error) {
	p, err := loadPlan(&cfg)
	if p == nil || err != nil {
		return nil, err
	}
	if cfg.Analytics.StateDir, err = analyticsFolder(&cfg); err != nil {
		return nil, err
	}
	if cfg.Analytics.Raw.Dir == "" {
		cfg.Analytics.Raw.Dir = filepath.Join(filepath.Dir(cfg.Analytics.StateDir), "events")
	}
	cfg.Analytics.Host = cfg.Aggregator.Hostname
	return analytics.New(cfg.Analytics, p, log)
}

// closeAnalytics gives up an engine that is not run; e may be nil.
func closeAnalytics(e *analytics.Engine) error {
	if e == nil {
		return nil
	}
	return e.Close()
}

// connectAnalytics lets the aggregator ask about events.
func connectAnalytics(a *aggregator.Aggregator, e *analytics.Engine) {
	if e == nil {
		return
	}
	a.SetEvents(resolveBy(e), e.Gauges)
}

// resolveBy returns what makes a worker's ResolveEvent.
func resolveBy(e *analytics.Engine) func() aggregator.ResolveEvent {
	return func() aggregator.ResolveEvent {
		in := e.NewIntake()
		return func(id *metric.Identity, now int64) (aggregator.Event, bool) {
			o := in.Resolve(id, now)
			if o == nil {
				return nil, false
			}
			return eventOf{o}, true
		}
	}
}

// eventOf is an Occurrence as the aggregator sees it.
type eventOf struct{ *analytics.Occurrence }

// Keep implements aggregator.Event.
func (e eventOf) Keep() aggregator.Event {
	if kept := e.Occurrence.Keep(); kept != nil {
		return eventOf{kept}
	}
	return nil
}

// runAnalytics blocks until ctx is done and everything is saved.
func (a *agent) runAnalytics(ctx context.Context) {
	if a.analytics == nil {
		return
	}
	if err := a.analytics.Run(ctx); err != nil {
		a.log.Error("not all counts of analytics events were saved", "error", err)
	}
}

// runRaw blocks until ctx is done and all raw events are written.
func (a *agent) runRaw(ctx context.Context) {
	if a.analytics == nil {
		return
	}
	if err := a.analytics.RunRaw(ctx); err != nil {
		a.log.Error("not all raw events were written", "error", err)
	}
}

// newReporter returns what makes reports; nil if there are no definitions.
func newReporter(cfg config.Config, e *analytics.Engine, log *slog.Logger) (*report.Reporter, error) {
	if e == nil {
		return nil, nil
	}
	folder, err := analyticsFolder(&cfg)
	if err != nil {
		return nil, err
	}
	return report.New(cfg.Analytics.Reports, e, e.Fleet(), cfg.Aggregator.Hostname, folder, log)
}

// runReporter makes reports until ctx is done.
func (a *agent) runReporter(ctx context.Context) {
	if a.reporter != nil {
		a.reporter.Run(ctx)
	}
}

// newReportCommand is `weir events report`.
func newReportCommand(configFile *string) *cobra.Command {
	var state, format string
	command := &cobra.Command{
		Use:   "report [KEY_PATH…]",
		Short: "Print what the metrics of analytics events amount to",
		Long: "Print what the metrics of analytics events amount to, those that match one of the key paths (usage.teams.*), or all.\n" +
			"The agent writes them to its state folder every half minute.",
		RunE: func(cmd *cobra.Command, patterns []string) error {
			folder, err := reportFolder(*configFile, state)
			if err != nil {
				return err
			}
			r, err := readReport(folder, patterns)
			if err != nil {
				return err
			}
			switch format {
			case "json":
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(r)
			case "text":
				return printReport(cmd.OutOrStdout(), r)
			case report.CSV, report.Markdown, report.HTML:
				d := report.Document{Report: "report", Period: r.Time, Made: r.Time, Host: r.Host}
				for i := range r.Values {
					d.Rows = append(d.Rows, r.Values[i].Row())
				}
				_, err := cmd.OutOrStdout().Write(d.Render(format))
				return err
			}
			return fmt.Errorf("there is no format %q; use text, json, csv, md or html", format)
		},
	}
	command.Flags().StringVar(&state, "state", "", "the agent's state_dir (default: that of the configuration)")
	command.Flags().StringVar(&format, "format", "text", "text, json, csv, md or html")
	return command
}

// reportFolder returns where the agent of a configuration, or with that state_dir, keeps
// its report.
func reportFolder(configFile, state string) (string, error) {
	if state != "" {
		return filepath.Join(state, "analytics"), nil
	}
	cfg, _, err := load(configFile)
	if err != nil {
		return "", err
	}
	return analyticsFolder(&cfg)
}

// readReport reads the report, with the values of metrics that match one of the
// patterns, or of all without any.
func readReport(folder string, patterns []string) (*analytics.Report, error) {
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fmt.Errorf("%q is no pattern; write a key path such as usage.teams.*", pattern)
		}
	}
	r, err := analytics.ReadReport(folder)
	if err != nil {
		return nil, err
	}
	r.Values = slices.DeleteFunc(r.Values, func(v analytics.Value) bool {
		return len(patterns) > 0 && !slices.ContainsFunc(patterns, func(pattern string) bool {
			ok, _ := path.Match(pattern, v.KeyPath)
			return ok
		})
	})
	return r, nil
}

func printReport(out io.Writer, r *analytics.Report) error {
	fmt.Fprintf(out, "as of %s\n\n", r.Time.Format(time.RFC3339))
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "METRIC\tVALUE\tERROR\tDAYS\tREMARKS")
	for _, v := range r.Values {
		value, relative := "-", "exact"
		if v.Value != nil {
			value = strconv.FormatFloat(*v.Value, 'f', -1, 64)
		}
		if v.Error > 0 {
			relative = fmt.Sprintf("±%.1f%%", 100*v.Error)
		}
		first := "…"
		if v.First != nil {
			first = v.First.String()
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s to %s\t%s\n", v.Name, value, relative, first, v.Last, strings.Join(remarks(&v), ", "))
	}
	fmt.Fprintln(table, "\nEVENT\tLAST SEEN\tOUTCOMES")
	for _, e := range r.Events {
		seen := "-"
		if e.LastSeen != nil {
			seen = e.LastSeen.Format(time.RFC3339)
		}
		var outcomes []string
		for name, n := range e.Outcomes {
			outcomes = append(outcomes, fmt.Sprintf("%s %d", name, n))
		}
		slices.Sort(outcomes)
		fmt.Fprintf(table, "%s\t%s\t%s\n", e.Event, seen, strings.Join(outcomes, ", "))
	}
	return table.Flush()
}

// remarks is what to know of a value.
func remarks(v *analytics.Value) (all []string) {
	if len(v.Keys) > 0 {
		all = append(all, "all hosts")
	} else if !v.Emitted {
		all = append(all, "this host")
	}
	row := v.Row()
	return append(all, row.Remarks()...)
}
