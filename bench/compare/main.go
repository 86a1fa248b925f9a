//go:build linux

// Command compare runs Weir and other StatsD servers with the same traffic, one at a
// time, and reports what each costs.
//
//	make compare
//	bench/compare/peers.sh && go run ./bench/compare -weir ./weir -runs 5 -out report.md
//
// Interrupted, it ends after the measurement under way and reports what it has.
//
// In: Weir's binary and the peers found on this machine (bench/compare/peers.sh installs
// those that can be had). Out: a report in Markdown and, beside it, all figures as JSON;
// what happens meanwhile on standard error. It needs to be root, to look at the sockets
// of servers.
//
// Each peer has a configuration in bench/compare/peers, made for throughput as its own
// documentation says, with its output thrown away; Weir's writes each point as JSON, so
// that the books can be checked. All flush every 10 s. All get the same receive buffer,
// 4 MiB, which the kernel doubles: it is set from outside, as net.core.rmem_default would.
// bench/load sends, from one socket; the server and it share the machine.
//
// Scenarios: one metric a datagram; packed to 1,432 bytes; the mix of kinds with 10
// thousand contexts. Those that read DogStatsD's tags get 3 tags, those that know none the
// same contexts in names, and Weir both.
//
// Highest rate without loss: by search (see search). Lost is what the kernel dropped at
// the server's sockets and, where the server has a queue that drops, what it says itself.
//
// CPU: utime and stime of /proc/PID/stat over a window as long as a flush interval, so
// that each has one flush, divided by the metrics that were not lost; near the highest
// rate, which is 0.9 of it, and at a gentle one. Servers take turns within each of
// -runs rounds, with a fresh process for each; the report has the median, and the least
// and the largest.
//
// Memory: resident (VmRSS, VmHWM) before the first metric and at most, with -contexts
// contexts at half the highest rate. The pause is seen from outside, too: every 0.5 ms
// SO_MEMINFO says how much waits in the socket; see startWatch.
//
// After each run of Weir its books are compared with bench/load's: datagrams sent =
// received + dropped, and if none was dropped, samples and the sum of counters.
//
// The floor is a bare loop that counts bytes, with a pause like Weir's, at Weir's rates.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// plan is what to measure.
type plan struct {
	at        places
	load      string
	out       string
	only      string
	scenarios string
	tags      string
	contexts  string
	runs      int
}

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
	flag.StringVar(&p.load, "load", "", "bench/load's `binary`; \"\": built now")
	flag.StringVar(&p.out, "out", "", "the `file` for the report; the figures go to the same with .json; \"\": standard output")
	flag.StringVar(&p.only, "only", "", "`servers` to measure, separated by commas; \"\": all")
	flag.StringVar(&p.scenarios, "scenarios", "one,packed,mix", "`which`; \"\": none")
	flag.StringVar(&p.tags, "tags", "3,0", "`which`")
	flag.StringVar(&p.contexts, "contexts", "10000,100000,1000000", "`numbers` of contexts to measure memory with; \"\": none")
	flag.IntVar(&p.runs, "runs", 5, "`rounds`")
	flag.DurationVar(&b.window, "window", 10*time.Second, "how long each measurement takes")
	flag.DurationVar(&b.trial, "trial", 2*time.Second, "how long the search tries a rate")
	flag.IntVar(&b.attempts, "attempts", 2, "how often it does until nothing is lost")
	floor := flag.String("floor", "", "be the floor, at this `address`")
	flag.Parse()
	err := func() error {
		if *floor != "" {
			return runFloor(*floor)
		}
		return p.run(b)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func (p *plan) run(b *bench) (err error) {
	if p.at.self, err = os.Executable(); err != nil {
		return err
	}
	if p.at.weir, err = filepath.Abs(p.at.weir); err != nil || !isFile(p.at.weir) {
		return errors.New("-weir: there is no binary: make build")
	}
	if b.load = p.load; b.load == "" {
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
	r := &results{Date: time.Now(), Machine: machine(), Kernel: fileWord("/proc/sys/kernel/osrelease"), Load: fileWord("/proc/loadavg"), Window: b.window, Versions: map[string]string{}}
	for _, s := range find(p.at, func(text string) { b.say("%s", text) }) {
		if p.only == "" || slices.Contains(strings.Split(p.only, ","), s.name) {
			r.servers = append(r.servers, s)
			r.Versions[s.name] = s.version
		}
	}
	faults := p.measure(b, r)
	r.Books = b.books
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

// measure does all that is planned. A server that fails is left out from there on.
func (p *plan) measure(b *bench, r *results) (faults error) {
	failed := map[string]bool{}
	fail := func(s *server, err error) bool {
		if err != nil {
			failed[s.name] = true
			faults = errors.Join(faults, fmt.Errorf("%s: %w", s.name, err))
			b.say("%s: %v", s.name, err)
		}
		return err != nil
	}
	var tags []int
	for text := range strings.SplitSeq(p.tags, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n != 0 && n != 3 {
			return fmt.Errorf("-tags: %q is neither 3 nor 0", text)
		}
		tags = append(tags, n)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, unix.SIGTERM)
	ended := func() bool { // between two measurements: what there is goes into the report
		select {
		case <-stop:
			stop <- os.Interrupt
			return true
		default:
			return false
		}
	}
	takes := func(s *server, tags int) bool { return !failed[s.name] && (tags > 0 && s.tags || tags == 0 && s.names) }
	wanted := strings.Split(p.scenarios, ",")
	if p.contexts != "" && !slices.Contains(wanted, "packed") {
		return errors.New("-contexts needs -scenarios to have packed: its highest rate is halved for them")
	}
	for _, n := range tags {
		for _, sc := range scenarios {
			for _, s := range r.servers {
				if ended() || !slices.Contains(wanted, sc.Name) || !takes(s, n) || s.floor && sc.mix {
					continue
				}
				c := &cell{Server: s.name, Tags: n, Scenario: sc.Name}
				if weir := r.cell("weir", n, sc.Name); s.floor {
					if weir == nil {
						continue
					}
					c.Highest, c.Metrics = weir.Highest, weir.Metrics
				} else if fail(s, b.search(s, sc, n, c)) {
					continue
				}
				b.say("%s, %d tags, %s: %.0f datagrams/s, %.0f metrics/s without loss", s.name, n, sc.Name, c.Highest, c.Metrics)
				r.Cells = append(r.Cells, c)
			}
		}
	}
	for range p.runs {
		for _, n := range tags {
			for _, sc := range scenarios {
				for _, s := range r.servers {
					if c := r.cell(s.name, n, sc.Name); c != nil && !failed[s.name] && c.Highest > 0 && !ended() {
						fail(s, b.throughput(s, sc, n, c))
					}
				}
			}
		}
	}
	if p.contexts == "" {
		return faults
	}
	for text := range strings.SplitSeq(p.contexts, ",") {
		contexts, err := strconv.Atoi(text)
		if err != nil || contexts < 1 {
			return fmt.Errorf("-contexts: %q is no number of contexts", text)
		}
		for _, n := range tags {
			for _, s := range r.servers {
				c := r.cell(s.name, n, "packed")
				if c == nil || !takes(s, n) || s.floor || c.Metrics == 0 || ended() {
					continue
				}
				f, err := b.footprintOf(s, n, contexts, c.Metrics)
				if !fail(s, err) {
					r.Footprints = append(r.Footprints, f)
				}
			}
		}
	}
	return faults
}
