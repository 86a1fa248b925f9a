// Package archtest holds the rules of the house that no linter knows, as tests.
//
// In: the source files of the module. Out: failures. The files are read directly
// and not through the go tool, whose inputs the test cache does not see.
package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/weir-agent/weir/"

// mayImport lists, for each room, the rooms it may import. To add a room or an
// arrow, change this table and ARCHITECTURE.md in the same commit. Tests may
// import any room: they are the wiring in small.
var mayImport = map[string][]string{
	"metric":            {},
	"listener":          {"metric", "internal/priority"},
	"parser":            {"metric"},
	"rules":             {"metric"},
	"cardinality":       {"metric", "internal/diskio", "internal/holds", "internal/priority"},
	"aggregator":        {"metric", "internal/holds", "internal/priority"},
	"forwarder":         {"metric", "internal/diskio", "internal/priority"},
	"analytics":         {"metric", "analytics/plan", "analytics/fleet", "analytics/raw", "analytics/report", "internal/diskio"},
	"analytics/raw":     {"metric", "analytics/plan", "internal/diskio", "internal/priority"},
	"analytics/report":  {"metric", "internal/diskio"},
	"analytics/fleet":   {"metric"},
	"analytics/plan":    {"metric", "internal/spelling"},
	"config":            {"metric", "listener", "parser", "rules", "cardinality", "aggregator", "analytics", "forwarder", "internal/spelling"},
	"cmd/agent":         {"metric", "listener", "parser", "rules", "cardinality", "aggregator", "analytics", "analytics/plan", "analytics/report", "forwarder", "config", "internal/priority"},
	"bench/budget":      {},
	"bench/capture":     {},
	"bench/compare":     {},
	"bench/load":        {},
	"internal/archtest": {},
	"internal/diskio":   {},
	"internal/priority": {},
	"internal/holds":    {},
	"internal/spelling": {},
	"internal/testkit":  {},
}

// metricImports is what metric may import of the standard library: words need no
// I/O.
var metricImports = []string{"bytes", "fmt", "iter", "log/slog", "math", "slices", "strconv", "strings", "time"}

// contextFile may import unsafe, too: a context lies in front of its key, so that a million
// of them are no objects that the garbage collector must mark (docs/decisions.md).
const contextFile = "metric/context.go"

// source is one parsed file.
type source struct {
	path string // from the root of the module
	room string
	test bool
	file *ast.File
	set  *token.FileSet
}

func sources(t *testing.T) []source {
	t.Helper()
	const root = "../.."
	var all []source
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() && path != root && (name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".") || isModule(path)) {
			return fs.SkipDir
		}
		if entry.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		relative = filepath.ToSlash(relative)
		all = append(all, source{
			path: relative, room: filepath.ToSlash(filepath.Dir(relative)),
			test: strings.HasSuffix(name, "_test.go"), file: file, set: set,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// isModule reports whether a folder is a module of its own. Such a one is no part
// of the program: what it imports never enters the binary.
func isModule(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil
}

func (s *source) position(node ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.set.Position(node.Pos()).Line)
}

func TestImports(t *testing.T) {
	for _, s := range sources(t) {
		allowed, known := mayImport[s.room]
		if !known {
			t.Errorf("%s: the room %s is not in the table of rooms", s.path, s.room)
			continue
		}
		if s.test {
			continue
		}
		for _, spec := range s.file.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if room, ours := strings.CutPrefix(path, module); ours && !slices.Contains(allowed, room) {
				t.Errorf("%s: %s must not import %s: data points one way, and only cmd/agent knows everybody", s.position(spec), s.room, room)
			}
			placed := s.path == contextFile && path == "unsafe"
			if s.room == "metric" && !placed && !slices.Contains(metricImports, path) {
				t.Errorf("%s: metric must not import %s: it is words, without I/O and third parties", s.position(spec), path)
			}
		}
	}
}

// A room's one package comment says what goes in, what comes out and what it
// never does.
func TestPackageComments(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range sources(t) {
		if s.file.Doc != nil && (!s.test || s.room == "internal/archtest") {
			comments[s.room] = append(comments[s.room], s.path)
		}
	}
	for room := range mayImport {
		if n := len(comments[room]); n != 1 {
			t.Errorf("%s has %d package comments, want 1: %v", room, n, comments[room])
		}
	}
	for _, s := range sources(t) {
		if s.file.Doc == nil || s.test && s.room != "internal/archtest" {
			continue
		}
		for _, part := range []string{"In: ", "Out: "} {
			if !strings.Contains(s.file.Doc.Text(), part) {
				t.Errorf("%s: the package comment does not say %q", s.path, part)
			}
		}
	}
}

// Only commands write to standard output, and only they end the process.
func TestCalls(t *testing.T) {
	banned := map[string]string{
		"fmt.Print": "log instead", "fmt.Printf": "log instead", "fmt.Println": "log instead",
		"os.Exit": "return an error", "log.Fatal": "return an error", "log.Fatalf": "return an error", "log.Fatalln": "return an error",
	}
	for _, s := range sources(t) {
		if s.test || strings.HasPrefix(s.room, "cmd/") || strings.HasPrefix(s.room, "bench") {
			continue
		}
		ast.Inspect(s.file, func(node ast.Node) bool {
			selector, ok := node.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := selector.X.(*ast.Ident); ok {
				if why, bad := banned[pkg.Name+"."+selector.Sel.Name]; bad {
					t.Errorf("%s: %s.%s in a room: %s", s.position(node), pkg.Name, selector.Sel.Name, why)
				}
			}
			return true
		})
	}
}

// A function that does not fit on a screen says in its comment why it is whole.
func TestFunctionsFitOnAScreen(t *testing.T) {
	const most = 70
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, declaration := range s.file.Decls {
			f, ok := declaration.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := s.set.Position(f.End()).Line - s.set.Position(f.Pos()).Line + 1
			if lines > most && f.Doc == nil {
				t.Errorf("%s: %s has %d lines and no comment that says why", s.position(f), f.Name.Name, lines)
			}
		}
	}
}

// Unfinished work belongs into an issue.
func TestNothingIsLeftToDo(t *testing.T) {
	for _, s := range sources(t) {
		for _, group := range s.file.Comments {
			for _, word := range []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"} {
				if strings.Contains(group.Text(), word) {
					t.Errorf("%s: %s in a comment", s.position(group), word)
				}
			}
		}
	}
}
