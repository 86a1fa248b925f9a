package forwarder

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weir-agent/weir/metric"
)

const (
	senders        = 4        // requests at once
	maxQueuedBytes = 64 << 20 // of compressed payloads that wait; beyond it the oldest are dropped
	requestTimeout = 20 * time.Second
	firstBackoff   = time.Second
	maxBackoff     = time.Minute
	// oldestPoints is how old points may be for the intake to take them.
	oldestPoints = time.Hour
	// payloadVersion is the version of agent-payload that protobuf.go follows.
	payloadVersion = "5.0.215"
)

// datadog sends points to Datadog's intake.
type datadog struct {
	label   string
	account books
	base    string // URL without a slash at the end
	key     metric.Secret
	agent   string // name/version
	client  *http.Client
	packer  *packer
	queue   payloadQueue
	log     *slog.Logger
}

func openDatadog(cfg DestinationConfig, name, agent string, log *slog.Logger) (destination, error) {
	packer, err := newPacker(log.With("forwarder", name))
	if err != nil {
		return nil, err
	}
	base := cfg.URL
	if base == "" {
		base = "https://api." + cfg.Site
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxConnsPerHost = senders
	transport.MaxIdleConnsPerHost = senders
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	d := &datadog{
		label: name, base: strings.TrimRight(base, "/"), key: cfg.APIKey, agent: agent, packer: packer, log: log,
		client: &http.Client{
			Transport: transport,
			Timeout:   requestTimeout,
			// A redirect would take the key to wherever it points.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	d.queue.wake = sync.NewCond(&d.queue.mu)
	// What can be wrong with a request is wrong with all of them: find out now.
	if _, err := d.request(context.Background(), payload{route: &seriesRoute}); err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	return d, nil
}

func (d *datadog) name() string  { return d.label }
func (d *datadog) books() *books { return &d.account }

func (d *datadog) run(ctx context.Context, batches <-chan *metric.Batch) {
	defer d.client.CloseIdleConnections()
	stop := context.AfterFunc(ctx, d.queue.close)
	defer stop()
	var sending sync.WaitGroup
	for range senders {
		sending.Go(func() {
			for {
				p, ok := d.queue.take()
				if !ok {
					return
				}
				if again := d.send(ctx, &p); again {
					d.dropOldest(d.queue.putBack(p))
				} else {
					d.queue.done()
				}
			}
		})
	}
	for b := range batches {
		if ctx.Err() == nil {
			d.packer.pack(b, func(p payload) { d.enqueue(p, b.Start) }, d.account.dropped)
		}
	}
	d.queue.finish()
	sending.Wait()
	d.account.abandon()
}

func (d *datadog) enqueue(p payload, start time.Time) {
	d.dropOldest(d.queue.put(waiting{payload: p, start: start, backoff: firstBackoff}))
}

// dropOldest counts the payloads that a full queue pushed out.
func (d *datadog) dropOldest(pushed []waiting) {
	var points uint64
	for _, old := range pushed {
		points += old.points
	}
	if points > 0 {
		d.account.dropped(points, DroppedQueueFull)
		d.log.Error("dropped the oldest points: too many wait to be sent", "forwarder", d.label, "points", points,
			"limit", metric.Bytes(maxQueuedBytes))
	}
}

// send tries to deliver a payload and reports whether it is to be tried again,
// not before p.notBefore.
func (d *datadog) send(ctx context.Context, p *waiting) (again bool) {
	giveUp := func(why DropReason, err error) bool {
		d.account.dropped(p.points, why)
		d.log.Error("dropped points", "forwarder", d.label, "points", p.points, "reason", why.String(), "interval", p.start, "error", err)
		return false
	}
	err := d.post(ctx, p.payload)
	var refused *refusedError
	switch {
	case err == nil:
		d.account.delivered(p.points, len(p.body))
		return false
	case ctx.Err() != nil:
		return false // run writes off what is left
	case errors.As(err, &refused) && refused.final():
		return giveUp(DroppedRejected, err)
	case time.Since(p.start) > oldestPoints:
		return giveUp(DroppedTooOld, err)
	}
	// Half of it is chance, so that not all agents come back at once.
	pause := p.backoff/2 + rand.N(p.backoff/2)
	p.notBefore = time.Now().Add(pause)
	p.backoff = min(2*p.backoff, maxBackoff)
	d.log.Warn("sending failed; trying again", "forwarder", d.label, "points", p.points, "in", pause.Round(time.Millisecond).String(), "error", err)
	d.account.retried()
	return true
}

// refusedError is an answer of the intake other than success.
type refusedError struct {
	status int
	answer string
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("the intake answered %d %s: %s", e.status, http.StatusText(e.status), e.answer)
}

// final reports whether the same payload would be refused again.
func (e *refusedError) final() bool {
	switch e.status {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}

// request makes the request that delivers a payload.
func (d *datadog) request(ctx context.Context, p payload) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+p.route.path, bytes.NewReader(p.body))
	if err != nil {
		return nil, err
	}
	_, version, _ := strings.Cut(d.agent, "/")
	for name, value := range map[string]string{
		"DD-Api-Key":       d.key.Reveal(),
		"DD-Agent-Version": version,
		"User-Agent":       d.agent,
		"Content-Type":     p.route.contentType,
		"Content-Encoding": "zstd",
	} {
		request.Header.Set(name, value)
	}
	if p.route.contentType == typeProtobuf {
		request.Header.Set("DD-Agent-Payload", payloadVersion)
	}
	return request, nil
}

func (d *datadog) post(ctx context.Context, p payload) error {
	request, err := d.request(ctx, p)
	if err != nil {
		return err
	}
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	const (
		told = 512      // of the answer
		read = 64 << 10 // of it, so that the connection can be used again
	)
	answer, _ := io.ReadAll(io.LimitReader(response.Body, read)) // it is only told, not needed
	if response.StatusCode/100 == 2 {
		return nil
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(string(answer), "?"), d.key.Reveal(), d.key.String())
	return &refusedError{response.StatusCode, strings.TrimSpace(text[:min(len(text), told)])}
}

// waiting is a payload in the queue.
type waiting struct {
	payload
	start     time.Time // of the interval its points belong to
	notBefore time.Time // after a failure: when it may be tried again
	backoff   time.Duration
}

// payloadQueue holds payloads until a sender takes them, bounded by their bytes.
// One that failed waits without keeping a sender, and the others pass it.
type payloadQueue struct {
	mu       sync.Mutex // guards the fields below
	wake     *sync.Cond // a payload came, or may be tried again, or the end
	payloads []waiting  // the oldest first, but for those that were put back
	bytes    int
	taken    int  // payloads that senders have
	finished bool // no new ones will come
	closed   bool // what is left stays
}

// put adds a payload and returns those it pushed out, the oldest.
func (q *payloadQueue) put(p waiting) (pushed []waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.add(p)
}

// putBack adds a payload that was taken and not delivered.
func (q *payloadQueue) putBack(p waiting) (pushed []waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken--
	return q.add(p)
}

func (q *payloadQueue) add(p waiting) (pushed []waiting) {
	q.payloads = append(q.payloads, p)
	q.bytes += len(p.body)
	for q.bytes > maxQueuedBytes {
		pushed = append(pushed, q.remove(0))
	}
	q.wake.Broadcast()
	return pushed
}

// done says that a payload that was taken will not come back.
func (q *payloadQueue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.taken--
	q.wake.Broadcast()
}

// take waits for a payload that may be tried; ok is false when there will be none.
func (q *payloadQueue) take() (p waiting, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		if q.closed || q.finished && len(q.payloads) == 0 && q.taken == 0 {
			return waiting{}, false
		}
		now := time.Now()
		var next time.Time
		for i := range q.payloads {
			at := q.payloads[i].notBefore
			if !at.After(now) {
				q.taken++
				return q.remove(i), true
			}
			if next.IsZero() || at.Before(next) {
				next = at
			}
		}
		if next.IsZero() {
			q.wake.Wait()
			continue
		}
		timer := time.AfterFunc(next.Sub(now), q.wake.Broadcast)
		q.wake.Wait()
		timer.Stop()
	}
}

func (q *payloadQueue) remove(i int) waiting {
	p := q.payloads[i]
	q.payloads = slices.Delete(q.payloads, i, i+1)
	q.bytes -= len(p.body)
	return p
}

func (q *payloadQueue) finish() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.finished = true
	q.wake.Broadcast()
}

func (q *payloadQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.wake.Broadcast()
}
