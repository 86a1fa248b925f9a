package raw

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	mathrand "math/rand/v2"
	"strconv"
	"time"

	"github.com/weir-agent/weir/analytics/plan"
	"github.com/weir-agent/weir/metric"
)

// row is a raw event as it is written.
type row struct {
	json []byte // with a newline at its end; valid until the next one is encoded
	id   []byte // event_id, borrowed from json
	key  []byte // pseudonym of who it was; nil if that is not known
	time int64  // of the event, Unix milliseconds
	late bool   // it belongs to a day that is long over
	came int64  // Unix seconds
}

// encoder makes rows of lines. One goroutine uses it.
type encoder struct {
	host    []byte // as JSON
	protect Protection

	result plan.Result
	id     metric.Identity
	random *mathrand.ChaCha8
	rowID  [36]byte
	json   []byte
	times  [2]textOfTime // lately written: of events, of arrival
	fresh  template      // of a line that does not come again

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
	return &encoder{host: plan.AppendJSONText(nil, []byte(host)), protect: protect, random: mathrand.NewChaCha8(seed)}
}

// encode makes the row of a line that stands for n events and came at received, in Unix
// seconds. It reports whether there is one: chance may be against it.
func (e *encoder) encode(l *Line, n, received int64, kept bool, r *row) bool {
	if l.chance && float64(e.random.Uint64()>>11)/(1<<53) >= l.share {
		return false
	}
	t := e.templateOf(l, kept)
	at := received * 1000
	if t.sent != 0 {
		at = t.sent
	}
	b := append(e.json[:0], `{"event_id":`...)
	idStart := len(b)
	if t.given != nil && n == 1 { // what stands for several has no id of one of them
		b = append(b, t.given...)
	} else {
		e.newID(received)
		b = append(append(append(b, '"'), e.rowID[:]...), '"')
	}
	idEnd := len(b)
	b = append(b, t.head...)
	b = e.appendTime(b, at, 0)
	b = append(b, `","received_at":"`...)
	b = e.appendTime(b, received*1000, 1)
	b = append(b, t.middle...)
	b = strconv.AppendInt(b, n, 10)
	b = append(b, t.tail...)
	e.json = b
	*r = row{json: b, id: b[idStart+1 : idEnd-1], key: t.key, time: at, late: t.late, came: received}
	return true
}

// newID makes a UUID of version 7.
func (e *encoder) newID(received int64) {
	var u [16]byte
	binary.BigEndian.PutUint64(u[:8], uint64(received*1000)<<16|e.random.Uint64()&0xfff)
	binary.BigEndian.PutUint64(u[8:], e.random.Uint64())
	u[6] = u[6]&0x0f | 0x70
	u[8] = u[8]&0x3f | 0x80
	hex.Encode(e.rowID[:], u[:4])
	e.rowID[8], e.rowID[13], e.rowID[18], e.rowID[23] = '-', '-', '-', '-'
	hex.Encode(e.rowID[9:], u[4:6])
	hex.Encode(e.rowID[14:], u[6:8])
	hex.Encode(e.rowID[19:], u[8:10])
	hex.Encode(e.rowID[24:], u[10:])
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

// templateOf returns the text of a line's rows, from the cache or made anew.
func (e *encoder) templateOf(l *Line, kept bool) *template {
	t := &e.fresh
	if kept {
		t = &e.cache[l.number%cacheSize]
		if t.line == l {
			return t
		}
	}
	given := t.given[:0]
	*t = template{line: l, head: t.head[:0], middle: t.middle[:0], tail: t.tail[:0], key: t.key[:0]}
	r := e.check(l)
	t.sent, t.late = r.Time, l.flags&(1<<plan.Late) != 0
	if l.flags&(1<<plan.Future) != 0 {
		t.sent = 0 // its clock is wrong
	}
	if len(r.ID) > 0 {
		t.given = plan.AppendJSONText(given, r.ID)
	}
	t.head = append(t.head, `,"event":"`...)
	t.head = append(t.head, r.Event.Name...)
	t.head = append(t.head, `","schema_version":"`...)
	t.head = r.Version.Append(t.head)
	t.head = append(t.head, `","event_time":"`...)

	t.middle = append(append(t.middle, `","host":`...), e.host...)
	if l.source != "" {
		t.middle = plan.AppendJSONText(append(t.middle, `,"source":`...), []byte(l.source))
	}
	t.middle = append(t.middle, `,"count":`...)
	t.tail = e.appendTail(t.tail, r, l)
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
