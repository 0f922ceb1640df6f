// Package datadisk makes the writable disks of virtual machines: sparse files
// with an empty ext4 file system.
//
// mkfs.ext4 of e2fsprogs makes the file system, with features that are written
// down here, whatever the host's mke2fs.conf says. That takes some ten
// milliseconds, so one of each size may be kept and copied (Templates); the
// copies have one UUID in common, which no guest can tell, since it has one.
//
// The disk is a new file, so nothing in it needs to be zeroed: the guest's
// kernel is told so and does not fill the file with zeros in the background.
package datadisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Bounds of a disk's size, in bytes. The upper one is the largest file that
// ext4 holds with blocks of 4 KiB (ext4(5)).
const (
	MinBytes = 16 << 20
	MaxBytes = 16<<40 - blockSize
)

var (
	// ErrSize is wrapped when a size is out of bounds.
	ErrSize = errors.New("disk size out of range")
	// ErrNoProgram is wrapped when mkfs.ext4 is not installed.
	ErrNoProgram = errors.New("mkfs.ext4 is not installed (package e2fsprogs)")
)

// Option changes how a disk is made.
type Option func(*maker)

type maker struct{ templates string }

// Templates names a directory, made with mode 0700 when missing, where an empty
// file system of each size is kept, so that the next disk of that size is a
// copy. It may be removed at any time.
func Templates(dir string) Option { return func(m *maker) { m.templates = dir } }

// Make makes the file path, which must not exist, with an ext4 file system of
// size bytes, mode 0600. It takes under a megabyte until something is written
// into it. The file appears whole and synced, or not at all. A power cut may
// take the name away until the caller syncs the directory.
//
// Errors wrap ErrSize, ErrNoProgram, os.ErrExist or what the system said.
func Make(ctx context.Context, path string, size int64, opts ...Option) error {
	var m maker
	for _, o := range opts {
		o(&m)
	}
	if size < MinBytes || size > MaxBytes {
		return fmt.Errorf("make disk %s: %w: %d bytes, it takes %d to %d", path, ErrSize, size, int64(MinBytes), int64(MaxBytes))
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("make disk: %w", &os.PathError{Op: "create", Path: path, Err: os.ErrExist})
	}
	if err := m.make(ctx, path, size); err != nil {
		return fmt.Errorf("make disk %s of %d bytes: %w", path, size, err)
	}
	return nil
}

func (m *maker) make(ctx context.Context, path string, size int64) error {
	if m.templates == "" {
		return create(path, size, func(f *os.File) error { return format(ctx, f) })
	}
	t, err := m.template(ctx, size)
	if err != nil {
		return err
	}
	defer t.Close()
	return create(path, size, func(f *os.File) error { return at.CopyData(f, t, size) })
}

// create makes a sparse file that gets its name when fill and a sync are done.
func create(path string, size int64, fill func(*os.File) error) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	fd, err := at.CreateUnnamed(int(dir.Fd()), 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := fill(f); err != nil {
		return err
	}
	if err := check(f, size); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return at.LinkUnnamed(int(f.Fd()), int(dir.Fd()), filepath.Base(path))
}
