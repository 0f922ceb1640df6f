package image_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
	"golang.org/x/sys/unix"
)

// load puts an image into the store through a layout directory.
func load(tb testing.TB, s *image.Store, im *imagetest.Image, name string) image.Image {
	tb.Helper()
	got, err := tryLoad(tb, s, im, name)
	if err != nil {
		tb.Fatal(err)
	}
	return got
}

func tryLoad(tb testing.TB, s *image.Store, im *imagetest.Image, name string) (image.Image, error) {
	tb.Helper()
	dir := tb.TempDir()
	im.Layout(tb, dir, "latest")
	images, err := archive.Load(context.Background(), s, dir, archive.LoadOptions{Name: name})
	if err != nil {
		return image.Image{}, err
	}
	return images[0], nil
}

func small(tb testing.TB, content string) *imagetest.Image {
	return imagetest.New(tb, manifest.RunConfig{Cmd: []string{"/x"}}, imagetest.Tar(tb, imagetest.File("x", content)))
}

// checkClean fails when an operation left something in the store's tmp.
func checkClean(tb testing.TB, root string) {
	tb.Helper()
	names, err := os.ReadDir(filepath.Join(root, "images", "tmp"))
	if err != nil || len(names) > 0 {
		tb.Errorf("left in tmp: %v, %v", names, err)
	}
}

func TestResolve(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	a, b := load(t, s, small(t, "a"), "docker.io/library/a:1"), load(t, s, small(t, "b"), "localhost:5000/b")
	for _, ref := range []string{"a:1", "docker.io/library/a:1", a.Digest.String(), a.ID.String(), a.ID.Encoded(), a.ShortID(),
		"a@" + a.Digest.String(), "a:9@" + a.Digest.String(), a.Digest.Encoded()[:20], "sha256:" + a.ID.Encoded()[:12]} {
		if got, err := s.Resolve(ref); err != nil || got.Digest != a.Digest {
			t.Errorf("Resolve(%q) = %s, %v; want %s", ref, got.Digest, err, a.Digest)
		}
	}
	for ref, want := range map[string]error{
		"a": image.ErrNotFound, "a:2": image.ErrNotFound, "b": image.ErrNotFound, "b@" + a.Digest.String(): image.ErrNotFound,
		"sha256:" + strings.Repeat("0", 64): image.ErrNotFound, strings.Repeat("0", 64): image.ErrNotFound, "sha256:zz": image.ErrNotFound,
		"a@" + b.Digest.String(): image.ErrNotFound,
	} {
		if got, err := s.Resolve(ref); !errors.Is(err, want) {
			t.Errorf("Resolve(%q) = %s, %v; want %v", ref, got.Digest, err, want)
		}
	}
	if _, err := s.Resolve("A:B:C"); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("Resolve of nonsense: %v", err)
	}
	if got, err := s.Resolve("localhost:5000/b"); err != nil || !slices.Equal(got.Config.Cmd, []string{"/x"}) {
		t.Errorf("config %+v, %v", got.Config, err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].DiskSize != 1 || list[0].Size == 0 {
		t.Errorf("List() = %+v, %v", list, err)
	}
}

