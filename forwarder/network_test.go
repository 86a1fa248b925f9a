package forwarder

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/weir-agent/weir/internal/testkit"
	"github.com/weir-agent/weir/metric"
)

// overTLS starts an intake that speaks TLS as cfg says, and returns a file with its
// certificate, which is for example.com and 127.0.0.1.
func overTLS(t *testing.T, cfg *tls.Config) (in *testkit.Intake, caFile string) {
	t.Helper()
	in = &testkit.Intake{}
	in.Server = httptest.NewUnstartedServer(in)
	in.TLS = cfg
	in.EnableHTTP2 = true
	in.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	in.StartTLS()
	t.Cleanup(in.Close)
	caFile = filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: in.Certificate().Raw})
	if err := os.WriteFile(caFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return in, caFile
}

// toTry is a configuration that does not wait long for what is in vain, and a batch
// that is not too old.
func toTry(url string) (Config, *metric.Batch) {
	cfg := toDatadog(url)
	cfg.ShutdownTimeout = 500 * time.Millisecond
	b := example()
	b.Start = time.Now()
	return cfg, b
}

// What hangs while a connection is made leaves the greater part of a request's time for
// the request, or for another one.
func TestConnectionsAreMadeInTime(t *testing.T) {
	if most := requestTimeout / 4; dialer().Timeout == 0 || dialer().Timeout > most {
		t.Errorf("a dial may take %v, want %v at most", dialer().Timeout, most)
	}
	synctest.Test(t, func(t *testing.T) {
		cfg, _ := toTry("https://intake.test")
		client, err := newClient(&cfg.Forwarders[0])
		if err != nil {
			t.Fatal(err)
		}
		transport := client.Transport.(*http.Transport)
		transport.Proxy = nil
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }() // says nothing
			return ours, nil
		}
		begun := time.Now()
		in := intake{base: "https://intake.test", key: "k", client: client}
		if err := in.post(context.Background(), &payload{route: &seriesRoute}); err == nil || time.Since(begun) > requestTimeout/4 {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

// An answer that is longer than anybody reads does not take its connection away from the
// next request.
func TestLongAnswers(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 8<<20))
	}))
	defer server.Close()
	cfg, _ := toTry(server.URL)
	cfg.Resolve(Defaults{})
	client, err := newClient(&cfg.Forwarders[0])
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout/2)
	defer cancel()
	in := intake{base: server.URL, key: "k", client: client}
	for i := range 2 * (defaultConcurrency + 1) {
		if err := in.post(ctx, &payload{route: &seriesRoute, body: []byte("x")}); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	client.CloseIdleConnections()
}

