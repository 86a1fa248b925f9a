package plan

import (
	"fmt"
	"slices"
	"strings"
)

// ExportBigQuery returns what BigQuery needs to load raw events: the schema of one
// table for all events, a view for each of them with a column for each attribute, one
// without repeats, and a script that makes the table and loads files into it.
func (p *Plan) ExportBigQuery() []File {
	var fields []any
	for _, c := range Columns {
		mode := "NULLABLE"
		switch {
		case c.repeated:
			mode = "REPEATED"
		case c.required:
			mode = "REQUIRED"
		}
		fields = append(fields, new(object).set("name", c.Name).set("type", c.bigQuery).set("mode", mode).set("description", c.Description))
	}
	var views strings.Builder
	views.WriteString("-- Replace DATASET by the name of the dataset.\n\n" +
		"-- Each event once, if a file was loaded twice or a client sent it twice.\n" +
		"CREATE OR REPLACE VIEW `DATASET.events_once` AS\nSELECT * FROM `DATASET.events`\n" +
		"QUALIFY ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY received_at) = 1;\n")
	taken := []string{"events", "events_once"}
	for _, e := range p.Events {
		if e.Status != Removed {
			views.WriteByte('\n')
			e.view(&views, &taken)
		}
	}
	return []File{
		{"events.schema.json", indented(fields)},
		{"views.sql", []byte(views.String())},
		{"load.sh", []byte(bigQueryScript)},
	}
}

const bigQueryScript = `#!/bin/sh
# Makes the table of raw events, and loads the files that are named.
#
#   sh load.sh DATASET FILE.ndjson.gz...
#
# A file is loaded by a job that has its name, so that no file is loaded twice; one whose
# load failed is loaded by another job. BigQuery takes some 1,500 loads of a table a day,
# of all hosts: with many of them set analytics.raw.max_file_age to an hour or so.
set -eu
dataset=$1
shift
bq show "$dataset.events" >/dev/null 2>&1 ||
	bq mk --table --time_partitioning_type DAY --time_partitioning_field event_time \
		--clustering_fields event "$dataset.events" "$(dirname "$0")/events.schema.json"
for file in "$@"; do
	name=weir_$(printf %s "$(basename "$file" .ndjson.gz)" | tr -c 'A-Za-z0-9_-' '_')
	job=$name
	try=1
	while status=$(bq show --format json --job "$job" 2>/dev/null); do
		case $status in
		*'"errorResult"'*) ;; # it loaded nothing
		*)
			echo "$file is loaded already, by job $job"
			continue 2
			;;
		esac
		try=$((try + 1))
		job=${name}_$try
	done
	bq load --job_id "$job" --source_format NEWLINE_DELIMITED_JSON "$dataset.events" "$file"
done
`

// free returns a name that is not taken, and takes it.
func free(name string, taken *[]string) string {
	for slices.Contains(*taken, name) {
		name += "_"
	}
	*taken = append(*taken, name)
	return name
}

// view writes the view of one event, under a name that is not taken.
func (e *Event) view(b *strings.Builder, views *[]string) {
	fmt.Fprintf(b, "-- %s\n", oneLine(e.Description))
	fmt.Fprintf(b, "CREATE OR REPLACE VIEW `DATASET.%s` AS\nSELECT\n  event_id, schema_version, event_time, received_at, host, count, sample_rate, flags",
		free(strings.ReplaceAll(e.Name, ".", "__"), views))
	var columns []string
	for _, c := range Columns {
		columns = append(columns, c.Name)
	}
	for i := range e.Attributes {
		if a := &e.Attributes[i]; a.written() {
			name := a.Name
			if slices.Contains(columns[:len(Columns)], name) {
				name = "attr_" + name
			}
			fmt.Fprintf(b, ",\n  %s AS `%s`", a.sql(), free(name, &columns))
		}
	}
	fmt.Fprintf(b, "\nFROM `DATASET.events_once`\nWHERE event = '%s';\n", e.Name)
}

