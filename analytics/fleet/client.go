// Package fleet shares counts between hosts through Redis: sketches, which Redis
// merges by itself, totals, of which each host has a field of its own, and a lease that
// says which host speaks for all of them.
//
// In: registers and totals, by the keys they have in Redis. Out: what all hosts
// together have there, and errors that say what to do. It knows no event and keeps no
// count, and what it writes may be written again: nothing counts twice.
package fleet

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Client speaks with Redis. Its methods are called by one goroutine at a time, and each
// of them may block for a few times Config.Timeout.
type Client struct {
	cfg   Config
	redis redis.UniversalClient
}

const (
	// maxElements is how many elements a PFADD has.
	maxElements = 500
	// uploadFrom is from how many elements on the whole sketch is sent instead: it takes
	// 12 KB whatever is in it.
	uploadFrom = 1000
	// uploadExpiry is for how long a sketch that is to be merged is there at most.
	uploadExpiry = time.Minute
	// connections is how many there are to a server at most.
	connections = 2
)

// silent is the library's log: what goes wrong is told by errors.
type silent struct{}

// Printf implements the library's interface.
func (silent) Printf(context.Context, string, ...any) {}

// Open returns a Client. It connects to nothing yet; cfg must have passed Validate.
func Open(cfg Config) (*Client, error) {
	redis.SetLogger(silent{})
	security, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	if _, _, err := cfg.credentials(); err != nil {
		return nil, err
	}
	credentials := func(context.Context) (string, string, error) { return cfg.credentials() }
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	c := &Client{cfg: cfg}
	if cfg.Cluster {
		c.redis = redis.NewClusterClient(&redis.ClusterOptions{
			Addrs: cfg.Addresses, Protocol: 2, CredentialsProviderContext: credentials, TLSConfig: security,
			MaxRetries: -1, DialTimeout: cfg.Timeout, DialerRetries: 1, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout,
			ContextTimeoutEnabled: true, ConnMaxIdleTime: 10 * time.Minute, DisableIdentity: true, MaintNotificationsConfig: quiet,
		})
		return c, nil
	}
	network, address, err := endpoint(cfg.Addresses[0])
	if err != nil {
		return nil, err
	}
	c.redis = redis.NewClient(&redis.Options{
		Network: network, Addr: address, DB: cfg.Database, Protocol: 2, CredentialsProviderContext: credentials, TLSConfig: security,
		MaxRetries: -1, DialTimeout: cfg.Timeout, DialerRetries: 1, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout,
		ContextTimeoutEnabled: true, PoolSize: connections, ConnMaxIdleTime: 10 * time.Minute,
		DisableIdentity: true, MaintNotificationsConfig: quiet,
	})
	return c, nil
}

// Close ends the connections.
func (c *Client) Close() error { return c.redis.Close() }

// remedies say what to do about what a server answers.
var remedies = []struct{ answer, remedy string }{
	{"WRONGPASS", "the server takes another password; set analytics.redis.password_file, or WEIR_ANALYTICS_REDIS_PASSWORD"},
	{"ERR invalid password", "the server takes another password; set analytics.redis.password_file, or WEIR_ANALYTICS_REDIS_PASSWORD"},
	{"NOAUTH", "the server wants a password; set analytics.redis.password_file, or WEIR_ANALYTICS_REDIS_PASSWORD"},
	{"NOPERM", "the server's ACL does not allow it; docs/ANALYTICS.md lists the commands"},
	{"OOM", "the server's memory is full; raise its maxmemory, and keep maxmemory-policy noeviction"},
	{"READONLY", "the server is a replica; set analytics.redis.addresses to the primary"},
	{"LOADING", "the server reads its data yet"},
	{"MOVED", "the server is a part of a cluster; set analytics.redis.cluster: true"},
	{"CLUSTERDOWN", "the cluster is down"},
	{"ERR This instance has cluster support disabled", "the server is no cluster; set analytics.redis.cluster: false"},
	{"ERR DB index is out of range", "the server has no such database; set another analytics.redis.database"},
	{"ERR invalid DB index", "the server has no such database; set another analytics.redis.database"},
}

