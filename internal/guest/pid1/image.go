package pid1

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// imageDir holds the mount point of each image.
const imageDir = "/run/bulkhead/images"

// images are the image disks that are mounted. One disk is mounted once,
// however many workloads use it, so that they share the page cache.
//
//	(unused) ──first acquire──▶ mounted, uses 1 ◀──acquire, release──▶ uses n
//	    ▲                            │
//	    └────────last release────────┘
type images struct {
	mu   sync.Mutex
	open map[string]*image // by serial
}

type image struct {
	dir, device string
	uses        int
}

// acquire returns the directory of an image, mounted, and what gives it back.
// The host may put another image behind the disk only after the last release.
func (s *images) acquire(serial string) (dir string, release func() error, err error) {
	if !safeSerial(serial) {
		return "", nil, fmt.Errorf("image disk %.40q: want letters and digits", serial)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.open[serial]
	if m == nil {
		if m, err = mountImage(serial); err != nil {
			return "", nil, fmt.Errorf("image disk %q: %w", serial, err)
		}
		if s.open == nil {
			s.open = map[string]*image{}
		}
		s.open[serial] = m
	}
	m.uses++
	var once sync.Once
	return m.dir, func() (err error) {
		once.Do(func() { err = s.release(serial, m) })
		return err
	}, nil
}

func (s *images) release(serial string, m *image) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.uses--; m.uses > 0 {
		return nil
	}
	delete(s.open, serial)
	// A mount that is still busy may not stay at its place, where the next
	// image of this disk would be mounted over it.
	err := unix.Unmount(m.dir, 0)
	if err != nil {
		err = &os.PathError{Op: "unmount", Path: m.dir, Err: err}
		if e := unix.Unmount(m.dir, unix.MNT_DETACH); e != nil {
			return err
		}
	}
	return errors.Join(err, flush(m.device), os.Remove(m.dir))
}

// serials are the disks that are mounted.
func (s *images) serials() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.open))
}

func mountImage(serial string) (*image, error) {
	device, err := findDisk(serial)
	if err != nil {
		return nil, err
	}
	if err := flush(device); err != nil {
		return nil, err
	}
	dir := filepath.Join(imageDir, serial)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// nodev: what an image says is a device is one for nobody.
	if err := unix.Mount(device, dir, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		os.Remove(dir)
		return nil, fmt.Errorf("mount %s as EROFS: %w", device, err)
	}
	return &image{dir: dir, device: device}, nil
}

// safeSerial tells whether a serial number can be the name of a directory.
func safeSerial(s string) bool {
	return s != "" && len(s) <= maxSerial && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
