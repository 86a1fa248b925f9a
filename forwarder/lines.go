package forwarder

import (
	"time"

	"github.com/weir-agent/weir/metric"
)

// lineFormat appends points as lines. The lines are part of the configuration's
// contract; README.md shows them.
type lineFormat interface {
	series(dst []byte, b *metric.Batch, s *metric.Series) []byte
	sketch(dst []byte, b *metric.Batch, p *metric.SketchPoint) []byte
	event(dst []byte, e *metric.Event) []byte
	check(dst []byte, c *metric.ServiceCheck) []byte
}

// appendLines appends lines for some points of b, the first of which is number
// from in the order of Batch.Points, and returns how many.
func appendLines(dst []byte, format lineFormat, b *metric.Batch, from int) ([]byte, int) {
	to := min(from+linesAtOnce, int(b.Points()))
	n := 0
	for ; from+n < to && len(dst) < bytesAtOnce; n++ {
		i := from + n
		if i < len(b.Series) {
			dst = format.series(dst, b, &b.Series[i])
		} else if i -= len(b.Series); i < len(b.Sketches) {
			dst = format.sketch(dst, b, &b.Sketches[i])
		} else if i -= len(b.Sketches); i < len(b.Events) {
			dst = format.event(dst, &b.Events[i])
		} else {
			dst = format.check(dst, &b.Checks[i-len(b.Events)])
		}
		dst = append(dst, '\n')
	}
	return dst, n
}

// AppendText appends all of b as a logs forwarder writes it in the format text.
func AppendText(dst []byte, b *metric.Batch) []byte {
	for done, n := 0, 0; done < int(b.Points()); done += n {
		var some []byte
		some, n = appendLines(nil, textLines{}, b, done)
		dst = append(dst, some...)
	}
	return dst
}

// The first and the last second that RFC 3339 can write.
var (
	firstSecond = time.Date(0, time.January, 1, 0, 0, 0, 0, time.UTC).Unix()
	lastSecond  = time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC).Unix()
)

// appendTime appends Unix seconds in RFC 3339; a time before or after that is the
// first or the last there.
func appendTime(dst []byte, seconds int64) []byte {
	return time.Unix(min(max(seconds, firstSecond), lastSecond), 0).UTC().AppendFormat(dst, time.RFC3339)
}

// quantiles are those a distribution is logged with.
var quantiles = []struct {
	name string
	q    float64
}{{"p50", 0.50}, {"p75", 0.75}, {"p90", 0.90}, {"p95", 0.95}, {"p99", 0.99}}

type namedValue struct {
	name  string
	value float64
}

// summaryOf returns what is logged of a sketch besides its count.
func summaryOf(s *metric.Sketch) [9]namedValue {
	values := [9]namedValue{{"sum", s.Sum}, {"min", s.Min}, {"max", s.Max}, {"avg", s.Avg}}
	for i, q := range quantiles {
		values[4+i] = namedValue{q.name, s.Quantile(q.q)}
	}
	return values
}

// jsonLines writes one JSON object a line.
type jsonLines struct{}

func (f jsonLines) series(dst []byte, b *metric.Batch, s *metric.Series) []byte {
	context := b.Context(s)
	dst = f.head(dst, timeOf(s, b), context, s.Suffix.String(), s.Type.String())
	dst = appendJSONNumber(append(dst, `,"value":`...), s.Value)
	return f.tail(dst, b, context)
}

func (f jsonLines) sketch(dst []byte, b *metric.Batch, p *metric.SketchPoint) []byte {
	dst = f.head(dst, b.Start.Unix(), p.Context, "", "distribution")
	dst = appendInt(append(dst, `,"count":`...), p.Sketch.Count)
	for _, v := range summaryOf(&p.Sketch) {
		dst = append(append(append(dst, `,"`...), v.name...), `":`...)
		dst = appendJSONNumber(dst, v.value)
	}
	return f.tail(dst, b, p.Context)
}

func (jsonLines) head(dst []byte, seconds int64, context *metric.Context, suffix, kind string) []byte {
	dst = appendTime(append(dst, `{"time":"`...), seconds)
	dst = appendJSONString(append(dst, `","metric":`...), context.Name(), suffix)
	return append(append(append(dst, `,"type":"`...), kind...), '"')
}

func (jsonLines) tail(dst []byte, b *metric.Batch, context *metric.Context) []byte {
	dst = appendInt(append(dst, `,"interval":`...), int64(b.Interval/time.Second))
	dst = appendJSONString(append(dst, `,"host":`...), context.Host(b.AgentHost), "")
	dst = appendJSONField(dst, "device", context.Device())
	dst = append(dst, `,"tags":[`...)
	for tag := range context.Tags() {
		dst = appendJSONTag(dst, tag)
	}
	return append(dst, "]}"...)
}

