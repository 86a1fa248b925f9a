package aggregator

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/weir-agent/weir/metric"
)

// identityScratch is memory for making keys, to be reused.
type identityScratch struct {
	tags [][]byte
	name []byte
	key  []byte
	made metric.Candidate

	heads [fewTags]uint64
}

// naming is what the configuration adds to names and tags.
type naming struct {
	host       string // the agent's own
	namespace  string // with its dot
	tags       [][]byte
	originTags []string // which of metric.OriginTags
}

var (
	hostTag     = []byte("host:")
	deviceTag   = []byte("device:")
	internalTag = []byte("dd.internal.")
	entityTag   = []byte("dd.internal.entity_id:")
	cardTag     = []byte("dd.internal.card:")
	jmxTag      = []byte("dd.internal.jmx_check_name:")
)

// locate turns what is known of the origin of an identity into tags: those that are
// not meant for Datadog but say where a line comes from are taken out, and those that
// are asked for are added. sender is the container it came from, "" if that is not
// known.
func locate(id *metric.Identity, sender string, n *naming) {
	for _, tag := range id.Tags {
		if len(tag) > len(internalTag) && tag[0] == internalTag[0] && bytes.HasPrefix(tag, internalTag) {
			id.Tags = slices.DeleteFunc(id.Tags, func(tag []byte) bool {
				return bytes.HasPrefix(tag, internalTag) && originTag(tag, &id.Origin)
			})
			break
		}
	}
	id.Tags = appendOriginTags(id.Tags, id.Origin, sender, n)
}

// contextKey returns the canonical key of an identity's context. The key is valid
// until the next call.
func (k *identityScratch) contextKey(id *metric.Identity, n *naming) []byte {
	k.key = k.candidate(id, n).AppendKey(k.key[:0])
	return k.key
}

// candidate returns what an identity's context is made of: with the namespace before
// the name, the configured tags added, the tags sorted without repeats, and the last
// host and device tag taken out of them. It is valid until the next call.
func (k *identityScratch) candidate(id *metric.Identity, n *naming) *metric.Candidate {
	var host metric.Host
	var device []byte
	tags := append(k.tags[:0], n.tags...)
	for _, tag := range id.Tags {
		switch {
		case len(tag) == 0 || tag[0] != 'h' && tag[0] != 'd':
			tags = append(tags, tag)
		case bytes.HasPrefix(tag, hostTag):
			host = metric.Host{Explicit: true, Name: tag[len(hostTag):]}
		case bytes.HasPrefix(tag, deviceTag):
			device = tag[len(deviceTag):]
		default:
			tags = append(tags, tag)
		}
	}
	if host.Explicit && string(host.Name) == n.host {
		host = metric.Host{} // named or not, it is the same host
	}
	k.tags = tags
	tags = k.sorted(tags)

	name := id.Name
	if n.namespace != "" && !exemptFromNamespace(name) {
		k.name = append(append(k.name[:0], n.namespace...), name...)
		name = k.name
	}
	c := &k.made
	c.Kind, c.Name, c.Host, c.Device, c.Tags = id.Kind, name, host, device, tags
	c.Sighting.Version = 0
	return c
}

const fewTags = 32

// sorted sorts tags and removes repeats.
//
// Nearly all tags differ in their first bytes, which are compared as numbers
// (BenchmarkAttack).
func (k *identityScratch) sorted(tags [][]byte) [][]byte {
	if len(tags) > fewTags {
		slices.SortFunc(tags, bytes.Compare)
		return slices.CompactFunc(tags, bytes.Equal)
	}
	heads := &k.heads
	repeats := false
	for i, tag := range tags {
		head := headOf(tag)
		j := i
		for ; j > 0; j-- {
			if heads[j-1] < head {
				break
			}
			if heads[j-1] == head {
				order := bytes.Compare(tags[j-1], tag)
				repeats = repeats || order == 0
				if order <= 0 {
					break
				}
			}
			heads[j], tags[j] = heads[j-1], tags[j-1]
		}
		heads[j], tags[j] = head, tag
	}
	if repeats {
		tags = slices.CompactFunc(tags, bytes.Equal)
	}
	return tags
}

