package testkit

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Redis is a redis-server of Debian's package, for one test.
type Redis struct {
	Address string

	t         testing.TB
	arguments []string
	cmd       *exec.Cmd
	port      string
	password  string
}

// StartRedis starts a redis-server with further arguments, such as --requirepass and a
// password. Without one on this machine the test is skipped.
func StartRedis(t testing.TB, arguments ...string) *Redis {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed: apt-get install redis-server")
	}
	r := &Redis{t: t, arguments: arguments}
	for i := range arguments {
		if arguments[i] == "--requirepass" {
			r.password = arguments[i+1]
		}
	}
	// A cluster's server listens on another port 10,000 higher.
	for {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r.Address = listener.Addr().String()
		_ = listener.Close()
		if listener.Addr().(*net.TCPAddr).Port < 55_000 {
			break
		}
	}
	_, r.port, _ = net.SplitHostPort(r.Address)
	r.Start()
	t.Cleanup(r.Kill)
	return r
}

// Start starts the server, which begins empty.
func (r *Redis) Start() {
	r.t.Helper()
	dir := r.t.TempDir()
	r.cmd = exec.Command("redis-server", append([]string{
		"--port", r.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", dir, "--loglevel", "warning",
	}, r.arguments...)...)
	var output bytes.Buffer
	r.cmd.Stdout, r.cmd.Stderr = &output, &output
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if text, err := r.try("PING"); err == nil && text == "PONG" {
			return
		}
		if time.Now().After(deadline) {
			r.Kill()
			r.t.Fatalf("redis-server does not answer:\n%s", &output)
		}
	}
}

// Kill ends the server at once; what it held is gone.
func (r *Redis) Kill() {
	if r.cmd != nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
		r.cmd = nil
	}
}

func (r *Redis) try(words ...string) (string, error) {
	arguments := []string{"-p", r.port, "--no-auth-warning"}
	if r.password != "" {
		arguments = append(arguments, "-a", r.password)
	}
	text, err := exec.Command("redis-cli", append(arguments, words...)...).CombinedOutput()
	return strings.TrimSpace(string(text)), err
}

// Do runs a command by way of redis-cli and returns its answer.
func (r *Redis) Do(words ...string) string {
	r.t.Helper()
	text, err := r.try(words...)
	if err != nil {
		r.t.Fatalf("redis-cli %v: %v: %s", words, err, text)
	}
	return text
}

// Numbers runs many commands, a line each, whose answers are numbers.
func (r *Redis) Numbers(commands []string) []float64 {
	r.t.Helper()
	arguments := []string{"-p", r.port, "--no-auth-warning"}
	if r.password != "" {
		arguments = append(arguments, "-a", r.password)
	}
	cli := exec.Command("redis-cli", arguments...)
	cli.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	text, err := cli.CombinedOutput()
	answers := strings.Fields(string(text))
	if err != nil || len(answers) != len(commands) {
		r.t.Fatalf("redis-cli with %d commands: %v: %.1000s", len(commands), err, text)
	}
	numbers := make([]float64, len(answers))
	for i, answer := range answers {
		if numbers[i], err = strconv.ParseFloat(answer, 64); err != nil {
			r.t.Fatalf("redis-cli %.100s: %q is no number", commands[i], answer)
		}
	}
	return numbers
}

// Number is Do for an answer that is a number.
func (r *Redis) Number(words ...string) float64 {
	r.t.Helper()
	text := r.Do(words...)
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		r.t.Fatalf("redis-cli %v: %q is no number", words, text)
	}
	return n
}

// Keys returns the keys that match a pattern.
func (r *Redis) Keys(pattern string) []string { return strings.Fields(r.Do("KEYS", pattern)) }

// Calls returns how often a command was called.
func (r *Redis) Calls(command string) int {
	for line := range strings.Lines(r.Do("INFO", "commandstats")) {
		var n int
		if _, err := fmt.Sscanf(line, "cmdstat_"+command+":calls=%d", &n); err == nil {
			return n
		}
	}
	return 0
}
