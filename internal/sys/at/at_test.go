package at

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestStatMountTimes has times that do not fit into 64 bits of nanoseconds. What
// the file system cannot keep is compared as it keeps it.
func TestStatMountTimes(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, year := range []int{1900, 1970, 2026, 2262, 2263, 2400} {
		when := time.Date(year, 12, 31, 1, 2, 3, 4, time.UTC)
		if err := Chtimes(CWD, name, when, when); err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := StatMount(fd)
		unix.Close(fd)
		want, lstatErr := Lstat(CWD, name)
		if err != nil || lstatErr != nil || got.Mtim != want.Mtim {
			t.Errorf("in the year %d: %v, %v; want %v, %v", year, got.Mtim, err, want.Mtim, lstatErr)
		}
	}
}

// TestRemoveDeep removes a tree that is deeper than any path, and than there are
// descriptors, and has names in the way.
func TestRemoveDeep(t *testing.T) {
	top := t.TempDir()
	if err := os.MkdirAll(filepath.Join(top, "tree/.deep-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	const depth = 3000
	fd, err := OpenDir(unix.AT_FDCWD, filepath.Join(top, "tree"))
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := Mkdir(fd, "a-name-of-some-length", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := OpenDir(fd, "a-name-of-some-length")
		if err != nil {
			t.Fatal(err)
		}
		Close(fd)
		fd = next
	}
	Close(fd)
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := old
	few.Cur = 256
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	dir, err := OpenDir(unix.AT_FDCWD, top)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(dir)
	if err := RemoveAll(dir, "tree"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(top, "tree")); err == nil {
		t.Error("it is still there")
	}
}

// TestRemoveTogether: several remove one tree, as commands do that find what a
// killed one left.
func TestRemoveTogether(t *testing.T) {
	top := t.TempDir()
	dir, err := OpenDir(unix.AT_FDCWD, top)
	if err != nil {
		t.Fatal(err)
	}
	defer Close(dir)
	for range 20 {
		for _, p := range []string{"a/b/c/d", "a/b/e", "a/f", strings.Repeat("a/", 100)} {
			if err := os.MkdirAll(filepath.Join(top, "tree", p), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := RemoveAll(dir, "tree"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if _, err := os.Lstat(filepath.Join(top, "tree")); err == nil {
			t.Fatal("it is still there")
		}
	}
}
