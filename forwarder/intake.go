package forwarder

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/weir-agent/weir/metric"
)

const (
	requestTimeout = 20 * time.Second
	// connectTimeout is the longest that making a connection may take, and as long again
	// TLS. A dial outlives the request it was for, and counts as one of the connections
	// there may be.
	connectTimeout = 5 * time.Second
	keepAlive      = 30 * time.Second // between looks whether the other side is still there
	// payloadVersion is the version of agent-payload that protobuf.go follows.
	payloadVersion = "5.0.215"
	// pingAfter is how long a connection of HTTP/2 may say nothing before it is asked
	// whether it is there, and how long the answer may take.
	pingAfter    = 10 * time.Second
	validatePath = "/api/v1/validate"
)

// intake makes requests to Datadog's intake, or to what stands in for it.
type intake struct {
	base   string // URL without a slash at the end
	key    metric.Secret
	agent  string // name/version
	client *http.Client

	secrets []string // never to be told: see withoutKeys
}

// newClient returns a client for one endpoint.
func newClient(cfg *DestinationConfig) (*http.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() // HTTP/2, and the environment's proxy
	transport.DialContext = dialer().DialContext
	transport.TLSHandshakeTimeout = connectTimeout
	transport.MaxConnsPerHost = cfg.Concurrency + 1 // one for the validation of the key
	transport.MaxIdleConnsPerHost = cfg.Concurrency
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	// A connection whose other end vanished is given up, and not used until the kernel
	// does so after a quarter of an hour.
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter}
	if cfg.CAFile != "" {
		pool, err := certificates(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	proxyOf := proxyConfig(cfg, httpproxy.FromEnvironment()).ProxyFunc()
	transport.Proxy = func(r *http.Request) (*url.URL, error) { return proxyOf(r.URL) }
	return &http.Client{
		Transport: transport,
		Timeout:   requestTimeout,
		// A redirect would take the key to wherever it points.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

func dialer() *net.Dialer { return &net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlive} }

// proxyConfig says which proxy to use: the configured one or, without one, the
// environment's; for the hosts of NO_PROXY and of no_proxy, and for this machine, none.
func proxyConfig(cfg *DestinationConfig, env *httpproxy.Config) *httpproxy.Config {
	if cfg.Proxy != "" {
		env.HTTPProxy, env.HTTPSProxy = cfg.Proxy.Reveal(), cfg.Proxy.Reveal()
	}
	env.NoProxy = strings.Join(append([]string{env.NoProxy}, cfg.NoProxy...), ",")
	env.CGI = false
	return env
}

// parseProxy reads the URL of a proxy, which in the environment may have no scheme.
func parseProxy(text string) (*url.URL, error) {
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		return u, nil
	}
	return url.Parse("http://" + text)
}

// warnOfProxy tells of a proxy in the environment that is none. It is not quoted, as a
// password may be in it.
func warnOfProxy(log *slog.Logger) {
	env := httpproxy.FromEnvironment()
	for name, text := range map[string]string{"HTTP_PROXY": env.HTTPProxy, "HTTPS_PROXY": env.HTTPSProxy} {
		if u, err := parseProxy(text); text != "" && (err != nil || u.Host == "") {
			log.Warn("the variable " + name + " is not the URL of a proxy, and is not heeded; write one such as http://proxy.example.org:3128")
		}
	}
}

// secretsOf returns what must not be read in errors.
func secretsOf(cfg *DestinationConfig, to *EndpointConfig) []string {
	secrets := []string{to.APIKey.Reveal()}
	env := httpproxy.FromEnvironment()
	for _, text := range []string{to.URL, cfg.Proxy.Reveal(), env.HTTPProxy, env.HTTPSProxy} {
		u, err := parseProxy(text)
		if err != nil {
			continue
		}
		if password, set := u.User.Password(); set && password != "" {
			// As it is, as it stands in the URL, and as it is sent.
			secrets = append(secrets, password, url.UserPassword("", password).String()[1:],
				base64.StdEncoding.EncodeToString([]byte(u.User.Username()+":"+password)))
		}
	}
	return secrets
}

// certificates returns the system's certificates and those of a file.
func certificates(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("there is no certificate in %s; it must hold one or more in PEM", file)
	}
	return pool, nil
}

