package testkit

import (
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a protobuf message.
type field struct {
	number protowire.Number
	varint uint64
	double float64
	bytes  []byte
}

// fields calls one for each field of a message.
func fields(message []byte, one func(field) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		f := field{number: number}
		switch kind {
		case protowire.VarintType:
			f.varint, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			var bits uint64
			bits, n = protowire.ConsumeFixed64(message)
			f.double = math.Float64frombits(bits)
		case protowire.BytesType:
			f.bytes, n = protowire.ConsumeBytes(message)
		default:
			return fmt.Errorf("field %d has wire type %d", number, kind)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if err := one(f); err != nil {
			return err
		}
	}
	return nil
}

func decodeSeriesPayload(raw []byte) (c content, err error) {
	err = records(raw, func(record []byte) error {
		points, err := decodeSeries(record)
		c.points = append(c.points, points...)
		return err
	})
	return c, err
}

func decodeSketchPayload(raw []byte) (c content, err error) {
	err = records(raw, func(record []byte) error {
		sketches, err := decodeSketch(record)
		c.sketches = append(c.sketches, sketches...)
		return err
	})
	return c, err
}

// records calls one for each record of a payload.
func records(payload []byte, one func(record []byte) error) error {
	return fields(payload, func(f field) error {
		if f.number != 1 {
			return nil
		}
		return one(f.bytes)
	})
}

func decodeSeries(message []byte) ([]Point, error) {
	var p Point
	var values []Point
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			return decodeResource(f.bytes, &p)
		case 2:
			p.Metric = string(f.bytes)
		case 3:
			p.Tags = append(p.Tags, string(f.bytes))
		case 4:
			v, err := decodePoint(f.bytes)
			values = append(values, v)
			return err
		case 5:
			types := [...]string{"unspecified", "count", "rate", "gauge"}
			if f.varint >= uint64(len(types)) {
				return fmt.Errorf("type is %d", f.varint)
			}
			p.Type = types[f.varint]
		case 6:
			p.Unit = string(f.bytes)
		case 8:
			p.Interval = int64(f.varint)
		case 9:
			return decodeOrigin(f.bytes, &p.Origin)
		default:
			return fmt.Errorf("a series has a field %d", f.number)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if text := fmt.Sprint(p.Metric, p.Host, p.Device, p.Tags, p.Resources); !utf8.ValidString(text) {
		return nil, fmt.Errorf("a series has text that is not UTF-8: %q", text)
	}
	slices.Sort(p.Tags)
	var points []Point
	for _, v := range values {
		point := p
		point.Value, point.Time = v.Value, v.Time
		switch {
		case p.Metric == "" || p.Type == "":
			return nil, fmt.Errorf("a series without name or type: %+v", p)
		case math.IsNaN(v.Value) || math.IsInf(v.Value, 0):
			return nil, fmt.Errorf("%s has the value %v", p.Metric, v.Value)
		case v.Time == 0:
			return nil, fmt.Errorf("%s has no time", p.Metric)
		}
		points = append(points, point)
	}
	if len(points) == 0 {
		return nil, fmt.Errorf("%s has no points", p.Metric)
	}
	return points, nil
}

func decodeResource(message []byte, p *Point) error {
	kind, name := "", ""
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			kind = string(f.bytes)
		case 2:
			name = string(f.bytes)
		}
		return nil
	})
	switch {
	case kind == "" || name == "":
		return fmt.Errorf("a resource of type %q named %q", kind, name)
	case p.Metric != "" || len(p.Tags) > 0:
		return fmt.Errorf("the resource %s:%s stands behind the name or a tag", kind, name)
	case kind == "host" && p.Host == "":
		p.Host = name
	case kind == "device" && p.Device == "":
		p.Device = name
	default:
		p.Resources = append(p.Resources, Resource{kind, name})
	}
	return err
}

func decodePoint(message []byte) (p Point, err error) {
	err = fields(message, func(f field) error {
		switch f.number {
		case 1:
			p.Value = f.double
		case 2:
			p.Time = int64(f.varint)
		}
		return nil
	})
	return p, err
}

func decodeSketch(message []byte) ([]Sketch, error) {
	var s Sketch
	var sketches []Sketch
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			s.Metric = string(f.bytes)
		case 2:
			s.Host = string(f.bytes)
		case 4:
			s.Tags = append(s.Tags, string(f.bytes))
		case 7:
			one, err := decodeDogsketch(f.bytes)
			sketches = append(sketches, one)
			return err
		case 8:
			return decodeOrigin(f.bytes, &s.Origin)
		default:
			return fmt.Errorf("a sketch has a field %d", f.number)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if text := fmt.Sprint(s.Metric, s.Host, s.Tags); !utf8.ValidString(text) {
		return nil, fmt.Errorf("a sketch has text that is not UTF-8: %q", text)
	}
	slices.Sort(s.Tags)
	for i := range sketches {
		sketches[i].Metric, sketches[i].Host, sketches[i].Tags, sketches[i].Origin = s.Metric, s.Host, s.Tags, s.Origin
	}
	if len(sketches) == 0 || s.Metric == "" {
		return nil, fmt.Errorf("a sketch without name or points: %+v", s)
	}
	return sketches, nil
}

func decodeDogsketch(message []byte) (Sketch, error) {
	var s Sketch
	err := fields(message, func(f field) error {
		switch f.number {
		case 1:
			s.Time = int64(f.varint)
		case 2:
			s.Count = int64(f.varint)
		case 3:
			s.Min = f.double
		case 4:
			s.Max = f.double
		case 5:
			s.Avg = f.double
		case 6:
			s.Sum = f.double
		case 7:
			return packed(f.bytes, func(v uint64) { s.Keys = append(s.Keys, int32(protowire.DecodeZigZag(v))) })
		case 8:
			return packed(f.bytes, func(v uint64) { s.Counts = append(s.Counts, uint32(v)) })
		default:
			return fmt.Errorf("a dogsketch has a field %d", f.number)
		}
		return nil
	})
	if err == nil && (s.Count <= 0 || s.Time == 0 || len(s.Keys) == 0 || len(s.Keys) != len(s.Counts) || !slices.IsSorted(s.Keys)) {
		err = fmt.Errorf("a dogsketch that makes no sense: %+v", s)
	}
	return s, err
}

func packed(message []byte, one func(uint64)) error {
	for len(message) > 0 {
		v, n := protowire.ConsumeVarint(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		one(v)
		message = message[n:]
	}
	return nil
}

func decodeOrigin(metadata []byte, origin *[3]uint64) error {
	return fields(metadata, func(f field) error {
		if f.number != 1 {
			return fmt.Errorf("metadata has a field %d", f.number)
		}
		return fields(f.bytes, func(f field) error {
			if i := int(f.number) - 4; i >= 0 && i < len(origin) {
				origin[i] = f.varint
			}
			return nil
		})
	})
}
