//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results is all that was measured.
type results struct {
	Date       time.Time         `json:"date"`
	Machine    string            `json:"machine"`
	Kernel     string            `json:"kernel"`
	Load       string            `json:"load_average"`
	Versions   map[string]string `json:"versions"`
	Window     time.Duration     `json:"window"`
	Cells      []*cell           `json:"cells"`
	Footprints []footprint       `json:"footprints"`
	Books      []book            `json:"books"`
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
func spread(of []float64) string {
	middle, least, most := median(of)
	switch {
	case len(of) == 0:
		return "–"
	case len(of) == 1:
		return count(middle)
	}
	return fmt.Sprintf("%s (%s–%s)", count(middle), count(least), count(most))
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

// write writes the report.
func (r *results) write(w io.Writer) {
	fmt.Fprintf(w, "# Weir and its peers, %s\n\n", r.Date.Format(time.DateOnly))
	fmt.Fprintf(w, "Machine: %s. Linux %s. Load average when it began: %s.\n\n", r.Machine, r.Kernel, r.Load)
	fmt.Fprintf(w, "Made by `make compare`; the package comment of bench/compare says how. CPU is that of the\n")
	fmt.Fprintf(w, "server's process, user and system, in nanoseconds a metric over windows of %v, at %.0f %% of its\n", r.Window, 100*near)
	fmt.Fprintf(w, "own highest rate and at the gentle rate: medians of runs that took turns, least and largest in\n")
	fmt.Fprintf(w, "parentheses. ≥ means that the sender could go no faster.\n\n")
	fmt.Fprintf(w, "| server | version | remark |\n|---|---|---|\n")
	for _, s := range r.servers {
		fmt.Fprintf(w, "| %s | %s | %s |\n", s.name, s.version, s.remark)
	}
	for _, tags := range []int{3, 0} {
		title := "With 3 tags"
		if tags == 0 {
			title = "Without tags: the context is in the name"
		}
		for _, sc := range scenarios {
			r.writeScenario(w, title, tags, sc)
		}
	}
	r.writeFootprints(w)
	r.writeBooks(w)
	r.writeVerdict(w)
}

func (r *results) writeScenario(w io.Writer, title string, tags int, sc scenario) {
	weir := r.cell("weir", tags, sc.Name)
	begun := false
	for _, c := range r.Cells {
		if c.Tags != tags || c.Scenario != sc.Name {
			continue
		}
		if !begun {
			gentle := count(sc.gentle) + " metrics/s"
			fmt.Fprintf(w, "\n## %s; %s\n\n", title, sc.Title)
			fmt.Fprintf(w, "| server | highest rate without loss, metrics/s | CPU ns a metric near it | lost | CPU ns a metric at %s | of Weir's near | gentle |\n|---|---:|---:|---:|---:|---:|---:|\n", gentle)
			begun = true
		}
		atLeast := ""
		if c.AtLeast {
			atLeast = "≥ "
		}
		lost := 0.0
		for _, run := range c.Near {
			lost = max(lost, run.Lost)
		}
		ratios := [2]string{"–", "–"}
		if weir != nil {
			for i, pair := range [2][2][]run{{c.Near, weir.Near}, {c.Gentle, weir.Gentle}} {
				a, _, _ := median(nanos(pair[0]))
				b, _, _ := median(nanos(pair[1]))
				ratios[i] = fmt.Sprintf("%.2f", a/b)
			}
		}
		fmt.Fprintf(w, "| %s | %s%s | %s | %.3f %% | %s | %s | %s |\n", c.Server, atLeast, count(c.Metrics), spread(nanos(c.Near)), 100*lost, spread(nanos(c.Gentle)), ratios[0], ratios[1])
	}
}

func (r *results) writeFootprints(w io.Writer) {
	if len(r.Footprints) == 0 {
		return
	}
	fmt.Fprintf(w, "\n## Many contexts\n\n")
	fmt.Fprintf(w, "Counters, packed to 1,432 bytes, at half the highest rate through three flushes or more. Bytes a\n")
	fmt.Fprintf(w, "context: the most resident memory less that before the first metric. Pause: the longest time in\n")
	fmt.Fprintf(w, "which datagrams waited and the queue never got shorter, and how long nobody looked at most. Idle:\n")
	fmt.Fprintf(w, "CPU with all contexts and no traffic, between flushes. Flush: as Weir says itself.\n\n")
	fmt.Fprintf(w, "| server | tags | contexts | bytes a context | resident, MiB | metrics/s | lost | longest pause, ms | unseen, ms | idle | flush, ms |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, f := range r.Footprints {
		flush := "–"
		if f.Flush > 0 {
			flush = fmt.Sprintf("%.1f", 1000*f.Flush)
		}
		fmt.Fprintf(w, "| %s | %d | %s | %s | %d | %s | %.3f %% | %.1f | %.1f | %.2f %% | %s |\n", f.Server, f.Tags, count(float64(f.Contexts)), count(f.each()),
			f.Most>>20, count(f.Rate), 100*f.Lost, f.Seen.Pause.Seconds()*1000, f.Seen.Unseen.Seconds()*1000, 100*f.IdleCPU, flush)
	}
}

func (r *results) writeBooks(w io.Writer) {
	if len(r.Books) == 0 {
		return
	}
	var sum book
	broken := 0
	for _, b := range r.Books {
		sum.Datagrams += b.Datagrams
		sum.Dropped += b.Dropped
		sum.Sent += b.Sent
		sum.Samples += b.Samples
		if len(b.faults()) > 0 {
			broken++
		}
	}
	fmt.Fprintf(w, "\n## Weir's books\n\nIn %d runs %d datagrams were sent; Weir received %d and counted %d that the kernel dropped: %d samples.\n",
		len(r.Books), sum.Sent, sum.Datagrams, sum.Dropped, sum.Samples)
	fmt.Fprintf(w, "Datagrams, and without drops samples and the sums of counters, agree in %d runs and do not in %d.\n", len(r.Books)-broken, broken)
	for _, b := range r.Books {
		for _, fault := range b.faults() {
			fmt.Fprintf(w, "\n- %s: %s", b.Run, fault)
		}
	}
}

// writeVerdict says where Weir is not first.
func (r *results) writeVerdict(w io.Writer) {
	fmt.Fprintf(w, "\n## Where Weir is not first\n\n")
	first := true
	behind := func(format string, values ...any) {
		fmt.Fprintf(w, "- "+format+"\n", values...)
		first = false
	}
	for _, c := range r.Cells {
		weir := r.cell("weir", c.Tags, c.Scenario)
		if weir == nil || c == weir || c.Server == "floor" {
			continue
		}
		where := fmt.Sprintf("%s, %s, %d tags", c.Server, c.Scenario, c.Tags)
		for name, pair := range map[string][2][]run{"near the highest rate": {c.Near, weir.Near}, "at the gentle rate": {c.Gentle, weir.Gentle}} {
			a, _, _ := median(nanos(pair[0]))
			b, _, _ := median(nanos(pair[1]))
			if a <= b {
				behind("%s: %s ns a metric %s, Weir %s", where, count(a), name, count(b))
			}
		}
		if c.Metrics >= weir.Metrics && !weir.AtLeast {
			behind("%s: %s metrics/s without loss, Weir %s", where, count(c.Metrics), count(weir.Metrics))
		}
	}
	for _, f := range r.Footprints {
		for _, weir := range r.Footprints {
			if weir.Server == "weir" && f.Server != "weir" && f.Tags == weir.Tags && f.Contexts == weir.Contexts && f.each() <= weir.each() {
				behind("%s, %s contexts, %d tags: %s bytes each, Weir %s", f.Server, count(float64(f.Contexts)), f.Tags, count(f.each()), count(weir.each()))
			}
		}
	}
	if first {
		fmt.Fprintf(w, "Nowhere.\n")
	}
}
