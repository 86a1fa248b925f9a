package aggregator

import (
	"math"

	"github.com/weir-agent/weir/metric"
)

// gauge is the last value of an interval and when it came: between readers, the
// later one wins.
type gauge struct {
	value float64
	stamp int64 // nanoseconds since the agent's start when its packet came, 1 at least; 0: none came
}

// keptGauge is what one reader saw of a gauge of the statsd dialect in one
// interval: the last value that was set, and the changes since then.
type keptGauge struct {
	value   float64
	stamp   int64 // of that value, as a gauge's; 0: none was set
	changes []gauge
}

// maxChanges is how many packets' changes are kept apart in an interval. Only if a
// value is set by way of another reader meanwhile does it matter which came first.
const maxChanges = 16

func (k *keptGauge) empty() bool { return k.stamp == 0 && len(k.changes) == 0 }

func (k *keptGauge) set(v float64, now int64) {
	k.value, k.stamp, k.changes = v, now, k.changes[:0]
}

func (k *keptGauge) change(by float64, now int64) {
	n := len(k.changes)
	if n > 0 && (k.changes[n-1].stamp == now || n == maxChanges) {
		k.changes[n-1] = gauge{k.changes[n-1].value + by, now}
		return
	}
	k.changes = append(k.changes, gauge{by, now})
}

// changes reports whether one of a sample's values is a change of a kept gauge. A
// change has no level that could be that of another time.
func changes(s *metric.Sample) bool {
	for text := s.Member(); len(text) > 0; {
		if signed(firstItem(&text)) {
			return true
		}
	}
	return false
}

func signed(text []byte) bool { return len(text) > 0 && (text[0] == '+' || text[0] == '-') }

// addValue adds one value as a sample spells it: with a sign it is a change.
func (k *keptGauge) addValue(v float64, text []byte, now int64) {
	if signed(text) {
		k.change(v, now)
	} else {
		k.set(v, now)
	}
}

// add adds all values of a sample.
func (k *keptGauge) add(s *metric.Sample, packed []float64, now int64) {
	text := s.Member()
	k.addValue(s.Value, firstItem(&text), now)
	for _, v := range packed {
		k.addValue(v, firstItem(&text), now)
	}
}

// firstItem takes the first packed value that is not empty off text.
func firstItem(text *[]byte) []byte {
	rest := *text
	for len(rest) > 0 && rest[0] == ':' {
		rest = rest[1:]
	}
	end := 0
	for end < len(rest) && rest[end] != ':' {
		end++
	}
	*text = rest[end:]
	return rest[:end]
}

// level returns the gauge's value after an interval that began with before. It stays
// finite, or it could never change again.
func level(before float64, parts []*keptGauge) float64 {
	var last *keptGauge
	for _, p := range parts {
		if p.stamp != 0 && (last == nil || p.stamp > last.stamp) {
			last = p
		}
	}
	v := before
	if last != nil {
		v = last.value
	}
	for _, p := range parts {
		for _, c := range p.changes {
			if last == nil || p == last || c.stamp > last.stamp {
				v = max(-math.MaxFloat64, min(v+c.value, math.MaxFloat64))
			}
		}
	}
	return v
}

func (k *keptGauge) reset() { *k = keptGauge{changes: k.changes[:0]} }

// release gives memory back after an interval without a sample.
func (k *keptGauge) release(bool) { *k = keptGauge{} }
