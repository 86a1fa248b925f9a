package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// searchDefinitions are of an event with two tags, of which one may be anything.
var searchDefinitions = map[string]string{
	"events/search.run.yml": `
event: search.run
description: Somebody searched for something on the site.
owner: search
version: 1-0-0
attributes:
  user_id: {type: int, required: true, role: identity, identity: user.id}
  plan:    {type: enum, values: [free, pro], role: tag}
  term:    {type: string, role: tag}
`,
	"metrics/users.yml": `
key_path: usage.searchers
description: Users who searched for something at least once.
time_frame: [1d]
events: [{name: search.run, unique: user.id}]
`,
	"metrics/total.yml": `
key_path: usage.searches
description: How often somebody searched for something.
time_frame: [all]
events: [{name: search.run}]
`,
}

func writeDefinitions(t *testing.T, folder string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		replace(t, path, text)
	}
}

// wired are the rooms between sockets and forwarders, as newAgent wires them.
type wired struct {
	t          *testing.T
	aggregator *aggregator.Aggregator
	events     *analytics.Engine
	intake     intake
	start      time.Time
	// counts is what was sent of counters: by name, and by name and tags.
	byName, byContext map[string]float64
	lines             int
}

// newWired configures by the text of a file, with definitions of searches.
func newWired(t *testing.T, text string) *wired {
	t.Helper()
	folder := t.TempDir()
	writeDefinitions(t, folder, searchDefinitions)
	file := filepath.Join(folder, "weir.yaml")
	replace(t, file, "hostname: h\nstate_dir: "+t.TempDir()+"\nforwarders: [{type: discard}]\nanalytics: {include_today: true, keys: \"000102030405060708090a0b0c0d0e0f\", definitions: "+folder+"}\n"+text)
	cfg, _, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	events, err := newAnalytics(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = events.Close() })
	p := parser.New(cfg.Parser)
	a := newAggregator(cfg, []aggregator.Describe{p.Describe}, cardinality.New(cfg.Cardinality, log), log)
	connectAnalytics(a, events)
	return &wired{
		t: t, aggregator: a, events: events, intake: intake{parser: p, worker: a.Worker(0)},
		start: time.Now().Truncate(10 * time.Second), byName: map[string]float64{}, byContext: map[string]float64{},
	}
}

func (w *wired) send(format string, args ...any) {
	w.intake.packet(fmt.Appendf(nil, format, args...), false, "")
	w.intake.end()
	w.lines++
}

// flush ends an interval.
func (w *wired) flush() {
	b := w.aggregator.Flush(w.start)
	w.start = w.start.Add(b.Interval)
	for i := range b.Series {
		s := &b.Series[i]
		if s.Type != metric.Rate || s.Value == 0 {
			continue
		}
		c := b.Context(s)
		tags := slices.Collect(c.Tags())
		w.byName[c.Name()] += s.Value * b.Interval.Seconds()
		w.byContext[c.Name()+" "+strings.Join(tags, ",")] += s.Value * b.Interval.Seconds()
	}
}

// values ends the counting and returns the metrics' values by the names of their gauges.
func (w *wired) values() map[string]float64 {
	w.t.Helper()
	stopped, stop := context.WithCancel(context.Background())
	stop()
	if err := w.events.Run(stopped); err != nil {
		w.t.Fatal(err)
	}
	all := map[string]float64{}
	for _, v := range w.events.Values() {
		if v.Value != nil {
			all[v.Name] = *v.Value
		}
	}
	return all
}

