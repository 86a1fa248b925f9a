package main

import (
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// newTestCommand is `weir events test`.
func newTestCommand(d *definitions) *cobra.Command {
	var lines parser.Config
	cmd := &cobra.Command{
		Use:   "test LINE...",
		Short: "Say what becomes of lines that are events; exit code 1 unless all is well with them",
		Example: `  weir events test 'analytics.team.created:1|c|#user_id:1,plan:pro'
  weir events test --tag-style influx 'analytics.team.created,user_id=1:1|c'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, all []string) error {
			p, err := d.load()
			if err != nil {
				return err
			}
			cfg := lines.Or(d.cfg.Parser)
			if err := cfg.Validate(); err != nil {
				return err
			}
			faulty := 0
			for i, line := range all {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				if !testLine(cmd.OutOrStdout(), p, parser.New(cfg), d.cfg.Analytics.Prefixes, line) {
					faulty++
				}
			}
			if faulty > 0 {
				return fmt.Errorf("test: something is wrong with %d of %s", faulty, plural(len(all), "line"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&lines.Dialect, "dialect", "", "of the listener the lines would come to (default: that of the configuration)")
	cmd.Flags().StringVar(&lines.TagStyle, "tag-style", "", "of the listener the lines would come to (default: that of the configuration)")
	return cmd
}

// testLine writes what becomes of a line, and reports whether nothing is wrong.
func testLine(out io.Writer, p *plan.Plan, reader *parser.Parser, prefixes []string, line string) bool {
	fmt.Fprintln(out, visible([]byte(line)).text)
	var read metric.Lines
	reader.Packet([]byte(line), false, &read)
	for why, n := range read.Rejected {
		if n > 0 {
			fmt.Fprintf(out, "  rejected: %s; weir explain says where\n", metric.Reason(why))
			return false
		}
	}
	if len(read.Samples) == 0 {
		fmt.Fprintln(out, "  it is no metric, and an event is a counter")
		return false
	}
	good := true
	for i := range read.Samples {
		good = testSample(out, p, reader, prefixes, &read.Samples[i]) && good
	}
	return good
}

func testSample(out io.Writer, p *plan.Plan, reader *parser.Parser, prefixes []string, s *metric.Sample) bool {
	var id metric.Identity
	if why := reader.Describe(s, &id); why != metric.Accepted {
		fmt.Fprintf(out, "  rejected: %s; weir explain says where\n", why)
		return false
	}
	name, found := cutPrefix(&id, prefixes)
	if !found {
		fmt.Fprintf(out, "  no event: its name begins with none of %s\n", strings.Join(prefixes, ", "))
		return false
	}
	var r plan.Result
	p.Check([]byte(name), &id, &r)
	countable := s.Value >= 1 && s.Value == math.Trunc(s.Value)
	writeResult(out, &r, countable)
	return r.Has(plan.OK) && countable
}

// cutPrefix returns what follows the longest of the prefixes that a name has.
func cutPrefix(id *metric.Identity, prefixes []string) (name string, found bool) {
	for _, prefix := range prefixes {
		rest, has := strings.CutPrefix(string(id.Name), prefix)
		if has && rest != "" && (!found || len(rest) < len(name)) {
			name, found = rest, true
		}
	}
	return name, found
}

func writeResult(out io.Writer, r *plan.Result, countable bool) {
	verdicts := map[plan.Verdict]string{
		plan.Count: "it counts", plan.Unplanned: "it counts as an event that nobody planned, and goes to the dead letters",
		plan.Refuse: "it does not count, and goes to the dead letters", plan.Deny: "it does not count, and nothing of it is written",
	}
	verdict := r.Verdict
	if !countable && (verdict == plan.Count || verdict == plan.Unplanned) {
		verdict = plan.Refuse
	}
	fmt.Fprintf(out, "  %s\n", verdicts[verdict])
	if !countable {
		fmt.Fprintf(out, "  %s: an event happens 1 time, 2 times and so on\n", plan.BadCount)
	}
	for _, v := range r.Violations {
		fmt.Fprintf(out, "  %s: %s\n", v.Outcome, r.Explain(v))
	}
	for i := range r.Values {
		a := &r.Event.Attributes[i]
		if v := &r.Values[i]; !v.Null() {
			fmt.Fprintf(out, "  %s = %s (%s %s)\n", a.Name, visible(v.Text).text, a.Type, a.Role)
		}
	}
	for _, x := range r.Extra {
		fmt.Fprintf(out, "  %s = %s (kept in the raw event)\n", x.Key, visible(x.Value).text)
	}
}
