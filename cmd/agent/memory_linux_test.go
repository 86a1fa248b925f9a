package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inCgroup makes a process believe that it is in a cgroup of one of the two versions, with
// a limit in a file's words: files in place of those of /proc that say where it is.
func inCgroup(t *testing.T, v2 bool, limit string) (change func(*exec.Cmd), file string) {
	t.Helper()
	bind := `mount --bind "$1" /proc/$$/mountinfo && mount --bind "$2" /proc/$$/cgroup && shift 2 && exec "$@"`
	if out, err := exec.Command("unshare", "-rm", "sh", "-c", bind, "sh", "/dev/null", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("no mounts of its own for a process: %v: %s", err, out)
	}
	folder := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	where, kind, name := "4:memory:/pod/weir\n", "cgroup cgroup rw,memory", "memory.limit_in_bytes"
	if v2 {
		where, kind, name = "0::/pod/weir\n", "cgroup2 cgroup2 rw", "memory.max"
	}
	file = write("fs/pod/weir/"+name, limit+"\n")
	mounts := write("mountinfo", fmt.Sprintf("41 31 0:38 / %s/fs rw,relatime - %s\n", folder, kind))
	here := write("cgroup", where)
	return func(cmd *exec.Cmd) {
		shell, err := exec.LookPath("unshare")
		if err != nil {
			t.Fatal(err)
		}
		cmd.Args = append([]string{shell, "-rm", "sh", "-c", bind, "sh", mounts, here, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = shell
	}, file
}

// What the container may take is known to the agent in both versions of cgroups, what
// GOMEMLIMIT says goes before, and a configuration that does not fit is told.
func TestMemoryOfTheContainerIsKnown(t *testing.T) {
	const doesNotFit = "allows more memory than there is"
	for _, test := range []struct {
		name, limit string
		v2          bool
		settings    []string
		want        []string // in the log
		soft        uint64
		fits        bool
	}{
		{"v2", "268435456", true, nil, []string{"soft_limit=230MiB container=256MiB", "max_contexts_that_fit=503000"}, 241591910, false},
		{"v1", "268435456", false, nil, []string{"soft_limit=230MiB container=256MiB", "max_contexts_that_fit=503000"}, 241591910, false},
		{"v2 without a limit", "max", true, nil, []string{"memory is not limited"}, 0, true},
		{"v1 without a limit", fmt.Sprint(math.MaxInt64 &^ 4095), false, nil, []string{"memory is not limited"}, 0, true},
		{"room for all", "1073741824", true, nil, []string{"soft_limit=921MiB container=1024MiB"}, 966367641, true},
		{"fewer contexts", "268435456", true, []string{"WEIR_CARDINALITY_MAX_CONTEXTS=500000", "WEIR_CARDINALITY_MAX_CONTEXTS_PER_METRIC=10000"}, []string{"soft_limit=230MiB"}, 241591910, true},
		{"queues count", "268435456", true, []string{"WEIR_CARDINALITY_MAX_CONTEXTS=500000", "DD_API_KEY=k", "DD_URL=http://127.0.0.1:1", "WEIR_SHUTDOWN_TIMEOUT=100ms"}, []string{"queues=64MiB"}, 0, false},
		{"no room at all", "67108864", true, nil, []string{"max_queue of forwarders, listen.receive_buffer or"}, 60397977, false},
		{"GOMEMLIMIT", "1073741824", true, []string{"GOMEMLIMIT=100MiB"}, []string{"soft_limit=100MiB container=1024MiB GOMEMLIMIT=100MiB", "limit=100MiB"}, 100 << 20, false},
		{"another share", "1073741824", true, []string{"AUTOMEMLIMIT=0.5"}, []string{"soft_limit=512MiB container=1024MiB AUTOMEMLIMIT=0.5"}, 512 << 20, true},
		{"off", "1073741824", true, []string{"AUTOMEMLIMIT=off"}, []string{"soft_limit=none container=1024MiB AUTOMEMLIMIT=off"}, 0, true},
		{"not a share", "1073741824", true, []string{"AUTOMEMLIMIT=7"}, []string{"set GOMEMLIMIT, such as", "soft_limit=none container=1024MiB"}, 0, true},
		{"not a limit", "lots", true, nil, []string{"set GOMEMLIMIT, such as"}, 0, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			change, _ := inCgroup(t, test.v2, test.limit)
			settings := append([]string{"WEIR_FLUSH_INTERVAL=1s", "WEIR_LISTEN_READERS=2"}, test.settings...)
			p := startWith(t, build(t), change, settings...)
			for _, want := range test.want {
				if !strings.Contains(p.log(), want) {
					t.Errorf("the log does not say %q", want)
				}
			}
			if got := !strings.Contains(p.log(), doesNotFit); got != test.fits {
				t.Errorf("the configuration fits: %v, want %v", got, test.fits)
			}
			if strings.Contains(strings.Join(test.settings, " "), "DD_") {
				return // its points go elsewhere
			}
			want := fmt.Sprintf(`"metric":"weir.memory.limit","type":"gauge","value":%d,`, test.soft)
			eventually(t, want, func() bool { return strings.Contains(p.output(), want) })
			if strings.Contains(p.output(), `"weir.memory.used","type":"gauge","value":0,`) {
				t.Error("the agent takes no memory")
			}
			p.stop(t)
		})
	}
}

// A configuration that is loaded anew is held against the limit as well.
func TestMemoryOfAReloadIsTold(t *testing.T) {
	change, _ := inCgroup(t, true, "268435456")
	file := filepath.Join(t.TempDir(), "weir.yaml")
	configure := func(contexts int) {
		if err := os.WriteFile(file, fmt.Appendf(nil, "cardinality: {max_contexts: %d}\n", contexts), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	configure(100_000)
	p := startWith(t, build(t), func(cmd *exec.Cmd) {
		cmd.Args = append(cmd.Args, "--config", file)
		change(cmd)
	})
	if strings.Contains(p.log(), "allows more memory") {
		t.Error("100 thousand contexts do not fit into 256 MiB")
	}
	configure(2_000_000)
	eventually(t, "two million contexts are too many for 256 MiB", func() bool {
		return strings.Contains(p.log(), "contexts=572MiB")
	})
}
