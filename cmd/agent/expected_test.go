package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/internal/testkit"
)

// expected is what the intake is to have in the end. Keys are the metric and its
// tags in order, separated by blanks.
type expected struct {
	counts  map[string]float64
	sampled map[string]float64   // counts of which a client sent a quarter, with that rate
	gauges  map[string]float64   // the last value
	sets    map[string]float64   // how many members
	timers  map[string][]float64 // values of a histogram or timer
	dists   map[string][]float64
	points  []testkit.Point // with times of their own; the value of a rate is the count
	events  []testkit.Event // a time of 0 is about now, no host is the agent's
	checks  []testkit.Check // as events

	evenMedian bool // the median of an even number is between two values, as in the statsd dialect
}

// agentHost is the host of the agents that toIntake makes.
const agentHost = "test-host"

func (want expected) compare(t *testing.T, intake *testkit.Intake) {
	t.Helper()
	got := newTotals(intake)
	for key, n := range want.counts {
		if !near(got.counts[key], n) {
			t.Errorf("%s = %v, want %v", key, got.counts[key], n)
		}
	}
	for key, n := range want.sampled {
		// Binomial: the deviation of the estimate is sqrt(n·(1-p)/p).
		if v := got.counts[key]; math.Abs(v-n) > 6*math.Sqrt(3*n) {
			t.Errorf("%s = %v, want about %v", key, v, n)
		}
	}
	for key, v := range want.gauges {
		if last, seen := got.gauges[key]; !seen || last != v {
			t.Errorf("%s = %v, %v; want %v", key, last, seen, v)
		}
	}
	values := map[string][]float64{} // of all intervals
	for _, p := range intake.Points() {
		key := keyOf(p.Metric, p.Tags)
		values[key] = append(values[key], p.Value)
	}
	for key, n := range want.sets {
		most, sum := 0.0, 0.0
		for _, v := range values[key] {
			most, sum = max(most, v), sum+v
		}
		if most > n || sum < n { // a member may come back in the next interval
			t.Errorf("%s = %v, want %v", key, values[key], n)
		}
	}
	for key, sent := range want.timers {
		want.compareTimer(t, key, got, values, sent)
	}
	for key, values := range want.dists {
		compareDistribution(t, key, got.sketches[key], values)
	}
	want.comparePoints(t, intake)
	want.compareMessages(t, intake)
}

func keyOf(metric string, tags []string) string {
	return strings.TrimSpace(metric + " " + strings.Join(tags, " "))
}

// compareTimer compares what is computed from a histogram, beyond count and largest
// value only if all came in one interval.
func (want expected) compareTimer(t *testing.T, key string, got totals, values map[string][]float64, sent []float64) {
	t.Helper()
	name, tags, _ := strings.Cut(key, " ")
	with := func(suffix string) string { return strings.TrimSpace(name + suffix + " " + tags) }
	if n := got.counts[with(".count")]; !near(n, float64(len(sent))) {
		t.Errorf("%s = %v, want %d", with(".count"), n, len(sent))
	}
	largest := values[with(".max")]
	if len(largest) == 0 || slices.Max(largest) != slices.Max(sent) {
		t.Errorf("%s = %v, want %v", with(".max"), largest, slices.Max(sent))
	}
	if len(largest) != 1 {
		return
	}
	sorted := slices.Sorted(slices.Values(sent))
	sum := 0.0
	for _, v := range sorted {
		sum += v
	}
	n := float64(len(sorted))
	median := sorted[int((n-1)/2)]
	if want.evenMedian {
		median = (median + sorted[len(sorted)/2]) / 2
	}
	for suffix, want := range map[string]float64{
		".avg":          sum / n,
		".median":       median,
		".95percentile": sorted[int((95*n-1)/100)],
	} {
		if v := values[with(suffix)]; len(v) != 1 || !near(v[0], want) {
			t.Errorf("%s = %v, want %v", with(suffix), v, want)
		}
	}
}

