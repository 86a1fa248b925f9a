package listener

import (
	"sync/atomic"

	"github.com/weir-agent/weir/metric"
)

// streamStats is what happened to the connections of one socket.
type streamStats struct {
	accepted        atomic.Uint64
	open            atomic.Int64
	refused         atomic.Uint64
	idleClosed      atomic.Uint64
	oversizedFrames atomic.Uint64
	truncated       atomic.Uint64
	oversizedLines  atomic.Uint64
	unread          atomic.Uint64
}

// Stats is a snapshot of what the listener counted over all sockets.
//
// What clients sent to the datagram sockets is Datagrams + KernelDrops.
type Stats struct {
	Datagrams     uint64
	Bytes         uint64 // of datagrams and streams
	Cut           uint64 // datagrams that were longer than max_packet
	Wakeups       uint64 // times a reader went to look for datagrams, or a connection had something
	KernelDrops   uint64 // datagrams the kernel had no room for
	DropsKnown    bool   // false: the system does not say
	ReceiveBuffer int    // bytes granted to each UDP socket; 0: not known

	Connections     uint64 // accepted
	OpenConnections int64
	Refused         uint64 // connections closed at once, for the limit
	IdleClosed      uint64 // connections closed because they were silent
	OversizedFrames uint64 // connections closed for a frame longer than max_packet
	Truncated       uint64 // connections that ended within a frame or line
	OversizedLines  uint64 // lines of streams that were longer than max_packet
	Unread          uint64 // connections that had more to read when the time to stop was up
}

// Stats returns a snapshot.
func (l *Listener) Stats() Stats { return l.stats("") }

// stats returns a snapshot of one network, or of all for "".
func (l *Listener) stats(network string) Stats {
	s := Stats{DropsKnown: true}
	for i := range l.sockets {
		socket := &l.sockets[i]
		if network != "" && network != socket.Network {
			continue
		}
		for j := range socket.count {
			r := &l.readers[socket.first+j]
			s.Datagrams += r.datagrams.Load()
			s.Bytes += r.bytes.Load()
			s.Cut += r.cut.Load()
			s.Wakeups += r.wakeups.Load()
		}
		drops, known := socket.engine.drops()
		s.KernelDrops += drops
		s.DropsKnown = s.DropsKnown && known
		if granted := socket.engine.granted(); socket.Network == UDP && (s.ReceiveBuffer == 0 || granted < s.ReceiveBuffer) {
			s.ReceiveBuffer = granted
		}
		if t := socket.streams; t != nil {
			s.Connections += t.accepted.Load()
			s.OpenConnections += t.open.Load()
			s.Refused += t.refused.Load()
			s.IdleClosed += t.idleClosed.Load()
			s.OversizedFrames += t.oversizedFrames.Load()
			s.Truncated += t.truncated.Load()
			s.OversizedLines += t.oversizedLines.Load()
			s.Unread += t.unread.Load()
		}
	}
	return s
}

// Dropped returns how many datagrams the kernel had no room for at the socket of a
// reader; 0 if it does not say.
func (l *Listener) Dropped(reader int) uint64 {
	for i := range l.sockets {
		if s := &l.sockets[i]; reader < s.first+s.count {
			return s.engine.dropsOf(reader - s.first)
		}
	}
	return 0
}

// listens reports whether there is a socket of a network.
func (l *Listener) listens(network string) bool {
	for i := range l.sockets {
		if l.sockets[i].Network == network {
			return true
		}
	}
	return false
}

// Readings appends the agent's own metrics about receiving to dst, each with the
// network it is about.
func (l *Listener) Readings(dst []metric.Reading) []metric.Reading {
	for _, network := range networks {
		if !l.listens(network) {
			continue
		}
		s := l.stats(network)
		tags := []string{"network:" + network}
		total := func(name string, n uint64) {
			dst = append(dst, metric.Reading{Name: name, Tags: tags, Value: float64(n)})
		}
		level := func(name string, n float64) {
			dst = append(dst, metric.Reading{Name: name, Tags: tags, Value: n, Level: true})
		}
		total("listener.bytes", s.Bytes)
		total("listener.wakeups", s.Wakeups)
		if network == UnixStream || network == TCP {
			total("listener.connections", s.Connections)
			level("listener.connections.open", float64(s.OpenConnections))
			total("listener.connections.refused", s.Refused)
			total("listener.connections.idle_closed", s.IdleClosed)
			if network == UnixStream {
				total("listener.frames.oversized", s.OversizedFrames)
			}
			total("listener.frames.truncated", s.Truncated)
			total("listener.lines.oversized", s.OversizedLines)
			total("listener.connections.unread", s.Unread)
			continue
		}
		total("listener.datagrams", s.Datagrams)
		total("listener.datagrams.cut", s.Cut)
		if network != UDP {
			continue // a full Unix socket makes its clients wait; it drops nothing
		}
		if s.DropsKnown {
			total("listener.kernel_drops", s.KernelDrops)
		}
		level("listener.receive_buffer", float64(s.ReceiveBuffer))
	}
	return dst
}
