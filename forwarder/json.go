package forwarder

import (
	"math"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendJSONString appends the concatenation of two strings as one JSON string.
// Bytes that are not UTF-8 become U+FFFD, as encoding/json has it.
//
// It copies runs of bytes that need no escape as a whole; from is where the
// current run began.
func appendJSONString(dst []byte, s, more string) []byte {
	dst = append(dst, '"')
	for _, part := range [2]string{s, more} {
		from := 0
		for i := 0; i < len(part); {
			c := part[i]
			if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
				i++
				continue
			}
			if c >= utf8.RuneSelf {
				r, size := utf8.DecodeRuneInString(part[i:])
				if r != utf8.RuneError || size > 1 {
					i += size
					continue
				}
			}
			dst = append(dst, part[from:i]...)
			i++
			from = i
			switch {
			case c >= utf8.RuneSelf:
				dst = append(dst, "\ufffd"...)
			case c == '"' || c == '\\':
				dst = append(dst, '\\', c)
			case c == '\n':
				dst = append(dst, '\\', 'n')
			case c == '\r':
				dst = append(dst, '\\', 'r')
			case c == '\t':
				dst = append(dst, '\\', 't')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		dst = append(dst, part[from:]...)
	}
	return append(dst, '"')
}

// appendJSONNumber appends a finite number in the shortest form that reads back
// as the same one.
func appendJSONNumber(dst []byte, v float64) []byte {
	format := byte('f')
	if abs := math.Abs(v); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(dst, v, format, -1, 64)
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// appendJSONField appends a further field of an object, unless the value is empty.
func appendJSONField(dst []byte, name, value string) []byte {
	if value == "" {
		return dst
	}
	dst = append(append(append(dst, `,"`...), name...), `":`...)
	return appendJSONString(dst, value, "")
}

// appendJSONTags appends an array of the tags.
func appendJSONTags(dst []byte, tags []string) []byte {
	dst = append(dst, '[')
	for _, tag := range tags {
		dst = appendJSONTag(dst, tag)
	}
	return append(dst, ']')
}

// appendJSONTag appends a further tag to an array that was begun.
func appendJSONTag(dst []byte, tag string) []byte {
	if isResource(tag) {
		return dst
	}
	if dst[len(dst)-1] != '[' {
		dst = append(dst, ',')
	}
	return appendJSONString(dst, tag, "")
}

// appendPlain appends s with what would break a line or reach into a terminal
// made visible.
func appendPlain(dst []byte, s string) []byte {
	for _, r := range s {
		switch {
		case r == utf8.RuneError, !strconv.IsPrint(r):
			dst = strconv.AppendQuoteRuneToASCII(dst, r)
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return dst
}
