//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// entry is one server's life in the ledger: what was sent to it, and where that went.
type entry struct {
	Server      string   `json:"server"`
	Run         string   `json:"run"`
	Sent        uint64   `json:"sent_datagrams"`
	SentMetrics uint64   `json:"sent_metrics"`
	SentSum     float64  `json:"sent_counter_sum"`
	KernelDrops uint64   `json:"kernel_drops"` // at its sockets, as seen from outside
	Own         *counted `json:"own"`          // nil: it counts nothing
}

// counted is what a server says itself. What it has no counter for is negative.
type counted struct {
	Datagrams   float64 `json:"datagrams"` // that it read
	Dropped     float64 `json:"dropped"`   // of them, by a queue of its own
	KernelDrops float64 `json:"kernel_drops"`
	Metrics     float64 `json:"metrics"`
	CounterSum  float64 `json:"counter_sum"` // of what it put out
	Refused     float64 `json:"refused"`     // metrics that it read and did not count
}

// uncounted is a server that has said nothing yet.
var uncounted = counted{Datagrams: -1, KernelDrops: -1, Metrics: -1, CounterSum: -1}

// lost reports whether a datagram was.
func (e entry) lost() bool { return e.KernelDrops > 0 || e.Own != nil && e.Own.Dropped > 0 }

// faults returns what does not agree.
func (e entry) faults() (faults []string) {
	o := e.Own
	if o == nil {
		return nil
	}
	fault := func(format string, values ...any) { faults = append(faults, fmt.Sprintf(format, values...)) }
	if o.Datagrams >= 0 && o.Datagrams+float64(e.KernelDrops) != float64(e.Sent) {
		fault("%.0f datagrams received and %d dropped by the kernel, %d sent", o.Datagrams, e.KernelDrops, e.Sent)
	}
	if o.KernelDrops >= 0 && o.KernelDrops != float64(e.KernelDrops) {
		fault("it counts %.0f datagrams dropped by the kernel, which were %d", o.KernelDrops, e.KernelDrops)
	}
	if o.Refused > 0 {
		fault("%.0f metrics refused", o.Refused)
	}
	if e.lost() {
		return faults // what was in them is not known
	}
	if o.Metrics >= 0 && o.Metrics != float64(e.SentMetrics) {
		fault("%.0f metrics counted, %d sent", o.Metrics, e.SentMetrics)
	}
	if o.CounterSum >= 0 && math.Abs(o.CounterSum-e.SentSum) > 1e-9*e.SentSum {
		fault("counters add up to %.3f, %.3f sent", o.CounterSum, e.SentSum)
	}
	return faults
}

// audit ends a server and enters what became of all that was sent to it.
func (b *bench) audit(i *instance, run string) error {
	e := entry{Server: i.name, Run: run, Sent: i.sent.Datagrams, SentMetrics: i.sent.Metrics, SentSum: i.sent.CounterSum}
	_, e.KernelDrops = i.sockets.state()
	c := uncounted
	var err error
	if i.count != nil && !i.countsAtItsEnd {
		// What it has read may still be in its queues, or not yet be in its report.
		for begin := time.Now(); time.Since(begin) < 5*time.Second; time.Sleep(100 * time.Millisecond) {
			c = uncounted
			if err = i.count(i, &c); err == nil {
				if e.Own = &c; len(e.faults()) == 0 {
					break
				}
			}
		}
	}
	i.stop()
	if i.count != nil && i.countsAtItsEnd {
		err = i.count(i, &c)
	}
	if err != nil {
		return fmt.Errorf("what it counted: %w", err)
	}
	if i.count != nil {
		e.Own = &c
	}
	for _, fault := range e.faults() {
		b.say("%s's ledger does not close (%s): %s", i.name, run, fault)
	}
	b.ledger = append(b.ledger, e)
	return nil
}

// account is Weir's final one.
type account struct {
	Message       string `json:"msg"`
	Datagrams     uint64 `json:"datagrams"`
	KernelDrops   uint64 `json:"kernel_drops"`
	Rejected      uint64 `json:"rejected"`
	Samples       uint64 `json:"samples"`
	Refused       uint64 `json:"refused"`
	PointsDropped uint64 `json:"dropped"`
}

// countOfWeir reads its final account and, where they were kept, its points.
func countOfWeir(i *instance, c *counted) error {
	a, err := finalAccount(filepath.Join(i.folder, "log"))
	if err != nil {
		return err
	}
	c.Datagrams, c.KernelDrops, c.Metrics = float64(a.Datagrams), float64(a.KernelDrops), float64(a.Samples)
	c.Refused = float64(a.Refused + a.Rejected + a.PointsDropped)
	if points := filepath.Join(i.folder, "points.json"); isFile(points) {
		c.CounterSum, err = sumOfCounters(points, "load.")
	}
	return err
}

