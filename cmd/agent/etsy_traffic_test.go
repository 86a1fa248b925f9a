package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// traffic makes random packets that both read alike.
type traffic struct {
	*rand.Rand
	lines, metrics, bad int
	added               map[string]float64 // by series: the absolute values that were added up
}

func newTraffic(seed uint64) *traffic {
	return &traffic{Rand: rand.New(rand.NewPCG(seed, 8125)), added: map[string]float64{}}
}

func pick[T any](r *traffic, some ...T) T { return some[r.IntN(len(some))] }

// packets returns packets of n lines in all.
func (r *traffic) packets(n int) []string {
	var packets []string
	for n > 0 {
		lines := make([]string, min(n, 1+r.IntN(20)))
		for i := range lines {
			lines[i] = r.line()
		}
		n -= len(lines)
		packets = append(packets, strings.Join(lines, pick(r, "\n", "\n", "\n\n"))+pick(r, "", "\n"))
	}
	return packets
}

// line returns a line: mostly one metric, sometimes several, and sometimes one that
// both reject.
func (r *traffic) line() string {
	r.lines++
	if r.IntN(25) == 0 {
		r.bad++
		return pick(r, "a", "a:1", "a:x|c", "a:|c", "a:|g", "a:1,5|g", "a:-1|ms", "a:1|c|@x", "a:1|ms|@-0.5", "a:1|c|@",
			"a:NaN|g", "a:1_000|c", "a:--1|g", "a:0_17|c", "a:0x|c", "a:1|#x:2|ms", "a:1 2|c", "a:1e|ms")
	}
	// A name has gauges or sets, as both are gauges to Datadog.
	i := r.IntN(12)
	if r.IntN(20) == 0 {
		i = 100 + r.IntN(100) // seldom sampled
	}
	name := fmt.Sprintf(pick(r, "name%d", "name%d", "a b%d", "pfad/größe%d", "_x.%d-y", "constructor%d"), i)
	tags := pick(r, "", "", "", "|#", "|#env:prod", "|#env:prod,team:web", "|#bare", "|#url:http://x,bare", "|#b:=,a:1")
	n := 1
	if r.IntN(4) == 0 {
		n += r.IntN(5)
	}
	key := name
	if list := strings.TrimPrefix(tags, "|#"); list != "" {
		list = strings.ReplaceAll(strings.Replace(list, ":", "=", 1), ",", ";")
		key += ";" + list
	}
	items := make([]string, n)
	for j := range items {
		items[j] = r.metric(key, i%2 == 0)
	}
	if r.IntN(20) == 0 {
		items[n-1] += pick(r, "|@1|x", "|@1|@0.1", "|@1||x")
	}
	r.metrics += n
	return name + ":" + strings.Join(items, ":") + tags
}

// metric returns "value|kind" with a rate or without.
func (r *traffic) metric(key string, gauges bool) string {
	kind := pick(r, "c", "c", "c", "m", "ms", "ms", "ms", "g", "g", "g")
	if kind == "g" && !gauges {
		kind = "s"
	}
	rate, weight := "", 1.0
	switch r.IntN(8) {
	case 0, 1:
		weight = pick(r, 0.1, 0.25, 0.5, 1, 0.3, 0.001)
		rate = fmt.Sprint("|@", weight)
	case 2:
		weight = 0.5
		rate = pick(r, "|@.5", "|@0.5 ", "|@0.50|@0.1", "|@0.5|", "|@00.5")
	}
	blank := func(kind string) string { return pick(r, kind, kind, kind, " "+kind, kind+" ", "\t"+kind+"\v") }
	if kind == "s" {
		if r.IntN(10) == 0 { // with a blank, Etsy's statsd takes only numbers
			return pick(r, "1", "1.0", "-2", "0x10") + "|" + blank("s") + rate
		}
		member := pick(r, "", "0", " ", "x", "X", "é", "1", "1.0", "a b", "@0.1", "#x", "+1", "toString")
		if r.IntN(2) == 0 {
			member = fmt.Sprint("user", r.IntN(300))
		}
		return member + "|s" + rate
	}
	value, text := r.number()
	switch kind {
	case "c", "m":
		r.added["rate "+weirKey(key, "")] += math.Abs(value) / weight
	case "g":
		r.added["gauge "+weirKey(key, "")] += math.Abs(value)
		if r.IntN(3) == 0 && text[0] != '-' && text[0] != '+' && text[0] != '0' {
			text = "+" + text
		}
	case "ms":
		text = strings.TrimPrefix(text, "-")
	}
	return pick(r, "", "", "", "", " ", "\t") + text + pick(r, "", "", "", " ") + "|" + blank(kind) + rate
}

// number returns a number and how it is written.
func (r *traffic) number() (value float64, text string) {
	text = pick(r,
		func() string { return fmt.Sprint(r.IntN(1000)) },
		func() string { return fmt.Sprint(r.IntN(1000)) },
		func() string { return fmt.Sprintf("-%d", r.IntN(1000)) },
		func() string { return fmt.Sprintf("%.3f", r.Float64()*1000) },
		func() string { return fmt.Sprintf("-%.1f", r.Float64()*100) },
		func() string { return fmt.Sprint(r.Float64()) }, // many digits
		func() string { return fmt.Sprintf("%.2e", r.Float64()*1000) },
		func() string { return fmt.Sprintf("-%.12E", r.Float64()*1000) },
		func() string { return pick(r, "0", "-0", "007", "5.", ".5", "-.5", "+3", "1e-7", "2E+2", "1e6", "0.1") },
		func() string { return pick(r, "0x1F", "0XfF", "0b101", "0o17") },
	)()
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		n, err := strconv.ParseUint(text, 0, 64)
		if err != nil {
			panic("BUG: " + err.Error())
		}
		value = float64(n)
	}
	return value, text
}
