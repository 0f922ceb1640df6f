package erofs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/image/erofs"
	"golang.org/x/sys/unix"
)

func sum(r io.Reader) []byte {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return []byte(err.Error())
	}
	return h.Sum(nil)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func put(tb testing.TB, dir, name, text string) string {
	tb.Helper()
	path := filepath.Join(dir, name)
	must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	must(tb, os.WriteFile(path, []byte(text), 0o644))
	return path
}

// TestAttributes has one of each thing that a file can be or have.
func TestAttributes(t *testing.T) {
	needMounts(t)
	d := t.TempDir()
	must(t, os.Chmod(d, 0o711))
	put(t, d, "empty", "")
	for _, n := range []int{1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 1 << 20, 1<<20 + 5} {
		put(t, d, fmt.Sprintf("size-%d", n), strings.Repeat("0123456789abcdef", n/16+1)[:n])
	}
	must(t, os.Chmod(put(t, d, "setuid", "x"), 0o4755|os.ModeSetuid))
	must(t, unix.Chmod(put(t, d, "all-bits", "x"), 0o7777))
	must(t, os.Mkdir(filepath.Join(d, "tmp"), 0o755))
	must(t, unix.Chmod(filepath.Join(d, "tmp"), 0o1777))
	must(t, os.Chown(put(t, d, "owned", "x"), 4_000_000_000, 70_000))
	for name, rdev := range map[string]uint64{"null": unix.Mkdev(1, 3), "big": unix.Mkdev(4095, 1<<20-1)} {
		must(t, unix.Mknod(filepath.Join(d, "char-"+name), unix.S_IFCHR|0o600, int(rdev)))
		must(t, unix.Mknod(filepath.Join(d, "block-"+name), unix.S_IFBLK|0o640, int(rdev)))
	}
	must(t, unix.Mkfifo(filepath.Join(d, "fifo"), 0o622))
	sock, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d, "socket"), Net: "unix"})
	must(t, err)
	sock.SetUnlinkOnClose(false)
	sock.Close()
	must(t, os.Symlink("to/nowhere", filepath.Join(d, "link")))
	must(t, os.Symlink(strings.Repeat("x/", 2047)+"y", filepath.Join(d, "long-link")))
	must(t, os.Lchown(filepath.Join(d, "link"), 3, 4))
	first := put(t, d, "hard/a", "linked")
	must(t, os.Link(first, filepath.Join(d, "b")))
	must(t, os.Link(first, filepath.Join(d, "hard", "c")))
	must(t, os.Link(filepath.Join(d, "fifo"), filepath.Join(d, "hard", "fifo")))
	must(t, os.Link(filepath.Join(d, "link"), filepath.Join(d, "hard", "link")))
	for _, c := range []string{"n", "\xff", "é", "\x01", "!", "-", ".a"} { // around "." in the order of names
		put(t, d, "names/"+strings.Repeat(c, 255/len(c)), "")
	}
	x := put(t, d, "xattrs", "with content")
	must(t, unix.Setxattr(x, "user.empty", nil, 0))
	must(t, unix.Setxattr(x, "user.binary", []byte("\x00\xff\n"), 0))
	must(t, unix.Setxattr(x, "user."+strings.Repeat("n", 250), []byte("long name"), 0))
	must(t, unix.Setxattr(x, "security.capability", capability(2), 0))
	must(t, unix.Setxattr(put(t, d, "cap3", ""), "security.capability", capability(3), 0))
	must(t, unix.Setxattr(x, "system.posix_acl_access", acl(), 0))
	must(t, unix.Setxattr(put(t, d, "acldir/f", ""), "trusted.mine", []byte("v"), 0))
	must(t, unix.Setxattr(filepath.Join(d, "acldir"), "system.posix_acl_default", acl(), 0))
	must(t, unix.Setxattr(filepath.Join(d, "acldir"), "user.dir", []byte("v"), 0))
	must(t, unix.Lsetxattr(filepath.Join(d, "link"), "trusted.link", bytes.Repeat([]byte("v"), 3000), 0))
	must(t, unix.Setxattr(put(t, d, "much", "text"), "user.big", bytes.Repeat([]byte("v"), 3900), 0))
	sparse, err := os.Create(filepath.Join(d, "sparse"))
	must(t, err)
	for _, off := range []int64{0, 9<<20 + 100, 20 << 20} {
		_, err = sparse.WriteAt([]byte("data"), off)
		must(t, err)
	}
	must(t, sparse.Truncate(30<<20+7))
	must(t, sparse.Close())
	for i, tm := range []time.Time{time.Unix(0, 0), time.Unix(-86400, 1), time.Unix(5_000_000_000, 999_999_999)} {
		must(t, os.Chtimes(put(t, d, fmt.Sprintf("time-%d", i), ""), tm, tm))
	}
	must(t, os.Chtimes(d, time.Unix(1, 2), time.Unix(1_500_000_000, 987_654_321)))
	same(t, d)
}

