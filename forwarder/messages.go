package forwarder

import (
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// The payloads of service checks and events, as the Datadog Agent writes them:
//
//	[{"check","host_name","timestamp","status","message","tags"}, …]
//
//	{"apiKey":"","events":{"<source>":[{"msg_title","msg_text","timestamp","priority","host","tags",
//	"alert_type","aggregation_key","source_type_name"}, …], …},"internalHostname"}
//
// All fields of a check are there, its tags possibly as null. Of an event tags,
// aggregation key and source are left out if there are none.

// sourceOfNone is where events stand that name no source.
const sourceOfNone = "api"

func checkSection(checks []metric.ServiceCheck) section {
	return section{
		route:  &checkRoute,
		n:      len(checks),
		append: func(dst []byte, i int) []byte { return appendCheck(dst, &checks[i]) },
		before: func(dst []byte, _ int, first bool) []byte {
			if first {
				return append(dst, '[')
			}
			return append(dst, ',')
		},
		after: []byte{']'},
		noun:  "check",
		name:  func(i int) string { return checks[i].Name },
	}
}

func appendCheck(dst []byte, c *metric.ServiceCheck) []byte {
	dst = appendJSONString(append(dst, `{"check":`...), c.Name, "")
	dst = appendJSONString(append(dst, `,"host_name":`...), c.Host, "")
	dst = appendInt(append(dst, `,"timestamp":`...), c.Time)
	dst = appendInt(append(dst, `,"status":`...), int64(c.Status))
	dst = appendJSONString(append(dst, `,"message":`...), c.Message, "")
	dst = append(dst, `,"tags":`...)
	if hasTags(c.Tags) {
		dst = appendJSONTags(dst, c.Tags)
	} else {
		dst = append(dst, "null"...)
	}
	return append(dst, '}')
}

// eventSection sorts the events by source, so that each source is named once in
// a payload.
func eventSection(events []metric.Event, agentHost string) section {
	type sourced struct {
		*metric.Event
		source string // as JSON: what differs only in bytes that are no UTF-8 is the same there
	}
	sorted := make([]sourced, len(events))
	for i := range events {
		source := events[i].SourceType
		if source == "" {
			source = sourceOfNone
		}
		sorted[i] = sourced{&events[i], string(appendJSONString(nil, source, ""))}
	}
	slices.SortStableFunc(sorted, func(a, b sourced) int { return strings.Compare(a.source, b.source) })
	return section{
		route:  &eventRoute,
		n:      len(sorted),
		append: func(dst []byte, i int) []byte { return appendEvent(dst, sorted[i].Event) },
		before: func(dst []byte, i int, first bool) []byte {
			return appendBeforeEvent(dst, sorted[i].source, first, !first && sorted[i].source == sorted[i-1].source)
		},
		after: appendEventsEnd(nil, agentHost),
		noun:  "event",
		name:  func(i int) string { return sorted[i].Title },
	}
}

// appendBeforeEvent appends what stands before an event: the beginning of the payload
// if it is the first, or that of its source, given as JSON.
func appendBeforeEvent(dst []byte, source string, first, sameSource bool) []byte {
	switch {
	case first:
		dst = append(dst, `{"apiKey":"","events":{`...)
	case sameSource:
		return append(dst, ',')
	default:
		dst = append(dst, `],`...)
	}
	return append(append(dst, source...), `:[`...)
}

func appendEventsEnd(dst []byte, agentHost string) []byte {
	return append(appendJSONString(append(dst, `]},"internalHostname":`...), agentHost, ""), '}')
}

func appendEvent(dst []byte, e *metric.Event) []byte {
	dst = appendJSONString(append(dst, `{"msg_title":`...), e.Title, "")
	dst = appendJSONString(append(dst, `,"msg_text":`...), e.Text, "")
	dst = appendInt(append(dst, `,"timestamp":`...), e.Time)
	dst = appendJSONString(append(dst, `,"priority":`...), e.Priority, "")
	dst = appendJSONString(append(dst, `,"host":`...), e.Host, "")
	if hasTags(e.Tags) {
		dst = appendJSONTags(append(dst, `,"tags":`...), e.Tags)
	}
	dst = appendJSONString(append(dst, `,"alert_type":`...), e.AlertType, "")
	dst = appendJSONField(dst, "aggregation_key", e.AggregationKey)
	dst = appendJSONField(dst, "source_type_name", e.SourceType)
	return append(dst, '}')
}
