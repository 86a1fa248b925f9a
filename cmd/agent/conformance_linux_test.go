package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weir-agent/weir/parser"
)

// conformanceSocket is a socket of the agent and how one speaks to it.
type conformanceSocket struct {
	Network  string
	Address  string
	Dialect  string
	TagStyle string
}

// TestConformanceOnEveryTransport sends all rows to the built agent by every
// transport, to a socket for each dialect and style of tags. What one row makes
// must not mix with what another makes, so names get the number of socket and row
// in front.
func TestConformanceOnEveryTransport(t *testing.T) {
	rows := readConformance(t)
	folder := t.TempDir()
	port := portForAll(t)
	var sockets []conformanceSocket
	for _, network := range []string{"udp", "unix_datagram", "unix_stream", "tcp"} {
		for _, dialect := range []string{parser.DialectDogStatsD, parser.DialectStatsD} {
			for _, style := range []string{parser.TagsDogStatsD, parser.TagsInflux, parser.TagsGraphite, parser.TagsSignalFx} {
				address := fmt.Sprintf("127.0.1.%d:%d", len(sockets)+1, port)
				if strings.HasPrefix(network, "unix") {
					address = filepath.Join(folder, strconv.Itoa(len(sockets)))
				}
				sockets = append(sockets, conformanceSocket{network, address, dialect, style})
			}
		}
	}
	cfg := fmt.Sprintf("hostname: %s\nflush_interval: 600s\nexpiry: {context: 600s, zero_fill: 0s}\nlisten:\n  udp: \"\"\n  readers: 1\n  more:\n", conformanceHost)
	for _, s := range sockets {
		cfg += fmt.Sprintf("    - {network: %s, address: '%s', dialect: %s, tag_style: %s}\n", s.Network, s.Address, s.Dialect, s.TagStyle)
	}
	file := filepath.Join(folder, "weir.yaml")
	if err := os.WriteFile(file, []byte(cfg), 0o600); err != nil {
		t.Fatal(err)
	}
	binaryPath := build(t)

	for try := 1; ; try++ {
		p := startWith(t, binaryPath, func(cmd *exec.Cmd) {
			cmd.Args = append(cmd.Args, "--config", file)
			cmd.Env = environ()
		})
		eventually(t, "all sockets listen", func() bool { return strings.Count(p.log(), "msg=listening") == len(sockets) })
		want := map[string]int{}
		sent := 0
		for i, s := range sockets {
			conn := s.dial(t)
			for _, row := range rows {
				packet, outcome, ok := row.prefixed(s, fmt.Sprintf("k%dr%d.", i, row.number))
				if !ok {
					continue
				}
				if s.Network == "tcp" && strings.Contains(packet, "_e{") {
					// A stream is read line by line, but for those that come together: an event of
					// several lines must come as a whole, its line ending included. Where there is
					// no event, the ending could be taken for the last byte of a text.
					alone := s.dial(t)
					if strings.Contains(packet, "\n") && strings.Contains(row.want[s.Dialect], "event \"") {
						packet += "\n"
					}
					if _, err := alone.Write([]byte(packet)); err != nil {
						t.Fatal(err)
					}
					alone.Close()
				} else {
					s.send(t, conn, packet)
				}
				sent++
				for _, part := range outcome {
					want[part]++
				}
			}
			conn.Close()
		}
		if code := p.stop(t); code != 0 {
			t.Errorf("exit code %d", code)
		}
		got, intervals := conformanceOutput(t, p.output())
		if intervals > 1 && try < 3 {
			continue // an interval ended meanwhile: kept gauges were sent twice
		}
		for name, n := range lastAccount(t, p.log()) {
			if reasonNames[name] {
				got["reject "+name] = n
			}
		}
		delete(want, "nothing")
		if sent < 3*len(rows) {
			t.Errorf("only %d packets sent for %d rows", sent, len(rows))
		}
		compareOutcomes(t, got, want)
		return
	}
}

func compareOutcomes(t *testing.T, got, want map[string]int) {
	t.Helper()
	for _, part := range slices.Sorted(maps.Keys(want)) {
		if got[part] != want[part] {
			t.Errorf("%d times, want %d: %s", got[part], want[part], part)
		}
		delete(got, part)
	}
	for _, part := range slices.Sorted(maps.Keys(got)) {
		t.Errorf("%d times, want none: %s", got[part], part)
	}
}

