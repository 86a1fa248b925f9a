package rules

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// regexPrefix begins a pattern that is a regular expression.
const regexPrefix = "regex:"

// pattern is what a name, a tag or the key or value of a tag is compared with: all of
// it has to match. In a glob "*" stands for any number of any bytes, dots included, as
// few as possible; whatever follows "regex:" is an expression in RE2's syntax. Every
// "*" and every group in parentheses is a capture.
type pattern struct {
	text   string
	parts  [][]byte       // of a glob: what is between the stars
	regex  *regexp.Regexp // nil for a glob
	prefix string         // what everything that matches begins with
}

// maxPattern bounds the length of a pattern, in bytes, so that an expression cannot
// be compiled to something huge.
const maxPattern = 4096

func newPattern(text string) (*pattern, error) {
	p := &pattern{text: text}
	expression, isRegex := strings.CutPrefix(text, regexPrefix)
	switch {
	case text == "":
		return nil, errors.New(`the pattern is empty; write a name, in which "*" stands for anything`)
	case len(text) > maxPattern:
		return nil, fmt.Errorf("the pattern is longer than %d bytes; split it", maxPattern)
	case !isRegex:
		p.prefix, _, _ = strings.Cut(text, "*")
		p.parts = bytes.Split([]byte(text), []byte{'*'})
		return p, nil
	}
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("%q is no regular expression (%s); write one in RE2's syntax, as Go does", expression, reasonOf(err))
	}
	p.prefix = literalPrefix(parsed.Simplify())
	// Alone it is valid, so the parentheses around it are its own.
	if p.regex, err = regexp.Compile(`\A(?:` + expression + `)\z`); err != nil {
		return nil, fmt.Errorf("%q is no regular expression (%s); write one in RE2's syntax, as Go does", expression, reasonOf(err))
	}
	return p, nil
}

func reasonOf(err error) string {
	var fault *syntax.Error
	if errors.As(err, &fault) {
		return fault.Code.String()
	}
	return err.Error()
}

// literalPrefix returns what everything that an expression matches begins with, as
// far as that is plain to see.
func literalPrefix(re *syntax.Regexp) string {
	switch re.Op {
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return string(re.Rune)
		}
	case syntax.OpCapture:
		return literalPrefix(re.Sub[0])
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			if sub.Op != syntax.OpBeginText && sub.Op != syntax.OpBeginLine {
				return literalPrefix(sub)
			}
		}
	}
	return ""
}

// captures returns how many captures the pattern has.
func (p *pattern) captures() int {
	if p.regex != nil {
		return p.regex.NumSubexp()
	}
	return len(p.parts) - 1
}

// matches reports whether all of text is what the pattern says.
func (p *pattern) matches(text []byte) bool {
	if p.regex != nil {
		return p.regex.Match(text)
	}
	_, ok := p.glob(text, nil, false)
	return ok
}

// capture is matches, and appends to dst what the captures hold; of a group that took
// no part that is nothing.
func (p *pattern) capture(text []byte, dst [][]byte) ([][]byte, bool) {
	if p.regex == nil {
		return p.glob(text, dst, true)
	}
	at := p.regex.FindSubmatchIndex(text)
	if at == nil {
		return dst, false
	}
	for i := 2; i < len(at); i += 2 {
		if at[i] < 0 {
			dst = append(dst, nil)
		} else {
			dst = append(dst, text[at[i]:at[i+1]])
		}
	}
	return dst, true
}

// glob looks for each part behind the one before it; the first begins the text, the
// last ends it.
func (p *pattern) glob(text []byte, dst [][]byte, keep bool) ([][]byte, bool) {
	last := len(p.parts) - 1
	if last == 0 {
		return dst, bytes.Equal(text, p.parts[0])
	}
	first, end := p.parts[0], p.parts[last]
	if len(text) < len(first)+len(end) || !bytes.HasPrefix(text, first) || !bytes.HasSuffix(text, end) {
		return dst, false
	}
	text = text[len(first) : len(text)-len(end)]
	for _, part := range p.parts[1:last] {
		at := bytes.Index(text, part)
		if at < 0 {
			return dst, false
		}
		if keep {
			dst = append(dst, text[:at])
		}
		text = text[at+len(part):]
	}
	if keep {
		dst = append(dst, text)
	}
	return dst, true
}

// tagPattern is a pattern for whole tags; with a "!" before it no tag may match.
type tagPattern struct {
	pattern *pattern
	not     bool
}

func newTagPattern(text string) (tagPattern, error) {
	text, not := strings.CutPrefix(text, "!")
	p, err := newPattern(text)
	return tagPattern{p, not}, err
}

func (t *tagPattern) matches(tags [][]byte) bool {
	for _, tag := range tags {
		if t.pattern.matches(tag) {
			return !t.not
		}
	}
	return t.not
}

// keyPatterns are patterns for keys of tags.
type keyPatterns []*pattern

// Keys of tags that say what a metric belongs to. A pattern has to name them in full.
var placeKeys = []string{"host", "device", "dd.internal.resource"}

func isPlaceKey(key []byte) bool {
	for _, place := range placeKeys {
		if string(key) == place {
			return true
		}
	}
	return false
}

func (k keyPatterns) match(key []byte) bool {
	place := isPlaceKey(key)
	for _, p := range k {
		if place && p.text != string(key) {
			continue
		}
		if p.matches(key) {
			return true
		}
	}
	return false
}

// keyOf returns what is before a tag's first colon: all of it if there is none.
func keyOf(tag []byte) []byte {
	if i := bytes.IndexByte(tag, ':'); i >= 0 {
		return tag[:i]
	}
	return tag
}
