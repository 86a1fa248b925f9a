package forwarder

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weir-agent/weir/internal/testkit"
)

// fault is what goes wrong with connections or requests.
type fault int

const (
	nothing fault = iota

	// Of the network.
	refused
	noName
	dialHangs
	wrongCertificate
	cut // open connections break, new ones are refused

	// Of the intake.
	answers500
	answers503
	answers503Later
	answers408
	answers404
	answers429
	answers429Later
	answers429MuchLater
	answers403
	answers413
	answers400
	resetsInBody
	resetsAfterBody
	hangs
	slowBody
	slowAnswer
	tricklesAnswer
	faults
)

func (f fault) String() string {
	return [faults]string{
		"nothing", "refused", "no name", "dial hangs", "wrong certificate", "cut", "500", "503", "503, Retry-After", "408", "404",
		"429", "429, Retry-After", "429, Retry-After an hour", "403", "413", "400", "reset in body", "reset after body",
		"hangs", "slow body", "slow answer", "trickling answer",
	}[f]
}

// weather is what goes wrong for a while.
type weather struct {
	lasts time.Duration
	fault fault
	share float64 // of the requests
	path  string  // of the route; "": all
}

func (w weather) String() string {
	return fmt.Sprintf("%v: %v of %.0f %% of %q", w.lasts.Round(time.Second), w.fault, 100*w.share, w.path)
}

// forecast draws a plan of faults.
func forecast(random *rand.Rand, lasts time.Duration) (plan []weather) {
	for lasts > 0 {
		w := weather{
			lasts: min(lasts, time.Second+rand2(random, 40*time.Second)),
			fault: fault(random.IntN(int(faults))),
			share: []float64{1, 0.5, 0.2}[random.IntN(3)],
		}
		if w.fault > cut && random.IntN(3) == 0 {
			w.path = routes[random.IntN(len(routes))].path
		}
		plan = append(plan, w)
		lasts -= w.lasts
	}
	return plan
}

func rand2(random *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(most)))
}

// chaosNet is a network in memory with an intake at its end, which works as the
// weather is. It lives in a synctest bubble.
type chaosNet struct {
	tb      testing.TB
	intake  testkit.Intake
	server  *http.Server
	accept  chan net.Conn
	closed  chan struct{}
	secure  bool
	latency time.Duration // of an answer

	accepting sync.RWMutex // held while an answer goes out, so that no connection breaks then

	mu       sync.Mutex // guards the fields below
	random   *rand.Rand
	weather  weather
	conns    map[net.Conn]bool // the intake's ends of them
	dialed   int               // connections that the agent has open
	now, top int               // POST requests at once
	rejected uint64            // points in payloads that were answered with 400
	tooLarge uint64            // in those of one point, with 413
	seen     map[fault]int     // requests and dials, by what went wrong
	arrivals []arrival
}

// connKey is under which the context of a request has its connection.
type connKey struct{}

// arrival is a request that the intake has accepted.
type arrival struct {
	at    time.Time
	path  string
	start time.Time // of the interval of its points
}

func newChaosNet(tb testing.TB, random *rand.Rand, protocol string) *chaosNet {
	n := &chaosNet{
		tb: tb, random: random, accept: make(chan net.Conn), closed: make(chan struct{}),
		conns: map[net.Conn]bool{}, seen: map[fault]int{}, secure: protocol != "http",
	}
	n.server = &http.Server{Handler: n, ErrorLog: log.New(io.Discard, "", 0), ConnState: func(c net.Conn, state http.ConnState) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if state == http.StateNew {
			n.conns[c] = true
		} else if state == http.StateClosed || state == http.StateHijacked {
			delete(n.conns, c)
		}
	}}
	n.server.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	n.server.Protocols = new(http.Protocols)
	n.server.Protocols.SetHTTP1(protocol != "h2")
	n.server.Protocols.SetHTTP2(protocol == "h2")
	if n.secure {
		n.server.TLSConfig = &tls.Config{GetCertificate: n.certificate}
		go n.server.ServeTLS(n, "", "")
	} else {
		go n.server.Serve(n)
	}
	return n
}

// connect makes a forwarder's datadog destinations use the network.
func (n *chaosNet) connect(d *datadog) {
	for _, in := range d.intakes {
		transport := in.client.Transport.(*http.Transport)
		transport.Proxy, transport.DialContext = nil, n.dial
		transport.TLSClientConfig.RootCAs = chaosCertificates().pool
	}
}

func (n *chaosNet) url() string {
	if n.secure {
		return "https://intake.test"
	}
	return "http://intake.test"
}

