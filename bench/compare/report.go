//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// results is all that was measured.
type results struct {
	Date       time.Time         `json:"date"`
	Ended      time.Time         `json:"ended"`
	Cut        bool              `json:"ended_early"`
	Machine    string            `json:"machine"`
	Kernel     string            `json:"kernel"`
	Load       string            `json:"load_average"`
	Versions   map[string]string `json:"versions"`
	Window     time.Duration     `json:"window"`
	Pinned     bool              `json:"pinned"`
	Cells      []*cell           `json:"cells"`
	Footprints []*footprint      `json:"footprints"`
	Ledger     []entry           `json:"ledger"`
	servers    []*server
}

// machine says on what this runs, without a name.
func machine() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	memory, _ := os.ReadFile("/proc/meminfo")
	return fmt.Sprintf("%d × %s, %s kB of memory", runtime.NumCPU(), word(string(text), `^model name\s*: (.*)$`), word(string(memory), `^MemTotal:\s*(\d+) kB`))
}

func fileWord(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// median returns the median, least and largest.
func median(of []float64) (middle, least, most float64) {
	if len(of) == 0 {
		return math.NaN(), math.NaN(), math.NaN()
	}
	sorted := slices.Sorted(slices.Values(of))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]
}

// spread writes a median with the least and the largest.
func spread(of []float64) string { return spreadOf(of, count) }

// spreadOf is spread for figures that are written in another way.
func spreadOf(of []float64, write func(float64) string) string {
	m, least, most := median(of)
	switch {
	case len(of) == 0:
		return "–"
	case len(of) == 1 || write(least) == write(most):
		return write(m)
	}
	return fmt.Sprintf("%s (%s–%s)", write(m), write(least), write(most))
}

// count writes a number as people read it.
func count(n float64) string {
	switch {
	case math.IsNaN(n):
		return "–"
	case n >= 1e6:
		return fmt.Sprintf("%.2f M", n/1e6)
	case n >= 1e5:
		return fmt.Sprintf("%.0f k", n/1e3)
	case n > 0 && n < 10:
		return fmt.Sprintf("%.2g", n)
	}
	text := fmt.Sprintf("%.0f", n)
	if len(text) > 3 {
		text = text[:len(text)-3] + "," + text[len(text)-3:]
	}
	return text
}

func (r *results) cell(server string, tags int, scenario string) *cell {
	for _, c := range r.Cells {
		if c.Server == server && c.Tags == tags && c.Scenario == scenario {
			return c
		}
	}
	return nil
}

func (r *results) footprint(server string, tags, contexts int) *footprint {
	for _, f := range r.Footprints {
		if f.Server == server && f.Tags == tags && f.Contexts == contexts {
			return f
		}
	}
	return nil
}

// middle returns the median alone.
func middle(of []float64) float64 {
	m, _, _ := median(of)
	return m
}

// write writes the report.
func (r *results) write(w io.Writer) {
	fmt.Fprintf(w, "# Weir and its peers, %s\n\n", r.Date.Format(time.DateOnly))
	fmt.Fprintf(w, "Machine: %s. Linux %s. Load average when it began: %s. It took %v.\n\n", r.Machine, r.Kernel, r.Load, r.Ended.Sub(r.Date).Round(time.Second))
	if r.Cut {
		fmt.Fprintf(w, "**Ended early: some is missing.**\n\n")
	}
	fmt.Fprintf(w, "Made by `make compare`; the package comment of bench/compare says how. CPU is that of the\n")
	fmt.Fprintf(w, "server's process, user and system, in nanoseconds a metric over windows of %v: medians of runs\n", r.Window)
	fmt.Fprintf(w, "that took turns, least and largest in parentheses. Near the highest rate is %.0f %% of a server's\n", 100*near)
	fmt.Fprintf(w, "own. ≥ means that the sender could go no faster; × is how many times Weir's figure it is.\n")
	if r.Pinned {
		fmt.Fprintf(w, "The sender had the last processor, servers the others.\n")
	}
	fmt.Fprintf(w, "\n| server | version | remark |\n|---|---|---|\n")
	for _, s := range r.servers {
		fmt.Fprintf(w, "| %s | %s | %s |\n", s.name, s.version, s.remark)
	}
	for _, tags := range []int{3, 0} {
		title := "With 3 tags"
		if tags == 0 {
			title = "Without tags: the context is in the name"
		}
		if !slices.ContainsFunc(r.Cells, func(c *cell) bool { return c.Tags == tags }) {
			continue
		}
		fmt.Fprintf(w, "\n## %s\n", title)
		for _, sc := range scenarios {
			r.writeScenario(w, tags, sc)
		}
	}
	r.writeFootprints(w)
	r.writeLedger(w)
	r.writeTargets(w)
	r.writeVerdict(w)
}

