package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/config"
)

// definitions are the flags of commands that work on a folder of definitions, and what
// comes of them.
type definitions struct {
	configFile *string
	folder     string
	mode       string

	cfg config.Config
}

func (d *definitions) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&d.folder, "definitions", "", "the folder with events/ and metrics/ (default: analytics.definitions of the configuration)")
	cmd.Flags().StringVar(&d.mode, "mode", "", "of events without one of their own: warn or strict (default: analytics.mode of the configuration)")
}

// resolve reads the configuration and puts it where the command line says nothing.
func (d *definitions) resolve() error {
	var err error
	if d.cfg, _, err = load(*d.configFile); err != nil {
		return err
	}
	if d.folder == "" {
		d.folder = d.cfg.Analytics.Definitions
	}
	if d.mode != "" {
		d.cfg.Analytics.Mode = d.mode
		if err := d.cfg.Analytics.Validate(); err != nil {
			return err
		}
	}
	if d.folder == "" {
		return errors.New("events: there is no folder of definitions; name one with --definitions, or by analytics.definitions in the configuration")
	}
	return nil
}

// load reads the plan.
func (d *definitions) load() (*plan.Plan, error) {
	if err := d.resolve(); err != nil {
		return nil, err
	}
	p, err := plan.Load(d.folder, d.cfg.Analytics.Options())
	return p, faultsOf(err)
}

// faultsOf puts the number of faults before them.
func faultsOf(err error) error {
	var faults plan.Faults
	if !errors.As(err, &faults) {
		return err
	}
	return fmt.Errorf("%s in the definitions\n%w", plural(len(faults), "fault"), faults)
}

func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// addDefinitionCommands adds the commands of `weir events` that work on definitions.
func addDefinitionCommands(events *cobra.Command, configFile *string) {
	for _, makeCommand := range []func(*definitions) *cobra.Command{
		newNewCommand, newListCommand, newLintCommand, newDiffCommand, newImportCommand, newExportCommand, newSnippetCommand, newTestCommand,
	} {
		d := &definitions{configFile: configFile}
		cmd := makeCommand(d)
		d.flags(cmd)
		events.AddCommand(cmd)
	}
}

