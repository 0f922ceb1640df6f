package image_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestImpliedDirectories stacks layers whose entries lie in directories that
// have an entry in a lower layer only.
func TestImpliedDirectories(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	base := imagetest.Tar(t, imagetest.Dir(".", 0o711).With(0o1711, 5, 6),
		imagetest.Dir("tmp", 0o1777), imagetest.Dir("a", 0o750).With(0o750, 1, 2, "user.k", "v"), imagetest.Dir("a/b", 0o700), imagetest.Dir("c", 0o700),
		imagetest.Symlink("l", "a"), imagetest.File("gone/x", ""))
	top := imagetest.Tar(t, imagetest.File("tmp/x", "1"), imagetest.File("a/b/x", "1"),
		imagetest.Dir("c", 0o755), imagetest.File("c/new/x", "1"), imagetest.File(".wh.gone", ""), imagetest.File("gone/y", "2"))
	im := load(t, s, imagetest.New(t, manifest.RunConfig{}, base, top), "a")
	merged := mount(t, s, im)
	for path, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
	}{".": {0o1711, 5, 6}, "tmp": {0o1777, 0, 0}, "a": {0o750, 1, 2}, "a/b": {0o700, 0, 0}, "c": {0o755, 0, 0}, "c/new": {0o755, 0, 0}, "gone": {0o755, 0, 0}} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(merged, path), &st); err != nil || st.Mode&0o7777 != want.mode {
			t.Errorf("%s has mode %o owner %d:%d, %v; want %o %d:%d", path, st.Mode&0o7777, st.Uid, st.Gid, err, want.mode, want.uid, want.gid)
		}
	}
	if _, err := os.Lstat(filepath.Join(merged, "gone/x")); err == nil {
		t.Error("a removed file is back")
	}
	if got := xattrs(t, filepath.Join(merged, "a")); got != " user.k=76" {
		t.Errorf("attributes of a: %q", got)
	}
	layers, release, err := image.Source{Store: s}.Layers(context.Background(), workload.Image{Digest: im.Digest.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	var st syscall.Stat_t
	dirs := layers.Dirs
	if layers.MaxID != 6 {
		t.Errorf("largest ID %d, want 6", layers.MaxID)
	}
	if err := syscall.Lstat(dirs[len(dirs)-1], &st); err != nil || st.Mode&0o7777 != 0o1711 || st.Uid != 5 || st.Gid != 6 {
		t.Errorf("the topmost directory has mode %o, owner %d:%d", st.Mode, st.Uid, st.Gid)
	}
	// The same upper layer over another base has other directories.
	other := load(t, s, imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.Dir("tmp", 0o700)), top), "b")
	if err := syscall.Lstat(filepath.Join(mount(t, s, other), "tmp"), &st); err != nil || st.Mode&0o7777 != 0o700 {
		t.Errorf("tmp of the other image has mode %o, %v", st.Mode&0o7777, err)
	}
}

// TestOpaqueWithoutEntry has directories, and the root, emptied by a layer that has no
// entry for them: they keep the owner and mode that they had. The root's owner is
// that of the upper directory that mount makes.
func TestOpaqueWithoutEntry(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	base := imagetest.Tar(t, imagetest.Dir(".", 0o711).With(0o1711, 5, 6), imagetest.Dir("tmp", 0o1777), imagetest.File("tmp/old", ""),
		imagetest.Dir("own", 0o700).With(0o700, 5, 6), imagetest.Dir("own/sub", 0o711), imagetest.Symlink("link", "own"))
	for name, tt := range map[string]struct {
		top  []imagetest.Entry
		want map[string]string
		gone string
	}{
		"directories": {
			[]imagetest.Entry{imagetest.File("tmp/.wh..wh..opq", ""), imagetest.File("own/.wh..wh..opq", ""), imagetest.File("own/sub/new", "")},
			map[string]string{".": "1711 0:0", "tmp": "1777 0:0", "own": "700 5:6", "own/sub": "755 0:0"}, "tmp/old",
		},
		"root": {
			[]imagetest.Entry{imagetest.File(".wh..wh..opq", ""), imagetest.File("own/new", "")},
			map[string]string{".": "1711 0:0", "own": "755 0:0"}, "tmp",
		},
	} {
		merged := mount(t, s, load(t, s, imagetest.New(t, manifest.RunConfig{}, base, imagetest.Tar(t, tt.top...)), name))
		for path, want := range tt.want {
			var st syscall.Stat_t
			err := syscall.Lstat(filepath.Join(merged, path), &st)
			if got := fmt.Sprintf("%o %d:%d", st.Mode&0o7777, st.Uid, st.Gid); err != nil || got != want {
				t.Errorf("%s: %s has %s, %v; want %s", name, path, got, err, want)
			}
		}
		if _, err := os.Lstat(filepath.Join(merged, tt.gone)); err == nil {
			t.Errorf("%s: %s is back", name, tt.gone)
		}
	}
}

