package forwarder

import (
	"time"

	"github.com/weir-agent/weir/metric"
)

// Series as JSON, as Datadog's public interface documents them. It says the same as
// the protobuf message, in other words: the origin's category is a metric_type there.
//
//	{"series":[{"metric","type","points":[{"timestamp","value"}],"resources":[{"type","name"}, …],
//	"tags":[…],"unit","interval","metadata":{"origin":{"product","metric_type"}}}, …]}
//
// Resources, tags and unit are left out if there are none.

var afterSeriesJSON = []byte(`]}`)

func beforeSeriesJSON(dst []byte, _ int, first bool) []byte {
	if first {
		return append(dst, `{"series":[`...)
	}
	return append(dst, ',')
}

// seriesJSON is series in the other form.
func (e *encoder) seriesJSON(dst []byte, b *metric.Batch, s *metric.Series) []byte {
	c := inUTF8(b.Context(s))
	dst = appendJSONString(append(dst, `{"metric":`...), c.Name(), s.Suffix.String())
	dst = appendInt(append(dst, `,"type":`...), int64(s.Type))
	dst = appendInt(append(dst, `,"points":[{"timestamp":`...), timeOf(s, b))
	dst = appendJSONNumber(append(dst, `,"value":`...), s.Value)
	dst = append(dst, '}', ']')

	resources := 0
	add := func(kind, name string) {
		if resources++; resources == 1 {
			dst = append(dst, `,"resources":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = appendJSONString(append(dst, `{"type":`...), kind, "")
		dst = append(appendJSONString(append(dst, `,"name":`...), name, ""), '}')
	}
	if host := c.Host(b.AgentHost); host != "" {
		add("host", validUTF8(host))
	}
	if device := c.Device(); device != "" {
		add("device", device)
	}
	tags := 0
	for tag := range c.Tags() {
		if !isResource(tag) {
			tags++
		} else if kind, name, ok := resourceOf(tag); ok {
			add(kind, name)
		}
	}
	if resources > 0 {
		dst = append(dst, ']')
	}
	if tags > 0 {
		dst = append(dst, `,"tags":[`...)
		for tag := range c.Tags() {
			if isResource(tag) {
				continue
			}
			dst = append(appendJSONString(dst, tag, ""), ',')
		}
		dst[len(dst)-1] = ']'
	}
	dst = appendJSONField(dst, "unit", s.Unit(c))
	dst = appendInt(append(dst, `,"interval":`...), int64(b.Interval/time.Second))
	return append(dst, `,"metadata":{"origin":{"product":10,"metric_type":10}}}`...)
}