// refusedError is an answer of the intake other than success.
type refusedError struct {
	status     int
	answer     string
	retryAfter time.Duration // 0: it does not say
}

func (e *refusedError) Error() string {
	return fmt.Sprintf("the intake answered %d %s: %s", e.status, http.StatusText(e.status), e.answer)
}

// post delivers a payload.
func (in *intake) post(ctx context.Context, p *payload) error {
	request, err := in.request(ctx, p)
	if err != nil {
		return err
	}
	return in.do(request)
}

// request makes the request that delivers a payload.
func (in *intake) request(ctx context.Context, p *payload) (*http.Request, error) {
	path, _, _ := strings.Cut(p.route.path, "#")
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, in.base+path, bytes.NewReader(p.body))
	if err != nil {
		return nil, err
	}
	in.sign(request)
	request.Header.Set("Content-Type", p.route.contentType)
	if p.encoding != "" {
		request.Header.Set("Content-Encoding", p.encoding)
	}
	if p.route.contentType == typeProtobuf {
		request.Header.Set("DD-Agent-Payload", payloadVersion)
	}
	return request, nil
}

// sign says who asks.
func (in *intake) sign(request *http.Request) {
	_, version, _ := strings.Cut(in.agent, "/")
	request.Header.Set("DD-Api-Key", in.key.Reveal())
	request.Header.Set("DD-Agent-Version", version)
	request.Header.Set("User-Agent", in.agent)
}

// keyIsInvalid asks the intake about the key. Only what the intake says itself counts:
// what cannot be asked is not invalid.
func (in *intake) keyIsInvalid(ctx context.Context) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, in.base+validatePath, nil)
	if err != nil {
		return false
	}
	in.sign(request)
	var refused *refusedError
	return errors.As(in.do(request), &refused) && refused.status == http.StatusForbidden
}

func (in *intake) do(request *http.Request) error {
	response, err := in.client.Do(request)
	if err != nil {
		return in.withoutKeys(err)
	}
	defer response.Body.Close()
	const (
		told = 512      // of the answer
		read = 64 << 10 // of it, so that the connection can be used again
	)
	answer, _ := io.ReadAll(io.LimitReader(response.Body, read)) // it is only told, not needed
	if response.StatusCode/100 == 2 {
		return nil
	}
	text := in.hide(strings.ToValidUTF8(string(answer), "?"))
	return &refusedError{
		status:     response.StatusCode,
		answer:     strings.TrimSpace(text[:min(len(text), told)]),
		retryAfter: retryAfter(response.Header.Get("Retry-After"), time.Now()),
	}
}

// hide takes secrets out of a text, which others wrote: they may repeat what they got.
func (in *intake) hide(text string) string {
	for _, secret := range in.secrets {
		text = strings.ReplaceAll(text, secret, metric.Secret(secret).String())
	}
	return text
}

// withoutKeys returns err, or another that says the same without a secret in it: net/http
// quotes answers that are no HTTP.
func (in *intake) withoutKeys(err error) error {
	text := err.Error()
	if hidden := in.hide(text); hidden != text {
		return errors.New(hidden)
	}
	return err
}

// retryAfter reads the header of that name: seconds or a date.
func retryAfter(text string, now time.Time) time.Duration {
	var after time.Duration
	if seconds, err := strconv.ParseUint(strings.TrimSpace(text), 10, 64); err == nil {
		after = time.Duration(min(seconds, uint64(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		after = at.Sub(now)
	}
	return min(max(after, 0), maxRetryAfter)
}