// TestMendingIsBounded mends directories for which every path leads through all
// layers: with a limit, and for somebody who does not wait for it.
func TestMendingIsBounded(t *testing.T) {
	needRoot(t)
	deep := strings.Repeat("d/", 100)
	var bottom, middle, top []imagetest.Entry
	for i := range 20 {
		bottom = append(bottom, imagetest.Dir(fmt.Sprintf("%sn%d", deep, i), 0o755))
		top = append(top, imagetest.File(fmt.Sprintf("%sn%d/f", deep, i), ""))
	}
	for i := range 100 {
		middle = append(middle, imagetest.Dir(deep[:2*i+1], 0o755))
	}
	im := imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, bottom...), imagetest.Tar(t, middle...), imagetest.Tar(t, top...))

	root := t.TempDir()
	limited, err := image.Open(root, image.WithLookUps(3000))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLoad(t, limited, im, "a"); !errors.Is(err, unpack.ErrLimit) {
		t.Errorf("with 3000 look-ups: %v; want a limit", err)
	}
	left, err := os.ReadDir(filepath.Join(root, "images/tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	loaded := load(t, s, im, "a")
	made, err := filepath.Glob(filepath.Join(root, "images/mended/*"))
	if err != nil || len(made) != 1 {
		t.Fatalf("mended: %v, %v; want one directory, for the topmost layer", made, err)
	}
	for _, dir := range made {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if chain, err := s.Layers(ctx, loaded); !errors.Is(err, context.Canceled) {
		if err == nil {
			chain.Release()
		}
		t.Errorf("mending for somebody who has gone: %v; want %v", err, context.Canceled)
	}
}

// TestHalfRemovedMend has a mended directory that somebody was removing when the
// machine went down.
func TestHalfRemovedMend(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	im := load(t, s, imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.Dir("tmp", 0o1777)), imagetest.Tar(t, imagetest.File("tmp/x", ""))), "a")
	mended, err := filepath.Glob(filepath.Join(root, "images", "mended", "*"))
	if err != nil || len(mended) != 1 {
		t.Fatalf("%v, %v", mended, err)
	}
	for _, gone := range []string{"fs/tmp", "fs"} {
		if err := os.RemoveAll(filepath.Join(mended[0], gone)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(mended[0], 0); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Lstat(filepath.Join(mount(t, s, im), "tmp"))
		if err != nil || fi.Mode()&os.ModeSticky == 0 {
			t.Errorf("without %s: tmp is %v, %v", gone, fi, err)
		}
	}
}

// TestLinkAndDirect has layers that reach a name of the layers below both as it is
// and through a link, with an entry that replaces what is there.
func TestLinkAndDirect(t *testing.T) {
	needRoot(t)
	base := func(link string) []byte {
		return imagetest.Tar(t, imagetest.Dir("d", 0o755), imagetest.Dir("w", 0o755), imagetest.Symlink("d/s", "../w"), imagetest.Symlink(link, "d"))
	}
	for name, top := range map[string][]imagetest.Entry{
		"directory":      {imagetest.Dir("L/s", 0o711), imagetest.File("d/s/x", "x")},
		"directory only": {imagetest.Dir("L/s", 0o711), imagetest.File("L/s/x", "x"), imagetest.File("d/y", "y")},
		"file":           {imagetest.File("L/s", "s"), imagetest.File("d/y", "y")},
		"file and link":  {imagetest.File("d/s/x", "x"), imagetest.File("L/s", "s")},
	} {
		for _, link := range []string{"a", "z"} { // before and after "d"
			t.Run(name+" "+link, func(t *testing.T) {
				s := openStore(t)
				entries := slices.Clone(top)
				for i := range entries {
					entries[i].Name = strings.Replace(entries[i].Name, "L/", link+"/", 1)
				}
				im := load(t, s, imagetest.New(t, manifest.RunConfig{}, base(link), imagetest.Tar(t, entries...)), "x")
				merged := mount(t, s, im)
				fi, err := os.Lstat(filepath.Join(merged, "d/s"))
				if err != nil || fi.Mode()&os.ModeSymlink != 0 || fi.IsDir() != strings.HasPrefix(name, "directory") || fi.IsDir() && fi.Mode().Perm() != 0o711 {
					t.Errorf("d/s is %v, %v", fi, err)
				}
				if l, err := os.Readlink(filepath.Join(merged, link)); err != nil || l != "d" {
					t.Errorf("the link leads to %q, %v", l, err)
				}
				if fi.IsDir() {
					if b, err := os.ReadFile(filepath.Join(merged, "d/s/x")); string(b) != "x" {
						t.Errorf("d/s/x: %q, %v", b, err)
					}
				}
			})
		}
	}
}
