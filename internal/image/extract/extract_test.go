package extract

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/leakcheck"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// lines builds a layer, one file a line:
//
//	path/            a directory      path=text    a file
//	path->target     a link           path~other   a hard link
//	path!            a whiteout       path/ opaque
func layer(t *testing.T, lines ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, line := range lines {
		if err := add(root, line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return root
}

func add(root, line string) error {
	if p, ok := strings.CutSuffix(line, "!"); ok {
		return syscall.Mknod(filepath.Join(root, p), syscall.S_IFCHR, 0)
	}
	if p, ok := strings.CutSuffix(line, "/ opaque"); ok {
		if err := os.MkdirAll(filepath.Join(root, p), 0o755); err != nil {
			return err
		}
		return syscall.Setxattr(filepath.Join(root, p), "trusted.overlay.opaque", []byte("y"), 0)
	}
	if p, ok := strings.CutSuffix(line, "/"); ok {
		return os.MkdirAll(filepath.Join(root, p), 0o755)
	}
	if p, target, ok := strings.Cut(line, "->"); ok {
		return os.Symlink(target, filepath.Join(root, p))
	}
	if p, other, ok := strings.Cut(line, "~"); ok {
		return os.Link(filepath.Join(root, other), filepath.Join(root, p))
	}
	p, text, _ := strings.Cut(line, "=")
	return os.WriteFile(filepath.Join(root, p), []byte(text), 0o644)
}

// extract copies into a directory and lists what came.
func extract(t *testing.T, layers []string, dir string, b *Budget) (found bool, got []string, to string, err error) {
	t.Helper()
	to = t.TempDir()
	f, oerr := os.Open(to)
	if oerr != nil {
		t.Fatal(oerr)
	}
	defer f.Close()
	found, err = Dir(t.Context(), layers, dir, f, b)
	filepath.WalkDir(to, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(to, p)
		switch {
		case err != nil || rel == ".":
		case d.IsDir():
			got = append(got, rel+"/")
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(p)
			got = append(got, rel+"->"+target)
		case d.Type().IsRegular():
			b, _ := os.ReadFile(p)
			got = append(got, rel+"="+string(b))
		default:
			got = append(got, rel+" "+d.Type().String())
		}
		return nil
	})
	slices.Sort(got)
	return found, got, to, err
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, for owners and device files")
	}
	leakcheck.Check(t, leakcheck.Options{})
}

func TestMerge(t *testing.T) {
	needRoot(t)
	lower := layer(t, "srv/", "srv/old=1", "srv/gone=1", "srv/sub/", "srv/sub/low=1", "srv/hidden/", "srv/hidden/x=1", "srv/was-dir/", "srv/was-dir/x=1",
		"srv/was-file=1", "var/", "var/run->/run", "run/", "run/app/", "run/app/pid=7", "up->../../../srv/sub/..", "loop->loop", "file=1", "etc->/file", "out->../../../../etc")
	upper := layer(t, "srv/", "srv/new=2", "srv/gone!", "srv/sub/", "srv/sub/high=2", "srv/hidden/ opaque", "srv/hidden/y=2", "srv/was-dir=2", "srv/was-file/", "srv/was-file/z=2")
	all := []string{"hidden/", "hidden/y=2", "new=2", "old=1", "sub/", "sub/high=2", "sub/low=1", "was-dir=2", "was-file/", "was-file/z=2"}
	for _, tt := range []struct {
		dir   string
		found bool
		want  []string
	}{
		{"/srv", true, all}, {"/srv/", true, all}, {"/up", true, all}, {"/srv/../srv/./sub/..", true, all},
		{"/var/run/app", true, []string{"pid=7"}},
		{"/loop", false, nil}, {"/file", false, nil}, {"/file/x", false, nil}, {"/none", false, nil}, {"/srv/gone", false, nil}, {"/srv/was-dir", false, nil},
		{"/out", false, nil}, // leads to a file of the image, and not to the host's /etc
		{"/", false, nil}, {"/..", false, nil},
	} {
		found, got, _, err := extract(t, []string{lower, upper}, tt.dir, DefaultBudget())
		if err != nil || found != tt.found || !slices.Equal(got, tt.want) {
			t.Errorf("%s: found %v, %v\ngot  %q\nwant %q", tt.dir, found, err, got, tt.want)
		}
	}
}

