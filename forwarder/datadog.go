package forwarder

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/weir-agent/weir/metric"
)

// validateEvery is how often the intake is asked whether a key is valid.
const validateEvery = time.Hour

// datadog sends points to Datadog's intake, and to more endpoints of that kind. What
// it packs once goes to each of them, independent of the others.
type datadog struct {
	label     string
	packer    *packer
	endpoints []*endpoint
	intakes   []*intake // by endpoint
	log       *slog.Logger
}

// openDatadog acquires everything but the spools, for which it has the names.
func openDatadog(cfg *DestinationConfig, name, agent string, shutdown time.Duration, spools *spools, log *slog.Logger) (_ *datadog, err error) {
	packer, err := newPacker(cfg.Compression, log.With("forwarder", name))
	if err != nil {
		return nil, err
	}
	packer.seriesAsJSON = cfg.Series == SeriesJSON
	if cfg.Proxy == "" {
		warnOfProxy(log.With("forwarder", name))
	}
	d := &datadog{label: name, packer: packer, log: log}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	all := append([]EndpointConfig{{APIKey: cfg.APIKey, Site: cfg.Site, URL: cfg.URL}}, cfg.AdditionalEndpoints...)
	for i, to := range all {
		label := name
		if i > 0 {
			label += "/additional." + strconv.Itoa(i)
		}
		client, err := newClient(cfg)
		if err != nil {
			return nil, err
		}
		in := &intake{base: to.base(), key: to.APIKey, agent: agent, client: client, secrets: secretsOf(cfg, &to)}
		// What can be wrong with a request is wrong with all of them: find out now.
		if _, err := in.request(context.Background(), &payload{route: &seriesRoute}); err != nil {
			return nil, fmt.Errorf("make a request: %w", err)
		}
		account := &books{}
		account.s.Name, account.s.Endpoint = label, true
		e := newEndpoint(label, account, log)
		e.post = in.post
		e.senders, e.maxBytes = cfg.Concurrency, int64(cfg.MaxQueue)
		e.hasten = shutdown / 4 * 3
		e.spoolTo(spools, withoutSecrets(in.base))
		account.status = e.status
		d.endpoints, d.intakes = append(d.endpoints, e), append(d.intakes, in)
	}
	return d, nil
}

// base returns the URL that the paths of routes are put behind.
func (c *EndpointConfig) base() string {
	if c.URL == "" {
		return "https://api." + c.Site
	}
	if m := appURL.FindStringSubmatch(c.URL); m != nil {
		return "https://api." + strings.ToLower(m[1])
	}
	return strings.TrimRight(c.URL, "/")
}

// appURL is the URL of Datadog's pages, which the Datadog Agent has as its default and
// people have in DD_URL. It takes no payloads; the API of the same site does.
var appURL = regexp.MustCompile(`(?i)^https?://app\.((?:[a-z]{2,}\d{1,2}\.)?(?:datad(?:oghq|0g)\.(?:com|eu)|ddog-gov\.com))\.?(?::443)?/*$`)

func withoutSecrets(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

// close gives back what a destination that never ran has acquired.
func (d *datadog) close() {
	for _, e := range d.endpoints {
		e.closeSpool()
	}
}

func (d *datadog) name() string { return d.label }

func (d *datadog) books() []*books {
	all := make([]*books, len(d.endpoints))
	for i, e := range d.endpoints {
		all[i] = e.account
	}
	return all
}

func (d *datadog) run(ctx context.Context, batches <-chan *metric.Batch) {
	validating, endValidating := context.WithCancel(ctx)
	var running, asking sync.WaitGroup
	for i, e := range d.endpoints {
		running.Go(func() { e.run(ctx) })
		asking.Go(func() { d.validate(validating, d.intakes[i], e.label) })
	}
	for b := range batches {
		if ctx.Err() == nil {
			d.packer.pack(b, d.add, d.drop)
		}
	}
	for _, e := range d.endpoints {
		e.finish()
	}
	running.Wait()
	endValidating()
	asking.Wait()
	for i, e := range d.endpoints {
		d.intakes[i].client.CloseIdleConnections()
		e.account.abandon()
	}
}

func (d *datadog) add(p payload) {
	for _, e := range d.endpoints {
		e.add(p)
	}
}

func (d *datadog) drop(points uint64, why DropReason) {
	for _, e := range d.endpoints {
		e.account.dropped(points, why)
	}
}

// validate tells the log of an invalid key, at the start and every hour.
func (d *datadog) validate(ctx context.Context, in *intake, label string) {
	for {
		if in.keyIsInvalid(ctx) && ctx.Err() == nil {
			d.log.Error("the intake says that the API key is invalid: nothing can be delivered with it; check api_key, site and url", "forwarder", label)
		}
		if pause(ctx, validateEvery) != nil {
			return
		}
	}
}