// Accept, Close and Addr make it a net.Listener.
func (n *chaosNet) Accept() (net.Conn, error) {
	select {
	case c := <-n.accept:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *chaosNet) Close() error {
	select {
	case <-n.closed:
	default:
		close(n.closed)
	}
	return nil
}

func (n *chaosNet) Addr() net.Addr { return &net.TCPAddr{} }

func (n *chaosNet) end() {
	if err := n.server.Close(); err != nil {
		n.tb.Error(err)
	}
}

// set changes the weather.
func (n *chaosNet) set(w weather) {
	n.mu.Lock()
	n.weather = w
	var broken []net.Conn
	if w.fault == cut {
		for c := range n.conns {
			broken = append(broken, c)
		}
		clear(n.conns)
	}
	n.mu.Unlock()
	n.accepting.Lock()
	defer n.accepting.Unlock()
	for _, c := range broken {
		c.Close()
	}
}

// live lets the weather change as planned, and be fine afterwards.
func (n *chaosNet) live(plan []weather) {
	for _, w := range plan {
		n.set(w)
		time.Sleep(w.lasts)
	}
	n.set(weather{})
}

// goesWrong returns what goes wrong now.
func (n *chaosNet) goesWrong(path string) fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.weather
	if w.path != "" && w.path != path || w.share < 1 && n.random.Float64() >= w.share {
		return nothing
	}
	n.seen[w.fault]++
	return w.fault
}

func (n *chaosNet) draw(most time.Duration) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return rand2(n.random, most)
}

func (n *chaosNet) dial(ctx context.Context, _, address string) (net.Conn, error) {
	fail := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: err}
	}
	switch n.goesWrong("") {
	case refused, cut:
		return nil, fail(syscall.ECONNREFUSED)
	case noName:
		return nil, fail(&net.DNSError{Err: "no such host", Name: address, IsNotFound: true})
	case dialHangs: // no request ends it, but what TestConnectionsAreMadeInTime looks at
		_ = pause(ctx, 5*time.Second)
		return nil, fail(context.DeadlineExceeded)
	}
	ours, theirs := net.Pipe()
	select {
	case n.accept <- theirs:
		n.mu.Lock()
		defer n.mu.Unlock()
		n.dialed++
		return &countedConn{Conn: ours, n: n}, nil
	case <-n.closed:
		return nil, fail(syscall.ECONNREFUSED)
	case <-ctx.Done():
		return nil, fail(ctx.Err())
	}
}

// countedConn is the agent's end of a connection.
type countedConn struct {
	net.Conn
	n    *chaosNet
	once sync.Once
}

// Write takes an alert of TLS 1.3 as a kernel would, and not when the other side reads it:
// one is written before a connection is closed, also by an agent that stops.
func (c *countedConn) Write(p []byte) (int, error) {
	const alert = 5 + 2 + 1 + 16 // header, alert, type, sum
	if c.n.secure && len(p) == alert {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.n.mu.Lock()
		defer c.n.mu.Unlock()
		c.n.dialed--
	})
	return c.Conn.Close()
}

// ServeHTTP takes a payload, or not.
func (n *chaosNet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		n.intake.ServeHTTP(w, r)
		return
	}
	n.mu.Lock()
	n.now++
	n.top = max(n.top, n.now)
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.now--
	}()
	// A timer of 0 s in a bubble makes the race detector crash Go 1.26's runtime.
	if n.latency > 0 && pause(r.Context(), n.latency) != nil {
		panic(http.ErrAbortHandler) // to return would be to answer 200
	}
	f := n.goesWrong(r.URL.Path)
	if f == resetsInBody {
		_, _ = io.CopyN(io.Discard, r.Body, 1+r.ContentLength/2)
		panic(http.ErrAbortHandler)
	}
	body, err := n.body(r, f == slowBody)
	if err != nil {
		panic(http.ErrAbortHandler) // the client went away
	}
	switch f {
	case answers500, answers503, answers408, answers404, answers429, answers403:
		w.WriteHeader(map[fault]int{answers500: 500, answers503: 503, answers408: 408, answers404: 404, answers429: 429, answers403: 403}[f])
		return
	case answers503Later, answers429Later, answers429MuchLater:
		after := 1 + int(n.draw(30*time.Second)/time.Second)
		if f == answers429MuchLater {
			after = 3600
		}
		w.Header().Set("Retry-After", fmt.Sprint(after))
		w.WriteHeader(map[fault]int{answers503Later: 503, answers429Later: 429, answers429MuchLater: 429}[f])
		return
	case answers400, answers413:
		points := uint64(len(n.contents(r, body)))
		n.mu.Lock()
		if f == answers400 {
			n.rejected += points
		} else if points == 1 {
			n.tooLarge++
		}
		n.mu.Unlock()
		w.WriteHeader(map[fault]int{answers400: 400, answers413: 413}[f])
		return
	case resetsAfterBody:
		panic(http.ErrAbortHandler)
	case hangs:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case slowAnswer:
		if pause(r.Context(), n.draw(30*time.Second)) != nil {
			panic(http.ErrAbortHandler)
		}
	}
	if !n.acceptPayload(w, r, body) {
		panic(http.ErrAbortHandler)
	}
	for f == tricklesAnswer && http.NewResponseController(w).Flush() == nil && pause(r.Context(), time.Second) == nil {
		if _, err := io.WriteString(w, "."); err != nil {
			break
		}
	}
}

