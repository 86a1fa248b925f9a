// Package report makes reports of what the metrics of analytics events amount to: by a
// schedule, as JSON, CSV, Markdown and HTML, into a folder or to a webhook.
//
// In: the values of metrics, from a Source. Out: a Document for each period of a report,
// once, also for periods that passed while the agent was down. It computes no value, and
// keeps nothing but which periods are done.
package report

import (
	"time"
)

// Source knows values.
type Source interface {
	// Rows returns the values that metrics had, or have for, a moment, of those that
	// match: with that of the window before if previous is set, and with those of the
	// last days.
	Rows(at time.Time, matches func(keyPath string) bool, previous bool) []Row
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
	Previous    *Row     `json:"previous,omitempty"`
	Daily       []Daily  `json:"daily,omitempty"`
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
