package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/analytics/report"
	"github.com/weir-agent/weir/cardinality"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/internal/priority"
	"github.com/weir-agent/weir/listener"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
	"github.com/weir-agent/weir/rules"
)

// run is the agent from its start to its end.
func run(configFile string) error {
	keepHeapSmall()
	var watcher *config.Watcher
	if configFile != "" {
		watcher = config.NewWatcher(configFile)
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	cfg, warnings, err := load(configFile)
	if err != nil {
		return err
	}
	log, level, flush := newLogger(cfg.Log)
	defer flush()
	for _, warning := range warnings {
		log.Warn(warning)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// A standard output that was closed is an error of the logs forwarder, and no
	// reason to die.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	var bound memory
	bound.look(log)
	a, err := newAgent(cfg, bound.container, log)
	if err != nil {
		return err
	}
	bound.warnIfShort(&cfg, a.listener, log)
	a.memory = &bound
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	reloader := &reloader{file: configFile, watcher: watcher, agent: a, level: level, log: log, moved: make(chan struct{}, 1), running: cfg}
	return a.run(ctx, func(ctx context.Context) { reloader.run(ctx, hangups) })
}

// agent is the rooms, wired.
type agent struct {
	listener   *listener.Listener
	parsers    []*parser.Parser // by reader
	aggregator *aggregator.Aggregator
	guard      *cardinality.Guard
	analytics  *analytics.Engine // nil: there are no definitions
	reporter   *report.Reporter  // the same
	forwarder  *forwarder.Forwarder
	reloads    *config.Reloads
	memory     *memory // nil: nobody looks after it
	log        *slog.Logger
}

// newAgent acquires everything and starts nothing. memory is what the process may take; 0:
// as much as there is.
func newAgent(cfg config.Config, memory uint64, log *slog.Logger) (*agent, error) {
	guard := cardinality.New(cfg.Cardinality, log)
	if file, err := guardFile(cfg); err != nil {
		log.Warn("folds will be forgotten when the agent ends", "error", err)
	} else {
		guard.Open(file) // before lines can come: a restart admits no burst
	}
	cfg.Listen.OriginDetection, cfg.Listen.Memory = cfg.Aggregator.Origin.Detect, memory
	// What was counted is there before a socket opens.
	events, err := newAnalytics(cfg, log)
	if err != nil {
		return nil, err
	}
	l, err := listener.New(cfg.Listen, log)
	if err != nil {
		return nil, errors.Join(err, closeAnalytics(events))
	}
	f, err := forwarder.New(cfg.Forwarder, "weir/"+version, log)
	if err != nil {
		return nil, errors.Join(err, l.Close(), closeAnalytics(events))
	}
	reporter, err := newReporter(cfg, events, log)
	if err != nil {
		return nil, errors.Join(err, l.Close(), closeAnalytics(events))
	}
	parsers := make([]*parser.Parser, l.Readers())
	describe := make([]aggregator.Describe, l.Readers())
	for i := range parsers {
		info := l.Reader(i)
		parsers[i] = parser.New(parser.Config{Dialect: info.Dialect, TagStyle: info.TagStyle}.Or(cfg.Parser))
		describe[i] = parsers[i].Describe
	}
	a := newAggregator(cfg, describe, guard, log)
	a.SetDropped(l.Dropped)
	connectAnalytics(a, events)
	return &agent{
		listener:   l,
		parsers:    parsers,
		aggregator: a,
		guard:      guard,
		analytics:  events,
		reporter:   reporter,
		forwarder:  f,
		reloads:    config.NewReloads(),
		log:        log,
	}, nil
}

// guardFile returns where the cardinality guards keep what must outlive the process.
func guardFile(cfg config.Config) (string, error) {
	folder, err := cfg.Forwarder.StateFolder(os.Getenv)
	return filepath.Join(folder, "cardinality.json"), err
}

// newAggregator returns an aggregator with the configured rules and a guard.
func newAggregator(cfg config.Config, describe []aggregator.Describe, guard aggregator.Guard, log *slog.Logger) *aggregator.Aggregator {
	a := aggregator.New(cfg.Aggregator, describe, log)
	a.SetGuard(guard)
	if treat := treatBy(cfg.Rules); treat != nil {
		a.SetRules(treat)
	}
	return a
}

// treatBy returns what makes a worker's Treat; nil if there are no rules.
func treatBy(cfg rules.Config) func() aggregator.Treat {
	if len(cfg.Rules) == 0 {
		return nil
	}
	r := rules.New(cfg)
	return func() aggregator.Treat { return r.NewSession().Apply }
}

// run blocks until ctx is done and everything is delivered or given up. A stage
// ends when its input ends: the sockets first, then the open interval is flushed,
// then the forwarders deliver what they hold. While the sockets are open, meanwhile runs.
func (a *agent) run(ctx context.Context, meanwhile func(context.Context)) error {
	// The readers keep a processor each while they pause (see listener). From here
	// on Go no longer follows changes of the container's CPU limit by itself.
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + a.listener.Processors())

	batches := make(chan *metric.Batch, 1)
	noMoreSamples, endSamples := context.WithCancel(context.Background())
	defer endSamples()
	var stages sync.WaitGroup
	reported := make(chan struct{})
	noMoreEvents, endEvents := context.WithCancel(context.Background())
	stages.Go(func() {
		defer close(batches)
		defer func() {
			<-reported // a report asks for counts
			endEvents()
		}()
		priority.Lower()
		a.aggregator.Run(noMoreSamples, a.readings, batches)
	})
	stages.Go(func() {
		defer close(reported)
		a.runReporter(noMoreSamples)
	})
	stages.Go(func() { a.runAnalytics(noMoreEvents) })
	stages.Go(func() {
		priority.Lower()
		a.runRaw(noMoreEvents)
	})
	stages.Go(func() {
		priority.Lower()
		a.forwarder.Run(batches)
	})
	stages.Go(func() { a.reportEveryMinute(noMoreSamples) })
	stages.Go(func() { a.guard.Run(noMoreSamples) })
	listening, listened := context.WithCancel(ctx)
	defer listened()
	stages.Go(func() { meanwhile(listening) })

	err := a.listener.Run(ctx, a.intakes())
	listened()
	a.log.Info("stopping: the open interval is flushed and delivered; a second signal ends this at once")
	before := a.forwarder.Stats()
	endSamples()
	stages.Wait()
	lost := a.finalAccount(before)
	if err == nil && lost {
		err = errLost
	}
	return err
}

// intakes returns the handler that takes each reader's packets to its worker.
func (a *agent) intakes() listener.Handler {
	intakes := make([]*intake, a.listener.Readers())
	for i := range intakes {
		intakes[i] = &intake{parser: a.parsers[i], worker: a.aggregator.Worker(i)}
	}
	return func(reader int, packets []listener.Packet) {
		in := intakes[reader]
		for i := range packets {
			in.packet(packets[i].Data, packets[i].Cut, packets[i].Sender)
		}
		in.end()
	}
}

// readings appends everything the agent measures of itself.
func (a *agent) readings(dst []metric.Reading) []metric.Reading {
	dst = append(dst, metric.Reading{Name: "running", Value: 1, Level: true})
	dst = memoryReadings(dst)
	dst = a.listener.Readings(dst)
	dst = a.aggregator.Readings(dst)
	dst = a.guard.Readings(dst)
	if a.analytics != nil {
		dst = a.analytics.Readings(dst)
		dst = a.reporter.Readings(dst)
	}
	dst = a.forwarder.Readings(dst)
	return a.reloads.Readings(dst)
}

// reportEveryMinute logs what happened, in one line, and looks whether the container may
// take another amount of memory.
func (a *agent) reportEveryMinute(ctx context.Context) {
	ticker := time.NewTicker(time.Minute)
	defer ticker.Stop()
	last := a.account()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if a.memory != nil {
			a.memory.look(a.log)
			a.memory.warnIfExhausted(lastHeldBack(), a.log)
		}
		now := a.account()
		a.log.Info("the last minute", append(now.since(last).attributes(), booksOf(a.forwarder.Stats()))...)
		last = now
	}
}