// explain says what to do about an error.
func (c *Client) explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, r := range remedies {
		if strings.Contains(text, r.answer) {
			return fmt.Errorf("%w: %s", err, r.remedy)
		}
	}
	var answer redis.Error
	switch {
	case errors.As(err, &answer), strings.HasPrefix(text, "analytics.redis."):
		return err
	case strings.Contains(text, "tls: first record does not look like a TLS handshake"):
		return fmt.Errorf("%w: the server speaks no TLS at this address; set analytics.redis.tls: false, or its other port", err)
	case strings.Contains(text, "x509:"):
		return fmt.Errorf("%w: set analytics.redis.ca_file to the certificate of who signed the server's", err)
	}
	return fmt.Errorf("no answer from %s: %w: check analytics.redis.addresses, and whether the server runs", strings.Join(c.cfg.Addresses, ", "), err)
}

// isForeign reports whether an answer says that a key holds another type of value.
func isForeign(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), "WRONGTYPE") || strings.HasPrefix(err.Error(), "INVALIDOBJ") ||
		strings.HasPrefix(err.Error(), "ERR hash value is not"))
}

// run sends what prepare puts into a pipeline. Answers about single keys are left to
// the caller.
func (c *Client) run(ctx context.Context, prepare func(redis.Pipeliner)) error {
	ctx, cancel := context.WithTimeout(ctx, 2*c.cfg.Timeout)
	defer cancel()
	commands, err := c.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		prepare(p)
		return nil
	})
	if err == nil {
		return nil
	}
	if !errors.Is(err, redis.Nil) && !isForeign(err) { // of the connection, or of a command
		return c.explain(err)
	}
	for _, command := range commands {
		if err := command.Err(); err != nil && !errors.Is(err, redis.Nil) && !isForeign(err) {
			return c.explain(err)
		}
	}
	return nil
}

// Found is what a key holds.
type Found struct {
	Registers *Registers // nil: nothing
	Foreign   bool       // something else than a sketch
}

// Fetch reads sketches.
func (c *Client) Fetch(ctx context.Context, keys []string) ([]Found, error) {
	values := make([]*redis.StringCmd, len(keys))
	err := c.run(ctx, func(p redis.Pipeliner) {
		for i, key := range keys {
			values[i] = p.GetRange(ctx, key, 0, maxSketchBytes-1)
		}
	})
	if err != nil {
		return nil, err
	}
	found := make([]Found, len(keys))
	for i, value := range values {
		text, err := value.Bytes()
		switch {
		case err != nil:
			found[i].Foreign = true
		case len(text) > 0:
			if found[i].Registers, err = decode(text); err != nil {
				found[i].Foreign = true
			}
		}
	}
	return found, nil
}

// Change is what a sketch has that Redis has not.
type Change struct {
	Key      string
	Expire   time.Time
	Elements []uint64   // one for each register that is to be raised
	All      *Registers // of the whole sketch
}

// Sent says what was sent.
type Sent struct {
	Elements, Uploads int
	Foreign           []bool // by change: the key holds something else
}

// Send raises registers: few by PFADD, many by merging the whole sketch.
func (c *Client) Send(ctx context.Context, instance string, changes []Change) (sent Sent, err error) {
	sent.Foreign = make([]bool, len(changes))
	answers := make([][]redis.Cmder, len(changes))
	err = c.run(ctx, func(p redis.Pipeliner) {
		for i := range changes {
			ch := &changes[i]
			if len(ch.Elements) > uploadFrom {
				continue
			}
			for elements := ch.Elements; len(elements) > 0; {
				some := elements[:min(maxElements, len(elements))]
				elements = elements[len(some):]
				arguments := make([]any, len(some))
				for k, e := range some {
					arguments[k] = string(binary.LittleEndian.AppendUint64(nil, e))
				}
				answers[i] = append(answers[i], p.PFAdd(ctx, ch.Key, arguments...))
			}
			p.ExpireAt(ctx, ch.Key, ch.Expire)
			sent.Elements += len(ch.Elements)
		}
	})
	if err != nil {
		return sent, err
	}
	for i := range changes {
		if len(changes[i].Elements) > uploadFrom {
			if answers[i], err = c.upload(ctx, instance, &changes[i]); err != nil {
				return sent, err
			}
			sent.Uploads++
		}
		for _, answer := range answers[i] {
			sent.Foreign[i] = sent.Foreign[i] || isForeign(answer.Err())
		}
	}
	return sent, nil
}

