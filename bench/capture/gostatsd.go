package main

import (
	"context"
	"net"

	"github.com/DataDog/datadog-go/v5/statsd"
)

// goClient is Datadog's client, which adds nothing up: a line for each call.
type goClient struct{ *statsd.Client }

func startGo(_ context.Context, to *net.UDPAddr) (client, error) {
	c, err := statsd.New(to.String(), statsd.WithoutTelemetry(), statsd.WithoutClientSideAggregation(), statsd.WithoutOriginDetection(),
		statsd.WithSenderQueueSize(1<<16))
	return goClient{c}, err
}

func (g goClient) call(c call) error {
	switch c.Kind {
	case "c":
		return g.Count(c.Name, int64(c.Value), c.Tags, c.Rate)
	case "g":
		return g.Gauge(c.Name, c.Value, c.Tags, 1)
	case "ms":
		return g.TimeInMilliseconds(c.Name, c.Value, c.Tags, c.Rate)
	case "d":
		return g.Distribution(c.Name, c.Value, c.Tags, c.Rate)
	case "s":
		return g.Set(c.Name, c.Member, c.Tags, 1)
	}
	panic("BUG: a call of no kind: " + c.Kind)
}

func (g goClient) close() error { return g.Close() }
