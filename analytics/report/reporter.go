package report

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/netresearch/go-cron"

	"github.com/weir-agent/weir/internal/diskio"
	"github.com/weir-agent/weir/metric"
)

// Reporter makes reports when they are due.
type Reporter struct {
	source Source
	fleet  Fleet // nil: this host makes all reports
	host   string
	folder string // of state
	log    *slog.Logger
	client *http.Client
	jobs   []*job

	made, failed, skipped atomic.Uint64 // periods
	retries               atomic.Uint64 // of webhooks
}

// job is a report with its memory.
type job struct {
	Config
	spec *cron.SpecSchedule
	zone *time.Location

	done     time.Time // period that was delivered, or given up, last; zero: none yet
	failures int       // of the period under way
	retry    time.Time // not before
	waits    bool      // the log was told that other hosts cannot be asked
}

const (
	stateName = "reports.json"
	// maxCatchUp is how many periods that passed unreported are made up for.
	maxCatchUp = 31
	// maxDown is the longest time for which periods that passed are counted at all.
	maxDown = 400 * 24 * time.Hour
	// checkEvery is how often it is looked for what is due; the clock may jump.
	checkEvery = 10 * time.Second

	webhookTimeout = 10 * time.Second
	firstRetry     = 10 * time.Second
	lastRetry      = 30 * time.Minute
	// maxFailures is after how many attempts, about a day, a period is given up.
	maxFailures = 55
)

