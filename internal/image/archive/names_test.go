package archive_test

import (
	"bytes"
	"slices"
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
