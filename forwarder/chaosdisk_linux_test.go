package forwarder

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// With a disk that is full or cannot be written, at the start or from some moment on,
// the agent goes on in memory. It says so once, and once when the disk is back; what
// memory has no room for is counted under the reason; the rest arrives once.
func TestChaosWithoutADisk(t *testing.T) {
	for _, test := range []struct {
		name    string
		full    bool // or else read-only
		atStart bool
		back    bool // before the intake is
		want    DropReason
	}{
		{"full at the start", true, true, false, DroppedSpoolFull},
		{"full later", true, false, false, DroppedSpoolFull},
		{"full for a while", true, false, true, DroppedSpoolFull},
		{"read-only at the start", false, true, false, DroppedQueueFull}, // there is no spool
		{"read-only later", false, false, false, DroppedSpoolError},
		{"read-only for a while", false, false, true, DroppedSpoolError},
	} {
		t.Run(test.name, func(t *testing.T) {
			mount := mountSmall(t)
			watched := watch(t)
			if err := unix.Mount("", mount, "", unix.MS_REMOUNT, "size=1m"); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				n := newChaosNet(t, rand.New(rand.NewPCG(1, 1)), "http")
				load := &chaosLoad{random: rand.New(rand.NewPCG(2, 2)), made: map[string]bool{}}
				cfg := toDatadog(n.url())
				cfg.Spool.Enabled, cfg.StateDir, cfg.Spool.MinFree = true, filepath.Join(mount, "state"), 0
				worse := func(bad bool) {
					if test.full {
						fillDisk(t, filepath.Join(mount, "others"), bad)
						return
					}
					if !bad {
						if err := unix.Unmount(cfg.StateDir, unix.MNT_DETACH); err != nil {
							t.Fatal(err)
						}
						return
					}
					// Over the folder, as one with open files cannot be made read-only.
					if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
						t.Fatal(err)
					}
					for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
						if err := unix.Mount(cfg.StateDir, cfg.StateDir, "", flags, ""); err != nil {
							t.Fatal(err)
						}
					}
				}
				if test.atStart {
					worse(true)
				}
				const room = 50 << 10
				r := runForwarder(t, cfg, n, room)
				watched.Store(r.Forwarder)
				flushes := func(count int) {
					for range count {
						r.batches <- load.batch(time.Now().UTC().Truncate(time.Second), 200)
						time.Sleep(10 * time.Second)
					}
				}
				flushes(3)
				if s := r.Stats()[0]; s.Delivered != s.Produced {
					t.Errorf("while the intake works: %+v", s)
				}
				n.set(weather{fault: cut, share: 1})
				flushes(6)
				if !test.atStart {
					worse(true)
				}
				flushes(60)
				dead := r.Stats()[0]
				if dead.Dropped[test.want] == 0 {
					t.Errorf("with a dead intake: %+v", dead)
				}
				if test.back {
					worse(false)
					flushes(12)
				}
				n.set(weather{})
				flushes(3)
				if !test.back {
					worse(false)
				}
				flushes(12)
				s := r.stop()
				n.end()
				got := n.content()
				for what, times := range got {
					if times != 1 || !load.made[what] {
						t.Errorf("%q was accepted %d times", what, times)
					}
				}
				if s.Produced != uint64(len(load.made)) || s.Delivered != uint64(len(got)) || s.Queued+s.Spooled != 0 {
					t.Errorf("%d produced, %d accepted: %+v", len(load.made), len(got), s)
				}
				for why, dropped := range s.Dropped {
					if dropped > 0 && DropReason(why) != test.want && DropReason(why) != DroppedQueueFull && DropReason(why) != DroppedSpoolFull {
						t.Errorf("dropped: %+v", s)
					}
				}
				stops, starts := linesWith(r.log, "the spool takes no more payloads"), linesWith(r.log, "the spool takes payloads again")
				none := linesWith(r.log, "there is no spool")
				if stops+none != 1 || starts > stops || test.back && starts != 1 {
					t.Errorf("the log says %d times that the spool takes nothing, %d times that it does again, %d times that there is none:\n%s",
						stops, starts, none, r.log)
				}
				if lines := linesWith(r.log, "level=ERROR"); lines > 250 {
					t.Errorf("%d errors in the log of %d flushes:\n%s", lines, 75, r.log)
				}
			})
		})
	}
}

// fillDisk writes what is left of a small disk full, or frees it.
func fillDisk(t *testing.T, path string, full bool) {
	t.Helper()
	if !full {
		if err := unix.Unlink(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 4096))
	}
	if err != unix.ENOSPC {
		t.Fatal(fmt.Errorf("fill the disk: %w", err))
	}
}
