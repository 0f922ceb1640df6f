package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/reference"
)

// table is index.json: the images of the store.
type table struct {
	Version int          `json:"version"`
	Images  []tableImage `json:"images"`
}

type tableImage struct {
	Digest digest.Digest `json:"digest"` // of the manifest
	// References are whole names with a tag. Each belongs to one image.
	References []string `json:"references,omitempty"`
	// Digests are names with a digest under which the image was pulled; the
	// digest may be that of an index that leads to the manifest. Each belongs
	// to one image for a platform.
	Digests []string `json:"digests,omitempty"`
	// Pinned are those of Digests that the image was asked for by, without a
	// tag beside them.
	Pinned []string  `json:"pinned,omitempty"`
	Added  time.Time `json:"added"`
}

// dangling reports whether the image has no tag, and no digests but those that
// its tags had when they were pulled.
func (im *tableImage) dangling() bool { return len(im.References)+len(im.Pinned) == 0 }

// nameOf returns which of the image's names, with a tag or a digest, is meant; "" for
// an ID, or a digest under which it was not pulled.
func (im *tableImage) nameOf(ref string) string {
	r, err := reference.Parse(ref)
	if err != nil {
		return ""
	}
	name, among := r.String(), im.References
	if r.Digest() != "" {
		name, among = lookupName(r), im.Digests
	}
	if !slices.Contains(among, name) {
		return ""
	}
	return name
}

// forget takes one of its names away from the image.
func (im *tableImage) forget(name string) {
	for _, names := range []*[]string{&im.References, &im.Digests, &im.Pinned} {
		*names = slices.DeleteFunc(*names, func(s string) bool { return s == name })
	}
}

const tableVersion = 1

func (s *Store) readTable() (*table, error) {
	raw, err := os.ReadFile(s.path("index.json"))
	if errors.Is(err, os.ErrNotExist) {
		return &table{Version: tableVersion}, nil
	}
	if err != nil {
		return nil, err
	}
	var t table
	if err := json.Unmarshal(raw, &t); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, s.path("index.json"), err)
	}
	if t.Version != tableVersion {
		return nil, fmt.Errorf("%w: %s has version %d, this program knows %d", ErrDamaged, s.path("index.json"), t.Version, tableVersion)
	}
	for _, im := range t.Images {
		if err := manifest.CheckDigest(im.Digest); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, s.path("index.json"), err)
		}
	}
	return &t, nil
}

// update changes the table: change is called with the lock held and its result
// is written whole, or not at all when it returns an error.
func (s *Store) update(change func(*table) error) error {
	unlock, err := s.lock(syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer unlock()
	return s.updateLocked(change)
}

func (s *Store) updateLocked(change func(*table) error) error {
	t, err := s.readTable()
	if err != nil {
		return err
	}
	if err := change(t); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(t, "", "\t")
	if err != nil {
		return err
	}
	err = s.writeTable(raw)
	if noSpace(err) && os.Remove(s.path("index.reserve")) == nil {
		err = s.writeTable(raw)
	}
	if err != nil {
		return s.explain(err)
	}
	s.reserveTable(len(raw))
	return syncDir(s.dir)
}

// writeTable replaces index.json.
func (s *Store) writeTable(raw []byte) error {
	// Only the holder of the lock writes this name.
	next := s.path("index.json.new")
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(next, s.path("index.json"))
	}
	if err != nil {
		os.Remove(next)
	}
	return err
}

// reserveTable keeps room for the next table and for a directory to move files
// to, so that images can be removed from a disk that has become full. That it
// cannot is no error: there may be room when it is needed.
func (s *Store) reserveTable(size int) {
	const step = 4096
	size = (size/step + 2) * step
	name := s.path("index.reserve")
	if fi, err := os.Lstat(name); err == nil && fi.Size() >= int64(size) {
		return
	}
	if os.WriteFile(name, make([]byte, size), 0o600) != nil {
		os.Remove(name)
	}
}

// reserveAgain is reserveTable after room was made.
func (s *Store) reserveAgain() {
	if _, err := os.Lstat(s.path("index.reserve")); err == nil {
		return
	}
	unlock, err := s.lock(syscall.LOCK_EX)
	if err != nil {
		return
	}
	defer unlock()
	if fi, err := os.Lstat(s.path("index.json")); err == nil {
		s.reserveTable(int(fi.Size()))
	}
}

func noSpace(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func (t *table) find(d digest.Digest) *tableImage {
	for i := range t.Images {
		if t.Images[i].Digest == d {
			return &t.Images[i]
		}
	}
	return nil
}

// byReference finds the image of a whole name with a tag.
func (t *table) byReference(name string) *tableImage {
	for i := range t.Images {
		if slices.Contains(t.Images[i].References, name) {
			return &t.Images[i]
		}
	}
	return nil
}

// drop takes a name away from every image, and tells from how many.
func (t *table) drop(name string) {
	for i := range t.Images {
		im := &t.Images[i]
		im.References = slices.DeleteFunc(im.References, func(s string) bool { return s == name })
	}
}

// give makes name a reference of im alone.
func (t *table) give(im *tableImage, name string) {
	t.drop(name)
	im.References = append(im.References, name)
	slices.Sort(im.References)
}
