package rules

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// Import converts the mappings of another agent into the text of a configuration with
// rules that do the same, with comments on what has no counterpart. from is one of
// ImportFormats.
func Import(from string, text []byte) (string, error) {
	var w importWriter
	var err error
	switch from {
	case "datadog":
		err = w.datadog(text)
	case "statsd_exporter":
		err = w.statsdExporter(text)
	default:
		return "", fmt.Errorf("there is no format %q; use %s", from, strings.Join(ImportFormats, " or "))
	}
	if err != nil {
		return "", err
	}
	if w.rules == 0 {
		w.line("rules: []")
	}
	return w.text.String(), nil
}

// ImportFormats are the formats that Import reads.
var ImportFormats = []string{"datadog", "statsd_exporter"}

// importWriter writes the configuration.
type importWriter struct {
	text  strings.Builder
	rules int
}

func (w *importWriter) line(text string) { w.text.WriteString(text + "\n") }

// comment writes a comment of one or more lines; what another file says may have any
// number of them.
func (w *importWriter) comment(indent, format string, args ...any) {
	for text := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		w.line(indent + "# " + strings.Map(printable, text))
	}
}

// printable keeps out of a comment what would end it, or what no YAML may hold.
func printable(r rune) rune {
	if r < ' ' || !strconv.IsPrint(r) {
		return ' '
	}
	return r
}

// rule writes a rule that has passed Validate, and otherwise what is wrong with it.
func (w *importWriter) rule(r *Rule, about string) {
	if err := (&Config{Rules: []Rule{*r}}).Validate(); err != nil {
		w.comment("  ", "not converted: %s: %v", about, err)
		return
	}
	if w.rules == 0 {
		w.line("rules:")
	}
	w.rules++
	lead := "  - "
	item := func(key, value string) {
		w.line(lead + key + ": " + value)
		lead = "    "
	}
	item("match", quoted(r.Match))
	if len(r.Kinds) > 0 {
		item("kinds", "["+strings.Join(r.Kinds, ", ")+"]")
	}
	if r.Drop {
		item("drop", "true")
	}
	for _, list := range []struct {
		key  string
		tags []string
	}{{"tags", r.Tags}, {"add_tags", r.AddTags}} {
		if len(list.tags) > 0 {
			item(list.key, "["+strings.Join(quotedAll(list.tags), ", ")+"]")
		}
	}
	if r.Name != "" {
		item("name", quoted(r.Name))
	}
	if r.Final {
		item("final", "true")
	}
}

// quoted writes a string of YAML, whatever is in it.
func quoted(text string) string {
	for _, r := range text {
		if r < ' ' || r == '\ufeff' || !strconv.IsPrint(r) {
			return strconv.QuoteToASCII(text)
		}
	}
	return "'" + strings.ReplaceAll(text, "'", "''") + "'"
}

func quotedAll(texts []string) (all []string) {
	for _, text := range texts {
		all = append(all, quoted(text))
	}
	return all
}

// segments returns the pattern for a glob in which "*" stands for anything but dots.
func segments(glob string) string {
	if !strings.Contains(glob, "*") {
		return glob
	}
	return regexPrefix + strings.ReplaceAll(regexp.QuoteMeta(glob), `\*`, `([^.]*)`)
}

// somewhere returns the pattern for names in which an expression finds something.
// whole makes a capture of what it finds.
func somewhere(re *syntax.Regexp, expression string, whole bool) string {
	opens, ends := re.Op == syntax.OpConcat && re.Sub[0].Op == syntax.OpBeginText,
		re.Op == syntax.OpConcat && re.Sub[len(re.Sub)-1].Op == syntax.OpEndText
	group := "(?:"
	if whole {
		group = "("
	}
	switch {
	case opens && ends && !whole:
		return regexPrefix + expression
	case opens && ends:
		return regexPrefix + "(" + expression + ")"
	}
	return regexPrefix + "(?s:.*?)" + group + expression + ")(?s:.*)"
}

// expansion converts a template of package regexp for an expression; shift is how many
// captures come before its own. What is no capture is nothing.
func expansion(text string, re *regexp.Regexp, shift int) string {
	return convertTemplate(text, `\$(?:\$|([A-Za-z0-9_]+)|\{([A-Za-z0-9_]+)\})`, func(name string) string {
		n, err := strconv.Atoi(name)
		switch {
		case err != nil || name[0] == '0' && len(name) > 1:
			n = re.SubexpIndex(name)
		case n > re.NumSubexp():
			n = -1
		}
		if n < 0 {
			return ""
		}
		return fmt.Sprintf("${%d}", n+shift)
	})
}

// convertTemplate replaces the references in a template, which the two groups of
// reference name, and doubles all other dollars; "$$" is one of them.
func convertTemplate(text, reference string, convert func(name string) string) string {
	var b strings.Builder
	rest := 0
	for _, at := range regexp.MustCompile(reference).FindAllStringSubmatchIndex(text, -1) {
		b.WriteString(strings.ReplaceAll(text[rest:at[0]], "$", "$$"))
		rest = at[1]
		switch {
		case at[2] >= 0:
			b.WriteString(convert(text[at[2]:at[3]]))
		case len(at) > 4 && at[4] >= 0:
			b.WriteString(convert(text[at[4]:at[5]]))
		default:
			b.WriteString("$$")
		}
	}
	b.WriteString(strings.ReplaceAll(text[rest:], "$", "$$"))
	return b.String()
}

// usesWhole reports whether one of some templates of package regexp refers to the
// whole of what was found.
func usesWhole(templates ...string) bool {
	whole := regexp.MustCompile(`\$(?:\$|0(?:[^A-Za-z0-9_]|$)|\{0\})`)
	return slices.ContainsFunc(templates, func(text string) bool {
		return slices.ContainsFunc(whole.FindAllString(text, -1), func(found string) bool { return found != "$$" })
	})
}
