package datadisk

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func needPrograms(tb testing.TB, names ...string) {
	tb.Helper()
	for _, n := range names {
		if _, err := find(n); err != nil {
			tb.Skipf("%s is not installed", n)
		}
	}
}

// fsck asks e2fsck for the state of a disk.
func fsck(tb testing.TB, path string) {
	tb.Helper()
	program, err := find("e2fsck")
	if err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command(program, "-f", "-n", path).CombinedOutput(); err != nil {
		tb.Errorf("e2fsck %s: %v\n%s", path, err, out)
	}
}

func usage(tb testing.TB, path string) (size, used int64) {
	tb.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		tb.Fatal(err)
	}
	if st.Mode != syscall.S_IFREG|0o600 {
		tb.Errorf("%s has mode %o", path, st.Mode)
	}
	return st.Size, st.Blocks * 512
}

func TestMake(t *testing.T) {
	needPrograms(t, "mkfs.ext4", "e2fsck")
	dir := t.TempDir()
	templates := filepath.Join(dir, "templates")
	for _, c := range []struct {
		name string
		size int64
		most int64 // bytes on the host
	}{
		{"smallest", MinBytes, 256 << 10},
		{"odd", 100<<20 + 4097, 512 << 10},
		{"usual", 10 << 30, 512 << 10},
		{"large", 1 << 40, 64 << 20}, // a terabyte has 16 MiB of descriptors
	} {
		for _, how := range []string{"alone", "first", "copied"} {
			path := filepath.Join(dir, c.name+"-"+how)
			var opts []Option
			if how != "alone" {
				opts = append(opts, Templates(templates))
			}
			if err := Make(context.Background(), path, c.size, opts...); err != nil {
				t.Fatal(err)
			}
			if size, used := usage(t, path); size != c.size || used > c.most {
				t.Errorf("%s, %s: %d bytes and %d on the host, want %d and at most %d", c.name, how, size, used, c.size, c.most)
			}
			if c.size < 1<<40 {
				fsck(t, path)
			}
		}
	}
}

// TestMounts writes into the file system through the kernel.
func TestMounts(t *testing.T) {
	needPrograms(t, "mkfs.ext4", "e2fsck")
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	path, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	if err := Make(context.Background(), path, 300<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop", path, mnt).CombinedOutput(); err != nil {
		t.Skipf("no loop device here: %s", out)
	}
	mounted := true
	unmount := func() {
		if mounted {
			if err := syscall.Unmount(mnt, 0); err != nil {
				t.Error(err)
			}
		}
		mounted = false
	}
	defer unmount()
	for _, d := range []string{"a", "a/b", "c"} {
		if err := os.Mkdir(filepath.Join(mnt, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(mnt, "a/b/file"), []byte(strings.Repeat("x", 5<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	unmount()
	fsck(t, path)
}

func TestRefusals(t *testing.T) {
	needPrograms(t, "mkfs.ext4")
	dir := t.TempDir()
	ctx := context.Background()
	for _, size := range []int64{-1, 0, MinBytes - 1, MaxBytes + 1} {
		if err := Make(ctx, filepath.Join(dir, "x"), size); !errors.Is(err, ErrSize) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Make(ctx, taken, MinBytes); !errors.Is(err, os.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	if raw, err := os.ReadFile(taken); err != nil || string(raw) != "mine" {
		t.Errorf("the file that was there: %q, %v", raw, err)
	}
	if err := Make(ctx, filepath.Join(dir, "no/dir/x"), MinBytes); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := Make(ended, filepath.Join(dir, "x"), MinBytes); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("refused calls left %v, %v", names, err)
	}
}

func TestFullDisk(t *testing.T) {
	needPrograms(t, "mkfs.ext4")
	dir := t.TempDir()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skip("cannot mount a tmpfs: ", err)
	}
	defer syscall.Unmount(dir, 0)
	if err := Make(context.Background(), filepath.Join(dir, "x"), 1<<30); err == nil {
		t.Error("a file system of more than 64 KiB fits on a disk of 64 KiB")
	}
	templates := t.TempDir()
	err := Make(context.Background(), filepath.Join(dir, "x"), 1<<30, Templates(templates))
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("copy to a full disk: %v", err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("left %v, %v", names, err)
	}
}

// TestAtOnce makes twenty disks, and one file system.
func TestAtOnce(t *testing.T) {
	needPrograms(t, "mkfs.ext4", "e2fsck")
	dir := t.TempDir()
	templates := filepath.Join(dir, "templates")
	paths := make([]string, 20)
	var wg sync.WaitGroup
	for i := range paths {
		paths[i] = filepath.Join(dir, string(rune('a'+i)))
		wg.Go(func() {
			if err := Make(context.Background(), paths[i], 1<<30, Templates(templates)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	head := func(path string) string {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b := make([]byte, 1<<20)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	want := head(paths[0])
	for _, p := range paths[1:] {
		if head(p) != want {
			t.Errorf("%s is another file system", p)
		}
	}
	fsck(t, paths[0])
}

func TestDamagedTemplateIsMadeAgain(t *testing.T) {
	needPrograms(t, "mkfs.ext4", "e2fsck")
	dir := t.TempDir()
	templates := filepath.Join(dir, "templates")
	another := func(name string) string {
		path := filepath.Join(dir, name)
		if err := Make(context.Background(), path, MinBytes, Templates(templates)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	another("first")
	names, err := os.ReadDir(templates)
	if err != nil || len(names) != 1 {
		t.Fatalf("templates: %v, %v", names, err)
	}
	for i, damage := range []func(f *os.File) error{
		func(f *os.File) error { return f.Truncate(MinBytes / 2) },
		func(f *os.File) error { return f.Truncate(0) },
		func(f *os.File) error { _, err := f.WriteAt([]byte("x"), superOffset+0x80); return err },
	} {
		f, err := os.OpenFile(filepath.Join(templates, names[0].Name()), os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := damage(f); err != nil {
			t.Fatal(err)
		}
		f.Close()
		fsck(t, another(string(rune('a'+i))))
	}
}

func TestProgramMissing(t *testing.T) {
	if _, err := find("mkfs.no-such"); !errors.Is(err, ErrNoProgram) || !strings.Contains(err.Error(), "e2fsprogs") {
		t.Errorf("got %v", err)
	}
}

func BenchmarkMake(b *testing.B) {
	needPrograms(b, "mkfs.ext4")
	for name, opts := range map[string][]Option{"mkfs": nil, "template": {Templates(filepath.Join(b.TempDir(), "t"))}} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			path := filepath.Join(dir, "disk")
			for b.Loop() {
				if err := Make(context.Background(), path, 10<<30, opts...); err != nil {
					b.Fatal(err)
				}
				os.Remove(path)
			}
		})
	}
}
