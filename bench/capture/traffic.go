package main

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"strconv"
)

// call is one call of a client.
type call struct {
	Name   string   `json:"name"`
	Kind   string   `json:"kind"` // c, g, ms, d or s
	Value  float64  `json:"value"`
	Member string   `json:"member"` // of a set
	Rate   float64  `json:"rate"`
	Tags   []string `json:"tags"`
}

// series is a metric of the service.
type series struct {
	name   string
	kind   string
	rate   float64
	tags   []tag
	weight float64 // of its share of the calls
	guilty string  // the keys that make it explode; "": none
}

// tag is a key and who its values are.
type tag struct {
	key   string
	value func(*rand.Rand) string
}

// of returns a tag with n values, of which the first are the most frequent.
func of(key, prefix string, n int) tag {
	return tag{key, func(r *rand.Rand) string { return prefix + strconv.Itoa(zipf(r, n)) }}
}

func oneOf(key string, values ...string) tag {
	return tag{key, func(r *rand.Rand) string { return values[zipf(r, len(values))] }}
}

// unbounded returns a tag with a new value in nearly every call.
func unbounded(key string) tag {
	return tag{key, func(r *rand.Rand) string {
		a, b := r.Uint64(), r.Uint64()
		return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", uint32(a>>32), uint16(a>>16), a&0xfff, 0x8000|b>>48&0x3fff, b&0xffffffffffff)
	}}
}

// zipf draws a number below n, each about as often as its inverse.
func zipf(r *rand.Rand, n int) int {
	return min(int(math.Exp(r.Float64()*math.Log(float64(n)+1)))-1, n-1)
}

var (
	environment = oneOf("environment", "production")
	region      = oneOf("region", "us", "de", "s4s")
	method      = oneOf("method", "GET", "POST", "PUT", "DELETE", "OPTIONS")
	status      = oneOf("status_code", "200", "201", "202", "204", "400", "401", "403", "404", "429", "500", "502", "503")
	outcome     = oneOf("result", "success", "failure")
	platform    = oneOf("platform", "python", "javascript", "node", "java", "go", "ruby", "php", "csharp", "cocoa", "native", "rust", "elixir", "other")
	sdk         = of("sdk", "sdk.", 30)
	task        = of("task_name", "app.tasks.task_", 60)
	queue       = of("queue", "queue.", 14)
	plan        = oneOf("plan", "free", "team", "business", "enterprise")
	endpoint    = of("endpoint", "/api/0/resource_", 90)
	backend     = oneOf("backend", "primary", "replica", "cache", "search")
	partition   = of("partition", "", 32)
	consumer    = of("consumer_group", "group-", 9)
	category    = oneOf("category", "error", "transaction", "attachment", "session", "replay", "profile", "monitor")
	browser     = oneOf("browser", "chrome", "firefox", "safari", "edge", "other")
)

// model returns the metrics of the service: some hundred of ordinary ones, a few with
// honestly many contexts, and those with a tag that should never have been one.
func model() []series {
	var all []series
	areas := []string{
		"events", "ingest", "issues", "search", "cache", "jobs", "notifications", "integrations", "billing", "auth",
		"attachments", "sessions", "symbolicator", "grouping", "rules", "quotas", "digests", "mail", "webhooks", "exports",
		"releases", "monitors", "replays", "profiles", "options",
	}
	tagSets := [][]tag{
		{outcome},
		{platform},
		{queue, outcome},
		{category, outcome},
		{backend},
		{task, outcome},
		{partition, consumer},
		{sdk},
		{plan, category},
		{endpoint, method},
	}
	operations := []struct{ suffix, kind string }{
		{"processed", "c"},
		{"duration", "ms"},
		{"errors", "c"},
		{"backlog", "g"},
		{"size", "d"},
		{"attempts", "c"},
		{"latency", "d"},
		{"active", "g"},
		{"retries", "c"},
		{"users", "s"},
		{"batch.duration", "ms"},
		{"dropped", "c"},
		{"hit_ratio", "g"},
	}
	for i, area := range areas {
		for j, op := range operations {
			rate := 1.0
			if op.kind == "ms" && j%2 == 1 {
				rate = 0.1
			}
			all = append(all, series{
				name: area + "." + op.suffix, kind: op.kind, rate: rate, weight: 1,
				tags: append([]tag{environment, region}, tagSets[(i*7+j*3)%len(tagSets)]...),
			})
		}
	}
	honest := []tag{environment, endpoint, method, status}
	all = append(all,
		series{name: "view.response", kind: "c", rate: 1, weight: 60, tags: honest},
		series{name: "view.duration", kind: "d", rate: 1, weight: 60, tags: honest},
		series{name: "sdk.version.seen", kind: "c", rate: 1, weight: 30, tags: []tag{environment, of("sdk", "sdk.", 20), of("sdk_version", "1.", 120)}},
		series{name: "queries.duration", kind: "ms", rate: 1, weight: 40, tags: []tag{environment, of("statement", "select.", 400), backend, outcome}},

		series{name: "api.request.duration", kind: "ms", rate: 1, weight: 120, guilty: "request_id", tags: []tag{environment, endpoint, method, unbounded("request_id")}},
		series{name: "events.saved", kind: "c", rate: 1, weight: 120, guilty: "event_id", tags: []tag{environment, platform, category, unbounded("event_id")}},
		series{name: "user.active", kind: "c", rate: 1, weight: 100, guilty: "user_id", tags: []tag{environment, plan, browser, of("user_id", "", 400_000)}},
		series{name: "trace.linked", kind: "c", rate: 1, weight: 90, guilty: "span_id,trace_id", tags: []tag{environment, platform, unbounded("trace_id"), unbounded("span_id")}},
	)
	return all
}

// traffic yields calls, about so many.
func traffic(seed uint64, calls int) iter.Seq[call] {
	return func(yield func(call) bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		all := model()
		total := 0.0
		ends := make([]float64, len(all))
		for i, s := range all {
			total += s.weight
			ends[i] = total
		}
		for range calls {
			at := r.Float64() * total
			i := 0
			for ends[i] < at {
				i++
			}
			if !yield(all[i].call(r)) {
				return
			}
		}
	}
}

func (s *series) call(r *rand.Rand) call {
	c := call{Name: s.name, Kind: s.kind, Rate: s.rate, Value: 1}
	for _, t := range s.tags {
		c.Tags = append(c.Tags, t.key+":"+t.value(r))
	}
	switch s.kind {
	case "c":
		c.Value = float64(1 + zipf(r, 3))
	case "ms", "d":
		c.Value = math.Round(math.Exp(3+1.5*r.NormFloat64())*100) / 100
	case "g":
		c.Value = float64(r.IntN(1000))
	case "s":
		c.Member = "user-" + strconv.Itoa(zipf(r, 5000))
	}
	return c
}
