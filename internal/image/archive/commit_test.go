package archive_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// TestCommit: the layer has what changed, what that is linked to, and what stands for
// what is gone; the config keeps what nobody changed.
func TestCommit(t *testing.T) {
	s := store(t)
	base := withOnBuild(t, s)
	whole := imagetest.Tar(t,
		imagetest.Dir(".", 0o755), imagetest.Dir("./srv", 0o750), imagetest.File("./srv/old", "old"), imagetest.File("./srv/page", "new"),
		imagetest.Dir("./same", 0o755), imagetest.File("./same/file", "linked"), imagetest.Link("./srv/link", "./same/file"))
	changes := []workload.Change{{Kind: "C", Path: "/srv"}, {Kind: "A", Path: "/srv/page"}, {Kind: "A", Path: "/srv/link"}, {Kind: "D", Path: "/etc/gone"}}
	times := 0
	read := func(w io.Writer) error {
		times++
		_, err := w.Write(whole)
		return err
	}
	im, err := archive.Commit(ctx, s, base, changes, read, archive.CommitOptions{
		Name: "made:1", Changes: []string{"ENV ADDED=yes"}, Message: "why", Author: "somebody", Command: "sh -c x",
	})
	if err != nil {
		t.Fatal(err)
	}
	if times != 2 {
		t.Errorf("read %d times, the second for the link's target", times)
	}
	if len(im.Layers) != len(base.Layers)+1 || !slices.Equal(im.Config.Cmd, base.Config.Cmd) || !slices.Contains(im.Config.Env, "ADDED=yes") {
		t.Errorf("got %+v of %+v", im, base)
	}
	if h := im.History[len(im.History)-1]; h.Comment != "why" || h.Author != "somebody" || h.CreatedBy != "sh -c x" || h.EmptyLayer {
		t.Errorf("history %+v", h)
	}
	_, config, err := s.Manifest(im)
	if err != nil || !strings.Contains(string(config), `"OnBuild":["RUN make"]`) {
		t.Errorf("what this program does not know is lost: %s, %v", config, err)
	}
	chain, err := s.Layers(ctx, im)
	if err != nil {
		t.Fatal(err)
	}
	defer chain.Release()
	top := chain.Dirs[len(chain.Dirs)-1]
	for name, want := range map[string]string{"srv/page": "new", "srv/link": "linked", "same/file": "linked"} {
		if b, err := os.ReadFile(filepath.Join(top, name)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v, want %q", name, b, err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(top, "srv/old")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what did not change is in the layer: %v", err)
	}
	if fi, err := os.Lstat(filepath.Join(top, "etc/gone")); err != nil || fi.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("what is gone: %v, %v", fi, err)
	}
}

