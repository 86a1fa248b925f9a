package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/analytics"
	"github.com/weir-agent/weir/internal/testkit"
)

// trial is some agents of one Redis, that see people over some days. There is an event
// for each size, and in each of its lines several identities, each with a metric of its
// own: since each has a hash key of its own, each is an estimate for itself.
//
// Of size people, day d sees those from size*d/(days+1) to size*(d+2)/(days+1), so that
// half of a day's are there on the next one, and all of them on one day at least. Each
// host sees its share of these and, if there are several, half of the next one's.
type trial struct {
	*testing.T
	hosts, days int
	sizes       []int
	identities  int // of a line
	element     string
	seed        uint64

	binary, folder string
	clock          *shiftedClock
	server         *testkit.Redis
	agents         []*watched
	gone           []*watched        // of runs that are over
	keys           map[string]string // what the keys of a metric in Redis begin with, by key path
	first          time.Time         // noon of the first day
	today          int
	noon           time.Duration // how fast the clock is on the first day
}

// watched is an agent, and what its standard output says of it.
type watched struct {
	*process
	state, socket string
	lines         int // were sent to it

	seen   sync.Mutex // guards the fields below
	rest   []byte
	counts map[string]float64 // weir.analytics.…, since it was started
	whole  map[string]float64 // the same as of the last whole flush
	gauges map[string]gauge   // of the fleet
}

type gauge struct {
	at    string
	value float64
}

// newTrial starts the agents.
func newTrial(t *testing.T, binary string, r trial) *trial {
	t.Helper()
	r.T, r.binary, r.folder, r.server = t, binary, t.TempDir(), testkit.StartRedis(t)
	t.Logf("seed %d", r.seed)
	now := time.Now().UTC().Truncate(time.Second)
	r.first = now.Truncate(24 * time.Hour).Add(12 * time.Hour) // so that no day ends by itself
	r.noon = r.first.Sub(now)
	r.clock = newShiftedClock(t)
	r.clock.shift(r.noon)
	r.define()
	r.agents = make([]*watched, r.hosts)
	for i := range r.agents {
		r.agents[i] = r.start(i)
	}
	return &r
}

func peoplePath(size, identity int) string { return fmt.Sprintf("people.n%d.i%d", size, identity) }

func (r *trial) define() {
	r.Helper()
	write := func(folder, name, text string) {
		at := filepath.Join(r.folder, "definitions", folder)
		if err := os.MkdirAll(at, 0o700); err != nil {
			r.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(at, name+".yml"), []byte(text), 0o600); err != nil {
			r.Fatal(err)
		}
	}
	for _, size := range r.sizes {
		text := fmt.Sprintf("event: people.n%d\ndescription: One of so many people did something.\nmetric: {emit: false}\nraw: {sink: none}\nattributes:\n", size)
		for i := range r.identities {
			text += fmt.Sprintf("  i%d: {type: int, required: true, role: identity, identity: n%d.i%d}\n", i, size, i)
			write("metrics", peoplePath(size, i), fmt.Sprintf("key_path: %s\ndescription: How many of so many people did something.\ntime_frame: [1d, 28d]\nevents:\n  - {name: people.n%d, unique: i%d}\n", peoplePath(size, i), size, i))
		}
		write("events", fmt.Sprintf("people.n%d", size), text)
	}
}

// start starts a host's agent, which takes lines from a socket that makes senders wait.
func (r *trial) start(host int) *watched {
	r.Helper()
	w := &watched{
		state: filepath.Join(r.folder, fmt.Sprintf("host-%d", host)), socket: filepath.Join(r.folder, fmt.Sprintf("%d.sock", host)),
		counts: map[string]float64{}, gauges: map[string]gauge{},
	}
	var key [16]byte
	for i := range key {
		key[i] = byte(rand.New(rand.NewPCG(r.seed, uint64(i))).Uint64())
	}
	w.process = startWith(r.T, r.binary, func(cmd *exec.Cmd) { cmd.Stdout = writerFunc(w.read) },
		shiftVariable+"="+r.clock.path, "WEIR_STATE_DIR="+w.state, "WEIR_HOSTNAME="+filepath.Base(w.state), "WEIR_FLUSH_INTERVAL=1s",
		"WEIR_LISTEN_UNIX_DATAGRAM="+w.socket, "WEIR_ANALYTICS_DEFINITIONS="+filepath.Join(r.folder, "definitions"),
		"WEIR_ANALYTICS_SAVE_INTERVAL=1s", "WEIR_ANALYTICS_KEYS="+hex.EncodeToString(key[:]),
		"WEIR_ANALYTICS_REDIS_ADDRESSES="+r.server.Address, "WEIR_ANALYTICS_REDIS_ELEMENT="+r.element,
		"WEIR_ANALYTICS_REDIS_FLUSH_INTERVAL=200ms", "WEIR_ANALYTICS_REDIS_REFRESH_INTERVAL=400ms",
		"WEIR_ANALYTICS_REDIS_LEASE=2s")
	return w
}

