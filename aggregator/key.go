package aggregator

import (
	"bytes"
	"slices"

	"github.com/weir-agent/weir/metric"
)

// identityScratch is memory for making keys, to be reused.
type identityScratch struct {
	tags [][]byte
	name []byte
	key  []byte
}

var (
	hostTag   = []byte("host:")
	deviceTag = []byte("device:")
)

// contextKey returns the canonical key of an identity's context: with the
// namespace before the name, the configured tags added, the tags sorted without
// repeats, and the last host and device tag taken out of them. It is valid until
// the next call.
func (k *identityScratch) contextKey(id *metric.Identity, agentHost, namespace string, configured [][]byte) []byte {
	var host metric.Host
	var device []byte
	tags := append(k.tags[:0], configured...)
	for _, tag := range id.Tags {
		switch {
		case bytes.HasPrefix(tag, hostTag):
			host = metric.Host{Explicit: true, Name: tag[len(hostTag):]}
		case bytes.HasPrefix(tag, deviceTag):
			device = tag[len(deviceTag):]
		default:
			tags = append(tags, tag)
		}
	}
	if host.Explicit && string(host.Name) == agentHost {
		host = metric.Host{} // named or not, it is the same host
	}
	slices.SortFunc(tags, bytes.Compare)
	k.tags = tags
	tags = slices.CompactFunc(tags, bytes.Equal)

	name := id.Name
	if namespace != "" && !exemptFromNamespace(name) {
		k.name = append(append(k.name[:0], namespace...), name...)
		name = k.name
	}
	k.key = metric.AppendContextKey(k.key[:0], id.Kind, name, host, device, tags)
	return k.key
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
