// Package archive moves images between the store and files: OCI layouts as a
// directory or an archive, the archives of "docker save" in their old and new
// form, and root file systems as tar.
package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"golang.org/x/sync/errgroup"
)

// ErrFormat says that a file or directory is no archive of images.
var ErrFormat = errors.New("not an image archive")

// LoadOptions changes what Load takes and how it names it.
type LoadOptions struct {
	// Platform chooses from an index, and must be that of an image that is in
	// none. Zero chooses the host's, and takes what is in none.
	Platform manifest.Platform
	// Name is for an image that the archive gives no name, or a tag only.
	// With a tag, it is used as it is. It cannot have a digest. An archive in
	// which it would be that of several images is refused.
	Name string
}

// Load brings all images of a layout directory or of an archive file, plain or
// compressed, into the store. The form is told from the content.
func Load(ctx context.Context, s *image.Store, path string, opts LoadOptions) ([]image.Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, err
		}
		return load(ctx, s, dirFiles{root}, opts)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		defer f.Close()
		return LoadReader(ctx, s, f, opts)
	}
	head := make([]byte, 6)
	n, _ := f.ReadAt(head, 0)
	if unpack.Detect(head[:n]) != unpack.Plain {
		defer f.Close()
		return LoadReader(ctx, s, f, opts)
	}
	t, err := indexTar(f, info.Size())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return load(ctx, s, t, opts)
}

// LoadReader is Load for a stream. It is written to a file of the store first,
// of at most the bytes that one image may have. r need not heed the context.
func LoadReader(ctx context.Context, s *image.Store, r io.Reader, opts LoadOptions) ([]image.Image, error) {
	op, err := s.Begin()
	if err != nil {
		return nil, err
	}
	defer op.Close()
	f, err := op.TempFile()
	if err != nil {
		return nil, err
	}
	z, err := unpack.DecompressWithin(unpack.Interruptible(ctx, r), s.ArchiveLimits())
	if err != nil {
		f.Close()
		return nil, err
	}
	defer z.Close()
	size, err := io.Copy(f, z)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read the archive: %w", err)
	}
	t, err := indexTar(f, size)
	if err != nil {
		f.Close()
		return nil, err
	}
	return load(ctx, s, t, opts)
}

// loader is one Load under way.
type loader struct {
	s     *image.Store
	files files
	opts  LoadOptions
	asked bool // for opts.Platform
}

// checkPlatform is for images that were not chosen by the word of an index.
func (l *loader) checkPlatform(c *manifest.Config) error {
	if l.asked && !l.opts.Platform.Runs(c.Platform) {
		return &manifest.NoPlatformError{Want: l.opts.Platform, Have: []string{c.Platform.String()}}
	}
	return nil
}

