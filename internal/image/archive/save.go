package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
)

// Format of a saved archive.
type Format string

// The formats. Docker's is an OCI archive with a manifest.json beside it,
// which old and new versions of "docker load" read.
const (
	OCIArchive    Format = "oci-archive"
	DockerArchive Format = "docker-archive"
)

// ParseFormat reads the name of a format.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case OCIArchive, DockerArchive:
		return f, nil
	}
	return "", fmt.Errorf("unknown archive format %q: want %s or %s", s, OCIArchive, DockerArchive)
}

// Save writes images as one archive. The same images give the same bytes.
func Save(ctx context.Context, s *image.Store, w io.Writer, format Format, refs ...string) error {
	tw := tar.NewWriter(w)
	if err := save(ctx, s, tarSink{tw}, format == DockerArchive, refs); err != nil {
		return err
	}
	return tw.Close()
}

// SaveDir writes images as an OCI layout directory, which must be missing or
// empty.
func SaveDir(ctx context.Context, s *image.Store, dir string, refs ...string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return save(ctx, s, dirSink{root}, false, refs)
}

// sink takes the files of a layout.
type sink interface {
	mkdir(name string) error
	write(name string, size int64, r io.Reader) error
}

type tarSink struct{ w *tar.Writer }

func (t tarSink) mkdir(name string) error {
	return t.w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: time.Unix(0, 0)})
}

func (t tarSink) write(name string, size int64, r io.Reader) error {
	err := t.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0)})
	if err != nil {
		return err
	}
	_, err = io.Copy(t.w, r)
	return err
}

type dirSink struct{ root *os.Root }

func (d dirSink) mkdir(name string) error { return d.root.Mkdir(filepath.FromSlash(name), 0o755) }

func (d dirSink) write(name string, _ int64, r io.Reader) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func save(ctx context.Context, s *image.Store, out sink, docker bool, refs []string) error {
	if len(refs) == 0 {
		return errors.New("no image to save")
	}
	for _, d := range []string{"blobs", "blobs/sha256"} {
		if err := out.mkdir(d); err != nil {
			return err
		}
	}
	index := manifest.Index{SchemaVersion: 2, MediaType: manifest.OCIIndex}
	var entries []dockerImage
	written := make(map[digest.Digest]bool)
	for _, ref := range refs {
		im, err := s.Resolve(ref)
		if err != nil {
			return err
		}
		op, err := s.Hold(im)
		if err != nil {
			return err
		}
		rawManifest, err := saveBlobs(ctx, s, out, im, written)
		if err := errors.Join(err, op.Close()); err != nil {
			return fmt.Errorf("save %s: %w", ref, err)
		}
		names := savedNames(im, ref)
		index.Manifests = append(index.Manifests, indexEntries(im, rawManifest, names)...)
		entries = append(entries, dockerEntry(im, names))
	}
	if docker {
		if err := writeDocument(out, "manifest.json", entries); err != nil {
			return err
		}
	}
	if err := writeDocument(out, "index.json", index); err != nil {
		return err
	}
	return writeDocument(out, "oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
}

// savedNames are the names that the archive gives: the one asked for, or all
// when an ID was.
func savedNames(im image.Image, ref string) []reference.Reference {
	var all []reference.Reference
	want, wantErr := reference.Parse(ref)
	for _, n := range im.References {
		r, err := reference.Parse(n)
		if err != nil {
			continue
		}
		if wantErr == nil && r == want {
			return []reference.Reference{r}
		}
		all = append(all, r)
	}
	return all
}

func saveBlobs(ctx context.Context, s *image.Store, out sink, im image.Image, written map[digest.Digest]bool) ([]byte, error) {
	rawManifest, _, err := s.Manifest(im)
	if err != nil {
		return nil, err
	}
	blobs := []digest.Digest{im.Digest, im.ID}
	for _, l := range im.Layers {
		blobs = append(blobs, l.Digest)
	}
	for _, d := range blobs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if written[d] {
			continue
		}
		written[d] = true
		if err := saveBlob(ctx, s, out, d); err != nil {
			return nil, err
		}
	}
	return rawManifest, nil
}

func saveBlob(ctx context.Context, s *image.Store, out sink, d digest.Digest) error {
	f, err := s.OpenBlob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return out.write(blobName(d), info.Size(), filetree.Until(ctx, f))
}

func indexEntries(im image.Image, raw []byte, names []reference.Reference) []manifest.Descriptor {
	mediaType, err := manifest.Detect(raw)
	if err != nil {
		mediaType = manifest.OCIManifest
	}
	platform := im.Platform
	d := manifest.Descriptor{MediaType: mediaType, Digest: im.Digest, Size: int64(len(raw)), Platform: &platform}
	if len(names) == 0 {
		return []manifest.Descriptor{d}
	}
	var out []manifest.Descriptor
	for _, n := range names {
		d.Annotations = map[string]string{imageNameAnnotation: n.String(), refNameAnnotation: n.Tag()}
		out = append(out, d)
	}
	return out
}

func dockerEntry(im image.Image, names []reference.Reference) dockerImage {
	e := dockerImage{Config: blobName(im.ID), RepoTags: []string{}}
	for _, n := range names {
		e.RepoTags = append(e.RepoTags, n.Familiar())
	}
	for _, l := range im.Layers {
		e.Layers = append(e.Layers, blobName(l.Digest))
	}
	return e
}

func writeDocument(out sink, name string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return out.write(name, int64(len(raw)), bytes.NewReader(raw))
}
