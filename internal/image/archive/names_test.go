package archive_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
)

// loadAs loads an image of one file from a layout that calls it name.
func loadAs(t *testing.T, s *image.Store, file, name string) image.Image {
	t.Helper()
	dir := t.TempDir()
	im := imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File(file, file)))
	im.Layout(t, dir, name)
	images, err := archive.Load(ctx, s, dir, archive.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return images[0]
}

// TestRemoveKeepsOtherNames takes names with a tag and with a digest away: an image that
// was asked for by its digest keeps that name, and one with a tag keeps the tag.
func TestRemoveKeepsOtherNames(t *testing.T) {
	s := store(t)
	content := imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File("a", "a"))).Manifest.Digest.String()
	byDigest := "registry.example/app@" + content
	loadAs(t, s, "a", byDigest)
	if err := s.Tag(byDigest, "mine:1"); err != nil {
		t.Fatal(err)
	}
	remove := func(name string, deleted int) {
		t.Helper()
		if rep, err := s.Remove(name, false, nil); err != nil || len(rep.Deleted) != deleted {
			t.Errorf("remove %s: got %+v, %v; want %d deleted", name, rep, err, deleted)
		}
	}
	remove("mine:1", 0)
	if _, err := s.Resolve(byDigest); err != nil {
		t.Error(err)
	}
	if err := s.Tag(byDigest, "mine:2"); err != nil {
		t.Fatal(err)
	}
	remove(byDigest, 0)
	if im, err := s.Resolve("mine:2"); err != nil || len(im.Digests) != 0 {
		t.Errorf("got %v, %v", im.Digests, err)
	}
	remove("mine:2", 1)
}

// TestLoadNameOnlyForNameless loads an archive of two images under a third name: it is
// for what has none, and they keep theirs.
func TestLoadNameOnlyForNameless(t *testing.T) {
	s := store(t)
	names := []string{"registry.example/app:1", "registry.example/db:1"}
	for _, name := range names {
		loadAs(t, s, name[len("registry.example/"):], name)
	}
	for _, format := range []archive.Format{archive.OCIArchive, archive.DockerArchive} {
		var b bytes.Buffer
		if err := archive.Save(ctx, s, &b, format, names...); err != nil {
			t.Fatal(err)
		}
		images, err := archive.LoadReader(ctx, store(t), &b, archive.LoadOptions{Name: "mine:9"})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, im := range images {
			got = append(got, im.References...)
		}
		if slices.Sort(got); !slices.Equal(got, names) {
			t.Errorf("%v: got %v, want %v", format, got, names)
		}
	}
}

// TestLoadNameForOne gives one name to archives of two images that have none.
func TestLoadNameForOne(t *testing.T) {
	s := store(t)
	var ids []string
	for _, content := range []string{"a", "b"} {
		dir := t.TempDir()
		imagetest.New(t, manifest.RunConfig{}, imagetest.Tar(t, imagetest.File("x", content))).Layout(t, dir, "")
		images, err := archive.Load(ctx, s, dir, archive.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, images[0].ID.String())
	}
	var layout bytes.Buffer
	if err := archive.Save(ctx, s, &layout, archive.OCIArchive, ids...); err != nil {
		t.Fatal(err)
	}
	old := dockerSave(t, func(files map[string]imagetest.Entry) {
		files["d.json"] = imagetest.File("d.json", files["c.json"].Content+" ")
		const layers = `"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]`
		files["manifest.json"] = imagetest.File("manifest.json", `[{"Config":"c.json",`+layers+`},{"Config":"d.json",`+layers+`}]`)
	})
	for name, saved := range map[string][]byte{"layout": layout.Bytes(), "docker save": old} {
		to := store(t)
		_, err := archive.LoadReader(ctx, to, bytes.NewReader(saved), archive.LoadOptions{Name: "mine:9"})
		if err == nil || !strings.Contains(err.Error(), "mine:9") || !strings.Contains(err.Error(), "several images") {
			t.Errorf("%s: got %v, want that one name is for one image", name, err)
		}
		if list, err := to.List(); err != nil || len(list) > 0 {
			t.Errorf("%s: %v, %v in the store, want nothing", name, list, err)
		}
		if images, err := archive.LoadReader(ctx, to, bytes.NewReader(saved), archive.LoadOptions{}); err != nil || len(images) != 2 {
			t.Errorf("%s: without a name %v, %v", name, images, err)
		}
	}
}
