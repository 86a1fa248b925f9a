package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-agent/weir/rules"
)

// newRulesCommand returns `weir rules …`.
func newRulesCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "rules", Short: "Work with rules"}
	var from string
	convert := &cobra.Command{
		Use:   "import --from FORMAT FILE",
		Short: "Convert the mappings of another agent to rules, on standard output",
		Example: `  weir rules import --from datadog /etc/datadog-agent/datadog.yaml
  weir rules import --from statsd_exporter mapping.yaml`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := os.ReadFile(args[0])
			if err != nil {
				return fmt.Errorf("rules import: %w", err)
			}
			converted, err := rules.Import(from, text)
			if err != nil {
				return fmt.Errorf("rules import: %s: %w", args[0], err)
			}
			fmt.Fprint(cmd.OutOrStdout(), converted)
			return nil
		},
	}
	convert.Flags().StringVar(&from, "from", "", "format of the file: "+strings.Join(rules.ImportFormats, " or "))
	_ = convert.MarkFlagRequired("from") // it is there
	cmd.AddCommand(convert)
	return cmd
}
