package forwarder

import (
	"fmt"
	"log/slog"

	"github.com/klauspost/compress/zstd"

	"github.com/weir-agent/weir/metric"
)

// limits are what the intake takes in one request.
type limits struct {
	compressed   int
	uncompressed int
	points       int
}

// The limits of the Datadog Agent. Those of series are the intake's as well; for
// sketches the Agent bounds only the bytes.
var (
	seriesLimits = limits{compressed: 512_000, uncompressed: 5_242_880, points: 10_000}
	sketchLimits = limits{compressed: 2_621_440, uncompressed: 4_194_304, points: 10_000}
)

// route is where a payload goes and what it must look like.
type route struct {
	path    string
	limits  limits
	trailer []byte // behind the records
}

var (
	seriesRoute = route{path: "/api/v2/series", limits: seriesLimits}
	sketchRoute = route{path: "/api/beta/sketches", limits: sketchLimits, trailer: sketchTrailer}
)

// payload is the body of one request.
type payload struct {
	route  *route
	body   []byte // compressed
	points uint64
}

// packer cuts a batch into payloads. It is used by one goroutine.
type packer struct {
	encoder encoder
	zstd    *zstd.Encoder
	log     *slog.Logger

	raw  []byte
	ends []int // of the records in raw
	out  []byte

	// ratio is how much smaller the last payloads became, to guess how many
	// records fit into one.
	ratio float64
}

func newPacker(log *slog.Logger) (*packer, error) {
	// One goroutine, little memory: an agent is a guest on its host.
	compressor, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make a compressor: %w", err)
	}
	return &packer{zstd: compressor, log: log, ratio: 5}, nil
}

// pack hands the payloads of a batch to emit, and calls drop for points that fit
// into none.
func (p *packer) pack(b *metric.Batch, emit func(payload), drop func(points uint64, why DropReason)) {
	packRecords(p, &seriesRoute, len(b.Series), func(dst []byte, i int) []byte {
		return p.encoder.series(dst, b, &b.Series[i])
	}, func(i int) string { return b.Series[i].Context.Name() + b.Series[i].Suffix }, emit, drop)
	packRecords(p, &sketchRoute, len(b.Sketches), func(dst []byte, i int) []byte {
		return p.encoder.sketch(dst, b, &b.Sketches[i])
	}, func(i int) string { return b.Sketches[i].Context.Name() }, emit, drop)
}

// packRecords gathers n records into payloads within the limits of a route.
func packRecords(p *packer, r *route, n int, encode func(dst []byte, i int) []byte, name func(i int) string,
	emit func(payload), drop func(points uint64, why DropReason),
) {
	first := 0
	seal := func(next int) {
		p.seal(r, 0, len(p.ends), emit, func(i int) {
			p.log.Error("dropped a point: it alone is larger than the intake takes", "metric", name(first+i))
			drop(1, DroppedTooLarge)
		})
		p.raw, p.ends, first = p.raw[:0], p.ends[:0], next
	}
	for i := range n {
		before := len(p.raw)
		p.raw = encode(p.raw, i)
		room := r.limits.uncompressed - len(r.trailer)
		// Nine tenths, since the ratio is a guess; seal mends what does not fit.
		guess := int(0.9 * p.ratio * float64(r.limits.compressed))
		if before > 0 && len(p.raw) > min(room, guess) || len(p.ends) == r.limits.points {
			record := append([]byte(nil), p.raw[before:]...)
			p.raw = p.raw[:before]
			seal(i)
			p.raw = append(p.raw, record...)
		}
		p.ends = append(p.ends, len(p.raw))
	}
	if len(p.ends) > 0 {
		seal(n)
	}
}

// seal compresses the records from..to of raw into one payload, or in halves if
// that is too large.
func (p *packer) seal(r *route, from, to int, emit func(payload), tooLarge func(i int)) {
	start := 0
	if from > 0 {
		start = p.ends[from-1]
	}
	end := p.ends[to-1]
	raw := p.raw[start:end:end]
	fits := len(raw)+len(r.trailer) <= r.limits.uncompressed
	if fits {
		if len(r.trailer) > 0 {
			raw = append(raw, r.trailer...) // copies
		}
		p.out = p.zstd.EncodeAll(raw, p.out[:0])
		if len(raw) > 64<<10 { // less says little about a full payload
			p.ratio = float64(len(raw)) / float64(len(p.out))
		}
		fits = len(p.out) <= r.limits.compressed
	}
	switch {
	case fits:
		emit(payload{route: r, body: append([]byte(nil), p.out...), points: uint64(to - from)})
	case to-from == 1:
		tooLarge(from)
	default:
		middle := (from + to) / 2
		p.seal(r, from, middle, emit, tooLarge)
		p.seal(r, middle, to, emit, tooLarge)
	}
}
