module github.com/DataDog/datadog-agent/comp/core/tagger/def

go 1.26.0

require (
	github.com/DataDog/datadog-agent/pkg/tagger/types v0.85.1
	github.com/DataDog/datadog-agent/pkg/tagset v0.85.1
)
