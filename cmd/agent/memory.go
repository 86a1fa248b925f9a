package main

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"runtime/metrics"
	"sync"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/listener"
	"github.com/weir-agent/weir/metric"
)

// memoryShare is how much of the container's memory is for what Go counts. The rest is
// for what it does not: the program's own pages, and sockets' buffers.
const memoryShare = 0.9

// What the parts of the agent take whose size is not configured.
const (
	programBytes = 32 << 20 // the agent without a context, and batches under way
	contextBytes = 300      // of a counter with three tags of usual length, flushes included (docs/PERFORMANCE.md)
	guardBytes   = 48 << 20 // sketches of the guards
	sketchBytes  = 16 << 10 // of a selection of analytics events and a day, of which three are in memory
	rowBytes     = 24       // of a row of raw events that waits
)

// memory is how much the process may take, as far as it knows.
type memory struct {
	mu        sync.Mutex // guards the fields below
	container uint64     // of its cgroup and those around it; 0: no limit, or none is known
	soft      uint64     // where Go collects before the heap has grown as far as it may; 0: nowhere
	told      bool       // all of this is in the log
	fault     string     // what is wrong, as the log has it
	exhausted uint64     // the collection at which the collector last gave up
}

// look makes the collector keep to a share of what the container may take, and logs what
// it did if that is news. GOMEMLIMIT in the environment goes before, and AUTOMEMLIMIT is
// another share, or off.
func (m *memory) look(log *slog.Logger) {
	container, err := memlimit.FromCgroup()
	if errors.Is(err, memlimit.ErrNoLimit) || errors.Is(err, memlimit.ErrNoCgroup) || errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		err = memlimit.ErrNoLimit // whatever the reason
	}
	found, err := memlimit.Set(memlimit.WithRatio(memoryShare), memlimit.WithProvider(func() (uint64, error) { return container, err }))
	soft := uint64(found)
	if found == math.MaxInt64 {
		soft = 0
	}
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	news := !m.told || container != m.container || soft != m.soft || fault != m.fault
	m.container, m.soft, m.fault, m.told = container, soft, fault, true
	if !news {
		return
	}
	if fault != "" {
		log.Warn("the garbage collector does not know how much memory there is: set GOMEMLIMIT, such as GOMEMLIMIT=230MiB", "error", fault)
	}
	if container == 0 && soft == 0 {
		log.Info("memory is not limited")
		return
	}
	attributes := []any{"soft_limit", "none"}
	if soft > 0 {
		attributes[1] = mebibytes(soft)
	}
	if container > 0 {
		attributes = append(attributes, "container", mebibytes(container))
	}
	for _, variable := range []string{"GOMEMLIMIT", "AUTOMEMLIMIT"} {
		if value, set := os.LookupEnv(variable); set {
			attributes = append(attributes, variable, value)
		}
	}
	log.Info("memory is limited", attributes...)
}

// lastHeldBack returns the number of the collection at which Go last held the collector
// back, 0 if it never did.
func lastHeldBack() uint64 {
	limiter := []metrics.Sample{{Name: "/gc/limiter/last-enabled:gc-cycle"}}
	metrics.Read(limiter)
	return limiter[0].Value.Uint64()
}

// warnIfExhausted tells the log if the collector was held back since the last call: at the
// limit collecting would otherwise take all of the processors.
func (m *memory) warnIfExhausted(last uint64, log *slog.Logger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if last == m.exhausted {
		return
	}
	m.exhausted = last
	log.Warn("memory is used up: the garbage collector takes up to half of the processors, and is held back so that it does not take more; raise the limit of the container, or lower cardinality.max_contexts",
		"soft_limit", mebibytes(m.soft))
}

// memoryReadings appends what Go has of the system's memory, and what it may have.
func memoryReadings(dst []metric.Reading) []metric.Reading {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/gomemlimit:bytes"}}
	metrics.Read(s)
	limit := s[2].Value.Uint64()
	if limit == math.MaxInt64 {
		limit = 0
	}
	return append(dst,
		metric.Reading{Name: "memory.used", Value: float64(s[0].Value.Uint64() - s[1].Value.Uint64()), Level: true},
		metric.Reading{Name: "memory.limit", Value: float64(limit), Level: true})
}

// need is what the configuration allows a part of the agent to take.
type need struct {
	part  string
	bytes uint64
}

// needs returns what a configuration allows the agent to take, with so many readers, and
// the kernel for what waits in their sockets. Its sum is no bound: the samples of an
// interval, and names and tags that are longer than usual, are not in it.
func needs(cfg *config.Config, readers int, sockets uint64) []need {
	all := []need{
		{"program", programBytes},
		{"contexts", uint64(cfg.Cardinality.MaxContexts) * contextBytes},
		{"guards", guardBytes},
		{"queues", uint64(cfg.Forwarder.MaxQueued())},
		{"sockets", sockets},
	}
	if a := &cfg.Analytics; a.Definitions != "" {
		raw := uint64(a.Raw.Queue) * rowBytes * uint64(readers)
		if len(a.Raw.Kafka.Brokers) > 0 {
			raw += uint64(a.Raw.Kafka.MaxQueued)
		}
		all = append(all, need{"analytics", uint64(a.MaxSketches)*sketchBytes*3 + raw})
	}
	return all
}

// warnIfShort tells the log if what the configuration allows is more than there is.
func (m *memory) warnIfShort(cfg *config.Config, l *listener.Listener, log *slog.Logger) {
	m.mu.Lock()
	defer m.mu.Unlock()
	limit := m.container
	if limit == 0 || m.soft > 0 && m.soft < uint64(float64(limit)*memoryShare) {
		limit = m.soft // less than a share of the container by somebody's choice
	}
	all := needs(cfg, l.Readers(), l.KernelMemory())
	sum := uint64(0)
	for _, n := range all {
		sum += n.bytes
	}
	if limit == 0 || sum <= limit {
		return
	}
	attributes := []any{"limit", mebibytes(limit), "allowed", mebibytes(sum)}
	for _, n := range all {
		attributes = append(attributes, n.part, mebibytes(n.bytes))
	}
	others := sum - uint64(cfg.Cardinality.MaxContexts)*contextBytes
	const advice = "the configuration allows more memory than there is: near the limit collecting garbage costs ever more, beyond it the kernel ends the agent; raise the limit, or lower "
	if others+1000*contextBytes > limit {
		log.Warn(advice+"cardinality.max_contexts, max_queue of forwarders, listen.receive_buffer or analytics.max_sketches", attributes...)
		return
	}
	fits := (limit - others) / contextBytes / 1000 * 1000
	log.Warn(advice+"cardinality.max_contexts or max_queue of forwarders", append(attributes, "max_contexts_that_fit", fits)...)
}

func mebibytes(n uint64) string { return fmt.Sprintf("%dMiB", n>>20) }
