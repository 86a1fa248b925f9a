// Command weir is a host agent for StatsD and DogStatsD traffic: it receives,
// aggregates and forwards metrics to Datadog or to logs.
//
// In: command line, configuration, signals. Out: an exit code. It wires the rooms
// together and holds nothing else.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/weir-agent/weir/config"
)

// version is what `weir version` and the intake are told; releases set it at link
// time.
var version = "0.1.0-dev"

// Exit codes.
const (
	exitFault = 1 // could not start, or stopped for a fault
	exitLost  = 2 // stopped as told, but not everything was delivered
)

// errLost ends the agent with exitLost.
var errLost = errors.New("stopped before everything was delivered")

func main() {
	err := newCommand().Execute()
	switch {
	case err == nil:
	case errors.Is(err, errLost):
		os.Exit(exitLost) // the final account has said what
	default:
		fmt.Fprintf(os.Stderr, "weir: %v\n", err)
		os.Exit(exitFault)
	}
}

func newCommand() *cobra.Command {
	var configFile string
	root := &cobra.Command{
		Use:           "weir",
		Short:         "A host agent for StatsD and DogStatsD traffic",
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(*cobra.Command, []string) error { return run(configFile) },
	}
	root.PersistentFlags().StringVar(&configFile, "config", "", "the configuration, a YAML file (default: none)")
	root.AddCommand(
		&cobra.Command{
			Use:   "run",
			Short: "Run the agent until SIGTERM or SIGINT (also what weir does without a command)",
			Args:  cobra.NoArgs,
			RunE:  root.RunE,
		},
		newCheckCommand(&configFile),
		newSendCommand(&configFile),
		newExplainCommand(&configFile),
		newRulesCommand(),
		newEventsCommand(&configFile),
		&cobra.Command{
			Use:   "version",
			Short: "Print the version",
			Args:  cobra.NoArgs,
			Run: func(cmd *cobra.Command, _ []string) {
				fmt.Fprintf(cmd.OutOrStdout(), "weir %s (%s%s, %s/%s)\n", version, runtime.Version(), revision(), runtime.GOOS, runtime.GOARCH)
			},
		},
	)
	return root
}

// revision returns ", commit abc…" if the build knows it.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return ", commit " + s.Value[:min(12, len(s.Value))]
		}
	}
	return ""
}

// load reads the configuration. Its faults become the error, one a line.
func load(file string) (config.Config, []string, error) {
	cfg, warnings, err := config.Load(file)
	var faults config.Faults
	if errors.As(err, &faults) {
		noun := "faults"
		if len(faults) == 1 {
			noun = "fault"
		}
		return cfg, nil, fmt.Errorf("%d %s in the configuration\n%w", len(faults), noun, faults)
	}
	return cfg, warnings, err
}