// capability is a file capability of the given version (capabilities(7)).
func capability(version byte) []byte {
	b := append([]byte{1, 0, 0, version}, make([]byte, 16)...)
	b[5] = 0x20
	if version == 3 {
		b = append(b, 0xa0, 0x86, 1, 0) // root is user 100000
	}
	return b
}

// acl is user::rwx, user:77:rw-, group::r--, mask::rwx, other::--- (acl(5)).
func acl() []byte {
	b := []byte{2, 0, 0, 0}
	for _, e := range [][3]byte{{1, 7, 0xff}, {2, 6, 77}, {4, 4, 0xff}, {16, 7, 0xff}, {32, 0, 0xff}} {
		id := []byte{0xff, 0xff, 0xff, 0xff}
		if e[2] != 0xff {
			id = []byte{e[2], 0, 0, 0}
		}
		b = append(append(b, e[0], 0, e[1], 0), id...)
	}
	return b
}

func whiteout(tb testing.TB, dir, name string) {
	tb.Helper()
	path := filepath.Join(dir, name)
	must(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	must(tb, unix.Mknod(path, unix.S_IFCHR, 0))
}

func opaque(tb testing.TB, dir, name string) {
	tb.Helper()
	path := filepath.Join(dir, name)
	must(tb, os.MkdirAll(path, 0o755))
	must(tb, unix.Setxattr(path, "trusted.overlay.opaque", []byte("y"), 0))
}

func TestLayers(t *testing.T) {
	needMounts(t)
	a, b, c := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, a, "etc/one", "a")
	put(t, a, "etc/two", "a")
	put(t, a, "gone/deep/er/file", "a")
	put(t, a, "opaque/old", "a")
	put(t, a, "opaque/sub/old", "a")
	put(t, a, "dir-to-file/x", "a")
	put(t, a, "file-to-dir", "a")
	put(t, a, "blocked/old", "a")
	put(t, a, "whiteout-then-dir/old", "a")
	must(t, os.Link(put(t, a, "linked/a", "a"), filepath.Join(a, "linked/b")))
	must(t, os.Chmod(filepath.Join(a, "etc"), 0o700))
	put(t, b, "etc/two", "b")
	put(t, b, "blocked", "a file in between")
	put(t, b, "dir-to-file", "b")
	put(t, b, "file-to-dir/x", "b")
	whiteout(t, b, "gone")
	whiteout(t, b, "never-was")
	whiteout(t, b, "whiteout-then-dir")
	opaque(t, b, "opaque")
	put(t, b, "opaque/new", "b")
	must(t, os.Mkdir(filepath.Join(b, "opaque/sub"), 0o711))
	put(t, c, "opaque/newer", "c")
	put(t, c, "blocked/new", "c")
	put(t, c, "whiteout-then-dir/new", "c")
	put(t, c, "etc/three", "c")
	must(t, os.Chmod(filepath.Join(c, "etc"), 0o750))
	must(t, os.Chown(filepath.Join(c, "etc"), 5, 6))
	same(t, a)
	same(t, a, b)
	same(t, a, b, c)
	whiteout(t, c, "linked/b") // b is gone, a has one name left
	same(t, a, b, c)
}

// TestRandomTrees stacks trees of a few names that collide in every way.
func TestRandomTrees(t *testing.T) {
	needMounts(t)
	for seed := range uint64(16) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 3))
			var dirs []string
			for range 1 + r.IntN(5) {
				dir := t.TempDir()
				grow(t, r, dir, 0, new([]string))
				dirs = append(dirs, dir)
			}
			same(t, dirs...)
		})
	}
}

