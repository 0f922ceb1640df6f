package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// layerMeta is what the store remembers of an unpacked layer.
type layerMeta struct {
	Bytes   int64  `json:"bytes"`   // of regular files
	Entries int    `json:"entries"` // of the archive
	MaxID   uint32 `json:"maxID"`   // the largest user or group ID of a file's owner
	// Root is set when the archive has an entry for the root directory.
	Root bool `json:"root,omitempty"`
	// Opaque is set when the layer hides all layers below.
	Opaque bool `json:"opaque,omitempty"`
	// Implied is set when implied.json lists directories without an entry.
	Implied bool `json:"implied,omitempty"`
}

const (
	metaFile    = "meta.json"
	impliedFile = "implied.json"
	treeDir     = "fs"
	blobsDir    = "blobs"
)

func (s *Store) layerMeta(diffID digest.Digest) (layerMeta, error) {
	var m layerMeta
	raw, err := os.ReadFile(filepath.Join(s.layerPath(diffID), metaFile))
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return m, fmt.Errorf("%w: layer %s: %w", ErrDamaged, diffID, err)
	}
	return m, nil
}

// HasLayer pins an unpacked layer and reports whether the store has it.
func (o *Op) HasLayer(diffID digest.Digest) (bool, error) {
	if err := manifest.CheckDigest(diffID); err != nil {
		return false, err
	}
	if err := o.pin(diffID); err != nil {
		return false, err
	}
	_, err := os.Lstat(filepath.Join(o.s.layerPath(diffID), metaFile))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// blobOf is a blob and the diff ID of the layer that it holds, or is said to hold.
type blobOf struct{ blob, diffID digest.Digest }

// Unpack unpacks a layer that the store has as a blob, unless it is unpacked
// already, and checks that the blob has the diff ID. A layer that is unpacked may
// come as another blob, by which it would be saved and pushed: one that the store
// has not yet seen to hold this layer is read and hashed.
//
// The result is seen by others only after Publish. Asked for the same layer again,
// or meanwhile, it does nothing. progress may be nil; it is told how many bytes of
// the plain archive were read. Errors wrap unpack.ErrDigest when the blob is not
// what the diff ID says.
func (o *Op) Unpack(ctx context.Context, blob, diffID digest.Digest, progress func(int64)) error {
	pair := blobOf{blob, diffID}
	o.mu.Lock()
	taken := o.taken[pair] // the image has the same layer twice
	o.taken[pair] = true
	o.mu.Unlock()
	if taken {
		return nil
	}
	have, err := o.HasLayer(diffID)
	if err != nil {
		return err
	}
	if have {
		m, err := o.s.layerMeta(diffID)
		if err != nil {
			return err
		}
		if err := o.budget.Take(m.Bytes + int64(m.Entries)*unpack.EntryBytes); err != nil {
			return err
		}
		return o.prove(ctx, pair, progress)
	}
	f, err := o.s.OpenBlob(blob)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = o.stage(ctx, f, diffID, progress); err != nil {
		return fmt.Errorf("unpack layer %s: %w", blob, err)
	}
	o.found(pair)
	return nil
}

// prove makes sure that a blob holds the layer with a diff ID.
func (o *Op) prove(ctx context.Context, pair blobOf, progress func(int64)) error {
	o.mu.Lock()
	proven := o.proven[pair]
	o.mu.Unlock()
	if proven {
		return nil
	}
	if _, err := os.Lstat(o.s.proofPath(pair)); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := o.s.OpenBlob(pair.blob)
	if err != nil {
		return err
	}
	defer f.Close()
	got, err := unpack.DiffID(ctx, f, unpack.Options{Limits: o.s.limits, Progress: progress})
	if err == nil && got != pair.diffID {
		err = wrongDiffID(got, pair.diffID)
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", pair.blob, err)
	}
	o.found(pair)
	return nil
}

func (o *Op) found(pair blobOf) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.proven[pair] = true
}

func (s *Store) proofPath(p blobOf) string {
	return filepath.Join(s.layerPath(p.diffID), blobsDir, p.blob.Encoded())
}

// record keeps for later operations what this one has found out. It is not synced:
// what is lost is found out again.
//
// Precondition: o.mu is held.
func (o *Op) record() error {
	for p := range o.proven {
		path := o.s.proofPath(p)
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return o.s.explain(err)
		}
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
		if err != nil {
			return o.s.explain(err)
		}
		f.Close()
		delete(o.proven, p)
	}
	return nil
}

func wrongDiffID(got, want digest.Digest) error {
	return fmt.Errorf("%w: the layer's content has the digest %s, the image says %s", unpack.ErrDigest, got, want)
}

