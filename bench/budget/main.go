// Command budget measures what each stage of the agent costs, beside its floor, by the
// benchmarks that live beside the code: the table of docs/PERFORMANCE.md.
//
//	make budget
//	go run ./bench/budget -write docs/PERFORMANCE.md
//
// In: the module's benchmarks. Out: the table in Markdown, on standard output or in place
// of the one between the marks in a file. A figure is the least
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
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
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

// The marks in a file between which the table belongs.
const beginMark, endMark = "<!-- budget -->\n", "<!-- end of budget -->\n"

func main() {
	count := flag.Int("count", 5, "`runs` of each benchmark")
	write := flag.String("write", "", "the `file` to put the table in; \"\": standard output")
	flag.Parse()
	if err := run(*count, *write); err != nil {
		fmt.Fprintln(os.Stderr, "budget:", err)
		os.Exit(1)
	}
}

func run(count int, file string) error {
	before, after := "", ""
	if file != "" { // now, since measuring takes long
		var err error
		if before, after, err = around(file); err != nil {
			return err
		}
	}
	folder, err := os.MkdirTemp("", "budget-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	var table strings.Builder
	fmt.Fprintf(&table, "Least of %d runs, %s, %s.\n\n", count, machine(), time.Now().Format(time.DateOnly))
	fmt.Fprintln(&table, "| stage | benchmark | ns | floor, ns | times the floor |\n|---|---|---:|---:|---:|")
	known := map[string]float64{}
	for _, s := range stages {
		if err := s.measure(folder, count, known); err != nil {
			return err
		}
		table.WriteString(s.line(known))
		fmt.Fprint(os.Stderr, s.line(known))
	}
	if file == "" {
		fmt.Print(table.String())
		return nil
	}
	return os.WriteFile(file, []byte(before+table.String()+after), 0o644)
}

// around returns what is in a file before the table and after it, with the marks.
func around(file string) (before, after string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	before, rest, found := strings.Cut(string(text), beginMark)
	_, after, ended := strings.Cut(rest, endMark)
	if !found || !ended {
		return "", "", fmt.Errorf("%s lacks the lines %q and %q", file, beginMark, endMark)
	}
	return before + beginMark, endMark + after, nil
}

// machine says on what this runs, without a name, and what else ran there.
func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	model := runtime.GOARCH
	if found := regexp.MustCompile(`(?m)^model name\s*: (.*)$`).FindSubmatch(text); found != nil {
		model = string(found[1])
	}
	text, _ = os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	return fmt.Sprintf("%d × %s, %s, %s, load average %s", runtime.NumCPU(), model, runtime.GOOS, runtime.Version(), load)
}

// line is a stage's line of the table.
func (s stage) line(known map[string]float64) string {
	ns, floor, times := known[s.bench]-known[s.less], "–", "–"
	if s.floor != "" {
		floor = fmt.Sprintf("%.1f", known[s.floor])
		times = fmt.Sprintf("%.1f", ns/known[s.floor])
	}
	of := "`" + s.bench + "`"
	if s.less != "" {
		of += " less `" + s.less + "`"
	}
	return fmt.Sprintf("| %s | %s | %.1f a %s | %s | %s |\n", s.name, of, ns, path.Base(s.perWhat), floor, times)
}

// measure runs a stage's benchmarks in turn, so often, and keeps the least of each.
func (s stage) measure(folder string, count int, known map[string]float64) error {
	binary, err := build(folder, s.pkg)
	if err != nil {
		return err
	}
	for range count {
		for _, name := range []string{s.bench, s.less, s.floor} {
			if name == "" || name == s.floor && strings.HasPrefix(name, s.bench+"/") {
				continue // it ran with what it is a part of
			}
			out, err := s.run(binary, name)
			if err != nil {
				return err
			}
			for _, of := range []string{name, s.floor} {
				if of != name && !strings.HasPrefix(of, name+"/") {
					continue
				}
				ns, err := parse(out, of, s.perWhat)
				if err != nil {
					return err
				}
				if least, again := known[of]; !again || ns < least {
					known[of] = ns
				}
			}
		}
	}
	return nil
}

// build compiles a package's benchmarks, once.
func build(folder, pkg string) (binary string, err error) {
	binary = filepath.Join(folder, strings.ReplaceAll(pkg, "/", "-")+".test")
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	if out, err := exec.Command("go", "test", "-c", "-o", binary, "./"+pkg).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go test -c ./%s: %w\n%s", pkg, err, out)
	}
	return binary, nil
}

// run runs one benchmark, with its parts, and returns its output.
func (s stage) run(binary, name string) (string, error) {
	parts := strings.Split(name, "/")
	for i := range parts {
		parts[i] = "^" + regexp.QuoteMeta(parts[i]) + "$"
	}
	cmd := exec.Command(binary, "-test.run", "^$", "-test.bench", strings.Join(parts, "/"), "-test.benchtime", s.time)
	cmd.Dir = s.pkg
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return string(out), nil
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
