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
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// process is a server under test.
type process struct {
	cmd    *exec.Cmd
	log    *os.File // what it writes to standard output and error
	ended  chan struct{}
	status error
}

// start runs a command whose output goes to a file. It ends with this process.
func start(command, env []string, folder string, cpus *unix.CPUSet) (*process, error) {
	log, err := os.Create(filepath.Join(folder, "log"))
	if err != nil {
		return nil, err
	}
	p := &process{cmd: exec.Command(command[0], command[1:]...), log: log, ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Dir = folder
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := runOn(cpus, p.cmd.Start); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	go func() {
		p.status = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// runOn does something, and starts what it starts, with some processors only; nil: all.
func runOn(cpus *unix.CPUSet, do func() error) error {
	if cpus == nil {
		return do()
	}
	runtime.LockOSThread() // a child has the processors of the thread that starts it
	defer runtime.UnlockOSThread()
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		return os.NewSyscallError("sched_getaffinity", err)
	}
	if err := unix.SchedSetaffinity(0, cpus); err != nil {
		return os.NewSyscallError("sched_setaffinity", err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &mine) }()
	return do()
}

// split gives the sender the last of the processors this process may use, and servers
// the others.
func split() (servers, sender *unix.CPUSet, err error) {
	servers, sender = &unix.CPUSet{}, &unix.CPUSet{}
	if err := unix.SchedGetaffinity(0, servers); err != nil {
		return nil, nil, os.NewSyscallError("sched_getaffinity", err)
	}
	if servers.Count() < 2 {
		return nil, nil, errors.New("-pin: there is only one processor")
	}
	for n := 8*int(unsafe.Sizeof(*servers)) - 1; ; n-- {
		if servers.IsSet(n) {
			servers.Clear(n)
			sender.Set(n)
			return servers, sender, nil
		}
	}
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

// cpuTime returns the user and system time that all threads of a process have used,
// those that ended included. The kernel counts it in nanoseconds; what it says in
// /proc/PID/stat is the same in hundredths of a second.
func cpuTime(pid int) (time.Duration, error) {
	const schedClock = 2 // CPUCLOCK_SCHED, of the kernel's posix-timers.h
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedClock), &t); err != nil {
		return 0, fmt.Errorf("the CPU time of process %d: %w", pid, os.NewSyscallError("clock_gettime", err))
	}
	return time.Duration(t.Nano()), nil
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
