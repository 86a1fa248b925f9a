package analytics

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
)

// Whatever numbers clients send, sums are numbers: of a day, of several, of all time, and
// after a restart.
func TestSumsStayNumbers(t *testing.T) {
	h := newHost(t, "2026-03-10 12:00", func(c *Config) { c.IncludeToday = true })
	h.change(map[string]string{
		"events/paid.yml": `
event: invoice.paid
description: Somebody paid an invoice of the shop.
attributes: {amount: {type: float, role: value}}
`,
		"metrics/paid.yml": `
key_path: usage.paid
description: What was paid for all invoices together.
time_frame: [1d, 7d, all]
events: [{name: invoice.paid, operator: sum(amount)}]
`}, nil)
	yesterday := h.now.Unix() - secondsPerDay
	for _, amount := range []string{"0", "1.7e308"} {
		h.send("analytics.invoice.paid:4294967296|c|@1e-300|#amount:"+amount, "analytics.invoice.paid:4294967296|c|#amount:"+amount,
			fmt.Sprintf("analytics.invoice.paid:4294967296|c|@1e-300|#amount:%s|T%d", amount, yesterday))
	}
	check := func() {
		t.Helper()
		for _, frame := range []string{"1d", "7d", "all"} {
			v := h.value("usage.paid." + frame)
			if v.Value == nil || math.IsInf(*v.Value, 0) || !(*v.Value >= maxTotal) {
				t.Errorf("%s is %v, %s", v.Name, v.Value, v.Status)
			}
		}
	}
	check()
	h.stop()
	h.start()
	check()
	if _, err := ReadReport(h.cfg.StateDir); err != nil {
		t.Error(err)
	}
	h.send("analytics.invoice.paid:1|c|#amount:-1.7e308")
	if text, err := json.Marshal(h.value("usage.paid.all")); err != nil {
		t.Errorf("%s, %v", text, err)
	}
}