// headOf returns the first bytes of a tag as a number that orders as they do.
func headOf(tag []byte) uint64 {
	n := len(tag)
	if n >= 8 {
		return binary.BigEndian.Uint64(tag)
	}
	if n >= 4 { // the last four bytes overlap the first
		last := uint64(binary.BigEndian.Uint32(tag[n-4:])) << (8 * (8 - n)) & math.MaxUint32
		return uint64(binary.BigEndian.Uint32(tag))<<32 | last
	}
	var head uint64
	for i, b := range tag {
		head |= uint64(b) << (56 - 8*i)
	}
	return head
}

// originTag takes a tag that is not meant for Datadog but says where the line comes
// from, as Datadog's clients write it, and reports whether it is one.
func originTag(tag []byte, o *metric.Origin) bool {
	switch {
	case bytes.HasPrefix(tag, entityTag):
		if uid := tag[len(entityTag):]; string(uid) == "none" {
			o.Cardinality = uid // it asks for no tags
		} else {
			o.PodUID = uid
		}
	case bytes.HasPrefix(tag, cardTag):
		if len(o.Cardinality) == 0 {
			o.Cardinality = tag[len(cardTag):]
		}
	case bytes.HasPrefix(tag, jmxTag):
	default:
		return false
	}
	return true
}

// appendOriginTags appends the tags of an origin that are asked for. What the socket
// says of the sender goes before what the line says.
func appendOriginTags(tags [][]byte, origin metric.Origin, sender string, n *naming) [][]byte {
	if len(n.originTags) == 0 {
		return tags
	}
	if sender != "" {
		origin.Container = []byte(sender)
	}
	return origin.AppendTags(tags, n.originTags)
}

// messageTags returns the host and the tags of an event or a service check: "h:"
// goes before a host tag, and that before the agent's own.
func messageTags(host string, sent []string, origin metric.Origin, sender string, n *naming) (string, []string) {
	tagged, fromTag := "", false
	tags := make([]string, 0, len(sent)+len(n.tags))
	for _, tag := range n.tags {
		tags = append(tags, string(tag))
	}
	for _, tag := range sent {
		switch {
		case strings.HasPrefix(tag, string(hostTag)):
			tagged, fromTag = tag[len(hostTag):], true
		case strings.HasPrefix(tag, string(internalTag)) && originTag([]byte(tag), &origin):
		default:
			tags = append(tags, tag)
		}
	}
	switch {
	case host != "":
	case fromTag:
		host = tagged
	default:
		host = n.host
	}
	for _, tag := range appendOriginTags(nil, origin, sender, n) {
		tags = append(tags, string(tag))
	}
	slices.Sort(tags)
	return host, slices.Clone(slices.Compact(tags)) // of many repeats nothing is to be kept
}

// exemptFromNamespace reports whether a name keeps its own prefix. The list is
// the Datadog Agent's (statsd_metric_namespace_blacklist), so that the metrics
// of integrations and of Datadog's clients keep the names their dashboards
// know.
func exemptFromNamespace(name []byte) bool {
	for _, prefix := range namespaceExemptions {
		if bytes.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

var namespaceExemptions = [][]byte{
	[]byte("datadog.agent"), []byte("datadog.dogstatsd"), []byte("datadog.process"),
	[]byte("datadog.trace_agent"), []byte("datadog.tracer"), []byte("activemq"), []byte("activemq_58"),
	[]byte("airflow"), []byte("cassandra"), []byte("confluent"), []byte("hazelcast"), []byte("hive"),
	[]byte("ignite"), []byte("jboss"), []byte("jvm"), []byte("kafka"), []byte("presto"),
	[]byte("sidekiq"), []byte("solr"), []byte("tomcat"), []byte("runtime"),
}
