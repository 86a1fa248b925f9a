package forwarder

import (
	"bytes"
	"cmp"
	"errors"
	"log/slog"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

const (
	// The client queues packets and drops those that its queue has no room for. It is
	// flushed after so many values; a call makes at most a packet for each of its
	// values, so that the queue never is full.
	valuesAtOnce   = 4096
	valuesInACall  = 64
	clientQueue    = 2 * valuesAtOnce
	clientBuffers  = 16
	clientNeverDue = 365 * 24 * time.Hour // packets leave the client by Flush only

	keptPackets = 1 << 20 // bytes of memory kept from one flush of it to the next

	// The client reckons with 18 characters for a sample rate, which may have 28.
	rateMargin = 16
	// roomForASample is what a line of a distribution has besides name and tags:
	// a value, a rate and what stands between them.
	roomForASample = 64
)

func openDogStatsD(cfg *DestinationConfig, name string, shutdown time.Duration, spools *spools, log *slog.Logger) destination {
	r := newRelay(cfg, name, shutdown, log)
	r.endpoint.spoolTo(spools, r.address)
	size := r.packetBytes(cfg)
	r.open = func() packetEncoder { return newDogStatsD(size, r.log) }
	return r
}

// dogStatsD makes packets of DogStatsD with Datadog's client. The client does
// nothing on its own here: it does not aggregate, it does not send, it adds no tag
// and no container, and all it has written is taken from it before its queue is
// full.
type dogStatsD struct {
	client *statsd.ClientDirect
	size   int // bytes in a packet
	log    *slog.Logger
	work   priority.Work

	written packetList // by the client
	values  int        // given to the client since it was flushed
	owed    []owed     // points that it has not written the last value of, in order

	// rest is what was left of counts that are not whole, in the last batch and in
	// this one.
	rest, nextRest map[seriesKey]float64

	host, hostTag string // of the last point
	tags          []string
	samples       []weighted
	run           []float64
}

// owed is a point on its way through the client.
type owed struct {
	values int  // still to be seen in its packets
	lost   bool // counted as dropped already
}

// seriesKey tells one series from another.
type seriesKey struct{ context, suffix string }

// packetList keeps the packets that are written to it.
type packetList struct {
	bytes []byte
	ends  []int
}

func (l *packetList) Write(packet []byte) (int, error) {
	l.bytes = append(l.bytes, packet...)
	l.ends = append(l.ends, len(l.bytes))
	return len(packet), nil
}

func (l *packetList) Close() error { return nil }

func newDogStatsD(size int, log *slog.Logger) *dogStatsD {
	d := &dogStatsD{size: size - rateMargin, log: log}
	var err error
	withoutClientTags(func() {
		d.client, err = statsd.NewDirectWithWriter(&d.written,
			statsd.WithoutClientSideAggregation(), statsd.WithoutTelemetry(), statsd.WithoutOriginDetection(),
			statsd.WithMutexMode(), statsd.WithWorkersCount(1), statsd.WithCardinality(statsd.CardinalityNotSet),
			statsd.WithMaxBytesPerPayload(d.size), statsd.WithSenderQueueSize(clientQueue),
			statsd.WithBufferPoolSize(clientBuffers), statsd.WithBufferFlushInterval(clientNeverDue),
			statsd.WithErrorHandler(func(err error) { log.Error("BUG: Datadog's client lost a packet", "error", err) }))
	})
	if err != nil {
		panic("BUG: Datadog's client refuses its options: " + err.Error())
	}
	return d
}

// clientTags are the variables of which Datadog's client makes tags of everything it
// sends. They describe this process, and not whose points are relayed.
var clientTags = []string{"DD_ENTITY_ID", "DD_ENV", "DD_SERVICE", "DD_VERSION"}

// hiding keeps several relays from restoring what another has hidden.
var hiding sync.Mutex

// withoutClientTags calls make with clientTags unset.
func withoutClientTags(make func()) {
	hiding.Lock()
	defer hiding.Unlock()
	for _, name := range clientTags {
		if value, set := os.LookupEnv(name); set {
			_ = os.Unsetenv(name)
			defer os.Setenv(name, value)
		}
	}
	make()
}

func (d *dogStatsD) close() { _ = d.client.Close() } // all of it was flushed

func (d *dogStatsD) pack(b *metric.Batch, emit func([]byte, uint64, bool), drop func(uint64, DropReason)) {
	d.work.Begin()
	defer d.work.End()
	d.nextRest = map[seriesKey]float64{}
	for i := range b.Series {
		s := &b.Series[i]
		name := b.Context(s).Name() + s.Suffix.String()
		d.gave(d.series(b, s, name), name, emit, drop)
		d.work.Step()
	}
	d.flush(countLines, timed, emit)
	for i := range b.Sketches {
		d.work.Step()
		d.sketch(b, &b.Sketches[i], emit, drop)
	}
	d.flush(countValues, untimed, emit)
	for i := range b.Events {
		d.gave(d.client.Event(eventOf(&b.Events[i])), b.Events[i].Title, emit, drop)
	}
	for i := range b.Checks {
		d.gave(d.client.ServiceCheck(checkOf(&b.Checks[i])), b.Checks[i].Name, emit, drop)
	}
	d.flush(countLines, timed, emit)
	d.rest = d.nextRest
}

// gave notes that the client was given a point of one line with a time, or why it does
// not take it.
func (d *dogStatsD) gave(err error, name string, emit func([]byte, uint64, bool), drop func(uint64, DropReason)) {
	if err != nil {
		d.refused(err, name, drop)
		return
	}
	d.owed = append(d.owed, owed{values: 1})
	if d.values++; d.values >= valuesAtOnce {
		d.flush(countLines, timed, emit)
	}
}

var errNoSuchCount = errors.New("counts are whole numbers below 2^63")

func (d *dogStatsD) refused(err error, name string, drop func(uint64, DropReason)) {
	why := DroppedUnsupported
	if errors.Is(err, statsd.MessageTooLongError{}) || errors.Is(err, errNoSuchCount) {
		why = DroppedTooLarge
	}
	d.log.Error("dropped a point: no packet can hold it", "name", name[:min(len(name), nameInLog)], "reason", why.String(), "error", err)
	drop(1, why)
}

// flush hands what the client has written to emit; count tells the values in a
// packet.
func (d *dogStatsD) flush(count func(packet []byte) int, timed bool, emit func([]byte, uint64, bool)) {
	_ = d.client.Flush() // which fails only without a client
	from := 0
	for _, end := range d.written.ends {
		packet := d.written.bytes[from:end]
		emit(packet, d.settle(count(packet)), timed)
		from = end
	}
	if cap(d.written.bytes) > keptPackets {
		d.written.bytes = nil
	}
	d.written.bytes, d.written.ends, d.values = d.written.bytes[:0], d.written.ends[:0], 0
}

// settle takes values off what is owed and returns how many points are complete by
// them.
func (d *dogStatsD) settle(values int) (points uint64) {
	done := 0
	for ; done < len(d.owed) && d.owed[done].values <= values; done++ {
		values -= d.owed[done].values
		if !d.owed[done].lost {
			points++
		}
	}
	d.owed = slices.Delete(d.owed, 0, done)
	if len(d.owed) > 0 {
		d.owed[0].values -= values
	}
	return points
}

var newline, colon, pipe = []byte{'\n'}, []byte{':'}, []byte{'|'}

func countLines(packet []byte) int { return bytes.Count(packet, newline) }

// countValues counts the values of metrics: no name has a ":" in it, and each value
// has one before it.
func countValues(packet []byte) (n int) {
	for line := range bytes.Lines(packet) {
		head, _, _ := bytes.Cut(line, pipe)
		n += bytes.Count(head, colon)
	}
	return n
}

// series gives a point to the client. A rate becomes the count of its interval
// again.
func (d *dogStatsD) series(b *metric.Batch, s *metric.Series, name string) error {
	context := b.Context(s)
	at, tags := time.Unix(timeOf(s, b), 0), d.tagsOf(b, context)
	if s.Type == metric.GaugeType {
		return d.client.GaugeWithTimestamp(name, s.Value, tags, 1, at)
	}
	count, err := d.whole(seriesKey{context.Key(), s.Suffix.String()}, countOf(s, b.Interval))
	if err != nil {
		return err
	}
	return d.client.CountWithTimestamp(name, count, tags, 1, at)
}

// whole rounds a count, since the client takes no other, and keeps the rest for the
// series' next one: the sum over intervals is never further than a half from the
// truth.
func (d *dogStatsD) whole(key seriesKey, count float64) (int64, error) {
	rest, again := d.nextRest[key]
	if !again {
		rest = d.rest[key]
	}
	count += rest
	rounded := math.Round(count)
	if math.Abs(rounded) >= 1<<63 {
		return 0, errNoSuchCount
	}
	if rest = count - rounded; rest != 0 {
		d.nextRest[key] = rest
	} else if again {
		delete(d.nextRest, key)
	}
	return int64(rounded), nil
}

// countOf returns how many events a rate or a count is.
func countOf(s *metric.Series, interval time.Duration) float64 {
	if s.Type != metric.Rate {
		return s.Value
	}
	count := s.Value * interval.Seconds()
	// What was a whole number before it was divided is one again.
	if whole := math.Round(count); math.Abs(count-whole) <= 4e-15*math.Abs(whole) {
		return whole
	}
	return count
}

// tagsOf returns the tags of a context with its host and device among them, until
// the next call.
func (d *dogStatsD) tagsOf(b *metric.Batch, c *metric.Context) []string {
	if host := c.Host(b.AgentHost); host != d.host || d.hostTag == "" {
		d.host, d.hostTag = host, "host:"+host
	}
	d.tags = append(d.tags[:0], d.hostTag)
	if device := c.Device(); device != "" {
		d.tags = append(d.tags, "device:"+device)
	}
	for tag := range c.Tags() {
		d.tags = append(d.tags, tag)
	}
	return d.tags
}

// sketch gives a distribution to the client, as samples that weigh what its bins
// do.
func (d *dogStatsD) sketch(b *metric.Batch, p *metric.SketchPoint, emit func([]byte, uint64, bool), drop func(uint64, DropReason)) {
	name, tags := p.Context.Name(), d.tagsOf(b, p.Context)
	length := len(name) + roomForASample
	for _, tag := range tags {
		length += len(tag) + 1
	}
	if length > d.size {
		d.refused(statsd.MessageTooLongError{}, name, drop)
		return
	}
	d.samples = appendSamples(d.samples[:0], &p.Sketch)
	// Those that weigh the same go into one line.
	slices.SortStableFunc(d.samples, func(a, b weighted) int { return cmp.Compare(a.n, b.n) })
	d.owed = append(d.owed, owed{values: len(d.samples)})
	for i := 0; i < len(d.samples); {
		n := d.samples[i].n
		d.run = d.run[:0]
		for _, s := range d.samples[i:] {
			if s.n != n || len(d.run) == valuesInACall {
				break
			}
			d.run = append(d.run, s.value)
		}
		if err := d.client.DistributionSamples(name, d.run, tags, rateOf(n)); err != nil {
			last := &d.owed[len(d.owed)-1]
			last.values, last.lost = last.values-(len(d.samples)-i), true
			d.refused(err, name, drop)
			return
		}
		i += len(d.run)
		d.values += len(d.run)
		if d.values >= valuesAtOnce {
			d.flush(countValues, untimed, emit)
		}
	}
}

func eventOf(e *metric.Event) *statsd.Event {
	tags := e.Tags
	if e.Host == "" {
		tags = append(slices.Clip(tags), "host:") // said to have none
	}
	return &statsd.Event{
		Title: strings.ReplaceAll(e.Title, "\n", `\n`), // the client escapes the text only
		Text:  e.Text, Timestamp: time.Unix(e.Time, 0), Hostname: e.Host, AggregationKey: e.AggregationKey,
		Priority: statsd.EventPriority(e.Priority), SourceTypeName: e.SourceType, AlertType: statsd.EventAlertType(e.AlertType), Tags: tags,
	}
}

func checkOf(c *metric.ServiceCheck) *statsd.ServiceCheck {
	tags := c.Tags
	if c.Host == "" {
		tags = append(slices.Clip(tags), "host:")
	}
	return &statsd.ServiceCheck{
		Name: c.Name, Status: statsd.ServiceCheckStatus(c.Status), Timestamp: time.Unix(c.Time, 0),
		Hostname: c.Host, Message: c.Message, Tags: tags,
	}
}
