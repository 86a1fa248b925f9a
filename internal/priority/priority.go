// Package priority lets work that can wait leave the processor to what cannot: the
// readers of sockets, and whatever else runs on the host.
//
// In: the goroutine that calls. Out: its thread, with a lower priority, and its work in
// short turns.
package priority

// niceness is what Lower makes it: a third of the usual share of a busy processor, so
// that a flush goes on where there is no processor to spare, and that a reader who wakes
// up is let in at once, as a rule.
const niceness = 5
