package forwarder

import (
	"log/slog"
	"testing"
	"time"
)

// Pauses double up to a bound, and begin anew after a success; those of a relay are
// shorter.
func TestPauses(t *testing.T) {
	relay := newRelay(&DestinationConfig{Address: "127.0.0.1:9"}, "statsd", time.Second, discard()).endpoint
	intake := newEndpoint("datadog", &books{}, slog.New(slog.DiscardHandler))
	for _, test := range []struct {
		name        string
		endpoint    *endpoint
		first, most time.Duration
	}{
		{"intake", intake, time.Second, 8 * time.Second},
		{"relay", relay, 100 * time.Millisecond, 2 * time.Second},
	} {
		circuits := []*circuit{&test.endpoint.whole}
		for i := range test.endpoint.lanes {
			circuits = append(circuits, &test.endpoint.lanes[i].circuit)
		}
		for _, c := range circuits {
			now := time.Now()
			for round := range 2 {
				longest := time.Duration(0)
				for n := range 40 {
					c.fail(c.begin(), now, now, 0)
					pause := c.until.Sub(now)
					if n == 0 && (pause < test.first/2 || pause > test.first) || pause > test.most {
						t.Errorf("%s: pause %d of round %d is %v", test.name, n, round, pause)
					}
					longest, now = max(longest, pause), c.until
				}
				if longest < test.most/2 {
					t.Errorf("%s: the longest pause is %v", test.name, longest)
				}
				c.succeed(c.begin())
			}
		}
	}
}
