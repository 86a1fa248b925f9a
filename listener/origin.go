package listener

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	// originsKept is how many processes a reader remembers the containers of.
	originsKept = 4096
	procFolder  = "/proc"

	// originTime is for how long: then the number may be another process's.
	originTime = time.Minute
	// maxCgroupFile is how much of a process's list of cgroups is read.
	maxCgroupFile = 64 << 10
)

// origins finds out which containers processes run in. It belongs to one reader.
type origins struct {
	folder string // procFolder, but for tests
	known  map[int32]origin
}

type origin struct {
	container string
	until     time.Time
}

func newOrigins() *origins {
	return &origins{folder: procFolder, known: map[int32]origin{}}
}

// container returns the id of a process's container; "" if it is in none or cannot
// be seen from here.
//
// Hot path: once per datagram from a Unix socket. No allocation if the process is
// known; TestKnownOriginsDoNotAllocate checks.
func (o *origins) container(pid int32, now time.Time) string {
	if pid <= 0 { // of another PID namespace
		return ""
	}
	if known, ok := o.known[pid]; ok && now.Before(known.until) {
		return known.container
	}
	if len(o.known) >= originsKept {
		clear(o.known)
	}
	id := o.read(pid)
	o.known[pid] = origin{id, now.Add(originTime)}
	return id
}

func (o *origins) read(pid int32) string {
	file, err := os.Open(o.folder + "/" + strconv.Itoa(int(pid)) + "/cgroup")
	if err != nil {
		return ""
	}
	defer file.Close()
	list, err := io.ReadAll(io.LimitReader(file, maxCgroupFile))
	if err != nil {
		return ""
	}
	return containerID(list)
}

// containerName matches a part of a cgroup's path that is named after a
// container, as Docker, containerd, CRI-O, ECS and Garden do:
//
//	432624d2…64 hex…      docker-432624d2….scope      cri-containerd:432624d2…
//	34dc0b5e626f2c5c4c5170e34b10e765-1234567890       34dc0b5e-626f-2c5c-5170-e34b
var containerName = regexp.MustCompile(`(?:^|[-:_])([0-9a-f]{64}|[0-9a-f]{32}-[0-9]+|[0-9a-f]{8}(?:-[0-9a-f]{4}){4})(?:\.scope)?$`)

// containerID returns the container in a list of cgroups in the form of
// /proc/PID/cgroup, of version 1 or 2: the innermost one of the first line that
// has any.
func containerID(list []byte) string {
	for line := range bytes.Lines(list) {
		//	12:memory:/kubepods/burstable/pod…/432624d2…
		//	          ^
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) < 3 {
			continue
		}
		path := strings.Split(parts[2], "/")
		for i := len(path) - 1; i >= 0; i-- {
			if found := containerName.FindStringSubmatch(path[i]); found != nil {
				return found[1]
			}
		}
	}
	return ""
}
