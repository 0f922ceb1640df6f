// Package datadisk makes the writable disks of virtual machines: sparse files
// with an empty ext4 file system.
package datadisk

import (
	"context"
	"errors"
)

// Bounds of a disk's size, in bytes. The upper one is the largest file on ext4.
const (
	MinBytes = 64 << 20
	MaxBytes = 16<<40 - 4096
)

// ErrSize is wrapped when a size is out of bounds.
var ErrSize = errors.New("disk size out of range")

// Option changes how a disk is made.
type Option func(*maker)

type maker struct{ templates string }

// Templates names a directory, made when missing, where an empty file system
// of each size is kept, so that the next disk of that size is a copy.
func Templates(dir string) Option { return func(m *maker) { m.templates = dir } }

// Make makes the file path, which must not exist, with an ext4 file system of
// size bytes. It occupies under a megabyte until something is written into it.
// The file appears whole or not at all.
func Make(ctx context.Context, path string, size int64, opts ...Option) error {
	return errors.ErrUnsupported
}