func TestAttributes(t *testing.T) {
	needRoot(t)
	root := layer(t, "d/", "d/f=text", "d/g~d/f", "d/l->/etc/passwd", "d/sub/", "d/sub/h~d/f", "d/setuid=x", "d/sparse=")
	when := time.Unix(1234567890, 987654321)
	p := func(name string) string { return filepath.Join(root, "d", name) }
	for _, err := range []error{
		syscall.Mkfifo(p("fifo"), 0o600), syscall.Mknod(p("null"), syscall.S_IFCHR|0o666, 1<<8|3),
		os.Lchown(p("l"), 5, 6), os.Chown(p("f"), 1000, 1001), os.Chmod(p("f"), 0o640), syscall.Setxattr(p("f"), "user.note", []byte("hi"), 0),
		syscall.Setxattr(p("f"), "trusted.secret", []byte("no"), 0),
		os.Chown(p("setuid"), 7, 7), syscall.Chmod(p("setuid"), 0o4755), os.Truncate(p("sparse"), 1<<26),
		os.Chown(p(""), 70, 71), syscall.Chmod(p(""), 0o3770), syscall.Setxattr(p(""), "user.dir", []byte("x"), 0),
		os.Chtimes(p("f"), when, when), os.Chtimes(p("sub"), when, when), os.Chtimes(p(""), when, when),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	_, _, to, err := extract(t, []string{root}, "/d", DefaultBudget())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "f", "g", "l", "sub", "sub/h", "setuid", "fifo", "null", "sparse"} {
		a, aerr := at.Lstat(-100, p(name))
		b, berr := at.Lstat(-100, filepath.Join(to, name))
		if aerr != nil || berr != nil {
			t.Fatal(aerr, berr)
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid || a.Mtim != b.Mtim || a.Rdev != b.Rdev || name != "" && a.Nlink != b.Nlink {
			t.Errorf("%q: got %o %d:%d %v dev %d links %d, want %o %d:%d %v dev %d links %d", name,
				b.Mode, b.Uid, b.Gid, b.Mtim, b.Rdev, b.Nlink, a.Mode, a.Uid, a.Gid, a.Mtim, a.Rdev, a.Nlink)
		}
		if name == "sparse" && (b.Size != a.Size || b.Blocks > 64) {
			t.Errorf("sparse: %d bytes in %d blocks", b.Size, b.Blocks)
		}
	}
	buf := make([]byte, 10)
	if n, err := syscall.Getxattr(filepath.Join(to, "f"), "user.note", buf); err != nil || string(buf[:n]) != "hi" {
		t.Errorf("attribute of a file: %q, %v", buf[:max(n, 0)], err)
	}
	if _, err := syscall.Getxattr(filepath.Join(to, "f"), "trusted.secret", buf); err == nil {
		t.Error("an attribute that is the host's came along")
	}
	if n, err := syscall.Getxattr(to, "user.dir", buf); err != nil || string(buf[:n]) != "x" {
		t.Errorf("attribute of the directory: %v", err)
	}
}

func TestBudget(t *testing.T) {
	needRoot(t)
	root := layer(t, "d/", "d/a="+strings.Repeat("x", 1000), "d/b="+strings.Repeat("x", 1000), "d/c~d/a")
	for _, tt := range []struct {
		b  Budget
		ok bool
	}{{Budget{2000, 3}, true}, {Budget{1999, 3}, false}, {Budget{2000, 2}, false}, {Budget{}, false}} {
		_, _, _, err := extract(t, []string{root}, "/d", &tt.b)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrLimit) {
			t.Errorf("%+v: got %v", tt.b, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Dir(ctx, []string{root}, "/d", f, DefaultBudget()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestDeep copies the deepest tree that a layer may have, from many layers,
// with few descriptors.
func TestDeep(t *testing.T) {
	needRoot(t)
	var layers []string
	for i := range 12 {
		layers = append(layers, layer(t, "d/"+strings.Repeat("x/", 126), fmt.Sprintf("d/%sf%d=1", strings.Repeat("x/", 126), i)))
	}
	_, got, _, err := extract(t, layers, "/d", DefaultBudget())
	if err != nil || len(got) != 126+12 {
		t.Errorf("got %d files, %v", len(got), err)
	}
}

func TestDiskFull(t *testing.T) {
	needRoot(t)
	root := layer(t, "d/", "d/big="+strings.Repeat("x", 1<<20))
	small := t.TempDir()
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("needs to mount a small file system: %v", err)
	}
	defer syscall.Unmount(small, syscall.MNT_DETACH)
	f, err := os.Open(small)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Dir(t.Context(), []string{root}, "/d", f, DefaultBudget()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}

// FuzzWalk follows any path, over links that lead anywhere: it ends in a
// directory of the image or nowhere.
func FuzzWalk(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Skip("needs root, for device files")
	}
	root := f.TempDir()
	for _, line := range []string{"d/", "d/e/", "d/up->..", "d/abs->/d/e", "d/out->../../../../etc", "d/loop->loop", "d/two->two/two", "d/gone!", "d/file=x"} {
		if err := add(root, line); err != nil {
			f.Fatal(err)
		}
	}
	for _, s := range []string{"/d/up/d/abs", "/d/out", "/d/two", "/d/loop/x", "/d/gone/e", "//d/./e/../file/..", "/d/abs\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := open([]string{root})
		if err != nil {
			t.Fatal(err)
		}
		defer u.close()
		m, err := u.walk(path)
		if err != nil || m == nil {
			return // such as a name that is too long
		}
		if m.path != "" && m.path != "d" && m.path != "d/e" {
			t.Errorf("%q leads to %q", path, m.path)
		}
	})
}
