package config

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-agent/weir/forwarder"
	"github.com/weir-agent/weir/listener"
	"github.com/weir-agent/weir/metric"
)

// clean removes variables of the environment that would count.
func clean(t *testing.T) {
	t.Helper()
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "DD_") || strings.HasPrefix(name, envPrefix) {
			os.Unsetenv(name)
			t.Cleanup(func() { os.Setenv(name, value) })
		}
	}
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, text string) Config {
	t.Helper()
	cfg, _, err := Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// faultsOf returns the faults of a file, without its name.
func faultsOf(t *testing.T, text string) string {
	t.Helper()
	path := write(t, text)
	_, _, err := Load(path)
	faults, ok := err.(Faults)
	if !ok {
		t.Fatalf("err = %v, want faults", err)
	}
	return strings.ReplaceAll(faults.Error(), path+":", "line ")
}

func TestWithoutAnything(t *testing.T) {
	clean(t)
	cfg, warnings, err := Load("")
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if cfg.Listen.UDP != "127.0.0.1:8125" || cfg.Aggregator.FlushInterval != 10*time.Second || cfg.Aggregator.Hostname == "" {
		t.Errorf("cfg = %+v", cfg)
	}
	want := []forwarder.DestinationConfig{{Type: "logs", Output: "stdout", Format: "json", Keep: 5}}
	if diff := cmp.Diff(want, cfg.Forwarder.Forwarders); diff != "" {
		t.Errorf("forwarders (-want +got):\n%s", diff)
	}
}

// The example says what the code does: its values are the defaults, and no key
// is missing.
func TestExampleIsTheDefaults(t *testing.T) {
	clean(t)
	const path = "../config.example.yaml"
	got, _, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the example differs from the defaults (-defaults +example):\n%s", diff)
	}
	file, err := readFile(path, rootSchema)
	if err != nil {
		t.Fatal(err)
	}
	rootSchema.leaf("", func(at string, _ *schema) {
		if file.lines[at] == 0 {
			t.Errorf("%s is not in the example", at)
		}
	})
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for list, item := range map[string]reflect.Type{"forwarders": destinationType, "listen.more": reflect.TypeFor[listener.Socket]()} {
		for _, key := range schemaOf(item).keys {
			if !regexp.MustCompile(`(?m)^ *# [ -] ` + key + `: `).Match(text) {
				t.Errorf("%s[].%s is not in the example", list, key)
			}
		}
	}
}

