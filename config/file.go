package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/weir-agent/weir/forwarder"
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
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		message, line := err.Error(), 0
		if m := yamlLine.FindStringSubmatch(message); m != nil {
			line, _ = strconv.Atoi(m[1])
			message = yamlLine.ReplaceAllString(message, "")
		}
		f.fault(line, "", "it is not valid YAML (%s)", message)
		return
	}
	if len(document.Content) == 0 {
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
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return false // as if the key were not there
	}
	switch {
	case s.of != nil:
		return f.walkMapping(node, s, path)
	case s.item != nil:
		if node.Kind != yaml.SequenceNode {
			f.fault(node.Line, path, "it takes a list; write %s: [one, two]", path)
			return false
		}
		keep := true
		for i, item := range node.Content {
			// Without a faulty item the others would have other numbers.
			keep = f.walk(item, s.item, fmt.Sprintf("%s[%d]", path, i)) && keep
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
			f.fault(key.Line, where, "there is no such key%s", suggestion(key.Value, s, path))
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

// suggestion is what to write instead of an unknown key.
func suggestion(key string, s *schema, path string) string {
	if near := nearest(key, s.keys); near != "" {
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
	return "; " + path + " takes " + s.expects()
}

// marshal returns what is left of the file as YAML.
func (f *file) marshal() ([]byte, error) {
	if f.root == nil {
		return nil, nil
	}
	text, err := yaml.Marshal(f.root)
	if err != nil {
		return nil, errors.Join(errors.New("BUG: what was read cannot be written"), err)
	}
	return text, nil
}
