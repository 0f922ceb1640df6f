// Package image is the store of images: blobs by their digest, a table of
// references, and each layer unpacked once for all images that have it.
//
//	images/
//	  lock               flock: exclusive while the table or the set of files
//	                     that exist is changed, shared while a file is pinned
//	  index.reserve      room for removing images on a disk that is full
//	  index.json         the table: which manifests are images, and their names
//	  blobs/sha256/HEX   manifests, configs and layers as they came
//	  layers/HEX/fs      a layer unpacked, HEX being its diff ID
//	  layers/HEX/meta.json
//	  layers/HEX/blobs/BLOB  empty: the blob was seen to hold this layer
//	  mended/HEX/        directories of one chain of layers (mend.go)
//	  tmp/op-*/          one directory for each operation under way
//
// Everything becomes visible by one rename of something complete and synced.
// An operation owns a directory in tmp/ and holds a flock on the file "pins"
// in it, which lists the digests that it relies on. The kernel drops the lock
// when the process dies, however it dies; whoever opens the store next removes
// the directory. What is neither reached from the table nor pinned is garbage.
//
// All state is below the one directory, mode 0700: layers hold setuid files
// and device nodes that no other user may reach (CVE-2021-41091).
package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
)

// Errors that callers branch on.
var (
	ErrNotFound  = errors.New("no such image")
	ErrAmbiguous = errors.New("more than one image matches")
	ErrInUse     = errors.New("image is in use")
	ErrDamaged   = errors.New("image store is damaged")
)

// errNeedsRoot says why the kernel refused. In a user namespace of its own the
// store could not set the attributes that overlayfs trusts either.
var errNeedsRoot = errors.New("unpacking layers needs root on this host, for owners, devices and trusted attributes")

// Store is the image store of one state root. Its methods may be called by
// any number of goroutines and processes at a time.
type Store struct {
	dir        string
	limits     unpack.Limits
	imageBytes int64
	diskBytes  int64
	lookUps    int
}

// Option changes how a store is opened.
type Option func(*Store)

// WithLimits replaces the limits on what one layer, and on how many bytes the
// layers and the unpacked files of one image, may cost. Zero values mean the defaults.
func WithLimits(layer unpack.Limits, imageBytes int64) Option {
	return func(s *Store) {
		s.limits = layer
		if imageBytes > 0 {
			s.imageBytes = imageBytes
		}
	}
}

// ArchiveLimits are those of an archive of images as a stream.
func (s *Store) ArchiveLimits() unpack.Limits {
	l := s.limits
	l.Bytes = s.imageBytes
	return l
}

// Open opens the store below the state root, makes it when it is missing, and
// clears away what killed operations left. It is cheap when there is nothing
// to do: the command line calls it for every run.
func Open(root string, opts ...Option) (*Store, error) {
	s := &Store{dir: filepath.Join(root, "images"), imageBytes: unpack.DefaultImageBytes, diskBytes: DefaultDiskBytes, lookUps: DefaultLookUps}
	for _, o := range opts {
		o(s)
	}
	if err := s.makeDirs(); err != nil {
		return nil, fmt.Errorf("open image store: %w", err)
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("clean image store: %w", err)
	}
	return s, nil
}

func (s *Store) makeDirs() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(s.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return &os.PathError{Op: "open", Path: s.dir, Err: syscall.ENOTDIR}
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to user %d", s.dir, st.Uid)
	}
	if info.Mode().Perm() != 0o700 {
		if err := os.Chmod(s.dir, 0o700); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(s.path("disks")); err == nil {
		return nil // made last
	}
	for _, d := range []string{"blobs", "blobs/sha256", "layers", "mended", "tmp", "disks"} {
		if err := os.Mkdir(s.path(d), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// blobPath is where a blob lies.
//
// Precondition: d went through manifest.CheckDigest.
func (s *Store) blobPath(d digest.Digest) string { return s.path("blobs", "sha256", d.Encoded()) }

func (s *Store) layerPath(diffID digest.Digest) string { return s.path("layers", diffID.Encoded()) }

// OpenBlob opens a blob for reading. The content was verified when it was
// written. The caller closes it.
func (s *Store) OpenBlob(d digest.Digest) (*os.File, error) {
	if err := manifest.CheckDigest(d); err != nil {
		return nil, err
	}
	return os.Open(s.blobPath(d))
}

// readBlob reads a small document and verifies it, which finds damage before
// it is believed.
func (s *Store) readBlob(d digest.Digest, limit int64) ([]byte, error) {
	f, err := s.OpenBlob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := manifest.ReadAll(f, limit)
	if err != nil {
		return nil, err
	}
	if digest.FromBytes(raw) != d {
		return nil, fmt.Errorf("%w: blob %s does not have its digest", ErrDamaged, d)
	}
	return raw, nil
}

// explain adds to an error of the system what a person can do about it: which
// disk is full, or that root is needed.
func (s *Store) explain(err error) error {
	if errors.Is(err, syscall.EPERM) && !errors.Is(err, errNeedsRoot) {
		return fmt.Errorf("%w: %w", errNeedsRoot, err)
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("no space left for the image store %s: %w", s.dir, err)
	}
	return err
}

// syncDir makes renames within a directory durable.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
