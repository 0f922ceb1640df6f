package image_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
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