// acceptPayload takes a payload and answers, unless the connection is being cut: what is
// taken and not answered would rightly come again.
func (n *chaosNet) acceptPayload(w http.ResponseWriter, r *http.Request, body []byte) bool {
	n.accepting.RLock()
	defer n.accepting.RUnlock()
	start := n.startOf(r, body)
	n.mu.Lock()
	whole := n.conns[r.Context().Value(connKey{}).(net.Conn)]
	if whole {
		n.arrivals = append(n.arrivals, arrival{time.Now(), r.URL.Path, start})
	}
	n.mu.Unlock()
	if whole {
		r.Body = io.NopCloser(bytes.NewReader(body))
		n.intake.ServeHTTP(w, r)
		_ = http.NewResponseController(w).Flush()
	}
	return whole
}

// body reads the body of a request; slowly, if so.
func (n *chaosNet) body(r *http.Request, slowly bool) ([]byte, error) {
	if !slowly {
		return io.ReadAll(r.Body)
	}
	var body []byte
	part := make([]byte, 1+r.ContentLength/20)
	each := n.draw(1500 * time.Millisecond)
	for {
		if err := pause(r.Context(), each); err != nil {
			return nil, err
		}
		k, err := io.ReadFull(r.Body, part)
		body = append(body, part[:k]...)
		if err == io.EOF || err == io.ErrUnexpectedEOF && int64(len(body)) == r.ContentLength {
			// By HTTP/1 the server looks whether the client is still there from now on.
			return body, pause(r.Context(), time.Millisecond)
		}
		if err != nil {
			return nil, err
		}
	}
}

// contents returns the records of a payload.
func (n *chaosNet) contents(r *http.Request, body []byte) []item {
	raw, err := decompress(r.Header.Get("Content-Encoding"), body, maxRecordBody)
	if err != nil {
		n.tb.Error(err)
		return nil
	}
	for _, known := range routes {
		if known.path == r.URL.Path {
			c, err := unpack(known, raw)
			if err != nil {
				n.tb.Error(err)
			}
			return c.items
		}
	}
	n.tb.Errorf("a request to %s", r.URL.Path)
	return nil
}

// startOf returns the interval of a payload's points, as the names that chaosLoad makes
// say it.
func (n *chaosNet) startOf(r *http.Request, body []byte) (start time.Time) {
	var seconds int64
	for i, route := range routes {
		if route.path == r.URL.Path {
			_, _ = fmt.Sscanf(itemName(routes[i], n.contents(r, body)[0].raw), "at.%d.", &seconds)
		}
	}
	return time.Unix(seconds, 0).UTC()
}

// forget forgets what has arrived.
func (n *chaosNet) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.arrivals = nil
	n.intake.Forget()
}

// content returns what the intake has accepted, each thing as chaosLoad notes it, and
// how often.
func (n *chaosNet) content() map[string]int {
	got := map[string]int{}
	for _, p := range n.intake.Points() {
		got[fmt.Sprint("series ", p.Metric, p.Tags, p.Time, p.Value)]++
	}
	for _, s := range n.intake.Sketches() {
		got[fmt.Sprint("sketch ", s.Metric, s.Tags, s.Time, s.Sum)]++
	}
	for _, e := range n.intake.Events() {
		got[fmt.Sprint("event ", e.Title, e.Time)]++
	}
	for _, c := range n.intake.Checks() {
		got[fmt.Sprint("check ", c.Name, c.Time)]++
	}
	return got
}

// certificate returns the intake's certificate or, if that goes wrong, one of nobody
// known.
func (n *chaosNet) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	certificates := chaosCertificates()
	if n.goesWrong("") == wrongCertificate {
		return &certificates.wrong, nil
	}
	return &certificates.right, nil
}

type certificatePair struct {
	right, wrong tls.Certificate
	pool         *x509.CertPool
}

var chaosCertificates = sync.OnceValue(func() (pair certificatePair) {
	issue := func() tls.Certificate {
		key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
		if err != nil {
			panic(err)
		}
		template := x509.Certificate{
			SerialNumber: big.NewInt(1), DNSNames: []string{"intake.test"}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<34, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		der, err := x509.CreateCertificate(crand.Reader, &template, &template, &key.PublicKey, key)
		if err != nil {
			panic(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			panic(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	}
	pair.right, pair.wrong = issue(), issue()
	pair.pool = x509.NewCertPool()
	pair.pool.AddCert(pair.right.Leaf)
	return pair
})

func describe(plan []weather) string {
	var text strings.Builder
	for _, w := range plan {
		fmt.Fprintln(&text, "  ", w)
	}
	return text.String()
}
