package listener

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func tcpOnly() Config {
	cfg := DefaultConfig()
	cfg.UDP, cfg.TCP, cfg.Readers, cfg.IdleTimeout = "", "127.0.0.1:0", 1, 0
	return cfg
}

// Connections that nobody has accepted yet when the agent is told to stop were made
// to it: what they brought counts.
func TestStopTakesWaitingConnections(t *testing.T) {
	r := start(t, tcpOnly())
	const connections = 400
	address := r.Reader(0).Address
	for i := range connections {
		conn := dialTo(t, "tcp", address)
		write(t, conn, fmt.Sprintf("from%d:1|c\n", i))
		conn.Close()
	}
	r.stop()
	if got := len(r.lines()); got != connections {
		t.Errorf("%d of %d connections brought their line", got, connections)
	}
}

// While a loop is busy with its connections, others are accepted all the same, and
// nothing of what they bring is lost if the agent stops just then.
func TestBusyLoopDelaysNoAccept(t *testing.T) {
	l, err := New(tcpOnly(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	busy, goOn := make(chan struct{}), make(chan struct{})
	block := sync.OnceFunc(func() {
		close(busy)
		<-goOn
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- l.Run(ctx, func(_ int, packets []Packet) {
			block()
			mu.Lock()
			defer mu.Unlock()
			for _, p := range packets {
				got = append(got, strings.Fields(string(p.Data))...)
			}
		})
	}()
	address := l.Reader(0).Address
	write(t, dialTo(t, "tcp", address), "first:1|c\n")
	<-busy
	const others = 3 * enrolledAtOnce
	for i := range others {
		conn := dialTo(t, "tcp", address)
		write(t, conn, fmt.Sprintf("other%d:1|c\n", i))
		if i%2 == 0 {
			conn.Close()
		}
	}
	eventually(t, "many are accepted", func() bool { return l.Stats().Connections >= enrolledAtOnce })
	cancel()
	close(goOn)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if len(got) != 1+others {
		t.Errorf("%d of %d lines were handed on", len(got), 1+others)
	}
	if s := l.Stats(); s.Connections != 1+others || s.OpenConnections != 0 || s.Unread != 0 || s.Truncated != 0 {
		t.Errorf("stats = %+v", s)
	}
}
