package forwarder

import (
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

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

// encoder appends records. It must be told of each batch before.
//
// What is the same in all records of a batch is kept as it stands in them.
type encoder struct {
	host   []byte // the resource that is the agent's host
	ending []byte // the interval and the metadata of a series
	extra  []byte // the resources that tags of a series name
}

// begin makes ready for the records of a batch.
func (e *encoder) begin(b *metric.Batch) {
	e.host = appendResource(e.host[:0], "host", validUTF8(b.AgentHost))
	e.ending = appendVarint(e.ending[:0], seriesInterval, uint64(b.Interval/time.Second))
	e.ending = appendBytes(e.ending, seriesMetadata, originOfDogStatsD)
}

// inUTF8 returns c, or what it is with bytes replaced that are not UTF-8. A key is
// valid exactly if its parts are, as line feeds separate them.
func inUTF8(c *metric.Context) *metric.Context {
	if utf8.ValidString(c.Key()) {
		return c
	}
	return metric.NewContext([]byte(validUTF8(c.Key())))
}

// series appends a payload's record of one series.
func (e *encoder) series(dst []byte, b *metric.Batch, s *metric.Series) []byte {
	c := inUTF8(b.Context(s))
	dst, from := openField(dst, payloadRecord)
	if host, explicit := c.ExplicitHost(); !explicit {
		dst = append(dst, e.host...)
	} else {
		dst = appendResource(dst, "host", host)
	}
	dst = appendResource(dst, "device", c.Device())
	resources := len(dst)
	e.extra = e.extra[:0]
	name := c.Name()
	dst = appendLength(append(dst, seriesMetric<<3|uint8(protowire.BytesType)), len(name)+len(s.Suffix.String()))
	dst = append(append(dst, name...), s.Suffix.String()...)
	for tag := range c.Tags() {
		if !isResource(tag) {
			dst = appendText(dst, seriesTags, tag)
		} else if kind, name, ok := resourceOf(tag); ok {
			e.extra = appendResource(e.extra, kind, name)
		}
	}
	if len(e.extra) > 0 {
		dst = slices.Insert(dst, resources, e.extra...)
	}
	dst, point := openField(dst, seriesPoints)
	dst = appendDouble(dst, pointValue, s.Value)
	dst = appendVarint(dst, pointTimestamp, uint64(timeOf(s, b)))
	dst = closeField(dst, point)
	dst = appendVarint(dst, seriesType, uint64(s.Type))
	if unit := s.Unit(c); unit != "" {
		dst = appendText(dst, seriesUnit, unit)
	}
	return closeField(append(dst, e.ending...), from)
}

// appendResource appends a series's field of one resource, if it has a name. All must
// be UTF-8.
func appendResource(dst []byte, kind, name string) []byte {
	if name == "" {
		return dst
	}
	dst, from := openField(dst, seriesResources)
	dst = appendText(dst, resourceType, kind)
	dst = appendText(dst, resourceName, name)
	return closeField(dst, from)
}

// sketch appends a payload's record of one sketch.
func (e *encoder) sketch(dst []byte, b *metric.Batch, p *metric.SketchPoint) []byte {
	c := inUTF8(p.Context)
	dst, from := openField(dst, payloadRecord)
	dst = appendText(dst, sketchMetric, c.Name())
	if host := c.Host(b.AgentHost); host != "" {
		dst = appendText(dst, sketchHost, validUTF8(host))
	}
	// A sketch has no resources: the device stays a tag, the others are left out.
	if device := c.Device(); device != "" {
		dst = appendLength(append(dst, sketchTags<<3|uint8(protowire.BytesType)), len("device:")+len(device))
		dst = append(append(dst, "device:"...), device...)
	}
	for tag := range c.Tags() {
		if !isResource(tag) {
			dst = appendText(dst, sketchTags, tag)
		}
	}
	s := &p.Sketch
	dst, point := openField(dst, sketchPoints)
	dst = appendVarint(dst, dogsketchTime, uint64(b.Start.Unix()))
	dst = appendVarint(dst, dogsketchCount, uint64(s.Count))
	dst = appendDouble(dst, dogsketchMin, s.Min)
	dst = appendDouble(dst, dogsketchMax, s.Max)
	dst = appendDouble(dst, dogsketchAvg, s.Avg)
	dst = appendDouble(dst, dogsketchSum, s.Sum)
	dst, packed := openField(dst, dogsketchKeys)
	for _, key := range s.Keys {
		dst = appendUint32(dst, uint32(key)<<1^uint32(key>>31)) // as a sint32
	}
	dst = closeField(dst, packed)
	dst, packed = openField(dst, dogsketchCounts)
	for _, n := range s.Counts {
		dst = appendUint32(dst, n)
	}
	dst = closeField(dst, packed)
	dst = closeField(dst, point)
	dst = appendBytes(dst, sketchMetadata, originOfDogStatsD)
	return closeField(dst, from)
}

// openField begins a field whose length is not known yet; closeField ends it, given
// where its content begins. There is room for a length of 128 to 16,383, that of most
// records and lists; for others the content is moved.
func openField(dst []byte, field uint8) (_ []byte, from int) {
	dst = append(dst, field<<3|uint8(protowire.BytesType), 0, 0)
	return dst, len(dst)
}

func closeField(dst []byte, from int) []byte {
	n := len(dst) - from
	switch {
	case n < 1<<7:
		copy(dst[from-1:], dst[from:])
		dst = dst[:len(dst)-1]
		dst[from-2] = byte(n)
	case n < 1<<14:
		dst[from-2], dst[from-1] = byte(n)|1<<7, byte(n>>7)
	default:
		more := protowire.SizeVarint(uint64(n)) - 2
		dst = append(dst, make([]byte, more)...)
		copy(dst[from+more:], dst[from:from+n])
		protowire.AppendVarint(dst[:from-2], uint64(n))
	}
	return dst
}

// appendUint32 is protowire.AppendVarint for what mostly is short.
func appendUint32(dst []byte, v uint32) []byte {
	switch {
	case v < 1<<7:
		return append(dst, byte(v))
	case v < 1<<14:
		return append(dst, byte(v)|1<<7, byte(v>>7))
	}
	return protowire.AppendVarint(dst, uint64(v))
}

func appendLength(dst []byte, n int) []byte {
	if n < 1<<7 {
		return append(dst, byte(n))
	}
	return protowire.AppendVarint(dst, uint64(n))
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

// appendText appends a field of a text, which must be UTF-8. The field's number is
// below 16.
func appendText(dst []byte, field uint8, s string) []byte {
	return append(appendLength(append(dst, field<<3|uint8(protowire.BytesType)), len(s)), s...)
}

func appendBytes(dst []byte, field protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
}
