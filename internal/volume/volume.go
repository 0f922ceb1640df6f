// Package volume keeps named volumes: directories that outlive the workloads
// that write to them.
//
//	root/volumes/
//	  lock                 held while a volume is made or removed
//	  NAME/                made and removed by one rename
//	    volume.json        name, labels, where it came from
//	    lock               held while content of an image is put into it
//	    data/              what workloads see
//	    filling/           content on its way, not complete
//	    filled/            complete content that moves into data; what a killed
//	                       command left of it, the next user moves
//	  .new-X/ .gone-X/     volumes before they are made, and after they are removed
//
// Owners in data are those that workloads see: whoever shows it to one shifts
// them into the workload's range of IDs. The package knows nothing of
// workloads: who uses a volume it asks the caller.
package volume

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Errors that callers branch on.
var (
	ErrNotFound = errors.New("no such volume")
	ErrInUse    = errors.New("volume is in use")
	// ErrDamaged tells that a volume's record cannot be read. Its data may be
	// whole.
	ErrDamaged = errors.New("volume is damaged")
	ErrName    = errors.New("not a volume's name")
)

// Volume is what is recorded of one volume.
type Volume struct {
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Anonymous is set where somebody asked for a volume without a name.
	Anonymous bool `json:"anonymous,omitempty"`
	// Filled is set when content of an image was put into it, which happens once.
	Filled bool `json:"filled,omitempty"`
}

// MaxName is the length of the longest name, in bytes.
const MaxName = 200

// CheckName reports, by an error that wraps ErrName, what is wrong with a name:
// it begins with a letter or digit and goes on with these, "_", "." and "-". The
// store's lock has the place of the name "lock".
func CheckName(name string) error {
	if name == lockFile {
		return fmt.Errorf("%w: %q is a name of the store's own", ErrName, name)
	}
	ok := name != "" && len(name) <= MaxName
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (alnum || i > 0 && strings.IndexByte("_.-", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%w: %q: want at most %d letters, digits, \"_\", \".\" and \"-\", the first a letter or digit", ErrName, name, MaxName)
	}
	return nil
}

// Step is called after each step that changes something, with its name. It is
// nil but in tests, which end the process there.
var Step func(name string)

func did(name string) {
	if Step != nil {
		Step(name)
	}
}

// Store is the volumes below one state root. Its methods may be called at the
// same time by several processes.
type Store struct {
	dir string
}

// Open returns the store below root, an absolute path. It makes nothing.
func Open(root string) *Store { return &Store{dir: filepath.Join(root, "volumes")} }

// names of what a volume's directory holds.
const (
	recordFile = "volume.json"
	lockFile   = "lock"
	dataDir    = "data"
	fillingDir = "filling"
	filledDir  = "filled"
	newPrefix  = ".new-"
	gonePrefix = ".gone-"
)

// Data is the directory that workloads see of a volume, whether it exists or
// not. The name must be valid.
func (s *Store) Data(name string) string { return s.path(name, dataDir) }

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// maxRecord bounds what is read of a record, in bytes.
const maxRecord = 1 << 20

// Get returns the record of a volume. The error wraps ErrNotFound, ErrDamaged or
// ErrName.
func (s *Store) Get(name string) (Volume, error) {
	var v Volume
	if err := CheckName(name); err != nil {
		return v, err
	}
	fi, err := os.Lstat(s.path(name))
	if errors.Is(err, os.ErrNotExist) || err == nil && !fi.IsDir() {
		return v, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return v, fmt.Errorf("look at volume %s: %w", name, err)
	}
	if err := readRecord(s.path(name, recordFile), &v); err != nil {
		return v, fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	if v.Name != name {
		return v, fmt.Errorf("%w: %s: its record is that of %q", ErrDamaged, name, v.Name)
	}
	if fi, err := os.Lstat(s.Data(name)); err != nil || !fi.IsDir() {
		return v, fmt.Errorf("%w: %s: its data directory is missing", ErrDamaged, name)
	}
	return v, nil
}

func readRecord(path string, v *Volume) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRecord+1))
	if err != nil {
		return err
	}
	if len(b) > maxRecord {
		return fmt.Errorf("%s is larger than %d bytes", recordFile, maxRecord)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", recordFile, err)
	}
	return nil
}

// List returns the volumes in the order of their names. One that is damaged
// does not hide the others: it is left out, and the error, which wraps
// ErrDamaged, names it.
func (s *Store) List() ([]Volume, error) {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var all []Volume
	var damaged []error
	for _, e := range entries {
		if CheckName(e.Name()) != nil || !e.IsDir() {
			continue
		}
		v, err := s.Get(e.Name())
		switch {
		case errors.Is(err, ErrNotFound): // removed meanwhile
		case err != nil:
			damaged = append(damaged, err)
		default:
			all = append(all, v)
		}
	}
	return all, errors.Join(damaged...)
}
