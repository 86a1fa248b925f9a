// Package testkit holds what tests of several rooms need: a stand-in for
// Datadog's intake that takes apart every payload as the real one would.
//
// In: HTTP requests. Out: the points, events and service checks in them, or an answer that says what is
// wrong. It is no product code.
package testkit

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
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

	Resources []Resource // other than the host and the device, in order
}

// Resource is something else that a series belongs to.
type Resource struct{ Type, Name string }

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
	taken    content
	requests []Request
	problems []string
}

// content is what payloads hold.
type content struct {
	points   []Point
	sketches []Sketch
	events   []Event
	checks   []Check
}

func (c *content) count() int {
	return len(c.points) + len(c.sketches) + len(c.events) + len(c.checks)
}

func (c *content) add(more content) {
	c.points = append(c.points, more.points...)
	c.sketches = append(c.sketches, more.sketches...)
	c.events = append(c.events, more.events...)
	c.checks = append(c.checks, more.checks...)
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
	return slices.Clone(in.taken.points)
}

// Sketches returns the sketches received so far.
func (in *Intake) Sketches() []Sketch {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.taken.sketches)
}

// Events returns the events received so far.
func (in *Intake) Events() []Event {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.taken.events)
}

// Checks returns the service checks received so far.
func (in *Intake) Checks() []Check {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.taken.checks)
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

// Forget forgets what was received so far, but for the problems.
func (in *Intake) Forget() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken, in.requests = content{}, nil
}

// route is what the intake takes at a path: the limits are those that the Datadog
// Agent keeps to, in bytes and in points a request.
type route struct {
	compressed, uncompressed, points int
	decode                           decoders // by Content-Type
}

type decoders = map[string]func(raw []byte) (content, error)

var routes = map[string]route{
	"/api/v2/series":     {512_000, 5_242_880, 10_000, decoders{"application/x-protobuf": decodeSeriesPayload, "application/json": decodeSeriesJSON}},
	"/api/beta/sketches": {2_621_440, 4_194_304, 10_000, decoders{"application/x-protobuf": decodeSketchPayload}},
	"/api/v1/check_run":  {2_621_440, 4_194_304, 10_000, decoders{"application/json": decodeChecks}},
	"/intake/":           {2_621_440, 4_194_304, 10_000, decoders{"application/json": decodeEvents}},
}

// ServeHTTP takes a payload.
func (in *Intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && r.URL.Path == "/api/v1/validate" {
		in.validate(w, r)
		return
	}
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

// validate says whether a key is valid. Such requests are in no list, and have no
// faults.
func (in *Intake) validate(w http.ResponseWriter, r *http.Request) {
	valid := r.Header.Get("DD-Api-Key") == APIKey
	w.Header().Set("Content-Type", "application/json")
	if !valid {
		w.WriteHeader(http.StatusForbidden)
	}
	fmt.Fprintf(w, `{"valid":%t}`, valid)
}

func (in *Intake) take(r *http.Request, body []byte, seen *Request) (status int, problem string) {
	if r.Header.Get("DD-Api-Key") != APIKey {
		return http.StatusForbidden, "Forbidden"
	}
	route, known := routes[r.URL.Path]
	if !known || r.Method != http.MethodPost {
		return http.StatusNotFound, "no such route: " + r.Method + " " + r.URL.Path
	}
	decode := route.decode[r.Header.Get("Content-Type")]
	if decode == nil {
		return http.StatusUnsupportedMediaType, "Content-Type is " + r.Header.Get("Content-Type")
	}
	raw, err := decompress(r.Header.Get("Content-Encoding"), body)
	if err != nil {
		return http.StatusBadRequest, err.Error()
	}
	seen.Uncompressed = len(raw)
	if len(body) > route.compressed || len(raw) > route.uncompressed {
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("%d bytes, %d uncompressed", len(body), len(raw))
	}
	decoded, err := decode(raw)
	if err != nil {
		return http.StatusBadRequest, r.URL.Path + ": " + err.Error()
	}
	if n := decoded.count(); n > route.points {
		return http.StatusRequestEntityTooLarge, fmt.Sprintf("%d points", n)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.taken.add(decoded)
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