// TestNamedLikeADigest has an image whose name is the digest of another.
func TestNamedLikeADigest(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	a, evil := load(t, s, small(t, "a"), "a"), load(t, s, small(t, "evil"), "evil")
	for _, name := range []string{a.Digest.String(), a.ID.String(), "sha256", "library/sha256:1"} {
		if err := s.Tag("evil", name); !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("Tag(%q): %v, want ErrInvalid", name, err)
		}
		if _, err := tryLoad(t, s, small(t, "evil"), name); !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("loading as %q: %v, want ErrInvalid", name, err)
		}
		r, err := reference.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		op, err := s.Hold(evil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := op.Commit(context.Background(), evil.Digest, r); !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("Commit(%q): %v, want ErrInvalid", name, err)
		}
		op.Close()
	}
	// A table of before has such names.
	table := filepath.Join(root, "images", "index.json")
	raw, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	raw = []byte(strings.Replace(string(raw), "docker.io/library/evil:latest", "docker.io/library/"+a.Digest.String(), 1))
	if err := os.WriteFile(table, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{a.Digest.String(), a.Digest.String()[:30]} {
		if got, err := s.Resolve(ref); err != nil || got.Digest != a.Digest {
			t.Errorf("Resolve(%q) = %s, %v; want %s", ref, got.Digest, err, a.Digest)
		}
	}
	layers, release, err := image.Source{Store: s}.Layers(context.Background(), workload.Image{Digest: a.Digest.String()})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if p, err := os.ReadFile(filepath.Join(layers.Dirs[0], "x")); err != nil || string(p) != "a" {
		t.Errorf("a workload of the image gets %q, %v", p, err)
	}
	if got, err := s.Resolve("docker.io/library/" + a.Digest.String()); err != nil || got.Digest != evil.Digest {
		t.Errorf("the whole name leads to %s, %v; want %s", got.Digest, err, evil.Digest)
	}
}

func TestTagRemovePrune(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	a := load(t, s, small(t, "a"), "a:1")
	b := load(t, s, small(t, "b"), "b:1")
	if err := s.Tag("a:1", "a:2"); err != nil {
		t.Fatal(err)
	}
	if err := s.Tag("a:1", "x@"+a.Digest.String()); err == nil {
		t.Error("a digest was given as a name")
	}
	if err := s.Tag("none", "a:3"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("Tag of nothing: %v", err)
	}
	if _, err := s.Remove(a.ShortID(), false, nil); err == nil {
		t.Error("an image with two names was removed by its ID")
	}
	rep, err := s.Remove("a:1", false, nil)
	if err != nil || len(rep.Deleted) != 0 || !slices.Equal(rep.Untagged, []string{"docker.io/library/a:1"}) {
		t.Errorf("Remove(a:1) = %+v, %v", rep, err)
	}
	inUse := usedBy(a.Digest, "web")
	if _, err := s.Remove("a:2", false, inUse); !errors.Is(err, image.ErrInUse) || !strings.Contains(err.Error(), "web") {
		t.Errorf("Remove of an image in use: %v", err)
	}
	if err := s.Tag("b:1", "a:2"); err != nil { // a loses its last name
		t.Fatal(err)
	}
	if got, err := s.Resolve("a:2"); err != nil || got.Digest != b.Digest {
		t.Errorf("a:2 is %s, %v; want b", got.Digest, err)
	}
	if rep, err := s.Prune(true, inUse); err != nil || !slices.Equal(rep.Deleted, []digest.Digest{b.Digest}) || rep.Bytes == 0 {
		t.Errorf("Prune(all) with a in use = %+v, %v", rep, err)
	}
	if rep, err := s.Prune(false, nil); err != nil || !slices.Equal(rep.Deleted, []digest.Digest{a.Digest}) || rep.Bytes == 0 {
		t.Errorf("Prune() = %+v, %v; want a, which has no name", rep, err)
	}
	for _, dir := range []string{"blobs/sha256", "layers", "mended", "tmp"} {
		if names, err := os.ReadDir(filepath.Join(root, "images", dir)); err != nil || len(names) > 0 {
			t.Errorf("%s still has %v, %v", dir, names, err)
		}
	}
	if _, err := s.Remove("a:2", false, nil); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("Remove of nothing: %v", err)
	}
}

// usedBy is an InUse for one image.
func usedBy(d digest.Digest, users ...string) image.InUse {
	return func() (func(digest.Digest) []string, error) {
		return func(asked digest.Digest) []string {
			if asked == d {
				return users
			}
			return nil
		}, nil
	}
}

