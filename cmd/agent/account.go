package main

import (
	"github.com/weir-agent/weir/metric"
)

// account is what a person wants to know of a stretch of time.
type account struct {
	datagrams, kernelDrops     uint64
	lines, rejected            uint64
	samples, refused           uint64
	events, checks             uint64 // those beyond the limits included
	points, delivered, dropped uint64 // over all forwarders
	restored                   uint64 // the same
	spooled                    uint64 // the same, at its end
	byReason                   [metric.Reasons]uint64
	contexts                   int // at its end
}

// account sums up everything so far.
func (a *agent) account() account {
	l, g := a.listener.Stats(), a.aggregator.Stats()
	sum := account{
		datagrams: l.Datagrams, kernelDrops: l.KernelDrops,
		lines: g.Lines, samples: g.Samples, contexts: g.Contexts,
	}
	for why := range metric.Reasons {
		sum.byReason[why] = g.Rejected[why] + g.Refused[why]
		sum.rejected += g.Rejected[why]
		sum.refused += g.Refused[why]
	}
	sum.events, sum.checks = g.Events, g.Checks
	sum.refused += g.RefusedEvents + g.RefusedChecks
	for _, f := range a.forwarder.Stats() {
		sum.points += f.Produced
		sum.delivered += f.Delivered
		sum.dropped += f.DroppedInAll()
		sum.restored += f.Restored
		sum.spooled += f.Spooled
	}
	return sum
}

// since returns what came after an earlier account.
func (a account) since(earlier account) account {
	a.datagrams -= earlier.datagrams
	a.kernelDrops -= earlier.kernelDrops
	a.lines -= earlier.lines
	a.rejected -= earlier.rejected
	a.samples -= earlier.samples
	a.refused -= earlier.refused
	a.events -= earlier.events
	a.checks -= earlier.checks
	a.points -= earlier.points
	a.delivered -= earlier.delivered
	a.dropped -= earlier.dropped
	a.restored -= earlier.restored
	for why := range a.byReason {
		a.byReason[why] -= earlier.byReason[why]
	}
	return a
}

// attributes returns the account for the log: always the numbers everybody looks
// for, and of what is rare or went wrong only what there was.
func (a account) attributes() []any {
	attributes := []any{
		"datagrams", a.datagrams, "received", a.lines, "rejected", a.rejected, "samples", a.samples,
		"contexts", a.contexts, "points", a.points, "delivered", a.delivered, "dropped", a.dropped,
	}
	for _, rare := range []struct {
		name string
		n    uint64
	}{{"events", a.events}, {"service_checks", a.checks}, {"kernel_drops", a.kernelDrops}, {"refused", a.refused}, {"restored", a.restored}, {"spooled", a.spooled}} {
		if rare.n > 0 {
			attributes = append(attributes, rare.name, rare.n)
		}
	}
	for why, n := range a.byReason {
		if n > 0 {
			attributes = append(attributes, metric.Reason(why).String(), n)
		}
	}
	return attributes
}
