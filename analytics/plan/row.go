package plan

import (
	"net/netip"
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
		dst = appendJSONText(dst, []byte(a.Name))
		dst = append(dst, ':')
		dst = a.appendValue(dst, &r.Values[i], pseudonym)
	}
	return append(dst, '}')
}

// AppendExtra appends the tags that are no attributes and that the event keeps, as a
// JSON object of text. Those whose names tell who it was are pseudonyms.
func (r *Result) AppendExtra(dst []byte, pseudonym Pseudonym) []byte {
	dst = append(dst, '{')
	for i := range r.Extra {
		x := &r.Extra[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONText(dst, x.Key), ':')
		if x.Identity {
			dst = appendPseudonym(dst, defaultIdentity(string(x.Key)), x.Value, pseudonym)
		} else {
			dst = appendJSONText(dst, x.Value)
		}
	}
	return append(dst, '}')
}

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
		return appendJSONText(dst, firstRunes(v.Text, a.Privacy.Length))
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
			return appendJSONText(dst, v.Text)
		}
		return append(dst, v.Text...)
	case Float:
		return strconv.AppendFloat(dst, v.Float, 'g', -1, 64)
	case Bool:
		return append(dst, v.Text...)
	}
	return appendJSONText(dst, v.Text)
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

// appendJSONText appends text as a JSON string. Bytes that are no UTF-8 become U+FFFD.
func appendJSONText(dst, text []byte) []byte {
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
