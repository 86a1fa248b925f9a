package listener

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
)

const (
	// readAtOnce is how much of a connection's bytes is read before the next one has
	// its turn.
	readAtOnce = 64 << 10
	// lastDrain bounds how long a reader goes on when the agent stops and a client
	// sends faster than it reads.
	lastDrain = time.Second
	// lastAccept is how long an agent that stops waits for one more connection that
	// was waiting, and takes it; for lastDrain at most.
	lastAccept = 20 * time.Millisecond
	// enrolledAtOnce is how many connections wait at once for their event loop to take
	// them, which it does after a round of all that have something.
	enrolledAtOnce = 64
	// mostBackoff is how long to wait before a connection is accepted again after the
	// system could not, at most.
	mostBackoff = time.Second
)

// streamEngine accepts connections and spreads them over event loops of gnet. A
// loop is a reader: all calls for its connections come from its goroutine, one
// after the other.
type streamEngine struct {
	cfg       Config
	key       string
	network   string
	where     string
	listener  net.Listener
	file      *socketFile // nil if there is none or it is not ours
	inherited bool
	stopped   time.Time // when run was told to stop; written before done is closed
	origins   *origins  // nil: nobody asks for senders

	stats    []readerStats
	counts   *streamStats
	warnings *warnings

	enrolling chan struct{}  // full while enrolledAtOnce wait
	enrollers sync.WaitGroup // only run waits for them, after accept has ended
	late      []net.Conn     // accepted when no loop would take them any more; only for accept, then run

	mu    sync.Mutex // guards conns
	conns map[*stream]struct{}
}

// streamLoop is one event loop of gnet: a client of gnet's with a single one, so
// that a connection's loop is known before it is handed over.
type streamLoop struct {
	gnet.BuiltinEventEngine

	engine *streamEngine
	client *gnet.Client
	stats  *readerStats
	out    outbox
	conns  map[*stream]struct{} // only for the loop's goroutine
	open   atomic.Int64
	events gnet.EventLoop // nil before the first connection
	late   []net.Conn     // to be read without the loop's help
}

// stream is one connection.
type stream struct {
	loop   *streamLoop
	conn   gnet.Conn
	framer framer
	sender string

	opened atomic.Bool
	active atomic.Bool // something came since the last look at it
	idle   atomic.Bool // it is closed because nothing came
	since  time.Time   // the last look that found it active; only for closeIdle

	// Only for the loop's goroutine.
	broken  bool // nothing can be made of what comes next
	ended   bool // drain: all it sent is read
	orderly bool // drain: and its other end has closed
}

// openStream opens a socket that takes connections.
func openStream(cfg Config, p planned, stats []readerStats, counts *streamStats, w *warnings) (engine, error) {
	e := &streamEngine{
		cfg: cfg, key: p.key, network: p.Network, stats: stats, counts: counts, warnings: w,
		conns: map[*stream]struct{}{}, inherited: p.inherited != nil, enrolling: make(chan struct{}, enrolledAtOnce),
	}
	if cfg.OriginDetection && p.Network == UnixStream {
		e.origins = newOrigins()
	}
	var err error
	switch {
	case p.inherited != nil:
		e.where = p.inherited.address
		e.listener, err = net.FileListener(p.inherited.file)
		p.inherited.close()
		if unix, ok := e.listener.(*net.UnixListener); ok {
			unix.SetUnlinkOnClose(false) // it is systemd's
		}
		return e, err
	case p.Network == UnixStream:
		e.where = p.Address
		if e.listener, e.file, err = listenUnixStream(p.Address, cfg.mode()); err != nil {
			return nil, explainPath(err, p.keyed)
		}
	default:
		where, err := resolve(p.Address)
		if err != nil {
			return nil, fmt.Errorf("look up the address of %s: %w", p.key, err)
		}
		family := "tcp"
		if where.Addr().Is4() { // 0.0.0.0 is no address of IPv6
			family = "tcp4"
		}
		if e.listener, err = net.Listen(family, where.String()); err != nil {
			return nil, explain(err, p.keyed, where.String(), int(where.Port()))
		}
		e.where = e.listener.Addr().String()
	}
	return e, nil
}

