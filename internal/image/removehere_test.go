package image

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestRemoveHereMarks has a directory that can neither be moved away nor removed
// whole: it must be told from one that is.
func TestRemoveHereMarks(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts")
	}
	dir := filepath.Join(t.TempDir(), "mended")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, "mode=700"); err != nil {
		t.Fatal(err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	if err := os.Mkdir(filepath.Join(dir, treeDir), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := removeHere(dir); err == nil {
		t.Fatal("a mount point was removed")
	}
	if fi, err := os.Lstat(dir); err != nil || fi.Mode().Perm() != halfMode {
		t.Errorf("what is left looks whole: %v, %v", fi, err)
	}
}
