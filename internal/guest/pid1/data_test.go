package pid1

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestDataPrepare: the disk is asked for once, a half-made directory is made
// anew, and one of another range of IDs is refused.
func TestDataPrepare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	mounts := 0
	d := &data{dir: t.TempDir(), mount: func() error { mounts++; return nil }}
	id, root := workload.NewID(), t.TempDir()
	if err := os.Chmod(root, 0o751); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(d.dir, "workloads", string(id)+".new", "upper", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		upper, _, err := d.prepare(id, root, 5000, 1000)
		if err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(upper)
		if err != nil || fi.Mode().Perm() != 0o751 {
			t.Errorf("upper: %v, %v", fi, err)
		}
		if names, err := os.ReadDir(upper); err != nil || len(names) != 0 {
			t.Errorf("upper holds %v, %v", names, err)
		}
	}
	if _, _, err := d.prepare(id, root, 6000, 1000); err == nil || !strings.Contains(err.Error(), "belongs to user 5000") {
		t.Errorf("another range: %v", err)
	}
	if err := os.Chown(root, 1000, 0); err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.prepare(workload.NewID(), root, 5000, 1000); err == nil || !strings.Contains(err.Error(), "belongs to user 1000") {
		t.Errorf("an owner outside the range: %v", err)
	}
	if err := errors.Join(d.remove(id), d.remove(id)); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(filepath.Join(d.dir, "workloads")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if mounts != 1 {
		t.Errorf("mounted %d times", mounts)
	}
}

// TestDataUnmounted: without the disk nothing is written anywhere, and the next
// try looks for it again.
func TestDataUnmounted(t *testing.T) {
	tries := 0
	missing := errors.New("no disk")
	d := &data{dir: t.TempDir(), mount: func() error { tries++; return missing }}
	for range 2 {
		if _, _, err := d.prepare(workload.NewID(), t.TempDir(), 0, 0); !errors.Is(err, missing) {
			t.Errorf("prepare: %v", err)
		}
	}
	if err := d.remove(workload.NewID()); !errors.Is(err, missing) {
		t.Errorf("remove: %v", err)
	}
	if names, err := os.ReadDir(d.dir); err != nil || len(names) != 0 || tries != 3 {
		t.Errorf("%v, %v after %d tries", names, err, tries)
	}
}

func TestNames(t *testing.T) {
	for _, s := range []string{"", ".", "..", "a/b", "a b", "image\x00", strings.Repeat("a", 65)} {
		if safeSerial(s) {
			t.Errorf("%q is taken for a name", s)
		}
	}
	if !safeSerial("image12") {
		t.Error("a good name is refused")
	}
}

func TestReseedRefuses(t *testing.T) {
	for _, n := range []int{0, protocol.MinSeed - 1, protocol.MaxSeed + 1} {
		if err := reseed(make([]byte, n)); err == nil {
			t.Errorf("a seed of %d bytes was taken", n)
		}
	}
}

// TestDataKeep removes what nobody wants, and spares a workload that comes
// while the disk is being mounted.
func TestDataKeep(t *testing.T) {
	wanted, gone, young := workload.NewID(), workload.NewID(), workload.NewID()
	d := &data{dir: t.TempDir()}
	live := map[workload.ID]bool{wanted: true}
	d.mount = func() error {
		live[young] = true
		var err error
		for _, name := range []string{string(wanted), string(gone), string(gone) + ".new", string(young) + ".new"} {
			err = errors.Join(err, os.MkdirAll(filepath.Join(d.dir, "workloads", name, "upper"), 0o700))
		}
		return err
	}
	if err := d.keep(func(id workload.ID) bool { return live[id] }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{string(wanted): true, string(gone): false, string(gone) + ".new": false, string(young) + ".new": true} {
		if _, err := os.Stat(filepath.Join(d.dir, "workloads", name)); (err == nil) != want {
			t.Errorf("%s: %v, want it to be there: %v", name, err, want)
		}
	}
}

// TestDataDeep removes trees that are deeper than there are descriptors, as a
// workload can make them.
func TestDataDeep(t *testing.T) {
	d := &data{dir: t.TempDir(), mount: func() error { return nil }}
	removed, left := workload.NewID(), workload.NewID()
	for _, id := range []workload.ID{removed, left} {
		dir := filepath.Join(d.dir, "workloads", string(id))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		fd, err := at.OpenDir(at.CWD, dir)
		for depth := 0; err == nil && depth < 600; depth++ {
			var next int
			if err = at.Mkdir(fd, "d", 0o700); err == nil {
				next, err = at.OpenDir(fd, "d")
			}
			at.Close(fd)
			fd = next
		}
		if err != nil {
			t.Fatal(err)
		}
		at.Close(fd)
	}
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 256, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
	if err := d.remove(removed); err != nil {
		t.Errorf("remove: %.200v", err)
	}
	if err := d.keep(func(workload.ID) bool { return false }); err != nil {
		t.Errorf("keep: %.200v", err)
	}
	if names, err := os.ReadDir(filepath.Join(d.dir, "workloads")); err != nil || len(names) != 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}