func listenUnixStream(path string, mode os.FileMode) (net.Listener, *socketFile, error) {
	defer alone(path)()
	if err := clearPath(path); err != nil {
		return nil, nil, err
	}
	open := net.ListenConfig{Control: beforeBind(mode)}
	l, err := open.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // socketFile does it, if the file is still ours
	file, err := claim(path, mode)
	if err != nil {
		file.remove()
		return nil, nil, errors.Join(err, l.Close())
	}
	return l, file, nil
}

func (e *streamEngine) name() string          { return EngineGnet }
func (e *streamEngine) address() string       { return e.where }
func (e *streamEngine) granted() int          { return 0 }
func (e *streamEngine) drops() (uint64, bool) { return 0, true } // clients wait
func (e *streamEngine) dropsOf(int) uint64    { return 0 }
func (e *streamEngine) processors() int       { return 0 }

func (e *streamEngine) close() error {
	e.file.remove()
	return e.listener.Close()
}

// run accepts until stop is closed, then reads what the connections have sent so
// far, and closes them.
func (e *streamEngine) run(stop <-chan struct{}, handle Handler) error {
	loops, err := e.start(handle)
	if err != nil {
		return errors.Join(err, e.close())
	}
	broken := make(chan error, 1)
	var background sync.WaitGroup
	done := make(chan struct{})
	background.Go(func() { broken <- e.accept(loops, done) })
	if e.cfg.IdleTimeout > 0 {
		background.Go(func() { e.closeIdle(done) })
	}
	select {
	case <-stop:
		err = nil
	case err = <-broken:
	}
	e.file.remove()
	e.stopped = time.Now()
	close(done)
	e.stopAccepting()
	background.Wait()
	e.enrollers.Wait()
	err = errors.Join(err, e.listener.Close())
	for i, conn := range e.late {
		loop := loops[i%len(loops)]
		loop.late = append(loop.late, conn)
	}
	var drains sync.WaitGroup
	for _, loop := range loops {
		drains.Go(loop.last)
	}
	drains.Wait()
	if n := e.counts.unread.Load(); n > 0 {
		e.warnings.once(&e.warnings.unread, "connections had more to read when the time to stop was up; it is lost",
			"network", e.network, "connections", n)
	}
	for _, loop := range loops {
		err = errors.Join(err, loop.client.Stop())
	}
	return err
}

// start starts the event loops.
func (e *streamEngine) start(handle Handler) ([]*streamLoop, error) {
	var loops []*streamLoop
	for i := range e.stats {
		loop := &streamLoop{engine: e, stats: &e.stats[i], conns: map[*stream]struct{}{}}
		loop.out.handle = func(packets []Packet) { handle(i, packets) }
		var err error
		loop.client, err = gnet.NewClient(loop, gnet.WithNumEventLoop(1), gnet.WithReadBufferCap(readAtOnce), gnet.WithLogger(silentLogger{}))
		if err == nil {
			err = loop.client.Start()
		}
		if err != nil {
			for _, started := range loops {
				err = errors.Join(err, started.client.Stop())
			}
			return nil, fmt.Errorf("start an event loop: %w", err)
		}
		loops = append(loops, loop)
	}
	return loops, nil
}

// stopAccepting ends accept if no further connection waits. Those at an inherited
// socket are left to the next agent.
func (e *streamEngine) stopAccepting() {
	until := time.Now()
	if !e.inherited && until.Sub(e.stopped) < lastDrain {
		until = until.Add(lastAccept)
	}
	_ = e.listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(until)
}

// accept takes connections until the listener's deadline.
func (e *streamEngine) accept(loops []*streamLoop, done <-chan struct{}) error {
	backoff := time.Duration(0)
	for {
		conn, err := e.listener.Accept()
		switch {
		case err == nil:
			backoff = 0
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // as long as this process may not open more files
			e.warnings.once(&e.warnings.accept, "a connection could not be accepted; it waits", "network", e.network, "error", err,
				"remedy", "let the agent open more files (LimitNOFILE= of its unit), or lower listen.max_connections")
			backoff = min(max(2*backoff, time.Millisecond), mostBackoff)
			select {
			case <-done:
				return nil
			case <-time.After(backoff):
			}
			continue
		}
		select {
		case <-done: // the loops take no more; once more, as there may be others
			e.late = append(e.late, conn)
			e.stopAccepting()
		default:
			e.take(conn, loops, done)
		}
	}
}

