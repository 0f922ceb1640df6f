// Package registry remembers the OCI runtimes that workloads can name:
//
//	ROOT/runtimes/<name>.json   one file for each, complete from its first moment on
//
// A workload's record keeps name and path: a runtime that is registered anew, or
// removed, changes nothing for workloads that there are.
package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("no such runtime")
	ErrExists   = errors.New("a runtime of this name is registered")
	ErrDamaged  = errors.New("the record of the runtime is damaged")
)

// Entry is a registered runtime.
type Entry struct {
	Name string `json:"name"`
	Path string `json:"path"` // absolute
	// Version is what it called itself when it was registered.
	Version string `json:"version"`
	// GVisor says that it is gVisor's runsc, which makes the boundary "gvisor".
	GVisor bool      `json:"gvisor,omitempty"`
	Added  time.Time `json:"added"`
}

// Runtime is how a workload names it.
func (e Entry) Runtime() workload.Runtime { return workload.Runtime{Name: e.Name, Path: e.Path} }

// Boundary is what it makes.
func (e Entry) Boundary() string {
	if e.GVisor {
		return "gvisor"
	}
	return workload.BoundaryRuntime
}

// Registry is the directory of a state directory.
type Registry struct{ dir string }

// Open makes no directory: it need not exist.
func Open(root string) Registry { return Registry{filepath.Join(root, "runtimes")} }

const (
	suffix  = ".json"
	maxSize = 64 << 10
)

func (r Registry) file(name string) (string, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("runtime %q: %w", name, ErrNotFound)
	}
	return filepath.Join(r.dir, name+suffix), nil
}

// Add registers a runtime. Its name must be valid; one that is taken is an error
// unless replace.
func (r Registry) Add(e Entry, replace bool) error {
	file, err := r.file(e.Name)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(r.dir, ".new-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after a rename it is not there
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if replace {
		return os.Rename(f.Name(), file)
	}
	if err := os.Link(f.Name(), file); errors.Is(err, os.ErrExist) {
		return fmt.Errorf("runtime %s: %w", e.Name, ErrExists)
	} else if err != nil {
		return err
	}
	return nil
}

// Get returns the runtime of a name.
func (r Registry) Get(name string) (e Entry, err error) {
	file, err := r.file(name)
	if err != nil {
		return e, err
	}
	f, err := os.Open(file)
	if errors.Is(err, os.ErrNotExist) {
		return e, fmt.Errorf("runtime %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return e, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize))
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil || e.Name != name || !filepath.IsAbs(e.Path) {
		return Entry{}, fmt.Errorf("runtime %s: %w: %s", name, ErrDamaged, file)
	}
	return e, nil
}

// List returns all that can be read, by name, and an error about each other.
func (r Registry) List() (all []Entry, err error) {
	files, err := os.ReadDir(r.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), suffix)
		if !ok || strings.HasPrefix(name, ".") {
			continue
		}
		e, gerr := r.Get(name)
		if gerr != nil {
			err = errors.Join(err, gerr)
			continue
		}
		all = append(all, e)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, err
}

// Remove forgets a runtime, a damaged record, too.
func (r Registry) Remove(name string) error {
	file, err := r.file(name)
	if err != nil {
		return err
	}
	if err := os.Remove(file); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("runtime %s: %w", name, ErrNotFound)
	} else if err != nil {
		return err
	}
	return nil
}
