package forwarder

import (
	"log/slog"
	"time"

	"github.com/weir-agent/weir/internal/priority"
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
	path        string // of the URL; behind a "#", which is not sent, what tells it from another with the same URL
	contentType string
	limits      limits

	inOrder bool // the oldest goes first, always
}

const (
	typeProtobuf = "application/x-protobuf"
	typeJSON     = "application/json"
)

var (
	seriesRoute     = route{path: "/api/v2/series", contentType: typeProtobuf, limits: seriesLimits}
	seriesJSONRoute = route{path: "/api/v2/series#json", contentType: typeJSON, limits: seriesLimits}
	sketchRoute     = route{path: "/api/beta/sketches", contentType: typeProtobuf, limits: otherLimits}
	checkRoute      = route{path: "/api/v1/check_run", contentType: typeJSON, limits: otherLimits}
	eventRoute      = route{path: "/intake/", contentType: typeJSON, limits: otherLimits}
)

// routes are all of them; in a spool a route is named by its path.
var routes = [...]*route{&seriesRoute, &seriesJSONRoute, &sketchRoute, &checkRoute, &eventRoute, &timedRoute, &untimedRoute}

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

// packer cuts a batch into payloads, one after the other: in memory are a piece of
// records and the body that it is to go into. It is used by one goroutine.
//
// Records are compressed by the piece, and after each piece it is known how large
// the body has become. A piece that is too much is taken back, and the next payload
// begins with it.
type packer struct {
	encoder  encoder
	body     *body
	encoding string // of bodies, as Content-Encoding says it
	log      *slog.Logger

	seriesAsJSON bool

	work  priority.Work
	emit  func(payload)
	drop  func(points uint64, why DropReason)
	start time.Time

	raw    []byte // the piece: records of one section, each with what stands before it
	spans  []span // of the records in raw
	first  int    // number of the first of them in its section
	points int    // in the body
	prefix []byte // what the body begins with
}

// span is where a record is, and what separates it from the one before.
type span struct{ separator, from, to int }

// Bytes of records in a piece. The less room there is in the body, the smaller is the
// piece, so that what does not shrink fits, down to least: a payload is full to that,
// if its records are no larger themselves.
const (
	mostInPiece  = 64 << 10
	leastInPiece = 16 << 10
)

// nameInLog is how many bytes of a name the log shows.
const nameInLog = 200

func newPacker(compression string, log *slog.Logger) (*packer, error) {
	b, err := newBody(compression)
	if err != nil {
		return nil, err
	}
	return &packer{body: b, encoding: contentEncoding(compression), log: log}, nil
}

// pack hands the payloads of a batch to emit, and calls drop for points that fit
// into none.
func (p *packer) pack(b *metric.Batch, emit func(payload), drop func(points uint64, why DropReason)) {
	p.work.Begin()
	defer p.work.End()
	p.start, p.emit, p.drop = b.Start, emit, drop
	p.encoder.begin(b)
	for _, s := range [...]section{
		p.seriesSection(b),
		p.sketchSection(b),
		checkSection(b.Checks),
		eventSection(b.Events, b.AgentHost),
	} {
		p.packSection(&s)
	}
}

// seriesSection writes series in the form that is configured.
func (p *packer) seriesSection(b *metric.Batch) section {
	s := section{
		route: &seriesRoute, n: len(b.Series), noun: "metric",
		append: func(dst []byte, i int) []byte { return p.encoder.series(dst, b, &b.Series[i]) },
		name:   func(i int) string { return b.Context(&b.Series[i]).Name() + b.Series[i].Suffix.String() },
	}
	if p.seriesAsJSON {
		s.route = &seriesJSONRoute
		s.append = func(dst []byte, i int) []byte { return p.encoder.seriesJSON(dst, b, &b.Series[i]) }
		s.before, s.after = beforeSeriesJSON, afterSeriesJSON
	}
	return s
}

func (p *packer) sketchSection(b *metric.Batch) section {
	return section{
		route: &sketchRoute, n: len(b.Sketches), noun: "metric",
		append: func(dst []byte, i int) []byte { return p.encoder.sketch(dst, b, &b.Sketches[i]) },
		after:  sketchTrailer,
		name:   func(i int) string { return b.Sketches[i].Context.Name() },
	}
}

