package image_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"golang.org/x/sys/unix"
)

// layered is an image that uses what layers can do.
func layered(tb testing.TB) *imagetest.Image {
	cap2 := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}) // cap_net_bind_service=ep
	// user::rwx user:1000:r-x group::r-x mask::r-x other::r--
	acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x05\x00\xe8\x03\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x04\x00\xff\xff\xff\xff"
	return imagetest.New(tb, manifest.RunConfig{},
		imagetest.Tar(tb,
			imagetest.Dir(".", 0o755),
			imagetest.Dir("bin", 0o755),
			imagetest.File("bin/su", "setuid").With(0o4755, 0, 0),
			imagetest.File("bin/ping", "cap").With(0o755, 0, 0, "security.capability", cap2),
			imagetest.Link("bin/ping2", "bin/ping"),
			imagetest.Symlink("sbin", "bin"),
			imagetest.Symlink("dangling", "/nowhere/../at/all"),
			imagetest.Dir("usr", 0o755),
			imagetest.Dir("usr/lib", 0o711),
			imagetest.Dir("usr/lib/x", 0o710).With(0o710, 4, 5),
			imagetest.File("usr/lib/x/old", "x"),
			imagetest.File("usr/lib/gone", "x"),
			imagetest.Symlink("lib", "usr/lib"),
			imagetest.Symlink("usr/lib/link", "/usr/lib/x"),
			imagetest.Dir("tmp", 0o1777),
			imagetest.Dir("mail", 0o2775).With(0o2775, 0, 8),
			imagetest.File("mail/box", "x").With(0o660, 8, 12),
			imagetest.Dir("home", 0o755),
			imagetest.Dir("home/u", 0o700).With(0o700, 1000, 1000, "user.note", "hello"),
			imagetest.File("home/u/acl", "x").With(0o754, 1000, 1000, "system.posix_acl_access", acl),
			imagetest.File("home/u/gone", "x"),
			imagetest.File("home/u/changed", "old"),
			imagetest.Dir("opaque", 0o755),
			imagetest.File("opaque/old", "x"),
			imagetest.Dir("opaque/sub", 0o755),
			imagetest.File("opaque/sub/old", "x"),
			imagetest.Dir("emptied", 0o700).With(0o700, 5, 6),
			imagetest.File("emptied/old", "x"),
			imagetest.Dir("emptied/sub", 0o711),
			imagetest.Dir("removed", 0o755),
			imagetest.File("removed/a", "x"),
			imagetest.Dir("again", 0o755),
			imagetest.File("again/old", "x"),
			imagetest.Device("null", 1, 3),
			imagetest.File("becomes-dir", "x"),
			imagetest.Dir("becomes-file", 0o755),
			imagetest.File("becomes-file/x", "x"),
			imagetest.File("big", strings.Repeat("0123456789abcdef", 40_000)),
			imagetest.File("zeros", strings.Repeat("\x00", 300_000)+"end"),
			imagetest.File("zeros-only", strings.Repeat("\x00", 262144)),
			imagetest.File("nobits", "x").With(0, 65534, 65534),
			imagetest.Dir("deep", 0o711),
			imagetest.Dir("deep/er", 0o711).With(0o1770, 7, 9, "user.k", "v"),
			imagetest.Dir("deep/er/est", 0o700),
			imagetest.File("deep/er/est/f", "x"),
			imagetest.Entry{Header: fifo("fifo")},
		),
		imagetest.Tar(tb,
			imagetest.File("home/u/changed", "new").With(0o600, 1000, 1000), // parents have no entry
			imagetest.File("home/u/.wh.gone", ""),
			imagetest.Dir("opaque", 0o750),
			imagetest.File("opaque/.wh..wh..opq", ""),
			imagetest.File("opaque/new", "y"),
			imagetest.File("emptied/.wh..wh..opq", ""), // without an entry: it stays 0700 and 5:6
			imagetest.File("emptied/sub/new", "y"),
			imagetest.File(".wh.removed", ""),
			imagetest.File(".wh.again", ""),
			imagetest.Dir("again", 0o700),
			imagetest.File("again/new", "y"),
			imagetest.Dir("becomes-dir", 0o755),
			imagetest.File("becomes-dir/y", "y"),
			imagetest.File("becomes-file", "y"),
			imagetest.File("tmp/left", "y"), // tmp must stay 1777
			imagetest.File("lib/new", "y"),  // goes to usr/lib, which lib leads to
			imagetest.File("lib/.wh.gone", ""),
			imagetest.File("lib/x/new", "y"),
			imagetest.File("lib/link/too", "y"),
			imagetest.Dir("lib/made", 0o700).With(0o700, 6, 7),
			imagetest.File("lib/made/f", "y"),
			imagetest.Link("lib/made/g", "lib/made/f"),
			imagetest.File("deep/er/est/g", "y"),
			imagetest.File("twice", "first"),
			imagetest.File("twice", "second").With(0o640, 3, 4),
		),
		imagetest.Tar(tb,
			imagetest.File("deep/er/est/h", "z"),
			imagetest.Dir("deep", 0o755),
			imagetest.File("opaque/third", "z"),
			imagetest.File("removed/b", "z"),
			imagetest.File("bin/h1", "z"),
			imagetest.Link("bin/h2", "bin/h1"),
		),
	)
}

