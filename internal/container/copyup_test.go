package container

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCopyTree(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to give files away")
	}
	from, to := t.TempDir(), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(from, "d/e"), 0o750))
	must(os.WriteFile(filepath.Join(from, "d/e/f"), []byte("content"), 0o600))
	must(os.Chown(filepath.Join(from, "d/e/f"), 12, 34))
	must(os.Chmod(filepath.Join(from, "d/e/f"), 0o4755|os.ModeSetuid))
	must(os.Symlink("/etc/passwd", filepath.Join(from, "link")))
	must(os.Symlink("/", filepath.Join(from, "d/up")))
	must(syscall.Mkfifo(filepath.Join(from, "fifo"), 0o644))
	must(syscall.Mknod(filepath.Join(from, "null"), syscall.S_IFCHR|0o666, 0x103))
	source, err := os.Open(from)
	must(err)
	defer source.Close()
	target, err := os.Open(to)
	must(err)
	defer target.Close()
	must(new(copier).tree(int(source.Fd()), int(target.Fd()), 0))

	b, err := os.ReadFile(filepath.Join(to, "d/e/f"))
	if err != nil || string(b) != "content" {
		t.Errorf("file: %q, %v", b, err)
	}
	var st syscall.Stat_t
	must(syscall.Stat(filepath.Join(to, "d/e/f"), &st))
	if st.Uid != 12 || st.Gid != 34 || st.Mode&0o7777 != 0o4755 {
		t.Errorf("file: owner %d:%d, mode %o", st.Uid, st.Gid, st.Mode)
	}
	must(syscall.Stat(filepath.Join(to, "d"), &st))
	if st.Mode&0o7777 != 0o750 {
		t.Errorf("directory: mode %o", st.Mode)
	}
	if l, err := os.Readlink(filepath.Join(to, "link")); err != nil || l != "/etc/passwd" {
		t.Errorf("link: %q, %v", l, err)
	}
	if fi, err := os.Lstat(filepath.Join(to, "fifo")); err != nil || fi.Mode() != os.ModeNamedPipe|0o644 {
		t.Errorf("fifo: %v, %v", fi, err)
	}
	if _, err := os.Lstat(filepath.Join(to, "null")); !os.IsNotExist(err) {
		t.Errorf("a device node was copied: %v", err)
	}
	// A second time its files are in the way: nothing is overwritten.
	if err := new(copier).tree(int(source.Fd()), int(target.Fd()), 0); err == nil {
		t.Error("copied over what is there")
	}
}

// TestCopyLimit: whichever limit of memory is the smaller bounds what is copied.
func TestCopyLimit(t *testing.T) {
	limit := func(memory int64, unified string) int64 {
		return newCopier(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &memory}, Unified: map[string]string{"memory.max": unified}}).limit
	}
	for _, tt := range []struct {
		memory  int64
		unified string
		want    int64
	}{{-1, "max", 0}, {7, "max", 7}, {-1, "5", 5}, {7, "5", 5}, {5, "7", 5}} {
		if got := limit(tt.memory, tt.unified); got != tt.want {
			t.Errorf("%d and %s: %d, want %d", tt.memory, tt.unified, got, tt.want)
		}
	}
	if got := newCopier(nil).limit; got != 0 {
		t.Errorf("no resources: %d", got)
	}
}
