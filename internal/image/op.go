package image

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/unpack"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/flock"
)

// Op is one operation that adds an image to the store or holds on to what is
// there. All that it unpacks counts for one image.
// What it pinned is not collected until Close. Its methods may be called by
// several goroutines.
type Op struct {
	s      *Store
	dir    string
	pins   *os.File
	budget *unpack.Budget

	mu     sync.Mutex
	staged map[digest.Digest]bool // layers unpacked in dir and not yet published
	taken  map[blobOf]bool        // layers that Unpack was asked for
	proven map[blobOf]bool        // what was found here, to be recorded by Publish
	pinned map[string]bool        // as in pins
	added  bool                   // a blob
	keep   bool                   // what was added
}

const (
	opPrefix = "op-"
	pinsFile = "pins"
)

// Begin starts an operation. The caller must Close it.
func (s *Store) Begin() (*Op, error) {
	// Shared, so that nobody sweeps the directory before it is locked.
	unlock, err := s.lock(syscall.LOCK_SH)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s.begin()
}

func (s *Store) begin() (*Op, error) {
	dir, err := os.MkdirTemp(s.path("tmp"), opPrefix)
	if err != nil {
		return nil, s.explain(err)
	}
	pins, err := os.OpenFile(filepath.Join(dir, pinsFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND|os.O_EXCL, 0o600)
	if err == nil {
		err = flock.Take(pins, syscall.LOCK_EX)
	}
	if err != nil {
		if pins != nil {
			pins.Close()
		}
		os.RemoveAll(dir)
		return nil, s.explain(err)
	}
	return &Op{s: s, dir: dir, pins: pins, budget: unpack.NewBudget(s.imageBytes), staged: make(map[digest.Digest]bool), taken: make(map[blobOf]bool), proven: make(map[blobOf]bool), pinned: make(map[string]bool)}, nil
}

// pin keeps blobs, layers or chains from being collected while the operation
// lasts, whether they exist already or not. Only after it may the caller look
// whether they exist: a collector either sees the pin or was here before.
func (o *Op) pin(digests ...digest.Digest) error {
	var b strings.Builder
	o.mu.Lock()
	for _, d := range digests {
		b.WriteString(d.Encoded() + "\n")
		o.pinned[d.Encoded()] = true
	}
	o.mu.Unlock()
	unlock, err := o.s.lock(syscall.LOCK_SH)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := o.pins.WriteString(b.String()); err != nil {
		return o.s.explain(err)
	}
	return nil
}

// Keep has Close leave the blobs in the store that the operation brought, though
// no image has them yet: a later one will want them. Prune removes them.
func (o *Op) Keep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.keep = true
}

// Close ends the operation and removes what it did not publish. Without Commit or
// Keep it also removes the blobs that it brought, as far as nothing else needs
// them. Closing twice is fine.
func (o *Op) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pins == nil {
		return nil
	}
	err := os.RemoveAll(o.dir)
	o.pins.Close()
	o.pins = nil
	if o.added && !o.keep {
		err = errors.Join(err, o.s.collectOnly(&Report{}, nil, o.pinned))
	}
	return err
}

