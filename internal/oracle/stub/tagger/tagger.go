// Package tagger stands in for the Datadog Agent's package of the same path, of
// which pkg/metrics uses one type and the oracle nothing.
//
// In: nothing. Out: a type to compile with. It does nothing.
package tagger

import (
	"github.com/DataDog/datadog-agent/pkg/tagger/types"
	"github.com/DataDog/datadog-agent/pkg/tagset"
)

// Component adds the tags of a sample's origin.
type Component interface {
	EnrichTags(tags tagset.TagsAccumulator, origin types.OriginInfo)
}
