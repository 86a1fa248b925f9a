package main

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weir-agent/weir/internal/testkit"
)

// While the agent does not run the kernel drops what does not fit into its sockets. With
// overload.compensate, what is there afterwards counts for that, too, and the sums are
// those of what was sent: to the last one, as all datagrams are alike.
func TestKernelDropsAreCompensated(t *testing.T) {
	for name, compensate := range map[string]bool{"on": true, "off": false} {
		t.Run(name, func(t *testing.T) {
			intake := testkit.NewIntake(t)
			file := filepath.Join(t.TempDir(), "weir.yaml")
			text := "listen: {receive_buffer: 64KiB, readers: 2}\n"
			if compensate {
				text += "overload: {compensate: true}\n"
			}
			replace(t, file, text)
			p := startConfigured(t, build(t), file, toIntake(intake)...)
			const senders, each = 5, 2000
			signal := func(s syscall.Signal) {
				t.Helper()
				if err := p.cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			signal(syscall.SIGSTOP)
			for range senders { // with a socket each, so that both readers get some
				conn, err := net.Dial("udp", p.address)
				if err != nil {
					t.Fatal(err)
				}
				for range each {
					if _, err := conn.Write([]byte("c:1|c\nt:5|ms\nd:5|d")); err != nil {
						t.Fatal(err)
					}
				}
				conn.Close()
			}
			signal(syscall.SIGCONT)
			if code := p.stop(t); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			totals := newTotals(intake)
			sent := float64(senders * each)
			drops := totals.counts["weir.listener.kernel_drops network:udp"]
			if drops == 0 {
				t.Fatal("the kernel dropped nothing")
			}
			want := sent
			if !compensate {
				want -= drops
			}
			var sketched float64
			for _, s := range totals.sketches["d"] {
				sketched += float64(s.Count)
			}
			for what, got := range map[string]float64{"c": totals.counts["c"], "t": totals.counts["t.count"]} {
				if !near(got, want) {
					t.Errorf("%s = %v, want %v of %v sent and %v dropped", what, got, want, sent, drops)
				}
			}
			if sketched < want-4 || sketched > want+4 { // each reader's are whole, in each interval
				t.Errorf("d = %v, want %v", sketched, want)
			}
			made := 0.0
			if compensate {
				made = drops
			}
			if got := totals.counts["weir.overload.compensated"]; !near(got, made) {
				t.Errorf("%v datagrams are compensated, want %v", got, made)
			}
			if !strings.Contains(p.log(), "the kernel dropped datagrams") {
				t.Error("the log does not say so")
			}
		})
	}
}
