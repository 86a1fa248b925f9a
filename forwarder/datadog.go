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
				d.send(ctx, p)
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
	var points uint64
	for _, old := range d.queue.put(waiting{payload: p, start: start}) {
		points += old.points
	}
	if points > 0 {
		d.account.dropped(points, DroppedQueueFull)
		d.log.Error("dropped the oldest points: too many wait to be sent", "forwarder", d.label, "points", points,
			"limit", metric.Bytes(maxQueuedBytes))
	}
}

// send tries to deliver a payload until it succeeds, is refused for good, is too
// old, or ctx is done.
func (d *datadog) send(ctx context.Context, p waiting) {
	giveUp := func(why DropReason, err error) {
		d.account.dropped(p.points, why)
		d.log.Error("dropped points", "forwarder", d.label, "points", p.points, "reason", why, "interval", p.start, "error", err)
	}
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := d.post(ctx, p.payload)
		var refused *refusedError
		switch {
		case err == nil:
			d.account.delivered(p.points, len(p.body))
			return
		case ctx.Err() != nil:
			giveUp(DroppedShutdown, err)
			return
		case errors.As(err, &refused) && refused.final():
			giveUp(DroppedRejected, err)
			return
		case time.Since(p.start) > oldestPoints:
			giveUp(DroppedTooOld, err)
			return
		}
		// Half of it is chance, so that not all agents come back at once.
		pause := backoff/2 + rand.N(backoff/2)
		d.log.Warn("sending failed; trying again", "forwarder", d.label, "points", p.points, "in", pause.Round(time.Millisecond), "error", err)
		d.account.retried()
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
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

func (d *datadog) post(ctx context.Context, p payload) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, d.base+p.route.path, bytes.NewReader(p.body))
	if err != nil {
		return err
	}
	_, version, _ := strings.Cut(d.agent, "/")
	for name, value := range map[string]string{
		"DD-Api-Key":       d.key.Reveal(),
		"DD-Agent-Version": version,
		"DD-Agent-Payload": payloadVersion,
		"User-Agent":       d.agent,
		"Content-Type":     "application/x-protobuf",
		"Content-Encoding": "zstd",
	} {
		request.Header.Set(name, value)
	}
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	const enough = 512
	answer, _ := io.ReadAll(io.LimitReader(response.Body, enough)) // it is only told, not needed
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 64<<10))
	if response.StatusCode/100 == 2 {
		return nil
	}
	text := strings.ReplaceAll(strings.ToValidUTF8(string(answer), "?"), d.key.Reveal(), d.key.String())
	return &refusedError{response.StatusCode, strings.TrimSpace(text)}
}

// waiting is a payload in the queue.
type waiting struct {
	payload
	start time.Time // of the interval its points belong to
}

// payloadQueue holds payloads until a sender takes them, bounded by their bytes.
type payloadQueue struct {
	mu       sync.Mutex // guards the fields below
	wake     *sync.Cond // a payload came, or the end
	payloads []waiting
	bytes    int
	finished bool // no more will come
	closed   bool // what is left stays
}

// put adds a payload and returns those it pushed out, the oldest.
func (q *payloadQueue) put(p waiting) (pushed []waiting) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.payloads = append(q.payloads, p)
	q.bytes += len(p.body)
	for q.bytes > maxQueuedBytes {
		pushed = append(pushed, q.pop())
	}
	q.wake.Signal()
	return pushed
}

// take waits for the oldest payload; ok is false when there will be none.
func (q *payloadQueue) take() (p waiting, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.payloads) == 0 && !q.finished && !q.closed {
		q.wake.Wait()
	}
	if len(q.payloads) == 0 || q.closed {
		return waiting{}, false
	}
	return q.pop(), true
}

func (q *payloadQueue) pop() waiting {
	p := q.payloads[0]
	q.payloads[0] = waiting{}
	q.payloads = q.payloads[1:]
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
