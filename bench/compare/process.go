//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTicks is the unit of CPU times in /proc, USER_HZ, which is 100 on every Linux
// that Go runs on.
const clockTicks = 100

// process is a server under test.
type process struct {
	cmd    *exec.Cmd
	log    *os.File // what it writes to standard output and error
	ended  chan struct{}
	status error
}

// start runs a command whose output goes to a file. It ends with this process.
func start(command, env []string, folder string) (*process, error) {
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(command[0], command[1:]...), log: log, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = folder
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.status = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends it as its user would, and harder after a while.
func (p *process) stop(patience time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	_ = p.log.Close()
}

// running returns why not, with the end of its log.
func (p *process) running() error {
	select {
	case <-p.ended:
		return fmt.Errorf("it ended: %v\n%s", p.status, p.tail())
	default:
		return nil
	}
}

func (p *process) tail() []byte {
	log, _ := os.ReadFile(p.log.Name())
	return log[max(0, len(log)-2000):]
}

// cpuTime returns what all threads of a process have used, those that ended included.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	return parseStat(text)
}

// parseStat reads utime and stime of /proc/PID/stat.
//
//	4242 (a (strange) name) S 1 … 11 fields … 1234 567 …
//	                                          ^^^^ ^^^
func parseStat(text []byte) (time.Duration, error) {
	end := bytes.LastIndexByte(text, ')') // a name may hold spaces and parentheses
	fields := strings.Fields(string(text[end+1:]))
	const utime, stime = 14 - 3, 15 - 3 // counted from 1; the first one here is the third
	if end < 0 || len(fields) <= stime {
		return 0, fmt.Errorf("/proc/PID/stat has no CPU times: %.80q", text)
	}
	var ticks int64
	for _, field := range fields[utime : stime+1] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

// memory is what a process holds in RAM.
type memory struct {
	now, most int64 // bytes
}

func (p *process) memory() (m memory, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid()) + "/status")
	if err == nil {
		m, err = parseStatus(string(text))
	}
	if err != nil { // it ends
		<-p.ended
		return m, p.running()
	}
	return m, nil
}

// parseStatus reads VmRSS and VmHWM of /proc/PID/status.
func parseStatus(text string) (m memory, err error) {
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		var to *int64
		switch name {
		case "VmRSS":
			to = &m.now
		case "VmHWM":
			to = &m.most
		default:
			continue
		}
		number, isKilo := strings.CutSuffix(strings.TrimSpace(value), " kB")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || !isKilo {
			return memory{}, fmt.Errorf("/proc/PID/status: %q is no size", strings.TrimSpace(line))
		}
		*to = n << 10
		found++
	}
	if found != 2 {
		return memory{}, errors.New("/proc/PID/status has no VmRSS and VmHWM: the process has ended")
	}
	return m, nil
}

// output runs a command and returns what it writes.
func output(env []string, command ...string) string {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &all, &all
	_ = cmd.Run()
	return all.String()
}

// drainOf reads all of r and forgets it.
func drainOf(r io.ReadCloser) {
	_, _ = io.Copy(io.Discard, r)
	_ = r.Close()
}