func finalAccount(log string) (account, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return account{}, err
	}
	for line := range strings.Lines(string(text)) {
		var a account
		if json.Unmarshal([]byte(line), &a) == nil && a.Message == "the final account" {
			return a, nil
		}
	}
	return account{}, errors.New("weir ended without a final account")
}

// point is a line of the logs forwarder.
type point struct {
	Metric   string  `json:"metric"`
	Type     string  `json:"type"`
	Value    float64 `json:"value"`
	Interval float64 `json:"interval"`
}

// eachLine decodes a file with an object in each line.
func eachLine[T any](file string, take func(T)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var line T
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		take(line)
	}
	return lines.Err()
}

// sumOfCounters adds up the counters of a file of points.
func sumOfCounters(file, prefix string) (sum float64, err error) {
	err = eachLine(file, func(p point) {
		if strings.HasPrefix(p.Metric, prefix+"requests.") && p.Type == "rate" {
			sum += p.Value * p.Interval
		}
	})
	return sum, err
}

// flushOfWeir returns how long its flushes took at most, in seconds, by its own metric.
func flushOfWeir(i *instance) (longest float64) {
	_ = eachLine(filepath.Join(i.folder, "weir.json"), func(p point) {
		if p.Metric == "weir.flush.seconds" {
			longest = max(longest, p.Value)
		}
	})
	return longest
}

// countOfFloor reads what the bare loop says at its end.
func countOfFloor(i *instance, c *counted) error {
	text, err := os.ReadFile(filepath.Join(i.folder, "log"))
	if err != nil {
		return err
	}
	c.Datagrams, err = strconv.ParseFloat(word(string(text), `^datagrams (\d+) bytes`), 64)
	return err
}

// etsyFlush is a line that peers/etsy/discard.js writes at each flush.
type etsyFlush struct {
	Packets float64 `json:"packets"`
	Metrics float64 `json:"metrics"`
	Bad     float64 `json:"bad"`
	Millis  float64 `json:"ms"`
}

func countOfEtsy(i *instance, c *counted) error {
	c.Datagrams, c.Metrics = 0, 0
	return eachLine(filepath.Join(i.folder, "flushes.json"), func(f etsyFlush) {
		c.Datagrams += f.Packets
		c.Metrics += f.Metrics
		c.Refused += f.Bad
	})
}

func flushOfEtsy(i *instance) (longest float64) {
	_ = eachLine(filepath.Join(i.folder, "flushes.json"), func(f etsyFlush) { longest = max(longest, f.Millis/1000) })
	return longest
}

// countOfExporter reads statsd_exporter's own counters. It parses what its queue took.
func countOfExporter(i *instance, c *counted) error {
	answer, err := i.get()
	if err != nil {
		return err
	}
	defer answer.Close()
	text, err := io.ReadAll(answer)
	if err != nil {
		return err
	}
	for name, to := range map[string]*float64{"udp_packets": &c.Datagrams, "udp_packet_drops": &c.Dropped, "lines": &c.Metrics} {
		if *to, err = strconv.ParseFloat(word(string(text), `^statsd_exporter_`+name+`_total (\S+)`), 64); err != nil {
			return err
		}
	}
	return nil
}

// flushOfExporter returns how long a scrape takes, which is its flush, and what it holds
// then.
func flushOfExporter(i *instance) float64 { return time.Duration(i.longestScrape.Load()).Seconds() }

// telegrafInternal is a line of what telegraf says about its input.
type telegrafInternal struct {
	Name   string `json:"name"`
	Fields struct {
		Received float64 `json:"udp_packets_received"`
		Dropped  float64 `json:"udp_packets_dropped"`
	} `json:"fields"`
}

// countOfTelegraf reads its metrics about itself, which it writes every second. It counts
// no lines.
func countOfTelegraf(i *instance, c *counted) error {
	file := filepath.Join(i.folder, "internal.json")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text[:bytes.LastIndexByte(text, '\n')+1]) { // the last one may not be whole
		var t telegrafInternal
		if err := json.Unmarshal(line, &t); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		if t.Name == "internal_statsd" {
			c.Datagrams, c.Dropped = t.Fields.Received, t.Fields.Dropped
		}
	}
	return nil
}

// lostByExporter returns the datagrams that its queue has dropped.
func lostByExporter(i *instance) uint64 {
	c := uncounted
	if countOfExporter(i, &c) != nil {
		return 0
	}
	return uint64(c.Dropped)
}

// lostByTelegraf returns the datagrams that its queue has dropped: the first drop is in
// its log at once, how many there were a second later.
func lostByTelegraf(i *instance) uint64 {
	c := uncounted
	_ = countOfTelegraf(i, &c)
	text, _ := os.ReadFile(filepath.Join(i.folder, "log"))
	found := regexp.MustCompile(`We have dropped (\d+) messages`).FindAllSubmatch(text, -1)
	if len(found) == 0 {
		return uint64(c.Dropped)
	}
	n, _ := strconv.ParseUint(string(found[len(found)-1][1]), 10, 64)
	return max(n, uint64(c.Dropped))
}
