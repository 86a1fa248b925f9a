package testkit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Event is an event as the intake understands it.
type Event struct {
	Title, Text    string
	Time           int64
	Priority       string // normal or low
	AlertType      string // info, warning, error or success
	Host           string
	Tags           []string // as sent
	AggregationKey string
	SourceType     string
	AgentHost      string // of the agent that sent it
}

// Check is a service check as the intake understands it.
type Check struct {
	Name    string
	Status  int // 0 to 3
	Time    int64
	Host    string
	Message string
	Tags    []string // as sent
}

// member is where a member of a JSON object goes.
type member struct {
	into     any
	optional bool // left out if it is empty
	nullable bool
}

// decodeObject takes apart a JSON object that has the members given and no other,
// spelled exactly so.
func decodeObject(raw []byte, members map[string]member) error {
	var found map[string]json.RawMessage
	if err := json.Unmarshal(raw, &found); err != nil {
		return err
	}
	for name, value := range found {
		m, known := members[name]
		if !known {
			return fmt.Errorf("there is a member %q in %.200s", name, raw)
		}
		if err := json.Unmarshal(value, m.into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		empty := slices.Contains([]string{`""`, `[]`}, string(value))
		if m.optional && empty || !m.nullable && string(value) == "null" {
			return fmt.Errorf("%q is %s in %.200s", name, value, raw)
		}
	}
	for name, m := range members {
		if _, there := found[name]; !there && !m.optional {
			return fmt.Errorf("there is no member %q in %.200s", name, raw)
		}
	}
	return nil
}

// checkJSON finds what encoding/json lets pass: bytes that are no UTF-8, and
// objects with two members of one name.
func checkJSON(raw []byte) error {
	if !utf8.Valid(raw) {
		return errors.New("the JSON is not in UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if err := checkValue(d); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind the JSON value")
	}
	return nil
}

func checkValue(d *json.Decoder) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	if token != json.Delim('{') && token != json.Delim('[') {
		return nil
	}
	names := map[any]bool{}
	for d.More() {
		if token == json.Delim('{') {
			name, err := d.Token()
			if err != nil {
				return err
			}
			if names[name] {
				return fmt.Errorf("an object has two members %q", name)
			}
			names[name] = true
		}
		if err := checkValue(d); err != nil {
			return err
		}
	}
	_, err = d.Token() // the end of it
	return err
}

func decodeChecks(raw []byte) (c content, err error) {
	if err := checkJSON(raw); err != nil {
		return c, err
	}
	var items []json.RawMessage
	if err := json.Unmarshal(raw, &items); err != nil {
		return c, err
	}
	for _, item := range items {
		var check Check
		if err := decodeObject(item, map[string]member{
			"check": {into: &check.Name}, "host_name": {into: &check.Host}, "timestamp": {into: &check.Time},
			"status": {into: &check.Status}, "message": {into: &check.Message}, "tags": {into: &check.Tags, nullable: true},
		}); err != nil {
			return c, err
		}
		if check.Name == "" || check.Time <= 0 || check.Status < 0 || check.Status > 3 || check.Tags != nil && len(check.Tags) == 0 {
			return c, fmt.Errorf("a service check that makes no sense: %.200s", item)
		}
		c.checks = append(c.checks, check)
	}
	if len(items) == 0 {
		return c, errors.New("there is no service check")
	}
	return c, nil
}

func decodeEvents(raw []byte) (c content, err error) {
	if err := checkJSON(raw); err != nil {
		return c, err
	}
	var key, agentHost string
	var bySource map[string][]json.RawMessage
	if err := decodeObject(raw, map[string]member{
		"apiKey": {into: &key}, "events": {into: &bySource}, "internalHostname": {into: &agentHost},
	}); err != nil {
		return c, err
	}
	if key != "" {
		return c, errors.New("the API key is in the payload")
	}
	for _, source := range slices.Sorted(maps.Keys(bySource)) {
		for _, item := range bySource[source] {
			event, err := decodeEvent(item)
			if err != nil {
				return c, err
			}
			if event.SourceType != source && (event.SourceType != "" || source != "api") {
				return c, fmt.Errorf("an event of %q stands under %q", event.SourceType, source)
			}
			event.AgentHost = agentHost
			c.events = append(c.events, event)
		}
		if len(bySource[source]) == 0 {
			return c, fmt.Errorf("there is no event under %q", source)
		}
	}
	if len(bySource) == 0 {
		return c, errors.New("there is no event")
	}
	return c, nil
}

func decodeEvent(raw []byte) (e Event, err error) {
	eventType := ""
	err = decodeObject(raw, map[string]member{
		"msg_title": {into: &e.Title}, "msg_text": {into: &e.Text}, "timestamp": {into: &e.Time},
		"priority": {into: &e.Priority}, "host": {into: &e.Host}, "alert_type": {into: &e.AlertType},
		"tags":             {into: &e.Tags, optional: true},
		"aggregation_key":  {into: &e.AggregationKey, optional: true},
		"source_type_name": {into: &e.SourceType, optional: true},
		"event_type":       {into: &eventType, optional: true},
	})
	switch {
	case err != nil:
	case e.Time <= 0,
		!slices.Contains([]string{"normal", "low"}, e.Priority),
		!slices.Contains([]string{"info", "warning", "error", "success"}, e.AlertType):
		err = fmt.Errorf("an event that makes no sense: %.200s", raw)
	case eventType != "":
		err = fmt.Errorf("an event of DogStatsD has no event_type: %s", strings.ToValidUTF8(eventType, "?"))
	}
	return e, err
}
