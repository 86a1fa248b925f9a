package main

import "github.com/spf13/cobra"

// newEventsCommand is `weir events`.
func newEventsCommand(configFile *string) *cobra.Command {
	command := &cobra.Command{
		Use:   "events",
		Short: "Analytics events: what they amount to",
		Args:  cobra.NoArgs,
	}
	command.AddCommand(newReportCommand(configFile))
	return command
}
