package forwarder

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weir-agent/weir/internal/diskio"
)

// mountSmall returns a folder on a file system of 64 blocks.
func mountSmall(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=256k"); err != nil {
		t.Skip("a small file system cannot be mounted: ", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(folder, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return folder
}

// On a full disk put refuses, leaves nothing behind, and works again when there is
// room.
func TestSpoolOnAFullDisk(t *testing.T) {
	cfg := defaultSpoolConfig(filepath.Join(mountSmall(t), "spool"))
	cfg.MinFree = 0
	s := mustOpenSpool(t, cfg)
	r := small(1, start)
	r.body = make([]byte, 60_000)
	var err error
	puts := uint64(0)
	for ; err == nil && puts < 10; puts++ {
		err = s.put(r)
	}
	puts--
	if !errors.Is(err, errSpoolNoSpace) || puts < 2 {
		t.Fatalf("after %d puts: %v", puts, err)
	}
	s.cfg.MinFree = -1 << 30 // believe that there is room: the disk says it then
	if err := s.put(r); !errors.Is(err, errSpoolNoSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("put: %v", err)
	}
	s.cfg.MinFree = 0
	if got := s.stats(); got.Records != puts || got.Refused != 1 || got.WriteErrors != 1 {
		t.Errorf("%d puts: %+v", puts, got)
	}
	if files, err := filepath.Glob(filepath.Join(cfg.Dir, "*"+tempSuffix)); err != nil || files != nil {
		t.Errorf("left behind: %v, %v", files, err)
	}
	taken, _ := s.take(start, nil)
	if err := s.done(taken); err != nil {
		t.Fatal(err)
	}
	mustPut(t, s, r)
	checkSpoolBooks(t, s.stats())
}

// While the folder cannot be written, put says so; what is there is given out, and
// what was done is not given out again until the next start.
func TestSpoolOnAReadOnlyDisk(t *testing.T) {
	mount := mountSmall(t)
	cfg := defaultSpoolConfig(filepath.Join(mount, "spool"))
	cfg.MinFree = 0
	s := mustOpenSpool(t, cfg)
	mustPut(t, s, small(1, start), small(2, start))
	s.close()
	remount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("", mount, "", unix.MS_REMOUNT|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	remount(unix.MS_RDONLY)
	s = mustOpenSpool(t, cfg)
	if _, err := openSpool(cfg, discard()); !errors.Is(err, diskio.ErrLocked) {
		t.Errorf("a second agent: %v, want %v", err, diskio.ErrLocked)
	}
	if err := s.put(small(3, start)); !errors.Is(err, errSpoolReadOnly) {
		t.Errorf("put: %v, want %v", err, errSpoolReadOnly)
	}
	r, ok := s.take(start, nil)
	if !ok || r.points != 1 {
		t.Fatalf("taken: %+v", r)
	}
	if err := s.done(r); !errors.Is(err, errSpoolReadOnly) {
		t.Errorf("done: %v, want %v", err, errSpoolReadOnly)
	}
	if got := s.stats(); got.Points != 2 || got.Done != 1 || got.WriteErrors != 2 {
		t.Errorf("%+v", got)
	}
	if got := takePoints(s, start); !slices.Equal(got, []uint64{2}) {
		t.Errorf("taken: %v, want [2]", got)
	}
	if err := s.close(); err != nil {
		t.Errorf("close: %v", err)
	}
	remount(0)
	s = mustOpenSpool(t, cfg)
	if got := takePoints(s, start); !slices.Equal(got, []uint64{1, 2}) {
		t.Errorf("taken: %v, want [1 2]", got)
	}
	s.close()

	cfg.Dir = filepath.Join(mount, "new")
	remount(unix.MS_RDONLY)
	if _, err := openSpool(cfg, discard()); !errors.Is(err, errSpoolReadOnly) {
		t.Errorf("opened: %v; want %v", err, errSpoolReadOnly)
	}
}