func TestTreeEqualsUmoci(t *testing.T) {
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("umoci is not installed (Debian: apt-get install umoci)")
	}
	needRoot(t)
	layout := filepath.Join(t.TempDir(), "layout")
	layered(t).Layout(t, layout, "test")
	bundle := filepath.Join(t.TempDir(), "bundle")
	if out, err := exec.Command("umoci", "unpack", "--image", layout+":test", bundle).CombinedOutput(); err != nil {
		t.Fatalf("umoci unpack: %v\n%s", err, out)
	}
	s := openStore(t)
	images, err := archive.Load(context.Background(), s, layout, archive.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	merged := mount(t, s, images[0])
	want, got := describe(t, filepath.Join(bundle, "rootfs")), describe(t, merged)
	// umoci leaves the time of unpacking on directories that it changed without
	// an entry for them; ours have the time of the last entry, or none.
	for _, p := range []string{".", "removed", "emptied", "emptied/sub"} {
		want[p], got[p] = withoutTime(want[p]), withoutTime(got[p])
	}
	compare(t, want, got)
	if len(got) < 25 {
		t.Errorf("only %d files were compared", len(got))
	}
}

var timeField = regexp.MustCompile(` mtime=[0-9.]+`)

func withoutTime(line string) string { return timeField.ReplaceAllString(line, "") }

// TestRealTreeEqualsUmoci does the same with the tar of a real root file
// system, whose path BULKHEAD_TEST_ROOTFS gives.
func TestRealTreeEqualsUmoci(t *testing.T) {
	path := os.Getenv("BULKHEAD_TEST_ROOTFS")
	if path == "" {
		t.Skip("BULKHEAD_TEST_ROOTFS does not name the tar of a root file system (mmdebstrap makes one)")
	}
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip("umoci is not installed (Debian: apt-get install umoci)")
	}
	needRoot(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := openStore(t)
	im, err := archive.Import(context.Background(), s, f, archive.ImportOptions{Name: "real:test"})
	if err != nil {
		t.Fatal(err)
	}
	layout, bundle := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "bundle")
	if err := archive.SaveDir(context.Background(), s, layout, "real:test"); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("umoci", "unpack", "--image", layout+":test", bundle).CombinedOutput(); err != nil {
		t.Fatalf("umoci unpack: %v\n%s", err, out)
	}
	want, got := describe(t, filepath.Join(bundle, "rootfs")), describe(t, mount(t, s, im))
	compare(t, want, got)
	d, release := disk(t, s, im)
	defer release()
	compare(t, got, describe(t, mountDisk(t, d)))
	t.Logf("%d files compared", len(got))
}

// mount stacks the layers of an image read-only, as a container's root.
func mount(t *testing.T, s *image.Store, im image.Image) string {
	t.Helper()
	chain, err := s.Layers(context.Background(), im)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chain.Release() })
	top := t.TempDir()
	upper, work, merged := filepath.Join(top, "u"), filepath.Join(top, "w"), filepath.Join(top, "m")
	for _, d := range []string{upper, work, merged} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if chain.Root != "" {
		if out, err := exec.Command("touch", "-r", chain.Root, upper).CombinedOutput(); err != nil {
			t.Fatalf("touch: %v %s", err, out)
		}
		if out, err := exec.Command("chmod", "--reference", chain.Root, upper).CombinedOutput(); err != nil {
			t.Fatalf("chmod: %v %s", err, out)
		}
	}
	lower := make([]string, 0, len(chain.Dirs))
	for i := len(chain.Dirs) - 1; i >= 0; i-- {
		lower = append(lower, chain.Dirs[i])
	}
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", strings.Join(lower, ":"), upper, work)
	if err := unix.Mount("overlay", merged, "overlay", unix.MS_NODEV, opts); err != nil {
		t.Fatalf("mount overlay: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return merged
}

// describe writes each file of a tree as one line.
func describe(t *testing.T, root string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	links := make(map[uint64][]string)
	err := filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("mode=%o owner=%d:%d mtime=%d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & syscall.S_IFMT {
		case syscall.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" size=%d content=%x", st.Size, bytes.TrimSpace(content[:min(len(content), 8)]))
			if st.Nlink > 1 {
				links[st.Ino] = append(links[st.Ino], rel)
			}
		case syscall.S_IFLNK:
			target, _ := os.Readlink(path)
			line += " -> " + target
		case syscall.S_IFCHR, syscall.S_IFBLK:
			line += fmt.Sprintf(" rdev=%x", st.Rdev)
		}
		line += xattrs(t, path)
		out[rel] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range links {
		sort.Strings(group)
		if len(group) == 1 {
			continue // linked from the store alone (mend.go)
		}
		for _, p := range group {
			out[p] += " links=" + strings.Join(group, ",")
		}
	}
	return out
}

func xattrs(t *testing.T, path string) string {
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatalf("listxattr %s: %v", path, err)
	}
	var lines []string
	for _, name := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		v := make([]byte, 4096)
		k, err := unix.Lgetxattr(path, name, v)
		if err != nil {
			t.Fatalf("getxattr %s %s: %v", path, name, err)
		}
		lines = append(lines, fmt.Sprintf(" %s=%x", name, v[:k]))
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

func compare(t *testing.T, want, got map[string]string) {
	t.Helper()
	for p, w := range want {
		if g, ok := got[p]; !ok {
			t.Errorf("%s is missing, want %s", p, w)
		} else if g != w {
			t.Errorf("%s\n got %s\nwant %s", p, g, w)
		}
	}
	for p, g := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s should not be there: %s", p, g)
		}
	}
}
