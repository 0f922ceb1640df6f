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
	"syscall"

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

// ownPrefix begins the names of directories that are named after a kernel's ID.
const ownPrefix = "."

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

// errRecord tells of a record that cannot be read. Its kernel can be removed.
var errRecord = errors.New("damaged record")

// read reads one kernel's record.
func (s *Store) read(name string) (Kernel, error) {
	if !ValidName(name) {
		return Kernel{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	dir := s.own(name)
	raw, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, fs.ErrNotExist) {
		if now := s.own(name); now != dir {
			return s.read(name) // replaced meanwhile
		}
		return Kernel{}, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	if err != nil {
		return Kernel{}, err
	}
	var k Kernel
	if err := json.Unmarshal(raw, &k); err != nil {
		return Kernel{}, fmt.Errorf("%w: kernel %s, which `bulkhead kernel rm` removes: %w", errRecord, name, err)
	}
	// The store may have been moved, so paths are not part of the record.
	k.Name, k.Image = name, filepath.Join(dir, imageFile)
	if k.ModulesDir != "" {
		k.ModulesDir = filepath.Join(dir, modulesDir)
	}
	return k, nil
}

// own is the directory that is a kernel's alone, whatever gets its name. An older
// version made store/NAME itself that.
func (s *Store) own(name string) string {
	if id, err := os.Readlink(s.path("store", name)); err == nil {
		name = filepath.Base(id)
	}
	return s.path("store", name)
}

// names returns the names that kernels have.
func (s *Store) names() ([]string, error) {
	entries, err := os.ReadDir(s.path("store"))
	var names []string
	for _, e := range entries {
		if ValidName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// List returns the kernels by name.
func (s *Store) List() ([]Kernel, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	standard, err := s.defaultName()
	if err != nil {
		return nil, err
	}
	var kernels []Kernel
	for _, name := range names {
		k, err := s.read(name)
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

// Remove removes a kernel and the initramfs archives made for it. Machines that
// run keep both until they are not to boot again; see discard. The default can be
// removed only as the last one; then the next guest fetches the distribution's
// again.
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
	if err := s.modernize(); err != nil {
		return err
	}
	k, err := s.Get(name)
	if err != nil && !errors.Is(err, errRecord) {
		return err
	}
	if name == "" {
		return fmt.Errorf("%w: \"\"", ErrNotFound)
	}
	if k.Default {
		all, err := s.names()
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
	return errors.Join(s.discard(st), syncDir(s.path("store")))
}

// publish makes a kernel that lies in a stage, complete, visible under a name,
// and makes it the default if there is none.
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
	if err := s.modernize(); err != nil {
		return err
	}
	_, err = s.read(k.Name)
	taken := !errors.Is(err, ErrNotFound)
	if taken && !replace {
		return fmt.Errorf("%w: %s", ErrExists, k.Name)
	}
	own := ownPrefix + k.ID
	if err := os.Rename(st.path("kernel"), s.path("store", own)); err != nil {
		return err
	}
	if err := syncDir(s.path("store")); err != nil {
		return err
	}
	if err := os.Symlink(own, st.path("link")); err != nil {
		return err
	}
	name := os.Rename
	if taken {
		name = sys.Exchange
	}
	if err := name(st.path("link"), s.path("store", k.Name)); err != nil {
		return err
	}
	if err := errors.Join(s.discard(st), syncDir(s.path("store"))); err != nil {
		return err
	}
	standard, err := s.defaultName()
	if err != nil || standard != "" {
		return err
	}
	return s.setDefault(k.Name)
}

// discard moves into a stage what belongs to a kernel that no name leads to any
// more, unless a machine may boot it again: its supervisor has marked image and
// archive. The caller holds the lock.
func (s *Store) discard(st *stage) error {
	unneeded, err := s.unneeded()
	for _, dir := range unneeded {
		err = errors.Join(err, os.Rename(dir, st.path(filepath.Base(dir))))
	}
	return err
}

// tidy discards what was in use when its kernel lost its name, and gives kernels of
// an older version the form of this one before they are handed out. Errors are left
// to the next time.
func (s *Store) tidy(ctx context.Context) {
	older, err := s.older()
	unneeded, uerr := s.unneeded()
	if err != nil || uerr != nil || len(older)+len(unneeded) == 0 {
		return
	}
	st, err := s.newStage(ctx)
	if err != nil {
		return
	}
	defer st.close()
	unlock, err := s.lock(ctx, "lock", nil)
	if err != nil {
		return
	}
	defer unlock()
	_ = errors.Join(s.modernize(), s.discard(st))
}

// older returns the names of kernels that an older version stored, each of which is
// the directory store/NAME.
func (s *Store) older() (names []string, err error) {
	all, err := s.names()
	for _, name := range all {
		if s.own(name) == s.path("store", name) {
			names = append(names, name)
		}
	}
	return names, err
}

// modernize gives each of older a directory of its own: a link to that changes
// places with it, in one step. Machines that boot it by its name still do,
// until that is another's. The caller holds the lock.
func (s *Store) modernize() error {
	names, err := s.older()
	for _, name := range names {
		k, err := s.read(name)
		if errors.Is(err, ErrNotFound) || err == nil && k.ID == "" {
			continue // it is none
		}
		if err != nil {
			return err
		}
		own := ownPrefix + k.ID
		link := s.path("store", own)
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // what a killed one left can be removed
		}
		if err := os.Symlink(own, link); err != nil {
			return err
		}
		if err := sys.Exchange(link, s.path("store", name)); err != nil {
			return err
		}
		if err := syncDir(s.path("store")); err != nil {
			return err
		}
	}
	return err
}

// unneeded returns the directories that discard discards, once modernize has seen to
// kernels of an older version.
func (s *Store) unneeded() (dirs []string, err error) {
	entries, err := os.ReadDir(s.path("store"))
	if err != nil {
		return nil, err
	}
	named := map[string]bool{"": true, noModules: true, ofFile: true}
	for _, e := range entries {
		if !ValidName(e.Name()) {
			continue
		}
		named[strings.TrimPrefix(filepath.Base(s.own(e.Name())), ownPrefix)] = true
	}
	for _, e := range entries {
		if id, own := strings.CutPrefix(e.Name(), ownPrefix); own && !named[id] && !used(s.path("store", e.Name(), imageFile)) {
			dirs = append(dirs, s.path("store", e.Name()))
		}
	}
	if entries, err = os.ReadDir(s.path("initramfs")); err != nil {
		return nil, err
	}
	for _, e := range entries {
		if id, _, _ := strings.Cut(e.Name(), "-"); !named[id] && !used(s.path("initramfs", e.Name(), archiveFile)) {
			dirs = append(dirs, s.path("initramfs", e.Name()))
		}
	}
	return dirs, nil
}

// used tells whether somebody has marked a file, see sys.MarkUsed, or that it
// cannot be told.
func used(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR)
	}
	defer f.Close()
	is, err := sys.InUse(f)
	return is || err != nil
}