// sql is the expression of an attribute. A number beyond 2^53 is text in the row.
func (a *Attribute) sql() string {
	value := "JSON_VALUE(attrs, '$." + a.Name + "')"
	if a.Privacy.Kind != None && a.Privacy.Kind != "" {
		return value
	}
	switch a.Type {
	case Int:
		return "CAST(" + value + " AS INT64)"
	case Float:
		return "CAST(" + value + " AS FLOAT64)"
	case Bool:
		return "CAST(" + value + " AS BOOL)"
	case Timestamp:
		return "TIMESTAMP(" + value + ")"
	}
	return value
}

// oneLine is text without line ends, for a comment or a table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// cell is text for a cell of a table in Markdown.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", ">", "&gt;").Replace(oneLine(text))
}

// ExportMarkdown returns a dictionary of all events and metrics.
func (p *Plan) ExportMarkdown() []File {
	var b strings.Builder
	fmt.Fprintf(&b, "# Events and metrics\n\n%d events, %d metrics.\n\n## Events\n", len(p.Events), len(p.Metrics))
	counted := map[string][]string{}
	for _, m := range p.Metrics {
		for i := range m.Rules {
			name := m.Rules[i].Event.Name
			if all := counted[name]; len(all) == 0 || all[len(all)-1] != m.KeyPath {
				counted[name] = append(all, m.KeyPath)
			}
		}
	}
	for _, e := range p.Events {
		e.markdown(&b, counted[e.Name])
	}
	if len(p.Metrics) > 0 {
		b.WriteString("\n## Metrics\n")
	}
	for _, m := range p.Metrics {
		m.markdown(&b)
	}
	return []File{{"events.md", []byte(b.String())}}
}

// facts writes a line of what is known, without what is not.
func facts(b *strings.Builder, pairs ...string) {
	var known []string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			known = append(known, pairs[i]+" "+cell(pairs[i+1]))
		}
	}
	if len(known) > 0 {
		fmt.Fprintf(b, "\n%s\n", strings.Join(known, " · "))
	}
}

func (e *Event) markdown(b *strings.Builder, counted []string) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n", e.Name, cell(e.Description))
	counter := ""
	if e.Counter.Emit {
		counter = "`" + e.Counter.Name + "`"
	}
	facts(b, "status", string(e.Status), "version", e.Version.String(), "owner", e.Owner, "data", string(e.DataCategory),
		"consent", list(e.Consent), "mode", string(e.Mode), "counter", counter, "since", e.Milestone, "introduced by", e.IntroducedByURL)
	if len(e.Attributes) > 0 {
		b.WriteString("\n| attribute | type | required | role | privacy | meaning |\n|---|---|---|---|---|---|\n")
	}
	for i := range e.Attributes {
		a := &e.Attributes[i]
		kind, required := string(a.Type), ""
		if a.Type == Enum {
			kind += ": " + list(a.Values)
		}
		if a.Required {
			required = "yes"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s | %v | %s |\n", a.Name, cell(kind), required, roleText(a), a.Privacy, cell(a.Description))
	}
	if len(counted) > 0 {
		fmt.Fprintf(b, "\nCounted by `%s`.\n", strings.Join(counted, "`, `"))
	}
}

func (m *Metric) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n### %s\n\n%s\n", m.KeyPath, cell(m.Description))
	facts(b, "status", string(m.Status), "owner", m.Owner, "time frames", joinFrames(m.TimeFrames), "window", string(m.Window),
		"zone", m.Timezone, "data", string(m.DataCategory), "since", m.Milestone, "introduced by", m.IntroducedByURL)
	b.WriteString("\n")
	for i := range m.Rules {
		if i > 0 {
			fmt.Fprintf(b, "- %s ", m.Operator)
		} else {
			b.WriteString("- ")
		}
		fmt.Fprintf(b, "`%s`\n", m.Rules[i].Key())
	}
}