func load(ctx context.Context, s *image.Store, f files, opts LoadOptions) ([]image.Image, error) {
	defer f.Close()
	if opts.Name != "" {
		if _, err := reference.ParseName(opts.Name); err != nil {
			return nil, err
		}
	}
	asked := opts.Platform.OS != ""
	if !asked {
		opts.Platform = manifest.Host()
	}
	l := &loader{s: s, files: f, opts: opts, asked: asked}
	layout, err := l.document("oci-layout", 4096)
	if err == nil {
		return l.layout(ctx, layout)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	raw, err := l.document("manifest.json", manifest.MaxManifestBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has neither oci-layout nor manifest.json (a root file system is imported, not loaded)", ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	return l.dockerSave(ctx, raw)
}

func (l *loader) document(name string, limit int64) ([]byte, error) {
	r, _, err := l.files.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := manifest.ReadAll(r, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return raw, nil
}

// layout loads an OCI image layout (image-spec, image-layout.md).
func (l *loader) layout(ctx context.Context, raw []byte) ([]image.Image, error) {
	var version struct {
		ImageLayoutVersion string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(raw, &version); err != nil || version.ImageLayoutVersion != "1.0.0" {
		return nil, fmt.Errorf("%w: oci-layout does not say version 1.0.0", ErrFormat)
	}
	raw, err := l.document("index.json", manifest.MaxManifestBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: it has no index.json", ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	index, err := manifest.ParseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	chosen, err := l.choose(index)
	if err != nil {
		return nil, err
	}
	var out []image.Image
	for _, c := range chosen {
		im, err := l.image(ctx, c.manifest, c.names)
		if err != nil {
			return out, err
		}
		out = append(out, im)
	}
	return out, nil
}

type choice struct {
	manifest manifest.Descriptor
	names    []reference.Reference
}

// choose lists the images of index.json that run on the platform. An entry
// may be an index itself. Entries for one image are put together.
func (l *loader) choose(index *manifest.Index) ([]choice, error) {
	var out []choice
	var lastErr error
	at := make(map[digest.Digest]int)
	named := make(map[reference.Reference]digest.Digest) // by opts.Name
	for _, d := range index.Manifests {
		if !manifest.IsIndex(d.MediaType) && !manifest.IsManifest(d.MediaType) {
			lastErr = fmt.Errorf("%w: media type %q is not an image", manifest.ErrInvalid, d.MediaType)
			continue
		}
		if d.Platform != nil && !l.opts.Platform.Runs(*d.Platform) {
			lastErr = &manifest.NoPlatformError{Want: l.opts.Platform, Have: []string{d.Platform.String()}}
			continue
		}
		m, err := l.descend(d, 0)
		if err != nil {
			return nil, err
		}
		i, ok := at[m.Digest]
		if !ok {
			i = len(out)
			at[m.Digest] = i
			out = append(out, choice{manifest: m})
		}
		name, err := l.name(d.Annotations, d.Digest, m.Digest)
		if err != nil {
			return nil, err
		}
		if name.IsZero() {
			continue
		}
		given := l.givesName(d.Annotations)
		if other, ok := named[name]; ok && given && other != m.Digest {
			return nil, ambiguous(name.Familiar())
		}
		if given {
			named[name] = m.Digest
		}
		out[i].names = append(out[i].names, name)
	}
	if len(out) == 0 {
		if lastErr != nil {
			return nil, lastErr
		}
		return nil, fmt.Errorf("%w: its index is empty", ErrFormat)
	}
	return out, nil
}

// descend follows nested indexes to a manifest.
func (l *loader) descend(d manifest.Descriptor, depth int) (manifest.Descriptor, error) {
	if !manifest.IsIndex(d.MediaType) {
		return d, nil
	}
	if depth == 3 {
		return d, fmt.Errorf("%w: indexes nested deeper than 3", manifest.ErrInvalid)
	}
	raw, err := l.blob(d, manifest.MaxManifestBytes)
	if err != nil {
		return d, err
	}
	x, err := manifest.ParseIndex(raw)
	if err != nil {
		return d, err
	}
	next, err := x.Select(l.opts.Platform)
	if err != nil {
		return d, err
	}
	return l.descend(next, depth+1)
}

// blob reads and verifies a document.
func (l *loader) blob(d manifest.Descriptor, limit int64) ([]byte, error) {
	if err := manifest.CheckDigest(d.Digest); err != nil {
		return nil, fmt.Errorf("%w: %w", manifest.ErrInvalid, err)
	}
	raw, err := l.document(blobName(d.Digest), limit)
	if err != nil {
		return nil, l.missing(err, d.Digest)
	}
	if digest.FromBytes(raw) != d.Digest {
		return nil, fmt.Errorf("%w: blob %s has the digest %s", unpack.ErrDigest, d.Digest, digest.FromBytes(raw))
	}
	return raw, nil
}

func (l *loader) missing(err error, d digest.Digest) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: blob %s is missing", unpack.ErrTruncated, d)
	}
	return err
}

func blobName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

// Annotations that name an image: the field's own, and containerd's.
const (
	refNameAnnotation   = "org.opencontainers.image.ref.name"
	imageNameAnnotation = "io.containerd.image.name"
)

// name tells what the archive calls an image. The field's own annotation is a
// whole reference with some tools and only a tag with others. A name with a
// digest must have one of those that were verified: whoever runs an image by
// its digest relies on that.
func (l *loader) name(annotations map[string]string, verified ...digest.Digest) (reference.Reference, error) {
	full := annotations[imageNameAnnotation]
	tag := annotations[refNameAnnotation]
	if full == "" && strings.ContainsAny(tag, "/:") {
		full = tag
	}
	if l.givesName(annotations) {
		full = l.opts.Name
		if tag != "" && !strings.ContainsAny(tag, "/:") && !hasTag(full) {
			full += ":" + tag
		}
	}
	if full == "" {
		return reference.Reference{}, nil
	}
	r, err := reference.Parse(full)
	if err != nil || r.Digest() == "" {
		return reference.ParseName(full)
	}
	if !slices.Contains(verified, r.Digest()) {
		return reference.Reference{}, fmt.Errorf("%w: the archive names an image %q, which has the digest %s", manifest.ErrInvalid, full, verified[len(verified)-1])
	}
	return r, nil
}

// givesName reports whether opts.Name decides how an image is called.
func (l *loader) givesName(annotations map[string]string) bool {
	return l.opts.Name != "" && annotations[imageNameAnnotation] == "" && !strings.ContainsAny(annotations[refNameAnnotation], "/:")
}

func ambiguous(name string) error {
	return fmt.Errorf("the archive has several images without a name, and %s can be that of one only: load it without a name, and tag them by their IDs", name)
}

func hasTag(name string) bool {
	return strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":")
}

// image loads one manifest and all it points at. The operation is the image's
// own, as what one may cost is counted by operation.
func (l *loader) image(ctx context.Context, d manifest.Descriptor, names []reference.Reference) (image.Image, error) {
	raw, err := l.blob(d, manifest.MaxManifestBytes)
	if err != nil {
		return image.Image{}, err
	}
	m, err := manifest.Parse(raw)
	if err == nil {
		err = l.s.CheckSizes(m)
	}
	if err != nil {
		return image.Image{}, err
	}
	rawConfig, err := l.blob(m.Config, manifest.MaxConfigBytes)
	if err != nil {
		return image.Image{}, err
	}
	c, err := manifest.ParseConfig(rawConfig)
	if err == nil {
		err = manifest.CheckLayers(m, c)
	}
	if err == nil && d.Platform == nil {
		err = l.checkPlatform(c)
	}
	if err != nil {
		return image.Image{}, err
	}
	op, err := l.s.Begin()
	if err != nil {
		return image.Image{}, err
	}
	defer op.Close()
	for _, p := range [][]byte{raw, rawConfig} {
		if _, err := op.AddBlob(p); err != nil {
			return image.Image{}, err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.NumCPU()))
	for i, layer := range m.Layers {
		g.Go(func() error {
			err := op.WriteBlob(gctx, layer.Digest, layer.Size, func() (io.ReadCloser, error) {
				r, _, err := l.files.open(blobName(layer.Digest))
				return r, l.missing(err, layer.Digest)
			})
			if err != nil {
				return err
			}
			return op.Unpack(gctx, layer.Digest, c.RootFS.DiffIDs[i], nil)
		})
	}
	if err := g.Wait(); err != nil {
		return image.Image{}, err
	}
	return op.Commit(ctx, d.Digest, names...)
}
