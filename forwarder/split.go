package forwarder

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// item is one record of a payload that was made.
type item struct {
	raw    []byte
	source string // of an event, as JSON; events of a source follow each other
}

// contents are the records of a payload, and what stands around them.
type contents struct {
	route *route
	items []item
	after []byte // what the payload ends with
}

var errNoItems = errors.New("there is nothing in it")

// split makes two payloads of one that the intake found too large. alone is the name
// of the item if there is only one.
func split(p *payload) (halves [2]payload, alone string, err error) {
	raw, err := decompress(p.encoding, p.body, maxRecordBody)
	if err != nil {
		return halves, "", fmt.Errorf("decompress the payload: %w", err)
	}
	c, err := unpack(p.route, raw)
	if err != nil {
		return halves, "", fmt.Errorf("take the payload apart: %w", err)
	}
	if len(c.items) == 1 {
		return halves, itemName(p.route, c.items[0].raw), nil
	}
	z, err := newBody(p.encoding)
	if err != nil {
		return halves, "", err
	}
	middle := len(c.items) / 2
	for i, items := range [][]item{c.items[:middle], c.items[middle:]} {
		half := contents{c.route, items, c.after}
		z.begin()
		z.add(half.pack(), nil)
		halves[i] = payload{route: p.route, encoding: p.encoding, body: slices.Clone(z.end(nil)), points: uint64(len(items)), start: p.start}
	}
	return halves, "", nil
}

// unpack finds the records of a payload.
func unpack(r *route, raw []byte) (contents, error) {
	c := contents{route: r}
	var err error
	switch r {
	case &checkRoute:
		var checks []json.RawMessage
		err = json.Unmarshal(raw, &checks)
		for _, check := range checks {
			c.items = append(c.items, item{raw: check})
		}
	case &seriesJSONRoute:
		var all struct {
			Series []json.RawMessage `json:"series"`
		}
		err = json.Unmarshal(raw, &all)
		for _, series := range all.Series {
			c.items = append(c.items, item{raw: series})
		}
		c.after = afterSeriesJSON
	case &eventRoute:
		var events struct {
			Events map[string][]json.RawMessage `json:"events"`
			Host   string                       `json:"internalHostname"`
		}
		err = json.Unmarshal(raw, &events)
		for _, source := range slices.Sorted(maps.Keys(events.Events)) {
			for _, event := range events.Events[source] {
				c.items = append(c.items, item{event, string(appendJSONString(nil, source, ""))})
			}
		}
		c.after = appendEventsEnd(nil, events.Host)
	default:
		for at := 0; at < len(raw) && err == nil; {
			number, _, n := protowire.ConsumeField(raw[at:])
			if err = protowire.ParseError(min(n, 0)); err != nil {
				break
			}
			if field := raw[at : at+n]; number == payloadRecord {
				c.items = append(c.items, item{raw: field})
			} else {
				c.after = append(c.after, field...)
			}
			at += n
		}
	}
	if err == nil && len(c.items) == 0 {
		err = errNoItems
	}
	return c, err
}

// pack is unpack backwards.
func (c *contents) pack() []byte {
	var dst []byte
	for i := range c.items {
		switch {
		case c.route == &checkRoute:
			dst = append(dst, "[,"[min(i, 1)])
		case c.route == &seriesJSONRoute:
			dst = beforeSeriesJSON(dst, i, i == 0)
		case c.route == &eventRoute:
			same := i > 0 && c.items[i].source == c.items[i-1].source
			dst = appendBeforeEvent(dst, c.items[i].source, i == 0, same)
		}
		dst = append(dst, c.items[i].raw...)
	}
	if c.route == &checkRoute {
		return append(dst, ']')
	}
	return append(dst, c.after...)
}

// itemName returns what a record is called, for the log.
func itemName(r *route, raw []byte) string {
	name := ""
	switch r {
	case &seriesJSONRoute, &checkRoute, &eventRoute:
		var named struct {
			Metric string `json:"metric"`
			Check  string `json:"check"`
			Title  string `json:"msg_title"`
		}
		_ = json.Unmarshal(raw, &named) // then it has no name
		name = named.Metric + named.Check + named.Title
	default:
		field := protowire.Number(seriesMetric)
		if r == &sketchRoute {
			field = sketchMetric
		}
		_, _, n := protowire.ConsumeTag(raw)
		record, _ := protowire.ConsumeBytes(raw[max(n, 0):])
		for len(record) > 0 {
			number, kind, n := protowire.ConsumeField(record)
			if n < 0 {
				break
			}
			if number == field && kind == protowire.BytesType {
				_, _, tag := protowire.ConsumeTag(record)
				text, _ := protowire.ConsumeBytes(record[tag:])
				name = string(text)
				break
			}
			record = record[n:]
		}
	}
	return name[:min(len(name), nameInLog)]
}