func grow(tb testing.TB, r *rand.Rand, dir string, depth int, files *[]string) {
	for i := range 2 + r.IntN(12) {
		name := fmt.Sprintf("%c", 'a'+r.IntN(8))
		if r.IntN(5) == 0 {
			name = strings.Repeat(name, 1+r.IntN(255))
		}
		path := filepath.Join(dir, name)
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		switch k := r.IntN(12); {
		case k < 4 && depth < 5:
			must(tb, os.Mkdir(path, 0o755))
			if r.IntN(4) == 0 {
				opaque(tb, dir, name)
			}
			grow(tb, r, path, depth+1, files)
		case k < 5:
			whiteout(tb, dir, name)
			continue
		case k < 6:
			must(tb, os.Symlink(strings.Repeat("t", 1+r.IntN(4000)), path))
		case k < 7 && len(*files) > 0:
			must(tb, os.Link((*files)[r.IntN(len(*files))], path))
			continue
		case k < 8:
			must(tb, unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(1, uint32(i)+1))))
		default:
			must(tb, os.WriteFile(path, bytes.Repeat([]byte{byte(i)}, r.IntN(10000)), 0o600))
			*files = append(*files, path)
		}
		must(tb, os.Lchown(path, r.IntN(1<<31), r.IntN(70000)))
		if r.IntN(4) == 0 {
			must(tb, unix.Lsetxattr(path, "trusted.x", bytes.Repeat([]byte("v"), r.IntN(3500)), 0))
		}
		ts := []unix.Timespec{{Sec: 1}, {Sec: r.Int64N(1 << 33), Nsec: r.Int64N(1e9)}}
		must(tb, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, unix.AT_SYMLINK_NOFOLLOW))
	}
}

func TestDeterministic(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, d := range []string{a, b} {
		for i := range 300 {
			n := i
			if d == b {
				n = 299 - i
			}
			must(t, os.Chtimes(put(t, d, fmt.Sprintf("d%d/f%d", n%7, n), fmt.Sprint(n)), time.Time{}, time.Unix(1, 0)))
		}
		for i := range 7 {
			must(t, os.Chtimes(filepath.Join(d, fmt.Sprintf("d%d", i)), time.Time{}, time.Unix(2, 0)))
		}
		must(t, os.Chtimes(d, time.Time{}, time.Unix(3, 0)))
	}
	x, err := os.ReadFile(write(t, erofs.Options{UUID: [16]byte{7}}, a))
	must(t, err)
	y, err := os.ReadFile(write(t, erofs.Options{UUID: [16]byte{7}}, b))
	must(t, err)
	if !bytes.Equal(x, y) {
		t.Error("the same tree made in another order gives another image")
	}
}

func TestRoot(t *testing.T) {
	needMounts(t)
	a, b := t.TempDir(), t.TempDir()
	must(t, os.Chmod(a, 0o705))
	must(t, os.Chtimes(a, time.Time{}, time.Unix(77, 8)))
	got := describe(t, mountImage(t, write(t, erofs.Options{Root: a}, a, b)))
	if want := describe(t, mountOverlay(t, a))["."]; got["."] != want {
		t.Errorf("root: got %s, want %s", got["."], want)
	}
}

func TestLimitAndCancel(t *testing.T) {
	d := t.TempDir()
	put(t, d, "file", strings.Repeat("x", 100_000))
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	must(t, err)
	defer out.Close()
	scratch, err := os.Create(filepath.Join(t.TempDir(), "scratch"))
	must(t, err)
	defer scratch.Close()
	_, err = erofs.Write(context.Background(), out, []string{d}, erofs.Options{Scratch: scratch, MaxBytes: 90_000})
	if !errors.Is(err, erofs.ErrLimit) {
		t.Errorf("a file of 100000 bytes on 90000: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err = erofs.Write(ctx, out, []string{d}, erofs.Options{Scratch: scratch}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
	if _, err := erofs.Check(out); !errors.Is(err, erofs.ErrDamaged) {
		t.Errorf("half an image passes for a whole one: %v", err)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	d := t.TempDir()
	put(t, d, "file", "x")
	image := write(t, erofs.Options{}, d)
	raw, err := os.ReadFile(image)
	must(t, err)
	for name, bad := range map[string][]byte{
		"empty":      {},
		"short":      raw[:len(raw)-1],
		"long":       append(bytes.Clone(raw), 0),
		"superblock": append(append(bytes.Clone(raw[:1060]), raw[1060]^1), raw[1061:]...),
		"zeros":      make([]byte, len(raw)),
	} {
		must(t, os.WriteFile(image, bad, 0o600))
		f, err := os.Open(image)
		must(t, err)
		if _, err := erofs.Check(f); !errors.Is(err, erofs.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
	}
}