func TestFileAndEnvironment(t *testing.T) {
	clean(t)
	t.Setenv("WEIR_FLUSH_INTERVAL", "30s")
	t.Setenv("WEIR_HISTOGRAM_PERCENTILES", "0.5, 0.99")
	t.Setenv("WEIR_LISTEN_RECEIVE_BUFFER", "1MiB")
	t.Setenv("DD_HOSTNAME", "from-dd")
	t.Setenv("DD_TAGS", "env:prod team:web,tier:1")
	t.Setenv("DD_API_KEY", "key")
	t.Setenv("DD_SITE", "datadoghq.eu")
	cfg := load(t, `
listen: {udp: "127.0.0.1:9999", readers: 3}
flush_interval: 20s
expiry: {context: 2m}
tags: [ignored:yes]
histogram: {aggregates: [sum]}
`)
	if cfg.Listen.UDP != "127.0.0.1:9999" || cfg.Listen.Readers != 3 || cfg.Listen.ReceiveBuffer != 1<<20 {
		t.Errorf("listen = %+v", cfg.Listen)
	}
	a := cfg.Aggregator
	if a.FlushInterval != 30*time.Second || a.Hostname != "from-dd" || a.Expiry.Context != 2*time.Minute || a.Expiry.ZeroFill != 5*time.Minute {
		t.Errorf("aggregator = %+v", a)
	}
	if diff := cmp.Diff([]string{"env:prod", "team:web", "tier:1"}, a.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	if !reflect.DeepEqual(a.Histogram.Aggregates, []string{"sum"}) || !reflect.DeepEqual(a.Histogram.Percentiles, []float64{0.5, 0.99}) {
		t.Errorf("histogram = %+v", a.Histogram)
	}
	want := []forwarder.DestinationConfig{{Type: "datadog", APIKey: "key", Site: "datadoghq.eu", Compression: "zstd", Concurrency: 4, MaxQueue: 64 << 20}}
	if diff := cmp.Diff(want, cfg.Forwarder.Forwarders); diff != "" {
		t.Errorf("forwarders (-want +got):\n%s", diff)
	}
}

func TestForwardersFromTheEnvironment(t *testing.T) {
	clean(t)
	t.Setenv("WEIR_FORWARDERS", `[{type: logs, format: text}, {type: datadog, api_key: k, url: "http://127.0.0.1:1"}]`)
	cfg := load(t, "forwarders: [{type: logs}]")
	want := []forwarder.DestinationConfig{
		{Type: "logs", Output: "stdout", Format: "text", Keep: 5},
		{Type: "datadog", APIKey: "k", URL: "http://127.0.0.1:1", Site: "datadoghq.com", Compression: "zstd", Concurrency: 4, MaxQueue: 64 << 20},
	}
	if diff := cmp.Diff(want, cfg.Forwarder.Forwarders); diff != "" {
		t.Errorf("forwarders (-want +got):\n%s", diff)
	}
}

func TestAddressFromDatadogVariables(t *testing.T) {
	tests := map[string]struct {
		env  map[string]string
		file string
		want string
	}{
		"port":          {env: map[string]string{"DD_DOGSTATSD_PORT": "9125"}, want: "127.0.0.1:9125"},
		"host":          {env: map[string]string{"DD_BIND_HOST": "10.0.0.1"}, want: "10.0.0.1:8125"},
		"non-local":     {env: map[string]string{"DD_DOGSTATSD_NON_LOCAL_TRAFFIC": "true"}, want: "0.0.0.0:8125"},
		"local":         {env: map[string]string{"DD_DOGSTATSD_NON_LOCAL_TRAFFIC": "false"}, want: "127.0.0.1:8125"},
		"over the file": {env: map[string]string{"DD_DOGSTATSD_PORT": "9125"}, file: "listen: {udp: '127.0.0.2:1'}", want: "127.0.0.2:9125"},
		"below WEIR_":   {env: map[string]string{"DD_DOGSTATSD_PORT": "9125", "WEIR_LISTEN_UDP": "127.0.0.3:2"}, want: "127.0.0.3:2"},
		"closed":        {env: map[string]string{"DD_BIND_HOST": "10.0.0.1"}, file: "listen: {udp: '', tcp: '127.0.0.1:1'}", want: ""},
		"not closed":    {env: map[string]string{"DD_DOGSTATSD_PORT": "9125"}, file: "listen: {udp: '', tcp: '127.0.0.1:1'}", want: "127.0.0.1:9125"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			clean(t)
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			if got := load(t, test.file).Listen.UDP; got != test.want {
				t.Errorf("listen.udp = %s, want %s", got, test.want)
			}
		})
	}
}

