package aggregator

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weir-agent/weir/metric"
)

// policy is what the configuration says of where samples go. It does not change: for
// a new configuration there is a new one.
type policy struct {
	naming        naming
	saltSenders   bool // the sender becomes a tag, so it is a part of the identity
	maxIdentities int  // that a worker remembers
}

func newPolicy(cfg *Config) *policy {
	p := &policy{
		naming:        naming{host: cfg.Hostname, originTags: cfg.Origin.AsTags},
		saltSenders:   slices.Contains(cfg.Origin.AsTags, metric.TagContainerID),
		maxIdentities: min(maxIdentitiesPerContext*cfg.MaxContexts, maxIndex),
	}
	if cfg.Namespace != "" {
		p.naming.namespace = strings.TrimSuffix(cfg.Namespace, ".") + "."
	}
	for _, tag := range cfg.Tags {
		p.naming.tags = append(p.naming.tags, []byte(tag))
	}
	return p
}

// view is what a worker makes of identities. It lasts as long as its policy, and so do
// the refs in its table.
type view struct {
	policy     *policy
	treat      Treat // nil: no rules
	identities *identities
	weighted   column[weightedRef] // by the index of an opWeighted ref
	weights    uint32              // how many indexes were ever used
	freeWeight uint32              // the index that was freed last, 0: none; each leads to the one before

	// Of metrics that the guard folds.
	sighted   column[sightedRef]   // by the index of an opSighted ref; the first is none
	sights    int                  // that are in use
	lastSight uint32               // the largest index that was ever used
	freeSight uint32               // as freeWeight
	shortcuts *[shortcuts]shortcut // by hash; nil: none
	once      []uint32             // by hash: the rest of the last hash that was met there

	// Of analytics events.
	eventRefs column[eventRef] // by the index of an opEvent ref
	events    int              // of eventRefs that are in use
	freeEvent []uint32         // indexes of eventRefs that are free
}

func newView(p *policy, newTreat func() Treat) view {
	v := view{policy: p, identities: newIdentities(), weights: fixedWeighted}
	if newTreat != nil {
		v.treat = newTreat()
	}
	return v
}

// Reconfigure puts a configuration in force, which must have passed Validate, and
// rules, which may be nil: for all workers at one moment, between two of their batches
// of samples. Nothing that was counted is touched. Every identity is resolved anew when
// its next sample comes, and finds its context, with all that is known of it, if name
// and tags are still the same. A new length of intervals counts from the end of the open
// one. switched, which may be nil and must be quick, is called at that moment: what else
// says where samples go can change with it.
//
// It waits for a flush to end. Workers hardly have to wait for it.
func (a *Aggregator) Reconfigure(cfg Config, newTreat func() Treat, switched func()) {
	p := newPolicy(&cfg)
	views := make([]view, len(a.workers))
	for i := range views {
		views[i] = newView(p, newTreat)
	}
	a.turn.Lock()
	defer a.turn.Unlock()
	if a.guard != nil {
		a.settle()
		for _, w := range a.workers {
			w.tell(a.guard) // or it would never know
		}
	}
	a.cfg = cfg
	for _, w := range a.workers {
		w.mu.Lock()
	}
	a.contexts.setLimit(cfg.MaxContexts)
	if a.guard != nil && !reflect.DeepEqual(a.flusher.policy.naming, p.naming) {
		a.guard.Renamed(max(cfg.Expiry.Context, cfg.Expiry.ZeroFill))
	}
	if switched != nil {
		switched()
	}
	for i, w := range a.workers {
		w.view = views[i]
		w.mu.Unlock()
	}
	a.flusher.configure(p)
}

// adoptInterval lets a configured length of intervals begin with the open one.
func (a *Aggregator) adoptInterval(c *clock) {
	a.turn.Lock()
	defer a.turn.Unlock()
	if c.interval == a.cfg.FlushInterval {
		return
	}
	a.log.Info("intervals have a new length", "flush_interval", a.cfg.FlushInterval.String(), "before", c.interval.String(), "from", c.start)
	c.interval = a.cfg.FlushInterval
	a.flusher.setInterval(c.interval)
}

// setInterval changes the length of intervals, of which none has a sample yet. What
// was counted in them stays as old as it is.
func (f *flusher) setInterval(d time.Duration) {
	inNew := func(n uint32) uint32 {
		return uint32(uint64(n) * uint64(f.interval/time.Second) / uint64(d/time.Second))
	}
	now := inNew(f.intervals) + 1
	for fam := range f.seen {
		for slot, last := range f.seen[fam] {
			if last != 0 {
				f.seen[fam][slot] = now - inNew(f.intervals-last)
			}
		}
	}
	for _, state := range f.own.known {
		state.silent = inNew(state.silent)
	}
	f.intervals, f.interval = now, d
	f.countIntervals()
}
