package forwarder

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// StateDir returns the folder for what must outlive the process: the configured
// one or, in this order, that of systemd's StateDirectory=, the user's
// $XDG_STATE_HOME/weir and ~/.local/state/weir. env reads the environment. Nothing
// is created.
func StateDir(configured string, env func(string) string) (string, error) {
	if configured != "" {
		folder, err := filepath.Abs(configured)
		if err != nil {
			return "", fmt.Errorf("state_dir: %q: %w; use an absolute path", configured, err)
		}
		return folder, nil
	}
	// systemd may pass several, with colons between.
	if first, _, _ := strings.Cut(env("STATE_DIRECTORY"), ":"); filepath.IsAbs(first) {
		return filepath.Clean(first), nil
	}
	// A relative XDG path is to be ignored, says the XDG Base Directory
	// Specification.
	if state := env("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "weir"), nil
	}
	if home := env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "weir"), nil
	}
	return "", errors.New("state_dir: there is no home folder to put it in; set it to a folder that weir may write, such as /var/lib/weir")
}

// StateFolder returns the folder for what must outlive the process; state_dir, or what
// stands for it in the environment that env reads. Nothing is created.
func (c *Config) StateFolder(env func(string) string) (string, error) {
	return StateDir(c.StateDir, env)
}
