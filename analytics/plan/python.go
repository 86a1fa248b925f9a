package plan

import (
	"strings"
)

// pyKind is what a token of Python is.
type pyKind uint8

const (
	pyName pyKind = iota
	pyString
	pyOther // a number or an operator
)

type pyToken struct {
	kind   pyKind
	text   string // of a string what is in it
	filled bool   // it is a string with expressions in it: f"{area}.created"
}

// pyLine is a logical line: one that goes on inside brackets or behind a backslash is
// one line.
type pyLine struct {
	number int
	indent int
	tokens []pyToken
}

// is reports whether the token at i is this operator or name.
func (l *pyLine) is(i int, text string) bool {
	return i >= 0 && i < len(l.tokens) && l.tokens[i].kind != pyString && l.tokens[i].text == text
}

// pyScanner cuts Python into logical lines. It is tolerant: what it does not know is
// an operator of one byte, and a string that does not end, ends with the file.
type pyScanner struct {
	text   string
	at     int
	number int
}

func pyLines(text string) []pyLine {
	s := &pyScanner{text: text, number: 1}
	var lines []pyLine
	for s.at < len(s.text) {
		line := s.line()
		if len(line.tokens) > 0 {
			lines = append(lines, line)
		}
	}
	return lines
}

func (s *pyScanner) line() pyLine {
	line := pyLine{number: s.number}
	for s.at < len(s.text) && (s.text[s.at] == ' ' || s.text[s.at] == '\t') {
		line.indent++
		if s.text[s.at] == '\t' {
			line.indent += 7
		}
		s.at++
	}
	depth := 0
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case c == '\n':
			s.at++
			s.number++
			if depth == 0 {
				return line
			}
		case c == ';' && depth == 0: // the next statement is as good as a line
			s.at++
			return line
		case c == ' ' || c == '\t' || c == '\r' || c == '\f':
			s.at++
		case c == '\\' && strings.HasPrefix(s.text[s.at+1:], "\n"):
			s.at += 2
			s.number++
		case c == '#':
			for s.at < len(s.text) && s.text[s.at] != '\n' {
				s.at++
			}
		case c == '"' || c == '\'':
			line.tokens = append(line.tokens, pyToken{kind: pyString, text: s.quoted(false)})
		case isPyName(c):
			start := s.at
			for s.at < len(s.text) && (isPyName(s.text[s.at]) || s.text[s.at] >= '0' && s.text[s.at] <= '9') {
				s.at++
			}
			word := s.text[start:s.at]
			if s.at < len(s.text) && (s.text[s.at] == '"' || s.text[s.at] == '\'') && isPyPrefix(word) {
				text := s.quoted(strings.ContainsAny(word, "rR"))
				line.tokens = append(line.tokens, pyToken{pyString, text, strings.ContainsAny(word, "fF") && strings.Contains(text, "{")})
			} else {
				line.tokens = append(line.tokens, pyToken{kind: pyName, text: word})
			}
		default:
			switch c {
			case '(', '[', '{':
				depth++
			case ')', ']', '}':
				depth = max(0, depth-1)
			}
			s.at++
			line.tokens = append(line.tokens, pyToken{kind: pyOther, text: string(c)})
		}
	}
	return line
}

func isPyName(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func isPyPrefix(word string) bool {
	switch strings.ToLower(word) {
	case "r", "u", "b", "f", "br", "rb", "fr", "rf":
		return true
	}
	return false
}

// quoted reads a string from its first quote on.
func (s *pyScanner) quoted(raw bool) string {
	quote := s.text[s.at : s.at+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s.text[s.at:], triple) {
		quote = triple
	}
	s.at += len(quote)
	var b strings.Builder
	for s.at < len(s.text) {
		switch c := s.text[s.at]; {
		case strings.HasPrefix(s.text[s.at:], quote):
			s.at += len(quote)
			return b.String()
		case c == '\n' && len(quote) == 1:
			return b.String() // it was never closed
		case c == '\\' && s.at+1 < len(s.text):
			next := s.text[s.at+1]
			s.at += 2
			switch {
			case next == '\n':
				s.number++
			case raw || strings.IndexByte(`\'"`, next) < 0:
				b.WriteByte(c)
				b.WriteByte(next)
			default:
				b.WriteByte(next)
			}
		default:
			if c == '\n' {
				s.number++
			}
			b.WriteByte(c)
			s.at++
		}
	}
	return b.String()
}

// closing returns the index of the bracket that closes the one at open, or the end.
func closing(tokens []pyToken, open int) int {
	depth := 0
	for i := open; i < len(tokens); i++ {
		if tokens[i].kind != pyOther {
			continue
		}
		switch tokens[i].text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(tokens)
}

// arguments cuts tokens at the commas that are in no bracket.
func arguments(tokens []pyToken) [][]pyToken {
	var all [][]pyToken
	start := 0
	for i := 0; i < len(tokens); i++ {
		if tokens[i].kind != pyOther {
			continue
		}
		switch tokens[i].text {
		case "(", "[", "{":
			i = closing(tokens, i)
		case ",":
			all = append(all, tokens[start:i])
			start = i + 1
		}
	}
	if start < len(tokens) {
		all = append(all, tokens[start:])
	}
	return all
}

// literal returns a string that is written in one piece or in several.
func literal(tokens []pyToken) (text string, ok bool) {
	for len(tokens) > 1 && tokens[0].kind == pyOther && tokens[0].text == "(" && closing(tokens, 0) == len(tokens)-1 {
		tokens = tokens[1 : len(tokens)-1]
	}
	for _, token := range tokens {
		if token.kind != pyString || token.filled {
			return "", false
		}
		text += token.text
	}
	return text, len(tokens) > 0
}

// pyModule is what a file says besides its classes.
type pyModule struct {
	assigned map[string][]pyToken // NAME = what
	alias    map[string]string    // import what as name
}

func moduleOf(lines []pyLine) *pyModule {
	m := &pyModule{map[string][]pyToken{}, map[string]string{}}
	for i := range lines {
		l := &lines[i]
		switch {
		case l.is(0, "import"), l.is(0, "from"):
			for j := 1; j+1 < len(l.tokens); j++ {
				if l.is(j, "as") {
					m.alias[l.tokens[j+1].text] = l.tokens[j-1].text
				}
			}
		case l.indent > 0 || l.tokens[0].kind != pyName:
		case l.is(1, "="):
			m.assigned[l.tokens[0].text] = l.tokens[2:]
		case l.is(1, ":"):
			for j := range l.tokens {
				if l.is(j, "=") {
					m.assigned[l.tokens[0].text] = l.tokens[j+1:]
					break
				}
			}
		}
	}
	return m
}

// name is what a name was called where it comes from.
func (m *pyModule) name(token pyToken) string {
	if known := m.alias[token.text]; known != "" && token.kind == pyName {
		return known
	}
	return token.text
}

// literal is a string as it stands, or the constant that a name stands for.
func (m *pyModule) literal(tokens []pyToken) (text string, ok bool) {
	if len(tokens) == 1 && tokens[0].kind == pyName {
		return literal(m.assigned[tokens[0].text])
	}
	return literal(tokens)
}