// newNewCommand is `weir events new`.
func newNewCommand(d *definitions) *cobra.Command {
	var draft plan.Draft
	var clients []string
	var dry bool
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Define an event and what is counted of it, and print code that records it",
		Long: "Define an event and what is counted of it, and print code that records it.\n" +
			"On a terminal it asks for what the flags leave open.",
		Example: `  weir events new --event team.created --description 'Somebody created a team in an organization.' \
    --owner growth --url https://git.example.com/shop/pulls/71 \
    --attr user_id:int:required --attr organization_id:int --attr 'plan:enum(free|pro)' \
    --unique user.id,organization.id --time-frames 7d,28d`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := d.resolve(); err != nil {
				return err
			}
			p, err := plan.LoadForChange(d.folder, d.cfg.Analytics.Options())
			if err != nil {
				return faultsOf(err)
			}
			for _, client := range clients {
				if !slices.Contains(plan.Clients, client) {
					return fmt.Errorf("client: there is no %q; use %s", client, strings.Join(plan.Clients, ", "))
				}
			}
			missing := draft.Event == "" || draft.Description == "" || draft.Owner == "" || draft.URL == ""
			if missing && term.IsTerminal(int(os.Stdin.Fd())) {
				if err := p.Ask(&draft, cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			files, event, err := p.Make(draft)
			if err != nil {
				return fmt.Errorf("the event is not defined\n%w", err)
			}
			if !dry {
				if err := plan.WriteFiles(d.folder, files, false); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			printFiles(out, d.folder, files, dry)
			for _, client := range clients {
				printSnippet(out, event, client, d.prefix())
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&draft.Event, "event", "", "name: what is done to what, such as team.created")
	f.StringVar(&draft.Description, "description", "", "who does what, and when it is sent; 20 characters or more")
	f.StringVar(&draft.Owner, "owner", "", "the team that knows what it means")
	f.StringVar(&draft.URL, "url", "", "of the change that introduces it")
	f.StringVar(&draft.Milestone, "milestone", "", "the release it comes with")
	f.StringVar(&draft.DataCategory, "data-category", "", strings.Join(plan.DataCategories, ", ")+" (default optional)")
	f.StringArrayVar(&draft.Attributes, "attr", nil, "an attribute, NAME[:TYPE][:required][:ROLE], an enum as NAME:enum(one|two); again for each")
	f.StringSliceVar(&draft.Unique, "unique", nil, "count who did it: identities such as user.id, a metric for each")
	f.StringSliceVar(&draft.Sum, "sum", nil, "add up these attributes, a metric for each")
	f.BoolVar(&draft.Total, "total", false, "count how often it happens")
	f.StringSliceVar(&draft.TimeFrames, "time-frames", nil, "of the metrics: 1d, 7d, 28d, week, month, all (default 7d,28d)")
	f.StringVar(&draft.KeyPath, "key-path", "", "name of the metric, if there is one only")
	f.StringSliceVar(&clients, "client", plan.Clients, "print code for these clients")
	f.BoolVar(&dry, "dry-run", false, "print the files, and write none")
	return cmd
}

// prefix is what names of events begin with on the wire.
func (d *definitions) prefix() string { return d.cfg.Analytics.Prefixes[0] }

func printFiles(out io.Writer, folder string, files []plan.File, whole bool) {
	for _, f := range files {
		if whole {
			fmt.Fprintf(out, "==> %s/%s <==\n%s\n", strings.TrimSuffix(folder, "/"), f.Name, f.Text)
		} else {
			fmt.Fprintf(out, "wrote %s/%s\n", strings.TrimSuffix(folder, "/"), f.Name)
		}
	}
}

func printSnippet(out io.Writer, e *plan.Event, client, prefix string) {
	fmt.Fprintf(out, "\n%s (%s):\n\n", client, plan.SnippetNeeds(client))
	for line := range strings.Lines(e.Snippet(client, prefix)) {
		if line != "\n" {
			line = "    " + line
		}
		fmt.Fprint(out, line)
	}
}

// newSnippetCommand is `weir events snippet`.
func newSnippetCommand(d *definitions) *cobra.Command {
	var clients []string
	cmd := &cobra.Command{
		Use:   "snippet EVENT",
		Short: "Print code that records an event",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := d.load()
			if err != nil {
				return err
			}
			e := p.Event(args[0])
			if e == nil {
				return fmt.Errorf("there is no event %q; weir events list shows all", args[0])
			}
			for _, client := range clients {
				if !slices.Contains(plan.Clients, client) {
					return fmt.Errorf("client: there is no %q; use %s", client, strings.Join(plan.Clients, ", "))
				}
				printSnippet(cmd.OutOrStdout(), e, client, d.prefix())
			}
			return nil
		},
	}
	cmd.Flags().StringSliceVar(&clients, "client", plan.Clients, "print code for these clients")
	return cmd
}

// newListCommand is `weir events list`.
func newListCommand(d *definitions) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List events and metrics",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := d.load()
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "EVENT\tVERSION\tSTATUS\tOWNER\tATTRIBUTES")
			for _, e := range p.Events {
				var names []string
				for i := range e.Attributes {
					name := e.Attributes[i].Name
					if e.Attributes[i].Required {
						name += "*"
					}
					names = append(names, name)
				}
				fmt.Fprintf(table, "%s\t%v\t%s\t%s\t%s\n", e.Name, e.Version, e.Status, dash(e.Owner), dash(strings.Join(names, " ")))
			}
			if len(p.Metrics) > 0 {
				fmt.Fprintln(table, "\nMETRIC\tTIME FRAMES\tSTATUS\tOWNER\tOF")
			}
			for _, m := range p.Metrics {
				var frames, rules []string
				for _, frame := range m.TimeFrames {
					frames = append(frames, string(frame))
				}
				for i := range m.Rules {
					rules = append(rules, m.Rules[i].Key())
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", m.KeyPath, strings.Join(frames, " "), m.Status, dash(m.Owner), strings.Join(rules, " "+string(m.Operator)+" "))
			}
			return table.Flush()
		},
	}
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// newLintCommand is `weir events lint`.
func newLintCommand(d *definitions) *cobra.Command {
	return &cobra.Command{
		Use:   "lint",
		Short: "Check definitions against the rules that keep them useful; exit code 1 on errors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := d.load()
			if err != nil {
				return err
			}
			errs, warnings := 0, 0
			for _, finding := range p.Lint() {
				severity := "warning"
				if finding.Error {
					severity = "error"
					errs++
				} else {
					warnings++
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %v\n", severity, finding.Fault)
			}
			if errs > 0 {
				return fmt.Errorf("lint: %s, %s", plural(errs, "error"), plural(warnings, "warning"))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s and %s are sound; %s\n", plural(len(p.Events), "event"), plural(len(p.Metrics), "metric"), plural(warnings, "warning"))
			return nil
		},
	}
}

// newDiffCommand is `weir events diff`.
func newDiffCommand(d *definitions) *cobra.Command {
	return &cobra.Command{
		Use:   "diff DIR",
		Short: "Say what is different from the definitions in DIR, the published ones; exit code 1 if it breaks something",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := d.load()
			if err != nil {
				return err
			}
			before, err := plan.Load(args[0], d.cfg.Analytics.Options())
			if err != nil {
				return faultsOf(err)
			}
			breaking := 0
			for _, change := range p.Diff(before) {
				fmt.Fprintln(cmd.OutOrStdout(), change)
				if change.Breaking {
					breaking++
				}
			}
			if breaking > 0 {
				return fmt.Errorf("diff: %s", plural(breaking, "breaking change"))
			}
			return nil
		},
	}
}

