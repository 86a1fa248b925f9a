package report

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/weir-agent/weir/metric"
)

// Attempts at a webhook that fails come further and further apart, up to half an hour;
// after a day or so the period is given up, and the next one is tried.
func TestAPeriodIsGivenUp(t *testing.T) {
	var status int
	var attempts []time.Time
	now := at("2026-03-08 12:00")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		attempts = append(attempts, now)
		w.WriteHeader(status)
	}))
	defer server.Close()
	r := newReporter(t, t.TempDir(), &values{}, Config{Name: "daily", Schedule: "0 0 * * *", Webhook: metric.Secret(server.URL)})
	status = http.StatusRequestTimeout
	r.tick(t.Context(), now)
	for now = at("2026-03-09 00:00"); r.failed.Load() == 0 && len(attempts) < 2*maxFailures; now = now.Add(checkEvery) {
		r.tick(t.Context(), now)
	}
	if len(attempts) != maxFailures || r.retries.Load() != maxFailures-1 {
		t.Fatalf("%d attempts, %d retries, want %d", len(attempts), r.retries.Load(), maxFailures)
	}
	var apart []time.Duration
	for i := range attempts[1:] {
		apart = append(apart, attempts[i+1].Sub(attempts[i]))
	}
	if !slices.IsSorted(apart) || apart[0] != firstRetry || apart[1] != 2*firstRetry || apart[len(apart)-1] != lastRetry {
		t.Errorf("apart: %v", apart)
	}
	status = http.StatusNoContent
	r.tick(t.Context(), at("2026-03-11 00:00"))
	if r.made.Load() == 0 {
		t.Error("the next period is not made")
	}
}

// A folder is no pattern, and the periods of more than a year ago are not even counted.
func TestOldPeriods(t *testing.T) {
	state := filepath.Join(t.TempDir(), "[state]")
	reports := filepath.Join(t.TempDir(), "[reports] *")
	c := Config{Name: "a", Schedule: "@daily", Keep: 3, Folder: reports}
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	r := newReporter(t, state, &values{}, c)
	r.tick(t.Context(), at("2020-03-08 12:00"))
	r.tick(t.Context(), at("2026-03-08 12:00"))
	if skipped, most := r.skipped.Load(), uint64(maxDown/(24*time.Hour)); skipped == 0 || skipped > most {
		t.Errorf("%d periods are skipped, want some and %d at most", skipped, most)
	}
	if info, err := os.Stat(reports); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info, err)
	}
	if got := files(t, reports); len(got) != 3 || got[2] != "a-20260308T000000Z.json" {
		t.Errorf("left: %v", got)
	}
}
