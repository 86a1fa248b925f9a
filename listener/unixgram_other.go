//go:build !linux

package listener

import (
	"context"
	"errors"
	"net"
	"os"
	"time"
)

// unixDatagramEngine reads a Unix datagram socket one by one.
type unixDatagramEngine struct {
	conn  *net.UnixConn
	file  *socketFile
	path  string
	max   int
	stats *readerStats
}

func openUnixDatagram(cfg Config, p planned, stats []readerStats) (engine, error) {
	defer alone(p.Address)()
	if err := clearPath(p.Address); err != nil {
		return nil, explainPath(err, p.keyed)
	}
	open := net.ListenConfig{Control: beforeBind(cfg.mode())}
	conn, err := open.ListenPacket(context.Background(), "unixgram", p.Address)
	if err != nil {
		return nil, explainPath(err, p.keyed)
	}
	e := &unixDatagramEngine{conn: conn.(*net.UnixConn), path: p.Address, max: int(cfg.MaxPacket), stats: &stats[0]}
	if e.file, err = claim(p.Address, cfg.mode()); err != nil {
		return nil, errors.Join(explainPath(err, p.keyed), e.close())
	}
	return e, nil
}

func (e *unixDatagramEngine) name() string          { return "net" }
func (e *unixDatagramEngine) address() string       { return e.path }
func (e *unixDatagramEngine) granted() int          { return 0 }
func (e *unixDatagramEngine) dropsOf(int) uint64    { return 0 }
func (e *unixDatagramEngine) drops() (uint64, bool) { return 0, true } // clients wait
func (e *unixDatagramEngine) processors() int       { return 0 }

func (e *unixDatagramEngine) close() error {
	e.file.remove()
	return e.conn.Close()
}

func (e *unixDatagramEngine) run(stop <-chan struct{}, handle Handler) error {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop:
			e.file.remove()
			_ = e.conn.SetReadDeadline(time.Now().Add(lastAccept)) // what waits is read until then
		case <-ended:
		}
	}()
	buffer := make([]byte, e.max+1)
	var packets [1]Packet
	for {
		n, err := e.conn.Read(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return e.close()
		}
		if err != nil {
			return errors.Join(err, e.close())
		}
		e.stats.wakeups.Add(1)
		packets[0] = Packet{Data: buffer[:min(n, e.max)], Cut: n > e.max}
		handle(0, packets[:])
	}
}

func limitMode(int, os.FileMode) {}

func peerProcess(int) int32 { return 0 }