// newImportCommand is `weir events import`.
func newImportCommand(d *definitions) *cobra.Command {
	sources := map[string]func(string) (*plan.Imported, error){"gitlab": plan.ImportGitLab, "sentry": plan.ImportSentry}
	var replace bool
	cmd := &cobra.Command{
		Use:       "import gitlab|sentry DIR",
		Short:     "Make definitions of GitLab's internal events, or of Sentry's classes of events, below DIR",
		Args:      cobra.ExactArgs(2),
		ValidArgs: []string{"gitlab", "sentry"},
		RunE: func(cmd *cobra.Command, args []string) error {
			from := sources[args[0]]
			if from == nil {
				return fmt.Errorf("import: there is no source %q; use gitlab or sentry", args[0])
			}
			if err := d.resolve(); err != nil {
				return err
			}
			got, err := from(args[1])
			if err != nil {
				return err
			}
			if err := writeImported(d, got.Files, replace); err != nil {
				return err
			}
			for _, note := range got.Notes {
				fmt.Fprintf(cmd.OutOrStdout(), "note: %s\n", note)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "wrote %s and %s to %s\n", plural(got.Events, "event"), plural(got.Metrics, "metric"), d.folder)
			return nil
		},
	}
	cmd.Flags().BoolVar(&replace, "replace", false, "write over definitions that are there already")
	return cmd
}

// writeImported writes definitions, unless there would be faults with those in the folder.
func writeImported(d *definitions, files []plan.File, replace bool) error {
	err := plan.CheckFiles(d.folder, files, d.cfg.Analytics.Options())
	var faults plan.Faults
	if errors.As(err, &faults) {
		return fmt.Errorf("import: nothing is written, since there would be faults with what is in %s; name another folder\n%w", d.folder, faults)
	}
	if err == nil {
		err = plan.WriteFiles(d.folder, files, replace)
	}
	if err != nil {
		return fmt.Errorf("import: nothing is written; name another folder, or write over these with --replace\n%w", err)
	}
	return nil
}

// newExportCommand is `weir events export`.
func newExportCommand(d *definitions) *cobra.Command {
	forms := map[string]func(*plan.Plan) []plan.File{
		"jsonschema": (*plan.Plan).ExportJSONSchema, "bigquery": (*plan.Plan).ExportBigQuery, "markdown": (*plan.Plan).ExportMarkdown,
	}
	var to string
	cmd := &cobra.Command{
		Use:       "export jsonschema|bigquery|markdown",
		Short:     "Write JSON Schemas of raw events, BigQuery's schema, views and script for them, or a dictionary",
		Args:      cobra.ExactArgs(1),
		ValidArgs: []string{"jsonschema", "bigquery", "markdown"},
		RunE: func(cmd *cobra.Command, args []string) error {
			form := forms[args[0]]
			if form == nil {
				return fmt.Errorf("export: there is no form %q; use jsonschema, bigquery or markdown", args[0])
			}
			p, err := d.load()
			if err != nil {
				return err
			}
			files := form(p)
			switch {
			case to != "":
				if err := plan.WriteFiles(to, files, true); err != nil {
					return fmt.Errorf("export: %w", err)
				}
				printFiles(cmd.OutOrStdout(), to, files, false)
			case len(files) == 1:
				_, err = cmd.OutOrStdout().Write(files[0].Text)
			default:
				for _, f := range files {
					fmt.Fprintf(cmd.OutOrStdout(), "==> %s <==\n%s", f.Name, f.Text)
				}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&to, "out", "", "a folder to write the files to (default: standard output)")
	return cmd
}
