package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/weir-agent/weir/aggregator"
	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/analytics/report"
	"github.com/weir-agent/weir/config"
	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/listener"
	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// run is the agent from its start to its end.
func run(configFile string) error {
	cfg, warnings, err := load(configFile)
	if err != nil {
		return err
	}
	log, flush := newLogger(cfg.Log)
	defer flush()
	for _, warning := range warnings {
		log.Warn(warning)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A standard output that was closed is an error of the logs forwarder, and no
	// reason to die.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	a, err := newAgent(cfg, log)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return a.run(ctx)
}

// agent is the rooms, wired.
type agent struct {
	listener   *listener.Listener
	parsers    []*parser.Parser // by reader
	aggregator *aggregator.Aggregator
	analytics  *analytics.Engine // nil: there are no definitions
	reporter   *report.Reporter  // the same
	forwarder  *forwarder.Forwarder
	log        *slog.Logger
}

// newAgent acquires everything and starts nothing.
func newAgent(cfg config.Config, log *slog.Logger) (*agent, error) {
	cfg.Listen.OriginDetection = cfg.Aggregator.Origin.Detect
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
	a := &agent{
		listener:   l,
		parsers:    parsers,
		aggregator: aggregator.New(cfg.Aggregator, describe, log),
		analytics:  events,
		reporter:   reporter,
		forwarder:  f,
		log:        log,
	}
	connectAnalytics(a.aggregator, events)
	return a, nil
}

// run blocks until ctx is done and everything is delivered or given up. A stage
// ends when its input ends: the sockets first, then the open interval is flushed,
// then the forwarders deliver what they hold.
func (a *agent) run(ctx context.Context) error {
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
		a.aggregator.Run(noMoreSamples, a.readings, batches)
	})
	stages.Go(func() {
		defer close(reported)
		a.runReporter(noMoreSamples)
	})
	stages.Go(func() { a.runAnalytics(noMoreEvents) })
	stages.Go(func() { a.runRaw(noMoreEvents) })
	stages.Go(func() { a.forwarder.Run(batches) })
	stages.Go(func() { a.reportEveryMinute(noMoreSamples) })

	err := a.listener.Run(ctx, a.intakes())
	a.log.Info("stopping: the open interval is flushed and delivered; a second signal ends this at once")
	endSamples()
	stages.Wait()
	lost := a.finalAccount()
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
	dst = a.listener.Readings(dst)
	dst = a.aggregator.Readings(dst)
	if a.analytics != nil {
		dst = a.analytics.Readings(dst)
		dst = a.reporter.Readings(dst)
	}
	return a.forwarder.Readings(dst)
}

// reportEveryMinute logs what happened, in one line.
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
		now := a.account()
		a.log.Info("the last minute", now.since(last).attributes()...)
		last = now
	}
}

// finalAccount logs the books of the whole run and reports whether anything was
// lost at its end.
func (a *agent) finalAccount() (lost bool) {
	a.log.Info("the final account", a.account().attributes()...)
	for _, s := range a.forwarder.Stats() {
		attributes := []any{"forwarder", s.Name, "points", s.Produced, "delivered", s.Delivered}
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
		lost = lost || s.Dropped[forwarder.DroppedShutdown] > 0
	}
	return lost
}
