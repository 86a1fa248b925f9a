package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

func newCheckCommand(configFile *string) *cobra.Command {
	var against string
	var over time.Duration
	var all bool
	command := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and report all faults at once",
		Long: `Check the configuration and report all faults at once.

With --against, lines are taken through it, from a file with one metric a line as
clients send them, and what rules and guards make of them is compared with what would be
sent without.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if over <= 0 {
				return errors.New("--over must be more than 0s")
			}
			if err := check(*configFile, cmd.OutOrStdout(), cmd.ErrOrStderr()); err != nil || against == "" {
				return err
			}
			cfg, _, err := load(*configFile)
			if err != nil {
				return err
			}
			c, err := compare(against, cfg, over)
			if err != nil {
				return err
			}
			return c.write(cmd.OutOrStdout(), against, all)
		},
	}
	command.Flags().StringVar(&against, "against", "", "a `file` of lines to take through the configuration")
	command.Flags().DurationVar(&over, "over", 10*time.Minute, "how long the lines of the file took to come")
	command.Flags().BoolVar(&all, "all", false, "show every metric, not only those with the largest difference")
	return command
}

// check loads the configuration as run does, and reports.
func check(file string, out, warn io.Writer) error {
	cfg, warnings, err := load(file)
	if err != nil {
		return err
	}
	if _, err := loadPlan(&cfg); err != nil {
		return err
	}
	for _, warning := range warnings {
		fmt.Fprintln(warn, "weir: "+warning)
	}
	what := file
	if what == "" {
		what = "the configuration (no file)"
	}
	fmt.Fprintf(out, "%s is valid\n", what)
	return nil
}