func (r *results) writeScenario(w io.Writer, tags int, sc scenario) {
	weir := r.cell("weir", tags, sc.Name)
	begun := false
	for _, c := range r.Cells {
		if c.Tags != tags || c.Scenario != sc.Name {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintf(w, "\n### %s: %s\n\n", sc.Name, sc.Title)
			switch {
			case sc.search():
				fmt.Fprintf(w, "| server | highest rate without loss, metrics/s | × | CPU ns a metric near it | × | of a core | runs with losses |\n|---|---:|---:|---:|---:|---:|---:|\n")
			case sc.idle:
				fmt.Fprintf(w, "| server | of a core | × |\n|---|---:|---:|\n")
			default:
				fmt.Fprintf(w, "| server | CPU ns a metric | × | less idle | of a core | runs with losses |\n|---|---:|---:|---:|---:|---:|\n")
			}
		}
		times := func(of func(*cell) float64) string {
			if weir == nil {
				return "–"
			}
			return ratio(of(c), of(weir))
		}
		cpu := spreadOf(each(c.Runs, func(r run) float64 { return 100 * r.CPU }), func(n float64) string { return fmt.Sprintf("%.2f %%", n) })
		perMetric := func(c *cell) float64 { return middle(each(c.Runs, nanos)) }
		switch {
		case sc.idle:
			fmt.Fprintf(w, "| %s | %s | %s |\n", c.Server, cpu, times(func(c *cell) float64 { return middle(each(c.Runs, func(r run) float64 { return r.CPU })) }))
		case sc.search():
			highest := count(c.Metrics)
			if c.AtLeast {
				highest = "≥ " + highest
			}
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s | %s |\n", c.Server, highest, times(func(c *cell) float64 { return c.Metrics }),
				spread(each(c.Runs, nanos)), times(perMetric), cpu, losses(each(c.Runs, func(r run) float64 { return r.Lost })))
		default:
			fmt.Fprintf(w, "| %s | %s | %s | %s | %s | %s |\n", c.Server, spread(each(c.Runs, nanos)), times(perMetric),
				count(perMetric(c)-r.idleNanos(c)), cpu, losses(each(c.Runs, func(r run) float64 { return r.Lost })))
		}
	}
}

// idleNanos returns what a metric of a cell has to bear of the CPU that its server takes
// when nothing comes; NaN if that was not measured.
func (r *results) idleNanos(c *cell) float64 {
	idle := r.cell(c.Server, c.Tags, "idle")
	if idle == nil {
		return math.NaN()
	}
	share := middle(each(idle.Runs, func(r run) float64 { return r.CPU }))
	return share * 1e9 / middle(each(c.Runs, func(r run) float64 { return r.Metrics }))
}

// ratio writes how many times b a is.
func ratio(a, b float64) string {
	switch q := a / b; {
	case math.IsNaN(q) || math.IsInf(q, 0):
		return "–"
	case q >= 10:
		return fmt.Sprintf("%.0f", q)
	default:
		return fmt.Sprintf("%.2f", q)
	}
}

// losses writes in how many runs datagrams were lost, and how many at most.
func losses(lost []float64) string {
	n, most := 0, 0.0
	for _, l := range lost {
		if l > 0 {
			n++
		}
		most = max(most, l)
	}
	if n == 0 {
		return "–"
	}
	return fmt.Sprintf("%d of %d, %.3g %% at most", n, len(lost), 100*most)
}

