package metric

import (
	"slices"
	"strings"
)

// Event is something that happened, with a title and a text.
type Event struct {
	Title          string
	Text           string
	Time           int64  // Unix seconds; 0 until the aggregator has taken it: now
	Priority       string // "normal" or "low"
	AlertType      string // "info", "warning", "error" or "success"
	Host           string // "" until the aggregator has taken it: not said
	AggregationKey string // groups events; "" for none
	SourceType     string // "" for none
	Tags           []string

	Origin Origin // borrowed from the line; empty in a Batch, where it has become tags
}

// CheckStatus is the outcome of a service check, numbered as on the wire.
type CheckStatus uint8

// The outcomes.
const (
	CheckOK CheckStatus = iota
	CheckWarning
	CheckCritical
	CheckUnknown
)

// String returns the status's name in lower case.
func (s CheckStatus) String() string {
	switch s {
	case CheckOK:
		return "ok"
	case CheckWarning:
		return "warning"
	case CheckCritical:
		return "critical"
	}
	return "unknown"
}

// ServiceCheck says how something fares.
type ServiceCheck struct {
	Name    string
	Status  CheckStatus
	Time    int64  // Unix seconds; 0 until the aggregator has taken it: now
	Host    string // "" until the aggregator has taken it: not said
	Message string // as sent: "\n" and "m\:" are not unescaped
	Tags    []string

	Origin Origin // borrowed from the line; empty in a Batch, where it has become tags
}

// Origin is what is known of the container that sent a line. All slices are
// borrowed.
type Origin struct {
	Container     []byte // id
	Inode         []byte // of the container's cgroup, in decimal
	ContainerName []byte
	PodUID        []byte
	Cardinality   []byte // of the tags asked for: none, low, orchestrator, high; as sent
}

// The tags that can be made of an Origin, as the configuration names them.
const (
	TagContainerID    = "container_id"
	TagContainerInode = "container_inode"
	TagContainerName  = "container_name"
	TagPodUID         = "pod_uid"
)

// OriginTags are all of them.
var OriginTags = []string{TagContainerID, TagContainerInode, TagContainerName, TagPodUID}

// AppendTags appends the tags of o that are named in which to dst, as key:value.
func (o *Origin) AppendTags(dst [][]byte, which []string) [][]byte {
	if strings.EqualFold(string(o.Cardinality), "none") {
		return dst
	}
	for _, tag := range [...]struct {
		key   string
		value []byte
	}{
		{TagContainerID, o.Container}, {TagContainerInode, o.Inode}, {TagContainerName, o.ContainerName}, {TagPodUID, o.PodUID},
	} {
		if len(tag.value) > 0 && slices.Contains(which, tag.key) {
			dst = append(dst, append([]byte(tag.key+":"), tag.value...))
		}
	}
	return dst
}
