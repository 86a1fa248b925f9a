package plan

import (
	"bytes"
	"encoding/base64"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Value is a value of an attribute. The zero Value is null.
//
// Text is borrowed from the line or from the Result it is in.
type Value struct {
	Text  []byte // canonical: two spellings of one value have the same; nil for null
	Int   int64  // of an int; of a bool 0 or 1; of an enum its index, -1 for other; of a timestamp Unix milliseconds
	Float float64
}

// Null reports whether there is no value.
func (v *Value) Null() bool { return v.Text == nil }

// Other is what a value becomes that is none of its enum's.
const Other = "other"

var (
	other     = []byte(Other)
	trueText  = []byte("true")
	falseText = []byte("false")
	escape    = []byte("b64.")
)

// Escape returns text as the value of a tag that no client and no dialect changes, if
// it is not one already: b64.<base64url without padding>.
func Escape(text string) string {
	plain := text != "" && !strings.HasPrefix(text, string(escape))
	for i := 0; i < len(text) && plain; i++ {
		c := text[i]
		plain = c == '_' || c == '.' || c == '-' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
	}
	if plain || text == "" {
		return text
	}
	return string(escape) + base64.RawURLEncoding.EncodeToString([]byte(text))
}

// Unescape returns what a tag's value stands for: itself, if it is not escaped as it ought
// to be.
func Unescape(raw []byte) []byte {
	var scratch []byte
	if text, ok := unescape(raw, &scratch); ok {
		return text
	}
	return raw
}

// unescape returns what a tag's value stands for. Bytes that it makes are appended to
// scratch.
func unescape(raw []byte, scratch *[]byte) (value []byte, ok bool) {
	encoded, escaped := bytes.CutPrefix(raw, escape)
	if !escaped {
		return raw, true
	}
	start := len(*scratch)
	all, err := base64.RawURLEncoding.AppendDecode(*scratch, encoded)
	if err != nil {
		return nil, false
	}
	*scratch = all
	return all[start:len(all):len(all)], true
}

// expects says in words what an attribute takes.
func (a *Attribute) expects() string {
	switch a.Type {
	case Int:
		return "a whole number"
	case Float:
		return "a number"
	case Bool:
		return "true or false"
	case Enum:
		return "one of " + list(a.Values)
	case Timestamp:
		return "a time, in Unix seconds or milliseconds or as 2026-11-21T10:00:00Z"
	}
	return "text of at most " + strconv.Itoa(a.MaxLength) + " bytes"
}

// parse reads the value of an attribute. With an outcome other than OK, v is what is
// left of it in mode warn. Bytes that it makes are appended to scratch, which may be
// nil.
//
// Per identity, not per line; TestCheckDoesNotAllocate.
func (a *Attribute) parse(raw []byte, v *Value, scratch *[]byte) Outcome {
	*v = Value{}
	if len(raw) == 0 {
		return OK
	}
	made := func(appendTo func([]byte) []byte) []byte {
		if scratch == nil {
			return appendTo(nil)
		}
		start := len(*scratch)
		*scratch = appendTo(*scratch)
		return (*scratch)[start:len(*scratch):len(*scratch)]
	}
	switch a.Type {
	case Int:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			return DatatypeMismatch
		}
		v.Int, v.Float, v.Text = n, float64(n), raw
		if !canonicalInt(raw) {
			v.Text = made(func(dst []byte) []byte { return strconv.AppendInt(dst, n, 10) })
		}
	case Float:
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || math.IsInf(f, 0) || math.IsNaN(f) || bytes.ContainsAny(raw, "xX_") {
			return DatatypeMismatch
		}
		f += 0 // no -0
		v.Float = f
		v.Text = made(func(dst []byte) []byte { return strconv.AppendFloat(dst, f, 'g', -1, 64) })
	case Bool:
		switch {
		case bytes.EqualFold(raw, trueText) || string(raw) == "1":
			v.Int, v.Text = 1, trueText
		case bytes.EqualFold(raw, falseText) || string(raw) == "0":
			v.Text = falseText
		default:
			return DatatypeMismatch
		}
	case Enum:
		for i, value := range a.Values {
			if value == string(raw) {
				v.Int, v.Text = int64(i), raw
				return OK
			}
		}
		v.Int, v.Text = -1, other
		return NotInEnum
	case Timestamp:
		ms, ok := parseTime(raw)
		if !ok {
			return DatatypeMismatch
		}
		v.Int = ms
		v.Text = made(func(dst []byte) []byte { return time.UnixMilli(ms).UTC().AppendFormat(dst, timeLayout) })
	default:
		if !utf8.Valid(raw) {
			return DatatypeMismatch
		}
		v.Text = raw
		if len(raw) <= a.MaxLength {
			return OK
		}
		if a.Role == Identity {
			v.Text = nil // the beginning would be somebody else
			return TooLong
		}
		end := a.MaxLength
		for end > 0 && !utf8.RuneStart(raw[end]) {
			end--
		}
		v.Text = raw[:end:end]
		return TooLong
	}
	return OK
}

// canonicalInt reports whether a decimal that was parsed is written the one way:
// without a plus, leading zeros or -0.
func canonicalInt(raw []byte) bool {
	digits, negative := bytes.CutPrefix(raw, []byte{'-'})
	if raw[0] == '+' || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	return !negative || digits[0] != '0'
}

// timeLayout is the canonical form of a timestamp.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// Times must be years of four digits: all readers of raw events know these.
var (
	minTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	maxTime = time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC).UnixMilli()
)

// parseTime reads Unix seconds, with a fraction or not, Unix milliseconds (from 10^11
// on, which as seconds would be the year 5138) or RFC 3339.
func parseTime(raw []byte) (ms int64, ok bool) {
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		if n > -1e11 && n < 1e11 {
			n *= 1000
		}
		return n, n >= minTime && n <= maxTime
	}
	if t, err := time.Parse(time.RFC3339Nano, string(raw)); err == nil {
		ms = t.UnixMilli()
		return ms, ms >= minTime && ms <= maxTime
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(math.Abs(f) < 1e11) || bytes.ContainsAny(raw, "xX_") {
		return 0, false
	}
	ms = int64(math.Round(f * 1000))
	return ms, ms >= minTime && ms <= maxTime
}
