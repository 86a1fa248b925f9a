package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/internal/spelling"
)

// maxFile is how large a configuration file may be.
const maxFile = 4 << 20

// file is a configuration file that was read and checked against the schema.
type file struct {
	name   string
	root   *yaml.Node     // nil if there is nothing in it; without what is faulty
	lines  map[string]int // by path
	faults Faults
}

// readFile reads a file and checks keys and the types of values. Only a file
// that cannot be read at all is an error.
func readFile(name string, s *schema) (*file, error) {
	f := &file{name: name, lines: map[string]int{}}
	if name == "" {
		return f, nil
	}
	opened, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer opened.Close()
	text, err := io.ReadAll(io.LimitReader(opened, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("read the configuration: %s is larger than 4 MiB; is it the right file?", name)
	}
	f.parse(text, s)
	return f, nil
}

var yamlLine = regexp.MustCompile(`line (\d+): `)

func (f *file) parse(text []byte, s *schema) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	err := decoder.Decode(&document)
	if errors.Is(err, io.EOF) {
		return
	}
	if err == nil && !errors.Is(decoder.Decode(&second), io.EOF) {
		f.fault(second.Line, "", "a second document begins here (---); keep one")
	}
	if err != nil {
		message, line := err.Error(), 0
		if m := yamlLine.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = yamlLine.ReplaceAllString(message, "")
		}
		f.fault(line, "", "it is not valid YAML (%s)", message)
		return
	}
	root := document.Content[0]
	if f.walk(root, s, "") {
		f.root = root
	}
}

func (f *file) fault(line int, key, format string, args ...any) {
	f.faults = append(f.faults, Fault{File: f.name, Line: line, Key: key, Message: fmt.Sprintf(format, args...)})
}

// walk checks a node and what is below it, takes out what is faulty, and reports
// whether the node itself may stay.
func (f *file) walk(node *yaml.Node, s *schema, path string) bool {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if _, seen := f.lines[path]; !seen {
		f.lines[path] = node.Line
	}
	if isNull(node) {
		return false // as if the key were not there
	}
	switch {
	case s.of != nil:
		return f.walkMapping(node, s, path)
	case s.item != nil:
		if node.Kind != yaml.SequenceNode {
			f.fault(node.Line, path, "it takes a list; write [one, two]")
			return false
		}
		keep := true
		for i, item := range node.Content {
			where := fmt.Sprintf("%s[%d]", path, i)
			if isNull(item) {
				f.fault(item.Line, where, "the item is empty; remove it")
			}
			// Without a faulty item the others would have other numbers.
			keep = f.walk(item, s.item, where) && keep
		}
		return keep
	}
	if node.Kind != yaml.ScalarNode {
		f.fault(node.Line, path, "it takes %s", s.expects())
		return false
	}
	if wrong := s.check(node.Value); wrong != "" {
		if s.kind == secretType {
			wrong = "it takes " + s.expects()
		}
		f.fault(node.Line, path, "%s", wrong)
		return false
	}
	return true
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

func (f *file) walkMapping(node *yaml.Node, s *schema, path string) bool {
	if node.Kind != yaml.MappingNode {
		f.fault(node.Line, path, "it takes %s", s.expects())
		return false
	}
	kind := "" // of a forwarder
	for i := 0; i < len(node.Content); i += 2 {
		if node.Content[i].Value == "type" {
			kind = node.Content[i+1].Value
		}
	}
	var kept []*yaml.Node
	seen := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		where := join(path, key.Value)
		inner, known := s.of[key.Value]
		switch {
		case !known:
			f.fault(key.Line, join(path, shown(key.Value)), "there is no such key%s", f.suggestion(key.Value, s, path, kind))
			continue
		case seen[key.Value]:
			f.fault(key.Line, where, "the key is there twice; remove one")
			continue
		case s.kind == destinationType && !forwarder.Heeds(kind, key.Value):
			f.fault(key.Line, where, "a forwarder of type %s has no such key; remove it", kind)
			continue
		}
		seen[key.Value] = true
		f.lines[where] = key.Line
		if f.walk(value, inner, where) {
			kept = append(kept, key, value)
		}
	}
	node.Content = kept
	return true
}

// shown is an unknown key as far as it may be printed: without a blank behind the
// colon, "api_key:SECRET" is a key.
func shown(key string) string {
	const longest = 40
	key, _, _ = strings.Cut(key, ":")
	return key[:min(len(key), longest)]
}

// suggestion is what to write instead of an unknown key; kind is the type of
// forwarder, if it is one's.
func (f *file) suggestion(key string, s *schema, path, kind string) string {
	if before, _, glued := strings.Cut(key, ":"); glued && s.of[before] != nil {
		return fmt.Sprintf("; write a blank behind the colon of %s", join(path, before))
	}
	keys := s.keys
	if s.kind == destinationType {
		keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return !forwarder.Heeds(kind, key) })
	}
	if near := spelling.Nearest(key, keys); near != "" {
		return fmt.Sprintf("; did you mean %s?", join(path, near))
	}
	// It may be a key of another section.
	elsewhere := ""
	rootSchema.leaf("", func(at string, _ *schema) {
		if at == key || len(at) > len(key) && at[len(at)-len(key)-1:] == "."+key {
			elsewhere = at
		}
	})
	if elsewhere != "" {
		return fmt.Sprintf("; did you mean %s?", elsewhere)
	}
	if path == "" {
		return "; config.example.yaml lists all keys"
	}
	return "; " + path + " takes " + strings.Join(keys, ", ")
}

// settings returns what is left of the file. Scalars are text: what they mean is
// for the setting to say, not for YAML, to which a key of digits is a number.
func (f *file) settings() map[string]any {
	if f.root == nil {
		return nil
	}
	settings, _ := plain(f.root).(map[string]any)
	return settings
}

func plain(node *yaml.Node) any {
	switch node.Kind {
	case yaml.AliasNode:
		return plain(node.Alias)
	case yaml.MappingNode:
		mapping := map[string]any{}
		for i := 0; i < len(node.Content); i += 2 {
			mapping[node.Content[i].Value] = plain(node.Content[i+1])
		}
		return mapping
	case yaml.SequenceNode:
		list := make([]any, len(node.Content))
		for i, item := range node.Content {
			list[i] = plain(item)
		}
		return list
	}
	return node.Value
}
