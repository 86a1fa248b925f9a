package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

func open(t *testing.T, address string, change ...func(*Config)) *Client {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Addresses = []string{address}
	for _, c := range change {
		c(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Redis counts what is sent by either way as it counts the identities themselves, and
// what it has is read back to the last register, in both of its encodings.
func TestRedisHasTheSameRegisters(t *testing.T) {
	server := testkit.StartRedis(t)
	c := open(t, server.Address)
	for _, n := range []int{1, 100, 900, 3000, 200_000} {
		want := new(Registers)
		for i := range n {
			insert(want, fmt.Appendf(nil, "user-%d", i))
		}
		if n == 200_000 && want.Estimate() != 200_598 {
			t.Errorf("the estimate of 200000 is %v, and that of Redis 200598", want.Estimate())
		}
		key := fmt.Sprintf("weir:{u:x}:%d", n)
		elements := want.Beyond(new(Registers), nil)
		ctx := t.Context()
		sent, err := c.Send(ctx, "me", []Change{{Key: key, Expire: time.Now().Add(time.Hour), Elements: elements, All: want}})
		if err != nil {
			t.Fatal(err)
		}
		if upload := n >= 3000; upload != (sent.Uploads == 1) || upload == (sent.Elements == len(elements)) {
			t.Errorf("%d: %d elements and %d uploads were sent", n, sent.Elements, sent.Uploads)
		}
		if got := server.Number("PFCOUNT", key); got != want.Estimate() {
			t.Errorf("%d: PFCOUNT %v, and the estimate %v", n, got, want.Estimate())
		}
		found, err := c.Fetch(ctx, []string{key, "weir:{u:x}:none"})
		if err != nil || found[0].Registers == nil || *found[0].Registers != *want || found[1] != (Found{}) {
			t.Errorf("%d: other registers are read back, %v", n, err)
		}
		if left := server.Number("TTL", key); left < 3000 || left > 3600 {
			t.Errorf("%d: the key expires in %v seconds", n, left)
		}
	}
	if keys := server.Keys("*from*"); len(keys) > 0 {
		t.Errorf("left behind: %v", keys)
	}
}

// What others keep under a key is neither read nor written, and the rest goes on.
func TestForeignKeys(t *testing.T) {
	server := testkit.StartRedis(t)
	server.Do("SET", "a", "text")
	server.Do("RPUSH", "b", "text")
	c := open(t, server.Address)
	few, many := new(Registers), new(Registers)
	few[1] = 1
	for i := range many {
		many[i] = 2
	}
	var changes []Change
	for _, key := range []string{"a", "b", "c"} {
		for _, r := range []*Registers{few, many} {
			changes = append(changes, Change{Key: key, Expire: time.Now().Add(time.Hour), Elements: r.Beyond(new(Registers), nil), All: r})
		}
	}
	sent, err := c.Send(t.Context(), "me", changes)
	if got := fmt.Sprint(sent.Foreign); err != nil || got != "[true true true true false false]" {
		t.Errorf("foreign %s, %v", got, err)
	}
	found, err := c.Fetch(t.Context(), []string{"a", "b", "c"})
	if err != nil || !found[0].Foreign || !found[1].Foreign || found[2].Registers == nil {
		t.Errorf("found %v, %v", found, err)
	}
	if server.Do("GET", "a") != "text" {
		t.Error("a foreign key was written")
	}
	foreign, err := c.SetTotals(t.Context(), "me", []Total{{Key: "a", Value: 1}, {Key: "t", Value: 2}})
	if err != nil || foreign != 1 || server.Do("HGET", "t", "me") != "2" {
		t.Errorf("%d foreign totals, %v", foreign, err)
	}
}

// What goes wrong is said with what to do about it, and without the password.
func TestErrorsSayWhatToDo(t *testing.T) {
	const secret, wrong = "open-sesame", "open-barley"
	plain, closed := testkit.StartRedis(t), testkit.StartRedis(t, "--requirepass", secret)
	clustered := testkit.StartRedis(t, "--cluster-enabled", "yes")
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		address string
		change  func(*Config)
		want    string // "": no error
	}{
		"no password":        {closed.Address, func(*Config) {}, "the server wants a password; set analytics.redis.password_file"},
		"wrong password":     {closed.Address, func(c *Config) { c.Password = wrong }, "the server takes another password"},
		"password":           {closed.Address, func(c *Config) { c.Password = secret }, ""},
		"password file":      {closed.Address, func(c *Config) { c.PasswordFile = file }, ""},
		"password for none":  {plain.Address, func(c *Config) { c.Password = secret }, ""},
		"nobody there":       {"127.0.0.1:1", func(*Config) {}, "no answer from 127.0.0.1:1"},
		"no such database":   {plain.Address, func(c *Config) { c.Database = 99 }, "the server has no such database"},
		"no TLS":             {plain.Address, func(c *Config) { c.TLS = true }, "analytics.redis"},
		"not said a cluster": {clustered.Address, func(*Config) {}, "cluster"},
		"said a cluster":     {plain.Address, func(c *Config) { c.Cluster = true }, "set analytics.redis.cluster: false"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := open(t, test.address, test.change)
			_, err := c.Beat(t.Context(), "me", "key", time.Now())
			text := fmt.Sprint(err)
			if (test.want == "") != (err == nil) || !strings.Contains(text, test.want) && err != nil {
				t.Errorf("the error is %q, which does not say %q", text, test.want)
			}
			if strings.Contains(text, secret) || strings.Contains(text, wrong) {
				t.Errorf("the password is in %q", text)
			}
		})
	}
}

// More hosts than are allowed make no total.
func TestTotals(t *testing.T) {
	server := testkit.StartRedis(t)
	c := open(t, server.Address, func(c *Config) { c.MaxHosts = 2 })
	for _, host := range []string{"a", "b", "b", "a"} {
		if _, err := c.SetTotals(t.Context(), host, []Total{{Key: "t", Value: 2.5, Expire: time.Now().Add(time.Hour)}}); err != nil {
			t.Fatal(err)
		}
	}
	if totals, err := c.Totals(t.Context(), []string{"t", "none"}); err != nil || totals[0] != 5 || totals[1] != 0 {
		t.Errorf("totals %v, %v", totals, err)
	}
	server.Do("HSET", "strange", "a", "nan", "b", "+inf", "c", "1e308", "d", "two", "e", "2")
	c.cfg.MaxHosts = 5
	if totals, err := c.Totals(t.Context(), []string{"strange"}); err != nil || totals[0] != 2 {
		t.Errorf("totals with what is none: %v, %v", totals, err)
	}
	c.cfg.MaxHosts = 2
	if _, err := c.SetTotals(t.Context(), "c", []Total{{Key: "t", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Totals(t.Context(), []string{"t"}); !errors.Is(err, ErrTooManyHosts) {
		t.Errorf("the totals of three hosts: %v", err)
	}
}

// A machine that slept has lost its lease, although its steady clock stood still.
func TestLeaseEndsInSleep(t *testing.T) {
	now := time.Now()
	until := now.Add(time.Minute)
	if !Lasts(now, until) || Lasts(until, until) || Lasts(now.Round(0).Add(2*time.Minute), until) {
		t.Error("a lease lasts by one clock only, or does not last")
	}
}

// One of several hosts has the lease; it is lost when it is not renewed, and whoever
// takes it over is silent for as long as the one before may still speak.
func TestLease(t *testing.T) {
	server := testkit.StartRedis(t)
	c := open(t, server.Address)
	a, b := c.NewLease("a"), c.NewLease("b")
	now, ctx := time.Now(), t.Context()
	renew := func(l *Lease, want bool) {
		t.Helper()
		taken, err := l.Renew(ctx, now)
		if err != nil || taken != want {
			t.Fatalf("taken %v, %v", taken, err)
		}
	}
	renew(a, true)
	renew(b, false)
	renew(a, false)
	if !a.Holds(now) || b.Holds(now) {
		t.Fatal("not a has the lease")
	}
	if from, until, _ := a.Speaks(); from.Sub(now) != c.cfg.Lease || until.Sub(now) != c.cfg.Lease {
		t.Errorf("a speaks from %v to %v", from.Sub(now), until.Sub(now))
	}
	if a.Holds(now.Add(c.cfg.Lease)) {
		t.Error("a lease lasts although nobody renewed it")
	}
	server.Do("FLUSHALL") // b comes first
	renew(b, true)
	renew(a, false)
	if a.Holds(now) {
		t.Error("two hosts have the lease")
	}
	if err := b.Release(ctx); err != nil {
		t.Fatal(err)
	}
	renew(a, true)
	if err := b.Release(ctx); err != nil {
		t.Fatal(err)
	}
	renew(b, false)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := a.Renew(cancelled, now); err == nil {
		t.Error("a lease that nobody answered for was renewed")
	}
}
