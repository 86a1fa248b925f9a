package plan

import (
	"encoding/base64"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"

	"github.com/weir-agent/weir/metric"
	"github.com/weir-agent/weir/parser"
)

// socket is where a client sends to.
type socket struct {
	conn net.PacketConn
	port string
}

func listenUDP(t *testing.T) *socket {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	return &socket{conn, port}
}

// read returns the first line of the next datagram.
func (s *socket) read(t *testing.T) string {
	t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 64<<10)
	n, _, err := s.conn.ReadFrom(buffer)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(buffer[:n]), "\n")
	return line
}

// acceptExample checks that a client's line is the example, every attribute of it.
func acceptExample(t *testing.T, p *Plan, line string, influx bool) {
	t.Helper()
	cfg := parser.DefaultConfig()
	if influx {
		cfg.TagStyle = "influx"
	}
	lines, reader := metric.Lines{}, parser.New(cfg)
	var id metric.Identity
	if reader.Packet([]byte(line), false, &lines); len(lines.Samples) != 1 || reader.Describe(&lines.Samples[0], &id) != metric.Accepted {
		t.Fatalf("no sample: %q", line)
	}
	name, ok := strings.CutPrefix(string(id.Name), "analytics.")
	if !ok {
		t.Fatalf("no event: %q", line)
	}
	var r Result
	p.Check([]byte(name), &id, &r)
	const want = "count ok user_id=42 organization_id=42 plan=free seats=42 price=9.5 trial=true note=any text, of any length" +
		" starts_at=2026-11-20T22:00:00.000Z colour=any text, of any length"
	if r.String() != want {
		t.Errorf("%s\ngot:  %s\nwant: %s", line, &r, want)
	}
}

// The code for Go is what this test itself does: the snippet's tags, by the real
// client.
func TestSnippetForGo(t *testing.T) {
	files, e, err := Empty(DefaultOptions()).Make(everything)
	if err != nil {
		t.Fatal(err)
	}
	p := asFolder(t, files)
	code := e.Snippet("go", "analytics.")
	escape := func(s string) string { return "b64." + base64.RawURLEncoding.EncodeToString([]byte(s)) }
	var tags []string
	for _, m := range regexp.MustCompile(`(?m)^\t"([^"]*)"(?: \+ escape\("([^"]*)"\))?,$`).FindAllStringSubmatch(code, -1) {
		tag := m[1]
		if m[2] != "" {
			tag += escape(m[2])
		}
		tags = append(tags, tag)
	}
	socket := listenUDP(t)
	client, err := statsd.New("127.0.0.1:"+socket.port, statsd.WithoutTelemetry(), statsd.WithoutClientSideAggregation())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Count("analytics.team.created", 1, tags, 1); err != nil {
		t.Fatal(err)
	}
	if err := client.Flush(); err != nil {
		t.Fatal(err)
	}
	acceptExample(t, p, socket.read(t), false)
}
