//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// traffic is what bench/load is told to send.
type traffic struct {
	packet   int
	contexts int
	tags     int
	kinds    string
}

// sent is what it says it sent.
type sent struct {
	Datagrams          uint64            `json:"datagrams"`
	Metrics            uint64            `json:"metrics"`
	Kinds              map[string]uint64 `json:"kinds"`
	CounterSum         float64           `json:"counter_sum"`
	Seconds            float64           `json:"seconds"`
	DatagramsPerSecond float64           `json:"datagrams_per_second"`
	MetricsPerSecond   float64           `json:"metrics_per_second"`
	Behind             float64           `json:"behind"`
}

func (s *sent) add(more sent) {
	s.Datagrams += more.Datagrams
	s.Metrics += more.Metrics
	s.CounterSum += more.CounterSum
}

// sending is a bench/load that has built everything and waits to begin.
type sending struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// prepare has traffic built, and returns when it is. All of an instance's comes from the
// same socket address, so that a server with several readers gets it with the same one,
// which has met the contexts before. The rate is in datagrams or in
// metrics a second; with passes all contexts are sent so often, else for a duration.
func (b *bench) prepare(i *instance, t traffic, rate float64, inMetrics bool, duration time.Duration, passes int) (*sending, error) {
	unit := "-rate"
	if inMetrics {
		unit = "-metrics"
	}
	s := &sending{cmd: exec.Command(b.load, "-json", "-wait", "-to", "127.0.0.1:"+strconv.Itoa(i.port), "-from", "127.0.0.1:"+strconv.Itoa(i.sendingPort),
		"-packet", strconv.Itoa(t.packet), "-contexts", strconv.Itoa(t.contexts), "-tags", strconv.Itoa(t.tags), "-kinds", t.kinds,
		unit, strconv.FormatFloat(rate, 'f', 0, 64), "-duration", duration.String(), "-passes", strconv.Itoa(passes))}
	if passes > 0 { // each context once
		s.cmd.Args = append(s.cmd.Args, "-pool", "1")
	}
	s.cmd.Stderr = os.Stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	var err error
	if s.in, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.out = bufio.NewReader(out)
	if err := runOn(b.senderCPUs, s.cmd.Start); err != nil {
		return nil, err
	}
	if line, err := s.out.ReadString('\n'); err != nil || line != "ready\n" {
		_ = s.cmd.Wait()
		return nil, fmt.Errorf("bench/load said %q", line)
	}
	return s, nil
}

// begin lets it go.
func (s *sending) begin() error {
	_, err := io.WriteString(s.in, "\n")
	return err
}

// end waits until all is sent.
func (s *sending) end() (report sent, err error) {
	err = json.NewDecoder(s.out).Decode(&report)
	if ended := s.cmd.Wait(); ended != nil || err != nil {
		return sent{}, fmt.Errorf("bench/load: %w", firstOf(ended, err))
	}
	return report, nil
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
