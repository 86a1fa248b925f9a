package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weir-agent/weir/internal/testkit"
)

// The bounds of an endpoint that the file sets are those it keeps: how many requests there
// are at once, and how much waits in memory.
func TestBoundsOfAnEndpoint(t *testing.T) {
	binary := build(t)
	var now, top atomic.Int64
	goOn := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			return
		}
		top.Store(max(top.Load(), now.Add(1)))
		defer now.Add(-1)
		<-goOn
	}))
	defer slow.Close()
	release := sync.OnceFunc(func() { close(goOn) })
	defer release()
	var others atomic.Int64 // requests for payloads of the same batches
	fast := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && now.Load() > 0 {
			others.Add(1)
		}
	}))
	defer fast.Close()
	file := filepath.Join(t.TempDir(), "weir.yaml")
	text := fmt.Sprintf(`
flush_interval: 1s
spool: {enabled: false}
forwarders:
- {type: datadog, api_key: %[1]s, url: "%[2]s", concurrency: 1}
- {type: datadog, api_key: %[1]s, url: "%[3]s"}
- {type: datadog, api_key: %[1]s, url: "http://127.0.0.1:1", max_queue: 8MiB, compression: none}
`, testkit.APIKey, slow.URL, fast.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startWith(t, binary, func(cmd *exec.Cmd) { cmd.Args = append(cmd.Args, "--config", file) }, "WEIR_SHUTDOWN_TIMEOUT=1s")
	conn, err := net.Dial("udp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	series := 0
	padding := strings.Repeat("x", 500)
	eventually(t, "the queue of 8 MiB is full, and that of 64 MiB would not be", func() bool {
		for range 100 {
			if _, err := fmt.Fprintf(conn, "a.%d:1|g|#%s", series, padding); err != nil {
				t.Fatal(err)
			}
			if series++; series > 60_000 {
				t.Fatal("30 MB wait in a queue of 8 MiB")
			}
		}
		return strings.Contains(p.log(), "limit=8MiB")
	})
	eventually(t, "several payloads wait while one is sent", func() bool { return others.Load() >= 4 })
	if n := top.Load(); n != 1 {
		t.Errorf("%d requests at once, want 1", n)
	}
	release()
	p.stop(t)
}