func compareDistribution(t *testing.T, key string, sketches []testkit.Sketch, values []float64) {
	t.Helper()
	var count int64
	var sum float64
	low, high := math.Inf(1), math.Inf(-1)
	bins := map[int32]uint64{}
	for _, s := range sketches {
		count += s.Count
		sum += s.Sum
		low, high = min(low, s.Min), max(high, s.Max)
		for i, k := range s.Keys {
			bins[k] += uint64(s.Counts[i])
		}
	}
	slices.Sort(values)
	total := 0.0
	for _, v := range values {
		total += v
	}
	if count != int64(len(values)) || low != values[0] || high != values[len(values)-1] || math.Abs(sum-total) > 1e-9*math.Abs(total) {
		t.Errorf("%s: count %d, min %v, max %v, sum %v; want %d, %v, %v, %v", key, count, low, high, sum,
			len(values), values[0], values[len(values)-1], total)
		return
	}
	for _, q := range []float64{0.5, 0.9, 0.95, 0.99} {
		want := values[int(math.RoundToEven(q*float64(len(values)-1)))]
		keys := make([]int32, 0, len(bins))
		for k := range bins {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		rank := uint64(math.RoundToEven(q * float64(count-1)))
		var seen uint64
		for _, k := range keys {
			if seen += bins[k]; seen > rank {
				// The sketch's definition: gamma = 1 + 2/128, bias 1338.
				got := math.Pow(1+2.0/128, float64(k-1338))
				if math.Abs(got-want) > want/128 {
					t.Errorf("%s: quantile %v = %v, want %v within 1/128", key, q, got, want)
				}
				break
			}
		}
	}
}

func (want expected) comparePoints(t *testing.T, intake *testkit.Intake) {
	t.Helper()
	for _, w := range want.points {
		found := 0
		for _, p := range intake.Points() {
			value := p.Value
			if p.Type == "rate" {
				value *= float64(p.Interval)
			}
			if p.Metric == w.Metric && slices.Equal(p.Tags, w.Tags) && p.Host == agentHost &&
				p.Type == w.Type && p.Time == w.Time && near(value, w.Value) {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%d times, want once: %+v", found, w)
		}
	}
}

func (want expected) compareMessages(t *testing.T, intake *testkit.Intake) {
	t.Helper()
	now := time.Now().Unix()
	timeOf := func(seconds int64) int64 {
		if seconds > now-3600 && seconds <= now {
			return 0
		}
		return seconds
	}
	for _, w := range want.events {
		w.AgentHost = agentHost
		if w.Host == "" {
			w.Host = agentHost
		}
		var found []testkit.Event
		for _, e := range intake.Events() {
			if e.Title == w.Title {
				e.Time = timeOf(e.Time)
				found = append(found, e)
			}
		}
		if diff := cmp.Diff([]testkit.Event{w}, found); diff != "" {
			t.Errorf("event %q (-want +got):\n%s", w.Title, diff)
		}
	}
	for _, w := range want.checks {
		if w.Host == "" {
			w.Host = agentHost
		}
		var found []testkit.Check
		for _, c := range intake.Checks() {
			if c.Name == w.Name {
				c.Time = timeOf(c.Time)
				found = append(found, c)
			}
		}
		if diff := cmp.Diff([]testkit.Check{w}, found); diff != "" {
			t.Errorf("service check %s (-want +got):\n%s", w.Name, diff)
		}
	}
}

// checkNothingIsWrong finds what no client may cause: a payload that the intake does
// not take, a line that is rejected, a tag that is not meant for Datadog.
func checkNothingIsWrong(t *testing.T, intake *testkit.Intake) {
	t.Helper()
	checkNoPointTwice(t, intake)
	if problems := intake.Problems(); len(problems) > 0 {
		t.Errorf("the intake found: %q", problems)
	}
	for key, n := range newTotals(intake).counts {
		if n != 0 && (strings.HasPrefix(key, "weir.lines.rejected") || strings.HasPrefix(key, "weir.samples.refused")) {
			t.Errorf("%s = %v", key, n)
		}
	}
	tags := map[string]string{}
	note := func(of string, list []string) {
		for _, tag := range list {
			tags[tag] = of
		}
	}
	for _, p := range intake.Points() {
		note(p.Metric, p.Tags)
	}
	for _, s := range intake.Sketches() {
		note(s.Metric, s.Tags)
	}
	for _, e := range intake.Events() {
		note(fmt.Sprintf("event %q", e.Title), e.Tags)
	}
	for _, c := range intake.Checks() {
		note("service check "+c.Name, c.Tags)
	}
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		if strings.HasPrefix(tag, "dd.internal.") {
			t.Errorf("%s has the tag %s", tags[tag], tag)
		}
	}
}
