package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
)

// Image is one image of the store, as it was when it was asked for.
type Image struct {
	Digest     digest.Digest      `json:"digest"`               // of the manifest: what a workload records
	ID         digest.Digest      `json:"id"`                   // of the config: what Docker calls the image ID
	References []string           `json:"references,omitempty"` // whole names with tags
	Digests    []string           `json:"digests,omitempty"`    // names with the digest they were pulled by
	Dangling   bool               `json:"-"`                    // it has no tag, and was not pulled by a digest alone: Prune removes it
	Platform   manifest.Platform  `json:"platform"`
	Created    time.Time          `json:"created,omitzero"` // zero when the image does not say
	Added      time.Time          `json:"added"`            // to this store
	Size       int64              `json:"size"`             // bytes of manifest, config and layers as stored
	DiskSize   int64              `json:"diskSize"`         // bytes of files in the unpacked layers; 0 for those not unpacked
	VMDisk     int64              `json:"vmDisk,omitempty"` // bytes that its disk for virtual machines takes; 0 until there is one
	Config     manifest.RunConfig `json:"config"`
	Layers     []Layer            `json:"layers"` // lowest first
	History    []manifest.History `json:"history,omitempty"`
}

// Layer is one layer of an image.
type Layer struct {
	Digest    digest.Digest `json:"digest"` // of the blob
	DiffID    digest.Digest `json:"diffID"` // of the uncompressed archive
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"`     // bytes of the blob
	Unpacked  int64         `json:"unpacked"` // bytes of files; 0 when it is not unpacked
}

// ShortID is what listings show: twelve digits of the ID.
func (im Image) ShortID() string {
	hex := im.ID.Encoded()
	return hex[:min(12, len(hex))]
}

// load reads the documents of one image. Unpacked sizes are left out: running
// does not need them.
func (s *Store) load(e *tableImage) (Image, error) {
	im := Image{Digest: e.Digest, References: e.References, Digests: e.Digests, Dangling: e.dangling(), Added: e.Added}
	raw, err := s.readBlob(e.Digest, manifest.MaxManifestBytes)
	if err != nil {
		return im, s.damaged(e, err)
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		return im, s.damaged(e, err)
	}
	rawConfig, err := s.readBlob(m.Config.Digest, manifest.MaxConfigBytes)
	if err != nil {
		return im, s.damaged(e, err)
	}
	c, err := manifest.ParseConfig(rawConfig)
	if err == nil {
		err = manifest.CheckLayers(m, c)
	}
	if err != nil {
		return im, s.damaged(e, err)
	}
	im.ID = m.Config.Digest
	im.Platform = c.Platform
	if c.Created != nil {
		im.Created = *c.Created
	}
	im.Config, im.History = c.Config, c.History
	im.Size = int64(len(raw)) + m.Config.Size
	for i, l := range m.Layers {
		im.Layers = append(im.Layers, Layer{Digest: l.Digest, DiffID: c.RootFS.DiffIDs[i], MediaType: l.MediaType, Size: l.Size})
		im.Size += l.Size
	}
	return im, nil
}

func (s *Store) damaged(e *tableImage, err error) error {
	if errors.Is(err, ErrDamaged) || errors.Is(err, os.ErrNotExist) || errors.Is(err, manifest.ErrInvalid) {
		return fmt.Errorf("%w: image %s, remove it and pull it again: %w", ErrDamaged, e.Digest, err)
	}
	return err
}

// measure fills in the sizes of what is derived from the blobs.
func (s *Store) measure(im *Image) error {
	seen := make(map[digest.Digest]bool)
	for i := range im.Layers {
		m, err := s.layerMeta(im.Layers[i].DiffID)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		im.Layers[i].Unpacked = m.Bytes
		if !seen[im.Layers[i].DiffID] {
			im.DiskSize += m.Bytes
		}
		seen[im.Layers[i].DiffID] = true
	}
	if len(im.Layers) > 0 {
		im.VMDisk = s.diskUsage(diskID(im.Layers).Encoded())
	}
	return nil
}

// Resolve finds an image of this store by what a user writes, asking no
// registry: a reference ("redis:7"), a reference with a digest, a digest of
// the manifest or of the config, with or without "sha256:", or a beginning of
// one that fits a single image. A name wins over a beginning of a digest, but
// what begins with "sha256:" is a digest and no name.
//
// The digest of a reference may be that of an index from which images for
// several platforms are here: then the host's is taken, if it is among them.
//
// Errors wrap ErrNotFound, ErrAmbiguous, ErrDamaged or reference.ErrInvalid.
// DiskSize, VMDisk and Unpacked are not filled in; Inspect does that.
func (s *Store) Resolve(ref string) (Image, error) {
	t, err := s.readTable()
	if err != nil {
		return Image{}, err
	}
	e, err := s.find(t, ref)
	if err != nil {
		return Image{}, err
	}
	return s.load(e)
}

