//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// plan is what to measure.
type plan struct {
	at                              places
	out                             string
	only, scenarios, tags, contexts string
	runs, contextRuns               int
	limit                           time.Duration

	// What flags mean.
	names  []string // of scenarios
	tagged []int
	sizes  []int // numbers of contexts
}

// parse reads the flags that are lists.
func (p *plan) parse() error {
	known := []string{footprints}
	for _, sc := range scenarios {
		known = append(known, sc.Name)
	}
	p.names = words(p.scenarios)
	for _, name := range p.names {
		if !slices.Contains(known, name) {
			return fmt.Errorf("-scenarios: there is no %q: take some of %s", name, strings.Join(known, ", "))
		}
	}
	for _, text := range words(p.tags) {
		n, err := strconv.Atoi(text)
		if err != nil || n != 0 && n != 3 {
			return fmt.Errorf("-tags: %q is neither 3 nor 0", text)
		}
		p.tagged = append(p.tagged, n)
	}
	for _, text := range words(p.contexts) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-contexts: %q is no number of contexts", text)
		}
		p.sizes = append(p.sizes, n)
	}
	if !slices.Contains(p.names, footprints) {
		p.sizes = nil
	}
	return nil
}

// words returns the parts of a list.
func words(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// wants reports whether a server is to be measured. A name of two words may be given by
// its first.
func (p *plan) wants(name string) bool {
	first, _, _ := strings.Cut(name, " ")
	return p.only == "" || slices.Contains(words(p.only), name) || slices.Contains(words(p.only), first)
}

// takes reports whether a server can have a scenario with so many tags.
func (s *server) takes(sc scenario, tags int) bool {
	return (tags > 0 && s.tags || tags == 0 && s.names) && !(s.floor && (sc.mix || sc.idle))
}

// estimate returns about how long it all takes.
func (p *plan) estimate(b *bench, servers []*server) (sum time.Duration) {
	const around, tries = 2500 * time.Millisecond, 12 // starting, warming up and ending; trials of a search
	for _, s := range servers {
		for _, tags := range p.tagged {
			for _, sc := range scenarios {
				if !slices.Contains(p.names, sc.Name) || !s.takes(sc, tags) {
					continue
				}
				sum += time.Duration(p.runs) * (b.window + around + s.late)
				if sc.search() && !s.floor {
					sum += tries*(b.trial+500*time.Millisecond+s.late) + b.window
				}
			}
			for range p.sizes {
				if s.takes(scenarios[0], tags) {
					sum += time.Duration(p.contextRuns) * (max(3*b.window, twoFlushes) + around + idleFor + 20*time.Second)
				}
			}
		}
	}
	if p.limit > 0 {
		sum = min(sum, p.limit)
	}
	return sum
}

// progress is a measurement under way.
type progress struct {
	*plan
	b      *bench
	r      *results
	ctx    context.Context
	failed map[string]bool
	faults error
}

// ended reports, between two measurements, whether it is to end.
func (g *progress) ended() bool {
	g.r.Cut = g.r.Cut || g.ctx.Err() != nil
	return g.r.Cut
}

// fail leaves a server that fails out from there on.
func (g *progress) fail(s *server, err error) bool {
	if err != nil && !errors.Is(err, errEnded) {
		g.failed[s.name] = true
		g.faults = errors.Join(g.faults, fmt.Errorf("%s: %w", s.name, err))
		g.b.say("%s: %v", s.name, err)
	}
	return err != nil
}

// measure does all that is planned, or ends with ctx.
func (p *plan) measure(ctx context.Context, b *bench, r *results) error {
	b.ctx = ctx
	g := &progress{plan: p, b: b, r: r, ctx: ctx, failed: map[string]bool{}}
	g.eachCell(func(s *server, sc scenario, tags int) { g.prepare(s, sc, tags) })
	for range p.runs {
		g.eachCell(func(s *server, sc scenario, tags int) {
			if c := r.cell(s.name, tags, sc.Name); c != nil && (c.Highest > 0 || !sc.search()) {
				g.fail(s, b.throughput(s, sc, tags, c))
			}
		})
	}
	for range p.contextRuns {
		for _, n := range p.sizes {
			for _, tags := range p.tagged {
				for _, s := range r.servers {
					if !g.failed[s.name] && s.takes(scenarios[0], tags) && !g.ended() {
						g.footprint(s, n, tags)
					}
				}
			}
		}
	}
	return g.faults
}

// eachCell goes through everything there is to measure once.
func (g *progress) eachCell(do func(s *server, sc scenario, tags int)) {
	for _, tags := range g.tagged {
		for _, sc := range scenarios {
			for _, s := range g.r.servers {
				if slices.Contains(g.names, sc.Name) && s.takes(sc, tags) && !g.failed[s.name] && !g.ended() {
					do(s, sc, tags)
				}
			}
		}
	}
}

// prepare begins a cell, with its highest rate where that matters. The floor has Weir's.
func (g *progress) prepare(s *server, sc scenario, tags int) *cell {
	if c := g.r.cell(s.name, tags, sc.Name); c != nil {
		return c
	}
	c := &cell{Server: s.name, Tags: tags, Scenario: sc.Name}
	if sc.search() {
		weir := g.r.cell("weir", tags, sc.Name)
		switch {
		case s.floor && weir == nil:
			return nil
		case s.floor:
			c.Highest, c.Metrics = weir.Highest, weir.Metrics
		default:
			if g.fail(s, g.b.search(s, sc, tags, c)) {
				return nil
			}
			g.b.say("%s, %s: %.0f datagrams/s, %.0f metrics/s without loss", s.name, sc.nameWith(tags), c.Highest, c.Metrics)
		}
	}
	g.r.Cells = append(g.r.Cells, c)
	return c
}

// footprint measures a server with many contexts once, at half its highest rate of
// packed datagrams.
func (g *progress) footprint(s *server, contexts, tags int) {
	packed := g.prepare(s, scenarios[0], tags)
	if packed == nil || packed.Highest == 0 || g.ended() {
		return
	}
	f := g.r.footprint(s.name, tags, contexts)
	if f == nil {
		f = &footprint{Server: s.name, Tags: tags, Contexts: contexts}
		g.r.Footprints = append(g.r.Footprints, f)
	}
	g.fail(s, g.b.measureFootprint(s, f, packed.Metrics))
}
