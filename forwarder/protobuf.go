package forwarder

import (
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weir-agent/weir/metric"
)

// The messages of Datadog's intake, as github.com/DataDog/agent-payload
// (proto/metrics/agent_payload.proto) defines them. A payload is its records one
// after the other, so it can be cut between any two. Fields with the zero value
// are left out.
//
//	MetricPayload { repeated MetricSeries series = 1 }
//	MetricSeries  { repeated Resource resources = 1; string metric = 2; repeated string tags = 3;
//	                repeated MetricPoint points = 4; MetricType type = 5; string unit = 6;
//	                int64 interval = 8; Metadata metadata = 9 }
//	Resource      { string type = 1; string name = 2 }
//	MetricPoint   { double value = 1; int64 timestamp = 2 }
//	Metadata      { Origin origin = 1 }
//	Origin        { uint32 origin_product = 4; uint32 origin_category = 5; uint32 origin_service = 6 }
//
//	SketchPayload { repeated Sketch sketches = 1; CommonMetadata metadata = 2 }
//	Sketch        { string metric = 1; string host = 2; repeated string tags = 4;
//	                repeated Dogsketch dogsketches = 7; Metadata metadata = 8 }
//	Dogsketch     { int64 ts = 1; int64 cnt = 2; double min = 3, max = 4, avg = 5, sum = 6;
//	                repeated sint32 k = 7; repeated uint32 n = 8 }
const (
	payloadRecord = 1

	seriesResources = 1
	seriesMetric    = 2
	seriesTags      = 3
	seriesPoints    = 4
	seriesType      = 5
	seriesUnit      = 6
	seriesInterval  = 8
	seriesMetadata  = 9

	resourceType = 1
	resourceName = 2

	pointValue     = 1
	pointTimestamp = 2

	sketchMetric   = 1
	sketchHost     = 2
	sketchTags     = 4
	sketchPoints   = 7
	sketchMetadata = 8

	dogsketchTime   = 1
	dogsketchCount  = 2
	dogsketchMin    = 3
	dogsketchMax    = 4
	dogsketchAvg    = 5
	dogsketchSum    = 6
	dogsketchKeys   = 7
	dogsketchCounts = 8
)

// originOfDogStatsD is a Metadata that says the metric came from DogStatsD:
// product 10 (agent), category 10 (DogStatsD), as the Datadog Agent sends it.
var originOfDogStatsD = func() []byte {
	const metadataOrigin, originProduct, originCategory = 1, 4, 5
	var origin []byte
	origin = appendVarint(origin, originProduct, 10)
	origin = appendVarint(origin, originCategory, 10)
	return appendBytes(nil, metadataOrigin, origin)
}()

// sketchTrailer is the empty CommonMetadata that ends a SketchPayload.
var sketchTrailer = appendBytes(nil, 2, nil)

// encoder appends records. It keeps memory for the messages inside a record,
// whose length must be known before they are written.
type encoder struct {
	record []byte
	inner  []byte
	extra  []byte // the resources that tags name
}

// series appends a payload's record of one series.
func (e *encoder) series(dst []byte, b *metric.Batch, s *metric.Series) []byte {
	r := e.record[:0]
	if host := s.Context.Host(b.AgentHost); host != "" {
		r = e.resource(r, "host", host)
	}
	if device := s.Context.Device(); device != "" {
		r = e.resource(r, "device", device)
	}
	resources := len(r)
	e.extra = e.extra[:0]
	r = protowire.AppendTag(r, seriesMetric, protowire.BytesType)
	name := validUTF8(s.Context.Name())
	r = protowire.AppendVarint(r, uint64(len(name)+len(s.Suffix)))
	r = append(append(r, name...), s.Suffix...)
	for tag := range s.Context.Tags() {
		if !isResource(tag) {
			r = appendString(r, seriesTags, tag)
		} else if kind, name, ok := resourceOf(tag); ok {
			e.extra = e.resource(e.extra, kind, name)
		}
	}
	if len(e.extra) > 0 {
		r = slices.Insert(r, resources, e.extra...)
	}
	e.inner = appendDouble(e.inner[:0], pointValue, s.Value)
	e.inner = appendVarint(e.inner, pointTimestamp, uint64(timeOf(s, b)))
	r = appendBytes(r, seriesPoints, e.inner)
	r = appendVarint(r, seriesType, uint64(s.Type))
	if unit := s.Unit(); unit != "" {
		r = appendString(r, seriesUnit, unit)
	}
	r = appendVarint(r, seriesInterval, uint64(b.Interval/time.Second))
	r = appendBytes(r, seriesMetadata, originOfDogStatsD)
	e.record = r
	return appendBytes(dst, payloadRecord, r)
}

// resource appends a series's field of one resource.
func (e *encoder) resource(dst []byte, kind, name string) []byte {
	e.inner = appendString(e.inner[:0], resourceType, kind)
	e.inner = appendString(e.inner, resourceName, name)
	return appendBytes(dst, seriesResources, e.inner)
}

// sketch appends a payload's record of one sketch.
func (e *encoder) sketch(dst []byte, b *metric.Batch, p *metric.SketchPoint) []byte {
	r := appendString(e.record[:0], sketchMetric, p.Context.Name())
	if host := p.Context.Host(b.AgentHost); host != "" {
		r = appendString(r, sketchHost, host)
	}
	// A sketch has no resources: the device stays a tag, the others are left out.
	if device := p.Context.Device(); device != "" {
		r = appendString(r, sketchTags, "device:"+device)
	}
	for tag := range p.Context.Tags() {
		if !isResource(tag) {
			r = appendString(r, sketchTags, tag)
		}
	}
	s := &p.Sketch
	d := appendVarint(e.inner[:0], dogsketchTime, uint64(b.Start.Unix()))
	d = appendVarint(d, dogsketchCount, uint64(s.Count))
	d = appendDouble(d, dogsketchMin, s.Min)
	d = appendDouble(d, dogsketchMax, s.Max)
	d = appendDouble(d, dogsketchAvg, s.Avg)
	d = appendDouble(d, dogsketchSum, s.Sum)
	d = appendPacked(d, dogsketchKeys, s.Keys, func(k int32) uint64 { return protowire.EncodeZigZag(int64(k)) })
	d = appendPacked(d, dogsketchCounts, s.Counts, func(n uint32) uint64 { return uint64(n) })
	r = appendBytes(r, sketchPoints, d)
	r = appendBytes(r, sketchMetadata, originOfDogStatsD)
	e.record, e.inner = r, d
	return appendBytes(dst, payloadRecord, r)
}

// validUTF8 returns s with what is not UTF-8 replaced by U+FFFD: a reader may refuse
// a whole payload for one such byte.
func validUTF8(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func appendVarint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func appendDouble(dst []byte, field protowire.Number, v float64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendFixed64(protowire.AppendTag(dst, field, protowire.Fixed64Type), math.Float64bits(v))
}

func appendString(dst []byte, field protowire.Number, s string) []byte {
	s = validUTF8(s)
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), s)
}

func appendBytes(dst []byte, field protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
}

func appendPacked[T int32 | uint32](dst []byte, field protowire.Number, values []T, encode func(T) uint64) []byte {
	size := 0
	for _, v := range values {
		size += protowire.SizeVarint(encode(v))
	}
	dst = protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.BytesType), uint64(size))
	for _, v := range values {
		dst = protowire.AppendVarint(dst, encode(v))
	}
	return dst
}
