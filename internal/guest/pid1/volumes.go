package pid1

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/seed-f5e3b97b/bulkhead/internal/guest/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// volumeDir holds the mount point of each volume.
const volumeDir = "/run/bulkhead/volumes"

// volumes are those that are mounted, by name.
//
//	(none) ──attach──▶ mounting ──▶ mounted ──conn ends──▶ (none)
type volumes struct {
	mu      sync.Mutex
	mounted map[string]string // name to directory, "" while it is being mounted
}

// attach mounts a volume. A name is used by one at a time.
func (v *volumes) attach(name string, conn io.ReadWriteCloser) error {
	if !safeName(name) {
		return fmt.Errorf("volume %.80q: want letters, digits and hyphens", name)
	}
	v.mu.Lock()
	if v.mounted == nil {
		v.mounted = map[string]string{}
	}
	_, taken := v.mounted[name]
	if !taken {
		v.mounted[name] = ""
	}
	v.mu.Unlock()
	if taken {
		return fmt.Errorf("volume %s is attached already", name)
	}
	dir := filepath.Join(volumeDir, name)
	watched := &watchedConn{ReadWriteCloser: conn, ended: make(chan struct{})}
	unmount, err := mountVolume(dir, watched)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		delete(v.mounted, name)
		return fmt.Errorf("volume %s: %w", name, err)
	}
	v.mounted[name] = dir
	go func() { // ends with conn, which the session ends
		<-watched.ended
		if err := unmount(); err != nil {
			Log("unmount volume %s: %v", name, err)
		}
		if err := os.Remove(dir); err != nil {
			Log("volume %s: %v", name, err)
		}
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.mounted, name)
	}()
	return nil
}

func mountVolume(dir string, conn io.ReadWriteCloser) (unmount func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unmount, err = volume.Mount(dir, conn, volume.Options{})
	if err != nil {
		os.Remove(dir)
		return nil, err
	}
	return unmount, nil
}

// dir returns where a volume is mounted.
func (v *volumes) dir(name string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir := v.mounted[name]
	if dir == "" {
		return "", fmt.Errorf("volume %.80q: %w", name, workload.ErrNotFound)
	}
	return dir, nil
}

// watchedConn tells when its end was seen.
type watchedConn struct {
	io.ReadWriteCloser
	once  sync.Once
	ended chan struct{}
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.ReadWriteCloser.Read(b)
	if err != nil {
		c.once.Do(func() { close(c.ended) })
	}
	return n, err
}

func (c *watchedConn) Close() error {
	err := c.ReadWriteCloser.Close()
	c.once.Do(func() { close(c.ended) })
	return err
}

// safeName tells whether a volume's name can be the name of a directory.
func safeName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}