func TestSockets(t *testing.T) {
	clean(t)
	const file = `
listen:
  udp: ""
  unix_datagram: /run/file.sock
  more:
    - {network: tcp, address: "127.0.0.1:9000", dialect: statsd}
    - network: unix_stream
      address: /run/more.sock
      tag_style: graphite
`
	more := []listener.Socket{
		{Network: "tcp", Address: "127.0.0.1:9000", Dialect: "statsd"},
		{Network: "unix_stream", Address: "/run/more.sock", TagStyle: "graphite"},
	}
	check := func(name string, got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	cfg := load(t, file).Listen
	check("udp", cfg.UDP, "")
	check("unix_datagram", cfg.UnixDatagram, "/run/file.sock")
	check("more", cfg.More, more)

	t.Setenv("DD_DOGSTATSD_SOCKET", "/run/dd.sock")
	t.Setenv("DD_DOGSTATSD_STREAM_SOCKET", "/run/dd-stream.sock")
	cfg = load(t, file).Listen
	check("unix_datagram of DD_", cfg.UnixDatagram, "/run/dd.sock")
	check("unix_stream of DD_", cfg.UnixStream, "/run/dd-stream.sock")

	t.Setenv("WEIR_LISTEN_UNIX_DATAGRAM", "/run/weir.sock")
	t.Setenv("WEIR_LISTEN_MORE", `[{network: udp, address: "127.0.0.1:7"}]`)
	cfg = load(t, file).Listen
	check("unix_datagram of WEIR_", cfg.UnixDatagram, "/run/weir.sock")
	check("more of WEIR_", cfg.More, []listener.Socket{{Network: "udp", Address: "127.0.0.1:7"}})
}

func TestFaultsOfSockets(t *testing.T) {
	clean(t)
	got := faultsOf(t, `listen:
  udp: ""
  unix_stream: weir.sock
  socket_mode: 0888
  max_connections: 0
  idle_timeout: 1ms
  more:
    - address: 127.0.0.1:1
    - {network: tcpp, address: "127.0.0.1:1"}
    - network: tcp
      address: 127.0.0.1
    - {network: unix_datagram, address: ""}
    - {network: udp, address: "127.0.0.1:1", adress: x}
    - {network: udp, address: "127.0.0.1:1"}
`)
	want := `line 3: listen.unix_stream: "weir.sock" is not the path of a socket file; write an absolute one such as /run/weir/dogstatsd.sock
line 4: listen.socket_mode: "0888" is not a mode; write three octal digits such as 0722 or 0660
line 5: listen.max_connections: 0 is out of range; use 1 to 100000
line 6: listen.idle_timeout: 1ms is too short; use 100ms or more, or 0s for no limit
line 8: listen.more[0].network: it is missing; use one of udp, unix_datagram, unix_stream, tcp
line 9: listen.more[1].network: there is no network "tcpp"; use one of udp, unix_datagram, unix_stream, tcp
line 11: listen.more[2].address: "127.0.0.1" is not host:port; write an address such as 127.0.0.1:8125 or [::1]:8125
line 12: listen.more[3].address: "" is not the path of a socket file; write an absolute one such as /run/weir/dogstatsd.sock
line 13: listen.more[4].adress: there is no such key; did you mean listen.more[4].address?
line 14: listen.more[5].address: 127.0.0.1:1 is the address of listen.more[4].address already; remove one`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

// All faults of a file at once, each with its line and what to write instead.
func TestAllFaultsAtOnce(t *testing.T) {
	clean(t)
	got := faultsOf(t, `listen:
  udp: 127.0.0.1:99999
flsh_interval: 5s
expiry:
  context: 5 minutes
  zero_fill: 30
forwarders:
  - type: datdog
  - {type: logs, api_key: x}
log: {level: loud}
udp: 1
tags: env:prod
histogram: [max]
`)
	want := `line 2: listen.udp: port 99999 is out of range; use 1 to 65535
line 3: flsh_interval: there is no such key; did you mean flush_interval?
line 5: expiry.context: "5 minutes" is not a duration; write a number with a unit, such as 500ms, 10s or 5m
line 6: expiry.zero_fill: "30" has no unit; write 30s for seconds, or ms, m, h
line 8: forwarders[0].type: there is no forwarder of type "datdog"; use one of logs, datadog, dogstatsd, statsd, discard
line 9: forwarders[1].api_key: a forwarder of type logs has no such key; remove it
line 10: log.level: there is no level "loud"; use debug, info, warn or error
line 11: udp: there is no such key; did you mean listen.udp?
line 12: tags: it takes a list; write [one, two]
line 13: histogram: it takes a mapping of aggregates, percentiles`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}

func TestFaults(t *testing.T) {
	tests := map[string]struct{ file, want string }{
		"a key twice":               {"hostname: a\nhostname: b\n", "line 2: hostname: the key is there twice; remove one"},
		"upper case":                {"Flush_Interval: 5s\n", "line 1: Flush_Interval: there is no such key; did you mean flush_interval?"},
		"no idea":                   {"zzzzzzzzz: 1\n", "line 1: zzzzzzzzz: there is no such key; config.example.yaml lists all keys"},
		"in a section":              {"listen:\n  zzzzzzzzz: 1\n", "line 2: listen.zzzzzzzzz: there is no such key; listen takes udp, unix_datagram, unix_stream, tcp, more, receive_buffer, max_packet, readers, engine, socket_mode, max_connections, idle_timeout"},
		"a size":                    {"listen: {max_packet: 8192}\n", `line 1: listen.max_packet: "8192" is not a size; write a number with a unit, such as 4MiB or 512KiB`},
		"a number":                  {"listen: {readers: many}\n", `line 1: listen.readers: "many" is not a whole number`},
		"in a list":                 {"histogram:\n  percentiles:\n    - 0.5\n    - high\n", `line 4: histogram.percentiles[1]: "high" is not a number`},
		"out of a list":             {"tags:\n  - a:b\n  - c,d\n", `line 3: tags[1]: "c,d" has a comma, pipe or line break; write one tag an item, without them`},
		"a default":                 {"flush_interval: 10m\n", "expiry.context: 5m0s is shorter than flush_interval (10m0s); use a multiple of it"},
		"no mapping":                {"- a\n", "line 1: it takes a mapping of listen, "},
		"too many requests at once": {"forwarders:\n  - {type: datadog, api_key: k, concurrency: 65}\n", "line 2: forwarders[0].concurrency: 65 is out of range; use 1 to 64"},
		"too small a queue":         {"forwarders:\n  - {type: datadog, api_key: k, max_queue: 1MiB}\n", "line 2: forwarders[0].max_queue: 1MiB is too little for a few payloads; use 8MiB or more"},
		"a missing key":             {"forwarders:\n  - type: datadog\n", "line 2: forwarders[0].api_key: there is no API key; set it here or in the environment as DD_API_KEY"},
		"not YAML":                  {"listen: {\n", "it is not valid YAML"},
		"a tab":                     {"listen:\n\tudp: x\n", "line 2: it is not valid YAML"},
		"itself, by UDP":            {"listen: {udp: '127.0.0.1:8125'}\nforwarders:\n  - {type: statsd, address: '127.0.0.1:8125'}\n", "line 3: forwarders[0].address: this agent listens on 127.0.0.1:8125 itself"},
		"itself, by TCP":            {"listen: {more: [{network: tcp, address: '127.0.0.1:1'}]}\nforwarders:\n  - {type: statsd, address: 'tcp://127.0.0.1:1'}\n", "line 3: forwarders[0].address: this agent listens on tcp://127.0.0.1:1 itself"},
		"itself, by Unix":           {"listen: {unix_stream: /run/x.sock}\nforwarders:\n  - {type: dogstatsd, address: 'unix:///run/x.sock'}\n", "line 3: forwarders[0].address: this agent listens on unix:///run/x.sock itself"},
		"a pattern":                 {"forwarders:\n  - {type: discard, include: [a, '']}\n", "line 2: forwarders[0].include[1]: it is empty"},
		"text for a list":           {"forwarders: logs\n", "line 1: forwarders: it takes a list"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			clean(t)
			if got := faultsOf(t, test.file); !strings.HasPrefix(strings.TrimPrefix(got, "line "), strings.TrimPrefix(test.want, "line ")) && !strings.Contains(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestFaultsOfTheEnvironment(t *testing.T) {
	clean(t)
	t.Setenv("WEIR_FLUSH_INTERVAL", "10")
	t.Setenv("WEIR_FORWARDERS", "[{tipe: logs}]")
	t.Setenv("WEIR_HISTOGRAM_PERCENTILES", "0.5,high")
	t.Setenv("DD_DOGSTATSD_PORT", "81250")
	t.Setenv("WEIR_LOG_LEVEL", "loud")
	_, _, err := Load("")
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{
		`WEIR_FLUSH_INTERVAL: "10" has no unit`,
		`WEIR_FORWARDERS: [0].tipe: there is no such key; did you mean [0].type?`,
		`WEIR_HISTOGRAM_PERCENTILES: "high" is not a number`,
		`DD_DOGSTATSD_PORT: port 81250 is out of range`,
		`WEIR_LOG_LEVEL: there is no level "loud"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no fault %q in:\n%v", want, err)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	clean(t)
	const secret = "0123456789abcdef"
	t.Setenv("DD_API_KEY", secret+" "+secret)
	for _, file := range []string{
		"forwarders: [{type: datadog, api_key: [" + secret + "]}]\n",
		"forwarders: [{type: datadog, api_key: '" + secret + " x'}]\n",
		"forwarders: [{type: datadog, api_key:" + secret + "}]\n",
		"forwarders: [{type: datadog, api_key: k, url: 'user:" + secret + "@proxy:3128'}]\n",
		"forwarders: [{type: datadog, api_key: k, url: 'http://proxy/?api_key=" + secret + "'}]\n",
		"forwarders: [{type: datadog}]\n",
	} {
		if got := faultsOf(t, file); strings.Contains(got, secret) {
			t.Errorf("faults show the key:\n%s", got)
		}
	}
}

// Text is text, however much it looks like a number, a truth value or a date.
func TestTextIsNotRetyped(t *testing.T) {
	clean(t)
	for _, text := range []string{"12345678901234567890123456789012", "1e3", "4567890123e1", "true", "007", "1.10", "010", "2026-01-02", "~x"} {
		cfg := load(t, "forwarders: [{type: datadog, api_key: "+text+"}]\nhostname: "+text+"\ntags: ["+text+"]\n")
		if got := cfg.Forwarder.Forwarders[0].APIKey.Reveal(); got != text {
			t.Errorf("api_key: %s is read as %s", text, got)
		}
		if cfg.Aggregator.Hostname != text || cfg.Aggregator.Tags[0] != text {
			t.Errorf("hostname and tag: %s is read as %s, %s", text, cfg.Aggregator.Hostname, cfg.Aggregator.Tags[0])
		}
	}
	if cfg := load(t, "listen: {readers: 010}\n"); cfg.Listen.Readers != 10 {
		t.Errorf("readers: 010 is read as %d", cfg.Listen.Readers)
	}
}

func TestOddYAML(t *testing.T) {
	clean(t)
	cfg := load(t, `# a comment
listen: # why
  udp:
  readers: 3 # so many
expiry: &e # an anchor
  context: 7m
log: # x
  level:
`)
	if cfg.Listen.UDP != "127.0.0.1:8125" || cfg.Listen.Readers != 3 || cfg.Aggregator.Expiry.Context != 7*time.Minute || cfg.Log.Level != "info" {
		t.Errorf("cfg = %+v", cfg)
	}
	cfg = load(t, "tags: &t [a:b]\nhistogram: {aggregates: [max], percentiles: &p [0.5]}\n")
	if diff := cmp.Diff([]string{"a:b"}, cfg.Aggregator.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	for file, want := range map[string]string{
		"tags:\n  - a:b\n  -\n": "line 3: tags[1]: the item is empty; remove it",
		"a: &a {udp: '127.0.0.1:1'}\nlisten: *a\nflush_interval: 10\n":     "line 1: a: there is no such key",
		"hostname: a\n---\nhostname: b\n":                                  "a second document begins here",
		"forwarders: [{type: logs}, ]\nhistogram: {aggregates: [max,max]}": "line 2: histogram.aggregates[1]: max is there twice",
		"expiry: {context: 1193046h}\n":                                    "line 1: expiry.context: ",
	} {
		if got := faultsOf(t, file); !strings.Contains(got, want) {
			t.Errorf("%q: got\n%s\nwant %s", file, got, want)
		}
	}
}

// A value that was not read brings no further faults with it.
func TestNoFaultsThatOnlyFollow(t *testing.T) {
	clean(t)
	for _, file := range []string{
		"forwarders: [{type: datadog, api_key: [k]}]\n",
		"forwarders: [{type: [datadog]}]\n",
		"flush_interval: 1sec\nexpiry: {context: 5s}\n",
	} {
		if got := faultsOf(t, file); strings.Contains(got, "\n") {
			t.Errorf("%q: more than one fault:\n%s", file, got)
		}
	}
}

// A fault of a variable is blamed on the variable, whatever the file says.
func TestFaultsOfVariablesThatHideTheFile(t *testing.T) {
	clean(t)
	t.Setenv("WEIR_TAGS", "a|b")
	if got := faultsOf(t, "\n\ntags: [a:b]\n"); !strings.HasPrefix(got, "WEIR_TAGS[0]: ") {
		t.Errorf("got %s", got)
	}
	t.Setenv("WEIR_TAGS", "a:b")
	t.Setenv("DD_SITE", "https://datadoghq.eu")
	if got := faultsOf(t, "\nforwarders: [{type: datadog, api_key: k}]\n"); !strings.HasPrefix(got, "DD_SITE: ") {
		t.Errorf("got %s", got)
	}
}

func TestPortZeroOfTheDatadogAgent(t *testing.T) {
	clean(t)
	t.Setenv("DD_DOGSTATSD_PORT", "0")
	_, _, err := Load("")
	if err == nil || !strings.Contains(err.Error(), "DD_DOGSTATSD_PORT: there is nothing to listen on") {
		t.Errorf("err = %v", err)
	}
}

func TestUnknownVariablesAreToldButNoFault(t *testing.T) {
	clean(t)
	t.Setenv("WEIR_FLUSH_INTERVL", "5s")
	t.Setenv("WEIR_SERVICE_HOST", "10.0.0.1")
	t.Setenv("WEIR_PORT_8125_UDP_ADDR", "10.0.0.1")
	_, warnings, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"the environment variable WEIR_FLUSH_INTERVL is no setting; did you mean WEIR_FLUSH_INTERVAL?"}
	if diff := cmp.Diff(want, warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestMissingFile(t *testing.T) {
	_, _, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	if err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("err = %v", err)
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]metric.Bytes{
		"8KiB": 8192, "4MiB": 4 << 20, "1GiB": 1 << 30, "512B": 512, "1.5KiB": 1536, "1kb": 1000, "2 MB": 2e6, "0": 0,
	} {
		if got, err := metric.ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "8192", "MiB", "-1KiB", "1XB", "1e30GiB", "NaNB"} {
		if got, err := metric.ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
	for size, want := range map[metric.Bytes]string{8192: "8KiB", 4 << 20: "4MiB", 1000: "1000B", 0: "0B", 3 << 30: "3GiB"} {
		if got := size.String(); got != want {
			t.Errorf("%d is written %s, want %s", int64(size), got, want)
		}
	}
}

// Whatever a file holds, reading it ends, and without a crash.
func FuzzFile(f *testing.F) {
	example, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add("a: &x [*x]\n")
	f.Add("listen: &l {udp: x}\nlog: *l\n")
	f.Fuzz(func(t *testing.T, text string) {
		read := file{lines: map[string]int{}}
		read.parse([]byte(text), rootSchema)
		if len(read.faults) > 0 {
			return
		}
		if _, err := merge(&read, &environment{}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestFaultsOfAnalytics(t *testing.T) {
	clean(t)
	got := faultsOf(t, `analytics:
  prefixes: [analytics., "", weir.events., analytics.]
  mode: loose
  collect: [optional, all]
  key_file: /run/key
  keys: k=00112233445566778899aabbccddeeff
  save_interval: 10ms
  retention: 24h
  max_sketches: 0
  dead_letters: {max_bytes: 1KiB}
`)
	want := `line 2: analytics.prefixes[1]: "" begins no name; write one such as analytics.
line 2: analytics.prefixes[2]: "weir.events." is what weir's own metrics begin with; use another
line 2: analytics.prefixes[3]: analytics. is there twice; remove one
line 3: analytics.mode: there is no mode "loose"; use warn or strict
line 4: analytics.collect[1]: there is no category "all"; use some of operational, optional, standard, subscription
line 6: analytics.keys: there is a key_file as well; remove one
line 7: analytics.save_interval: 10ms is out of range; use 1s to 1h
line 8: analytics.retention: 24h0m0s is out of range; use 912h0m0s to 9600h0m0s
line 9: analytics.max_sketches: 0 is out of range; use 1 to 100000
line 10: analytics.dead_letters.max_bytes: 1KiB is too little; use 64KiB or more`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults (-want +got):\n%s", diff)
	}
}
