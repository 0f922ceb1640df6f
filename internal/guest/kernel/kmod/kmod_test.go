package kmod

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/kernel/kerneltest"
	"github.com/ulikunitz/xz"
)

const release = "6.1.0-99-test"

func module(words ...string) []byte { return kerneltest.Module(release, words...) }

// open opens a tree of these files.
func open(t *testing.T, files map[string][]byte, builtin ...string) *Tree {
	t.Helper()
	dir := t.TempDir()
	kerneltest.Modules(t, dir, files, builtin...)
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func packed(t *testing.T, content []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestClosure(t *testing.T) {
	tree := open(t, map[string][]byte{
		"kernel/drivers/virtio/virtio.ko":      module("depends=virtio_ring"),
		"kernel/drivers/virtio/virtio_ring.ko": module("depends="),
		"kernel/drivers/char/virtio-rng.ko":    module("depends=virtio-ring,virtio"),
		"kernel/fs/ext4/ext4.ko":               module("softdep=pre: crypto-crc32c absent post: later", "depends=jbd2"),
		"kernel/fs/jbd2/jbd2.ko.gz":            packed(t, module("depends="), func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }),
		"kernel/fs/x/x.ko.xz":                  packed(t, module("depends=y"), func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		"kernel/fs/x/y.ko.zst":                 packed(t, module("depends=built"), func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
		"kernel/crypto/crc32c_generic.ko":      module("alias=crypto-crc32c", "depends="),
		"kernel/crypto/a_fast.ko":              module("alias=crypto-crc32c", "depends="),
		"kernel/lost.ko":                       module("depends=nowhere"),
		"kernel/one.ko":                        module("depends=two"),
		"kernel/two.ko":                        module("depends=one"),
		"kernel/old.ko":                        kerneltest.Module("5.10.0", "depends="),
		"kernel/bad.ko":                        []byte("not a module"),
		"source/later.txt":                     []byte("no module either"),
	}, "built", "virtio/other-built")
	for _, c := range []struct {
		names, load, builtin []string
		want                 string
	}{
		{names: nil},
		{names: []string{"virtio_rng"}, load: []string{"virtio_ring", "virtio", "virtio_rng"}},
		{names: []string{"virtio-rng", "virtio", "virtio_rng"}, load: []string{"virtio_ring", "virtio", "virtio_rng"}},
		{names: []string{"ext4"}, load: []string{"crc32c_generic", "jbd2", "ext4"}},
		{names: []string{"x", "built", "other_built"}, load: []string{"y", "x"}, builtin: []string{"built", "other_built"}},
		{names: []string{"one"}, load: []string{"two", "one"}},
		{names: []string{"nowhere"}, want: "nowhere: module missing"},
		{names: []string{"lost"}, want: "lost needs nowhere: module missing"},
		{names: []string{"old"}, want: "module old is made for kernel 5.10.0, not for " + release},
		{names: []string{"bad"}, want: "module kernel/bad.ko: not a module"},
	} {
		load, builtin, err := tree.Closure(release, c.names...)
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %v, want %q", c.names, err, c.want)
			}
			continue
		}
		var names []string
		for _, m := range load {
			names = append(names, m.Name)
			if content, err := tree.Read(m.Path); err != nil || !bytes.HasPrefix(content, []byte("\x7fELF")) {
				t.Errorf("%s: %v, %.4q", m.Path, err, content)
			}
		}
		if diff := cmp.Diff(names, c.load) + cmp.Diff(builtin, c.builtin); err != nil || diff != "" {
			t.Errorf("%v: %v\n%s", c.names, err, diff)
		}
	}
	if _, _, err := tree.Closure(release, "nowhere"); !errors.Is(err, ErrMissing) {
		t.Errorf("%v is no ErrMissing", err)
	}
}

// TestLinksAreNotFollowed has a link in the place of a module, which would
// otherwise put a file of the host into every guest.
func TestLinksAreNotFollowed(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret.ko")
	kerneltest.Write(t, secret, module("depends="))
	kerneltest.Write(t, filepath.Join(dir, "kernel", "good.ko"), module("depends="))
	if err := os.Symlink(secret, filepath.Join(dir, "kernel", "leak.ko")); err != nil {
		t.Fatal(err)
	}
	tree, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if _, _, err := tree.Closure(release, "leak"); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want ErrMissing", err)
	}
	// The file turns into a link after it was listed.
	os.Remove(filepath.Join(dir, "kernel", "good.ko"))
	if err := os.Symlink(secret, filepath.Join(dir, "kernel", "good.ko")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := tree.Closure(release, "good"); err == nil {
		t.Error("a link out of the directory was read")
	}
}

func TestParseInfo(t *testing.T) {
	got := parseInfo([]byte("license=GPL\x00softdep=pre: a b-c post: d pre: e\x00depends=x,y-z\x00alias=fs-ext4\x00vermagic=6.1.0 SMP\x00noequals\x00"))
	want := info{release: "6.1.0", depends: []string{"x", "y_z"}, before: []string{"a", "b-c", "e"}, aliases: []string{"fs_ext4"}}
	if diff := cmp.Diff(got, want, cmp.AllowUnexported(info{})); diff != "" {
		t.Error(diff)
	}
}

// FuzzModule gives anything to what reads modules.
func FuzzModule(f *testing.F) {
	f.Add(module("depends=a,b", "softdep=pre: c"), ".ko")
	f.Add([]byte("\x1f\x8b\x08"), ".ko.gz")
	f.Add([]byte("\xfd7zXZ\x00"), ".ko.xz")
	f.Add([]byte("\x28\xb5\x2f\xfd"), ".ko.zst")
	f.Fuzz(func(t *testing.T, content []byte, name string) {
		raw, err := unpack(name, bytes.NewReader(content))
		if err != nil {
			return
		}
		if len(raw) > maxModule {
			t.Errorf("unpacked to %d bytes", len(raw))
		}
		_, _ = parse(raw)
	})
}
