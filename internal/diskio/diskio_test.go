package diskio

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A file that is replaced is whole, private and alone in its folder.
func TestWriteFile(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "state.json")
	for _, content := range []string{"a longer one", "short"} {
		if err := WriteFile(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	for _, name := range []string{path + ".tmp-1", path + ".tmp", filepath.Join(folder, "state.jsonl")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	RemoveHalfWritten(path)
	if left, _ := filepath.Glob(path + "*"); len(left) != 3 {
		t.Errorf("left: %v", left)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := WriteFile(folder, nil); err == nil {
		t.Error("a folder was replaced")
	}
	for _, place := range []string{folder, filepath.Dir(folder)} {
		if left, _ := filepath.Glob(filepath.Join(place, "*.tmp-*")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// One has the lock at a time, and whoever ends gives it back.
func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	one, err := Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("a second one: %v", err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	two, err := Lock(path)
	if err != nil {
		t.Fatalf("after it was given back: %v", err)
	}
	two.Close()
	link := path + "2"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(link); err == nil {
		t.Error("a link was followed")
	}
}

func TestFree(t *testing.T) {
	if n, err := Free(t.TempDir()); err != nil || n <= 0 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := Free(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("a folder that is not there has room")
	}
}
