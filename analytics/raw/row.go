package raw

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	mathrand "math/rand/v2"
	"strconv"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

// row is a raw event that is to be written. It is valid until the next one.
type row struct {
	template *template
	n        int64
	time     int64 // of the event, Unix milliseconds
	came     int64 // Unix seconds
}

// encoder makes rows of lines. One goroutine uses it.
type encoder struct {
	host    []byte // as JSON
	protect Protection

	result  plan.Result
	id      metric.Identity
	random  *mathrand.ChaCha8
	ids     rowIDs
	parts   []part        // of the last row
	eventID []byte        // of the last row, borrowed from it
	cuts    []int32       // where pseudonyms begin and end in the tail under way
	times   [2]textOfTime // lately written: of events, of arrival
	fresh   template      // of a line that does not come again

	cache [cacheSize]template
}

// cacheSize is how many identities' rows are remembered as text.
const cacheSize = 4096

// template is the text of a row but for what each line has by itself.
type template struct {
	line   *Line
	head   []byte // between event_id and event_time
	middle []byte // between received_at and count
	tail   []byte // behind count
	cuts   []part // of tail
	shape  uint32 // rows of one event have the same
	given  []byte // event_id of the client, as JSON; nil without
	key    []byte
	sent   int64 // Unix milliseconds, of the client's clock; 0 without
	late   bool
}

type textOfTime struct {
	unix int64 // milliseconds
	text []byte
}

func newEncoder(host string, protect Protection) *encoder {
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails: crypto/rand crashes the program instead
	e := &encoder{host: plan.AppendJSONText(nil, []byte(host)), protect: protect, random: mathrand.NewChaCha8(seed)}
	e.protect.Pseudonym = func(dst []byte, identity string, value []byte) []byte {
		start := len(dst)
		dst = protect.Pseudonym(dst, identity, value)
		e.cuts = append(e.cuts, int32(start), int32(len(dst)))
		return dst
	}
	e.ids.serial = e.random.Uint64()
	return e
}

// encode finds out what the row of a line is made of that stands for n events and came
// at received, in Unix seconds. It reports whether there is one: chance may be against it.
func (e *encoder) encode(l *Line, n, received int64, kept bool, r *row) bool {
	if l.chance && float64(e.random.Uint64()>>11)/(1<<53) >= l.share {
		return false
	}
	t := e.templateOf(l, kept)
	*r = row{template: t, n: n, time: received * 1000, came: received}
	if t.sent != 0 {
		r.time = t.sent
	}
	return true
}

// append appends a row's text to dst, with a newline at its end. Its parts are in e.parts
// then, and e.eventID is borrowed from it.
func (e *encoder) append(dst []byte, r *row) []byte {
	t, start := r.template, len(dst)
	b := append(dst, `{"event_id":"`...)
	idStart := len(b)
	if t.given != nil && r.n == 1 { // what stands for several has no id of one of them
		b = append(b, t.given[1:len(t.given)-1]...)
		e.parts = append(e.parts[:0], part{int32(idStart - start), false}, part{int32(len(b) - start), true})
	} else {
		b = append(b, e.ids.next(r.came)...)
		e.parts = append(e.parts[:0], part{int32(len(b) - idTail - start), false}, part{int32(len(b) - start), true})
	}
	idEnd := len(b)
	b = append(b, t.head...)
	b = e.appendTime(b, r.time, 0)
	b = append(b, `","received_at":"`...)
	b = e.appendTime(b, r.came*1000, 1)
	b = append(b, t.middle...)
	b = strconv.AppendInt(b, r.n, 10)
	for _, cut := range t.cuts {
		e.parts = append(e.parts, part{int32(len(b)-start) + cut.end, cut.opaque})
	}
	b = append(b, t.tail...)
	e.parts = append(e.parts, part{int32(len(b) - start), false})
	e.eventID = b[idStart:idEnd]
	return b
}

// rowIDs makes UUIDs of version 7 (RFC 9562): a time, and a number that was drawn when
// the agent started and grows by one from row to row, so that ids resemble each other
// (6.2, method 2).
type rowIDs struct {
	text   [36]byte
	second int64
	drawn  [2]byte // for this second
	serial uint64  // its lowest 62 bits are in text
}

// idTail is how many digits of an id are new in nearly each row.
const idTail = 2

const hexDigits = "0123456789abcdef"

// next returns an id for a row that came at received, in Unix seconds; it is valid until
// the next one.
func (i *rowIDs) next(received int64) []byte {
	i.serial++
	last := uint8(i.serial)
	switch {
	case received != i.second || i.text[8] == 0:
		i.second = received
		_, _ = rand.Read(i.drawn[:]) // never fails: crypto/rand crashes the program instead
		i.renew()
	case last == 0:
		i.renew()
	}
	tail := i.text[len(i.text)-idTail:]
	tail[0], tail[1] = hexDigits[last>>4], hexDigits[last&15]
	return i.text[:]
}

