package forwarder

import (
	"log/slog"
	"time"

	"github.com/weir-agent/weir/metric"
)

// limits are what the intake takes in one request.
type limits struct {
	compressed   int
	uncompressed int
	points       int
}

// The limits of the Datadog Agent. Those of series are the intake's as well; of
// the others the Agent bounds only the bytes.
var (
	seriesLimits = limits{compressed: 512_000, uncompressed: 5_242_880, points: 10_000}
	otherLimits  = limits{compressed: 2_621_440, uncompressed: 4_194_304, points: 10_000}
)

// route is where a payload goes and what it must look like.
type route struct {
	path        string
	contentType string
	limits      limits

	inOrder bool // the oldest goes first, always
}

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

var (
	seriesRoute = route{path: "/api/v2/series", contentType: typeProtobuf, limits: seriesLimits}
	sketchRoute = route{path: "/api/beta/sketches", contentType: typeProtobuf, limits: otherLimits}
	checkRoute  = route{path: "/api/v1/check_run", contentType: typeJSON, limits: otherLimits}
	eventRoute  = route{path: "/intake/", contentType: typeJSON, limits: otherLimits}
)

// routes are all of them; in a spool a route is named by its path.
var routes = [...]*route{&seriesRoute, &sketchRoute, &checkRoute, &eventRoute, &timedRoute, &untimedRoute}

// section is the part of a batch that goes by one route: records that can be cut
// into payloads between any two.
type section struct {
	route  *route
	n      int                            // how many records
	append func(dst []byte, i int) []byte // appends record i

	// before appends what stands between record i and the one before it or, if
	// record i is the first of its payload, what the payload begins with. nil:
	// nothing in either case.
	before func(dst []byte, i int, first bool) []byte
	after  []byte // what a payload ends with

	noun string             // what a record is, for the log
	name func(i int) string // which one record i is, for the log
}

// payload is the body of one request.
type payload struct {
	route    *route
	encoding string // of the body, as Content-Encoding says it
	body     []byte // compressed; never changed, as several endpoints may have it
	points   uint64
	start    time.Time // of the interval its points belong to
}

// packer cuts a batch into payloads. It is used by one goroutine.
type packer struct {
	encoder    encoder
	compressor compressor
	encoding   string // that goes with the compressor
	log        *slog.Logger

	raw   []byte // records of one section, and what stands between them
	spans []span // of the records in raw
	first int    // number of the first of them in its section
	start time.Time
	whole []byte // raw with what begins and ends a payload
	out   []byte // compressed

	// ratio is how much smaller the last payloads of a route became, to guess how
	// many records fit into one.
	ratio map[*route]float64
}

// span is where a record is.
type span struct{ from, to int }

// nameInLog is how many bytes of a name the log shows.
const nameInLog = 200

func newPacker(compression string, log *slog.Logger) (*packer, error) {
	z, err := newCompressor(compression)
	if err != nil {
		return nil, err
	}
	return &packer{compressor: z, encoding: contentEncoding(compression), log: log, ratio: map[*route]float64{}}, nil
}

// pack hands the payloads of a batch to emit, and calls drop for points that fit
// into none.
func (p *packer) pack(b *metric.Batch, emit func(payload), drop func(points uint64, why DropReason)) {
	p.start = b.Start
	for _, s := range [...]section{
		{
			route: &seriesRoute, n: len(b.Series), noun: "metric",
			append: func(dst []byte, i int) []byte { return p.encoder.series(dst, b, &b.Series[i]) },
			name:   func(i int) string { return b.Series[i].Context.Name() + b.Series[i].Suffix },
		},
		{
			route: &sketchRoute, n: len(b.Sketches), noun: "metric",
			append: func(dst []byte, i int) []byte { return p.encoder.sketch(dst, b, &b.Sketches[i]) },
			after:  sketchTrailer,
			name:   func(i int) string { return b.Sketches[i].Context.Name() },
		},
		checkSection(b.Checks),
		eventSection(b.Events, b.AgentHost),
	} {
		p.packSection(&s, emit, drop)
	}
}

// packSection gathers records into payloads within the limits of their route.
func (p *packer) packSection(s *section, emit func(payload), drop func(points uint64, why DropReason)) {
	p.raw, p.spans, p.first = p.raw[:0], p.spans[:0], 0
	room := p.room(s.route)
	for i := range s.n {
		if len(p.spans) > 0 && s.before != nil {
			p.raw = s.before(p.raw, i, false)
		}
		from := len(p.raw)
		p.raw = s.append(p.raw, i)
		if len(p.spans) > 0 && len(p.raw) > room || len(p.spans) == s.route.limits.points {
			record := append([]byte(nil), p.raw[from:]...)
			p.seal(s, 0, len(p.spans), emit, drop)
			p.raw, p.spans, p.first, from = append(p.raw[:0], record...), p.spans[:0], i, 0
			room = p.room(s.route)
		}
		p.spans = append(p.spans, span{from, len(p.raw)})
	}
	if len(p.spans) > 0 {
		p.seal(s, 0, len(p.spans), emit, drop)
	}
}

// room guesses how many bytes of records fit into a payload; seal mends what does
// not.
func (p *packer) room(r *route) int {
	const (
		firstRatio = 5
		caution    = 0.9
	)
	ratio, known := p.ratio[r]
	if !known {
		ratio = firstRatio
	}
	return min(r.limits.uncompressed, int(caution*ratio*float64(r.limits.compressed)))
}

// seal compresses the records from..to of raw into one payload, or in halves if
// that is too large.
func (p *packer) seal(s *section, from, to int, emit func(payload), drop func(points uint64, why DropReason)) {
	raw := p.raw[p.spans[from].from:p.spans[to-1].to]
	p.whole = p.whole[:0]
	if s.before != nil {
		p.whole = s.before(p.whole, p.first+from, true)
	}
	if len(p.whole)+len(s.after) > 0 {
		p.whole = append(append(p.whole, raw...), s.after...)
		raw = p.whole
	}
	fits := len(raw) <= s.route.limits.uncompressed
	if fits {
		var err error
		if p.out, err = p.compressor.compress(p.out[:0], raw); err != nil {
			panic("BUG: compressing into memory: " + err.Error())
		}
		if len(raw) > 64<<10 { // less says little about a full payload
			p.ratio[s.route] = float64(len(raw)) / float64(len(p.out))
		}
		fits = len(p.out) <= s.route.limits.compressed
	}
	switch {
	case fits:
		emit(payload{route: s.route, encoding: p.encoding, body: append([]byte(nil), p.out...), points: uint64(to - from), start: p.start})
	case to-from == 1:
		name := s.name(p.first + from)
		p.log.Error("dropped a point: it alone is larger than the intake takes", s.noun, name[:min(len(name), nameInLog)])
		drop(1, DroppedTooLarge)
	default:
		middle := (from + to) / 2
		p.seal(s, from, middle, emit, drop)
		p.seal(s, middle, to, emit, drop)
	}
}