// Inspect is Resolve with the sizes of unpacked layers.
func (s *Store) Inspect(ref string) (Image, error) {
	im, err := s.Resolve(ref)
	if err != nil {
		return im, err
	}
	err = s.measure(&im)
	return im, err
}

func (s *Store) find(t *table, ref string) (*tableImage, error) {
	hex, isDigest := strings.CutPrefix(ref, "sha256:")
	r, refErr := reference.Parse(ref)
	if refErr == nil && r.Digest() != "" {
		return s.byDigest(t, r)
	}
	if refErr == nil && !isDigest {
		if e := t.byReference(r.String()); e != nil {
			return e, nil
		}
	}
	if len(hex) >= minPrefix && len(hex) <= 64 && strings.Trim(hex, "0123456789abcdef") == "" {
		e, err := s.byPrefix(t, hex)
		if e != nil || err != nil {
			return e, err
		}
	} else if isDigest {
		return nil, fmt.Errorf("%w: %q is not a digest", ErrNotFound, ref)
	}
	if refErr != nil && !isDigest && len(hex) != 64 {
		return nil, refErr
	}
	return nil, fmt.Errorf("%w: %s", ErrNotFound, ref)
}

// byDigest finds the image of a reference with a digest.
func (s *Store) byDigest(t *table, r reference.Reference) (*tableImage, error) {
	// It may be known by its digest from elsewhere: the same name must have it.
	if e := t.find(r.Digest()); e != nil && e.hasName(r.Name()) {
		return e, nil
	}
	var found *tableImage
	for i := range t.Images {
		e := &t.Images[i]
		if !slices.Contains(e.Digests, lookupName(r)) {
			continue
		}
		// Documents need only be read where there is a choice.
		if found == nil || !s.isForHost(found) && s.isForHost(e) {
			found = e
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, r.Familiar())
	}
	return found, nil
}

func (s *Store) isForHost(e *tableImage) bool {
	im, err := s.load(e)
	return err == nil && manifest.Host().Runs(im.Platform)
}

// minPrefix is how many digits of a digest are enough to look for it.
const minPrefix = 3

// lookupName is the name in the table that r stands for: with a digest, the
// tag says nothing.
func lookupName(r reference.Reference) string {
	if d := r.Digest(); d != "" {
		return r.WithDigest(d).String()
	}
	return r.String()
}

func (e *tableImage) hasName(name string) bool {
	return slices.ContainsFunc(e.References, func(s string) bool { return strings.HasPrefix(s, name+":") }) ||
		slices.ContainsFunc(e.Digests, func(s string) bool { return strings.HasPrefix(s, name+"@") })
}

// byPrefix finds by the beginning of a manifest's or config's digest. Two
// manifests with one config are one image to the user; the newer one is taken.
func (s *Store) byPrefix(t *table, hex string) (*tableImage, error) {
	found := make(map[digest.Digest]*tableImage) // by config
	for i := range t.Images {
		e := &t.Images[i]
		raw, err := s.readBlob(e.Digest, manifest.MaxManifestBytes)
		id := e.Digest // a damaged image can still be named
		if err == nil {
			if m, err := manifest.Parse(raw); err == nil {
				id = m.Config.Digest
			}
		}
		if !strings.HasPrefix(e.Digest.Encoded(), hex) && !strings.HasPrefix(id.Encoded(), hex) {
			continue
		}
		if e.Digest.Encoded() == hex {
			return e, nil
		}
		if old := found[id]; old == nil || old.Added.Before(e.Added) {
			found[id] = e
		}
	}
	if len(found) > 1 {
		return nil, fmt.Errorf("%w: %s", ErrAmbiguous, hex)
	}
	for _, e := range found {
		return e, nil
	}
	return nil, nil
}

// List returns all images, the newest first. Damaged images do not hide the
// others: they are left out, and the error, which wraps ErrDamaged, names them.
func (s *Store) List() ([]Image, error) {
	t, err := s.readTable()
	if err != nil {
		return nil, err
	}
	var out []Image
	var damaged []error
	for i := range t.Images {
		im, err := s.load(&t.Images[i])
		if err == nil {
			err = s.measure(&im)
		}
		if err != nil {
			damaged = append(damaged, err)
			continue
		}
		out = append(out, im)
	}
	sort.SliceStable(out, func(i, j int) bool {
		if !out[i].Created.Equal(out[j].Created) {
			return out[i].Created.After(out[j].Created)
		}
		return out[i].Digest < out[j].Digest
	})
	return out, errors.Join(damaged...)
}