// packSection gathers records into payloads within the limits of their route.
//
// Hot path: once a record. No allocation but for the payloads; TestPackDoesNotAllocate
// checks that.
func (p *packer) packSection(s *section) {
	most := &s.route.limits
	p.raw, p.spans, p.first = p.raw[:0], p.spans[:0], 0
	room := 0
	for i := range s.n {
		p.work.Step()
		separator := len(p.raw)
		if i > 0 && s.before != nil {
			p.raw = s.before(p.raw, i, false)
		}
		from := len(p.raw)
		p.raw = s.append(p.raw, i)
		p.spans = append(p.spans, span{separator, from, len(p.raw)})
		last := len(p.spans) - 1
		if last > 0 && (len(p.raw) > room || p.size(s, 0, last+1) > most.uncompressed) {
			p.place(s, 0, last)
			p.raw = append(p.raw[:0], p.raw[separator:]...) // to the front
			p.spans, p.first = append(p.spans[:0], span{0, from - separator, len(p.raw)}), i
			last = 0
		}
		if last == 0 {
			room = p.room(s)
			p.setPrefix(s, 0)
		}
		if p.points+len(p.spans) == most.points {
			p.place(s, 0, len(p.spans))
			p.raw, p.spans, p.first = p.raw[:0], p.spans[:0], i+1
			if p.points == most.points {
				p.finish(s)
			}
		}
	}
	p.place(s, 0, len(p.spans))
	p.finish(s)
}

// room returns how large the next piece may become.
func (p *packer) room(s *section) int {
	const headers = 64 // of a piece that does not shrink
	left := s.route.limits.compressed - p.body.ending(len(s.after)) - headers
	if p.points > 0 {
		left -= p.body.length
	}
	return max(min(left, mostInPiece), leastInPiece)
}

// setPrefix sets what stands before a record of the piece if it is the first of its
// payload.
func (p *packer) setPrefix(s *section, record int) {
	p.prefix = p.prefix[:0]
	if p.points == 0 && s.before != nil {
		p.prefix = s.before(p.prefix, p.first+record, true)
	}
}

// size returns what the payload has uncompressed with the records from..to of the
// piece; the prefix must be that of from.
func (p *packer) size(s *section, from, to int) int {
	end := p.spans[to-1].to + len(s.after)
	if p.points == 0 {
		return len(p.prefix) + end - p.spans[from].from
	}
	return p.body.size + end - p.spans[from].separator
}

// place puts the records from..to of the piece into the payload, or, if that is too
// much for it, into the next. What does not fit into any is dropped.
func (p *packer) place(s *section, from, to int) {
	for from < to && !p.add(s, from, to) {
		switch {
		case p.points > 0:
			p.finish(s)
		case to-from == 1:
			name := s.name(p.first + from)
			p.log.Error("dropped a point: it alone is larger than the intake takes", s.noun, name[:min(len(name), nameInLog)])
			p.drop(1, DroppedTooLarge)
			return
		default: // what begins the payload is huge
			middle := (from + to) / 2
			p.place(s, from, middle)
			from = middle
		}
	}
}

// add puts the records from..to of the piece into the payload, if they fit.
func (p *packer) add(s *section, from, to int) bool {
	p.setPrefix(s, from)
	if p.size(s, from, to) > s.route.limits.uncompressed {
		return false
	}
	records := p.raw[p.spans[from].separator:p.spans[to-1].to]
	if p.points == 0 {
		records = p.raw[p.spans[from].from:p.spans[to-1].to]
		p.body.begin()
	}
	before := p.body.bodyState
	p.body.add(p.prefix, records)
	p.work.Yield()
	if p.body.length+p.body.ending(len(s.after)) > s.route.limits.compressed {
		p.body.takeBack(before)
		return false
	}
	p.points += to - from
	return true
}

// finish hands the payload on, if there is anything in it.
func (p *packer) finish(s *section) {
	if p.points == 0 {
		return
	}
	p.emit(payload{route: s.route, encoding: p.encoding, body: append([]byte(nil), p.body.end(s.after)...), points: uint64(p.points), start: p.start})
	p.points = 0
}