// withOnBuild loads an image whose config says what this program has no use for.
func withOnBuild(t *testing.T, s *image.Store) image.Image {
	t.Helper()
	saved := dockerSave(t, func(files map[string]imagetest.Entry) {
		c := files["c.json"]
		text := strings.Replace(c.Content, `"config":{`, `"config":{"OnBuild":["RUN make"],`, 1)
		files["c.json"] = imagetest.File("c.json", text)
	})
	images, err := archive.LoadReader(ctx, s, bytes.NewReader(saved), archive.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return images[0]
}

// committed commits changes and returns the directory of their layer, for as long as the
// test runs.
func committed(t *testing.T, s *image.Store, base image.Image, changes []workload.Change, read func(io.Writer) error) string {
	t.Helper()
	im, err := archive.Commit(ctx, s, base, changes, read, archive.CommitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	chain, err := s.Layers(ctx, im)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { chain.Release() })
	return chain.Dirs[len(chain.Dirs)-1]
}

// TestCommitLinkBeforeMuch: what a link is made to is brought in, too, where more follows than
// fits between who writes the layer and who reads it.
func TestCommitLinkBeforeMuch(t *testing.T) {
	s := store(t)
	base := loaded(t, s, "base:1")
	much := make([]byte, 8<<20)
	for i := range much {
		much[i] = byte(rand.Uint32())
	}
	whole := imagetest.Tar(t, imagetest.File("same", "linked"), imagetest.Link("link", "same"), imagetest.File("much", string(much)))
	read := func(w io.Writer) error {
		_, err := w.Write(whole)
		return err
	}
	top := committed(t, s, base, []workload.Change{{Kind: "A", Path: "/link"}, {Kind: "A", Path: "/much"}}, read)
	if b, err := os.ReadFile(filepath.Join(top, "link")); err != nil || string(b) != "linked" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestCommitRoot: of a root directory that changed itself the layer has an entry, and of
// none else.
func TestCommitRoot(t *testing.T) {
	s := store(t)
	base := loaded(t, s, "base:1")
	read := func(w io.Writer) error {
		_, err := w.Write(imagetest.Tar(t, imagetest.Dir(".", 0o711).With(0o1711, 5, 6), imagetest.File("./a", "a")))
		return err
	}
	for _, tt := range []struct {
		path string
		mode os.FileMode
	}{{"/", 0o711 | os.ModeSticky}, {"/a", 0o755}} {
		top := committed(t, s, base, []workload.Change{{Kind: "C", Path: tt.path}}, read)
		if fi, err := os.Lstat(top); err != nil || fi.Mode().Perm()|fi.Mode()&os.ModeSticky != tt.mode {
			t.Errorf("%s changed: the root is %v, %v; want %v", tt.path, fi.Mode(), err, tt.mode)
		}
	}
}

// TestCommitFaults: what cannot be an image leaves none.
func TestCommitFaults(t *testing.T) {
	s := store(t)
	base := loaded(t, s, "base:1")
	changes := []workload.Change{{Kind: "A", Path: "/a"}}
	broken := errors.New("it ended meanwhile")
	whole := func(w io.Writer) error {
		_, err := w.Write(imagetest.Tar(t, imagetest.File("./a", "a")))
		return err
	}
	before, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() (image.Image, error){
		"a reader that fails": func() (image.Image, error) {
			return archive.Commit(ctx, s, base, changes, func(io.Writer) error { return broken }, archive.CommitOptions{})
		},
		"half an archive": func() (image.Image, error) {
			return archive.Commit(ctx, s, base, changes, func(w io.Writer) error {
				_, err := w.Write(imagetest.Tar(t, imagetest.File("./a", strings.Repeat("a", 4096)))[:2000])
				return err
			}, archive.CommitOptions{})
		},
		"a name of a whiteout": func() (image.Image, error) {
			return archive.Commit(ctx, s, base, []workload.Change{{Kind: "A", Path: "/x/.wh.a"}}, whole, archive.CommitOptions{})
		},
		"a digest for a name": func() (image.Image, error) {
			return archive.Commit(ctx, s, base, changes, whole, archive.CommitOptions{Name: "a@sha256:" + strings.Repeat("0", 64)})
		},
		"an instruction that is none": func() (image.Image, error) {
			return archive.Commit(ctx, s, base, changes, whole, archive.CommitOptions{Name: "a", Changes: []string{"RUN x"}})
		},
	} {
		if im, err := f(); err == nil {
			t.Errorf("%s: %+v", name, im)
		} else if name == "a reader that fails" && !errors.Is(err, broken) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if after, err := s.List(); err != nil || len(after) != len(before) {
		t.Errorf("%d images, there were %d, %v", len(after), len(before), err)
	}
}

// TestCommitTooManyLayers has a base with as many layers as an image may have.
func TestCommitTooManyLayers(t *testing.T) {
	s := store(t)
	layers := make([][]byte, manifest.MaxLayers)
	for i := range layers {
		layers[i] = imagetest.Tar(t, imagetest.File("x", "x"))
	}
	dir := t.TempDir()
	imagetest.New(t, manifest.RunConfig{}, layers...).Layout(t, dir, "many:1")
	base, err := archive.Load(ctx, s, dir, archive.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	read := func(w io.Writer) error {
		_, err := w.Write(imagetest.Tar(t, imagetest.File("y", "y")))
		return err
	}
	_, err = archive.Commit(ctx, s, base[0], []workload.Change{{Kind: "A", Path: "/y"}}, read, archive.CommitOptions{})
	if err == nil || errors.Is(err, image.ErrDamaged) || !strings.Contains(err.Error(), "200 layers") || !strings.Contains(err.Error(), "import") {
		t.Errorf("got %v, want what may be done about 200 layers", err)
	}
	if _, err := archive.Commit(ctx, s, base[0], nil, read, archive.CommitOptions{Message: "the same files"}); err != nil {
		t.Errorf("without a layer more: %v", err)
	}
}