// A private authority's certificates count if they are configured, TLS 1.2 is the least
// there is, and HTTP/2 is spoken where it is understood.
func TestTLS(t *testing.T) {
	for _, test := range []struct {
		name    string
		tls     *tls.Config
		trusted bool
		want    string // in the log; "": delivered
	}{
		{"a private authority", &tls.Config{}, true, ""},
		{"TLS 1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, true, ""},
		{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, true, "protocol version not supported"},
		{"an unknown authority", &tls.Config{}, false, "certificate signed by unknown authority"},
	} {
		t.Run(test.name, func(t *testing.T) {
			in, caFile := overTLS(t, test.tls)
			var major atomic.Int64
			in.Fault = func(r *http.Request) int { major.Store(int64(r.ProtoMajor)); return 0 }
			cfg, b := toTry(in.URL)
			if test.want == "" {
				cfg.ShutdownTimeout = time.Minute
			}
			if test.trusted {
				cfg.Forwarders[0].CAFile = caFile
			}
			f, log := deliver(t, cfg, b)
			if test.want == "" {
				if s := f.Stats()[0]; s.Delivered != 5 || major.Load() != 2 {
					t.Errorf("by HTTP/%d: %+v\n%s", major.Load(), s, log)
				}
				return
			}
			if s := f.Stats()[0]; s.Delivered != 0 || !strings.Contains(log, test.want) {
				t.Errorf("%+v\n%s", s, log)
			}
		})
	}
}

func TestCAFileIsChecked(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage.pem")
	if err := os.WriteFile(garbage, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		garbage:              "forwarders[0].ca_file: there is no certificate in " + garbage,
		garbage + ".missing": "forwarders[0].ca_file: open " + garbage + ".missing: no such file",
	} {
		cfg := toDatadog("")
		cfg.Forwarders[0].CAFile = file
		cfg.Resolve(Defaults{})
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

const (
	proxyUser     = "weir"
	proxyPassword = "s3cr3t/of+the proxy"
)

// testProxy leads every host to one address, for those who know the password. It
// repeats what others send.
type testProxy struct {
	*httptest.Server
	to   string
	seen sync.Map // "CONNECT example.com:443" and "POST http://…"
}

func startProxy(t *testing.T, to string) *testProxy {
	p := &testProxy{to: to}
	p.Server = httptest.NewServer(p)
	t.Cleanup(p.Close)
	return p
}

// url returns the proxy's with a user and a password.
func (p *testProxy) url(password string) string {
	u, _ := url.Parse(p.URL)
	u.User = url.UserPassword(proxyUser, password)
	return u.String()
}

func (p *testProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	credentials := r.Header.Get("Proxy-Authorization")
	asked := &http.Request{Header: http.Header{"Authorization": {credentials}}}
	if user, password, ok := asked.BasicAuth(); !ok || user != proxyUser || password != proxyPassword {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 407 no %s %s\r\nContent-Length: 0\r\n\r\n", credentials, password)
		return
	}
	if r.Method != http.MethodConnect {
		p.seen.Store(r.Method+" "+r.URL.String(), true)
		r.RequestURI, r.URL.Host = "", p.to
		r.Header.Del("Proxy-Authorization")
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer response.Body.Close()
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
		return
	}
	p.seen.Store(r.Method+" "+r.Host, true)
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer out.Close()
	w.WriteHeader(http.StatusOK)
	in, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	go func() { _, _ = io.Copy(out, in); out.Close() }()
	_, _ = io.Copy(in, out)
}

// withoutProxies unsets what the environment of the test says about proxies.
func withoutProxies(t *testing.T) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
		t.Setenv(name, "")
		t.Setenv(strings.ToLower(name), "")
	}
}

// A proxy leads to the intake, configured or from the environment, with TLS through it;
// its password is nowhere to be read.
func TestProxy(t *testing.T) {
	for _, test := range []struct {
		name, scheme, variable, password string
	}{
		{"configured", "https", "", proxyPassword},
		{"configured, without TLS", "http", "", proxyPassword},
		{"from the environment", "https", "HTTPS_PROXY", proxyPassword},
		{"from the environment, without TLS", "http", "HTTP_PROXY", proxyPassword},
		{"a wrong password", "https", "", "wr0ng pass/word"},
		{"a wrong password, without TLS", "http", "", "wr0ng pass/word"},
		{"a wrong password in the environment", "https", "HTTPS_PROXY", "wr0ng pass/word"},
	} {
		t.Run(test.name, func(t *testing.T) {
			withoutProxies(t)
			plain := testkit.NewIntake(t)
			secure, caFile := overTLS(t, &tls.Config{})
			in, host, request := secure, "example.com", "CONNECT example.com:443"
			if test.scheme == "http" {
				in, host, request = plain, "intake.example.org", "POST http://intake.example.org/api/v2/series"
			}
			proxy := startProxy(t, in.Listener.Addr().String())
			cfg, b := toTry(test.scheme + "://" + host)
			cfg.Forwarders[0].CAFile = caFile
			if test.variable == "" {
				cfg.Forwarders[0].Proxy = metric.Secret(proxy.url(test.password))
			} else {
				t.Setenv(test.variable, proxy.url(test.password))
			}
			right := test.password == proxyPassword
			if right {
				cfg.ShutdownTimeout = time.Minute
			}
			f, log := deliver(t, cfg, b)
			_, seen := proxy.seen.Load(request)
			if s := f.Stats()[0]; right != seen || right != (s.Delivered == 5) {
				t.Errorf("the proxy has seen %s: %v; %+v\n%s", request, seen, s, log)
			}
			if !right && !strings.Contains(log, "407") && !strings.Contains(log, "no Basic [hidden]") {
				t.Errorf("the log does not say what is wrong:\n%s", log)
			}
			u, _ := url.Parse(proxy.url(test.password))
			written, _, _ := strings.Cut(u.User.String()[len(proxyUser)+1:], "@")
			asked := &http.Request{Header: http.Header{}}
			asked.SetBasicAuth(proxyUser, test.password)
			for _, secret := range []string{test.password, written, strings.TrimPrefix(asked.Header.Get("Authorization"), "Basic "), testkit.APIKey} {
				if strings.Contains(log, secret) {
					t.Errorf("the log shows %q:\n%s", secret, log)
				}
			}
		})
	}
}

// Which requests go by which proxy.
func TestWhichProxy(t *testing.T) {
	const configured, https, http = "http://configured:1", "http://of-https:2", "http://of-http:3"
	for _, test := range []struct {
		name, proxy, noProxy string   // noProxy: of the environment
		hosts                []string // configured
		url, want            string
	}{
		{"by scheme", "", "", nil, "https://api.datadoghq.com", https},
		{"by scheme", "", "", nil, "http://intake.example.org", http},
		{"configured", configured, "", nil, "https://api.datadoghq.com", configured},
		{"configured", configured, "", nil, "http://intake.example.org", configured},
		{"this machine", configured, "", nil, "http://127.0.0.1:8080", ""},
		{"NO_PROXY", "", ".example.org,10.0.0.0/8", nil, "http://intake.example.org", ""},
		{"NO_PROXY", "", ".example.org,10.0.0.0/8", nil, "https://10.1.2.3", ""},
		{"NO_PROXY", configured, "example.org", nil, "https://intake.example.org", ""},
		{"NO_PROXY, another host", configured, "example.org", nil, "https://intake.example.com", configured},
		{"no_proxy", configured, "", []string{"other.org", "example.org"}, "https://intake.example.org", ""},
		{"no_proxy and NO_PROXY", configured, "example.org", []string{"other.org"}, "https://intake.example.org", ""},
		{"no_proxy, another host", "", "", []string{"example.org"}, "https://example.com", https},
	} {
		cfg := DestinationConfig{Proxy: metric.Secret(test.proxy), NoProxy: test.hosts}
		u, err := url.Parse(test.url)
		if err != nil {
			t.Fatal(err)
		}
		env := &httpproxy.Config{HTTPProxy: http, HTTPSProxy: https, NoProxy: test.noProxy, CGI: true}
		got, err := proxyConfig(&cfg, env).ProxyFunc()(u)
		if err != nil || got == nil != (test.want == "") || got != nil && got.String() != test.want {
			t.Errorf("%s: %s by %v, %v; want %q", test.name, test.url, got, err, test.want)
		}
	}
}

// A proxy that is none is told, without what may be a password.
func TestAProxyThatIsNone(t *testing.T) {
	withoutProxies(t)
	t.Setenv("HTTPS_PROXY", "http://user:pa%ss@proxy")
	cfg, b := toTry(testkit.NewIntake(t).URL)
	cfg.ShutdownTimeout = time.Minute
	_, log := deliver(t, cfg, b)
	if !strings.Contains(log, "HTTPS_PROXY is not the URL of a proxy") || strings.Contains(log, "pa%ss") {
		t.Errorf("log:\n%s", log)
	}
}

// silentNetwork is a network of one server whose connections can fall silent.
type silentNetwork struct {
	conns chan net.Conn
	once  sync.Once

	mu    sync.Mutex // guards the fields below
	all   []*silentConn
	dials int
}

type silentConn struct {
	net.Conn
	silent chan struct{} // closed: nothing arrives any more
}

func (p *silentConn) Write(b []byte) (int, error) {
	select {
	case <-p.silent:
		return len(b), nil // into nowhere
	default:
		return p.Conn.Write(b)
	}
}

func (n *silentNetwork) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	p := &silentConn{client, make(chan struct{})}
	n.mu.Lock()
	n.all = append(n.all, p)
	n.dials++
	n.mu.Unlock()
	n.conns <- server
	return p, nil
}

