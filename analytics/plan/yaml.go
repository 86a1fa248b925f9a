package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/weir-agent/weir/internal/spelling"
)

// document is one file of definitions while it is read.
type document struct {
	file   string
	faults *faultList
}

func (d *document) fault(line int, key, format string, args ...any) {
	d.faults.add(Fault{File: d.file, Line: line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// mapping is a YAML mapping whose keys are known.
type mapping struct {
	*document
	path string
	line int
	of   map[string]*yaml.Node
	at   map[string]int // lines of the keys

	spoilt map[string]bool // keys that are there after all, in a way that is a fault
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

// root parses a file that holds one mapping with these keys; nil after a fault.
func (d *document) root(text []byte, keys []string) *mapping {
	if line := notUTF8(text); line > 0 {
		d.fault(line, "", "it is not UTF-8; save it as UTF-8")
		return nil
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var first, second yaml.Node
	err := decoder.Decode(&first)
	if errors.Is(err, io.EOF) {
		d.fault(0, "", "the file is empty; write a definition or remove it")
		return nil
	}
	if err == nil {
		if err = decoder.Decode(&second); err == nil {
			d.fault(second.Line, "", "a second document begins here (---); a file holds one definition")
			return nil
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		message, line := err.Error(), 0
		if m := yamlLine.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = yamlLine.ReplaceAllString(message, "")
		}
		d.fault(line, "", "it is not valid YAML (%s)", message)
		return nil
	}
	return d.mapping(first.Content[0], "", keys)
}

// notUTF8 returns the first line that is not UTF-8, 0 if all are. UTF-16 says what it is
// by its first bytes, and YAML may be that, too.
func notUTF8(text []byte) (line int) {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) {
		return 0
	}
	for part := range bytes.Lines(text) {
		if line++; !utf8.Valid(part) {
			return line
		}
	}
	return 0
}

// mapping checks that a node is a mapping, and its keys; any key will do if there
// are none. It is nil if the node is none.
func (d *document) mapping(node *yaml.Node, path string, keys []string) *mapping {
	if node.Kind != yaml.MappingNode {
		what := "a mapping"
		if len(keys) > 0 {
			what += " of " + strings.Join(keys, ", ")
		}
		d.fault(node.Line, path, "it takes %s", what)
		return nil
	}
	m := &mapping{document: d, path: path, line: node.Line, of: map[string]*yaml.Node{}, at: map[string]int{}, spoilt: map[string]bool{}}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := key.Value
		switch _, twice := m.at[name]; {
		case key.Kind != yaml.ScalarNode:
			d.fault(key.Line, path, "a key is a word")
		case key.Tag == "!!merge", value.Kind == yaml.AliasNode, value.Anchor != "":
			d.fault(key.Line, m.join(name), "anchors and aliases are not read here; write the value itself")
			m.spoilt[name] = true
		case twice:
			d.fault(key.Line, m.join(name), "the key is there twice; remove one")
		case len(keys) > 0 && !slices.Contains(keys, name):
			hint := "; keys are " + strings.Join(keys, ", ")
			if near := spelling.Nearest(name[:min(len(name), maxName)], keys); near != "" {
				hint = "; did you mean " + m.join(near) + "?"
				m.spoilt[near] = true
			}
			d.fault(key.Line, m.join(name), "there is no such key%s", hint)
		default:
			m.at[name] = key.Line
			if !isNull(value) {
				m.of[name] = value
			}
		}
	}
	return m
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

// join names a key for a fault.
func (m *mapping) join(key string) string {
	const longest = 80
	if len(key) > longest {
		key = key[:longest] + "…"
	}
	if m.path == "" {
		return key
	}
	return m.path + "." + key
}

// wrong reports a fault at a key, or at the mapping if the key is not there.
func (m *mapping) wrong(key, format string, args ...any) {
	line, known := m.at[key]
	if !known {
		line = m.line
	}
	m.fault(line, m.join(key), format, args...)
}

// text returns a scalar, "" if it is not there.
func (m *mapping) text(key string, longest int) string {
	node := m.of[key]
	if node == nil {
		return ""
	}
	if node.Kind != yaml.ScalarNode {
		m.wrong(key, "it takes text")
		return ""
	}
	if len(node.Value) > longest {
		m.wrong(key, "it is longer than %d bytes; shorten it", longest)
		return ""
	}
	return node.Value
}

// required is text that must be there.
func (m *mapping) required(key string, longest int) string {
	if _, there := m.of[key]; !there {
		m.missing(key, "write it")
		return ""
	}
	text := m.text(key, longest)
	if strings.TrimSpace(text) == "" && m.of[key].Kind == yaml.ScalarNode && len(m.of[key].Value) <= longest {
		m.wrong(key, "it is empty; write it")
	}
	return text
}

// missing reports that a key is not there, unless there is a fault that says why.
func (m *mapping) missing(key, remedy string) {
	if !m.spoilt[key] {
		m.wrong(key, "it is missing; %s", remedy)
	}
}

// choice returns one of a few words, or otherwise if the key is not there.
func (m *mapping) choice(key string, of []string, otherwise string) string {
	text := m.text(key, maxText)
	if text == "" {
		if node := m.of[key]; node != nil && node.Kind == yaml.ScalarNode {
			m.wrong(key, "it is empty; use %s", list(of))
		}
		return otherwise
	}
	if slices.Contains(of, text) {
		return text
	}
	if near := spelling.Nearest(text[:min(len(text), maxName)], of); near != "" {
		m.wrong(key, "there is no %q; did you mean %s?", short(text), near)
	} else {
		m.wrong(key, "there is no %q; use %s", short(text), list(of))
	}
	return otherwise
}

func (m *mapping) boolean(key string, otherwise bool) bool {
	text := m.text(key, maxText)
	switch text {
	case "true":
		return true
	case "false":
		return false
	}
	if m.of[key] != nil && m.of[key].Kind == yaml.ScalarNode {
		m.wrong(key, "%q is not true or false", short(text))
	}
	return otherwise
}

func (m *mapping) integer(key string, least, most, otherwise int) int {
	text := m.text(key, maxText)
	if m.of[key] == nil || m.of[key].Kind != yaml.ScalarNode {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		m.wrong(key, "%q is not a whole number from %d to %d", short(text), least, most)
		return otherwise
	}
	return n
}

// share returns a number from 0 to 1.
func (m *mapping) share(key string, otherwise float64) float64 {
	text := m.text(key, maxText)
	if m.of[key] == nil || m.of[key].Kind != yaml.ScalarNode {
		return otherwise
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || !(f >= 0 && f <= 1) {
		m.wrong(key, "%q is not a number from 0 to 1", short(text))
		return otherwise
	}
	return f
}

// words returns a list of text; a single word will do for a list.
func (m *mapping) words(key string, most int) []string {
	node := m.of[key]
	if node == nil {
		return nil
	}
	if node.Kind == yaml.ScalarNode {
		if text := m.text(key, maxText); text != "" {
			return []string{text}
		}
		return nil
	}
	if node.Kind != yaml.SequenceNode {
		m.wrong(key, "it takes a list; write [one, two]")
		return nil
	}
	if len(node.Content) > most {
		m.wrong(key, "it has %d items; %d are allowed", len(node.Content), most)
		return nil
	}
	var all []string
	for i, item := range node.Content {
		switch {
		case item.Kind != yaml.ScalarNode || isNull(item) || item.Value == "":
			m.fault(item.Line, fmt.Sprintf("%s[%d]", m.join(key), i), "it takes text")
		case len(item.Value) > maxText:
			m.fault(item.Line, fmt.Sprintf("%s[%d]", m.join(key), i), "it is longer than %d bytes", maxText)
		case slices.Contains(all, item.Value):
			m.fault(item.Line, fmt.Sprintf("%s[%d]", m.join(key), i), "%q is there twice; remove one", short(item.Value))
		default:
			all = append(all, item.Value)
		}
	}
	return all
}

// section returns a mapping below a key; nil if it is not there or none.
func (m *mapping) section(key string, keys []string) *mapping {
	node := m.of[key]
	if node == nil {
		return nil
	}
	return m.document.mapping(node, m.join(key), keys)
}

func list(words []string) string { return strings.Join(words, ", ") }

// short is text as far as it may be shown in a fault.
func short(text string) string {
	if len(text) > maxName {
		return text[:maxName] + "…"
	}
	return text
}