func (i *rowIDs) renew() {
	var u [16]byte
	binary.BigEndian.PutUint64(u[:8], uint64(i.second*1000)<<16)
	binary.BigEndian.PutUint64(u[8:], i.serial)
	u[6], u[7] = 0x70|i.drawn[0]&0x0f, i.drawn[1]
	u[8] = u[8]&0x3f | 0x80
	for at, from := range []int{0, 4, 6, 8, 10} {
		to := []int{4, 6, 8, 10, 16}[at]
		hex.Encode(i.text[2*from+at:], u[from:to])
	}
	i.text[8], i.text[13], i.text[18], i.text[23] = '-', '-', '-', '-'
}

// timeLayout is RFC 3339 with milliseconds, which all readers know.
const timeLayout = "2006-01-02T15:04:05.000Z"

func (e *encoder) appendTime(dst []byte, unix int64, which int) []byte {
	t := &e.times[which]
	if t.text == nil || t.unix != unix {
		t.unix, t.text = unix, time.UnixMilli(unix).UTC().AppendFormat(t.text[:0], timeLayout)
	}
	return append(dst, t.text...)
}

// templateOf returns the text of a line's rows, from the cache or made anew. The first row
// of a line may be its only one, and is not remembered: the cache is larger than the
// processor's.
func (e *encoder) templateOf(l *Line, kept bool) *template {
	t := &e.fresh
	if kept && l.met {
		t = &e.cache[l.number%cacheSize]
		if t.line == l {
			return t
		}
	}
	l.met = true
	given := t.given[:0]
	*t = template{line: l, head: t.head[:0], middle: t.middle[:0], tail: t.tail[:0], cuts: t.cuts[:0], key: t.key[:0]}
	r := e.check(l)
	t.sent, t.late = r.Time, l.flags&(1<<plan.Late) != 0
	if l.flags&(1<<plan.Future) != 0 {
		t.sent = 0 // its clock is wrong
	}
	if len(r.ID) > 0 {
		t.given = plan.AppendJSONText(given, r.ID)
	}
	t.head = append(t.head, `","event":"`...)
	t.head = append(t.head, r.Event.Name...)
	t.head = append(t.head, `","schema_version":"`...)
	t.head = r.Version.Append(t.head)
	t.head = append(t.head, `","event_time":"`...)

	t.middle = append(append(t.middle, `","host":`...), e.host...)
	if l.source != "" {
		t.middle = plan.AppendJSONText(append(t.middle, `,"source":`...), []byte(l.source))
	}
	t.middle = append(t.middle, `,"count":`...)
	t.shape = crc32.ChecksumIEEE([]byte(r.Event.Name))
	e.cuts = e.cuts[:0]
	t.tail = e.appendTail(t.tail, r, l)
	for i, cut := range e.cuts {
		t.cuts = append(t.cuts, part{cut, i%2 == 1})
	}
	t.key = e.appendKey(t.key, r)
	return t
}

// check holds the line against the plan once more: what it found out the first time was
// borrowed.
func (e *encoder) check(l *Line) *plan.Result {
	name, rest, _ := bytes.Cut(l.text, []byte{'\n'})
	e.id.Reset()
	e.id.Kind, e.id.Rate, e.id.Time = metric.Counter, l.rate, l.time
	for len(rest) > 0 {
		tag, after, more := bytes.Cut(rest, []byte{'\n'})
		e.id.Tags = append(e.id.Tags, tag)
		if rest = after; !more {
			break
		}
	}
	l.plan.Check(name, &e.id, &e.result)
	return &e.result
}

func (e *encoder) appendTail(b []byte, r *plan.Result, l *Line) []byte {
	b = append(b, `,"sample_rate":`...)
	b = strconv.AppendFloat(b, l.rate*l.share, 'g', -1, 64)
	b = append(b, `,"consent":[`...)
	start := len(b)
	for category := range bytes.SplitSeq(r.Consent, []byte{'+'}) {
		if len(category) == 0 {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = plan.AppendJSONText(b, category)
	}
	b = append(append(b, `],"key_id":"`...), e.protect.KeyID...)
	b = append(b, `","flags":[`...)
	start = len(b)
	flags := l.flags
	for o := range r.Outcomes {
		flags |= 1 << o
	}
	for o := plan.OK + 1; o < plan.Outcomes; o++ {
		if flags&(1<<o) != 0 {
			if len(b) > start {
				b = append(b, ',')
			}
			b = append(append(append(b, '"'), o.String()...), '"')
		}
	}
	b = append(b, `],"attrs":`...)
	b = r.AppendAttributes(b, e.protect.Pseudonym)
	b = append(b, `,"extra":`...)
	b = r.AppendExtra(b, e.protect.Pseudonym)
	b = append(b, `,"context":`...)
	b = r.AppendContext(b)
	return append(b, "}\n"...)
}

// appendKey appends what stands for who it was: the first identity there is.
func (e *encoder) appendKey(b []byte, r *plan.Result) []byte {
	for i := range r.Event.Attributes {
		a := &r.Event.Attributes[i]
		if v := &r.Values[i]; a.Role == plan.Identity && !v.Null() {
			return e.protect.Pseudonym(b, a.Identity, v.Text)
		}
	}
	return b
}