func (jsonLines) event(dst []byte, e *metric.Event) []byte {
	dst = appendTime(append(dst, `{"time":"`...), e.Time)
	dst = appendJSONString(append(dst, `","type":"event","title":`...), e.Title, "")
	dst = appendJSONString(append(dst, `,"text":`...), e.Text, "")
	dst = appendJSONString(append(dst, `,"priority":`...), e.Priority, "")
	dst = appendJSONString(append(dst, `,"alert_type":`...), e.AlertType, "")
	dst = appendJSONString(append(dst, `,"host":`...), e.Host, "")
	dst = appendJSONTags(append(dst, `,"tags":`...), e.Tags)
	dst = appendJSONField(dst, "aggregation_key", e.AggregationKey)
	dst = appendJSONField(dst, "source_type", e.SourceType)
	return append(dst, '}')
}

func (jsonLines) check(dst []byte, c *metric.ServiceCheck) []byte {
	dst = appendTime(append(dst, `{"time":"`...), c.Time)
	dst = appendJSONString(append(dst, `","type":"service_check","check":`...), c.Name, "")
	dst = append(append(append(dst, `,"status":"`...), c.Status.String()...), '"')
	dst = appendJSONString(append(dst, `,"message":`...), c.Message, "")
	dst = appendJSONString(append(dst, `,"host":`...), c.Host, "")
	dst = appendJSONTags(append(dst, `,"tags":`...), c.Tags)
	return append(dst, '}')
}

// textLines writes lines for people:
//
//	2026-11-21T10:00:10Z rate page.views 1.2 host=web-1 env:prod
//	2026-11-21T10:00:12Z event Deployed: version 7 priority=normal alert_type=success host=web-1 env:prod
//	2026-11-21T10:00:13Z service_check db.up critical: no answer host=web-1 env:prod
type textLines struct{}

func (f textLines) series(dst []byte, b *metric.Batch, s *metric.Series) []byte {
	context := b.Context(s)
	dst = f.head(dst, timeOf(s, b), s.Type.String(), context.Name(), s.Suffix.String())
	dst = appendJSONNumber(append(dst, ' '), s.Value)
	return f.tail(dst, b, context)
}

func (f textLines) sketch(dst []byte, b *metric.Batch, p *metric.SketchPoint) []byte {
	dst = f.head(dst, b.Start.Unix(), "distribution", p.Context.Name(), "")
	dst = appendInt(append(dst, " count="...), p.Sketch.Count)
	for _, v := range summaryOf(&p.Sketch) {
		dst = append(append(append(dst, ' '), v.name...), '=')
		dst = appendJSONNumber(dst, v.value)
	}
	return f.tail(dst, b, p.Context)
}

func (textLines) head(dst []byte, seconds int64, kind, name, suffix string) []byte {
	dst = append(append(append(appendTime(dst, seconds), ' '), kind...), ' ')
	return appendPlain(appendPlain(dst, name), suffix)
}

func (textLines) tail(dst []byte, b *metric.Batch, context *metric.Context) []byte {
	dst = appendPlainField(dst, " host=", context.Host(b.AgentHost))
	dst = appendPlainField(dst, " device=", context.Device())
	for tag := range context.Tags() {
		dst = appendPlainTag(dst, tag)
	}
	return dst
}

func (f textLines) event(dst []byte, e *metric.Event) []byte {
	dst = f.head(dst, e.Time, "event", e.Title, "")
	dst = appendPlainField(dst, ": ", e.Text)
	dst = appendPlainField(dst, " priority=", e.Priority)
	dst = appendPlainField(dst, " alert_type=", e.AlertType)
	dst = appendPlainField(dst, " aggregation_key=", e.AggregationKey)
	dst = appendPlainField(dst, " source_type=", e.SourceType)
	dst = appendPlainField(dst, " host=", e.Host)
	for _, tag := range e.Tags {
		dst = appendPlainTag(dst, tag)
	}
	return dst
}

func (f textLines) check(dst []byte, c *metric.ServiceCheck) []byte {
	dst = f.head(dst, c.Time, "service_check", c.Name, "")
	dst = append(append(dst, ' '), c.Status.String()...)
	dst = appendPlainField(dst, ": ", c.Message)
	dst = appendPlainField(dst, " host=", c.Host)
	for _, tag := range c.Tags {
		dst = appendPlainTag(dst, tag)
	}
	return dst
}

// appendPlainField appends label and value, unless the value is empty.
func appendPlainField(dst []byte, label, value string) []byte {
	if value == "" {
		return dst
	}
	return appendPlain(append(dst, label...), value)
}

func appendPlainTag(dst []byte, tag string) []byte {
	if isResource(tag) {
		return dst
	}
	return appendPlain(append(dst, ' '), tag)
}