func (n *silentNetwork) silence() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.all {
		close(p.silent)
	}
	n.all = nil
}

func (n *silentNetwork) Accept() (net.Conn, error) {
	if c, ok := <-n.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (n *silentNetwork) Close() error   { n.once.Do(func() { close(n.conns) }); return nil }
func (n *silentNetwork) Addr() net.Addr { return &net.TCPAddr{} }

// A connection of HTTP/2 whose other end vanished without a word is given up and
// replaced; without pings it would be tried for a quarter of an hour.
func TestAConnectionThatFallsSilent(t *testing.T) {
	in, caFile := overTLS(t, &tls.Config{})
	certificates := in.TLS.Certificates
	synctest.Test(t, func(t *testing.T) {
		network := &silentNetwork{conns: make(chan net.Conn)}
		server := &http.Server{
			Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) }),
			TLSConfig: &tls.Config{Certificates: certificates, Time: func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }},
		}
		ended := make(chan struct{})
		go func() { defer close(ended); _ = server.ServeTLS(network, "", "") }()
		client, err := newClient(&DestinationConfig{CAFile: caFile})
		if err != nil {
			t.Fatal(err)
		}
		transport := client.Transport.(*http.Transport)
		transport.Proxy, transport.DialContext = nil, network.dial
		inTime := func() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }
		transport.TLSClientConfig.Time = inTime
		target := &intake{base: "https://example.com", client: client, agent: "weir/1"}
		post := func() error {
			return target.post(context.Background(), &payload{route: &seriesRoute, body: []byte("x")})
		}
		if err := post(); err != nil {
			t.Fatal(err)
		}
		network.silence()
		failed := 0
		for ; post() != nil && failed < 100; failed++ {
			time.Sleep(time.Second)
		}
		if failed == 0 || failed > 2 {
			t.Errorf("%d requests failed", failed)
		}
		client.CloseIdleConnections()
		server.Close()
		<-ended
	})
}

// answerFunc is the other end of a client.
type answerFunc func(*http.Request) (*http.Response, error)

