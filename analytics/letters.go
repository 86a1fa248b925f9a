package analytics

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/weir-agent/weir/analytics/plan"
)

// deadLetters is the file of lines that were no valid events, each with the reasons.
// Who an event is about is replaced by a pseudonym; what consent was denied for is not
// written at all. The readers hand lines over and never wait for the disk.
type deadLetters struct {
	cfg     DeadLettersConfig
	path    string
	key     key
	log     *slog.Logger
	queue   chan []byte
	second  atomic.Int64 // of the lines that were counted last
	written atomic.Uint64
	dropped atomic.Uint64
	within  atomic.Int64 // lines in second
	size    int64
	oldest  time.Time // of the letters in the file; zero without
	failing bool
}

const (
	lettersName   = "dead_letters.ndjson"
	lettersQueue  = 512
	maxLetterTags = 32
	maxLetterText = 200
	// maxFirstLetter is as much as is read of a file to find out how old it is.
	maxFirstLetter = 1 << 20
)

func newDeadLetters(cfg Config, k key, log *slog.Logger) *deadLetters {
	d := &deadLetters{cfg: cfg.DeadLetters, path: filepath.Join(cfg.StateDir, lettersName), key: k, log: log, queue: make(chan []byte, lettersQueue)}
	if info, err := os.Stat(d.path); err == nil {
		d.size, d.oldest = info.Size(), firstLetter(d.path)
	}
	return d
}

// firstLetter returns the time of the first letter in a file; one that cannot be read is
// as old as can be.
func firstLetter(path string) time.Time {
	file, err := os.Open(path)
	if err != nil {
		return time.Time{}
	}
	defer file.Close()
	var l letter
	_ = json.NewDecoder(io.LimitReader(file, maxFirstLetter)).Decode(&l)
	return l.Time
}

// letter is one line of the file.
type letter struct {
	Time     time.Time `json:"time"`
	Event    string    `json:"event"`
	Outcomes []string  `json:"outcomes"`
	Why      []string  `json:"why,omitempty"`
	Tags     []string  `json:"tags,omitempty"`
	KeyID    string    `json:"key_id,omitempty"` // of the pseudonyms
}

// admit reports whether a letter may be written in the second under way. Beyond
// max_rate it is counted as dropped.
func (d *deadLetters) admit(now int64) bool {
	if !d.cfg.Enabled {
		return false
	}
	if d.second.Swap(now) != now {
		d.within.Store(0)
	}
	if d.within.Add(1) > int64(d.cfg.MaxRate) {
		d.dropped.Add(1)
		return false
	}
	return true
}

// letter returns what is to be said of the line under way.
func (d *deadLetters) letter(o *Occurrence) *letter {
	r := &o.in.result
	l := &letter{Event: o.event.name, KeyID: d.key.id}
	if r.Event == nil {
		l.Event = d.name(o.name)
	}
	for _, v := range r.Violations[:min(len(r.Violations), maxLetterTags)] {
		if v.Key != nil {
			v.Key = []byte(d.name(v.Key))
		}
		l.Why = append(l.Why, r.Explain(v))
	}
	for _, tag := range o.in.sent[:min(len(o.in.sent), maxLetterTags)] {
		if text, ok := d.redacted(r, tag); ok {
			l.Tags = append(l.Tags, text)
		}
	}
	return l
}

// write hands a letter that was admitted over. With too many waiting for the disk it is
// dropped and counted.
func (d *deadLetters) write(l *letter, outcomes uint32, now int64) {
	l.Time = time.Unix(now, 0).UTC()
	for outcome := range plan.Outcomes {
		if outcomes&(1<<outcome) != 0 {
			l.Outcomes = append(l.Outcomes, outcome.String())
		}
	}
	if outcomes&(1<<plan.BadCount) != 0 {
		l.Why = append(l.Why, "its value is no number of occurrences; send 1, 2, 3 and so on")
	}
	text, err := json.Marshal(l)
	if err != nil {
		panic("BUG: a dead letter cannot be written as JSON: " + err.Error())
	}
	select {
	case d.queue <- append(text, '\n'):
	default:
		d.dropped.Add(1)
	}
}