// upload merges a whole sketch, all or nothing. The key it is put under has the same
// hash tag, so that it is on the same server of a cluster.
func (c *Client) upload(ctx context.Context, instance string, ch *Change) ([]redis.Cmder, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*c.cfg.Timeout)
	defer cancel()
	way := ch.Key + ":from:" + instance
	var merged redis.Cmder
	_, err := c.redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, way, ch.All.encode(), uploadExpiry)
		merged = p.PFMerge(ctx, ch.Key, way)
		p.Del(ctx, way)
		p.ExpireAt(ctx, ch.Key, ch.Expire)
		return nil
	})
	if err != nil && !isForeign(err) {
		return nil, c.explain(err)
	}
	return []redis.Cmder{merged}, nil
}

// Exist reports which keys there are.
func (c *Client) Exist(ctx context.Context, keys []string) ([]bool, error) {
	answers := make([]*redis.IntCmd, len(keys))
	err := c.run(ctx, func(p redis.Pipeliner) {
		for i, key := range keys {
			answers[i] = p.Exists(ctx, key)
		}
	})
	if err != nil {
		return nil, err
	}
	there := make([]bool, len(keys))
	for i, answer := range answers {
		there[i] = answer.Val() > 0
	}
	return there, nil
}

// Total is what one host counted.
type Total struct {
	Key    string
	Expire time.Time // zero: never
	Value  float64
}

// SetTotals writes this host's totals, each in a field of its own. It returns how many
// keys hold something else.
func (c *Client) SetTotals(ctx context.Context, instance string, totals []Total) (foreign int, err error) {
	answers := make([]*redis.IntCmd, len(totals))
	err = c.run(ctx, func(p redis.Pipeliner) {
		for i := range totals {
			t := &totals[i]
			answers[i] = p.HSet(ctx, t.Key, instance, strconv.FormatFloat(t.Value, 'g', -1, 64))
			if !t.Expire.IsZero() {
				p.ExpireAt(ctx, t.Key, t.Expire)
			}
		}
	})
	for _, answer := range answers {
		if isForeign(answer.Err()) {
			foreign++
		}
	}
	return foreign, err
}

// maxTotal is the largest total that counts: those of all hosts and days together are a
// number then, too.
const maxTotal = 1e290

// ErrTooManyHosts says that a total has more than Config.MaxHosts fields.
var ErrTooManyHosts = errors.New("raise analytics.redis.max_hosts")

// Totals returns what all hosts have together under each key.
func (c *Client) Totals(ctx context.Context, keys []string) ([]float64, error) {
	lengths := make([]*redis.IntCmd, len(keys))
	if err := c.run(ctx, func(p redis.Pipeliner) {
		for i, key := range keys {
			lengths[i] = p.HLen(ctx, key)
		}
	}); err != nil {
		return nil, err
	}
	for i, length := range lengths {
		if n := length.Val(); n > int64(c.cfg.MaxHosts) {
			return nil, fmt.Errorf("%s has the totals of %d hosts: %w", keys[i], n, ErrTooManyHosts)
		}
	}
	answers := make([]*redis.StringSliceCmd, len(keys))
	if err := c.run(ctx, func(p redis.Pipeliner) {
		for i, key := range keys {
			answers[i] = p.HVals(ctx, key)
		}
	}); err != nil {
		return nil, err
	}
	sums := make([]float64, len(keys))
	for i, answer := range answers {
		for _, text := range answer.Val() {
			if v, err := strconv.ParseFloat(text, 64); err == nil && math.Abs(v) <= maxTotal {
				sums[i] += v
			}
		}
	}
	return sums, nil
}

// Earliest writes a number under each key that holds none or a larger one, and returns
// what each holds then.
func (c *Client) Earliest(ctx context.Context, keys []string, numbers []int) ([]int, error) {
	answers := make([]*redis.StringCmd, len(keys))
	if err := c.run(ctx, func(p redis.Pipeliner) {
		for i, key := range keys {
			answers[i] = p.GetRange(ctx, key, 0, 20)
		}
	}); err != nil {
		return nil, err
	}
	least := make([]int, len(keys))
	err := c.run(ctx, func(p redis.Pipeliner) {
		for i, answer := range answers {
			n, err := strconv.Atoi(answer.Val())
			if least[i] = n; err != nil || numbers[i] < n {
				least[i] = numbers[i]
				p.Set(ctx, keys[i], numbers[i], 0)
			}
		}
		p.Ping(ctx) // a pipeline must have something in it
	})
	return least, err
}
