package main

import "github.com/spf13/cobra"

// newEventsCommand is `weir events`.
func newEventsCommand(configFile *string) *cobra.Command {
	command := &cobra.Command{
		Use:   "events",
		Short: "Analytics events: their definitions, and what they amount to",
		Args:  cobra.NoArgs,
	}
	command.AddCommand(newReportCommand(configFile), newMonitorCommand(configFile))
	addDefinitionCommands(command, configFile)
	return command
}
