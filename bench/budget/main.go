// Command budget measures what each stage of the agent costs, beside its floor, by the
// benchmarks that live beside the code: the table of docs/PERFORMANCE.md.
//
//	make budget
//
// In: the module's benchmarks. Out: the table, on standard output. A figure is the least
// of -count runs, in which a stage and its floor take turns, in nanoseconds of the clock:
// whatever else the machine does only adds.
package main

import (
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// stage is a line of the table.
type stage struct {
	name    string
	pkg     string
	bench   string // its full name
	less    string // another benchmark that does all but this stage; "": none
	floor   string // "": none
	time    string // -benchtime
	perWhat string // the unit of the benchmarks
}

var stages = []stage{
	{"receive, 40 bytes", "listener", "BenchmarkReceiveSaturated/bytes=40", "", "BenchmarkReceiveSaturated/bytes=40/floor", "200x", "ns/datagram"},
	{"receive, 1,432 bytes", "listener", "BenchmarkReceiveSaturated/bytes=1432", "", "BenchmarkReceiveSaturated/bytes=1432/floor", "200x", "ns/datagram"},
	{"split and parse, 3 tags", "parser", "BenchmarkPacket/tags=3", "", "BenchmarkPacketFloor", "500ms", "ns/line"},
	{"identify, 1 thousand contexts", "aggregator", "BenchmarkIdentify/contexts=1000", "", "BenchmarkIdentify/contexts=1000/floor", "300ms", "ns/sample"},
	{"identify, 1 million contexts", "aggregator", "BenchmarkIdentify/contexts=1000000", "", "BenchmarkIdentify/contexts=1000000/floor", "10x", "ns/sample"},
	{"add, counter", "aggregator", "BenchmarkAdd/c", "", "BenchmarkAdd/floor", "300ms", "ns/sample"},
	{"add, gauge", "aggregator", "BenchmarkAdd/g", "", "BenchmarkAdd/floor", "300ms", "ns/sample"},
	{"add, timer", "aggregator", "BenchmarkAdd/ms", "", "BenchmarkAdd/floor", "300ms", "ns/sample"},
	{"add, distribution", "aggregator", "BenchmarkAdd/d", "", "BenchmarkAdd/floor", "300ms", "ns/sample"},
	{"add, set", "aggregator", "BenchmarkAdd/s", "", "BenchmarkAdd/floor", "300ms", "ns/sample"},
	{"packet to column, 3 tags, 10 thousand contexts", "cmd/agent", "BenchmarkSample/tags=3/contexts=10000", "", "", "300ms", "ns/sample"},
	{"merge, 10 thousand contexts", "aggregator", "BenchmarkMerge/contexts=10000", "", "BenchmarkMerge/contexts=10000/floor", "50x", "ns/context"},
	{"merge, 1 million contexts", "aggregator", "BenchmarkMerge/contexts=1000000", "", "BenchmarkMerge/contexts=1000000/floor", "5x", "ns/context"},
	{"encode", "forwarder", "BenchmarkPack/protobuf/none", "", "BenchmarkPackFloor/encode", "3x", "ns/point"},
	{"compress", "forwarder", "BenchmarkPack/protobuf/zstd", "BenchmarkPack/protobuf/none", "BenchmarkPackFloor/compress", "3x", "ns/point"},
}

func main() {
	count := flag.Int("count", 5, "`runs` of each benchmark")
	flag.Parse()
	if err := run(*count); err != nil {
		fmt.Fprintln(os.Stderr, "budget:", err)
		os.Exit(1)
	}
}

func run(count int) error {
	fmt.Println("| stage | benchmark | ns | floor, ns | times the floor |\n|---|---|---:|---:|---:|")
	known := map[string]float64{}
	for _, s := range stages {
		for range count { // a stage and its floor take turns
			for _, name := range []string{s.bench, s.less, s.floor} {
				if name == "" {
					continue
				}
				ns, err := measure(s, name)
				if err != nil {
					return err
				}
				if least, again := known[name]; !again || ns < least {
					known[name] = ns
				}
			}
		}
		ns, floor, times := known[s.bench]-known[s.less], "–", "–"
		if s.floor != "" {
			floor = fmt.Sprintf("%.1f", known[s.floor])
			times = fmt.Sprintf("%.1f", ns/known[s.floor])
		}
		of := "`" + s.bench + "`"
		if s.less != "" {
			of += " less `" + s.less + "`"
		}
		fmt.Printf("| %s | %s | %.1f a %s | %s | %s |\n", s.name, of, ns, path.Base(s.perWhat), floor, times)
	}
	return nil
}

// measure runs one benchmark and returns what it reports.
func measure(s stage, name string) (float64, error) {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = "^" + regexp.QuoteMeta(parts[i]) + "$"
	}
	cmd := exec.Command("go", "test", "./"+s.pkg, "-run", "^$", "-bench", strings.Join(parts, "/"), "-benchtime", s.time)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return parse(string(out), name, s.perWhat)
}

// parse returns the least value of a unit among the runs of a benchmark.
//
//	BenchmarkAdd/c-2   382   1265599 ns/op   12.66 ns/sample
//	                                         ^^^^^
func parse(out, name, unit string) (least float64, err error) {
	least = math.Inf(1)
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !isRunOf(fields[0], name) {
			continue
		}
		for i, field := range fields[1:] {
			if field == unit {
				value, err := strconv.ParseFloat(fields[i], 64)
				if err != nil {
					return 0, fmt.Errorf("%s: %w", name, err)
				}
				least = min(least, value)
			}
		}
	}
	if math.IsInf(least, 1) {
		return 0, fmt.Errorf("%s reported no %s:\n%s", name, unit, out)
	}
	return least, nil
}

// isRunOf reports whether a line's first field is a benchmark's name, with or without the
// number of processors.
func isRunOf(field, name string) bool {
	rest, found := strings.CutPrefix(field, name)
	return found && (rest == "" || rest[0] == '-' && strings.Trim(rest[1:], "0123456789") == "")
}
