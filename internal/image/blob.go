package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/filetree"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
)

// blobWriter writes one blob into the operation's directory and hashes it on
// the way. Commit makes it visible under its digest.
type blobWriter struct {
	o    *Op
	f    *os.File
	sum  hash.Hash
	size int64
}

func (o *Op) newBlob() (*blobWriter, error) {
	f, err := os.CreateTemp(o.dir, "blob-")
	if err != nil {
		return nil, o.s.explain(err)
	}
	return &blobWriter{o: o, f: f, sum: sha256.New()}, nil
}

func (w *blobWriter) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.sum.Write(p[:n])
	w.size += int64(n)
	return n, w.o.s.explain(err)
}

// digest is that of all that was written.
func (w *blobWriter) digest() digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(w.sum.Sum(nil)))
}

// commit syncs the blob and renames it to its place.
func (w *blobWriter) commit() (digest.Digest, error) {
	d := w.digest()
	if err := w.o.pin(d); err != nil {
		return "", err
	}
	if err := w.f.Sync(); err != nil {
		return "", w.o.s.explain(err)
	}
	if err := os.Rename(w.f.Name(), w.o.s.blobPath(d)); err != nil {
		return "", w.o.s.explain(err)
	}
	w.o.mu.Lock()
	w.o.added = true
	w.o.mu.Unlock()
	return d, syncDir(filepath.Dir(w.o.s.blobPath(d)))
}

// Close gives the descriptor back, and the file unless it was committed.
func (w *blobWriter) Close() error {
	err := os.Remove(w.f.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, w.f.Close())
}

// WriteBlob stores what open returns under the digest d, after checking that
// it has this digest and exactly size bytes; nothing is read when the store
// has the blob already. Errors wrap unpack.ErrDigest, unpack.ErrTruncated or
// unpack.ErrLimit where the content is to blame. What open returns need not heed the
// context.
func (o *Op) WriteBlob(ctx context.Context, d digest.Digest, size int64, open func() (io.ReadCloser, error)) error {
	have, err := o.HasBlob(d)
	if err != nil || have {
		return err
	}
	if limit := o.s.blobLimit(); size > limit {
		return fmt.Errorf("%w: blob %s has %d bytes, at most %d are taken", unpack.ErrLimit, d, size, limit)
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := o.newBlob()
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := io.Copy(w, io.LimitReader(filetree.Until(ctx, r), size+1)); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("%w: blob %s ends after %d of %d bytes", unpack.ErrTruncated, d, w.size, size)
		}
		return fmt.Errorf("blob %s: %w", d, err)
	}
	if w.size < size {
		return fmt.Errorf("%w: blob %s ends after %d of %d bytes", unpack.ErrTruncated, d, w.size, size)
	}
	if w.size > size {
		return fmt.Errorf("%w: blob %s is longer than its %d bytes", unpack.ErrDigest, d, size)
	}
	if got := w.digest(); got != d {
		return fmt.Errorf("%w: blob %s has the digest %s", unpack.ErrDigest, d, got)
	}
	_, err = w.commit()
	return err
}

// AddBlob stores a document made here and returns its digest.
func (o *Op) AddBlob(p []byte) (digest.Digest, error) {
	d := digest.FromBytes(p)
	have, err := o.HasBlob(d)
	if err != nil || have {
		return d, err
	}
	w, err := o.newBlob()
	if err != nil {
		return "", err
	}
	defer w.Close()
	if _, err := w.Write(p); err != nil {
		return "", err
	}
	return w.commit()
}

// CheckSizes refuses an image whose layers, as they are stored, take more than
// one image may, before any of them is fetched.
func (s *Store) CheckSizes(m *manifest.Manifest) error {
	left := s.imageBytes
	for _, l := range m.Layers {
		if left -= min(l.Size, s.imageBytes); left < 0 {
			return fmt.Errorf("%w: the image's layers have more than %d bytes", unpack.ErrLimit, s.imageBytes)
		}
	}
	return nil
}

func (s *Store) blobLimit() int64 {
	if s.limits.Bytes > 0 {
		return s.limits.Bytes
	}
	return unpack.DefaultBytes
}