// portForAll returns a port that is free on the addresses of the test.
func portForAll(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.1.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s conformanceSocket) dial(t *testing.T) net.Conn {
	t.Helper()
	network := map[string]string{"udp": "udp", "unix_datagram": "unixgram", "unix_stream": "unix", "tcp": "tcp"}[s.Network]
	conn, err := net.Dial(network, s.Address)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func (s conformanceSocket) send(t *testing.T, conn net.Conn, packet string) {
	t.Helper()
	switch s.Network {
	case "unix_stream":
		packet = string(binary.LittleEndian.AppendUint32(nil, uint32(len(packet)))) + packet
	case "tcp":
		packet += "\n"
	}
	if _, err := conn.Write([]byte(packet)); err != nil {
		t.Fatalf("%s %s: %v", s.Network, s.Address, err)
	}
}

// prefixed returns the row's packet with prefix before every name, and the parts of
// its outcome; ok is false if the row is not for this socket, or cannot be told from
// others.
func (r *conformanceRow) prefixed(s conformanceSocket, prefix string) (packet string, outcome []string, ok bool) {
	want, said := r.want[s.Dialect]
	if !said || r.style != s.TagStyle {
		return "", nil, false
	}
	hasPoints := regexp.MustCompile(`(^| ; )(rate|gauge|count|distribution) `).MatchString(want)
	names := true
	lines := strings.Split(r.packet, "\n")
	message := strings.HasPrefix(r.packet, "_e{")
	for i, line := range lines {
		switch {
		case message, strings.HasPrefix(line, "_e{"),
			strings.HasPrefix(line, "_sc") && (s.Dialect == parser.DialectDogStatsD || strings.HasPrefix(line, "_sc|")):
			names = names && !hasPoints
		case line == "", line[0] == ':', line[0] == '|', line == "\r", len(lines) == 1 && strings.Contains(want, "reserved_name"), strings.HasPrefix(line, "weir."):
		case strings.Contains(want, "no_name"):
			names = names && !hasPoints
		default:
			lines[i] = prefix + line
		}
	}
	if !names && hasPoints {
		return "", nil, false
	}
	for _, part := range strings.Split(want, " ; ") {
		outcome = append(outcome, transformed(part, prefix))
	}
	return strings.Join(lines, "\n"), outcome, true
}

var (
	pointText   = regexp.MustCompile(`^(rate|gauge|count|distribution) (.*)$`)
	rateText    = regexp.MustCompile(`^(rate .*?) (\S+)((?: host=.*| device=.*| time=.*| #.*)?)$`)
	timeText    = regexp.MustCompile(`time=\d+`)
	invalidByte = regexp.MustCompile(`\\x[89a-f][0-9a-f]`)
)

// transformed is a part of an outcome as it comes out of the agent: with the prefix
// and without bytes that are not UTF-8, which JSON cannot hold.
func transformed(part, prefix string) string {
	part = invalidByte.ReplaceAllString(part, "\ufffd")
	part = timeText.ReplaceAllStringFunc(part, func(text string) string {
		const last = 253402300799 // of what RFC 3339 can write
		if seconds, err := strconv.ParseInt(strings.TrimPrefix(text, "time="), 10, 64); err == nil && seconds > last {
			return fmt.Sprintf("time=%d", last)
		}
		return text
	})
	if m := pointText.FindStringSubmatch(part); m != nil {
		part = m[1] + " " + prefix + m[2]
	}
	if m := rateText.FindStringSubmatch(part); m != nil {
		if v, err := strconv.ParseFloat(m[2], 64); err == nil { // over 600 s instead of 10
			part = m[1] + " " + rounded(v/60) + m[3]
		}
	}
	return part
}

func rounded(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }

// conformanceOutput reads what the logs forwarder wrote, without the agent's own
// metrics, and counts the intervals it is from.
func conformanceOutput(t *testing.T, output string) (parts map[string]int, intervals int) {
	t.Helper()
	parts = map[string]int{}
	starts := map[string]bool{}
	for line := range strings.Lines(output) {
		var p struct {
			Time                                                     time.Time
			Metric, Type, Host, Device, Title, Text, Priority, Alert string
			AlertType                                                string `json:"alert_type"`
			AggregationKey                                           string `json:"aggregation_key"`
			SourceType                                               string `json:"source_type"`
			Check, Status, Message                                   string
			Value, Sum, Min, Max                                     float64
			Count, Interval                                          int64
			Tags                                                     []string
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if strings.HasPrefix(p.Metric, "weir.") {
			starts[p.Time.String()] = true
			continue
		}
		seconds := p.Time.Unix()
		if math.Abs(time.Since(p.Time).Hours()) < 1 {
			seconds = 0 // its own, or the interval's
		}
		var o outcome
		switch p.Type {
		case "event":
			o.event(p.Title, p.Text, p.Host, seconds, p.Priority, p.AlertType, p.AggregationKey, p.SourceType, p.Tags)
		case "service_check":
			o.check(p.Check, p.Status, p.Host, seconds, p.Message, p.Tags)
		case "distribution":
			o.add("distribution %s count=%d sum=%s min=%s max=%s%s", plainText(p.Metric), p.Count, decimal(p.Sum), decimal(p.Min), decimal(p.Max),
				attributes(p.Host, p.Device, seconds, p.Tags))
		default:
			value := decimal(p.Value)
			if p.Type == "rate" {
				value = rounded(p.Value)
			}
			o.add("%s %s %s%s", p.Type, plainText(p.Metric), value, attributes(p.Host, p.Device, seconds, p.Tags))
		}
		parts[o.String()]++
	}
	return parts, len(starts)
}
