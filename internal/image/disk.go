package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/erofs"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A disk is derived from a chain of layers: what overlayfs would show over them
// as one EROFS image, made by the first command that wants it.
//
//	disks/HEX/lock         flock: held by whoever makes the image
//	disks/HEX/image.erofs  complete, and synced, when it is there
//
// HEX is the disk ID. Only who has pinned the ID enters the directory, so the
// lock cannot be collected while somebody waits for it.

const (
	diskLock  = "lock"
	diskImage = "image.erofs"
)

// DefaultDiskBytes bounds the disk of one image, holes included.
const DefaultDiskBytes = 64 << 30

// ErrDiskLimit is wrapped when an image needs a larger disk than allowed.
var ErrDiskLimit = errors.New("image exceeds the disk limit")

// WithDiskLimit replaces DefaultDiskBytes. Zero means the default.
func WithDiskLimit(bytes int64) Option {
	return func(s *Store) {
		if bytes > 0 {
			s.diskBytes = bytes
		}
	}
}

// Disk is an image as a read-only disk for a virtual machine.
type Disk struct {
	Path string // absolute; an EROFS image, 4 KiB blocks, not compressed
	Size int64  // bytes, of which holes need no room
	// MaxID is the largest user or group ID that owns a file in it.
	MaxID uint32
}

// Disk returns the image with img.Digest as one file: the tree that overlayfs
// shows over its layers. The first call makes it while others wait; it stays
// until release is called, and afterwards as long as the image does. progress
// may be nil; while the disk is made it is told how many bytes are written.
//
// Who uses the file after release must by then be known to InUse. The file is
// never written again, but one that is found damaged is replaced.
func (s *Store) Disk(ctx context.Context, img workload.Image, progress func(written int64)) (d Disk, release func(), err error) {
	im, err := s.Resolve(img.Digest)
	if err != nil {
		return Disk{}, nil, fmt.Errorf("image %s: %w", img.Reference, err)
	}
	chain, err := s.Layers(ctx, im)
	if err != nil {
		return Disk{}, nil, fmt.Errorf("image %s: %w", img.Reference, err)
	}
	release = func() { chain.Release() } // what it leaves, the next Open clears
	d, err = s.disk(ctx, chain, im, progress)
	if err != nil {
		release()
		return Disk{}, nil, fmt.Errorf("make the disk of image %s: %w", img.Reference, s.explain(err))
	}
	return d, release, nil
}

func (s *Store) disk(ctx context.Context, chain *Chain, im Image, progress func(int64)) (Disk, error) {
	if len(im.Layers) == 0 {
		return Disk{}, errors.New("it has no layers")
	}
	id := diskID(im.Layers)
	if err := chain.op.pin(id); err != nil {
		return Disk{}, err
	}
	d := Disk{Path: s.path("disks", id.Encoded(), diskImage), MaxID: chain.MaxID}
	var err error
	if d.Size, err = checkDisk(d.Path, id); needsDisk(err) {
		d.Size, err = s.makeDisk(ctx, chain, id, progress)
	}
	if err == nil && d.Size > s.diskBytes {
		err = fmt.Errorf("%w: it has %d bytes, at most %d are allowed", ErrDiskLimit, d.Size, s.diskBytes)
	}
	return d, err
}

// diskID names the disk of a stack of layers. Its number changes with what is
// written for the same layers.
func diskID(layers []Layer) digest.Digest {
	return digest.FromString("erofs 1 " + string(chainID(layers)))
}

// diskUUID is what the disk's file system carries, so that a file in the wrong
// place is found.
func diskUUID(id digest.Digest) [16]byte {
	sum := sha256.Sum256([]byte(id))
	return [16]byte(sum[:16])
}

// checkDisk returns the size of a disk that is whole as far as its superblock
// tells.
func checkDisk(path string, id digest.Digest) (int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := erofs.Check(f)
	if err == nil && info.UUID != diskUUID(id) {
		err = fmt.Errorf("%w: %s is another image", erofs.ErrDamaged, path)
	}
	return info.Size, err
}

func needsDisk(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, erofs.ErrDamaged)
}

// makeDisk makes the disk, unless another process did so meanwhile.
//
// Precondition: the disk's ID is pinned.
func (s *Store) makeDisk(ctx context.Context, chain *Chain, id digest.Digest, progress func(int64)) (int64, error) {
	dir := s.path("disks", id.Encoded())
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return 0, err
	}
	unlock, err := flock.Open(ctx, filepath.Join(dir, diskLock), syscall.O_NOFOLLOW, nil)
	if err != nil {
		return 0, err
	}
	defer unlock()
	path := filepath.Join(dir, diskImage)
	size, err := checkDisk(path, id)
	if !needsDisk(err) {
		return size, err
	}
	f, err := chain.op.TempFile()
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if size, err = s.writeDisk(ctx, f, chain, id, progress); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return 0, errors.Join(err, os.Remove(f.Name())) // it may hold the room that others need
	}
	if err := syncDir(dir); err != nil {
		return 0, err
	}
	return size, syncDir(s.path("disks"))
}

// writeDisk fills f and syncs it.
func (s *Store) writeDisk(ctx context.Context, f *os.File, chain *Chain, id digest.Digest, progress func(int64)) (int64, error) {
	scratch, err := chain.op.TempFile()
	if err != nil {
		return 0, err
	}
	defer scratch.Close()
	if err := os.Remove(scratch.Name()); err != nil {
		return 0, err
	}
	size, err := erofs.Write(ctx, f, chain.Dirs, erofs.Options{
		Root: chain.Root, MaxBytes: s.diskBytes, UUID: diskUUID(id), Scratch: scratch, Progress: progress,
	})
	if errors.Is(err, erofs.ErrLimit) {
		return 0, fmt.Errorf("%w: %w", ErrDiskLimit, err)
	}
	if err != nil {
		return 0, err
	}
	if err := f.Chmod(0o400); err != nil {
		return 0, err
	}
	return size, f.Sync()
}

// diskUsage returns how many bytes a disk takes, 0 when there is none.
func (s *Store) diskUsage(hex string) int64 {
	var st syscall.Stat_t
	if syscall.Lstat(s.path("disks", hex, diskImage), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}
