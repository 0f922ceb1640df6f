package at

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenFileLooksFirst opens a device that has no driver: whoever opens it
// is told so (ENXIO), whoever only looks is not.
func TestOpenFileLooksFirst(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to make a device node")
	}
	dir := t.TempDir()
	if err := unix.Mknod(filepath.Join(dir, "device"), unix.S_IFCHR|0o600, int(unix.Mkdev(4095, 77))); err != nil {
		t.Skip("cannot make device nodes here: ", err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	fd, err := OpenDir(unix.AT_FDCWD, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(fd)
	for _, name := range []string{"device", "fifo", "link"} {
		if _, err := OpenFile(fd, name); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: got %v, want: not a regular file", name, err)
		}
	}
	file, err := OpenFile(fd, "file")
	if err != nil {
		t.Fatal(err)
	}
	defer Close(file)
	var b [8]byte
	if n, err := unix.Read(file, b[:]); err != nil || string(b[:n]) != "text" {
		t.Errorf("read %q, %v", b[:n], err)
	}
}
