package kernel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/sys"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// Store is the kernels of one state root. Its methods may be called by several
// goroutines, and by several processes.
type Store struct {
	dir   string
	fetch fetcher // of the default; replaced by tests
}

// Open opens the store below the state root, and makes it if it is not there.
func Open(root string) (*Store, error) {
	s := &Store{dir: filepath.Join(root, "kernels"), fetch: debian{}}
	for _, dir := range []string{"", "store", "unpacked", "initramfs", "tmp"} {
		if err := os.MkdirAll(s.path(dir), 0o700); err != nil {
			return nil, fmt.Errorf("open the kernel store: %w", err)
		}
	}
	return s, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// The files of a kernel's directory.
const (
	recordFile = "kernel.json"
	imageFile  = "vmlinux"
	modulesDir = "modules"
)

// ValidName reports whether a kernel may be called so: letters, digits and
// "._-", beginning with a letter or a digit, at most 64 characters.
func ValidName(name string) bool {
	for i, c := range []byte(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case i > 0 && (c == '.' || c == '-' || c == '_'):
		default:
			return false
		}
	}
	return name != "" && len(name) <= 64
}

// Get returns a kernel of the store; "" is the default, without fetching one.
func (s *Store) Get(name string) (Kernel, error) {
	standard, err := s.defaultName()
	if err != nil {
		return Kernel{}, err
	}
	if name == "" {
		if name = standard; name == "" {
			return Kernel{}, fmt.Errorf("%w: there is no default yet", ErrNotFound)
		}
	}
	k, err := s.read(name)
	k.Default = name == standard
	return k, err
}

// read reads one kernel's record.
func (s *Store) read(name string) (Kernel, error) {
	if !ValidName(name) {
		return Kernel{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	raw, err := os.ReadFile(s.path("store", name, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Kernel{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	if err != nil {
		return Kernel{}, err
	}
	var k Kernel
	if err := json.Unmarshal(raw, &k); err != nil {
		return Kernel{}, fmt.Errorf("read the record of kernel %s: %w", name, err)
	}
	// The store may have been moved, so paths are not part of the record.
	k.Name, k.Image = name, s.path("store", name, imageFile)
	if k.ModulesDir != "" {
		k.ModulesDir = s.path("store", name, modulesDir)
	}
	return k, nil
}

// List returns the kernels by name.
func (s *Store) List() ([]Kernel, error) {
	entries, err := os.ReadDir(s.path("store"))
	if err != nil {
		return nil, err
	}
	standard, err := s.defaultName()
	if err != nil {
		return nil, err
	}
	var kernels []Kernel
	for _, e := range entries {
		k, err := s.read(e.Name())
		if errors.Is(err, ErrNotFound) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		k.Default = k.Name == standard
		kernels = append(kernels, k)
	}
	return kernels, nil
}

// defaultName is the kernel that "" stands for, "" if none was ever chosen.
func (s *Store) defaultName() (string, error) {
	raw, err := os.ReadFile(s.path("default"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	name := string(bytes.TrimSpace(raw))
	if !ValidName(name) {
		return "", fmt.Errorf("the file %s does not name a kernel", s.path("default"))
	}
	return name, nil
}

// Use makes a kernel the default.
func (s *Store) Use(ctx context.Context, name string) error {
	unlock, err := s.lock(ctx, "lock", nil)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := s.read(name); err != nil {
		return err
	}
	return s.setDefault(name)
}

// setDefault replaces the file. The caller holds the lock.
func (s *Store) setDefault(name string) error {
	f, err := os.CreateTemp(s.path("tmp"), defaultPrefix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = io.WriteString(f, name+"\n")
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path("default")); err != nil {
		return err
	}
	return syncDir(s.dir)
}

// Remove removes a kernel and the initramfs archives made for it. Guests that
// run keep running: they have read their kernel. The default can be removed
// only as the last one; then the next guest fetches the distribution's again.
func (s *Store) Remove(ctx context.Context, name string) error {
	st, err := s.newStage(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	unlock, err := s.lock(ctx, "lock", nil)
	if err != nil {
		return err
	}
	defer unlock()
	k, err := s.Get(name)
	if err != nil {
		return err
	}
	if name == "" {
		return fmt.Errorf("%w: \"\"", ErrNotFound)
	}
	if k.Default {
		all, err := os.ReadDir(s.path("store"))
		if err != nil {
			return err
		}
		if len(all) > 1 {
			return fmt.Errorf("%w: %s", ErrInUse, name)
		}
		if err := os.Remove(s.path("default")); err != nil {
			return err
		}
	}
	if err := os.Rename(s.path("store", name), st.path(name)); err != nil {
		return err
	}
	if err := s.removeArchives(k.ID); err != nil {
		return err
	}
	return syncDir(s.path("store"))
}

// publish makes a kernel that lies in a stage, complete, visible under a name,
// and makes it the default if there is none. What had the name moves into the
// stage.
func (s *Store) publish(ctx context.Context, st *stage, k Kernel, replace bool) error {
	record := k
	record.Name, record.Image, record.Default = "", "", false
	if record.ModulesDir != "" {
		record.ModulesDir = modulesDir
	}
	raw, err := json.MarshalIndent(record, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(st.path("kernel/"+recordFile), raw, 0o600); err != nil {
		return err
	}
	// One syncfs for all: thousands of modules synced one by one take minutes.
	if err := at.Syncfs(st.f); err != nil {
		return err
	}
	unlock, err := s.lock(ctx, "lock", nil)
	if err != nil {
		return err
	}
	defer unlock()
	if old, err := s.read(k.Name); err == nil {
		if !replace {
			return fmt.Errorf("%w: %s", ErrExists, k.Name)
		}
		if err := sys.Exchange(st.path("kernel"), s.path("store", k.Name)); err != nil {
			return err
		}
		if err := s.removeArchives(old.ID); err != nil {
			return err
		}
	} else if err := os.Rename(st.path("kernel"), s.path("store", k.Name)); err != nil {
		return err
	}
	if err := syncDir(s.path("store")); err != nil {
		return err
	}
	standard, err := s.defaultName()
	if err != nil || standard != "" {
		return err
	}
	return s.setDefault(k.Name)
}

// removeArchives removes the initramfs archives made for a kernel.
func (s *Store) removeArchives(id string) error {
	if id == "" {
		return nil
	}
	entries, err := os.ReadDir(s.path("initramfs"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), id+"-") {
			err = errors.Join(err, os.RemoveAll(s.path("initramfs", e.Name())))
		}
	}
	return err
}
