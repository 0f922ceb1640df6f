package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// Chain is the unpacked form of an image, held against removal until Release.
type Chain struct {
	// Dirs are the directories that overlayfs stacks, lowest first. There may
	// be more than the image has layers (mend.go), or fewer when a layer
	// hides all below it.
	Dirs []string
	// Root is the directory of Dirs whose attributes the root of the image
	// has, empty when no layer says. Overlayfs takes those of the topmost
	// directory, so whoever mounts copies them to the upper one. The last of
	// Dirs has the same mode and owner; only times may differ.
	Root string
	// MaxID is the largest user or group ID that owns a file: a user namespace
	// must map it, or the file is nobody's inside.
	MaxID uint32

	op *Op
}

// Release gives the chain back to removal and pruning. A workload that goes on
// using the directories must by then be known to InUse.
func (c *Chain) Release() error { return c.op.Close() }

// Layers returns the unpacked layers of an image and unpacks what is missing,
// several at a time. The caller must Release the chain.
func (s *Store) Layers(ctx context.Context, im Image) (_ *Chain, err error) {
	op, err := s.Begin()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, op.Close())
		}
	}()
	var pins []digest.Digest
	for i, l := range im.Layers {
		pins = append(pins, l.Digest, l.DiffID, chainID(im.Layers[:i+1]))
	}
	if err := op.pin(append(pins, im.Digest, im.ID)...); err != nil {
		return nil, err
	}
	// A removal may have come between Resolve and the pins. The table decides:
	// single blobs may be back already, brought by a pull under way.
	t, err := s.readTable()
	if err != nil {
		return nil, err
	}
	if t.find(im.Digest) == nil {
		return nil, fmt.Errorf("%w: %s was removed meanwhile", ErrNotFound, im.ShortID())
	}
	if err := op.unpackMissing(ctx, im); err != nil {
		return nil, err
	}
	return s.chain(ctx, op, im)
}

func (o *Op) unpackMissing(ctx context.Context, im Image) error {
	missing := false
	for _, l := range im.Layers {
		_, err := os.Lstat(filepath.Join(o.s.layerPath(l.DiffID), metaFile))
		missing = missing || err != nil
	}
	if !missing {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, runtime.NumCPU()))
	for _, l := range im.Layers {
		g.Go(func() error { return o.Unpack(ctx, l.Digest, l.DiffID, nil) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return o.Publish()
}

// chain lists the directories, mending those chains that need it.
func (s *Store) chain(ctx context.Context, op *Op, im Image) (*Chain, error) {
	c := &Chain{op: op}
	count := &lookUps{ctx: ctx, most: s.lookUps}
	for i, l := range im.Layers {
		m, err := s.layerMeta(l.DiffID)
		if err != nil {
			return nil, err
		}
		tree := filepath.Join(s.layerPath(l.DiffID), treeDir)
		c.MaxID = max(c.MaxID, m.MaxID)
		if m.Opaque {
			c.Dirs = nil
		}
		lower := c.Dirs
		c.Dirs = append(c.Dirs, tree)
		if m.Root || m.Opaque && c.Root == "" {
			c.Root = tree
		}
		root, err := c.rootToMend(tree)
		if err != nil {
			return nil, err
		}
		if root == "" && (len(lower) == 0 || !m.Implied) {
			continue
		}
		mended, err := s.mend(op, chainID(im.Layers[:i+1]), mender{
			own: tree, implied: filepath.Join(s.layerPath(l.DiffID), impliedFile), lower: lower, root: root, lookUps: count,
		})
		if err != nil {
			return nil, s.explain(err)
		}
		if mended != "" {
			c.Dirs = append(c.Dirs, mended)
		}
	}
	return c, nil
}

// rootToMend returns c.Root when the directory top, which has no entry for the
// root, differs from it in more than times.
func (c *Chain) rootToMend(top string) (string, error) {
	if c.Root == "" || c.Root == top {
		return "", nil
	}
	want, err := os.Lstat(c.Root)
	if err != nil {
		return "", err
	}
	have, err := os.Lstat(top)
	if err != nil {
		return "", err
	}
	a, b := want.Sys().(*syscall.Stat_t), have.Sys().(*syscall.Stat_t)
	if a.Mode == b.Mode && a.Uid == b.Uid && a.Gid == b.Gid {
		return "", nil
	}
	return c.Root, nil
}

// mendAll does the work of chain for an image that is about to be committed.
func (s *Store) mendAll(ctx context.Context, op *Op, im Image) error {
	for i := range im.Layers {
		if err := op.pin(chainID(im.Layers[:i+1])); err != nil {
			return err
		}
	}
	_, err := s.chain(ctx, op, im)
	return err
}

// chainID names a stack of layers (image-spec, config.md, "Layer ChainID").
func chainID(layers []Layer) digest.Digest {
	id := layers[0].DiffID
	for _, l := range layers[1:] {
		id = digest.FromString(string(id) + " " + string(l.DiffID))
	}
	return id
}
