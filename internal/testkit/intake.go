// Package testkit holds what tests of several rooms need: a stand-in for
// Datadog's intake that takes apart every payload as the real one would.
//
// In: HTTP requests. Out: the points in them, or an answer that says what is
// wrong. It is no product code.
package testkit

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
)

// Point is one point of a series as the intake understands it.
type Point struct {
	Metric   string
	Type     string // count, rate or gauge
	Time     int64
	Value    float64
	Interval int64
	Host     string
	Device   string
	Unit     string
	Tags     []string // sorted
	Origin   [3]uint64
}

// Key tells one series from another.
func (p *Point) Key() string {
	return fmt.Sprint(p.Metric, "\x00", p.Host, "\x00", p.Device, "\x00", strings.Join(p.Tags, "\x00"))
}

// Sketch is one point of a distribution as the intake understands it.
type Sketch struct {
	Metric             string
	Time               int64
	Count              int64
	Sum, Min, Max, Avg float64
	Keys               []int32
	Counts             []uint32
	Host               string
	Tags               []string // sorted
	Origin             [3]uint64
}

// APIKey is the key the intake accepts.
const APIKey = "0123456789abcdef0123456789abcdef"

// Intake stands in for Datadog's intake.
type Intake struct {
	*httptest.Server

	// Fault, if set, is asked before a request is looked at; a status other than
	// 0 is the answer. It is called by several goroutines.
	Fault func(*http.Request) (status int)

	mu       sync.Mutex // guards the fields below
	points   []Point
	sketches []Sketch
	requests []Request
	problems []string
}

// Request is what the intake saw of a request.
type Request struct {
	Path         string
	Header       http.Header
	Compressed   int // bytes
	Uncompressed int // bytes
	Status       int // of the answer
}

// NewIntake starts an intake that the test ends.
func NewIntake(tb testing.TB) *Intake {
	in := &Intake{}
	in.Server = httptest.NewServer(in)
	tb.Cleanup(in.Close)
	return in
}

// Points returns the points received so far.
func (in *Intake) Points() []Point {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.points)
}

// Sketches returns the sketches received so far.
func (in *Intake) Sketches() []Sketch {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.sketches)
}

// Requests returns the requests answered so far.
func (in *Intake) Requests() []Request {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.requests)
}

// Problems returns what was wrong with requests, other than what Fault made
// up. A test of well-behaved code finds none.
func (in *Intake) Problems() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.problems)
}

// The limits that the Datadog Agent keeps to: bytes, and points in a request.
var limitsOf = map[string]struct{ compressed, uncompressed, points int }{
	"/api/v2/series":     {512_000, 5_242_880, 10_000},
	"/api/beta/sketches": {2_621_440, 4_194_304, 10_000},
}

// ServeHTTP takes a payload.
func (in *Intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client went away
	}
	seen := Request{Path: r.URL.Path, Header: r.Header.Clone(), Compressed: len(body)}
	status, problem := 0, ""
	if in.Fault != nil {
		status = in.Fault(r)
	}
	if status == 0 {
		status, problem = in.take(r, body, &seen)
	}
	seen.Status = status
	in.mu.Lock()
	in.requests = append(in.requests, seen)
	if problem != "" {
		in.problems = append(in.problems, problem)
	}
	in.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[%q]}`, problem)
}

func (in *Intake) take(r *http.Request, body []byte, seen *Request) (status int, problem string) {
	if r.Header.Get("DD-Api-Key") != APIKey {
		return http.StatusForbidden, "Forbidden"
	}
	limits, known := limitsOf[r.URL.Path]
	if !known || r.Method != http.MethodPost {
		return http.StatusNotFound, "no such route: " + r.Method + " " + r.URL.Path
	}
	if got := r.Header.Get("Content-Type"); got != "application/x-protobuf" {
		return http.StatusUnsupportedMediaType, "Content-Type is " + got
	}
	raw, err := decompress(r.Header.Get("Content-Encoding"), body)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	seen.Uncompressed = len(raw)
	if len(body) > limits.compressed || len(raw) > limits.uncompressed {
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("%d bytes, %d uncompressed", len(body), len(raw))
	}
	var points []Point
	var sketches []Sketch
	err = fields(raw, func(f field) error {
		switch {
		case f.number != 1:
			return nil
		case r.URL.Path == "/api/v2/series":
			decoded, err := decodeSeries(f.bytes)
			points = append(points, decoded...)
			return err
		default:
			decoded, err := decodeSketch(f.bytes)
			sketches = append(sketches, decoded...)
			return err
		}
	})
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	if n := len(points) + len(sketches); n > limits.points {
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("%d points", n)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.points = append(in.points, points...)
	in.sketches = append(in.sketches, sketches...)
	return http.StatusAccepted, ""
}

func decompress(encoding string, body []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch encoding {
	case "":
		return body, nil
	case "zstd":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(bytes.NewReader(body)); err == nil {
			defer d.Close()
			r = d
		}
	case "gzip":
		r, err = gzip.NewReader(bytes.NewReader(body))
	case "deflate":
		r, err = zlib.NewReader(bytes.NewReader(body))
	default:
		return nil, fmt.Errorf("Content-Encoding is %q", encoding)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

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
	switch kind {
	case "host":
		p.Host = name
	case "device":
		p.Device = name
	default:
		return fmt.Errorf("a resource of type %q", kind)
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
