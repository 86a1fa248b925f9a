package forwarder

import (
	"os"
	"path/filepath"
	"testing"
)

func TestStateDir(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, configured string
		env              map[string]string
		want             string // "": an error
	}{
		{"configured", "/data/weir/", map[string]string{"STATE_DIRECTORY": "/var/lib/weir", "HOME": "/home/ann"}, "/data/weir"},
		{"configured, relative", "state", nil, filepath.Join(here, "state")},
		{"systemd", "", map[string]string{"STATE_DIRECTORY": "/var/lib/weir", "XDG_STATE_HOME": "/s", "HOME": "/home/ann"}, "/var/lib/weir"},
		{"systemd, several", "", map[string]string{"STATE_DIRECTORY": "/var/lib/weir:/var/lib/other"}, "/var/lib/weir"},
		{"user", "", map[string]string{"XDG_STATE_HOME": "/home/ann/state", "HOME": "/home/ann"}, "/home/ann/state/weir"},
		{"user, relative", "", map[string]string{"XDG_STATE_HOME": "state", "HOME": "/home/ann"}, "/home/ann/.local/state/weir"},
		{"home", "", map[string]string{"HOME": "/home/ann"}, "/home/ann/.local/state/weir"},
		{"nowhere", "", nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := StateDir(test.configured, func(name string) string { return test.env[name] })
			if got != test.want || (err != nil) != (test.want == "") {
				t.Errorf("stateDir(%q) = %q, %v; want %q", test.configured, got, err, test.want)
			}
		})
	}
}
