package archive_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/archive"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/imagetest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"golang.org/x/sys/unix"
)

var ctx = context.Background()

func store(t *testing.T) *image.Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers have owners and devices")
	}
	s, err := image.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// layers of the test image: plain archives.
func layers(t *testing.T) [][]byte {
	return [][]byte{
		imagetest.Tar(t, imagetest.Dir("d", 0o750), imagetest.File("d/a", strings.Repeat("one ", 1000))),
		imagetest.Tar(t, imagetest.File("b", "two")),
	}
}

func loaded(t *testing.T, s *image.Store, name string) image.Image {
	t.Helper()
	dir := t.TempDir()
	imagetest.New(t, manifest.RunConfig{Env: []string{"A=b"}, Cmd: []string{"/d/a"}}, layers(t)...).Layout(t, dir, "1.0")
	images, err := archive.Load(ctx, s, dir, archive.LoadOptions{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return images[0]
}

func TestSaveAndLoad(t *testing.T) {
	from := store(t)
	im := loaded(t, from, "localhost/x")
	if want := []string{"localhost/x:1.0"}; !slices.Equal(im.References, want) {
		t.Errorf("references %v, want %v: the archive's tag with the name given", im.References, want)
	}
	dir := t.TempDir()
	layout := filepath.Join(dir, "layout")
	if err := archive.SaveDir(ctx, from, layout, "localhost/x:1.0"); err != nil {
		t.Fatal(err)
	}
	if err := archive.SaveDir(ctx, from, layout, "localhost/x:1.0"); err == nil {
		t.Error("a directory that is not empty was written to")
	}
	for _, format := range []archive.Format{archive.OCIArchive, archive.DockerArchive} {
		var one, two bytes.Buffer
		if err := archive.Save(ctx, from, &one, format, "localhost/x:1.0"); err != nil {
			t.Fatal(err)
		}
		if err := archive.Save(ctx, from, &two, format, im.ID.String()); err != nil || !bytes.Equal(one.Bytes(), two.Bytes()) {
			t.Errorf("%s: saving twice gives %d and %d bytes, %v", format, one.Len(), two.Len(), err)
		}
		for suffix, p := range map[string][]byte{"": one.Bytes(), ".gz": imagetest.Gzip(one.Bytes()), ".zst": imagetest.Zstd(one.Bytes())} {
			if err := os.WriteFile(filepath.Join(dir, string(format)+suffix), p, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 7 {
		t.Fatal(names, err)
	}
	for _, n := range names {
		to := store(t)
		images, err := archive.Load(ctx, to, filepath.Join(dir, n.Name()), archive.LoadOptions{})
		if err != nil || len(images) != 1 {
			t.Errorf("%s: %d images, %v", n.Name(), len(images), err)
			continue
		}
		got := images[0]
		if got.Digest != im.Digest || !slices.Equal(got.References, im.References) || !reflect.DeepEqual(got.Config, im.Config) {
			t.Errorf("%s: got %s %v %+v, want %s %v %+v", n.Name(), got.Digest, got.References, got.Config, im.Digest, im.References, im.Config)
		}
	}
}

// dockerSave writes the archive of an old "docker save".
func dockerSave(t *testing.T, edit func(files map[string]imagetest.Entry)) []byte {
	t.Helper()
	l := layers(t)
	im := imagetest.New(t, manifest.RunConfig{Cmd: []string{"/d/a"}}, l[0], l[1], l[0])
	config, err := json.Marshal(im.Config)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]imagetest.Entry{
		"1/layer.tar": imagetest.File("1/layer.tar", string(l[0])),
		"2/layer.tar": imagetest.File("2/layer.tar", string(l[1])),
		"3/layer.tar": imagetest.Symlink("3/layer.tar", "../1/layer.tar"),
		"c.json":      imagetest.File("c.json", string(config)),
		"manifest.json": imagetest.File("manifest.json",
			`[{"Config":"c.json","RepoTags":["old:1","old:2"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]`),
		"repositories": imagetest.File("repositories", `{}`),
	}
	if edit != nil {
		edit(files)
	}
	var entries []imagetest.Entry
	for _, e := range files {
		entries = append(entries, e)
	}
	return imagetest.Tar(t, entries...)
}

// TestLoadSeveral loads images of which each is within the limit of one, and has
// a layer twice.
func TestLoadSeveral(t *testing.T) {
	from := store(t)
	big := imagetest.Tar(t, imagetest.File("a", strings.Repeat("a", 70_000)))
	for _, name := range []string{"x", "y", "z"} {
		dir := t.TempDir()
		own := imagetest.Tar(t, imagetest.File("b", strings.Repeat(name, 20_000)))
		imagetest.New(t, manifest.RunConfig{}, big, own, big).Layout(t, dir, "1")
		if _, err := archive.Load(ctx, from, dir, archive.LoadOptions{Name: "localhost/" + name}); err != nil {
			t.Fatal(err)
		}
	}
	for _, format := range []archive.Format{archive.OCIArchive, archive.DockerArchive} {
		var b bytes.Buffer
		if err := archive.Save(ctx, from, &b, format, "localhost/x:1", "localhost/y:1", "localhost/z:1"); err != nil {
			t.Fatal(err)
		}
		for limit, want := range map[int64]int{100_000: 3, 80_000: 0} {
			s, err := image.Open(t.TempDir(), image.WithLimits(unpack.Limits{}, limit))
			if err != nil {
				t.Fatal(err)
			}
			got, err := archive.LoadReader(ctx, s, bytes.NewReader(b.Bytes()), archive.LoadOptions{})
			if len(got) != want || (err == nil) != (want == 3) || err != nil && !errors.Is(err, unpack.ErrLimit) {
				t.Errorf("%s, %d bytes for an image: loaded %d, %v; want %d", format, limit, len(got), err, want)
			}
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	names, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}

func TestLoadDockerSave(t *testing.T) {
	s := store(t)
	images, err := archive.LoadReader(ctx, s, bytes.NewReader(dockerSave(t, nil)), archive.LoadOptions{})
	if err != nil || len(images) != 1 {
		t.Fatal(images, err)
	}
	if im := images[0]; len(im.Layers) != 3 || len(im.References) != 2 || im.Config.Cmd[0] != "/d/a" {
		t.Errorf("got %+v", im)
	}
	again, err := archive.LoadReader(ctx, s, bytes.NewReader(dockerSave(t, nil)), archive.LoadOptions{})
	if err != nil || again[0].Digest != images[0].Digest {
		t.Errorf("loading again: %v, %v", again, err)
	}
	// Not unpacked any more, they are unpacked again, and no descriptor stays open.
	root := t.TempDir()
	if s, err = image.Open(root); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		before := descriptors(t)
		if _, err := archive.LoadReader(ctx, s, bytes.NewReader(dockerSave(t, nil)), archive.LoadOptions{}); err != nil {
			t.Fatal(err)
		}
		if after := descriptors(t); after > before {
			t.Errorf("%d descriptors are open, and were %d before", after, before)
		}
		unpacked, err := filepath.Glob(filepath.Join(root, "images/layers/*"))
		if err != nil || len(unpacked) != 2 {
			t.Fatalf("unpacked: %v, %v", unpacked, err)
		}
		for _, dir := range unpacked {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	type files = map[string]imagetest.Entry
	for name, tt := range map[string]struct {
		edit func(files)
		want error
	}{
		"layer is a link out": {func(f files) { f["3/layer.tar"] = imagetest.Symlink("3/layer.tar", "../../../../etc/passwd") }, unpack.ErrTruncated},
		"link loop":           {func(f files) { f["3/layer.tar"] = imagetest.Symlink("3/layer.tar", "layer.tar") }, unpack.ErrTruncated},
		"config outside": {func(f files) {
			f["manifest.json"] = imagetest.File("manifest.json", `[{"Config":"/etc/hostname","Layers":[]}]`)
		}, unpack.ErrTruncated},
		"config missing":        {func(f files) { delete(f, "c.json") }, unpack.ErrTruncated},
		"layer missing":         {func(f files) { delete(f, "2/layer.tar") }, unpack.ErrTruncated},
		"layers swapped":        {func(f files) { f["2/layer.tar"] = imagetest.File("2/layer.tar", string(imagetest.Tar(t))) }, unpack.ErrDigest},
		"manifest is no list":   {func(f files) { f["manifest.json"] = imagetest.File("manifest.json", `{"a":1}`) }, archive.ErrFormat},
		"manifest is empty":     {func(f files) { f["manifest.json"] = imagetest.File("manifest.json", `[]`) }, archive.ErrFormat},
		"no manifest":           {func(f files) { delete(f, "manifest.json") }, archive.ErrFormat},
		"layout version":        {func(f files) { f["oci-layout"] = imagetest.File("oci-layout", `{"imageLayoutVersion":"9"}`) }, archive.ErrFormat},
		"layout without index":  {func(f files) { f["oci-layout"] = imagetest.File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`) }, archive.ErrFormat},
		"config of wrong types": {func(f files) { f["c.json"] = imagetest.File("c.json", `{"os":1}`) }, manifest.ErrInvalid},
	} {
		root := t.TempDir()
		s, err := image.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		_, err = archive.LoadReader(ctx, s, bytes.NewReader(dockerSave(t, tt.edit)), archive.LoadOptions{})
		if !errors.Is(err, tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
		if names, err := os.ReadDir(filepath.Join(root, "images", "tmp")); err != nil || len(names) > 0 {
			t.Errorf("%s: left %v, %v", name, names, err)
		}
	}
}

// TestDigestNames has archives that say of what digest their image is.
func TestDigestNames(t *testing.T) {
	other := "sha256:" + strings.Repeat("ab", 32)
	s := store(t)
	for _, tag := range []string{"alpine@" + other, "alpine:3@" + other, other, "sha256:latest"} {
		p := dockerSave(t, func(f map[string]imagetest.Entry) {
			f["manifest.json"] = imagetest.File("manifest.json",
				`[{"Config":"c.json","RepoTags":["`+tag+`"],"Layers":["1/layer.tar","2/layer.tar","3/layer.tar"]}]`)
		})
		if _, err := archive.LoadReader(ctx, s, bytes.NewReader(p), archive.LoadOptions{}); !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("a docker archive with %q: %v, want ErrInvalid", tag, err)
		}
		if _, err := archive.LoadReader(ctx, s, bytes.NewReader(dockerSave(t, nil)), archive.LoadOptions{Name: tag}); !errors.Is(err, reference.ErrInvalid) {
			t.Errorf("a docker archive loaded as %q: %v, want ErrInvalid", tag, err)
		}
		dir := t.TempDir()
		imagetest.New(t, manifest.RunConfig{}, layers(t)...).Layout(t, dir, tag)
		if _, err := archive.Load(ctx, s, dir, archive.LoadOptions{}); !errors.Is(err, reference.ErrInvalid) && !errors.Is(err, manifest.ErrInvalid) {
			t.Errorf("a layout with %q: %v, want ErrInvalid", tag, err)
		}
		if got, err := s.Resolve(tag); !errors.Is(err, image.ErrNotFound) {
			t.Errorf("Resolve(%q) = %s, %v; want ErrNotFound", tag, got.Digest, err)
		}
	}
	dir := t.TempDir()
	im := imagetest.New(t, manifest.RunConfig{}, layers(t)...)
	name := "alpine@" + im.Manifest.Digest.String()
	im.Layout(t, dir, name)
	if got, err := archive.Load(ctx, s, dir, archive.LoadOptions{}); err != nil || !slices.Equal(got[0].Digests, []string{"docker.io/library/" + name}) {
		t.Errorf("a layout with the image's digest: %+v, %v", got, err)
	}
}

// TestDigestOfAnIndex loads the images for two platforms of one index.
func TestDigestOfAnIndex(t *testing.T) {
	foreign := manifest.Platform{OS: "linux", Architecture: "s390x"}
	images := []*imagetest.Image{
		imagetest.New(t, manifest.RunConfig{Cmd: []string{"/host"}}, layers(t)...),
		imagetest.NewFor(t, foreign, manifest.RunConfig{Cmd: []string{"/foreign"}}, layers(t)...),
	}
	dir := t.TempDir()
	index := manifest.Index{SchemaVersion: 2, MediaType: manifest.OCIIndex}
	for _, im := range images {
		im.Layout(t, dir, "x")
		d := im.Manifest
		d.Platform = &im.Config.Platform
		index.Manifests = append(index.Manifests, d)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(raw)
	name := "localhost/x@" + d.String()
	top, err := json.Marshal(manifest.Index{SchemaVersion: 2, MediaType: manifest.OCIIndex, Manifests: []manifest.Descriptor{{
		MediaType: manifest.OCIIndex, Digest: d, Size: int64(len(raw)),
		Annotations: map[string]string{"io.containerd.image.name": name},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	for path, p := range map[string][]byte{"blobs/sha256/" + d.Encoded(): raw, "index.json": top} {
		if err := os.WriteFile(filepath.Join(dir, path), p, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, order := range [][]manifest.Platform{{manifest.Host(), foreign, manifest.Host()}, {foreign, manifest.Host()}, {foreign}} {
		s := store(t)
		want := images[0].Manifest.Digest
		if len(order) == 1 {
			want = images[1].Manifest.Digest
		}
		for _, p := range order {
			if _, err := archive.Load(ctx, s, dir, archive.LoadOptions{Platform: p}); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Resolve(name); err != nil || got.Digest != want {
			t.Errorf("loaded for %v: the index's digest leads to the image for %s, %v", order, got.Platform, err)
		}
		list, err := s.List()
		if err != nil || len(list) != min(2, len(order)) {
			t.Errorf("%d images, %v", len(list), err)
		}
		for _, im := range list {
			if !slices.Equal(im.Digests, []string{name}) {
				t.Errorf("the image for %s has the digests %v", im.Platform, im.Digests)
			}
		}
	}
}

// TestLoadForPlatform asks for a platform where there is no index to choose
// from.
func TestLoadForPlatform(t *testing.T) {
	dir := t.TempDir()
	imagetest.New(t, manifest.RunConfig{}, layers(t)...).Layout(t, dir, "x:1")
	file := filepath.Join(t.TempDir(), "docker.tar")
	if err := os.WriteFile(file, dockerSave(t, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	s := store(t)
	for _, path := range []string{dir, file} {
		var none *manifest.NoPlatformError
		_, err := archive.Load(ctx, s, path, archive.LoadOptions{Platform: manifest.Platform{OS: "linux", Architecture: "s390x"}})
		if !errors.As(err, &none) || !strings.Contains(err.Error(), "only for "+manifest.Host().String()) {
			t.Errorf("%s: got %v, want NoPlatformError", path, err)
		}
		if list, err := s.List(); err != nil || len(list) > 0 {
			t.Errorf("%s: %d images, %v; want none", path, len(list), err)
		}
	}
	for _, path := range []string{dir, file} {
		if _, err := archive.Load(ctx, s, path, archive.LoadOptions{Platform: manifest.Host()}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	// The host's platform is taken where there is a choice; it is no wish.
	dir = t.TempDir()
	imagetest.NewFor(t, manifest.Platform{OS: "linux", Architecture: "s390x"}, manifest.RunConfig{}, layers(t)...).Layout(t, dir, "y:1")
	if _, err := archive.Load(ctx, s, dir, archive.LoadOptions{}); err != nil {
		t.Error(err)
	}
}

// TestStreamThatBringsNothing has somebody go away who waits for a pipe.
func TestStreamThatBringsNothing(t *testing.T) {
	s := store(t)
	raw := imagetest.Tar(t, imagetest.File("f", strings.Repeat("x", 100_000)))
	for name, start := range map[string][]byte{"nothing": nil, "a part": raw[:5000], "a part of gzip": imagetest.Gzip(raw)[:5], "a part of zstd": imagetest.Zstd(raw)[:12]} {
		for command, f := range map[string]func(context.Context, io.Reader) error{
			"load": func(ctx context.Context, r io.Reader) error {
				_, err := archive.LoadReader(ctx, s, r, archive.LoadOptions{})
				return err
			},
			"import": func(ctx context.Context, r io.Reader) error {
				_, err := archive.Import(ctx, s, r, archive.ImportOptions{})
				return err
			},
		} {
			r, w := io.Pipe()
			ctx, cancel := context.WithCancel(ctx)
			done := make(chan error)
			go func() { done <- f(ctx, r) }()
			if _, err := w.Write(start); err != nil {
				t.Fatal(err)
			}
			cancel()
			select {
			case err := <-done:
				if !errors.Is(err, context.Canceled) {
					t.Errorf("%s, %s: got %v, want %v", command, name, err, context.Canceled)
				}
			case <-time.After(time.Minute):
				t.Errorf("%s, %s: it still waits", command, name)
				w.Close()
				<-done
			}
			w.Close()
		}
	}
}

// TestArchiveBomb has an archive that is small as long as it is compressed.
func TestArchiveBomb(t *testing.T) {
	store(t)
	bomb := imagetest.Gzip(imagetest.Tar(t, imagetest.File("f", strings.Repeat("x", 4<<20))))
	for _, tt := range []struct {
		limits     unpack.Limits
		imageBytes int64
		want       string
	}{
		{unpack.Limits{Ratio: 100, RatioFloor: 1 << 20}, 0, "bomb"},
		{unpack.Limits{Ratio: 100, RatioFloor: 8 << 20}, 0, "neither oci-layout"},
		{unpack.Limits{}, 2 << 20, "longer than 2 MiB"},
	} {
		s, err := image.Open(t.TempDir(), image.WithLimits(tt.limits, tt.imageBytes))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := archive.LoadReader(ctx, s, bytes.NewReader(bomb), archive.LoadOptions{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want an error with %q", err, tt.want)
		}
	}
}

func TestLoadNonsense(t *testing.T) {
	s := store(t)
	dir := t.TempDir()
	for name, p := range map[string][]byte{
		"empty": {}, "text": []byte("hello"), "zeros": make([]byte, 4096), "truncated": dockerSave(t, nil)[:5000],
		"root file system": imagetest.Tar(t, imagetest.File("etc/passwd", "x")), "gzip of nothing": imagetest.Gzip(nil),
	} {
		path := filepath.Join(dir, "a")
		if err := os.WriteFile(path, p, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Load(ctx, s, path, archive.LoadOptions{}); !errors.Is(err, archive.ErrFormat) && !errors.Is(err, unpack.ErrTruncated) {
			t.Errorf("%s: got %v, want ErrFormat or ErrTruncated", name, err)
		}
	}
	if _, err := archive.Load(ctx, s, filepath.Join(dir, "missing"), archive.LoadOptions{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// TestLayoutLinksOut has a layout whose blobs are links to files of the host.
func TestLayoutLinksOut(t *testing.T) {
	s := store(t)
	for _, link := range []string{"/etc/passwd", "../../../../../../../../etc/passwd", "/dev/zero"} {
		dir := t.TempDir()
		im := imagetest.New(t, manifest.RunConfig{}, layers(t)...)
		im.Layout(t, dir, "x")
		blob := filepath.Join(dir, "blobs", "sha256", im.Manifest.Digest.Encoded())
		if err := os.Remove(blob); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(link, blob); err != nil {
			t.Fatal(err)
		}
		if _, err := archive.Load(ctx, s, dir, archive.LoadOptions{}); err == nil || strings.Contains(err.Error(), "root:") {
			t.Errorf("link to %s: %v", link, err)
		}
	}
	dir := t.TempDir()
	im := imagetest.New(t, manifest.RunConfig{}, layers(t)...)
	im.Layout(t, dir, "x")
	index := filepath.Join(dir, "index.json")
	os.Remove(index)
	if err := unix.Mkfifo(index, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Load(ctx, s, dir, archive.LoadOptions{}); err == nil {
		t.Error("a FIFO was taken for an index")
	}
}

func TestImport(t *testing.T) {
	s := store(t)
	rootfs := imagetest.Tar(t, imagetest.Dir(".", 0o755), imagetest.File("bin/sh", "x").With(0o755, 0, 0))
	for name, p := range map[string][]byte{"plain": rootfs, "gzip": imagetest.Gzip(rootfs), "zstd": imagetest.Zstd(rootfs)} {
		im, err := archive.Import(ctx, s, bytes.NewReader(p), archive.ImportOptions{
			Name:    "imported:" + name,
			Changes: []string{`CMD ["/bin/sh"]`, "ENV A=b C=\"d e\"", "WORKDIR /srv", "USER 1:1", "EXPOSE 80", "VOLUME /data", "LABEL x=y", "STOPSIGNAL SIGINT"},
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if im.Config.Cmd[0] != "/bin/sh" || im.Config.WorkingDir != "/srv" || im.Config.User != "1:1" || !slices.Equal(im.Config.Env, []string{"A=b", "C=d e"}) {
			t.Errorf("%s: config %+v", name, im.Config)
		}
		chain, err := s.Layers(ctx, im)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := os.ReadFile(chain.Dirs[0] + "/bin/sh"); err != nil || string(p) != "x" {
			t.Errorf("%s: %q, %v", name, p, err)
		}
		chain.Release()
	}
	for name, opts := range map[string]archive.ImportOptions{
		"change": {Changes: []string{"RUN ls"}}, "name": {Name: "UPPER"}, "env": {Changes: []string{"ENV =x"}},
	} {
		if _, err := archive.Import(ctx, s, bytes.NewReader(rootfs), opts); err == nil {
			t.Errorf("bad %s was taken", name)
		}
	}
	if _, err := archive.Import(ctx, s, strings.NewReader("no tar at all"+strings.Repeat("x", 1000)), archive.ImportOptions{}); !errors.Is(err, unpack.ErrHostile) {
		t.Errorf("nonsense: %v", err)
	}
}

func TestChange(t *testing.T) {
	for line, want := range map[string]manifest.RunConfig{
		`CMD ls -l`:              {Cmd: []string{"/bin/sh", "-c", "ls -l"}},
		`cmd ["a","b"]`:          {Cmd: []string{"a", "b"}},
		`ENTRYPOINT ["/e"]`:      {Entrypoint: []string{"/e"}},
		`ENV A=1 B='2 3' C=4\ 5`: {Env: []string{"A=1", "B=2 3", "C=4 5"}},
		`ENV A one two`:          {Env: []string{"A=one two"}},
		`HEALTHCHECK NONE`:       {Healthcheck: &manifest.Healthcheck{Test: []string{"NONE"}}},
		`HEALTHCHECK --interval=5s --retries=2 CMD curl -f http://localhost/`: {Healthcheck: &manifest.Healthcheck{
			Test: []string{"CMD-SHELL", "curl -f http://localhost/"}, Interval: 5 * time.Second, Retries: 2,
		}},
		`HEALTHCHECK CMD ["a", "b c"]`: {Healthcheck: &manifest.Healthcheck{Test: []string{"CMD", "a", "b c"}}},
		`EXPOSE 80 53/udp`:             {ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}}},
		`VOLUME ["/a", "/b c"]`:        {Volumes: map[string]struct{}{"/a": {}, "/b c": {}}},
		`WORKDIR a/b`:                  {WorkingDir: "/a/b"},
		`LABEL a="b c"`:                {Labels: map[string]string{"a": "b c"}},
	} {
		var got manifest.RunConfig
		if err := archive.Change(&got, line); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{"", "RUN x", "CMD [1]", "HEALTHCHECK CMD", "HEALTHCHECK --often CMD x", "HEALTHCHECK NONE x", "ENV", "ENV A", "ENV A=\"b", "VOLUME x", "EXPOSE http", "CMD [\"a\\u0000\"]"} {
		var c manifest.RunConfig
		if err := archive.Change(&c, line); err == nil {
			t.Errorf("%q was taken: %+v", line, c)
		}
	}
}

// TestChangeOfConfig has instructions on top of what an image says.
func TestChangeOfConfig(t *testing.T) {
	from := func() manifest.RunConfig {
		return manifest.RunConfig{Env: []string{"PATH=/bin", "EMPTY=", "P=80 81"}, Cmd: []string{"old"}, Shell: []string{"/bin/bash", "-c"}, WorkingDir: "/w"}
	}
	for _, tt := range []struct {
		lines []string
		want  func(c *manifest.RunConfig)
	}{
		{[]string{`ENV PATH=/opt:$PATH`}, func(c *manifest.RunConfig) { c.Env[0] = "PATH=/opt:/bin" }},
		{[]string{`ENV PATH /opt:${PATH}`}, func(c *manifest.RunConfig) { c.Env[0] = "PATH=/opt:/bin" }},
		{[]string{`ENV A='$PATH' B="$PATH" C=\$PATH D=$NO E=$ F="\n\$"`}, func(c *manifest.RunConfig) {
			c.Env = append(c.Env, "A=$PATH", "B=/bin", "C=$PATH", "D=", "E=$", `F=\n$`)
		}},
		{[]string{`ENV A=${NO:-x} B=${NO-x} C=${EMPTY:-x$PATH} D=${EMPTY-x} E=${PATH:-x}`}, func(c *manifest.RunConfig) {
			c.Env = append(c.Env, "A=x", "B=x", "C=x/bin", "D=", "E=/bin")
		}},
		{[]string{`ENV A=${NO:+x} B=${NO+x} C=${EMPTY:+x} D=${EMPTY+x} E=${PATH:+"x }y"}`}, func(c *manifest.RunConfig) {
			c.Env = append(c.Env, "A=", "B=", "C=", "D=x", "E=x }y")
		}},
		{[]string{`ENV A=a$1b$$c${12}d$x1d B=$é`}, func(c *manifest.RunConfig) { c.Env = append(c.Env, "A=abcd", "B=$é") }},
		{[]string{`ENV A=1 B=$A`, `ENV C=$A`}, func(c *manifest.RunConfig) { c.Env = append(c.Env, "A=1", "B=", "C=1") }},
		{[]string{`WORKDIR ${NO:-"a b"}`}, func(c *manifest.RunConfig) { c.WorkingDir = "/w/a b" }},
		{[]string{`USER $NO:${NO:-5}`}, func(c *manifest.RunConfig) { c.User = ":5" }},
		{[]string{`EXPOSE $P`}, func(c *manifest.RunConfig) { c.ExposedPorts = map[string]struct{}{"80/tcp": {}, "81/tcp": {}} }},
		{[]string{`VOLUME $PATH ["x"`}, nil},
		{[]string{`VOLUME $PATH "/a b"`}, func(c *manifest.RunConfig) { c.Volumes = map[string]struct{}{"/bin": {}, "/a b": {}} }},
		{[]string{`LABEL "a b"=$PATH`}, func(c *manifest.RunConfig) { c.Labels = map[string]string{"a b": "/bin"} }},
		{[]string{`CMD echo $PATH "x"`}, func(c *manifest.RunConfig) { c.Cmd = []string{"/bin/bash", "-c", `echo $PATH "x"`} }},
		{[]string{`ENTRYPOINT ["/e"]`}, func(c *manifest.RunConfig) { c.Entrypoint, c.Cmd = []string{"/e"}, nil }},
		{[]string{`CMD ["new"]`, `ENTRYPOINT ["/e"]`}, func(c *manifest.RunConfig) { c.Entrypoint, c.Cmd = []string{"/e"}, []string{"new"} }},
		{[]string{`ENTRYPOINT ["/e"]`, `CMD ["new"]`}, func(c *manifest.RunConfig) { c.Entrypoint, c.Cmd = []string{"/e"}, []string{"new"} }},
		{[]string{`ENTRYPOINT e`}, func(c *manifest.RunConfig) { c.Entrypoint, c.Cmd = []string{"/bin/bash", "-c", "e"}, nil }},
		{[]string{`ENV A=${}`}, nil}, {[]string{`ENV A=${PATH`}, nil}, {[]string{`ENV A=${PATH%x}`}, nil}, {[]string{`ENV A=${NO:?want it}`}, nil},
		{[]string{`ENV A=${PATH:`}, nil}, {[]string{`ENV A=${NO:-x`}, nil}, {[]string{`WORKDIR $NO`}, nil}, {[]string{`ENV $NO=x`}, nil},
	} {
		got, want := from(), from()
		err := archive.Change(&got, tt.lines...)
		if tt.want == nil {
			if err == nil {
				t.Errorf("%q was taken: %+v", tt.lines, got)
			}
			continue
		}
		if tt.want(&want); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %+v, %v; want %+v", tt.lines, got, err, want)
		}
	}
}

// TestSkopeo lets another program read what we save and write what we load.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed (Debian: apt-get install skopeo)")
	}
	from := store(t)
	im := loaded(t, from, "localhost/x")
	dir := t.TempDir()
	skopeo := func(src, dst string) {
		t.Helper()
		if out, err := exec.Command("skopeo", "--insecure-policy", "--tmpdir", dir, "copy", src, dst).CombinedOutput(); err != nil {
			t.Fatalf("skopeo copy %s %s: %v\n%s", src, dst, err, out)
		}
	}
	for _, format := range []archive.Format{archive.OCIArchive, archive.DockerArchive} {
		f, err := os.Create(filepath.Join(dir, string(format)))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(archive.Save(ctx, from, f, format, "localhost/x:1.0"), f.Close()); err != nil {
			t.Fatal(err)
		}
		src := string(format) + ":" + f.Name()
		skopeo(src, "docker-archive:"+f.Name()+".docker:localhost/y:2")
		skopeo(src, "oci-archive:"+f.Name()+".oci:2")
		skopeo(src, "oci:"+f.Name()+".dir:2")
		for _, path := range []string{".docker", ".oci", ".dir"} {
			to := store(t)
			images, err := archive.Load(ctx, to, f.Name()+path, archive.LoadOptions{Name: "localhost/y"})
			if err != nil || len(images) != 1 {
				t.Errorf("%s%s: %v, %v", format, path, images, err)
				continue
			}
			got := images[0]
			if !slices.Equal(got.References, []string{"localhost/y:2"}) || !reflect.DeepEqual(got.Config, im.Config) ||
				got.Layers[0].DiffID != im.Layers[0].DiffID {
				t.Errorf("%s%s: got %v %+v %v", format, path, got.References, got.Config, got.Layers)
			}
		}
	}
}

// cancelAfter cancels a context once so many bytes were written, and counts on.
type cancelAfter struct {
	cancel context.CancelFunc
	at, n  int
}

func (c *cancelAfter) Write(p []byte) (int, error) {
	if c.n += len(p); c.n >= c.at {
		c.cancel()
	}
	return len(p), nil
}

// TestSaveInterrupted has somebody interrupt the last blob of an archive.
func TestSaveInterrupted(t *testing.T) {
	s := store(t)
	const size = 8 << 20
	plain := imagetest.Tar(t, imagetest.File("x", strings.Repeat("x", size)))
	dir := t.TempDir()
	imagetest.NewPacked(t, manifest.RunConfig{}, manifest.OCILayer, [][]byte{plain}, [][]byte{plain}).Layout(t, dir, "x:1")
	if _, err := archive.Load(ctx, s, dir, archive.LoadOptions{}); err != nil {
		t.Fatal(err)
	}
	c, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &cancelAfter{cancel: cancel, at: size / 8}
	if err := archive.Save(c, s, w, archive.OCIArchive, "x:1"); !errors.Is(err, context.Canceled) || w.n > size/2 {
		t.Errorf("got %v after %d bytes, want %v after about %d", err, w.n, context.Canceled, w.at)
	}
}
