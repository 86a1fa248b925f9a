package forwarder

import (
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// resourcePrefix begins a tag that is none, but names a resource that a series
// belongs to, as the Datadog Agent reads it: dd.internal.resource:<type>:<name>.
const resourcePrefix = "dd.internal.resource:"

// isResource reports whether a tag is no tag but the name of a resource, well
// formed or not.
func isResource(tag string) bool { return strings.HasPrefix(tag, resourcePrefix) }

// resourceOf returns the resource that a tag names; ok is false if it lacks a
// type or a name.
func resourceOf(tag string) (kind, name string, ok bool) {
	kind, name, _ = strings.Cut(tag[len(resourcePrefix):], ":")
	return kind, name, kind != "" && name != ""
}

// hasTags reports whether there is a tag among tags that is one.
func hasTags(tags []string) bool {
	return slices.ContainsFunc(tags, func(tag string) bool { return !isResource(tag) })
}

// timeOf returns when a series's point was, in Unix seconds.
func timeOf(s *metric.Series, b *metric.Batch) int64 {
	if s.Time != 0 {
		return s.Time
	}
	return b.Start.Unix()
}