// read takes in what an agent writes on standard output.
func (w *watched) read(b []byte) (int, error) {
	w.seen.Lock()
	defer w.seen.Unlock()
	w.rest = append(w.rest, b...)
	for {
		line, rest, whole := bytes.Cut(w.rest, []byte{'\n'})
		if !whole {
			w.rest = slices.Clone(line)
			return len(b), nil
		}
		w.rest = rest
		own := bytes.Contains(line, []byte(`"weir.analytics.`))
		if !own && !bytes.Contains(line, []byte(`"people.`)) {
			continue
		}
		var point struct {
			Time, Metric, Type string
			Value, Interval    float64
			Tags               []string
		}
		if err := json.Unmarshal(line, &point); err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
		tags := strings.Join(point.Tags, ",")
		switch {
		case !own && tags == "scope:fleet":
			w.gauges[point.Metric] = gauge{point.Time, point.Value}
		case own && point.Type == "rate":
			name := strings.TrimPrefix(point.Metric, "weir.analytics.")
			if at := strings.Index(tags, "outcome:"); at >= 0 {
				name += " " + tags[at:]
			}
			w.counts[name] += point.Value * point.Interval
		case point.Metric == "weir.analytics.redis.leader": // after those that are awaited
			w.counts[flushes]++
			w.whole = maps.Clone(w.counts)
		}
	}
}

func (w *watched) count(name string) float64 {
	w.seen.Lock()
	defer w.seen.Unlock()
	return w.whole[name]
}

// flushes is how often counts were told.
const flushes = "flushes"

// rounds returns how often the agent brought itself and Redis up to date.
func (w *watched) rounds() float64 { return w.count("redis.rounds") - w.count("redis.rounds.failed") }

// sum returns a count of all agents there were.
func (r *trial) sum(name string) (all float64) {
	for _, w := range slices.Concat(r.agents, r.gone) {
		all += w.count(name)
	}
	return all
}

func (r *trial) await(what string, condition func() bool) {
	r.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("day %d, never: %s", r.today, what)
		}
	}
}

// half says which part of a day's people is sent.
type half int

const (
	morning half = iota
	afternoon
	wholeDay
)

// span returns which of the day's people a host sees: from to until, where those from
// width on are the first ones again.
func (r *trial) span(size, host, day int, part half) (low, width, from, until int) {
	low = size * day / (r.days + 1)
	width = size*(day+2)/(r.days+1) - low
	from, until = width*host/r.hosts, width*(host+1)/r.hosts
	if r.hosts > 1 {
		until += width / r.hosts / 2
	}
	switch middle := (from + until) / 2; part {
	case morning:
		until = middle
	case afternoon:
		from = middle
	}
	return low, width, from, until
}

// people returns how many there are on some days, both included.
func (r *trial) people(size, first, last int) float64 {
	return float64(size*(last+2)/(r.days+1) - size*first/(r.days+1))
}

// value is what a person is called in a line. Without a key all identities have the same
// hash, so that each has people of its own.
func (r *trial) value(size, identity, person int) uint64 {
	if r.element != "raw" {
		return uint64(person)
	}
	return rand.New(rand.NewPCG(r.seed, uint64(size*100+identity))).Uint64()>>12 + uint64(person)
}

// send lets all agents see a part of the day's people, and returns when all are counted.
func (r *trial) send(part half) {
	r.Helper()
	var all sync.WaitGroup
	for host, w := range r.agents {
		all.Go(func() {
			if err := r.sendTo(w, host, part); err != nil {
				r.Errorf("day %d, host %d: %v", r.today, host, err)
			}
		})
	}
	all.Wait()
	if r.Failed() {
		r.FailNow()
	}
	for host, w := range r.agents {
		r.await(fmt.Sprintf("all of the %d lines for host %d are counted", w.lines, host), func() bool {
			return int(w.count("events outcome:ok")) >= w.lines
		})
	}
}

