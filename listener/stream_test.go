package listener

import (
	"fmt"
	"testing"
)

// Connections that nobody has accepted yet when the agent is told to stop were made
// to it: what they brought counts.
func TestStopTakesWaitingConnections(t *testing.T) {
	cfg := DefaultConfig()
	cfg.UDP, cfg.TCP, cfg.Readers, cfg.IdleTimeout = "", "127.0.0.1:0", 1, 0
	r := start(t, cfg)
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