// take hands a connection to the loop with the fewest. It does not wait until the
// loop has it.
func (e *streamEngine) take(conn net.Conn, loops []*streamLoop, done <-chan struct{}) {
	if e.counts.open.Load() >= int64(e.cfg.MaxConnections) {
		_ = conn.Close()
		e.counts.refused.Add(1)
		e.warnings.once(&e.warnings.refused, "a connection was closed at once, and so are all further ones beyond the limit",
			"network", e.network, "max_connections", e.cfg.MaxConnections, "remedy", "raise listen.max_connections, or lower listen.idle_timeout")
		return
	}
	least := loops[0]
	for _, loop := range loops[1:] {
		if loop.open.Load() < least.open.Load() {
			least = loop
		}
	}
	select {
	case e.enrolling <- struct{}{}:
	case <-done:
		e.late = append(e.late, conn)
		return
	}
	s := e.newStream(conn, least)
	e.counts.open.Add(1)
	least.open.Add(1)
	e.enrollers.Go(func() {
		defer func() { <-e.enrolling }()
		e.enroll(conn, s)
	})
}

// newStream returns the state of a connection that was accepted.
func (e *streamEngine) newStream(conn net.Conn, loop *streamLoop) *stream {
	s := &stream{loop: loop, since: time.Now(), framer: framer{max: int(e.cfg.MaxPacket)}}
	if e.network == TCP {
		s.framer.form = byLines
	}
	if e.origins != nil {
		s.sender = e.origins.container(peerOf(conn), time.Now())
	}
	e.counts.accepted.Add(1)
	return s
}

// enroll hands a connection to its loop and waits until the loop has it.
func (e *streamEngine) enroll(conn net.Conn, s *stream) {
	withoutZone(conn)
	least := s.loop
	_, err := least.client.EnrollContext(conn, s) // closes conn; returns once OnOpen has
	if !s.opened.Load() {
		e.counts.open.Add(-1)
		least.open.Add(-1)
		e.counts.refused.Add(1)
		e.warnings.once(&e.warnings.enroll, "a connection was closed: it could not be handed to an event loop", "network", e.network, "error", err,
			"remedy", "let the agent open more files (LimitNOFILE= of its unit), or lower listen.max_connections")
	}
}

// peerOf returns the process at the other end of a connection; 0 if it is not
// known.
func peerOf(conn net.Conn) (pid int32) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { pid = peerProcess(int(fd)) })
	return pid
}

// withoutZone takes the zones out of a connection's addresses: when gnet closes
// it, it gives their memory to its pool of buffers, and it is not gnet's.
func withoutZone(conn net.Conn) {
	for _, address := range []net.Addr{conn.LocalAddr(), conn.RemoteAddr()} {
		if a, ok := address.(*net.TCPAddr); ok {
			a.Zone = ""
		}
	}
}

// closeIdle closes connections that have been silent for too long. It looks at
// them from time to time, so that reading needs no clock.
func (e *streamEngine) closeIdle(done <-chan struct{}) {
	const looks = 8 // in the time that a connection may be silent
	ticker := time.NewTicker(e.cfg.IdleTimeout / looks)
	defer ticker.Stop()
	for {
		var now time.Time
		select {
		case <-done:
			return
		case now = <-ticker.C:
		}
		e.mu.Lock()
		for s := range e.conns {
			if s.active.Swap(false) {
				s.since = now
			} else if now.Sub(s.since) >= e.cfg.IdleTimeout && !s.idle.Swap(true) {
				_ = s.conn.Close() // the loop does it
			}
		}
		e.mu.Unlock()
	}
}

// OnOpen is called by the loop with a new connection.
func (l *streamLoop) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	s := c.Context().(*stream)
	s.conn = c
	s.opened.Store(true)
	l.events = c.EventLoop()
	l.conns[s] = struct{}{}
	l.engine.mu.Lock()
	l.engine.conns[s] = struct{}{}
	l.engine.mu.Unlock()
	return nil, gnet.None
}

// OnTraffic is called by the loop with what a connection has, readAtOnce at most.
// All connections of the loop that have something get their turn before the next.
func (l *streamLoop) OnTraffic(c gnet.Conn) gnet.Action {
	s := c.Context().(*stream)
	l.stats.wakeups.Add(1)
	data, err := c.Next(-1)
	if err != nil || len(data) == 0 {
		return gnet.None
	}
	if l.feed(s, data); s.broken {
		return gnet.Close
	}
	return gnet.None
}

