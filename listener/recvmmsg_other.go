//go:build !linux

package listener

import (
	"net"
	"sync/atomic"
)

const haveRecvmmsg = false

func openRecvmmsg(Config, *net.UDPAddr, []readerStats) (engine, error) {
	panic("BUG: Validate lets no one ask for recvmmsg here")
}

func inheritRecvmmsg(Config, planned, []readerStats) (engine, error) {
	panic("BUG: nothing is inherited here")
}

// socket stands in for what only Linux can do with one.
type socket struct{ fd int }

func (s *socket) drops() (uint64, bool) { return 0, false }

func (s *socket) retire() bool { return true }

func receiveBufferOf(int) int { return 0 }

type sweeper struct{ socket *socket }

type drain struct{}

func newDrain(int, *origins) *drain { return nil }

type pacer struct{}

func newSweeper(s *socket, _ *drain, _ pacer, _ *readerStats, _ func([]Packet)) *sweeper {
	return &sweeper{socket: s}
}

func (s *sweeper) sweep(*atomic.Bool) error { return nil }
