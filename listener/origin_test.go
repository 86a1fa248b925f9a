package listener

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	hex64 = "432624d2150b349fe35ba397284dea788c2bf66b885d14dfc1569b01890ca7da"
	pod64 = "8c174a6d5ab4e2ec0b5a0b2d9a1f0c7cc8d5b7f7e7f5e2a04fcd3a7f2a6ed0f1"
)

// The lists are what /proc/PID/cgroup holds under each of these.
func TestContainerID(t *testing.T) {
	tests := map[string]struct{ list, want string }{
		"docker, version 1": {`13:name=systemd:/docker/` + hex64 + `
12:pids:/docker/` + hex64 + `
11:hugetlb:/docker/` + hex64 + "\n", hex64},
		"docker, version 2":          {"0::/system.slice/docker-" + hex64 + ".scope\n", hex64},
		"docker with init inside":    {"0::/system.slice/docker-" + hex64 + ".scope/init.scope\n", hex64},
		"docker in docker":           {"0::/docker/" + pod64 + "/docker/" + hex64 + "\n", hex64},
		"kubernetes, cgroupfs":       {"11:perf_event:/kubepods/besteffort/pod3d274242-8ee0-11e9-a8a6-1e68d864ef1a/" + hex64 + "\n", hex64},
		"kubernetes, systemd":        {"1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod2d3da189_6407_48e3_9ab6_78188d75e609.slice/docker-" + hex64 + ".scope\n", hex64},
		"containerd":                 {"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podabc.slice/cri-containerd-" + hex64 + ".scope\n", hex64},
		"containerd with colons":     {"8:cpu:/system.slice/containerd.service/kubepods-besteffort-podabc.slice:cri-containerd:" + hex64 + "\n", hex64},
		"CRI-O":                      {"0::/kubepods.slice/kubepods-pod1.slice/crio-" + hex64 + ".scope\n", hex64},
		"podman":                     {"0::/machine.slice/libpod-" + hex64 + ".scope/container\n", hex64},
		"ECS":                        {"9:perf_event:/ecs/user-ecs-classic/5a0d5ceddf6c44c1928d367a815d890f/" + hex64 + "\n", hex64},
		"ECS on Fargate":             {"11:hugetlb:/ecs/55091c13-b8cf-4801-b527-f4601742204d/34dc0b5e626f2c5c4c5170e34b10e765-1234567890\n", "34dc0b5e626f2c5c4c5170e34b10e765-1234567890"},
		"Garden":                     {"1:name=systemd:/system.slice/garden.service/garden/6f265890-5165-7fab-6b52-18d1\n", "6f265890-5165-7fab-6b52-18d1"},
		"seen from another cgroup":   {"0::/../" + hex64 + "\n", hex64},
		"not the first line":         {"13:name=systemd:/\n12:pids:/docker/" + hex64 + "\n", hex64},
		"a bare host":                {"0::/user.slice/user-1000.slice/session-2.scope\n", ""},
		"a service":                  {"0::/system.slice/nginx.service\n", ""},
		"the root":                   {"0::/\n", ""},
		"a pod, not its container":   {"0::/kubepods/burstable/pod3d274242-8ee0-11e9-a8a6-1e68d864ef1a\n", ""},
		"too many digits":            {"0::/docker/" + hex64 + "0\n", ""},
		"upper case":                 {"0::/docker/" + strings.ToUpper(hex64) + "\n", ""},
		"nothing":                    {"", ""},
		"no list":                    {"garbage\n::\n:\n", ""},
		"a line without its newline": {"0::/docker/" + hex64, hex64},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := containerID([]byte(test.list)); got != test.want {
				t.Errorf("got %q, want %q of %q", got, test.want, test.list)
			}
		})
	}
}

// fakeProc is a /proc with one process in a container.
func fakeProc(t *testing.T, pid int, list string) string {
	t.Helper()
	folder := t.TempDir()
	process := filepath.Join(folder, fmt.Sprint(pid))
	if err := os.MkdirAll(process, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(process, "cgroup"), []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	return folder
}

func TestOriginsAreRemembered(t *testing.T) {
	o := newOrigins()
	o.folder = fakeProc(t, 7, "0::/docker/"+hex64)
	now := time.Now()
	if got := o.container(7, now); got != hex64 {
		t.Errorf("container = %q", got)
	}
	// The process ends, and another gets its number.
	o.folder = fakeProc(t, 7, "0::/docker/"+pod64)
	if got := o.container(7, now.Add(originTime-1)); got != hex64 {
		t.Errorf("within a minute: %q", got)
	}
	if got := o.container(7, now.Add(originTime)); got != pod64 {
		t.Errorf("after a minute: %q", got)
	}
	for _, unknown := range []int32{8, 0, -1} {
		if got := o.container(unknown, now); got != "" {
			t.Errorf("process %d: %q", unknown, got)
		}
	}
	for pid := range int32(3 * originsKept) {
		o.container(pid+1000, now)
		if len(o.known) > originsKept {
			t.Fatalf("%d processes are remembered", len(o.known))
		}
	}
}

func TestKnownOriginsDoNotAllocate(t *testing.T) {
	o := newOrigins()
	o.folder = fakeProc(t, 7, "0::/docker/"+hex64)
	now := time.Now()
	o.container(7, now)
	o.container(8, now) // of no container
	if n := testing.AllocsPerRun(100, func() {
		o.container(7, now)
		o.container(8, now)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