// stage unpacks r into the operation's directory. An empty want takes any diff
// ID. On an error nothing of it is left.
func (o *Op) stage(ctx context.Context, r io.Reader, want digest.Digest, progress func(int64)) (res unpack.Result, err error) {
	dir, err := os.MkdirTemp(o.dir, "layer-")
	if err != nil {
		return res, o.s.explain(err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(o.s.explain(err), os.RemoveAll(dir))
		}
	}()
	root := filepath.Join(dir, treeDir)
	if err := os.Mkdir(root, 0o700); err != nil {
		return res, err
	}
	f, err := os.Open(root)
	if err != nil {
		return res, err
	}
	defer f.Close()
	res, err = unpack.Layer(ctx, f, r, unpack.Options{Limits: o.s.limits, Budget: o.budget, Progress: progress})
	if err != nil {
		return res, err
	}
	if want != "" && res.DiffID != want {
		return res, wrongDiffID(res.DiffID, want)
	}
	if err := writeMeta(dir, res); err != nil {
		return res, err
	}
	if err := o.pin(res.DiffID); err != nil {
		return res, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.staged[res.DiffID] {
		return res, os.RemoveAll(dir) // the image has the same layer twice
	}
	if err := os.Rename(dir, filepath.Join(o.dir, "staged-"+res.DiffID.Encoded())); err != nil {
		return res, err
	}
	o.staged[res.DiffID] = true
	return res, nil
}

func writeMeta(dir string, res unpack.Result) error {
	m := layerMeta{Bytes: res.Bytes, Entries: res.Entries, MaxID: res.MaxID, Root: true, Opaque: res.RootOpaque}
	implied := res.Implied
	if len(implied) > 0 && implied[0] == "." {
		m.Root = false
		implied = implied[1:]
	}
	m.Implied = len(implied) > 0
	if m.Implied {
		if err := writeJSON(filepath.Join(dir, impliedFile), implied); err != nil {
			return err
		}
	}
	return writeJSON(filepath.Join(dir, metaFile), m)
}

func writeJSON(path string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, raw, 0o600)
}

// Publish makes the layers that were unpacked visible to everybody. All of
// them are synced together, by one syncfs: a sync for each file would cost
// more than the unpacking.
func (o *Op) Publish() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.staged) == 0 {
		return o.record()
	}
	layers, err := os.Open(o.s.path("layers"))
	if err != nil {
		return err
	}
	defer layers.Close()
	if err := at.Syncfs(layers); err != nil {
		return o.s.explain(err)
	}
	for d := range o.staged {
		if err := o.place(d); err != nil {
			return o.s.explain(err)
		}
		delete(o.staged, d)
	}
	if err := o.record(); err != nil {
		return err
	}
	return layers.Sync()
}

// place moves a layer that was unpacked to where it belongs, unless another process that
// unpacked the same was faster. What lies there without metaFile somebody was removing
// when he died (removeHere).
func (o *Op) place(d digest.Digest) error {
	staged, path := filepath.Join(o.dir, "staged-"+d.Encoded()), o.s.layerPath(d)
	move := func() (taken bool, err error) {
		err = os.Rename(staged, path)
		if errors.Is(err, os.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
			return true, nil
		}
		return false, err
	}
	half := func() (bool, error) {
		_, err := os.Lstat(filepath.Join(path, metaFile))
		if errors.Is(err, os.ErrNotExist) {
			return true, nil
		}
		return false, err
	}
	if taken, err := move(); err != nil || !taken {
		return err
	}
	if is, err := half(); err != nil || !is {
		return err
	}
	unlock, err := o.s.lock(syscall.LOCK_EX) // only its holder takes anything away
	if err != nil {
		return err
	}
	defer unlock()
	if is, err := half(); err != nil || !is {
		return err
	}
	if err := o.discard(path); err != nil {
		return err
	}
	_, err = move()
	return err
}

// NewLayer describes a layer that AddLayer stored.
type NewLayer struct {
	Blob   manifest.Descriptor
	DiffID digest.Digest
}

// AddLayer stores and unpacks an archive whose digests are not known, in one
// pass: hashing, decompression and unpacking run side by side. r may be plain
// or compressed with gzip or zstd, and is stored as it is.
func (o *Op) AddLayer(ctx context.Context, r io.Reader, progress func(int64)) (NewLayer, error) {
	w, err := o.newBlob()
	if err != nil {
		return NewLayer{}, err
	}
	defer w.Close()
	limited := &limitReader{r: r, left: o.s.blobLimit()}
	head := &headWriter{}
	tee := io.TeeReader(limited, io.MultiWriter(w, head))
	res, err := o.stage(ctx, tee, "", progress)
	if err != nil {
		return NewLayer{}, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return NewLayer{}, err
	}
	if w.size == 0 {
		// tar takes it for an archive of nothing, but it is what a pipe brings
		// whose writer failed.
		return NewLayer{}, fmt.Errorf("%w: nothing came", unpack.ErrTruncated)
	}
	mediaType := map[unpack.Compression]string{
		unpack.Plain: manifest.OCILayer, unpack.Gzip: manifest.OCILayerGzip, unpack.Zstd: manifest.OCILayerZstd,
	}[unpack.Detect(head.p)]
	d, err := w.commit()
	if err != nil {
		return NewLayer{}, err
	}
	o.found(blobOf{d, res.DiffID})
	return NewLayer{Blob: manifest.Descriptor{MediaType: mediaType, Digest: d, Size: w.size}, DiffID: res.DiffID}, nil
}

// limitReader fails where io.LimitReader would feign the end.
type limitReader struct {
	r    io.Reader
	left int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n, fmt.Errorf("%w: the archive is too long", unpack.ErrLimit)
	}
	return n, err
}

// headWriter keeps the first bytes.
type headWriter struct{ p []byte }

func (h *headWriter) Write(p []byte) (int, error) {
	if room := 8 - len(h.p); room > 0 {
		h.p = append(h.p, p[:min(room, len(p))]...)
	}
	return len(p), nil
}
