package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/weir-agent/weir/analytics"
)

// newMonitorCommand is `weir events monitor`.
func newMonitorCommand(configFile *string) *cobra.Command {
	m := monitor{interval: time.Second}
	var state string
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "monitor [KEY_PATH…]",
		Short: "Watch events arrive, and what becomes of metrics",
		Long: "Watch events arrive at the running agent: how many since the start of this command, with which outcomes, and the\n" +
			"values of metrics before and now. Metrics of whole days change at midnight, unless analytics.include_today is set.",
		Example: "  weir events monitor --config weir.yaml 'usage.teams.*'",
		RunE: func(cmd *cobra.Command, patterns []string) error {
			var err error
			if m.folder, err = reportFolder(*configFile, state); err != nil {
				return err
			}
			m.patterns, m.out = patterns, cmd.OutOrStdout()
			file, isFile := m.out.(*os.File)
			m.screen = isFile && term.IsTerminal(int(file.Fd()))
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if length > 0 {
				ctx, stop = context.WithTimeout(ctx, length)
				defer stop()
			}
			return m.run(ctx)
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "the agent's state_dir (default: that of the configuration)")
	cmd.Flags().DurationVar(&length, "for", 0, "how long to watch (default: until interrupted)")
	return cmd
}

// monitor shows what changes in an agent's report.
type monitor struct {
	folder   string
	patterns []string
	interval time.Duration
	out      io.Writer
	screen   bool // out can be written over

	before *analytics.Report
	shown  string
}

// run shows the table each time it changes, until ctx is done.
func (m *monitor) run(ctx context.Context) error {
	ticker := time.NewTicker(m.interval)
	defer ticker.Stop()
	for {
		if err := analytics.Watch(m.folder); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		now, err := readReport(m.folder, m.patterns)
		if err != nil {
			return err
		}
		if err := m.show(now); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

const clearScreen = "\x1b[H\x1b[2J"

func (m *monitor) show(now *analytics.Report) error {
	if m.before == nil {
		m.before = now
	}
	var page bytes.Buffer
	if err := m.table(&page, now); err != nil {
		return err
	}
	if page.String() == m.shown {
		return nil
	}
	m.shown = page.String()
	start := fmt.Sprintf("as of %s\n\n", now.Time.Format(time.RFC3339))
	if m.screen {
		start = clearScreen + start
	}
	_, err := fmt.Fprintf(m.out, "%s%s\n", start, m.shown)
	return err
}

// table writes what is different from the first report.
func (m *monitor) table(out io.Writer, now *analytics.Report) error {
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "EVENT\tSEEN\tLAST SEEN\tOUTCOMES")
	for _, e := range now.Events {
		seen, outcomes := m.since(&e)
		last := "-"
		if e.LastSeen != nil {
			last = e.LastSeen.Format(time.TimeOnly)
		}
		fmt.Fprintf(table, "%s\t%d\t%s\t%s\n", e.Event, seen, last, dash(strings.Join(outcomes, ", ")))
	}
	fmt.Fprintln(table, "\nMETRIC\tBEFORE\tNOW\tCHANGE")
	for _, v := range now.Values {
		var earlier *float64
		for _, b := range m.before.Values {
			if b.Name == v.Name && b.Timezone == v.Timezone {
				earlier = b.Value
			}
		}
		change := "-"
		if earlier != nil && v.Value != nil {
			change = strconv.FormatFloat(*v.Value-*earlier, 'f', -1, 64)
			if *v.Value > *earlier {
				change = "+" + change
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", v.Name, number(earlier), number(v.Value), change)
	}
	return table.Flush()
}

// since returns how many lines of an event came since the first report, at least, and
// their outcomes. An agent that was started anew counts from zero.
func (m *monitor) since(e *analytics.EventReport) (seen uint64, outcomes []string) {
	var before map[string]uint64
	for _, b := range m.before.Events {
		if b.Event == e.Event {
			before = b.Outcomes
		}
	}
	for name, n := range e.Outcomes {
		if old := before[name]; old <= n {
			n -= old
		}
		if n > 0 {
			outcomes = append(outcomes, fmt.Sprintf("%s %d", name, n))
			seen = max(seen, n) // a line may have several
		}
	}
	slices.Sort(outcomes)
	return seen, outcomes
}

func number(v *float64) string {
	if v == nil || math.IsNaN(*v) {
		return "-"
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}
