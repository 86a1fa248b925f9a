package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-agent/weir/internal/testkit"
	"github.com/weir-agent/weir/parser"
)

// Lines that kill or fool other agents come by every transport in both dialects:
// the agent goes on, its memory stays within bounds, each line is in the books, and
// the neighbours' samples are untouched.
func TestHostileLines(t *testing.T) {
	intake := testkit.NewIntake(t)
	folder := t.TempDir()
	port := portForAll(t)
	var sockets []conformanceSocket
	for _, dialect := range []string{parser.DialectDogStatsD, parser.DialectStatsD} {
		for _, network := range []string{"udp", "unix_datagram", "unix_stream", "tcp"} {
			address := fmt.Sprintf("127.0.1.%d:%d", len(sockets)+1, port)
			if strings.HasPrefix(network, "unix") {
				address = filepath.Join(folder, strconv.Itoa(len(sockets)))
			}
			sockets = append(sockets, conformanceSocket{network, address, dialect, parser.TagsDogStatsD})
		}
	}
	more := ""
	for _, s := range sockets {
		more += fmt.Sprintf("{network: %s, address: '%s', dialect: %s}, ", s.Network, s.Address, s.Dialect)
	}
	p := start(t, build(t), append(toIntake(intake), "WEIR_SHUTDOWN_TIMEOUT=60s", "WEIR_LISTEN_MAX_PACKET=64KiB", "WEIR_LISTEN_MORE=["+more+"]")...)
	eventually(t, "all sockets listen", func() bool { return strings.Count(p.log(), "msg=listening") == 1+len(sockets) })

	const rounds = 5
	hostile := hostileLines()
	good := 0
	for _, s := range sockets {
		conn := s.dial(t)
		for range rounds {
			for _, name := range slices.Sorted(maps.Keys(hostile)) {
				s.send(t, conn, "neighbour:1|c\nduration:7|d")
				s.send(t, conn, strings.TrimSuffix(hostile[name], "\n"))
				good++
			}
		}
		s.send(t, conn, "neighbour:1|c\nduration:7|d")
		good++
		conn.Close()
	}
	peak := peakMemory(t, p.cmd.Process.Pid)
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	totals := newTotals(intake)
	if got := totals.counts["neighbour"]; !near(got, float64(good)) {
		t.Errorf("neighbour = %v, want %d", got, good)
	}
	durations := int64(0)
	for _, s := range intake.Sketches() {
		if s.Metric == "duration" {
			durations += s.Count
			if s.Min != 7 || s.Max != 7 {
				t.Errorf("duration from %v to %v, want 7", s.Min, s.Max)
			}
		}
	}
	if durations != int64(good) {
		t.Errorf("duration counts %d, want %d", durations, good)
	}
	account := lastAccount(t, p.log())
	if account["received"] != account["samples"]+account["events"]+account["service_checks"]+account["rejected"] {
		t.Errorf("the books do not close: %v", account)
	}
	if account["rejected"] == 0 || account["events"] == 0 {
		t.Errorf("the hostile lines did not arrive: %v", account)
	}
	const most = 400 << 20
	if peak > most {
		t.Errorf("the agent took %d MiB, more than %d", peak>>20, most>>20)
	}
	if problems := intake.Problems(); len(problems) > 0 {
		t.Errorf("the intake found: %.300q", problems)
	}
}

// peakMemory returns the most resident memory a process had so far, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s*(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no VmHWM in %s", status)
	}
	kilobytes, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kilobytes << 10
}

// lastAccount reads the numbers of the agent's final account.
func lastAccount(t *testing.T, log string) map[string]int {
	t.Helper()
	numbers := map[string]int{}
	for line := range strings.Lines(log) {
		if strings.Contains(line, `msg="the final account" `) {
			for _, field := range strings.Fields(line) {
				name, value, _ := strings.Cut(field, "=")
				if n, err := strconv.Atoi(value); err == nil {
					numbers[name] = n
				}
			}
		}
	}
	if len(numbers) == 0 {
		t.Fatal("there is no final account")
	}
	return numbers
}