// TestRemoveBesideStart removes an image while a workload of it is being made:
// one of the two fails, whoever comes first.
func TestRemoveBesideStart(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	for name, remove := range map[string]func(image.InUse) error{
		"remove": func(u image.InUse) error { _, err := s.Remove("a", false, u); return err },
		"prune":  func(u image.InUse) error { _, err := s.Prune(true, u); return err },
	} {
		im := load(t, s, small(t, "a"), "a")
		layers := make(chan error)
		// The workload is recorded right after it was looked for.
		err := remove(func() (func(digest.Digest) []string, error) {
			go func() {
				chain, err := s.Layers(context.Background(), im)
				if err == nil {
					err = chain.Release()
				}
				layers <- err
			}()
			select {
			case err := <-layers:
				t.Errorf("%s: layers were given away in the middle: %v", name, err)
				return nil, errors.New("too early")
			case <-time.After(100 * time.Millisecond):
			}
			return usedBy("")()
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := <-layers; !errors.Is(err, image.ErrNotFound) {
			t.Errorf("%s: layers of an image that is gone: %v, want ErrNotFound", name, err)
		}
		// It is recorded before it is looked for.
		im = load(t, s, small(t, "a"), "a")
		if err := remove(usedBy(im.Digest, "web")); name == "remove" && !errors.Is(err, image.ErrInUse) || name == "prune" && err != nil {
			t.Errorf("%s of an image in use: %v", name, err)
		}
		if err := remove(func() (func(digest.Digest) []string, error) { return nil, os.ErrPermission }); !errors.Is(err, os.ErrPermission) {
			t.Errorf("%s where the workloads cannot be told: %v", name, err)
		}
		if _, err := s.Resolve("a"); err != nil {
			t.Errorf("%s: the image is gone: %v", name, err)
		}
		if _, err := s.Remove("a", false, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHeldLayersStay removes an image while somebody mounts it.
func TestHeldLayersStay(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	im := load(t, s, small(t, "a"), "a")
	chain, err := s.Layers(context.Background(), im)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove("a", false, nil); err != nil {
		t.Fatal(err)
	}
	if p, err := os.ReadFile(filepath.Join(chain.Dirs[0], "x")); err != nil || string(p) != "a" {
		t.Errorf("the held layer is gone: %q, %v", p, err)
	}
	if err := chain.Release(); err != nil {
		t.Fatal(err)
	}
	if rep, err := s.Prune(false, nil); err != nil || rep.Bytes == 0 {
		t.Errorf("Prune() = %+v, %v; want the layer's bytes", rep, err)
	}
	if _, err := os.Stat(chain.Dirs[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the layer is still there: %v", err)
	}
	if _, err := s.Layers(context.Background(), im); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("Layers of a removed image: %v", err)
	}
}

func TestLayersAreSharedAndRemade(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	base := imagetest.Tar(t, imagetest.Dir("d", 0o755), imagetest.File("d/base", "1"))
	load(t, s, imagetest.New(t, manifest.RunConfig{}, base), "one")
	two := load(t, s, imagetest.New(t, manifest.RunConfig{}, base, imagetest.Tar(t, imagetest.File("two", "2"))), "two")
	if names, _ := os.ReadDir(filepath.Join(root, "images", "layers")); len(names) != 2 {
		t.Errorf("%d layers are unpacked, want 2", len(names))
	}
	info, err := os.Stat(filepath.Join(root, "images"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the store has mode %o, %v", info.Mode(), err)
	}
	if err := os.RemoveAll(filepath.Join(root, "images", "layers", two.Layers[0].DiffID.Encoded())); err != nil {
		t.Fatal(err)
	}
	chain, err := s.Layers(context.Background(), two)
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Release()
	if p, err := os.ReadFile(filepath.Join(chain.Dirs[0], "d/base")); err != nil || string(p) != "1" {
		t.Errorf("the layer was not unpacked again: %q, %v", p, err)
	}
}

func TestRootOpaque(t *testing.T) {
	needRoot(t)
	s := openStore(t)
	im := load(t, s, imagetest.New(t, manifest.RunConfig{},
		imagetest.Tar(t, imagetest.File("old", "1")),
		imagetest.Tar(t, imagetest.File(".wh..wh..opq", ""), imagetest.File("new", "2"))), "a")
	merged := mount(t, s, im)
	names, err := os.ReadDir(merged)
	if err != nil || len(names) != 1 || names[0].Name() != "new" {
		t.Errorf("the root has %v, %v; want new alone", names, err)
	}
}

// TestBadImages has every way in which a layout may be wrong. Nothing of it
// may stay.
func TestBadImages(t *testing.T) {
	needRoot(t)
	layer := imagetest.Tar(t, imagetest.File("x", "y"))
	packed := imagetest.Gzip(layer)
	good := func() *imagetest.Image { return imagetest.New(t, manifest.RunConfig{}, layer) }
	blob := func(im *imagetest.Image, p []byte) digest.Digest {
		d := digest.FromBytes(p)
		if _, ok := im.Blobs[d]; !ok {
			t.Fatal("no such blob")
		}
		return d
	}
	for name, tt := range map[string]struct {
		image func() *imagetest.Image
		want  error
	}{
		"layer missing":   {func() *imagetest.Image { im := good(); delete(im.Blobs, blob(im, packed)); return im }, unpack.ErrTruncated},
		"layer truncated": {func() *imagetest.Image { im := good(); im.Blobs[blob(im, packed)] = packed[:20]; return im }, unpack.ErrTruncated},
		"layer longer": {func() *imagetest.Image {
			im := good()
			im.Blobs[blob(im, packed)] = append(slices.Clone(packed), 0)
			return im
		}, unpack.ErrDigest},
		"layer changed": {func() *imagetest.Image {
			im := good()
			p := slices.Clone(packed)
			p[len(p)/2] ^= 1
			im.Blobs[blob(im, packed)] = p
			return im
		}, unpack.ErrDigest},
		"config changed": {func() *imagetest.Image {
			im := good()
			for d, p := range im.Blobs {
				if strings.Contains(string(p), "diff_ids") {
					im.Blobs[d] = append(slices.Clone(p), ' ')
				}
			}
			return im
		}, unpack.ErrDigest},
		"wrong diff ID": {func() *imagetest.Image {
			return imagetest.NewPacked(t, manifest.RunConfig{}, manifest.OCILayerGzip, [][]byte{imagetest.Tar(t)}, [][]byte{packed})
		}, unpack.ErrDigest},
		"hostile layer": {func() *imagetest.Image {
			return imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File("ok", "x"), imagetest.File("../x", "x")))
		}, unpack.ErrHostile},
		"unknown layer type": {func() *imagetest.Image {
			return imagetest.NewPacked(t, manifest.RunConfig{}, "application/x-evil", [][]byte{layer}, [][]byte{packed})
		}, manifest.ErrInvalid},
		"config env": {func() *imagetest.Image {
			return imagetest.New(t, manifest.RunConfig{Env: []string{"novalue"}}, layer)
		}, manifest.ErrInvalid},
		"manifest missing": {func() *imagetest.Image { im := good(); delete(im.Blobs, im.Manifest.Digest); return im }, unpack.ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			s, err := image.Open(root)
			if err != nil {
				t.Fatal(err)
			}
			_, err = tryLoad(t, s, tt.image(), "bad")
			if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got error %v, want one line of %v", err, tt.want)
			}
			checkClean(t, root)
			if list, err := s.List(); err != nil || len(list) > 0 {
				t.Errorf("images %v, %v; want none", list, err)
			}
			if names, _ := os.ReadDir(filepath.Join(root, "images", "layers")); len(names) > 0 {
				t.Errorf("layers were left: %v", names)
			}
			if names, _ := os.ReadDir(filepath.Join(root, "images", "blobs", "sha256")); len(names) > 0 {
				t.Errorf("blobs were left: %v", names)
			}
		})
	}
}

func TestImageLimit(t *testing.T) {
	needRoot(t)
	im := imagetest.New(t, manifest.RunConfig{},
		imagetest.Tar(t, imagetest.File("a", strings.Repeat("a", 700))), imagetest.Tar(t, imagetest.File("b", strings.Repeat("b", 700))))
	for limit, text := range map[int64]string{2*unpack.EntryBytes + 1000: "unpacks to more than", 150: "layers have more than"} {
		root := t.TempDir()
		s, err := image.Open(root, image.WithLimits(unpack.Limits{}, limit))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tryLoad(t, s, im, "big"); !errors.Is(err, unpack.ErrLimit) || !strings.Contains(err.Error(), text) {
			t.Errorf("%d bytes: got %v, want ErrLimit with %q", limit, err, text)
		}
		checkClean(t, root)
	}
}

func TestDamagedTable(t *testing.T) {
	needRoot(t)
	for _, text := range []string{"", "{", `{"version":9}`, `{"version":1,"images":[{"digest":"../../etc"}]}`, `{"version":1,"images":3}`} {
		root := t.TempDir()
		s, err := image.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, "images", "index.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.List(); !errors.Is(err, image.ErrDamaged) {
			t.Errorf("%q: got %v, want ErrDamaged", text, err)
		}
	}
}

func TestDamagedImageCanBeRemoved(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	a := load(t, s, small(t, "a"), "a")
	load(t, s, small(t, "b"), "b")
	if err := os.WriteFile(filepath.Join(root, "images", "blobs", "sha256", a.ID.Encoded()), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve("a"); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("Resolve: %v, want ErrDamaged", err)
	}
	if list, err := s.List(); !errors.Is(err, image.ErrDamaged) || len(list) != 1 {
		t.Errorf("List() = %d images, %v; want b and ErrDamaged", len(list), err)
	}
	if _, err := s.Remove("a", false, nil); err != nil {
		t.Error(err)
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("List() = %d images, %v; want b", len(list), err)
	}
}

// TestDiskFull works on a small file system.
func TestDiskFull(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=4m,mode=0700"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	load(t, s, small(t, "a"), "a")
	var noise strings.Builder
	for i := range 800_000 {
		fmt.Fprintf(&noise, "%d\n", i*7919)
	}
	for name, im := range map[string]*imagetest.Image{
		"while unpacking": imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File("big", noise.String()))),
		"while storing": imagetest.NewPacked(t, manifest.RunConfig{}, manifest.OCILayer,
			[][]byte{imagetest.Tar(t, imagetest.File("big", noise.String()))}, [][]byte{imagetest.Tar(t, imagetest.File("big", noise.String()))}),
	} {
		_, err := tryLoad(t, s, im, "big")
		if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "no space left") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want ENOSPC in one line", name, err)
		}
		checkClean(t, root)
		if _, err := s.Prune(false, nil); err != nil {
			t.Errorf("%s: prune on a full disk: %v", name, err)
		}
	}
	if list, err := s.List(); err != nil || len(list) != 1 {
		t.Errorf("List() = %d images, %v; want the one from before", len(list), err)
	}
	load(t, s, small(t, "b"), "b")
}

