package rules

import (
	"fmt"
	"strconv"
	"strings"
)

// template is a text in which $1 and ${1} stand for captures and $$ for a dollar.
type template []piece

// piece is a literal, or a capture if that is above 0.
type piece struct {
	literal string
	capture int
}

func newTemplate(text string, captures int) (template, error) {
	var t template
	for text != "" {
		before, after, found := strings.Cut(text, "$")
		if before != "" {
			t = append(t, piece{literal: before})
		}
		if !found {
			break
		}
		if rest, dollar := strings.CutPrefix(after, "$"); dollar {
			t, text = append(t, piece{literal: "$"}), rest
			continue
		}
		digits, rest, closed := after, "", true
		if inner, braced := strings.CutPrefix(after, "{"); braced {
			digits, rest, closed = strings.Cut(inner, "}")
		} else {
			i := 0
			for i < len(after) && after[i] >= '0' && after[i] <= '9' {
				i++
			}
			digits, rest = after[:i], after[i:]
		}
		n, err := strconv.Atoi(digits)
		if err != nil || !closed || n < 1 {
			return nil, fmt.Errorf("a %q stands before no number; write $1 for what the first * or group matched, and $$ for a dollar", "$")
		}
		if n > captures {
			return nil, fmt.Errorf("there is no capture $%d: the pattern has %d; a * or a group in parentheses makes one", n, captures)
		}
		t, text = append(t, piece{capture: n}), rest
	}
	return t, nil
}

// appendTo appends the text with the captures filled in, up to a limit on dst's
// length that a single piece may exceed.
func (t template) appendTo(dst []byte, captures [][]byte) []byte {
	for _, p := range t {
		switch {
		case len(dst) > maxWritten:
			return dst
		case p.capture > 0:
			dst = append(dst, captures[p.capture-1]...)
		default:
			dst = append(dst, p.literal...)
		}
	}
	return dst
}
