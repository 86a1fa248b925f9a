package plan

import (
	"fmt"
	"strconv"
	"strings"
)

// Clients are the clients that Snippet knows, by the name of the language and, where
// there are several, the client's.
var Clients = []string{"go", "python", "python-statsd", "ruby", "javascript"}

// Snippet returns code that records an event with one of Clients, with an example of
// each attribute's value. prefix is that of analytics events.
func (e *Event) Snippet(client, prefix string) string {
	s := &snippet{event: e, name: prefix + e.Name}
	switch client {
	case "go":
		return s.golang()
	case "python":
		return s.python()
	case "python-statsd":
		return s.pythonStatsd()
	case "ruby":
		return s.ruby()
	case "javascript":
		return s.javascript()
	}
	return ""
}

var snippetComments = map[string]string{
	"go":            "github.com/DataDog/datadog-go/v5/statsd; use New",
	"python":        "pip: datadog; the code needs statsd from it",
	"python-statsd": "pip: statsd; the listener needs tag_style: influx",
	"ruby":          "gem: dogstatsd-ruby",
	"javascript":    "npm: hot-shots",
}

type snippet struct {
	event *Event
	name  string
}

// Example returns the value of a tag that Check takes for an attribute; text is not
// escaped yet.
func (a *Attribute) Example() string {
	switch a.Type {
	case Int:
		return "42"
	case Float:
		return "9.5"
	case Bool:
		return "true"
	case Enum:
		return Escape(a.Values[0])
	case Timestamp:
		return "1795212000"
	}
	const text = "any text, of any length"
	return text[:min(len(text), a.MaxLength)]
}

// number reports whether a value is written without quotes, in any language but for
// a bool.
func (a *Attribute) number() bool { return a.Type == Int || a.Type == Float || a.Type == Timestamp }

// escaped reports whether a value must be escaped, because it can hold anything.
func (a *Attribute) escaped() bool { return a.Type == String }

func (s *snippet) anyEscaped() bool {
	for i := range s.event.Attributes {
		if s.event.Attributes[i].escaped() {
			return true
		}
	}
	return false
}

// each calls write for each attribute that is worth sending, and for the consent that
// the event needs.
func (s *snippet) each(write func(a *Attribute)) {
	for i := range s.event.Attributes {
		if a := &s.event.Attributes[i]; a.Role != Drop || a.Required {
			write(a)
		}
	}
	if granted := strings.Join(s.event.Consent, "+"); granted != "" {
		write(&Attribute{Name: "_consent", Type: Enum, Values: []string{granted}})
	}
}

// literal is an example as an expression of a language, which calls escape what
// escapes text.
func (a *Attribute) literal(escape, yes string) string {
	quoted := strconv.Quote(a.Example())
	switch {
	case a.escaped():
		return escape + "(" + quoted + ")"
	case a.Type == Bool:
		return yes
	case a.number():
		return a.Example()
	}
	return quoted
}

func (s *snippet) golang() string {
	var b strings.Builder
	if s.anyEscaped() {
		b.WriteString("// Escaped, a value survives whatever a client or a dialect does to tags.\n" +
			"escape := func(s string) string { return \"b64.\" + base64.RawURLEncoding.EncodeToString([]byte(s)) }\n\n")
	}
	fmt.Fprintf(&b, "err := client.Count(%q, 1, []string{\n", s.name)
	s.each(func(a *Attribute) {
		if a.escaped() {
			fmt.Fprintf(&b, "\t%q + escape(%q),\n", a.Name+":", a.Example())
		} else {
			fmt.Fprintf(&b, "\t%q,\n", a.Name+":"+a.Example())
		}
	})
	b.WriteString("}, 1)\n")
	return b.String()
}

const pythonEscape = `import base64


def escape(text):
    """Escaped, a value survives whatever a client or a dialect does to tags."""
    return "b64." + base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


`

func (s *snippet) python() string {
	var b strings.Builder
	if s.anyEscaped() {
		b.WriteString(pythonEscape)
	}
	fmt.Fprintf(&b, "statsd.increment(\n    %q,\n    tags=[\n", s.name)
	s.each(func(a *Attribute) {
		fmt.Fprintf(&b, "        f\"%s:{%s}\",\n", a.Name, strings.ReplaceAll(a.literal("escape", "True"), `"`, "'"))
	})
	b.WriteString("    ],\n)\n")
	return b.String()
}

// pythonStatsd writes tags into the name, as Influx does: the client knows no tags.
func (s *snippet) pythonStatsd() string {
	var b strings.Builder
	if s.anyEscaped() {
		b.WriteString(pythonEscape)
	}
	fmt.Fprintf(&b, "client.incr(\n    %q\n", s.name)
	s.each(func(a *Attribute) {
		fmt.Fprintf(&b, "    f\",%s={%s}\"\n", a.Name, strings.ReplaceAll(a.literal("escape", "True"), `"`, "'"))
	})
	b.WriteString(")\n")
	return b.String()
}

func (s *snippet) ruby() string {
	var b strings.Builder
	if s.anyEscaped() {
		b.WriteString("require 'base64'\n\n# Escaped, a value survives whatever a client or a dialect does to tags.\n" +
			"escape = ->(text) { 'b64.' + Base64.urlsafe_encode64(text, padding: false) }\n\n")
	}
	fmt.Fprintf(&b, "statsd.increment(%q, tags: [\n", s.name)
	s.each(func(a *Attribute) {
		if a.escaped() {
			fmt.Fprintf(&b, "  \"%s:#{escape.call(%s)}\",\n", a.Name, strconv.Quote(a.Example()))
		} else {
			fmt.Fprintf(&b, "  %q,\n", a.Name+":"+a.Example())
		}
	})
	b.WriteString("])\n")
	return b.String()
}

func (s *snippet) javascript() string {
	var b strings.Builder
	if s.anyEscaped() {
		b.WriteString("// Escaped, a value survives whatever a client or a dialect does to tags.\n" +
			"const escape = (text) => 'b64.' + Buffer.from(text).toString('base64url');\n\n")
	}
	fmt.Fprintf(&b, "client.increment(%q, 1, {\n", s.name)
	s.each(func(a *Attribute) {
		fmt.Fprintf(&b, "  %s: %s,\n", a.Name, a.literal("escape", "true"))
	})
	b.WriteString("});\n")
	return b.String()
}

// SnippetNeeds says in a line what the code of a client stands on.
func SnippetNeeds(client string) string { return snippetComments[client] }