// feed hands on what the next bytes of a connection complete.
func (l *streamLoop) feed(s *stream, data []byte) {
	if !s.active.Load() {
		s.active.Store(true)
	}
	e := l.engine
	l.out.sender = s.sender
	err := s.framer.feed(data, &l.out)
	if n := l.out.longLines; n > 0 {
		l.out.longLines = 0
		e.counts.oversizedLines.Add(uint64(n))
		e.warnings.once(&e.warnings.line, "a line of a stream was too long; it is rejected, and so are all further ones",
			"network", e.network, "max_packet", e.cfg.MaxPacket, "remedy", "raise listen.max_packet if it is a metric")
	}
	if err != nil {
		s.broken = true
		e.counts.oversizedFrames.Add(1)
		e.warnings.once(&e.warnings.frame, "a connection was closed: its next frame is longer than max_packet, and so it goes with all further ones",
			"network", e.network, "max_packet", e.cfg.MaxPacket, "remedy", "raise listen.max_packet, or lower the packet size of the client; it may also not speak DogStatsD")
	}
}

// OnClose is called by the loop when a connection has ended, whoever ended it.
func (l *streamLoop) OnClose(c gnet.Conn, err error) gnet.Action {
	s := c.Context().(*stream)
	e := l.engine
	delete(l.conns, s)
	e.mu.Lock()
	delete(e.conns, s)
	e.mu.Unlock()
	l.open.Add(-1)
	e.counts.open.Add(-1)
	orderly := s.orderly || errors.Is(err, io.EOF)
	if s.idle.Load() && !orderly {
		e.counts.idleClosed.Add(1)
		e.warnings.once(&e.warnings.idle, "a connection was closed because it was silent, and so are all further ones",
			"network", e.network, "idle_timeout", e.cfg.IdleTimeout, "remedy", "raise listen.idle_timeout if its client does not connect again by itself")
	}
	l.finish(s, orderly)
	return gnet.None
}

// finish hands on what is left of a connection that has ended.
func (l *streamLoop) finish(s *stream, orderly bool) {
	if s.broken {
		return
	}
	e := l.engine
	l.out.sender = s.sender
	if s.framer.end(orderly, &l.out) {
		e.counts.truncated.Add(1)
		e.warnings.once(&e.warnings.truncated, "a connection ended within a line or frame, which is lost; further ones are only counted",
			"network", e.network)
	}
}

// last reads what the loop's connections have sent so far, each in its turn, and then
// those that came too late for the loop.
func (l *streamLoop) last() {
	until := time.Now().Add(lastDrain)
	if l.events != nil {
		done := make(chan struct{})
		err := l.events.Execute(context.Background(), gnet.RunnableFunc(func(context.Context) error {
			defer close(done)
			l.drain(until)
			l.drainLate(until)
			return nil
		}))
		if err == nil {
			<-done
			return
		}
	}
	l.drainLate(until) // there is nobody else to call the handler
}

func (l *streamLoop) drain(until time.Time) {
	buffer := make([]byte, readAtOnce)
	left := true
	for left && time.Now().Before(until) {
		left = false
		for s := range l.conns {
			if s.ended {
				continue
			}
			n, err := readNow(s.conn.Fd(), buffer)
			if n > 0 {
				l.feed(s, buffer[:n])
			}
			s.orderly = errors.Is(err, io.EOF)
			s.ended = err != nil || s.broken
			left = left || !s.ended
		}
	}
	for s := range l.conns {
		if !s.ended {
			l.engine.counts.unread.Add(1)
		}
	}
}

// drainLate reads what connections have sent that no loop has.
func (l *streamLoop) drainLate(until time.Time) {
	buffer := make([]byte, readAtOnce)
	for _, conn := range l.late {
		s := l.engine.newStream(conn, l)
		for !s.ended && time.Now().Before(until) {
			n, err := readWaiting(conn, buffer)
			if n > 0 {
				l.feed(s, buffer[:n])
			}
			s.orderly = errors.Is(err, io.EOF)
			s.ended = err != nil || s.broken
		}
		if !s.ended {
			l.engine.counts.unread.Add(1)
		}
		l.finish(s, s.orderly)
		_ = conn.Close()
	}
	l.late = nil
}

// readWaiting is readNow for a connection of the standard library.
func readWaiting(conn net.Conn, buffer []byte) (n int, err error) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return 0, err
	}
	if failed := raw.Read(func(fd uintptr) bool {
		n, err = readNow(int(fd), buffer)
		return true
	}); failed != nil {
		return 0, failed
	}
	return n, err
}
