package main

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// build returns the path of the agent's binary, built with the given flags. Each
// variant is built once.
func build(t *testing.T, flags ...string) string {
	t.Helper()
	key := strings.Join(flags, " ")
	builds.mu.Lock()
	defer builds.mu.Unlock()
	if path, done := builds.paths[key]; done {
		return path
	}
	path := filepath.Join(builds.folder, "weir"+strings.ReplaceAll(key, " ", ""))
	out, err := exec.Command("go", append(append([]string{"build", "-o", path}, flags...), ".")...).CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "-race requires cgo") || strings.Contains(string(out), "C compiler") {
			t.Skipf("the race detector needs a C compiler: %s", out)
		}
		t.Fatalf("go build %s: %v\n%s", key, err, out)
	}
	builds.paths[key] = path
	return path
}

var builds = struct {
	mu     sync.Mutex
	folder string
	paths  map[string]string
}{paths: map[string]string{}}

func TestMain(m *testing.M) {
	if to := os.Getenv(originClientVariable); to != "" {
		originClient(to)
		return
	}
	folder, err := os.MkdirTemp("", "weir-test")
	if err != nil {
		panic(err)
	}
	builds.folder = folder
	code := m.Run()
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// process is a running agent.
type process struct {
	cmd     *exec.Cmd
	address string

	mu     sync.Mutex // guards the fields below
	stderr bytes.Buffer
	stdout bytes.Buffer
	ended  chan struct{}
	err    error
}

// environ is an environment without settings, plus the given ones. What an agent keeps
// for its next run goes to a folder that only this one has.
func environ(settings ...string) []string {
	folder, err := os.MkdirTemp(builds.folder, "state")
	if err != nil {
		panic(err)
	}
	env := []string{"WEIR_STATE_DIR=" + folder}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "WEIR_") && !strings.HasPrefix(variable, "DD_") {
			env = append(env, variable)
		}
	}
	return append(env, settings...)
}

var listening = regexp.MustCompile(`msg=listening .*address=(\S+)`)

// start runs the binary with settings from the environment, by default on any
// free port, and waits until it listens.
func start(t *testing.T, binary string, settings ...string) *process {
	t.Helper()
	return startWith(t, binary, func(*exec.Cmd) {}, settings...)
}

// startWith is start with a say in how the process is made.
func startWith(t *testing.T, binary string, change func(*exec.Cmd), settings ...string) *process {
	t.Helper()
	p := &process{ended: make(chan struct{})}
	p.cmd = exec.Command(binary)
	p.cmd.Env = environ(append([]string{"WEIR_LISTEN_UDP=127.0.0.1:0"}, settings...)...)
	p.cmd.Stdout = writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.stdout.Write(b)
	})
	change(p.cmd)
	pipe, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	addresses := make(chan string, 1)
	go func() {
		defer close(p.ended)
		scanner := bufio.NewScanner(pipe)
		for scanner.Scan() {
			p.mu.Lock()
			p.stderr.WriteString(scanner.Text() + "\n")
			p.mu.Unlock()
			if m := listening.FindStringSubmatch(scanner.Text()); m != nil {
				select {
				case addresses <- m[1]:
				default: // of another socket; that of UDP comes first
				}
			}
		}
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("the agent's log:\n%s", p.log())
		}
	})
	select {
	case p.address = <-addresses:
	case <-p.ended:
		t.Fatalf("the agent ended: %v\n%s", p.err, p.log())
	case <-time.After(30 * time.Second):
		t.Fatalf("the agent does not listen:\n%s", p.log())
	}
	return p
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stderr.String()
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stdout.String()
}

// stop sends SIGTERM, waits for the end, and returns the exit code.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	return p.wait(t)
}

func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(60 * time.Second):
		t.Fatalf("the agent does not end:\n%s", p.log())
	}
	var exit *exec.ExitError
	if errors.As(p.err, &exit) {
		return exit.ExitCode()
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return 0
}

// toIntake are the settings for an agent that sends to a stand-in for Datadog
// every second.
func toIntake(intake *testkit.Intake) []string {
	return []string{
		"WEIR_FLUSH_INTERVAL=1s",
		"WEIR_HOSTNAME=test-host",
		"DD_API_KEY=" + testkit.APIKey,
		"DD_URL=" + intake.URL,
	}
}

// run executes the binary to its end and returns what it printed and its exit
// code.
func execute(t *testing.T, binary string, settings []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = environ(settings...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}