func (r *results) writeFootprints(w io.Writer) {
	if len(r.Footprints) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## contexts\n\n")
	fmt.Fprintf(w, "Counters, packed to 1,432 bytes, at half the highest rate for three windows or more. Bytes a\n")
	fmt.Fprintf(w, "context: the most resident memory less that before the first metric. Pause: the longest time in\n")
	fmt.Fprintf(w, "which datagrams waited and none was read, and how many were longer than %v. Unseen: how long\n", longPause)
	fmt.Fprintf(w, "nobody looked at most. Idle: CPU with all contexts and no traffic, between flushes. Flush: as the\n")
	fmt.Fprintf(w, "server says itself. The floor keeps nothing and never flushes: its pause is what the machine makes\n")
	fmt.Fprintf(w, "of one that sleeps likewise.\n\n")
	fmt.Fprintf(w, "| server | tags | contexts | bytes a context | × | resident, MiB | metrics/s | runs with losses | longest pause, ms | longer than %v | unseen, ms | idle, %% of a core | flush, ms |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n", longPause)
	one := func(n float64) string { return fmt.Sprintf("%.1f", n) }
	for _, f := range r.Footprints {
		weir, size, times := r.footprint("weir", f.Tags, f.Contexts), spread(f.each()), "–"
		switch {
		case f.Server == floorName:
			size = "–"
		case weir != nil:
			times = ratio(middle(f.each()), middle(weir.each()))
		}
		figure := func(write func(float64) string, of func(footprint1) float64) string {
			return spreadOf(each(f.Runs, of), write)
		}
		flush := "–"
		if slices.ContainsFunc(f.Runs, func(r footprint1) bool { return r.Flush > 0 }) {
			flush = figure(one, func(r footprint1) float64 { return 1000 * r.Flush })
		}
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", f.Server, f.Tags, count(float64(f.Contexts)), size, times,
			figure(count, func(r footprint1) float64 { return float64(r.Most >> 20) }), figure(count, func(r footprint1) float64 { return r.Rate }),
			losses(each(f.Runs, func(r footprint1) float64 { return r.Lost })),
			figure(one, func(r footprint1) float64 { return 1000 * r.Seen.Pause.Seconds() }),
			figure(count, func(r footprint1) float64 { return float64(r.Seen.Long) }),
			figure(one, func(r footprint1) float64 { return 1000 * r.Seen.Unseen.Seconds() }),
			figure(one, func(r footprint1) float64 { return 100 * r.IdleCPU }), flush)
	}
}

func (r *results) writeLedger(w io.Writer) {
	if len(r.Ledger) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## The ledger\n\n")
	fmt.Fprintf(w, "Of each life of a server: datagrams sent = read by it + dropped by the kernel, and if none was\n")
	fmt.Fprintf(w, "dropped, metrics, and of Weir the sum of counters in its output. A server that counts nothing is believed.\n\n")
	fmt.Fprintf(w, "| server | lives | with losses | datagrams sent | read | dropped by the kernel | then by a queue of its own | metrics sent | counted | do not close |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	var open []string
	for _, s := range r.servers {
		var sum entry
		var own counted
		lives, lost, says, broken := 0, 0, false, 0
		for _, e := range r.Ledger {
			if e.Server != s.name {
				continue
			}
			lives++
			sum.Sent, sum.SentMetrics, sum.KernelDrops = sum.Sent+e.Sent, sum.SentMetrics+e.SentMetrics, sum.KernelDrops+e.KernelDrops
			if e.lost() {
				lost++
			}
			if e.Own != nil {
				says = true
				own.Datagrams, own.Dropped, own.Metrics = own.Datagrams+e.Own.Datagrams, own.Dropped+e.Own.Dropped, own.Metrics+e.Own.Metrics
			}
			for _, fault := range e.faults() {
				open = append(open, fmt.Sprintf("%s, %s: %s", e.Server, e.Run, fault))
			}
			if len(e.faults()) > 0 {
				broken++
			}
		}
		if lives == 0 {
			continue
		}
		read, queue, counted, closed := "says nothing", "–", "–", "–"
		if says {
			read, queue, closed = fmt.Sprintf("%.0f", own.Datagrams), fmt.Sprintf("%.0f", own.Dropped), strconv.Itoa(broken)
		}
		if own.Metrics > 0 {
			counted = fmt.Sprintf("%.0f", own.Metrics)
		}
		fmt.Fprintf(w, "| %s | %d | %d | %d | %s | %d | %s | %d | %s | %s |\n", s.name, lives, lost, sum.Sent, read, sum.KernelDrops, queue, sum.SentMetrics, counted, closed)
	}
	for _, fault := range open {
		fmt.Fprintf(w, "\n- %s", fault)
	}
	if len(open) > 0 {
		fmt.Fprintln(w)
	}
}
