package plan

import (
	"bytes"
	"encoding/json"
)

// object is a JSON object with its keys in the order in which they were set.
type object struct {
	keys   []string
	values []any
}

func (o *object) set(key string, value any) *object {
	o.keys, o.values = append(o.keys, key), append(o.values, value)
	return o
}

// MarshalJSON implements json.Marshaler.
func (o *object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range o.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(AppendJSONText(nil, []byte(key)))
		b.WriteByte(':')
		value, err := json.Marshal(o.values[i])
		if err != nil {
			return nil, err
		}
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// indented is JSON as a file holds it.
func indented(value any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		panic("BUG: an export is no JSON: " + err.Error())
	}
	return b.Bytes()
}

// Column is one of a raw event's columns.
type Column struct {
	Name        string
	Description string
	bigQuery    string // type
	repeated    bool
	required    bool
	schema      func() *object
}

func ofType(t string) func() *object { return func() *object { return new(object).set("type", t) } }

func ofTime() *object { return new(object).set("type", "string").set("format", "date-time") }

// Columns are the columns of raw events, in the order of a row. attrs is different for
// each event.
var Columns = []Column{
	{"event_id", "The _id that the client gave, or else one that was made on arrival", "STRING", false, true, ofType("string")},
	{"event", "Name of the event", "STRING", false, true, ofType("string")},
	{"schema_version", "Version of the definition it was made for, MODEL-REVISION-ADDITION", "STRING", false, true, ofType("string")},
	{"event_time", "When it happened", "TIMESTAMP", false, true, ofTime},
	{"received_at", "When it came to the host's agent", "TIMESTAMP", false, true, ofTime},
	{"host", "The agent's host", "STRING", false, false, ofType("string")},
	{"source", "Where it came from", "STRING", false, false, ofType("string")},
	{"count", "How many events with the same attributes the row stands for", "INT64", false, true, func() *object {
		return new(object).set("type", "integer").set("minimum", 1)
	}},
	{"sample_rate", "Share of the events that the client sent", "FLOAT64", false, true, func() *object {
		return new(object).set("type", "number").set("exclusiveMinimum", 0).set("maximum", 1)
	}},
	{"consent", "Categories of consent that were granted", "STRING", true, false, func() *object {
		return new(object).set("type", "array").set("items", ofType("string")())
	}},
	{"key_id", "Which key the pseudonyms were made with", "STRING", false, false, ofType("string")},
	{"flags", "What was wrong with it", "STRING", true, false, func() *object {
		return new(object).set("type", "array").set("items", new(object).set("enum", outcomeNames[1:]))
	}},
	{"attrs", "Attributes, as the definition of the event says", "JSON", false, true, nil},
	{"extra", "Attributes that the definition does not know", "JSON", false, false, func() *object {
		return new(object).set("type", "object").set("additionalProperties", ofType("string")())
	}},
	{"context", "What the client says of itself: env, service, version", "JSON", false, false, func() *object {
		return new(object).set("type", "object").set("additionalProperties", ofType("string")())
	}},
}

// ExportJSONSchema returns a JSON Schema (2020-12) of the rows of each event that is
// in use.
func (p *Plan) ExportJSONSchema() []File {
	var files []File
	for _, e := range p.Events {
		if e.Status != Removed {
			files = append(files, File{e.Name + ".schema.json", indented(p.jsonSchema(e))})
		}
	}
	return files
}

func (p *Plan) jsonSchema(e *Event) *object {
	properties := new(object)
	var required []string
	for _, c := range Columns {
		var schema *object
		switch c.Name {
		case "event":
			schema = new(object).set("const", e.Name)
		case "attrs":
			schema = p.attributesSchema(e)
		default:
			schema = c.schema()
		}
		if c.required {
			required = append(required, c.Name)
		}
		properties.set(c.Name, schema.set("description", c.Description))
	}
	return new(object).
		set("$schema", "https://json-schema.org/draft/2020-12/schema").
		set("$id", "urn:weir:event:"+e.Name+":"+e.Version.String()).
		set("title", e.Name).
		set("description", e.Description).
		set("type", "object").
		set("properties", properties).
		set("required", required).
		set("additionalProperties", false)
}

func (p *Plan) attributesSchema(e *Event) *object {
	properties := new(object)
	required := []string{}
	for i := range e.Attributes {
		a := &e.Attributes[i]
		if !a.written() {
			continue
		}
		schema := a.jsonSchema(p.mayBeNull(e, a))
		if a.Description != "" {
			schema.set("description", a.Description)
		}
		properties.set(a.Name, schema)
		required = append(required, a.Name)
	}
	return new(object).set("type", "object").set("properties", properties).set("required", required).
		set("additionalProperties", false)
}

// mayBeNull reports whether the value of an attribute may be missing in an event that
// counts.
func (p *Plan) mayBeNull(e *Event, a *Attribute) bool {
	strict := e.Mode == Strict || e.Mode == Inherit && p.options.Mode == Strict
	return !a.Required || !strict || a.Role == Identity || a.Privacy.Kind == TruncateIP
}

// jsonSchema describes what appendValue writes.
func (a *Attribute) jsonSchema(nullable bool) *object {
	words := func(all ...string) any {
		if nullable {
			all = append(all, "null")
		}
		if len(all) == 1 {
			return all[0]
		}
		return all
	}
	schema := new(object)
	switch {
	case a.Privacy.Kind == HMAC || a.Privacy.Kind == TruncateIP:
		return schema.set("type", words("string"))
	case a.Privacy.Kind == Truncate:
		return schema.set("type", words("string")).set("maxLength", a.Privacy.Length)
	}
	switch a.Type {
	case Int:
		// Beyond 2^53 a number is text, since not all readers have 64 bits.
		return schema.set("type", words("integer", "string")).set("pattern", "^-?[0-9]+$")
	case Float:
		return schema.set("type", words("number"))
	case Bool:
		return schema.set("type", words("boolean"))
	case Enum:
		values := []any{}
		for _, value := range a.Values {
			values = append(values, value)
		}
		values = append(values, Other)
		if nullable {
			values = append(values, nil)
		}
		return schema.set("enum", values)
	case Timestamp:
		return schema.set("type", words("string")).set("format", "date-time")
	}
	return schema.set("type", words("string")).set("maxLength", a.MaxLength)
}
