package fleet

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

// Lease says whether this host speaks for all of them. There is one that does, and at
// times none: a host that takes over waits for as long as a lease lasts before it
// speaks, so that one that does not know yet that it lost the lease has fallen silent.
type Lease struct {
	client   *Client
	instance string

	holder string    // what the key holds while this host has the lease; "": it has not
	since  time.Time // when it was taken
	until  time.Time // by this host's clock, from before it was asked for
}

// NewLease returns a lease that nobody has yet.
func (c *Client) NewLease(instance string) *Lease { return &Lease{client: c, instance: instance} }

func (c *Client) fleetKey(name string) string { return c.cfg.KeyPrefix + "{fleet}:" + name }

// renew extends a lease if it is still this host's, in one step.
const renew = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0`

// release gives it back.
const release = `if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0`

// Renew takes the lease if nobody has it, or keeps it, as of now. It reports whether
// this took it. A lease that cannot be renewed is lost when its time is over.
func (l *Lease) Renew(ctx context.Context, now time.Time) (taken bool, err error) {
	c := l.client
	key, lasts := c.fleetKey("lease"), c.cfg.Lease
	ctx, cancel := context.WithTimeout(ctx, 2*c.cfg.Timeout)
	defer cancel()
	if l.holder != "" {
		kept, err := c.redis.Eval(ctx, renew, []string{key}, l.holder, lasts.Milliseconds()).Int()
		if err != nil {
			return false, c.explain(err)
		}
		if kept == 1 {
			l.until = now.Add(lasts)
			return false, nil
		}
		l.holder = ""
	}
	there, err := c.redis.Exists(ctx, key).Result()
	if err != nil || there > 0 {
		return false, c.explain(err)
	}
	// Each term has a number of its own: a lease that came back to this host is another.
	term, err := c.redis.Incr(ctx, c.fleetKey("term")).Result()
	if err != nil {
		return false, c.explain(err)
	}
	holder := l.instance + " " + strconv.FormatInt(term, 10)
	if taken, err = c.redis.SetNX(ctx, key, holder, lasts).Result(); err != nil || !taken {
		return false, c.explain(err)
	}
	l.holder, l.since, l.until = holder, now, now.Add(lasts)
	return true, nil
}

// Holds reports whether this host has the lease.
func (l *Lease) Holds(now time.Time) bool { return l.holder != "" && Lasts(now, l.until) }

// Lasts reports whether it is before a moment both by the clock that does not jump and
// by the one that goes on while a machine sleeps.
func Lasts(now, until time.Time) bool {
	return now.Before(until) && now.Round(0).Before(until.Round(0))
}

// Speaks returns from when until when this host may speak for all; ok is false if it
// may not.
func (l *Lease) Speaks() (from, until time.Time, ok bool) {
	return l.since.Add(l.client.cfg.Lease), l.until, l.holder != ""
}

// Release lets another host take over at once.
func (l *Lease) Release(ctx context.Context) error {
	if l.holder == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, l.client.cfg.Timeout)
	defer cancel()
	err := l.client.redis.Eval(ctx, release, []string{l.client.fleetKey("lease")}, l.holder).Err()
	l.holder = ""
	return l.client.explain(err)
}

// Pulse is what a host learns when it says that it is there.
type Pulse struct {
	Epoch string // of the data: another one says that all of it may be gone
	Hosts int    // that were there in the last minutes
	Known int    // that were there in the last day
	Keys  int    // that they hash identities with
}

const (
	hostSeen    = 10 * time.Minute
	epochBytes  = 8
	hostForgets = 24 * time.Hour
)

func randomEpoch() string {
	var random [epochBytes]byte
	_, _ = rand.Read(random[:]) // never fails: crypto/rand crashes the program instead
	return hex.EncodeToString(random[:])
}

// NewEpoch tells all hosts that some data are gone.
func (c *Client) NewEpoch(ctx context.Context) error {
	return c.run(ctx, func(p redis.Pipeliner) { p.Set(ctx, c.fleetKey("epoch"), randomEpoch(), 0) })
}

// Beat says that this host is there, and which key it hashes identities with.
func (c *Client) Beat(ctx context.Context, instance, hashKey string, now time.Time) (Pulse, error) {
	score := func(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }
	var epoch *redis.StringCmd
	var known *redis.IntCmd
	seen := map[string]*redis.IntCmd{"hosts": nil, "keys": nil}
	err := c.run(ctx, func(p redis.Pipeliner) {
		p.SetNX(ctx, c.fleetKey("epoch"), randomEpoch(), 0)
		epoch = p.GetRange(ctx, c.fleetKey("epoch"), 0, 100)
		for name := range seen {
			key, member := c.fleetKey(name), instance
			if name == "keys" {
				member = hashKey
			}
			p.ZAdd(ctx, key, redis.Z{Score: float64(now.Unix()), Member: member})
			p.ZRemRangeByScore(ctx, key, "-inf", score(now.Add(-hostForgets)))
			seen[name] = p.ZCount(ctx, key, score(now.Add(-hostSeen)), "+inf")
		}
		known = p.ZCard(ctx, c.fleetKey("hosts"))
	})
	if err != nil {
		return Pulse{}, err
	}
	return Pulse{Epoch: epoch.Val(), Hosts: int(seen["hosts"].Val()), Known: int(known.Val()), Keys: int(seen["keys"].Val())}, nil
}
