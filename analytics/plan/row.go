package plan

import (
	"bytes"
	"net/netip"
	"slices"
	"strconv"
	"unicode/utf8"
)

// Pseudonym appends what stands for a value of an identity: always the same for the
// same value of the same type, and not to be turned back without the key.
type Pseudonym func(dst []byte, identity string, value []byte) []byte

// maxExact is the largest whole number that all readers of JSON take as it is.
const maxExact = 1 << 53

// AppendAttributes appends the attributes of an event as a JSON object, each as its
// privacy allows: {"user_id":"Xk…","plan":"pro","seats":null}. Those that are to be
// dropped are not in it. ExportJSONSchema describes it.
func (r *Result) AppendAttributes(dst []byte, pseudonym Pseudonym) []byte {
	dst = append(dst, '{')
	first := true
	for i := range r.Values {
		a := &r.Event.Attributes[i]
		if !a.written() {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = AppendJSONText(dst, []byte(a.Name))
		dst = append(dst, ':')
		dst = a.appendValue(dst, &r.Values[i], pseudonym)
	}
	return append(dst, '}')
}

// AppendExtra appends the tags that are no attributes and that the event keeps, as a
// JSON object of text. Those whose names tell who it was are pseudonyms.
func (r *Result) AppendExtra(dst []byte, pseudonym Pseudonym) []byte {
	return appendProperties(dst, r.Extra, pseudonym)
}

// AppendContext appends what the client says of itself, as a JSON object of text.
func (r *Result) AppendContext(dst []byte) []byte { return appendProperties(dst, r.Context, nil) }

// appendProperties appends properties as a JSON object; of several with one key the
// first counts.
func appendProperties(dst []byte, all []Property, pseudonym Pseudonym) []byte {
	dst = append(dst, '{')
	for i := range all {
		x := &all[i]
		if slices.ContainsFunc(all[:i], func(before Property) bool { return bytes.Equal(before.Key, x.Key) }) {
			continue
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendJSONText(dst, x.Key), ':')
		if x.Identity {
			dst = appendPseudonym(dst, defaultIdentity(string(x.Key)), x.Value, pseudonym)
		} else {
			dst = AppendJSONText(dst, x.Value)
		}
	}
	return append(dst, '}')
}

// Written reports whether an attribute is in raw events.
func (a *Attribute) Written() bool { return a.written() }

// Plain reports whether raw events have the value of an attribute as its type has it,
// and not a text that stands for it.
func (a *Attribute) Plain() bool { return a.Privacy.Kind == None || a.Privacy.Kind == "" }

// written reports whether an attribute is in raw events.
func (a *Attribute) written() bool { return a.Role != Drop && a.Privacy.Kind != DropValue }

func (a *Attribute) appendValue(dst []byte, v *Value, pseudonym Pseudonym) []byte {
	if v.Null() {
		return append(dst, "null"...)
	}
	switch a.Privacy.Kind {
	case HMAC:
		identity := a.Identity
		if identity == "" {
			identity = defaultIdentity(a.Name)
		}
		return appendPseudonym(dst, identity, v.Text, pseudonym)
	case Truncate:
		return AppendJSONText(dst, firstRunes(v.Text, a.Privacy.Length))
	case TruncateIP:
		address, err := netip.ParseAddr(string(v.Text))
		if err != nil {
			return append(dst, "null"...)
		}
		address = address.Unmap().WithZone("")
		bits := a.Privacy.V6
		if address.Is4() {
			bits = a.Privacy.V4
		}
		prefix, err := address.Prefix(bits)
		if err != nil {
			return append(dst, "null"...)
		}
		dst = append(dst, '"')
		dst = prefix.AppendTo(dst)
		return append(dst, '"')
	}
	switch a.Type {
	case Int:
		if v.Int > maxExact || v.Int < -maxExact {
			return AppendJSONText(dst, v.Text)
		}
		return append(dst, v.Text...)
	case Float:
		return strconv.AppendFloat(dst, v.Float, 'g', -1, 64)
	case Bool:
		return append(dst, v.Text...)
	}
	return AppendJSONText(dst, v.Text)
}

func appendPseudonym(dst []byte, identity string, value []byte, pseudonym Pseudonym) []byte {
	dst = append(dst, '"')
	dst = pseudonym(dst, identity, value)
	return append(dst, '"')
}

func firstRunes(text []byte, n int) []byte {
	end := 0
	for range n {
		if end >= len(text) {
			break
		}
		_, size := utf8.DecodeRune(text[end:])
		end += size
	}
	return text[:end]
}

// AppendJSONText appends text as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func AppendJSONText(dst, text []byte) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			i++
		case c < 0x20 || c == 0x7f:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, size := utf8.DecodeRune(text[i:])
			dst = utf8.AppendRune(dst, r)
			i += size
		}
	}
	return append(dst, '"')
}
