package datadisk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// template opens the empty file system of one size, after making it when it is
// missing or damaged. The directory is locked meanwhile, so that many commands
// at once do not each make one.
func (m *maker) template(ctx context.Context, size int64) (*os.File, error) {
	path := filepath.Join(m.templates, fmt.Sprintf("ext4-1-%d", size)) // 1 is the version of what is made
	if f, err := openChecked(path, size); err == nil || !isStale(err) {
		return f, err
	}
	if err := os.MkdirAll(m.templates, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.Open(m.templates)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	if err := flock.Take(dir, syscall.LOCK_EX); err != nil { // held for milliseconds
		return nil, fmt.Errorf("lock %s: %w", m.templates, err)
	}
	f, err := openChecked(path, size)
	if err == nil || !isStale(err) {
		return f, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if err := create(path, size, func(f *os.File) error { return format(ctx, f) }); err != nil {
		return nil, err
	}
	return openChecked(path, size)
}

func isStale(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, errNoFileSystem)
}

func openChecked(path string, size int64) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := check(f, size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
