//go:build linux

// Command compare runs Weir and other StatsD servers with the same traffic, one at a
// time, and reports what each costs.
//
//	make peers && make compare                        everything, in two and a half hours
//	make compare-short                                a first look, in ten minutes
//	go run ./bench/compare -scenarios single,gentle-single -only weir,floor -contexts ""
//
// Interrupted, or at the end of -limit, it ends after the measurement under way and
// reports what it has.
//
// In: Weir's binary and the peers found on this machine (bench/compare/peers.sh installs
// those that can be had). Out: a report in Markdown and, beside it, all figures as JSON;
// what happens meanwhile on standard error. It needs to be root, to look at the sockets
// of servers.
//
// Each peer has a configuration in bench/compare/peers, made for throughput as its own
// documentation says, with its output thrown away; Weir's writes each point as JSON, so
// that its ledger can be checked. All aggregate, and flush every 10 s. All get the same
// receive buffer, 16 MiB, which the kernel doubles: it is set from outside, as
// net.core.rmem_default would. bench/load sends, from one socket; the server and it share
// the machine, or with -pin the sender has the last processor for itself.
//
// Scenarios: packed (to 1,432 bytes), mix (of kinds, with 10 thousand contexts) and
// single (one metric a datagram), near the highest rate; gentle-packed and gentle-single,
// at the rates of an ordinary host; idle; contexts (see Memory). Those that read
// DogStatsD's tags get 3 tags, and those that take contexts in names get them there, too.
//
// Highest rate without loss: by search (see search). Lost is what the kernel dropped at
// the server's sockets and, where the server has a queue that drops, what it says itself.
//
// CPU: what the kernel counts for the server's process, user and system, over a window as
// long as a flush interval, so that each has one flush, divided by the metrics that were
// not lost; near the highest rate, which is 0.9 of it, or at a gentle one. What it takes
// when idle is in it, since a host pays for that, and is reported beside it. Servers take
// turns within each of -runs rounds, with a fresh process for each; the report has the
// median, and the least and the largest.
//
// Memory: resident (VmRSS, VmHWM) before the first metric and at most, with -contexts
// contexts at half the highest rate of packed. The pause is seen from outside, too: every
// 0.5 ms SO_MEMINFO says how much waits in the socket, and /proc/net/snmp how many
// datagrams were read; see startWatch.
//
// The ledger: for each life of a server, datagrams sent = read by the server + dropped by
// the kernel, and if none was dropped, metrics, and for Weir the sum of counters in its
// output; by the server's own counters, at the end of its life. A server without such
// counters is believed. The report lists what does not agree, and marks runs with losses.
//
// The floor is a bare loop that counts bytes, with a pause like Weir's, at Weir's rates,
// in the same rounds. With many contexts it shows what pauses the machine makes of itself.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	var p plan
	b := &bench{say: func(format string, values ...any) {
		fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", values...)
	}}
	cache, _ := os.UserCacheDir()
	if folder := os.Getenv("WEIR_PEERS"); folder != "" {
		cache = folder
	} else {
		cache = filepath.Join(cache, "weir-peers")
	}
	flag.StringVar(&p.at.weir, "weir", "./weir", "Weir's `binary`")
	flag.StringVar(&p.at.peers, "peers", cache, "the `folder` that peers.sh filled")
	flag.StringVar(&p.at.modules, "modules", ".ci/node_modules", "another `folder` where statsd of npm may be")
	flag.StringVar(&b.load, "load", "", "bench/load's `binary`; \"\": built now")
	flag.StringVar(&p.out, "out", "", "the `file` for the report; the figures go to the same with .json; \"\": standard output")
	flag.StringVar(&p.only, "only", "", "`servers` to measure, separated by commas; \"\": all that are there")
	flag.StringVar(&p.scenarios, "scenarios", "packed,mix,single,gentle-packed,gentle-single,idle,contexts", "`which`")
	flag.StringVar(&p.tags, "tags", "3,0", "`how many`: 3, 0 for contexts in names, or both")
	flag.StringVar(&p.contexts, "contexts", "10000,100000,1000000", "`numbers` of them to measure memory with; \"\": none")
	flag.IntVar(&p.runs, "runs", 5, "`rounds`")
	flag.IntVar(&p.contextRuns, "context-runs", 3, "`rounds` of the scenario contexts")
	flag.DurationVar(&p.limit, "limit", 0, "end after so long, with what there is; 0: when all is measured")
	flag.DurationVar(&b.window, "window", 10*time.Second, "how long each measurement takes; with less than 10s some have no flush")
	flag.DurationVar(&b.trial, "trial", 2*time.Second, "how long the search tries a rate")
	flag.IntVar(&b.attempts, "attempts", 2, "how `often` it does until nothing is lost")
	pin := flag.Bool("pin", false, "give the sender the last processor, and servers the others")
	floor := flag.String("floor", "", "be the floor, at this `address`")
	flag.Parse()
	err := func() (err error) {
		switch {
		case *floor != "":
			return runFloor(*floor)
		case flag.NArg() > 0:
			return fmt.Errorf("%q is not a flag: see -help", flag.Arg(0))
		case b.window <= 2*settle:
			return fmt.Errorf("-window: %v is too short", b.window)
		}
		if *pin {
			if b.serverCPUs, b.senderCPUs, err = split(); err != nil {
				return err
			}
		}
		return p.run(b)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func (p *plan) run(b *bench) (err error) {
	if err := p.parse(); err != nil {
		return err
	}
	if p.at.self, err = os.Executable(); err != nil {
		return err
	}
	if p.at.weir, err = filepath.Abs(p.at.weir); err != nil || !isFile(p.at.weir) {
		return errors.New("-weir: there is no binary: make build")
	}
	if b.load == "" {
		folder, err := os.MkdirTemp("", "compare-load-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(folder)
		b.load = filepath.Join(folder, "load")
		if out, err := exec.Command("go", "build", "-o", b.load, "./bench/load").CombinedOutput(); err != nil {
			return fmt.Errorf("go build ./bench/load: %w\n%s", err, out)
		}
	}
	r := &results{
		Date: time.Now(), Machine: machine(), Kernel: fileWord("/proc/sys/kernel/osrelease"), Load: fileWord("/proc/loadavg"),
		Window: b.window, Pinned: b.senderCPUs != nil, Versions: map[string]string{},
	}
	for _, s := range find(p.at, func(text string) { b.say("%s", text) }) {
		if p.wants(s.name) {
			r.servers = append(r.servers, s)
			r.Versions[s.name] = s.version
		}
	}
	b.say("this takes about %v", p.estimate(b, r.servers).Round(10*time.Second))
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer cancel()
	if p.limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, p.limit)
		defer cancel()
	}
	faults := p.measure(ctx, b, r)
	r.Ended, r.Ledger = time.Now(), b.ledger
	if p.out == "" {
		r.write(os.Stdout)
		return faults
	}
	report, err := os.Create(p.out)
	if err != nil {
		return err
	}
	r.write(report)
	figures, err := json.MarshalIndent(r, "", " ")
	if err == nil {
		err = os.WriteFile(strings.TrimSuffix(p.out, ".md")+".json", figures, 0o600)
	}
	return errors.Join(faults, err, report.Close())
}
