package plan

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

const (
	maxImportClasses = 20_000
	// maxImportConstants is how many constants are looked up for the attributes of a class.
	maxImportConstants = 100
)

// sentryClass is a class of Python that is an event or may be the base of one.
type sentryClass struct {
	name, path string
	line       int
	bases      []string
	marked     bool   // by a decorator eventclass
	event      string // its type; "" for one that is only a base
	doc        string
	fields     []Attribute
	extends    []string // classes whose attributes are joined to its own
	notes      []string
	odd        bool // its type is there, and no text
	expanded   int  // constants in its attributes
	module     *pyModule
}

func (c *sentryClass) note(format string, args ...any) {
	if note := fmt.Sprintf(format, args...); !slices.Contains(c.notes, note) {
		c.notes = append(c.notes, note)
	}
}

// ImportSentry reads Sentry's classes of analytics events from the files of Python
// below dir: those with type and attributes, and the dataclasses with a decorator
// eventclass. What comes out behaves as Sentry's: an event with a fault does not
// count, and what nobody declared is dropped in silence.
func ImportSentry(dir string) (*Imported, error) {
	s := &sentryImport{out: &Imported{}, byName: map[string][]*sentryClass{}, events: map[string]*Event{}}
	err := s.out.eachFile(dir, []string{".py"}, func(path string, text []byte) {
		if strings.HasPrefix(filepath.Base(path), "test_") {
			return
		}
		s.file(path, string(text))
	})
	if err != nil {
		return nil, fmt.Errorf("import from Sentry: %w", err)
	}
	for _, c := range s.classes {
		s.event(c)
	}
	if len(s.events) == 0 {
		return nil, fmt.Errorf("import from Sentry: there are no events below %s; name a folder with classes of analytics.Event", dir)
	}
	var events []*Event
	for _, e := range s.events {
		events = append(events, e)
	}
	slices.SortFunc(events, func(a, b *Event) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(s.out.Notes)
	if faults := s.out.prove(events, nil); len(faults) > 0 {
		return nil, errors.Join(errors.New("what is imported would have faults"), faults)
	}
	return s.out, nil
}

type sentryImport struct {
	out     *Imported
	classes []*sentryClass
	byName  map[string][]*sentryClass
	events  map[string]*Event
}

// file finds the classes of a file, of whatever depth.
func (s *sentryImport) file(path, text string) {
	lines := pyLines(text)
	module := moduleOf(lines)
	marked, event, odd := false, "", false
	for i := 0; i < len(lines); i++ {
		l := &lines[i]
		switch {
		case l.is(0, "@"):
			if is, name, isOdd := eventClass(l, module); is {
				marked, event, odd = true, name, isOdd
			}
		case l.is(0, "class") && len(l.tokens) > 1 && l.tokens[1].kind == pyName:
			c := &sentryClass{name: l.tokens[1].text, path: path, line: l.number, marked: marked, event: event, odd: odd, module: module}
			if rest := c.head(l); len(rest.tokens) > 0 {
				c.statement(rest) // class X(Event): type = "x"
			} else {
				c.body(lines[i+1:], l.indent)
			}
			c.module = nil // it holds the text of the file
			if len(s.classes) < maxImportClasses {
				s.classes = append(s.classes, c)
				s.byName[c.name] = append(s.byName[c.name], c)
			}
			marked, event, odd = false, "", false
		default:
			marked, event, odd = false, "", false
		}
	}
}

// eventClass reads @eventclass("name") and @analytics.eventclass("name"). odd says that
// there is a name which is no text.
func eventClass(l *pyLine, module *pyModule) (is bool, event string, odd bool) {
	for i := 1; i < len(l.tokens); i++ {
		if l.is(i, "(") {
			break
		}
		is = module.name(l.tokens[i]) == "eventclass"
		if !is || !l.is(i+1, "(") {
			continue
		}
		all := arguments(l.tokens[i+2 : closing(l.tokens, i+1)])
		if len(all) == 0 {
			continue
		}
		name := all[0]
		if len(name) > 2 && isAssignment(name) {
			name = name[2:]
		}
		text, ok := module.literal(name)
		event, odd = text, !ok
	}
	return is, event, odd
}

// head reads the bases: class X(analytics.Event, abc.ABC): and returns what is behind
// the colon.
func (c *sentryClass) head(l *pyLine) (rest *pyLine) {
	end := 2
	if l.is(2, "(") {
		end = closing(l.tokens, 2)
		for _, base := range arguments(l.tokens[3:end]) {
			if n := len(base); n > 0 && base[n-1].kind == pyName {
				c.bases = append(c.bases, c.module.name(base[n-1]))
			}
		}
		end++
	}
	if !l.is(end, ":") {
		return &pyLine{}
	}
	return &pyLine{number: l.number, tokens: l.tokens[end+1:]}
}

// body reads the lines that are indented deeper than the class, but only its own, not
// those of what is in it.
func (c *sentryClass) body(lines []pyLine, indent int) {
	own := -1
	for i := range lines {
		l := &lines[i]
		if l.indent <= indent {
			return
		}
		if own < 0 {
			own = l.indent
			c.doc, _ = literal(l.tokens)
		}
		if l.indent == own && l.tokens[0].kind == pyName {
			c.statement(l)
		}
	}
}

func (c *sentryClass) statement(l *pyLine) {
	name := l.tokens[0].text
	switch {
	case l.is(1, "=") && name == "type":
		c.named(l.tokens[2:])
	case l.is(1, "=") && name == "attributes":
		c.attributes(l.tokens[2:], "", true)
	case l.is(1, ":") && len(l.tokens) > 2:
		c.field(name, l.tokens[2:])
	}
}

// named reads the type of an event.
func (c *sentryClass) named(tokens []pyToken) {
	if c.marked {
		return
	}
	text, ok := c.module.literal(tokens)
	c.event, c.odd = text, !ok
}

// attributes reads Attribute("name", type=int, required=False) and
// Map("name", (Attribute(…), …)), whose attributes get its name before their own.
func (c *sentryClass) attributes(tokens []pyToken, prefix string, required bool) {
	for i := 0; i < len(tokens); i++ {
		opens := i+1 < len(tokens) && tokens[i+1].kind == pyOther && tokens[i+1].text == "("
		switch {
		case tokens[i].kind != pyName:
		case tokens[i].text == "attributes" && i >= 2 && tokens[i-1].text == "." && tokens[i-2].kind == pyName:
			c.extends = append(c.extends, tokens[i-2].text)
		case c.module.name(tokens[i]) == "Attribute" && opens:
			end := closing(tokens, i+1)
			c.attribute(arguments(tokens[i+2:end]), prefix, required)
			i = end
		case c.module.name(tokens[i]) == "Map" && opens:
			end := closing(tokens, i+1)
			all := arguments(tokens[i+2 : end])
			if len(all) > 0 {
				if name, ok := literal(all[0]); ok {
					needed := required
					for _, argument := range all[1:] {
						if isKeyword(argument, "required") {
							needed = needed && argument[2].text != "False"
						}
					}
					c.note("the attributes of the map %s have its name before their own", short(name))
					for _, argument := range all[1:] {
						c.attributes(argument, prefix+name+"_", needed)
					}
				}
			}
			i = end
		case i+1 < len(tokens) && tokens[i+1].kind == pyOther && tokens[i+1].text == ".": // of a module, a class
		case c.module.assigned[tokens[i].text] != nil && !opens && c.expanded < maxImportConstants:
			c.expanded++
			shared := c.module.assigned[tokens[i].text]
			c.module.assigned[tokens[i].text] = nil // it may be of itself
			c.attributes(shared, prefix, required)
			c.module.assigned[tokens[i].text] = shared
		default:
			c.note("%s is not read; add the attributes that it stands for", short(tokens[i].text))
		}
	}
}

func isKeyword(argument []pyToken, name string) bool {
	return len(argument) > 2 && argument[0].kind == pyName && argument[0].text == name && argument[1].text == "="
}

func (c *sentryClass) attribute(all [][]pyToken, prefix string, required bool) {
	if len(all) == 0 {
		return
	}
	at := all[0]
	if isKeyword(at, "name") {
		at = at[2:]
	}
	name, ok := c.module.literal(at)
	if !ok {
		c.note("an attribute whose name is no text is left out")
		return
	}
	a := Attribute{Name: prefix + name, Type: String, Required: required}
	for i, argument := range all[1:] {
		switch {
		case isKeyword(argument, "required"):
			a.Required = a.Required && argument[2].text != "False"
		case isKeyword(argument, "type"):
			a.Type = pyType(argument[2:])
		case i == 0 && len(argument) > 0 && argument[0].kind == pyName && !isAssignment(argument):
			a.Type = pyType(argument)
		}
	}
	c.fields = append(c.fields, a)
}

func isAssignment(argument []pyToken) bool { return len(argument) > 1 && argument[1].text == "=" }

// field reads what is behind the colon of "user_id: int | None = None".
func (c *sentryClass) field(name string, tokens []pyToken) {
	annotation, hasDefault := tokens, false
	for i := 0; i < len(tokens); i++ {
		if tokens[i].kind != pyOther {
			continue
		}
		if tokens[i].text == "(" || tokens[i].text == "[" {
			i = closing(tokens, i)
		} else if tokens[i].text == "=" {
			annotation, hasDefault = tokens[:i], true
			break
		}
	}
	if name == "type" && hasDefault && !c.marked {
		c.named(tokens[len(annotation)+1:])
		return
	}
	for _, token := range annotation {
		if slices.Contains(pyWords(token), "ClassVar") {
			return
		}
	}
	if strings.HasPrefix(name, "_") {
		return
	}
	a := Attribute{Name: name, Type: pyType(annotation), Required: !hasDefault && !mayBeNone(annotation, 0)}
	if values := pyLiterals(annotation); len(values) > 0 {
		a.Type, a.Values = Enum, values
	}
	c.fields = append(c.fields, a)
}

// mayBeNone reports whether an annotation takes None itself, as int | None does and
// dict[str, int | None] does not. It may be a string, or have strings in it.
func mayBeNone(annotation []pyToken, depth int) bool {
	const deepest = 8
	if depth > deepest {
		return false
	}
	for i := 0; i < len(annotation); i++ {
		token := annotation[i]
		opens := i+1 < len(annotation) && annotation[i+1].kind == pyOther && annotation[i+1].text == "["
		switch {
		case token.kind == pyString:
			for _, line := range pyLines(token.text) {
				if mayBeNone(line.tokens, depth+1) {
					return true
				}
			}
		case token.kind == pyName && (token.text == "None" || opens && (token.text == "Optional" || token.text == "NotRequired")):
			return true
		case opens:
			end := closing(annotation, i+1)
			inner := arguments(annotation[i+2 : end])
			if token.text == "Annotated" && len(inner) > 1 {
				inner = inner[:1]
			}
			if slices.Contains([]string{"Union", "Annotated", "Required", "Final", "ReadOnly"}, token.text) &&
				slices.ContainsFunc(inner, func(one []pyToken) bool { return mayBeNone(one, depth+1) }) {
				return true
			}
			i = end
		}
	}
	return false
}

// pyLiterals are the values of Literal["free", "pro"], if all of them are text that an
// enum can hold.
func pyLiterals(annotation []pyToken) []string {
	for i := range annotation {
		if annotation[i].text != "Literal" || annotation[i].kind != pyName || i+1 >= len(annotation) || annotation[i+1].text != "[" {
			continue
		}
		var values []string
		for _, argument := range arguments(annotation[i+2 : closing(annotation, i+1)]) {
			value, ok := literal(argument)
			if !ok || value == "" || len(value) > maxName || slices.Contains(values, value) || len(values) == maxValues {
				return nil
			}
			values = append(values, value)
		}
		return values
	}
	return nil
}

// pyType is the type of an attribute for one of Python.
func pyType(tokens []pyToken) Type {
	for _, token := range tokens {
		for _, word := range pyWords(token) {
			switch word {
			case "int":
				return Int
			case "float", "Decimal":
				return Float
			case "bool":
				return Bool
			case "datetime":
				return Timestamp
			case "str", "list", "dict", "tuple", "set", "Sequence", "Mapping", "List", "Dict":
				return String
			}
		}
	}
	return String
}

// pyWords are the names in an annotation, which may be a string: "int | None".
func pyWords(token pyToken) []string {
	if token.kind != pyString {
		return []string{token.text}
	}
	return strings.FieldsFunc(token.text, func(r rune) bool { return r >= 0x80 || !isPyName(byte(r)) })
}

// isEvent reports whether a class is an event or inherits from one.
func (s *sentryImport) isEvent(c *sentryClass, depth int) bool {
	const deepest = 16
	if c.marked {
		return true
	}
	for _, name := range c.bases {
		if name == "Event" {
			return true
		}
		if base := s.find(name, c); base != nil && depth < deepest && s.isEvent(base, depth+1) {
			return true
		}
	}
	return false
}

// find returns the class of a name that another one means: the one of its own file,
// or else the only one there is.
func (s *sentryImport) find(name string, by *sentryClass) *sentryClass {
	all := s.byName[name]
	for _, c := range all {
		if c.path == by.path && c != by {
			return c
		}
	}
	if len(all) == 1 && all[0] != by {
		return all[0]
	}
	return nil
}

// fieldsOf returns the attributes of a class and, before them, those of its bases.
func (s *sentryImport) fieldsOf(c *sentryClass, depth int) []Attribute {
	const deepest = 16
	var all []Attribute
	take := func(fields []Attribute) {
		for _, a := range fields {
			if i := slices.IndexFunc(all, func(b Attribute) bool { return b.Name == a.Name }); i >= 0 {
				all[i] = a // the later one has the word
			} else if len(all) <= maxAttributes {
				all = append(all, a)
			}
		}
	}
	for _, names := range [][]string{c.bases, c.extends} {
		for _, name := range names {
			if base := s.find(name, c); base != nil && depth < deepest {
				take(s.fieldsOf(base, depth+1))
			}
		}
	}
	take(c.fields)
	return all
}

func (s *sentryImport) event(c *sentryClass) {
	where := fmt.Sprintf("%s:%d", c.path, c.line)
	if c.odd && s.isEvent(c, 0) {
		s.out.note("%s: %s is left out, its type is not written as text", where, short(c.name))
	}
	if c.event == "" || c.odd || !s.isEvent(c, 0) {
		return
	}
	name := dotted(c.event, maxEventName)
	if name == "" || s.events[name] != nil {
		s.out.note("%s: left out, there is an event %s already", where, name)
		return
	}
	if name != c.event {
		s.out.note("%s: %s is called %s", where, short(c.event), name)
	}
	doc, _, _ := strings.Cut(strings.TrimSpace(c.doc), "\n\n")
	e := newEvent(name, strings.Join(strings.Fields(doc), " "))
	if CheckDescription(e.Description) != nil {
		e.Description = fmt.Sprintf("Imported from Sentry's class %s: %s", clip(c.name, maxName), name)
	}
	e.Additional, e.Mode = AdditionalDrop, Strict
	fields := s.fieldsOf(c, 0)
	for _, field := range fields {
		a := Attribute{Name: plain(field.Name), Type: field.Type, Values: field.Values, Required: field.Required, Privacy: Privacy{Kind: None}}
		if a.Role = defaultRole(a.Name, a.Type); a.Role == Identity {
			a.Identity, a.Privacy = defaultIdentity(a.Name), Privacy{Kind: HMAC}
		}
		a.protect()
		switch {
		case !e.declare(a):
			s.out.note("%s: the attribute %s is left out; an event has %d at most, each of another name", where, short(field.Name), maxAttributes)
		case a.Name != field.Name:
			s.out.note("%s: the attribute %s is called %s", where, short(field.Name), a.Name)
		}
	}
	for _, note := range c.notes {
		s.out.note("%s: %s", where, note)
	}
	s.events[name] = e
	s.out.Events++
}
