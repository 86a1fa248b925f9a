package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// schema says what may stand at a place of the file.
type schema struct {
	kind reflect.Type
	keys []string           // of a mapping, in the order of the struct
	of   map[string]*schema // by key
	item *schema            // of a list
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	bytesType    = reflect.TypeFor[metric.Bytes]()
	secretType   = reflect.TypeFor[metric.Secret]()
)

// schemaOf derives the schema from the tags of a type.
func schemaOf(t reflect.Type) *schema {
	if t.Kind() == reflect.Pointer { // nil: not said
		t = t.Elem()
	}
	s := &schema{kind: t}
	switch t.Kind() {
	case reflect.Struct:
		s.of = map[string]*schema{}
		for i := range t.NumField() {
			field := t.Field(i)
			name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			inner := schemaOf(field.Type)
			if options == "squash" {
				s.keys = append(s.keys, inner.keys...)
				for key, of := range inner.of {
					s.of[key] = of
				}
				continue
			}
			if name == "-" {
				continue // set by the wiring
			}
			if name == "" {
				panic("BUG: no yaml tag on " + t.String() + "." + field.Name)
			}
			s.keys = append(s.keys, name)
			s.of[name] = inner
		}
	case reflect.Slice:
		s.item = schemaOf(t.Elem())
	}
	return s
}

// leaf calls visit for each key that is not a mapping, with its path.
func (s *schema) leaf(path string, visit func(path string, s *schema)) {
	if s.of == nil {
		visit(path, s)
		return
	}
	for _, key := range s.keys {
		s.of[key].leaf(join(path, key), visit)
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// expects says in words what a place takes.
func (s *schema) expects() string {
	switch {
	case s.of != nil:
		return "a mapping of " + strings.Join(s.keys, ", ")
	case s.item != nil:
		return "a list"
	}
	switch s.kind {
	case durationType:
		return "a duration such as 10s, 5m or 1h30m"
	case bytesType:
		return "a size such as 8KiB or 4MiB"
	}
	switch s.kind.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	}
	return "text"
}

// check returns what is wrong with a scalar for this place, "" if nothing.
func (s *schema) check(text string) string {
	switch s.kind {
	case durationType:
		if _, err := parseDuration(text); err != nil {
			return err.Error()
		}
		return ""
	case bytesType:
		if _, err := metric.ParseBytes(text); err != nil {
			return err.Error()
		}
		return ""
	}
	var err error
	switch s.kind.Kind() {
	case reflect.Int:
		_, err = strconv.Atoi(text)
	case reflect.Float64:
		_, err = strconv.ParseFloat(text, 64)
	case reflect.Bool:
		_, err = strconv.ParseBool(text)
	}
	if err != nil {
		return fmt.Sprintf("%q is not %s", text, s.expects())
	}
	return ""
}

// parseDuration is time.ParseDuration, which takes no number without a unit,
// with an error that says so.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, bare := strconv.ParseFloat(text, 64); bare == nil {
		return 0, fmt.Errorf("%q has no unit; write %ss for seconds, or ms, m, h", text, text)
	}
	return 0, fmt.Errorf("%q is not a duration; write a number with a unit, such as 500ms, 10s or 5m", text)
}
