package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// block is a command of a document and what it prints: lines, in which … stands for
// anything, and which is any number of lines if it stands alone.
type block struct {
	line     int
	command  string
	expected string // "": whatever
}

var fence = regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")

// blocks returns the commands of a document in their order.
func blocks(t *testing.T, text string) (all []block) {
	t.Helper()
	for _, at := range fence.FindAllStringSubmatchIndex(text, -1) {
		kind, content := text[at[2]:at[3]], text[at[4]:at[5]]
		switch line := strings.Count(text[:at[0]], "\n") + 1; {
		case kind == "sh":
			all = append(all, block{line: line, command: content})
		case kind == "text" && len(all) > 0 && all[len(all)-1].expected == "":
			all[len(all)-1].expected = content
		default:
			t.Fatalf("line %d: there is no command before this", line)
		}
	}
	return all
}

// pattern returns what the output of a block must match.
func (b *block) pattern() *regexp.Regexp {
	var p strings.Builder
	p.WriteString(`\A`)
	for line := range strings.Lines(b.expected) {
		if line == "…\n" {
			p.WriteString(`(?:.*\n)*?`)
			continue
		}
		parts := strings.Split(strings.TrimSuffix(line, "\n"), "…")
		for i := range parts {
			parts[i] = spaces.ReplaceAllString(regexp.QuoteMeta(parts[i]), ` +`)
		}
		p.WriteString(strings.Join(parts, `.*`) + " *\n")
	}
	return regexp.MustCompile(p.String() + `\z`)
}

// spaces of a table are as many as its widest cell asks for.
var spaces = regexp.MustCompile(` +`)

// The walk-throughs in docs/ do what they say: their commands are run one after the
// other in an empty folder. One that prints something else than is written there may
// still have to wait for it, so it is run again for a while.
func TestWalkthroughs(t *testing.T) {
	documents, err := filepath.Glob("../../docs/walkthrough-*.md")
	if err != nil || len(documents) != 2 {
		t.Fatalf("documents: %v, %v", documents, err)
	}
	binary := build(t)
	for _, document := range documents {
		t.Run(filepath.Base(document), func(t *testing.T) {
			t.Parallel()
			content, err := os.ReadFile(document)
			if err != nil {
				t.Fatal(err)
			}
			address := freePort(t)
			_, port, _ := strings.Cut(address, ":")
			text := strings.NewReplacer("127.0.0.1:8125", address, "8125", port).Replace(string(content))
			if strings.Contains(text, "import statsd") {
				python(t, "statsd", "python3-statsd")
				python(t, "aiodogstatsd", "python3-aiodogstatsd")
			}
			w := walk{folder: t.TempDir(), path: t.TempDir()}
			if err := os.Symlink(binary, filepath.Join(w.path, "weir")); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.kill() })
			for _, b := range blocks(t, text) {
				w.run(t, b)
				if t.Failed() {
					log, _ := os.ReadFile(filepath.Join(w.folder, "weir.log"))
					t.Fatalf("%s, line %d; the agent's log:\n%s", document, b.line, log)
				}
			}
		})
	}
}

// walk is a reader who types what stands there.
type walk struct {
	folder string
	path   string // with weir in it
}

func (w *walk) run(t *testing.T, b block) {
	t.Helper()
	var out string
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		got, err := w.shell(b.command)
		if out = got; err == nil && (b.expected == "" || b.pattern().MatchString(out)) {
			return
		}
		if b.expected == "" || time.Since(began) > 30*time.Second {
			t.Errorf("%s\n%v; it prints\n%s\nwant\n%s", b.command, err, out, b.expected)
			return
		}
	}
}

func (w *walk) shell(command string) (string, error) {
	cmd := exec.Command("bash", "-euc", command)
	cmd.Dir = w.folder
	// Debian's Python has Debian's clients.
	cmd.Env = append(environ(), "PATH="+w.path+":/usr/bin:/bin")
	for i, variable := range cmd.Env {
		if strings.HasPrefix(variable, "WEIR_") {
			cmd.Env[i] = "UNUSED=" + variable
		}
	}
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return string(out), err
}

// kill ends the agent if the document did not.
func (w *walk) kill() {
	text, err := os.ReadFile(filepath.Join(w.folder, "weir.pid"))
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return
	}
	if process, err := os.FindProcess(pid); err == nil {
		_ = process.Kill()
	}
}