// Tag gives an image another name, which a former owner loses. The new name
// must have no digest; without a tag it gets "latest".
func (s *Store) Tag(ref, name string) error {
	r, err := tagName(name)
	if err != nil {
		return err
	}
	return s.update(func(t *table) error {
		e, err := s.find(t, ref)
		if err != nil {
			return err
		}
		t.give(e, r)
		return nil
	})
}

func tagName(name string) (string, error) {
	r, err := reference.ParseName(name)
	return r.String(), err
}

// Commit makes a manifest that the operation stored, with all its blobs, an
// image with the given names: whole references, tags or digests. Everything is
// checked first: documents, the presence of each blob, that it holds the layer
// with the diff ID that the config says, and that this is unpacked. Until then no command sees
// anything of the image.
//
// A former owner loses the names. One with a digest stays with images for other
// platforms, though: the digest may be that of an index. A name with a digest
// and no tag of the same repository beside it keeps the image from Prune.
//
// Precondition: the digest of a name is that of the manifest, or of an index
// that leads to it, and the caller has verified it.
func (o *Op) Commit(ctx context.Context, d digest.Digest, refs ...reference.Reference) (Image, error) {
	for _, r := range refs {
		if r.LooksLikeDigest() {
			return Image{}, fmt.Errorf("%w %q: it could not be told from a digest", reference.ErrInvalid, r.Familiar())
		}
	}
	if err := o.Publish(); err != nil {
		return Image{}, err
	}
	entry := tableImage{Digest: d, Added: time.Now().UTC().Truncate(time.Millisecond)}
	im, err := o.s.load(&entry)
	if err != nil {
		return Image{}, err
	}
	for _, l := range im.Layers {
		blob, err := o.HasBlob(l.Digest)
		if err != nil {
			return Image{}, err
		}
		unpacked, err := o.HasLayer(l.DiffID)
		if err != nil {
			return Image{}, err
		}
		if !blob || !unpacked {
			return Image{}, fmt.Errorf("image %s: layer %s is missing", d, l.Digest)
		}
		if err := o.prove(ctx, blobOf{l.Digest, l.DiffID}, nil); err != nil {
			return Image{}, err
		}
	}
	if err := o.Publish(); err != nil {
		return Image{}, err
	}
	if err := o.s.mendAll(ctx, o, im); err != nil {
		return Image{}, o.s.explain(err)
	}
	err = o.s.update(func(t *table) error {
		e := t.find(d)
		if e == nil {
			t.Images = append(t.Images, entry)
			e = &t.Images[len(t.Images)-1]
		}
		for _, r := range refs {
			if r.Digest() == "" {
				t.give(e, r.String())
			} else {
				tagged := slices.ContainsFunc(refs, func(t reference.Reference) bool { return t.Digest() == "" && t.Name() == r.Name() })
				o.s.giveDigest(t, e, lookupName(r), im.Platform, !tagged)
			}
		}
		im.References, im.Digests, im.Dangling, im.Added = e.References, e.Digests, e.dangling(), e.Added
		return nil
	})
	if err != nil {
		return Image{}, err
	}
	o.Keep() // the image has them now
	err = o.s.measure(&im)
	return im, err
}

// giveDigest makes a name with a digest one of e, and of no other image for the
// same platform. pin says that e was asked for by it.
func (s *Store) giveDigest(t *table, e *tableImage, name string, platform manifest.Platform, pin bool) {
	for i := range t.Images {
		other := &t.Images[i]
		if other == e || !slices.Contains(other.Digests, name) {
			continue
		}
		if im, err := s.load(other); err != nil || im.Platform.String() == platform.String() {
			is := func(s string) bool { return s == name }
			other.Digests, other.Pinned = slices.DeleteFunc(other.Digests, is), slices.DeleteFunc(other.Pinned, is)
		}
	}
	if !slices.Contains(e.Digests, name) {
		e.Digests = append(e.Digests, name)
	}
	if pin && !slices.Contains(e.Pinned, name) {
		e.Pinned = append(e.Pinned, name)
	}
}

// Manifest returns the stored bytes of an image's manifest and config.
func (s *Store) Manifest(im Image) (rawManifest, rawConfig []byte, err error) {
	rawManifest, err = s.readBlob(im.Digest, manifest.MaxManifestBytes)
	if err != nil {
		return nil, nil, err
	}
	rawConfig, err = s.readBlob(im.ID, manifest.MaxConfigBytes)
	return rawManifest, rawConfig, err
}
