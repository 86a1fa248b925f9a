package forwarder

import (
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// How a statsd forwarder writes tags.
const (
	TagsNone      = "none"      // not at all
	TagsDogStatsD = "dogstatsd" // name:1|c|#key:value,tag
	TagsInflux    = "influx"    // name,key=value,tag:1|c
	TagsGraphite  = "graphite"  // name;key=value;tag:1|c
	TagsSignalFx  = "signalfx"  // name[key=value,tag]:1|c
)

var tagStyles = []string{TagsNone, TagsDogStatsD, TagsInflux, TagsGraphite, TagsSignalFx}

func openStatsD(cfg *DestinationConfig, name string, shutdown time.Duration, log *slog.Logger) destination {
	r := newRelay(cfg, name, shutdown, log)
	size, style := r.packetBytes(cfg), cfg.TagStyle
	r.open = func() packetEncoder { return &statsD{size: size, style: style, log: r.log} }
	return r
}

// statsD makes packets of plain StatsD, as Etsy's server reads them: counts as
// counters, everything else as gauges. Of a distribution there are its count and the
// gauges that the logs forwarder has.
//
// StatsD knows no time: points that have one of their own are dropped, as are events
// and service checks.
type statsD struct {
	size  int // bytes in a packet
	style string
	log   *slog.Logger
	work  priority.Work

	packet []byte
	points uint64 // that end in packet
	lines  []byte // of one point
	tags   []string
}

func (d *statsD) close() {}

func (d *statsD) pack(b *metric.Batch, emit func([]byte, uint64, bool), drop func(uint64, DropReason)) {
	d.packet, d.points = d.packet[:0], 0
	d.work.Begin()
	defer d.work.End()
	var timed uint64
	for i := range b.Series {
		s := &b.Series[i]
		if s.Time != 0 {
			timed++
			continue
		}
		context := b.Context(s)
		d.tagsOf(b, context)
		d.lines = d.lines[:0]
		if s.Type == metric.GaugeType {
			d.gauge(context.Name(), s.Suffix.String(), s.Value)
		} else {
			d.line(context.Name(), s.Suffix.String(), countOf(s, b.Interval), "c")
		}
		d.add(1, context.Name(), emit, drop)
		d.work.Step()
	}
	for i := range b.Sketches {
		d.work.Step()
		d.sketch(b, &b.Sketches[i], emit, drop)
	}
	if len(d.packet) > 0 {
		emit(d.packet, d.points, untimed)
	}
	if unsupported := timed + uint64(len(b.Events)) + uint64(len(b.Checks)); unsupported > 0 {
		d.log.Warn("dropped points: StatsD has no words for them", "with_a_time", timed, "events", len(b.Events), "service_checks", len(b.Checks))
		drop(unsupported, DroppedUnsupported)
	}
}

// sketch writes a distribution. The point counts with the last of its lines.
func (d *statsD) sketch(b *metric.Batch, p *metric.SketchPoint, emit func([]byte, uint64, bool), drop func(uint64, DropReason)) {
	d.tagsOf(b, p.Context)
	name := p.Context.Name()
	longest := 0
	for _, v := range summaryOf(&p.Sketch) {
		d.lines = d.lines[:0]
		d.gauge(name, "."+v.name, v.value)
		longest = max(longest, len(d.lines))
	}
	if longest > d.size {
		d.tooLarge(name, drop)
		return
	}
	for _, v := range summaryOf(&p.Sketch) {
		d.lines = d.lines[:0]
		d.gauge(name, "."+v.name, v.value)
		d.add(0, name, emit, drop)
	}
	d.lines = d.lines[:0]
	d.line(name, ".count", float64(p.Sketch.Count), "c")
	d.add(1, name, emit, drop)
}

// add puts d.lines, which stay together, into the packet, after handing it over if they
// do not fit.
func (d *statsD) add(points uint64, name string, emit func([]byte, uint64, bool), drop func(uint64, DropReason)) {
	if len(d.lines) > d.size {
		d.tooLarge(name, drop)
		return
	}
	if len(d.packet)+len(d.lines) > d.size {
		emit(d.packet, d.points, untimed)
		d.packet, d.points = d.packet[:0], 0
	}
	d.packet = append(d.packet, d.lines...)
	d.points += points
}

func (d *statsD) tooLarge(name string, drop func(uint64, DropReason)) {
	d.log.Error("dropped a point: no packet can hold it", "name", name[:min(len(name), nameInLog)], "reason", DroppedTooLarge.String())
	drop(1, DroppedTooLarge)
}

// gauge appends a gauge to d.lines. A sign would make it a change: a negative value
// is a change from 0.
func (d *statsD) gauge(name, suffix string, value float64) {
	if value < 0 {
		d.line(name, suffix, 0, "g")
	}
	d.line(name, suffix, value, "g")
}

// line appends a line to d.lines.
func (d *statsD) line(name, suffix string, value float64, kind string) {
	d.lines = append(append(d.lines, name...), suffix...)
	switch d.style {
	case TagsInflux:
		d.tagsInName(',', ',')
	case TagsGraphite:
		d.tagsInName(';', ';')
	case TagsSignalFx:
		if len(d.tags) > 0 {
			d.tagsInName('[', ',')
			d.lines = append(d.lines, ']')
		}
	}
	d.lines = strconv.AppendFloat(append(d.lines, ':'), value, 'f', -1, 64)
	d.lines = append(append(d.lines, '|'), kind...)
	if d.style == TagsDogStatsD && len(d.tags) > 0 {
		d.lines = append(d.lines, "|#"...)
		for i, tag := range d.tags {
			if i > 0 {
				d.lines = append(d.lines, ',')
			}
			d.lines = append(d.lines, tag...)
		}
	}
	d.lines = append(d.lines, '\n')
}

// tagsInName appends the tags to a name, in which ":" and "|" would end it and
// others would end the tag.
func (d *statsD) tagsInName(first, next byte) {
	separator := first
	for _, tag := range d.tags {
		d.lines = append(d.lines, separator)
		separator = next
		key, value, both := strings.Cut(tag, ":")
		d.lines = appendInName(d.lines, key)
		if both {
			d.lines = appendInName(append(d.lines, '='), value)
		}
	}
}

func appendInName(dst []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; c {
		case ':', '|', '=', ',', ';', '[', ']':
			dst = append(dst, '_')
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// tagsOf sets d.tags to those of a context, with its host and device among them.
func (d *statsD) tagsOf(b *metric.Batch, c *metric.Context) {
	d.tags = d.tags[:0]
	if d.style == TagsNone {
		return
	}
	if host := c.Host(b.AgentHost); host != "" {
		d.tags = append(d.tags, "host:"+host)
	}
	if device := c.Device(); device != "" {
		d.tags = append(d.tags, "device:"+device)
	}
	for tag := range c.Tags() {
		if !isResource(tag) {
			d.tags = append(d.tags, tag)
		}
	}
}
