// Package report makes reports of what the metrics of analytics events amount to: by a
// schedule, as JSON, CSV, Markdown and HTML, into a folder or to a webhook.
//
// In: the values of metrics, from a Source. Out: a Document for each period of a report,
// once, also for periods that passed while the agent was down. It computes no value, and
// keeps nothing but which periods are done.
package report

import (
	"context"
	"fmt"
	"time"
)

// Source knows values.
type Source interface {
	// Rows returns the values that metrics had, or have for, a moment, and those of the
	// last days. That it cannot know them now is an error.
	Rows(ctx context.Context, q Query) ([]Row, Hosts, error)
}

// Query is what a report asks a Source.
type Query struct {
	At       time.Time
	Matches  func(keyPath string) bool // which metrics
	Previous bool                      // with the value of the window before
	Host     bool                      // of this host, though hosts may share counts
}

// Fleet is what hosts that share counts know of each other's reports.
type Fleet interface {
	// Done returns which period of a report some host was done with last, the zero time
	// if none was, and whether it is this host that makes reports now.
	Done(ctx context.Context, report string) (period time.Time, mine bool, err error)
	// SetDone lets all hosts know that a period is done.
	SetDone(ctx context.Context, report string, period time.Time) error
}

// Hosts is how many hosts' counts a report is made of.
type Hosts struct {
	Seen     int `json:"seen"`     // in the last minutes
	Expected int `json:"expected"` // as many as were seen in the last day
}

// Row is a metric's value over one time frame. Of days the first and the last count.
type Row struct {
	KeyPath     string   `json:"-"`
	Name        string   `json:"-"` // of the gauge
	Frame       string   `json:"-"`
	Description string   `json:"description,omitempty"`
	Window      string   `json:"window"`
	Timezone    string   `json:"timezone"`
	First       string   `json:"first,omitempty"` // "": since ever
	Last        string   `json:"last"`
	Value       *float64 `json:"value"` // nil: there is none, and Status says why
	Status      string   `json:"status"`
	Error       float64  `json:"relative_error"` // standard error of an estimate, 0 of a total
	Days        int      `json:"days,omitempty"`
	Observed    int      `json:"days_observed"`
	Final       bool     `json:"final"`    // late events can change it no more
	Sampled     bool     `json:"sampled"`  // somebody is missing
	Revision    uint32   `json:"revision"` // how often a day of it changed after it was over
	Scope       string   `json:"scope"`    // whose events

	// Versions is those of the events' definitions.
	Versions map[string]string `json:"schema_versions,omitempty"`
	Previous *Row              `json:"previous,omitempty"`
	Daily    []Daily           `json:"daily,omitempty"`
}

// String says whose counts they are.
func (h Hosts) String() string {
	if h.Seen < h.Expected {
		return fmt.Sprintf("%d of %d hosts, so numbers may be too low", h.Seen, h.Expected)
	}
	if h.Seen == 1 {
		return "this host"
	}
	return fmt.Sprintf("all %d hosts", h.Seen)
}

// Daily is the value of one day.
type Daily struct {
	Day   string   `json:"day"`
	Value *float64 `json:"value"`
}

// Document is one report of one period.
type Document struct {
	Report string    // name
	Period time.Time // when it was due, in the report's zone
	Made   time.Time
	Host   string
	Hosts  Hosts
	Rows   []Row
}

// change returns how much more a value is than before, and by which share; ok is false
// if there is nothing to compare.
func (r *Row) change() (by, share float64, ok bool) {
	if r.Previous == nil || r.Value == nil || r.Previous.Value == nil {
		return 0, 0, false
	}
	by = *r.Value - *r.Previous.Value
	if *r.Previous.Value != 0 {
		share = by / *r.Previous.Value
	}
	return by, share, true
}
