package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"golang.org/x/sync/errgroup"
)

// dockerImage is one entry of the manifest.json that "docker save" writes.
type dockerImage struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

// dockerSave loads the form that Docker wrote before it wrote OCI layouts. It
// has no manifests and no digests of layers, only the config with diff IDs.
func (l *loader) dockerSave(ctx context.Context, raw []byte) ([]image.Image, error) {
	var entries []dockerImage
	if err := json.Unmarshal(raw, &entries); err != nil {
		return nil, fmt.Errorf("%w: manifest.json: %w", ErrFormat, err)
	}
	if len(entries) == 0 || len(entries) > manifest.MaxManifests {
		return nil, fmt.Errorf("%w: manifest.json lists %d images", ErrFormat, len(entries))
	}
	if l.opts.Name != "" {
		nameless := ""
		for _, e := range entries {
			if len(e.RepoTags) > 0 || e.Config == nameless {
				continue
			}
			if nameless != "" {
				return nil, ambiguous(l.opts.Name)
			}
			nameless = e.Config
		}
	}
	var out []image.Image
	for _, e := range entries {
		im, err := l.dockerImage(ctx, e)
		if err != nil {
			return out, err
		}
		out = append(out, im)
	}
	return out, nil
}

func (l *loader) dockerImage(ctx context.Context, e dockerImage) (image.Image, error) {
	var names []reference.Reference
	for _, t := range e.RepoTags {
		r, err := reference.ParseName(t)
		if err != nil {
			return image.Image{}, err
		}
		names = append(names, r)
	}
	if len(names) == 0 && l.opts.Name != "" {
		r, err := reference.ParseName(l.opts.Name)
		if err != nil {
			return image.Image{}, err
		}
		names = append(names, r)
	}
	rawConfig, err := l.document(e.Config, manifest.MaxConfigBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return image.Image{}, fmt.Errorf("%w: the config %q is missing", unpack.ErrTruncated, e.Config)
	}
	if err != nil {
		return image.Image{}, err
	}
	c, err := manifest.ParseConfig(rawConfig)
	if err == nil {
		err = l.checkPlatform(c)
	}
	if err != nil {
		return image.Image{}, err
	}
	if len(e.Layers) != len(c.RootFS.DiffIDs) {
		return image.Image{}, fmt.Errorf("%w: manifest.json lists %d layers, the config %d", manifest.ErrInvalid, len(e.Layers), len(c.RootFS.DiffIDs))
	}
	op, err := l.s.Begin() // of its own; see image
	if err != nil {
		return image.Image{}, err
	}
	defer op.Close()
	layers := make([]manifest.Descriptor, len(e.Layers))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.NumCPU()))
	for i, name := range e.Layers {
		g.Go(func() (err error) {
			layers[i], err = l.dockerLayer(gctx, op, name, c.RootFS.DiffIDs[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return image.Image{}, err
	}
	return commit(ctx, op, rawConfig, layers, names...)
}

func (l *loader) dockerLayer(ctx context.Context, op *image.Op, name string, diffID digest.Digest) (manifest.Descriptor, error) {
	r, size, err := l.files.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return manifest.Descriptor{}, fmt.Errorf("%w: the layer %q is missing", unpack.ErrTruncated, name)
	}
	if err != nil {
		return manifest.Descriptor{}, err
	}
	defer r.Close()
	// A plain layer's diff ID is its digest: it may be here already.
	if blob, err := op.HasBlob(diffID); err != nil || blob {
		unpacked, unpackedErr := op.HasLayer(diffID)
		if err := errors.Join(err, unpackedErr); err != nil {
			return manifest.Descriptor{}, err
		}
		if f, err := l.s.OpenBlob(diffID); err == nil {
			defer f.Close()
			if info, err := f.Stat(); err == nil && unpacked && info.Size() == size {
				return manifest.Descriptor{MediaType: manifest.OCILayer, Digest: diffID, Size: size}, nil
			}
		}
	}
	n, err := op.AddLayer(ctx, r, nil)
	if err != nil {
		return manifest.Descriptor{}, fmt.Errorf("layer %q: %w", name, err)
	}
	if n.DiffID != diffID {
		return manifest.Descriptor{}, fmt.Errorf("%w: layer %q has the content digest %s, the config says %s", unpack.ErrDigest, name, n.DiffID, diffID)
	}
	return n.Blob, nil
}

// commit writes a manifest for a config and layers that the store has.
func commit(ctx context.Context, op *image.Op, rawConfig []byte, layers []manifest.Descriptor, names ...reference.Reference) (image.Image, error) {
	config, err := op.AddBlob(rawConfig)
	if err != nil {
		return image.Image{}, err
	}
	raw, err := json.Marshal(manifest.Manifest{
		SchemaVersion: 2,
		MediaType:     manifest.OCIManifest,
		Config:        manifest.Descriptor{MediaType: manifest.OCIConfig, Digest: config, Size: int64(len(rawConfig))},
		Layers:        layers,
	})
	if err != nil {
		return image.Image{}, err
	}
	d, err := op.AddBlob(raw)
	if err != nil {
		return image.Image{}, err
	}
	return op.Commit(ctx, d, names...)
}