func (r *trial) sendTo(w *watched, host int, part half) error {
	conn, err := net.Dial("unixgram", w.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	const mostBytes = 8 << 10
	var packet, line []byte
	for _, size := range r.sizes {
		name := fmt.Sprintf("analytics.people.n%d:1|c|#", size)
		bases := make([]uint64, r.identities)
		for i := range bases {
			bases[i] = r.value(size, i, 0)
		}
		low, width, from, until := r.span(size, host, r.today, part)
		for k := from; k < until; k++ {
			line = append(line[:0], name...)
			for i, base := range bases {
				line = append(append(line, 'i'), strconv.Itoa(i)...)
				line = strconv.AppendUint(append(line, ':'), base+uint64(low+k%width), 10)
				line = append(line, ',')
			}
			line[len(line)-1] = '\n'
			if len(packet)+len(line) > mostBytes {
				if _, err := conn.Write(packet); err != nil {
					return err
				}
				packet = packet[:0]
			}
			packet = append(packet, line...)
			w.lines++
		}
	}
	_, err = conn.Write(packet)
	return err
}

// share waits until all that the agents have counted is in Redis.
func (r *trial) share() {
	r.Helper()
	before := make([]float64, len(r.agents))
	for i, w := range r.agents {
		before[i] = w.count(flushes)
	}
	for i, w := range r.agents {
		r.await(fmt.Sprintf("host %d says how far it is", i), func() bool { return w.count(flushes) > before[i] })
		before[i] = w.rounds()
	}
	for i, w := range r.agents {
		// The flush may have begun a little before, then one round ended and another was
		// under way.
		r.await(fmt.Sprintf("host %d has shared what it counted", i), func() bool { return w.rounds() >= before[i]+3 })
	}
}

// save waits until all that the agents have counted is on their disks.
func (r *trial) save() {
	r.Helper()
	before := make([]float64, len(r.agents))
	for i, w := range r.agents {
		before[i] = w.count("saves")
	}
	for i, w := range r.agents {
		// The first save that ends may have begun before all was counted.
		r.await(fmt.Sprintf("host %d has saved what it counted", i), func() bool { return w.count("saves") >= before[i]+2 })
	}
}

// end ends all agents, by SIGTERM or SIGKILL.
func (r *trial) end(signal syscall.Signal) {
	r.Helper()
	for _, w := range r.agents {
		if err := w.cmd.Process.Signal(signal); err != nil {
			r.Fatal(err)
		}
	}
	for i, w := range r.agents {
		if code := w.wait(r.T); signal == syscall.SIGTERM && code != 0 {
			r.Errorf("host %d: exit code %d\n%s", i, code, w.log())
		}
	}
	r.gone = append(r.gone, r.agents...)
}

func (r *trial) startAgain() {
	r.Helper()
	for i := range r.agents {
		r.agents[i] = r.start(i)
	}
}

// night moves the clocks to the next day's noon.
func (r *trial) night() {
	r.today++
	r.clock.shift(r.noon + time.Duration(r.today)*24*time.Hour)
}

func (r *trial) date(day int) time.Time { return r.first.AddDate(0, 0, day) }

// key returns the key of a day in Redis.
func (r *trial) key(keyPath string, day int) string {
	return r.prefix(keyPath) + r.date(day).Format("20060102")
}

func (r *trial) prefix(keyPath string) string {
	r.Helper()
	if len(r.keys) == 0 {
		r.await("a report says which keys there are", func() bool {
			for _, w := range r.agents {
				report, err := analytics.ReadReport(filepath.Join(w.state, "analytics"))
				if err != nil {
					continue
				}
				for _, v := range report.Values {
					if v.Scope == "fleet" && len(v.Keys) == 1 {
						if r.keys == nil {
							r.keys = map[string]string{}
						}
						r.keys[v.KeyPath] = v.Keys[0]
					}
				}
			}
			return len(r.keys) > 0
		})
	}
	prefix := r.keys[keyPath]
	if prefix == "" {
		r.Fatalf("no report has the keys of %s", keyPath)
	}
	return prefix
}

// each calls with every metric there is.
func (r *trial) each(visit func(size int, keyPath string)) {
	for _, size := range r.sizes {
		for i := range r.identities {
			visit(size, peoplePath(size, i))
		}
	}
}