// TestRemoveOnFullDisk removes images where there is no block, or no inode,
// for anything new.
func TestRemoveOnFullDisk(t *testing.T) {
	needRoot(t)
	for name, disk := range map[string]func(t *testing.T) string{"ext4": ext4, "tmpfs without inodes": fewInodes} {
		for _, prune := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, prune %v", name, prune), func(t *testing.T) {
				root := disk(t)
				s, err := image.Open(root)
				if err != nil {
					t.Fatal(err)
				}
				var entries []imagetest.Entry
				for i := range 50 {
					entries = append(entries, imagetest.File(fmt.Sprintf("d%d/f", i), strings.Repeat("x", 5000)))
				}
				below := imagetest.Tar(t, imagetest.Dir("d1", 0o700))
				load(t, s, imagetest.New(t, manifest.RunConfig{}, below, imagetest.Tar(t, entries...)), "big")
				kept := load(t, s, small(t, "kept"), "kept")
				fill(t, root)
				var rep image.Report
				if prune {
					rep, err = s.Prune(true, usedBy(kept.Digest, "web"))
				} else {
					rep, err = s.Remove("big", false, nil)
				}
				if err != nil || len(rep.Deleted) != 1 || rep.Bytes < 250_000 {
					t.Fatalf("got %+v, %v", rep, err)
				}
				for dir, want := range map[string]int{"blobs/sha256": 3, "layers": 1, "mended": 0, "tmp": 0} {
					if names, err := os.ReadDir(filepath.Join(root, "images", dir)); err != nil || len(names) != want {
						t.Errorf("%s has %v, %v; want %d names", dir, names, err, want)
					}
				}
				// There must be room to do it again on a disk that is full again.
				fill(t, root)
				if _, err := s.Remove("kept", false, nil); err != nil {
					t.Error(err)
				}
				if names, err := os.ReadDir(filepath.Join(root, "images", "layers")); err != nil || len(names) > 0 {
					t.Errorf("layers has %v, %v", names, err)
				}
			})
		}
	}
}