// name returns the key of a tag as it may be written: it may be anything.
func (d *deadLetters) name(key []byte) string {
	if bytes.IndexByte(key, '@') >= 0 {
		return "hmac." + d.key.pseudonym("", key)
	}
	return short(key)
}

// redacted returns a tag as it may be written, ok false if it may not.
func (d *deadLetters) redacted(r *plan.Result, tag []byte) (text string, ok bool) {
	name, value, found := bytes.Cut(tag, []byte{':'})
	raw := value
	value = plan.Unescape(value)
	kind, def := "", r.Event
	if def != nil {
		if i := def.Attribute(string(name)); i >= 0 {
			a := &def.Attributes[i]
			switch {
			case a.Role == plan.Drop, a.Privacy.Kind == plan.DropValue:
				return "", false
			case a.Role == plan.Identity, a.Privacy.Kind != plan.None && a.Privacy.Kind != "":
				kind = a.Identity + a.Name
			}
		}
	}
	if kind == "" && (plan.LooksPrivate(name) || bytes.IndexByte(value, '@') >= 0) {
		kind = string(name)
	}
	switch {
	case !found:
		return d.name(name), true
	case kind != "" && r.Anonymous:
		return "", false
	case kind != "":
		return d.name(name) + ":hmac." + d.key.pseudonym(kind, value), true
	}
	return d.name(name) + ":" + short(raw), true
}

// short is text that may be anything, as far as it is worth showing.
func short(text []byte) string {
	return string(bytes.ToValidUTF8(text[:min(len(text), maxLetterText)], []byte(string(utf8.RuneError))))
}

// save writes what waits. Only the engine calls it.
func (d *deadLetters) save(now time.Time) {
	var lines []byte
	for n := len(d.queue); n > 0; n-- {
		lines = append(lines, <-d.queue...)
	}
	if len(lines) == 0 {
		return
	}
	count := uint64(bytes.Count(lines, []byte{'\n'}))
	if err := d.append(lines, now); err != nil {
		d.dropped.Add(count)
		d.failed(err)
		return
	}
	d.failing = false
	d.written.Add(count)
}

// failed says in the log, once, that the files cannot be written; err may be nil.
func (d *deadLetters) failed(err error) {
	if err == nil {
		return
	}
	if !d.failing {
		d.log.Error("dead letters of analytics events cannot be written", "file", d.path, "error", err)
	}
	d.failing = true
}

// append appends to the file. When it is half of what both may be, it becomes the one
// before.
func (d *deadLetters) append(lines []byte, now time.Time) error {
	if d.size > 0 && d.size+int64(len(lines)) > int64(d.cfg.MaxBytes)/2 {
		if err := d.turn(); err != nil {
			return err
		}
	}
	if d.size == 0 {
		d.oldest = now
	}
	file, err := os.OpenFile(d.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	n, err := file.Write(lines)
	d.size += int64(n)
	return errors.Join(err, file.Close())
}

// turn makes the file the one before, and forgets that.
func (d *deadLetters) turn() error {
	if err := os.Rename(d.path, d.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	d.size = 0
	return nil
}

// expire sees to it that no letter is kept for longer than retention: the file becomes
// the one before when its first letter is half as old, and that is removed when nothing
// was written to it for the other half.
func (d *deadLetters) expire(now time.Time, retention time.Duration) {
	before := d.path + ".1"
	if info, err := os.Stat(before); err == nil && now.Sub(info.ModTime()) > retention/2 {
		d.failed(os.Remove(before))
	}
	if now.Before(d.oldest) { // the clock was ahead
		d.oldest = now
	}
	if d.size > 0 && now.Sub(d.oldest) > retention/2 {
		d.failed(d.turn())
	}
}
