package forwarder

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResolve(t *testing.T) {
	tests := map[string]struct {
		cfg  []DestinationConfig
		env  Defaults
		want []DestinationConfig
	}{
		"nothing at all": {
			want: []DestinationConfig{{Type: "logs", Output: "stdout", Format: "json", Keep: 5}},
		},
		"an API key in the environment": {
			env:  Defaults{APIKey: "k"},
			want: []DestinationConfig{{Type: "datadog", APIKey: "k", Site: "datadoghq.com", Compression: "zstd", Series: "protobuf", Concurrency: 4, MaxQueue: 64 << 20}},
		},
		"a site and a URL in the environment": {
			env:  Defaults{APIKey: "k", Site: "datadoghq.eu", URL: "http://proxy"},
			want: []DestinationConfig{{Type: "datadog", APIKey: "k", Site: "datadoghq.eu", URL: "http://proxy", Compression: "zstd", Series: "protobuf", Concurrency: 4, MaxQueue: 64 << 20}},
		},
		"what the file says comes first": {
			cfg:  []DestinationConfig{{Type: "datadog", APIKey: "f", Site: "us3.datadoghq.com"}, {Type: "logs", Format: "text"}},
			env:  Defaults{APIKey: "k", Site: "datadoghq.eu", URL: "http://proxy"},
			want: []DestinationConfig{{Type: "datadog", APIKey: "f", Site: "us3.datadoghq.com", Compression: "zstd", Series: "protobuf", Concurrency: 4, MaxQueue: 64 << 20}, {Type: "logs", Output: "stdout", Format: "text", Keep: 5}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Forwarders = test.cfg
			cfg.Resolve(test.env)
			if diff := cmp.Diff(test.want, cfg.Forwarders); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err := cfg.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	cfg := Config{ShutdownTimeout: -1, Forwarders: []DestinationConfig{
		{Type: "datadog", Site: "https://datadoghq.com", URL: "datadoghq.com"},
		{Type: "datdog"},
		{},
		{Type: "logs", Output: "stdout", Format: "xml"},
		{Type: "logs", Output: "stdout", Format: "json", Keep: 5},
		{Type: "datadog", APIKey: "k\n", Site: "datadoghq.com"},
	}}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{
		"shutdown_timeout:", "forwarders[0].api_key:", "forwarders[0].site:", "forwarders[0].url:", `forwarders[1].type: there is no forwarder of type "datdog"`,
		"forwarders[2].type:", "forwarders[3].format:", "forwarders[4].output:", "forwarders[5].api_key:",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no fault %q in:\n%v", want, err)
		}
	}
}
