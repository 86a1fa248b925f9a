package aggregator

import (
	"time"

	"github.com/weir-agent/weir/metric"
)

// Stats is a snapshot of what the aggregator counted since it was made.
//
// In every snapshot lines = samples + events + checks + rejected, and samples =
// aggregated + sampled out + passed + refused.
type Stats struct {
	Lines      uint64
	Rejected   [metric.Reasons]uint64 // lines, by the parser's reasons
	Samples    uint64
	Aggregated uint64
	SampledOut uint64                 // samples of which a rule let no value count
	Passed     uint64                 // samples with a time of their own
	Refused    [metric.Reasons]uint64 // samples, by the aggregator's reasons

	Events        uint64
	Checks        uint64 // service checks
	RefusedEvents uint64 // of Events, those beyond what an interval may hold
	RefusedChecks uint64 // of Checks, likewise
	IgnoredTimes  uint64 // samples with a time that were aggregated as if they had none

	Resolved     uint64 // identities met for the first time
	Unremembered uint64 // of these, those the table had no room for

	EventSamples       uint64 // samples of analytics events, those refused included
	UnrememberedEvents uint64 // their identities that a worker had no room for

	Identities int    // in the workers' tables
	Contexts   int    // live
	Created    uint64 // contexts
	Expired    uint64 // contexts

	flushStats
}

// flushStats is what the flusher counts.
type flushStats struct {
	Flushes          uint64
	Points           uint64        // produced
	NotFinite        uint64        // points that overflowed and were not produced
	FoldedHistograms uint64        // points of histograms with more samples than are kept
	EstimatedSets    uint64        // points of sets with more members than are counted exactly
	ClippedSamples   uint64        // samples that the bins of their sketch had no room for
	FlushTime        time.Duration // of the last flush
	Compensated      uint64        // dropped datagrams that others count for
	Factor           float64       // the largest by which samples of the last flush were scaled; 1: none were
}

// Stats returns a snapshot. The sums it promises hold for each worker at the
// moment that worker was read.
func (a *Aggregator) Stats() Stats {
	var s Stats
	for _, w := range a.workers {
		w.mu.Lock()
		s.Lines += w.stats.lines
		s.Samples += w.stats.samples
		s.Events += w.stats.events
		s.Checks += w.stats.checks
		s.SampledOut += w.stats.sampledOut
		s.Passed += w.stats.passed
		s.RefusedEvents += w.stats.refusedEvents
		s.RefusedChecks += w.stats.refusedChecks
		s.IgnoredTimes += w.stats.ignoredTimes
		s.Resolved += w.stats.resolved
		s.Unremembered += w.stats.unremembered
		s.EventSamples += w.stats.eventSamples
		s.UnrememberedEvents += w.stats.unrememberedEvents
		s.Identities += w.identities.count
		for why := range w.stats.rejected {
			s.Rejected[why] += w.stats.rejected[why]
			s.Refused[why] += w.stats.refused[why]
		}
		w.mu.Unlock()
	}
	s.Aggregated = s.Samples - s.Passed - s.SampledOut
	for _, n := range s.Refused {
		s.Aggregated -= n
	}
	s.Contexts, s.Created, s.Expired = a.contexts.count()
	s.flushStats = a.flusher.statistics()
	return s
}

// Readings appends the agent's own metrics about aggregation to dst.
func (a *Aggregator) Readings(dst []metric.Reading) []metric.Reading {
	s := a.Stats()
	total := func(name string, n uint64, tags ...string) {
		dst = append(dst, metric.Reading{Name: name, Tags: tags, Value: float64(n)})
	}
	level := func(name string, v float64) {
		dst = append(dst, metric.Reading{Name: name, Value: v, Level: true})
	}
	total("lines", s.Lines)
	total("samples", s.Samples)
	total("samples.aggregated", s.Aggregated)
	total("samples.sampled_out", s.SampledOut)
	total("samples.passed", s.Passed)
	total("samples.timestamp_ignored", s.IgnoredTimes)
	total("events", s.Events)
	total("events.refused", s.RefusedEvents)
	total("service_checks", s.Checks)
	total("service_checks.refused", s.RefusedChecks)
	for why := range metric.Reasons {
		tag := "reason:" + why.String()
		if why.Rejects() {
			total("lines.rejected", s.Rejected[why], tag)
		}
		if why.Refuses() {
			total("samples.refused", s.Refused[why], tag)
		}
	}
	total("identities.resolved", s.Resolved)
	total("identities.unremembered", s.Unremembered)
	total("samples.analytics", s.EventSamples)
	total("identities.analytics_unremembered", s.UnrememberedEvents)
	level("identities", float64(s.Identities))
	level("contexts", float64(s.Contexts))
	total("contexts.created", s.Created)
	total("contexts.expired", s.Expired)
	total("flushes", s.Flushes)
	level("flush.seconds", s.FlushTime.Seconds())
	total("points", s.Points)
	total("points.not_finite", s.NotFinite)
	total("histograms.folded", s.FoldedHistograms)
	total("sets.estimated", s.EstimatedSets)
	total("sketches.clipped", s.ClippedSamples)
	total("overload.compensated", s.Compensated)
	level("overload.factor", max(1, s.Factor))
	return dst
}
