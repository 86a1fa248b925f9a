//go:build linux

// Command load sends StatsD traffic to a server and says exactly what it sent. It
// knows nothing of the server, so it tests any.
//
//	go run ./bench/load -to 127.0.0.1:8125 -rate 20000 -duration 10s -packet 0
//	go run ./bench/load -to /run/weir/dogstatsd.sock -network unixgram -kinds mix
//	go run ./bench/load -to 127.0.0.1:8125 -contexts 1000000 -passes 1 -json
//
// In: flags. Out: what was sent, as text or, with -json, as an object in a line.
//
// What is sent is built before the first byte goes out: as many metrics as -pool says,
// at least one of each context, in random order (the same for the same -seed). From
// then on sending is all that costs: sendmmsg of up to 64 datagrams, or one writev of
// them for TCP, from a single thread. When it comes to the end, it begins anew.
//
// A server with several sockets at its port (SO_REUSEPORT) sees a socket of ours always
// at the same one of them; -from lets another run come to the same one.
//
// A rate (-rate in datagrams, -metrics in metrics, a second) is held by looking every
// -tick what is due: that much goes out at once. With neither it goes flat out. If the
// sender itself does not get to run, it makes up for 5 ms; what is beyond is left out,
// as a burst of it would test something else, and "behind" says how long that was. So
// "seconds" and the rates are those that came of it. On UDP nobody tells a sender what
// was lost: compare the report with the server's books. A Unix datagram socket and TCP
// make the sender wait.
//
// -packet 0 puts one metric in each datagram, any other number as many as fit in so
// many bytes: 1432 is what clients use on Ethernet, 8192 on Unix sockets. TCP takes
// the same packets as parts of its stream, each with a newline at its end.
//
// A context is a name with its tags. There are ten to a thousand contexts for each
// name; -tags 3 writes the rest as three tags of the usual length in DogStatsD's form,
// more add further ones, and -tags 0 puts all of it into the name, for servers without
// tags. Every name has one kind, in shares of -kinds: "counters", "mix" (60 % counters,
// 20 % gauges, 15 % timers, histograms and distributions, 5 % sets), "mix-statsd" (the
// same with all of the 15 % timers, for servers that know no other), or shares such as
// c=8,g=1,ms=1. Counters, timers, histograms and distributions get -sample-rate.
//
// With -wait it prints "ready" when all is built and begins when it reads a line, or
// ends if there is none.
//
// The report: datagrams (of TCP: packets), metrics, bytes of payload, metrics of each
// kind, counter_sum (of the values of counters, divided by their sample rate), seconds,
// rates, behind (seconds), refused (datagrams the server's socket refused: nobody
// listens, and the exit code is 1) and cpu_seconds of the sender.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what -help says before the flags.
const usage = `load sends StatsD traffic to a server, and says exactly what it sent.

  one metric a datagram:        load -to 127.0.0.1:8125 -packet 0 -rate 20000
  packed, as fast as it can:    load -to 127.0.0.1:8125
  what a busy host sends:       load -to 127.0.0.1:8125 -kinds mix -contexts 10000 -metrics 100000
  each of a million contexts:   load -to 127.0.0.1:8125 -contexts 1000000 -passes 1 -rate 5000
  a Unix socket, large packets: load -to /run/weir/dogstatsd.sock -network unixgram -packet 8192
  servers without tags:         load -to 127.0.0.1:8125 -tags 0 -kinds mix-statsd

On UDP the sender does not see what is lost: compare what it says with the server's books.

`

// options is what flags say, besides traffic and pace.
type options struct {
	traffic
	pace
	to, from, network, kinds string
	sockets, passes          int
	rate, metrics            float64
	wait                     bool
}

func main() {
	var o options
	flag.StringVar(&o.to, "to", "127.0.0.1:8125", "the server's `address`, or the path of its socket")
	flag.StringVar(&o.from, "from", "", "the `address` to send from, such as 127.0.0.1:9125, with one UDP socket; empty: any")
	flag.StringVar(&o.network, "network", "udp", "`udp`, unixgram or tcp")
	flag.IntVar(&o.sockets, "sockets", 1, "`how many` to send from, in turn")
	flag.StringVar(&o.kinds, "kinds", "counters", "`counters`, mix, mix-statsd, or shares such as c=8,g=1,ms=1")
	flag.IntVar(&o.packet, "packet", 1432, "the most `bytes` in a datagram; 0: one metric in each")
	flag.IntVar(&o.contexts, "contexts", 1000, "`how many` names with their tags")
	flag.IntVar(&o.tags, "tags", 3, "`how many` each metric has; 0: what distinguishes contexts is in the name")
	flag.Float64Var(&o.sampleRate, "sample-rate", 1, "of counters, timers, histograms and distributions")
	flag.Uint64Var(&o.seed, "seed", 1, "of what is random")
	flag.StringVar(&o.prefix, "prefix", "load", "of all names")
	flag.IntVar(&o.pool, "pool", 100_000, "`metrics` to build, at least")
	flag.Float64Var(&o.rate, "rate", 0, "`datagrams` a second; 0: flat out")
	flag.Float64Var(&o.metrics, "metrics", 0, "`metrics` a second, instead of -rate")
	flag.DurationVar(&o.duration, "duration", 10*time.Second, "how long to send")
	flag.IntVar(&o.passes, "passes", 0, "`how often` to send all that was built, instead of -duration")
	flag.DurationVar(&o.tick, "tick", 100*time.Microsecond, "how often to send what is due")
	flag.BoolVar(&o.wait, "wait", false, `print "ready", then wait for a line on standard input`)
	asJSON := flag.Bool("json", false, "report as JSON, in a line")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), usage)
		flag.PrintDefaults()
	}
	flag.Parse()

	report, err := o.run(flag.Args())
	if report.Seconds > 0 {
		if *asJSON {
			_ = json.NewEncoder(os.Stdout).Encode(report)
		} else {
			fmt.Print(report)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// run builds what to send and sends it.
func (o *options) run(args []string) (r report, err error) {
	if len(args) > 0 {
		return r, fmt.Errorf("%q is not a flag: see -help", args[0])
	}
	for name, value := range map[string]float64{
		"rate": o.rate, "metrics": o.metrics, "passes": float64(o.passes), "duration": float64(o.duration), "tick": float64(o.tick),
	} {
		if !(value >= 0) {
			return r, fmt.Errorf("-%s: it cannot be below 0", name)
		}
	}
	if o.rate > 0 && o.metrics > 0 {
		return r, errors.New("-rate and -metrics both: take one of them")
	}
	if o.traffic.kinds, err = parseKinds(o.kinds); err != nil {
		return r, err
	}
	o.newline = o.network == "tcp"
	load, err := o.build()
	if err != nil {
		return r, err
	}
	if o.pace.rate = o.rate; o.metrics > 0 {
		o.pace.rate = o.metrics * float64(len(load.datagrams)) / float64(load.metrics())
	}
	o.datagrams = o.passes * len(load.datagrams)
	s, err := dial(o.network, o.to, o.from, o.sockets)
	if err != nil {
		return r, err
	}
	defer s.close()
	if o.wait {
		fmt.Println("ready")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); errors.Is(err, io.EOF) {
			return r, errors.New("told to end before it began")
		}
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, unix.SIGTERM)
	return s.send(load, o.pace, interrupted)
}
