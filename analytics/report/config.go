package report

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/netresearch/go-cron"

	"github.com/weir-agent/weir/metric"
)

// Config is one report that is made by a schedule.
type Config struct {
	Name     string        `yaml:"name"`
	Schedule string        `yaml:"schedule"` // minute, hour, day, month and weekday, or @daily and the like
	Timezone string        `yaml:"timezone"` // of the schedule, a name of the IANA database; "": UTC
	Metrics  []string      `yaml:"metrics"`  // key paths, with * for anything but a dot; none: all
	Scope    string        `yaml:"scope"`    // fleet (or ""): of all hosts that share a Redis, made by one of them; host: of this one
	Compare  string        `yaml:"compare"`  // previous_period, or "" for nothing
	Formats  []string      `yaml:"formats"`  // of files; none: json
	Folder   string        `yaml:"folder"`   // for files; "" with a webhook: none, without: reports in the state folder
	Keep     int           `yaml:"keep"`     // periods whose files are kept; 0: DefaultKeep
	Webhook  metric.Secret `yaml:"webhook"`  // a URL that is sent the JSON; it may hold a token
	Secret   metric.Secret `yaml:"secret"`   // what the webhook's body is signed with; "": it is not
}

const (
	// DefaultKeep is how many periods' files are kept of a report.
	DefaultKeep = 400
	// ScopeFleet and ScopeHost say whose counts a report is of.
	ScopeFleet, ScopeHost = "fleet", "host"
	// PreviousPeriod compares each value with that of the window before.
	PreviousPeriod = "previous_period"

	maxReports = 100
	maxName    = 64
	maxKeep    = 100_000
)

var reportName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

// Validate returns all faults of a list of reports, each naming its key: prefix is that
// of the list.
func Validate(prefix string, all []Config) error {
	var faults []error
	if len(all) > maxReports {
		faults = append(faults, fmt.Errorf("%s: there are %d reports; use %d at most", prefix, len(all), maxReports))
	}
	for i := range all {
		fault := func(key, format string, args ...any) {
			faults = append(faults, fmt.Errorf("%s[%d].%s: %s", prefix, i, key, fmt.Sprintf(format, args...)))
		}
		c := &all[i]
		if !reportName.MatchString(c.Name) || len(c.Name) > maxName {
			fault("name", "%q is no name; use lower-case letters, digits, - and _, %d at most", c.Name, maxName)
		} else if slices.IndexFunc(all, func(other Config) bool { return other.Name == c.Name }) < i {
			fault("name", "%s is there twice; give each report its own", c.Name)
		}
		c.validate(fault)
	}
	return errors.Join(faults...)
}

func (c *Config) validate(fault func(key, format string, args ...any)) {
	if _, err := c.schedule(); err != nil {
		fault("schedule", "%v", err)
	}
	if _, err := time.LoadLocation(c.Timezone); err != nil || c.Timezone == "Local" {
		fault("timezone", "there is no zone %q; use a name such as Europe/Berlin", c.Timezone)
	}
	for i, pattern := range c.Metrics {
		if _, err := path.Match(pattern, ""); err != nil || pattern == "" {
			fault(fmt.Sprintf("metrics[%d]", i), "%q is no pattern; write a key path such as usage.teams.*", pattern)
		}
	}
	if c.Compare != "" && c.Compare != PreviousPeriod {
		fault("compare", "there is no %q to compare with; use %s or nothing", c.Compare, PreviousPeriod)
	}
	if c.Scope != "" && c.Scope != ScopeFleet && c.Scope != ScopeHost {
		fault("scope", "there is no scope %q; use %s or %s", c.Scope, ScopeFleet, ScopeHost)
	}
	for i, format := range c.Formats {
		if !slices.Contains(Formats, format) {
			fault(fmt.Sprintf("formats[%d]", i), "there is no format %q; use %s", format, strings.Join(Formats, ", "))
		}
	}
	if c.Keep < 0 || c.Keep > maxKeep {
		fault("keep", "%d is out of range; use 1 to %d, or 0 for %d", c.Keep, maxKeep, DefaultKeep)
	}
	if c.Webhook != "" {
		if u, err := url.Parse(c.Webhook.Reveal()); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			fault("webhook", "it is no URL; write https://host/path") // and is not shown: it may hold a token
		}
	}
	if c.Secret != "" && c.Webhook == "" {
		fault("secret", "there is no webhook whose body it could sign; name one, or remove it")
	}
}

// schedule returns when the report is made: a time of the clock, and not every so often.
func (c *Config) schedule() (*cron.SpecSchedule, error) {
	if strings.Contains(c.Schedule, "TZ=") {
		return nil, errors.New("the zone has a key of its own; use timezone")
	}
	parsed, err := cron.ParseStandard(c.Schedule)
	if err != nil {
		return nil, fmt.Errorf("%q is no schedule (%w); write minute, hour, day, month and weekday, such as 0 6 * * MON", c.Schedule, err)
	}
	spec, ok := parsed.(*cron.SpecSchedule)
	if !ok {
		return nil, fmt.Errorf("%q is no time of the clock; write minute, hour, day, month and weekday, such as 0 6 * * MON", c.Schedule)
	}
	if spec.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("%q never comes; write another day", c.Schedule)
	}
	return spec, nil
}

func (c *Config) zone() *time.Location {
	zone, err := time.LoadLocation(c.Timezone)
	if err != nil {
		panic("BUG: a zone was not validated: " + err.Error())
	}
	return zone
}

// formats returns the formats of files.
func (c *Config) formats() []string {
	if len(c.Formats) == 0 {
		return []string{JSON}
	}
	return c.Formats
}

// folder returns where files go, "" if there are none.
func (c *Config) folder(state string) string {
	if c.Folder == "" && c.Webhook != "" {
		return ""
	}
	return cmp.Or(c.Folder, filepath.Join(state, "reports"))
}

// matches reports whether a metric is in the report.
func (c *Config) matches(keyPath string) bool { return Matches(c.Metrics, keyPath) }

// Matches reports whether a key path matches one of the patterns, or there are none.
func Matches(patterns []string, keyPath string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, _ := path.Match(strings.ReplaceAll(pattern, ".", "/"), strings.ReplaceAll(keyPath, ".", "/"))
		return ok
	})
}