// finalAccount logs the books of the whole run and reports whether anything was lost
// after it was told to stop, when the books were those given.
func (a *agent) finalAccount(before []forwarder.DestinationStats) (lost bool) {
	a.log.Info("the final account", a.account().attributes()...)
	was := map[string]*forwarder.DestinationStats{}
	for i := range before {
		was[before[i].Name] = &before[i]
	}
	for _, s := range a.forwarder.Stats() {
		attributes := []any{"forwarder", s.Name, "books", s.String(), "points", s.Produced, "delivered", s.Delivered}
		if s.Restored > 0 {
			attributes = append(attributes, "restored", s.Restored)
		}
		if s.Spooled > 0 {
			attributes = append(attributes, "spooled", s.Spooled)
		}
		for why, n := range s.Dropped {
			if n > 0 {
				attributes = append(attributes, "dropped_"+forwarder.DropReason(why).String(), n)
			}
		}
		a.log.Info("the final account of a forwarder", attributes...)
		earlier := was[s.Name]
		if earlier == nil { // a reload was under way
			earlier = &forwarder.DestinationStats{}
		}
		lost = lost || s.LostSince(earlier)
	}
	return lost
}

// booksOf returns the books of all forwarders since the start, in words, for the log.
func booksOf(all []forwarder.DestinationStats) slog.Attr {
	books := make([]any, len(all))
	for i := range all {
		books[i] = slog.String(all[i].Name, all[i].String())
	}
	return slog.Group("since_the_start", books...)
}
