package forwarder

import (
	"cmp"
	"slices"
	"time"
)

// spoolEntry is what the index knows of a record.
type spoolEntry struct {
	name   spoolName
	start  time.Time
	target string
	route  string
	cost   int64 // bytes of the file, in whole blocks
	taken  bool

	attempts  int       // of sending it that failed, since the start
	notBefore time.Time // it is not given out
}

func compareEntries(a, b *spoolEntry) int {
	return cmp.Or(cmp.Compare(a.name.start, b.name.start), cmp.Compare(a.name.serial, b.name.serial), cmp.Compare(a.name.points, b.name.points))
}

// spoolIndex is the records that may be taken, by route: however many there are of a
// route to leave alone, they are passed over at once. BenchmarkBacklog has what it costs.
type spoolIndex []*shelf

// shelf is the records of one route.
type shelf struct {
	route   string
	entries []*spoolEntry // the oldest first
}

// insert puts an entry where its age belongs.
func (x *spoolIndex) insert(e *spoolEntry) {
	i := slices.IndexFunc(*x, func(s *shelf) bool { return s.route == e.route })
	if i < 0 {
		i = len(*x)
		*x = append(*x, &shelf{route: e.route})
	}
	s := (*x)[i]
	at, _ := slices.BinarySearchFunc(s.entries, e, compareEntries)
	s.entries = slices.Insert(s.entries, at, e)
}

// remove takes out an entry, which must be there.
func (x spoolIndex) remove(e *spoolEntry) {
	for _, s := range x {
		if s.route != e.route {
			continue
		}
		if at, found := slices.BinarySearchFunc(s.entries, e, compareEntries); found {
			s.entries = slices.Delete(s.entries, at, at+1)
			return
		}
	}
	panic("BUG: a record is not in the index of the spool")
}

// removeAll takes out the entries that are wanted, and returns them.
func (x spoolIndex) removeAll(wanted func(*spoolEntry) bool) (removed []*spoolEntry) {
	for _, s := range x {
		s.entries = slices.DeleteFunc(s.entries, func(e *spoolEntry) bool {
			if !wanted(e) {
				return false
			}
			removed = append(removed, e)
			return true
		})
	}
	return removed
}

// oldest returns the oldest entry, nil if there is none.
func (x spoolIndex) oldest() (oldest *spoolEntry) {
	for _, s := range x {
		if len(s.entries) > 0 && (oldest == nil || compareEntries(s.entries[0], oldest) < 0) {
			oldest = s.entries[0]
		}
	}
	return oldest
}

// first returns the oldest entry that may be given out now: one that is too old, or
// waits for nothing and is of a route other than those to leave alone. If there is none,
// at is when there may be one; zero: after a change.
func (x spoolIndex) first(now time.Time, leftAlone []string, tooOld func(*spoolEntry) bool) (first *spoolEntry, at time.Time) {
	for _, s := range x {
		alone := slices.Contains(leftAlone, s.route)
		for _, e := range s.entries {
			if first != nil && compareEntries(e, first) > 0 {
				break
			}
			if tooOld(e) || !alone && !e.notBefore.After(now) {
				first = e
				break
			}
			if alone {
				break // the others are younger
			}
			if at.IsZero() || e.notBefore.Before(at) {
				at = e.notBefore
			}
		}
	}
	if first != nil {
		return first, time.Time{}
	}
	return nil, at
}