func (f answerFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A key is validated at the start and every hour; one that is not valid is told with
// what to do, and an intake that does not answer tells nothing of the key.
func TestKeysAreValidated(t *testing.T) {
	status := func(code int) (*http.Response, error) {
		return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}"))}, nil
	}
	for _, test := range []struct {
		name   string
		answer answerFunc
		told   bool
	}{
		{"valid", func(*http.Request) (*http.Response, error) { return status(200) }, false},
		{"invalid", func(*http.Request) (*http.Response, error) { return status(403) }, true},
		{"500", func(*http.Request) (*http.Response, error) { return status(500) }, false},
		{"404", func(*http.Request) (*http.Response, error) { return status(404) }, false},
		{"no answer", func(*http.Request) (*http.Response, error) { return nil, errors.New("no route to host") }, false},
		{"hangs", func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log lockedBuffer
				var mu sync.Mutex
				var asked []string
				d := &datadog{log: slog.New(slog.NewTextHandler(&log, nil))}
				in := &intake{base: "https://api.example.org", key: testkit.APIKey, agent: "weir/1", client: &http.Client{
					Timeout: requestTimeout,
					Transport: answerFunc(func(r *http.Request) (*http.Response, error) {
						mu.Lock()
						asked = append(asked, r.Method+" "+r.URL.String()+" "+r.Header.Get("DD-Api-Key"))
						mu.Unlock()
						return test.answer(r)
					}),
				}}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan struct{})
				go func() { defer close(ended); d.validate(ctx, in, "datadog/additional.1") }()
				synctest.Wait()
				mu.Lock()
				if len(asked) != 1 {
					t.Errorf("%d requests at the start", len(asked))
				}
				mu.Unlock()
				time.Sleep(2*validateEvery + 5*requestTimeout)
				cancel()
				<-ended
				for _, request := range asked {
					if request != "GET https://api.example.org/api/v1/validate "+testkit.APIKey {
						t.Errorf("asked %s", request)
					}
				}
				told := strings.Count(log.String(), "level=ERROR")
				if want := map[bool]int{true: 3}[test.told]; len(asked) != 3 || told != want {
					t.Errorf("asked %d times, told %d times, want 3 and %d:\n%s", len(asked), told, want, log.String())
				}
				if test.told && !(strings.Contains(log.String(), "check api_key") && strings.Contains(log.String(), "forwarder=datadog/additional.1")) {
					t.Errorf("the log does not say what to do, and where:\n%s", log.String())
				}
			})
		})
	}
}

// What a server may answer to read the key in the log. Each repeats all it got.
func TestTheKeyIsInNoError(t *testing.T) {
	raw := func(answer func(request string) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				defer conn.Close()
				fmt.Fprint(conn, answer(r.Header.Get("DD-Api-Key")))
			}
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"400": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, fmt.Sprint(r.Header), http.StatusBadRequest)
		},
		"403": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, fmt.Sprint(r.Header), http.StatusForbidden)
		},
		"413": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, fmt.Sprint(r.Header), http.StatusRequestEntityTooLarge)
		},
		"500": func(w http.ResponseWriter, r *http.Request) { http.Error(w, fmt.Sprint(r.Header), 500) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/"+r.Header.Get("DD-Api-Key"), http.StatusTemporaryRedirect)
		},
		"no HTTP":   raw(func(key string) string { return key + "\r\n\r\n" }),
		"status":    raw(func(key string) string { return "HTTP/1.1 2x0 " + key + "\r\n\r\n" }),
		"header":    raw(func(key string) string { return "HTTP/1.1 200 OK\r\n" + key + "\r\n\r\n" }),
		"length":    raw(func(key string) string { return "HTTP/1.1 200 OK\r\nContent-Length: " + key + "\r\n\r\n" }),
		"encoding":  raw(func(key string) string { return "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + key + "\r\n\r\n" }),
		"retry":     raw(func(key string) string { return "HTTP/1.1 503 " + key + "\r\nRetry-After: " + key + "\r\n\r\n" }),
		"100":       raw(func(key string) string { return "HTTP/1.1 101 " + key + "\r\nUpgrade: " + key + "\r\n\r\n" }),
		"hangs up":  raw(func(string) string { return "" }),
		"truncated": raw(func(key string) string { return "HTTP/1.1 400 no\r\nContent-Length: 999\r\n\r\n" + key }),
	} {
		t.Run(name, func(t *testing.T) {
			in := testkit.NewIntake(t)
			in.Config.Handler = answer
			cfg, b := toTry(in.URL)
			cfg.ShutdownTimeout = 100 * time.Millisecond
			_, queue, end := runForTest(t, cfg)
			queue <- b
			close(queue)
			log := end()
			if strings.Contains(log, testkit.APIKey) || !strings.Contains(log, "level=") {
				t.Errorf("log:\n%s", log)
			}
		})
	}
}
