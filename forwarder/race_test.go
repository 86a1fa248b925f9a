//go:build race

package forwarder

// raceEnabled says that tests run under the race detector, many times slower.
const raceEnabled = true