// sweep removes the directories of operations whose process is gone.
func (s *Store) sweep() error {
	names, err := readNames(s.path("tmp"))
	if err != nil || len(names) == 0 {
		return err
	}
	dead := false
	for _, n := range names {
		dead = dead || s.isDead(n)
	}
	if !dead {
		return nil
	}
	// Somebody who holds the lock may be starting an operation, or sweeps
	// already. The next command will look again.
	unlock, err := s.lock(syscall.LOCK_EX | syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	trash, err := s.begin()
	if err != nil {
		unlock()
		return s.sweepInPlace(names, err)
	}
	for _, n := range names {
		if s.isDead(n) {
			err = errors.Join(err, trash.discard(s.path("tmp", n)))
		}
	}
	unlock() // removing trees takes time
	return errors.Join(err, trash.Close())
}

// sweepInPlace is for a disk so full that no directory can be made.
func (s *Store) sweepInPlace(names []string, cause error) error {
	if !noSpace(cause) {
		return cause
	}
	unlock, err := s.lock(syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	for _, n := range names {
		if s.isDead(n) {
			err = errors.Join(err, os.RemoveAll(s.path("tmp", n)))
		}
	}
	return err
}

// isDead reports whether nobody holds the lock of an operation's directory.
// Without the store's lock it may also be one that is just being made.
func (s *Store) isDead(name string) bool {
	f, err := os.OpenFile(s.path("tmp", name, pinsFile), os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return true
	}
	defer f.Close()
	return flock.Take(f, syscall.LOCK_SH|syscall.LOCK_NB) == nil
}

// discard moves a path into the operation's directory, to be removed with it.
// A full disk must not keep us from making room: where not even the rename is
// possible, or o is nil because its directory was not, path is removed at once.
func (o *Op) discard(path string) error {
	if o == nil {
		return removeHere(path)
	}
	err := os.Rename(path, filepath.Join(o.dir, trashName()))
	switch {
	case noSpace(err):
		return removeHere(path)
	case errors.Is(err, os.ErrNotExist):
		return nil
	}
	return err
}

// trashName is a name for something that is to be removed, and no digest.
func trashName() string { return "trash-" + strconv.FormatUint(rand.Uint64(), 36) }

// removeHere removes a tree of the store without moving it away first. Killed
// in the middle, it must leave nothing that looks whole: a name beside the old
// one seldom needs room, without metaFile a layer does not count, and other
// directories do not with the mode halfMode.
func removeHere(path string) error {
	trash := filepath.Join(filepath.Dir(path), trashName())
	err := os.Rename(path, trash)
	switch {
	case err == nil:
		return os.RemoveAll(trash)
	case errors.Is(err, os.ErrNotExist):
		return nil
	}
	err = os.Remove(filepath.Join(path, metaFile))
	if errors.Is(err, syscall.ENOTDIR) {
		return os.Remove(path)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Chmod(path, halfMode); err != nil {
		return err
	}
	if err := syncDir(path); err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// halfMode is the mode of a directory that is being removed where it is. A mode
// takes no room.
const halfMode = 0

// removeHalf removes a directory of halfMode, unless somebody else has and made it
// anew.
func (s *Store) removeHalf(path string) error {
	unlock, err := s.lock(syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	switch fi, err := os.Lstat(path); {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode().Perm() != halfMode:
		return nil
	}
	return os.RemoveAll(path)
}

// pinned collects what all operations under way rely on.
//
// Precondition: the caller holds the store's lock exclusively.
func (s *Store) pinned() (map[string]bool, error) {
	names, err := readNames(s.path("tmp"))
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool)
	for _, n := range names {
		if s.isDead(n) {
			continue
		}
		f, err := os.Open(s.path("tmp", n, pinsFile))
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			set[lines.Text()] = true
		}
		err = lines.Err()
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return set, nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// HasBlob pins a blob and reports whether the store has it.
func (o *Op) HasBlob(d digest.Digest) (bool, error) {
	if err := manifest.CheckDigest(d); err != nil {
		return false, err
	}
	if err := o.pin(d); err != nil {
		return false, err
	}
	_, err := os.Lstat(o.s.blobPath(d))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// TempFile makes a file that goes away with the operation.
func (o *Op) TempFile() (*os.File, error) {
	f, err := os.CreateTemp(o.dir, "file-")
	return f, o.s.explain(err)
}

// Hold pins all that an image consists of, so that it can be copied out. The
// caller must Close the operation.
func (s *Store) Hold(im Image) (*Op, error) {
	o, err := s.Begin()
	if err != nil {
		return nil, err
	}
	blobs := []digest.Digest{im.Digest, im.ID}
	for _, l := range im.Layers {
		blobs = append(blobs, l.Digest)
	}
	for _, d := range blobs {
		have, err := o.HasBlob(d)
		if err == nil && !have {
			err = fmt.Errorf("%w: %s was removed meanwhile", ErrNotFound, im.ShortID())
		}
		if err != nil {
			o.Close()
			return nil, err
		}
	}
	return o, nil
}