// New reads which periods an earlier run was done with, and starts nothing. all must
// have passed Validate; folder is for state. fleet is nil if hosts share nothing.
func New(all []Config, source Source, fleet Fleet, host, folder string, log *slog.Logger) (*Reporter, error) {
	r := &Reporter{source: source, fleet: fleet, host: host, folder: folder, log: log, client: &http.Client{
		Timeout: webhookTimeout,
		// Somewhere else is somebody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	done := map[string]time.Time{}
	text, err := os.ReadFile(filepath.Join(folder, stateName))
	if err == nil {
		err = json.Unmarshal(text, &done)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Error("which reports are done cannot be read; they begin anew", "error", err)
	}
	for _, c := range all {
		spec, err := c.schedule()
		if err != nil {
			return nil, fmt.Errorf("report %s: schedule: %w", c.Name, err)
		}
		r.jobs = append(r.jobs, &job{Config: c, spec: spec, zone: c.zone(), done: done[c.Name]})
	}
	return r, nil
}

// Run makes reports until ctx is done.
func (r *Reporter) Run(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for len(r.jobs) > 0 {
		r.tick(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// tick makes what is due.
func (r *Reporter) tick(ctx context.Context, now time.Time) {
	for _, j := range r.jobs {
		for ctx.Err() == nil && r.begin(ctx, j) {
			period, due := r.next(j, now)
			if !due || now.Before(j.retry) {
				break
			}
			if done, mine := r.ask(ctx, j); done.After(j.done) {
				j.done, j.failures = done, 0
				r.save()
			} else if mine {
				r.make(ctx, j, period, now)
			} else {
				break
			}
		}
	}
}

// shared reports whether one host makes a report for all.
func (r *Reporter) shared(j *job) bool { return r.fleet != nil && j.Scope != ScopeHost }

// begin reports whether it is known which periods are done. A host that is new goes on
// where the others are.
func (r *Reporter) begin(ctx context.Context, j *job) bool {
	if !r.shared(j) || !j.done.IsZero() {
		return true
	}
	done, _, err := r.fleet.Done(ctx, j.Name)
	j.done = done
	return err == nil
}

// ask returns which period of a report some host was done with last, and whether this
// one is to make those that follow.
func (r *Reporter) ask(ctx context.Context, j *job) (done time.Time, mine bool) {
	if !r.shared(j) {
		return done, true
	}
	done, mine, err := r.fleet.Done(ctx, j.Name)
	if err != nil && ctx.Err() == nil && !j.waits {
		r.log.Warn("a report waits: what other hosts made is not known", "report", j.Name, "error", err)
	}
	j.waits = err != nil
	return done, mine && err == nil
}

// next returns the period of a report that is to be made next, if it is due. Of those
// that passed while nobody was there only so many are made up for.
func (r *Reporter) next(j *job, now time.Time) (period time.Time, due bool) {
	if j.done.IsZero() || j.done.After(now.Add(time.Hour)) { // the first time, or the clock was wrong
		j.done = now
		r.save()
		return period, false
	}
	if longest := now.Add(-maxDown); j.done.Before(longest) {
		j.done = longest
	}
	var missed []time.Time // at most maxCatchUp, and the newest
	for p := j.spec.Next(j.done.In(j.zone)); !p.IsZero() && !p.After(now); p = j.spec.Next(p) {
		if missed = append(missed, p); len(missed) > maxCatchUp {
			r.skipped.Add(1)
			j.done, missed = missed[0], missed[1:]
		}
	}
	if len(missed) == 0 {
		return period, false
	}
	return missed[0], true
}

// make makes and delivers one report, or notes when to try again.
func (r *Reporter) make(ctx context.Context, j *job, period, now time.Time) {
	err := r.deliver(ctx, j, &Document{Report: j.Name, Period: period, Made: now, Host: r.host})
	var refused *refusedError
	switch {
	case err == nil:
		r.made.Add(1)
		r.log.Info("a report is made", "report", j.Name, "period", period)
	case ctx.Err() != nil:
		return
	case errors.As(err, &refused), j.failures+1 >= maxFailures:
		r.failed.Add(1)
		r.log.Error("a report cannot be delivered, and is given up", "report", j.Name, "period", period, "error", err)
	default:
		r.retries.Add(1)
		if j.failures == 0 {
			r.log.Warn("a report cannot be delivered; it is tried again", "report", j.Name, "period", period, "error", err)
		}
		j.retry = now.Add(min(lastRetry, firstRetry<<min(j.failures, 20)))
		j.failures++
		return
	}
	j.done, j.failures, j.retry = period, 0, time.Time{}
	r.save()
	if !r.shared(j) {
		return
	}
	if err := r.fleet.SetDone(ctx, j.Name, period); err != nil {
		r.log.Warn("other hosts may make a report again, with the same idempotency key", "report", j.Name, "period", period, "error", err)
	}
}

// deliver fills in a document and brings it where it is wanted.
func (r *Reporter) deliver(ctx context.Context, j *job, d *Document) (err error) {
	d.Rows, d.Hosts, err = r.source.Rows(ctx, Query{At: d.Period, Matches: j.matches, Previous: j.Compare != "", Host: j.Scope == ScopeHost})
	if err != nil {
		return fmt.Errorf("its values: %w", err)
	}
	if err := r.write(j, d); err != nil {
		return err
	}
	return r.post(ctx, j, d)
}

// save remembers which periods are done.
func (r *Reporter) save() {
	done := map[string]time.Time{}
	for _, j := range r.jobs {
		done[j.Name] = j.done.UTC()
	}
	text, err := json.Marshal(done)
	if err != nil {
		panic("BUG: times are no JSON: " + err.Error())
	}
	if err := diskio.WriteFile(filepath.Join(r.folder, stateName), text); err != nil {
		r.log.Error("which reports are done cannot be written: they are made again at the next start", "error", err)
	}
}

// write writes the files of a report. Those of a period have its time in their names, so
// that making it again makes the same files.
func (r *Reporter) write(j *job, d *Document) error {
	folder := j.folder(r.folder)
	if folder == "" {
		return nil
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for _, format := range j.formats() {
		name := j.Name + "-" + d.Period.UTC().Format("20060102T150405Z") + "." + format
		if err := diskio.WriteFile(filepath.Join(folder, name), d.Render(format)); err != nil {
			return err
		}
	}
	r.expire(j, folder)
	return nil
}

// expire removes the files of the oldest periods.
func (r *Reporter) expire(j *job, folder string) {
	keep := j.Keep
	if keep == 0 {
		keep = DefaultKeep
	}
	for _, format := range j.formats() {
		const period = "????????T??????Z"
		files := diskio.Glob(filepath.Join(folder, j.Name+"-"), period+"."+format)
		slices.Sort(files) // names begin with the time
		for _, path := range files[:max(0, len(files)-keep)] {
			if err := os.Remove(path); err != nil {
				r.log.Error("an old report cannot be removed", "error", err)
			}
		}
	}
}

// refusedError says that it is of no use to try again.
type refusedError struct{ status int }

func (e *refusedError) Error() string { return fmt.Sprintf("the webhook answers %d", e.status) }

// post sends a report to its webhook. What it says of itself holds no secret: the URL
// may have a token in it.
func (r *Reporter) post(ctx context.Context, j *job, d *Document) error {
	if j.Webhook == "" {
		return nil
	}
	body := d.Render(JSON)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, j.Webhook.Reveal(), bytes.NewReader(body))
	if err != nil {
		return errors.New("the webhook is no URL")
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "weir")
	request.Header.Set("Idempotency-Key", j.Name+"/"+d.Period.UTC().Format(time.RFC3339))
	if j.Secret != "" {
		m := hmac.New(sha256.New, []byte(j.Secret.Reveal()))
		m.Write(body)
		request.Header.Set("Weir-Signature", "sha256="+hex.EncodeToString(m.Sum(nil)))
	}
	response, err := r.client.Do(request)
	if err != nil {
		var of *url.Error
		if errors.As(err, &of) {
			err = of.Err // without the URL
		}
		return fmt.Errorf("the webhook: %w", err)
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection can be used again
	switch code := response.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code >= 500:
		return fmt.Errorf("the webhook answers %d", code)
	default:
		return &refusedError{code}
	}
}

// Readings appends the reporter's own metrics to dst.
func (r *Reporter) Readings(dst []metric.Reading) []metric.Reading {
	for _, m := range []struct {
		name  string
		count *atomic.Uint64
	}{{"made", &r.made}, {"failed", &r.failed}, {"skipped", &r.skipped}, {"retries", &r.retries}} {
		dst = append(dst, metric.Reading{Name: "analytics.reports." + m.name, Value: float64(m.count.Load())})
	}
	return dst
}
