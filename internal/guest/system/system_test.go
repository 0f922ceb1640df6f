package system

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestNewlines cuts a terminal's output at every place.
func TestNewlines(t *testing.T) {
	const in, want = "one\r\ntwo\n\rthree\r\r\nfour\r\n", "one\ntwo\n\rthree\r\nfour\n"
	for cut := range len(in) + 1 {
		var l newlines
		var out bytes.Buffer
		for _, part := range []string{in[:cut], in[cut:]} {
			out.Write(l.plain([]byte(part)))
		}
		if out.String() != want {
			t.Errorf("cut at %d: %q, want %q", cut, out.String(), want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	got := environment([]string{"PATH=/bin", "container=docker", "containers=2"})
	if want := []string{"PATH=/bin", "containers=2"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// newTree is a tree in a directory of the test's, without any mount.
func newTree(t *testing.T) *tree {
	t.Helper()
	dir := t.TempDir()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &tree{dir: dir, fd: fd}
	t.Cleanup(x.close)
	return x
}

// TestPlaces makes mount points in an image whose links lead out of it.
func TestPlaces(t *testing.T) {
	x := newTree(t)
	outside := t.TempDir()
	for name, to := range map[string]string{"lib": "usr/lib", "out": outside, "up": "../../../.."} {
		if err := os.Symlink(to, filepath.Join(x.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(x.dir, "usr/lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, at string
		file     bool
	}{
		{"/lib/modules/6.1", "usr/lib/modules/6.1", false},
		{"/etc/thing", "etc/thing", true},
		{"/up/a/b", "a/b", false},
		{"/../c", "c", false},
	} {
		if err := x.at(c.name, c.file, func(string) error { return nil }); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if fi, err := os.Lstat(filepath.Join(x.dir, c.at)); err != nil || fi.IsDir() == c.file {
			t.Errorf("%s: %s is %v, %v", c.name, c.at, fi, err)
		}
	}
	if err := x.at("/out/d", false, func(string) error { return nil }); err == nil {
		t.Error("a link to a directory that is only outside was followed")
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside there is %v", left)
	}
}

// TestFiles writes what depends on the workload once, and resolv.conf always.
func TestFiles(t *testing.T) {
	source := filepath.Join(t.TempDir(), "content")
	write := func(x *tree, content string, mounts ...workload.Mount) {
		t.Helper()
		if err := os.WriteFile(source, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"/etc/hostname": source, "/etc/resolv.conf": source}
		if err := x.write(files, x.dir, workload.Spec{Mounts: mounts}, nil); err != nil {
			t.Fatal(err)
		}
	}
	read := func(x *tree, name string) string {
		b, err := os.ReadFile(filepath.Join(x.dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(b)
	}
	x := newTree(t)
	write(x, "first")
	id := read(x, machineID)
	if len(id) != 33 || strings.Trim(id, "0123456789abcdef\n") != "" {
		t.Errorf("machine ID %q", id)
	}
	write(x, "second")
	for name, want := range map[string]string{"/etc/hostname": "first", "/etc/resolv.conf": "second", machineID: id} {
		if got := read(x, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}

	masked := newTree(t)
	write(masked, "hidden", workload.Mount{Target: "/etc/hostname"})
	if got := read(masked, "/etc/hostname"); got != "" {
		t.Errorf("below a mount of the user's: %q", got)
	}

	linked := newTree(t)
	if err := os.Mkdir(filepath.Join(linked.dir, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(t.TempDir(), "stub")
	if err := os.Symlink(elsewhere, filepath.Join(linked.dir, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	write(linked, "first")
	if _, err := os.Lstat(elsewhere); err == nil {
		t.Error("a link of the image's was written through")
	}
}

// TestFixed starts a system again whose files nobody can change any more: on a full
// disk, and on one that is read-only.
func TestFixed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	runtime.LockOSThread() // never unlocked: the thread has mounts of its own
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir, source := t.TempDir(), filepath.Join(t.TempDir(), "content")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, 0) })
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	x := &tree{dir: dir, fd: fd}
	t.Cleanup(x.close)
	start := func(text string) (notices []string, err error) {
		if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
			return nil, err
		}
		err = x.write(map[string]string{hostsFile: source, "/etc/resolv.conf": source}, dir, workload.Spec{}, func(line string) { notices = append(notices, line) })
		return notices, err
	}
	if notices, err := start("first\n"); err != nil || len(notices) > 0 {
		t.Fatalf("the first start: %q, %v", notices, err)
	}
	fixed := func(how, why string) {
		t.Helper()
		notices, err := start("second\n")
		text := strings.Join(notices, "; ")
		if err != nil || len(notices) != 2 || !strings.Contains(text, why) || !strings.Contains(text, hostsFile) || !strings.Contains(text, "/etc/resolv.conf") {
			t.Errorf("%s: %q, %v", how, notices, err)
		}
		for name, want := range map[string]string{hostsFile: string(markHosts([]byte("first\n"))), "/etc/resolv.conf": "first\n"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
				t.Errorf("%s: %s is %q, %v", how, name, b, err)
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 128<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	fixed("a full disk", "no space left")
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	fixed("a read-only disk", "read-only")
	// What was never written is wanted.
	if err := x.write(map[string]string{"/etc/hostname": source}, dir, workload.Spec{}, nil); !errors.Is(err, unix.EROFS) {
		t.Errorf("a file that is missing: %v", err)
	}
}

// TestHeeds: what a process does not know of is dropped by the kernel.
func TestHeeds(t *testing.T) {
	// systemd blocks what it reads from a signalfd; SIGTERM is 15, SIGRTMIN+4 38.
	const early = "Name:\tsystemd\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000400\n"
	const later = "Name:\tsystemd\nSigBlk:\t7be3c0fe28014a03\nSigIgn:\t0000000000001000\nSigCgt:\t0000000100000000\n"
	for _, tt := range []struct {
		status string
		sig    syscall.Signal
		want   bool
	}{
		{early, syscall.SIGTERM, false}, {early, powerOff, false}, {early, syscall.SIGSEGV, true},
		{later, syscall.SIGTERM, true}, {later, powerOff, true}, {later, syscall.SIGPIPE, true}, {later, syscall.SIGQUIT, false},
		{"", syscall.SIGTERM, false}, {"SigCgt:\tx\n", syscall.SIGHUP, false}, {later, 0, false}, {later, 65, false},
	} {
		if got := heeds(tt.status, tt.sig); got != tt.want {
			t.Errorf("signal %d in %q: %v", tt.sig, tt.status, got)
		}
	}
}
