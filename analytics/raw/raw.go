// Package raw writes raw events: a row for each line of an analytics event, into files
// that a warehouse loads, and to Kafka.
//
//	events/dt=2026-11-21/web-1-692054aa-000007.ndjson.gz
//
// In: what the readers say of a line, by way of a bounded Queue each. Out: rows as
// plan.Columns lays them out, in files that have their name only when they are whole,
// and a manifest of them. It never makes a reader wait: what a Queue has no room for is
// dropped and counted, before anything else of an event is.
package raw

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/metric"
)

// Protection is how identities are written.
type Protection struct {
	Pseudonym plan.Pseudonym // called by Run's goroutine only
	KeyID     string
}

// Sink writes the rows of all readers.
type Sink struct {
	cfg     Config
	log     *slog.Logger
	files   *files // nil: no files are written
	kafka   *kafka // nil without
	encoder *encoder
	wake    chan struct{}

	mu     sync.Mutex // guards queues
	queues []*Queue

	stats   stats
	work    priority.Work
	row     row // under way
	scratch []byte
}

// stats is what becomes of rows.
type stats struct {
	written    atomic.Uint64 // into files
	buffered   atomic.Int64  // on their way through compression
	sampledOut atomic.Uint64
	dropped    [dropReasons]atomic.Uint64 // of files, or of all
	files      atomic.Uint64
	expired    atomic.Uint64 // files
	recovered  atomic.Uint64 // files
	setAside   atomic.Uint64 // files
	bytes      atomic.Int64  // of all files
	kafka      kafkaStats
}

// dropReason says why a row is in no file.
type dropReason int

const (
	queueFull  dropReason = iota // rows came faster than they can be written
	writeError                   // the disk failed, or is full
	tooFull                      // less than MinFree would be left of it
	dropReasons
)

var dropReasonNames = [dropReasons]string{"queue_full", "write_error", "min_free"}

const (
	// drainEvery is how often queues are emptied that do not fill.
	drainEvery = 250 * time.Millisecond
	// syncEvery is how often what is compressed is handed to the system: what kill -9
	// loses.
	syncEvery = time.Second
)

// New makes the folder of files ready and starts nothing. cfg must have passed
// Validate; host names the agent's host.
func New(cfg Config, p *plan.Plan, host string, protect Protection, log *slog.Logger) (*Sink, error) {
	s := &Sink{cfg: cfg, log: log, encoder: newEncoder(host, protect), wake: make(chan struct{}, 1)}
	var err error
	if cfg.Format != FormatNone {
		if s.files, err = openFiles(cfg, p, host, &s.stats, log); err != nil {
			return nil, err
		}
	}
	if len(cfg.Kafka.Brokers) > 0 {
		if s.kafka, err = openKafka(cfg.Kafka, &s.stats.kafka, log); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// SetPlan says by which events files of Parquet are laid out from now on.
func (s *Sink) SetPlan(p *plan.Plan) {
	if s.files != nil && s.files.converter != nil {
		s.files.converter.plan.Store(p)
	}
}

// Close gives back what New took, of a Sink that is not run.
func (s *Sink) Close() error {
	if s.kafka != nil {
		s.kafka.client.Close()
	}
	if s.files == nil {
		return nil
	}
	return s.files.unlock()
}

// NewQueue returns the queue of one more reader.
func (s *Sink) NewQueue() *Queue {
	q := newQueue(s.cfg.Queue, s.wake)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues = append(s.queues, q)
	return q
}

// Run writes rows until ctx is done, then what is left, and finishes the files. All
// rows must have been put.
func (s *Sink) Run(ctx context.Context) error {
	var background sync.WaitGroup
	if s.files != nil && s.files.converter != nil {
		background.Go(s.files.converter.run)
	}
	ticker := time.NewTicker(drainEvery)
	defer ticker.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-s.wake:
		case <-ticker.C:
		}
		s.drain(time.Now())
		if s.files != nil && !done {
			s.files.keepHouse(time.Now())
		}
	}
	var err error
	if s.files != nil {
		err = s.files.close(time.Now())
		background.Wait()
		err = errors.Join(err, s.files.unlock())
	}
	if s.kafka != nil {
		err = errors.Join(err, s.kafka.close())
	}
	if err != nil {
		return fmt.Errorf("raw events: %w", err)
	}
	return nil
}

// drain writes what the queues hold.
func (s *Sink) drain(now time.Time) {
	s.mu.Lock()
	queues := s.queues
	s.mu.Unlock()
	if s.files != nil {
		s.files.askForRoom(now)
	}
	for _, q := range queues {
		q.drain(s.write)
	}
	if s.files != nil {
		s.files.flush(now)
	}
}

func (s *Sink) write(l *Line, n, received int64, kept bool) {
	s.work.Step()
	if !s.encoder.encode(l, n, received, kept, &s.row) {
		s.stats.sampledOut.Add(1)
		return
	}
	var json []byte
	if s.files != nil {
		json = s.files.add(&s.row, s.encoder)
	}
	if s.kafka != nil {
		if json == nil {
			s.scratch = s.encoder.append(s.scratch[:0], &s.row)
			json = s.scratch
		}
		s.kafka.add(json, s.row.template.key, s.encoder.eventID)
	}
}

// Readings appends the sink's own metrics to dst.
func (s *Sink) Readings(dst []metric.Reading) []metric.Reading {
	total := func(name string, n uint64, tags ...string) {
		dst = append(dst, metric.Reading{Name: "analytics.raw." + name, Tags: tags, Value: float64(n)})
	}
	level := func(name string, v float64) {
		dst = append(dst, metric.Reading{Name: "analytics.raw." + name, Value: v, Level: true})
	}
	put, shed, waiting := s.counts()
	total("rows", put)
	total("rows.sampled_out", s.stats.sampledOut.Load())
	total("rows.written", s.stats.written.Load())
	total("rows.dropped", shed, "reason:"+dropReasonNames[queueFull])
	for _, why := range []dropReason{writeError, tooFull} {
		total("rows.dropped", s.stats.dropped[why].Load(), "reason:"+dropReasonNames[why])
	}
	level("rows.queued", float64(waiting)+float64(s.stats.buffered.Load()))
	total("files", s.stats.files.Load())
	total("files.expired", s.stats.expired.Load())
	total("files.recovered", s.stats.recovered.Load())
	total("files.set_aside", s.stats.setAside.Load())
	level("files.bytes", float64(s.stats.bytes.Load()))
	k := &s.stats.kafka
	total("kafka.rows", k.rows.Load())
	total("kafka.rows.delivered", k.delivered.Load())
	for why := range kafkaDropReasons {
		total("kafka.rows.dropped", k.dropped[why].Load(), "reason:"+kafkaDropReasonNames[why])
	}
	level("kafka.rows.queued", float64(k.queued.Load()))
	return dst
}

// counts returns how many rows there were to write, those that a queue had no room for,
// and those that wait.
func (s *Sink) counts() (put, shed, waiting uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.queues {
		dropped, tail := q.dropped.Load(), q.tail.Load()
		head := q.head.Load()
		put += head + dropped
		shed += dropped
		waiting += head - tail
	}
	return put, shed, waiting
}
