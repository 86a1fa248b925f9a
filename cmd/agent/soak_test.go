package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// TestSoak sends at a steady rate and accounts for every sample: sent = received
// = aggregated, and what comes out adds up to what went in, through many flushes,
// with two readers. WEIR_SOAK says how long (a duration, by default 2s).
func TestSoak(t *testing.T) {
	duration := 2 * time.Second
	if text := os.Getenv("WEIR_SOAK"); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("WEIR_SOAK: %v", err)
		}
	}
	for _, variant := range []struct {
		name  string
		flags []string
		rate  int // samples a second, of all senders
	}{
		{"plain", nil, 400_000},
		{"race", []string{"-race"}, 50_000},
	} {
		t.Run(variant.name, func(t *testing.T) { soak(t, build(t, variant.flags...), variant.rate, duration) })
	}
}

func soak(t *testing.T, binary string, rate int, duration time.Duration) {
	intake := testkit.NewIntake(t)
	p := start(t, binary, append(toIntake(intake), "WEIR_LISTEN_READERS=2")...)

	const senders = 4 // with a socket each, so that both readers get some
	var wg sync.WaitGroup
	sums := make([]sent, senders)
	for i := range senders {
		wg.Go(func() { sums[i] = sendSteadily(t, p.address, i, rate/senders, duration) })
	}
	wg.Wait()
	if code := p.stop(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}

	var want sent
	for _, s := range sums {
		want.lines += s.lines
		want.events += s.events
		want.datagrams += s.datagrams
	}
	totals := newTotals(intake)
	var events float64
	for key, n := range totals.counts {
		if strings.HasPrefix(key, "soak.counter") || strings.HasPrefix(key, "soak.timer") && strings.Contains(key, ".count") {
			events += n
		}
	}
	for key, sketches := range totals.sketches {
		for _, s := range sketches {
			if strings.HasPrefix(key, "soak.") {
				events += float64(s.Count)
			}
		}
	}
	for name, pair := range map[string][2]float64{
		"received datagrams": {totals.counts["weir.listener.datagrams network:udp"], want.datagrams},
		"received lines":     {totals.counts["weir.lines"], want.lines},
		"aggregated samples": {totals.counts["weir.samples.aggregated"], want.lines},
		"events in points":   {events, want.events},
		"kernel drops":       {totals.counts["weir.listener.kernel_drops network:udp"], 0},
	} {
		if !near(pair[0], pair[1]) {
			t.Errorf("%s: %.3f, want %.0f", name, pair[0], pair[1])
		}
	}
	flushes := map[int64]bool{}
	for _, point := range intake.Points() {
		flushes[point.Time] = true
	}
	if least := int(duration.Seconds() * 5 / 6); len(flushes) < least {
		t.Errorf("%d flushes, want at least %d", len(flushes), least)
	}
	checkNoPointTwice(t, intake)
	if strings.Contains(p.log(), "DATA RACE") {
		t.Error("the race detector found a race")
	}
	t.Logf("%.0f samples in %.0f datagrams, %d flushes", want.lines, want.datagrams, len(flushes))
}

type sent struct{ lines, events, datagrams float64 }

// sendSteadily sends packed datagrams of a mix of kinds.
func sendSteadily(t *testing.T, address string, number, rate int, duration time.Duration) (sum sent) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		t.Error(err)
		return sum
	}
	defer conn.Close()
	const perDatagram = 20
	var packet []byte
	begin := time.Now()
	for i := 0; time.Since(begin) < duration; i++ {
		packet = packet[:0]
		for line := range perDatagram {
			n := (i*perDatagram + line) % 997
			switch line % 10 {
			case 0:
				packet = fmt.Appendf(packet, "soak.dist%d:%d|d|#env:test\n", n%50, line+1)
				sum.events++
			case 1:
				packet = fmt.Appendf(packet, "soak.timer%d:%d|ms|#env:test\n", n%50, line+1)
				sum.events++
			case 2:
				packet = fmt.Appendf(packet, "soak.gauge%d:%d|g|#sender:%d\n", n, i, number)
			case 3:
				packet = fmt.Appendf(packet, "soak.set%d:%d|s\n", n%50, n)
			case 4:
				packet = fmt.Appendf(packet, "soak.counter%d:3|c|@0.5|#b:2,a:1\n", n)
				sum.events += 6
			default:
				packet = fmt.Appendf(packet, "soak.counter%d:1|c|#a:1,b:2\n", n)
				sum.events++
			}
			sum.lines++
		}
		if _, err := conn.Write(packet); err != nil {
			t.Error(err)
			return sum
		}
		sum.datagrams++
		if ahead := time.Duration(sum.lines/float64(rate)*float64(time.Second)) - time.Since(begin); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
	}
	return sum
}