// Rules see the event's counter, with the tags of the role tag, and rename, retag and
// sample it as any other metric. What the event counts is not touched by that, not even
// by a rule that drops the counter.
func TestRulesSeeTheCounterOfAnEvent(t *testing.T) {
	const users, rounds = 200, 10
	for name, test := range map[string]struct {
		rules string
		want  map[string]float64 // nil: about as many as were sent, by one name
	}{
		"none":                    {"", map[string]float64{"search.run plan:pro,term:a": users * rounds}},
		"a name and dropped tags": {"rules: [{match: search.run, name: searches, drop_tags: [term]}]", map[string]float64{"searches plan:pro": users * rounds}},
		"by the name as sent":     {"rules: [{match: 'analytics.*', drop: true}]", map[string]float64{"search.run plan:pro,term:a": users * rounds}},
		"by an identity":          {"rules: [{match: '*', drop_tags: [user_id], sample: 1}]", map[string]float64{"search.run plan:pro,term:a": users * rounds}},
		"dropped":                 {"rules: [{match: search.run, drop: true}]", map[string]float64{}},
		"sampled":                 {"rules: [{match: search.run, kinds: [counter], sample: 0.3}]", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWired(t, test.rules)
			for range rounds {
				for user := range users {
					w.send("analytics.search.run:1|c|#user_id:%d,plan:pro,term:a", user)
				}
				w.flush()
			}
			sent := float64(users * rounds)
			switch {
			case test.want == nil:
				if got := w.byContext["search.run plan:pro,term:a"]; got == sent || got < 0.7*sent || got > 1.3*sent || len(w.byContext) != 1 {
					t.Errorf("the counters are %v, want about %v", w.byContext, sent)
				}
			case !maps.EqualFunc(w.byContext, test.want, near):
				t.Errorf("the counters are %v, want %v", w.byContext, test.want)
			}
			s := w.aggregator.Stats()
			if s.Samples != s.Aggregated+s.SampledOut+s.Passed+sum(s.Refused[:]) || s.EventSamples != users*rounds {
				t.Errorf("the books do not add up: %+v", s)
			}
			if got := w.values(); got["usage.searchers.1d"] != users || got["usage.searches.all"] != sent {
				t.Errorf("the event counts %v, want %d users and %v searches", got, users, sent)
			}
		})
	}
}

func sum(all []uint64) (n uint64) {
	for _, one := range all {
		n += one
	}
	return n
}

// A tag of an event's counter that may be anything is folded as that of any counter is.
// All lines count in what is left, and who searched is known as before.
func TestTheCounterOfAnEventIsFolded(t *testing.T) {
	w := newWired(t, "cardinality: {max_contexts_per_metric: 100}")
	const users, each = 300, 10
	term := 0
	for range 12 {
		for user := range users {
			for range each {
				w.send("analytics.search.run:1|c|#user_id:%d,plan:pro,term:t%d", user, term)
				term++
			}
			w.send("analytics.search.run:1|c|#user_id:%d,plan:free,term:often", user)
			w.send("plain:1|c|#user:%d", user%50)
			w.lines--
		}
		w.flush()
	}
	for range 3 {
		w.flush()
	}
	series, folded := 0, 0.0
	for key, n := range w.byContext {
		if strings.HasPrefix(key, "search.run ") {
			series++
		}
		if strings.Contains(key, "term:_other_") {
			folded += n
		}
	}
	if series > 200 || folded < 0.9*float64(term) {
		t.Errorf("the counter has %d series, of which those of other terms count %v of %d", series, folded, term)
	}
	if got := w.byName["search.run"]; !near(got, float64(w.lines)) {
		t.Errorf("the counter counts %v, want %d", got, w.lines)
	}
	if got := w.byName["plain"]; !near(got, 12*users) {
		t.Errorf("another counter counts %v, want %d", got, 12*users)
	}
	if s := w.aggregator.Stats(); s.Identities > 12*(users+1)+1000 {
		t.Errorf("%d identities are remembered", s.Identities)
	}
	// A sketch that was told so often estimates from registers.
	if got := w.values(); math.Abs(got["usage.searchers.1d"]-users) > 0.01*users || got["usage.searches.all"] != float64(w.lines) {
		t.Errorf("the event counts %v, want %d users and %d searches", got, users, w.lines)
	}
}