// ext4 is a small file system whose directories need blocks.
func ext4(t *testing.T) string {
	file, root := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 8<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-O", "^has_journal", file).CombinedOutput(); err != nil {
		t.Skipf("cannot make a file system: %v %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", file, root).CombinedOutput(); err != nil {
		t.Skipf("cannot mount a file: %v %s", err, out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	return root
}

func fewInodes(t *testing.T) string {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "nr_inodes=400,size=16m,mode=0700"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return root
}

// fill takes all blocks, or all inodes.
func fill(t *testing.T, root string) {
	t.Helper()
	for _, block := range [][]byte{make([]byte, 4096), nil} {
		for i := 0; ; i++ {
			err := os.WriteFile(filepath.Join(root, fmt.Sprintf("filler-%d-%d-%d", time.Now().UnixNano(), len(block), i)), block, 0o600)
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if i > 100_000 {
				t.Fatal("the disk does not become full")
			}
			if len(block) == 0 && i > 500 {
				break // inodes are no matter
			}
		}
	}
}

// TestConcurrentGoroutines loads, lists, mounts and removes at once.
func TestConcurrentGoroutines(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	im := layered(t)
	dir := t.TempDir()
	im.Layout(t, dir, "latest")
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := churn(root, dir, i, 6); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	checkConsistent(t, root)
}

// churn is one user of the store among others. Not finding an image is fine.
func churn(root, layout string, who, rounds int) error {
	ctx := context.Background()
	for i := range rounds {
		s, err := image.Open(root)
		if err != nil {
			return fmt.Errorf("open: %w", err)
		}
		name := fmt.Sprintf("img:%d", i%2)
		switch (who + i) % 3 {
		case 0, 1:
			images, err := archive.Load(ctx, s, layout, archive.LoadOptions{Name: name})
			if err != nil {
				return fmt.Errorf("load: %w", err)
			}
			chain, err := s.Layers(ctx, images[0])
			if errors.Is(err, image.ErrNotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("layers: %w", err)
			}
			for _, d := range chain.Dirs {
				if _, err := os.ReadDir(d); err != nil {
					return fmt.Errorf("a held layer: %w", err)
				}
			}
			if err := chain.Release(); err != nil {
				return fmt.Errorf("release: %w", err)
			}
		case 2:
			_, err := s.Remove(name, true, nil)
			if err != nil && !errors.Is(err, image.ErrNotFound) {
				return fmt.Errorf("remove: %w", err)
			}
			if _, err := s.Prune(false, nil); err != nil {
				return fmt.Errorf("prune: %w", err)
			}
		}
	}
	return nil
}

func checkConsistent(t *testing.T, root string) {
	t.Helper()
	s, err := image.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	checkClean(t, root)
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, im := range list {
		chain, err := s.Layers(context.Background(), im)
		if err != nil {
			t.Errorf("image %s: %v", im.Digest, err)
			continue
		}
		chain.Release()
		_, rawConfig, err := s.Manifest(im)
		if err != nil || !json.Valid(rawConfig) {
			t.Errorf("image %s: %v", im.Digest, err)
		}
	}
}
