//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
)

// target is what Weir is to reach.
type target struct {
	what   string
	unit   string
	most   float64
	decide func(*results) float64 // the figure; NaN: not measured
}

// ofCell returns the median of what a metric costs Weir in a scenario with 3 tags.
func ofCell(scenario string) func(*results) float64 {
	return func(r *results) float64 { return r.median("weir", scenario) }
}

// median returns the median of what a metric costs in a scenario with 3 tags; NaN if it
// was not measured.
func (r *results) median(server, scenario string) float64 {
	c := r.cell(server, 3, scenario)
	if c == nil {
		return math.NaN()
	}
	return middle(each(c.Runs, nanos))
}

// ofContexts returns a figure of Weir with so many contexts and 3 tags.
func ofContexts(contexts int, figure func(*footprint) float64) func(*results) float64 {
	return func(r *results) float64 {
		if f := r.footprint("weir", 3, contexts); f != nil && len(f.Runs) > 0 {
			return figure(f)
		}
		return math.NaN()
	}
}

// largest returns the largest figure of all runs.
func largest(of func(footprint1) float64) func(*footprint) float64 {
	return func(f *footprint) float64 {
		_, _, most := median(each(f.Runs, of))
		return most
	}
}

// targets are in figures of a machine with 2 processors of AMD EPYC (Zen 3), and true
// there; elsewhere the ratios to the floor and to the peers decide.
var targets = []target{
	{"packed", "ns a metric", 90, ofCell("packed")},
	{"mix", "ns a metric", 130, ofCell("mix")},
	{"single", "ns a metric", 600, ofCell("single")},
	{"single, of the floor", "times", 1.2, func(r *results) float64 { return r.median("weir", "single") / r.median(floorName, "single") }},
	{"gentle-single", "ns a metric", 2000, ofCell("gentle-single")},
	{"gentle-packed", "ns a metric", 350, ofCell("gentle-packed")},
	{"1 million contexts", "bytes each", 300, ofContexts(1_000_000, func(f *footprint) float64 { return middle(f.each()) })},
	{"1 million contexts, lost at half the highest rate", "%", 0, ofContexts(1_000_000, largest(func(r footprint1) float64 { return 100 * r.Lost }))},
	{"1 million contexts, longest pause", "ms", 5, ofContexts(1_000_000, largest(func(r footprint1) float64 { return 1000 * r.Seen.Pause.Seconds() }))},
	{"100 thousand contexts, idle between flushes", "% of a core", 1, ofContexts(100_000, largest(func(r footprint1) float64 { return 100 * r.IdleCPU }))},
	{"lives whose ledger does not close", "", 0, func(r *results) (n float64) {
		for _, e := range r.Ledger {
			if e.Server == "weir" && len(e.faults()) > 0 {
				n++
			}
		}
		return n
	}},
}

// writeTargets says what Weir reaches.
func (r *results) writeTargets(w io.Writer) {
	fmt.Fprintf(w, "\n## What Weir is to reach\n\n")
	fmt.Fprintf(w, "With 3 tags. Figures of time are those of 2 processors of an AMD EPYC (Zen 3); elsewhere the ratio to\nthe floor and to the peers decides.\n\n")
	fmt.Fprintf(w, "| | at most | here | reached |\n|---|---:|---:|---|\n")
	for _, t := range targets {
		got := t.decide(r)
		reached := "no"
		switch {
		case math.IsNaN(got):
			reached = "not measured"
		case got <= t.most:
			reached = "yes"
		}
		fmt.Fprintf(w, "| %s | %s %s | %s | %s |\n", t.what, count(t.most), t.unit, count(got), reached)
	}
}

// writeVerdict says where Weir is not first.
func (r *results) writeVerdict(w io.Writer) {
	fmt.Fprintf(w, "\n## Where Weir is not first\n\n")
	first, compared := true, false
	behind := func(format string, values ...any) {
		fmt.Fprintf(w, "- "+format+"\n", values...)
		first = false
	}
	for _, c := range r.Cells {
		weir := r.cell("weir", c.Tags, c.Scenario)
		if weir == nil || c == weir || c.Server == floorName {
			continue
		}
		compared = true
		where := fmt.Sprintf("%s, %s, %d tags", c.Server, c.Scenario, c.Tags)
		figure, unit := nanos, "ns a metric"
		if c.Scenario == "idle" {
			figure, unit = func(r run) float64 { return 100 * r.CPU }, "% of a core"
		}
		if a, b := middle(each(c.Runs, figure)), middle(each(weir.Runs, figure)); a <= b {
			behind("%s: %s %s, Weir %s", where, count(a), unit, count(b))
		}
		if c.Metrics > 0 && c.Metrics >= weir.Metrics {
			limit := ""
			if weir.AtLeast {
				limit = " or more: the sender could go no faster"
			}
			behind("%s: %s metrics/s without loss, Weir %s%s", where, count(c.Metrics), count(weir.Metrics), limit)
		}
	}
	for _, f := range r.Footprints {
		weir := r.footprint("weir", f.Tags, f.Contexts)
		if weir == nil || f == weir || f.Server == floorName {
			continue
		}
		compared = true
		if a, b := middle(f.each()), middle(weir.each()); a <= b {
			behind("%s, %s contexts, %d tags: %s bytes each, Weir %s", f.Server, count(float64(f.Contexts)), f.Tags, count(a), count(b))
		}
	}
	switch {
	case !compared:
		fmt.Fprintf(w, "There was nobody to compare it with.\n")
	case first:
		fmt.Fprintf(w, "Nowhere.\n")
	}
}
