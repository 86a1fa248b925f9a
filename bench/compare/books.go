//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
)

// book is what Weir said at the end of a run, beside what was sent to it.
type book struct {
	Run        string  `json:"run"`
	Datagrams  uint64  `json:"datagrams"`
	Dropped    uint64  `json:"kernel_drops"`
	Samples    uint64  `json:"samples"`
	Sent       uint64  `json:"sent_datagrams"`
	SentLines  uint64  `json:"sent_metrics"`
	CounterSum float64 `json:"counter_sum"` // of the points; NaN if they were not kept
	SentSum    float64 `json:"sent_counter_sum"`
}

// faults returns what does not agree.
func (b book) faults() (faults []string) {
	if b.Datagrams+b.Dropped != b.Sent {
		faults = append(faults, fmt.Sprintf("%d datagrams received and %d dropped, %d sent", b.Datagrams, b.Dropped, b.Sent))
	}
	if b.Dropped == 0 && b.Samples != b.SentLines {
		faults = append(faults, fmt.Sprintf("%d samples, %d sent", b.Samples, b.SentLines))
	}
	if b.Dropped == 0 && math.Abs(b.CounterSum-b.SentSum) > 1e-9*b.SentSum {
		faults = append(faults, fmt.Sprintf("counters add up to %.3f, %.3f sent", b.CounterSum, b.SentSum))
	}
	return faults
}

// audit ends Weir and compares its books with what was sent; of others there is nothing
// to compare.
func (b *bench) audit(i *instance, what string) error {
	if i.name != "weir" {
		return nil
	}
	i.stop()
	account, err := finalAccount(filepath.Join(i.folder, "log"))
	if err != nil {
		return err
	}
	entry := book{
		Run: what, Datagrams: account.Datagrams, Dropped: account.KernelDrops, Samples: account.Samples,
		Sent: i.sent.Datagrams, SentLines: i.sent.Metrics, SentSum: i.sent.CounterSum, CounterSum: i.sent.CounterSum,
	}
	if points := filepath.Join(i.folder, "points.json"); isFile(points) {
		if entry.CounterSum, err = sumOfCounters(points, "load."); err != nil {
			return err
		}
	}
	if account.Refused+account.Rejected+account.PointsDropped > 0 {
		return fmt.Errorf("weir refused %d samples, rejected %d lines and dropped %d points", account.Refused, account.Rejected, account.PointsDropped)
	}
	for _, fault := range entry.faults() {
		b.say("weir's books do not close (%s): %s", what, fault)
	}
	b.books = append(b.books, entry)
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

// eachPoint reads a file of points.
func eachPoint(file string, take func(point)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); ; {
		if !lines.Scan() {
			return lines.Err()
		}
		var p point
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
		take(p)
	}
}

// sumOfCounters adds up the counters of a file of points.
func sumOfCounters(file, prefix string) (sum float64, err error) {
	err = eachPoint(file, func(p point) {
		if strings.HasPrefix(p.Metric, prefix+"requests.") && p.Type == "rate" {
			sum += p.Value * p.Interval
		}
	})
	return sum, err
}

// longestFlush returns how long Weir says its flushes took at most; 0 for others.
func longestFlush(i *instance) (longest float64) {
	_ = eachPoint(filepath.Join(i.folder, "weir.json"), func(p point) {
		if p.Metric == "weir.flush.seconds" {
			longest = max(longest, p.Value)
		}
	})
	return longest
}
