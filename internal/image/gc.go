package image

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/opencontainers/go-digest"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/manifest"
)

// InUse returns what tells, as of now, which workloads were made from the image
// with a manifest digest. Remove and Prune call it with the store's lock held, so
// that no workload comes between its answer and what follows from it; it must not
// call the store.
type InUse func() (users func(manifest digest.Digest) []string, err error)

// Report says what Remove and Prune took away.
type Report struct {
	Untagged []string        `json:"untagged,omitempty"` // references
	Deleted  []digest.Digest `json:"deleted,omitempty"`  // manifests
	// Bytes of blobs, of files in unpacked layers and of disks that nothing
	// needed any more.
	Bytes int64 `json:"bytes"`
}

// Remove takes a name away from an image, and the image with it when the name
// was the last: the digests that its tags had when they were pulled do not keep it, one
// that it was asked for by does. An image named by ID or digest loses all names; with more than
// one this needs force, as with Docker. An image that a workload was made from
// stays: the error then wraps ErrInUse and names the workloads.
func (s *Store) Remove(ref string, force bool, inUse InUse) (Report, error) {
	var rep Report
	err := s.collect(&rep, func(t *table) error {
		e, err := s.find(t, ref)
		if err != nil {
			return err
		}
		names := slices.Concat(e.References, e.Pinned)
		if name := e.nameOf(ref); name != "" {
			if slices.ContainsFunc(names, func(other string) bool { return other != name }) {
				e.forget(name)
				rep.Untagged = []string{name}
				return nil
			}
		} else if len(names) > 1 && !force {
			return fmt.Errorf("image %s has more than one name, remove them one by one or use force: %s", ref, strings.Join(names, ", "))
		}
		usersOf, err := inUse.now()
		if err != nil {
			return err
		}
		if users := usersOf(e.Digest); len(users) > 0 {
			return fmt.Errorf("%w: %s is what %s was made from, remove that first", ErrInUse, ref, strings.Join(users, ", "))
		}
		rep.Untagged = e.References
		rep.Deleted = []digest.Digest{e.Digest}
		t.remove(e.Digest)
		return nil
	})
	return rep, err
}

// Prune removes the images that are dangling, or with all every image, as far
// as no workload uses them. It also removes what a removed image left.
func (s *Store) Prune(all bool, inUse InUse) (Report, error) { return s.PruneSome(all, nil, inUse) }

// PruneSome is Prune for those images that want accepts; nil accepts all. A
// damaged image is only pruned without it: nobody knows what it is. want must
// not call the store.
func (s *Store) PruneSome(all bool, want func(Image) bool, inUse InUse) (Report, error) {
	var rep Report
	err := s.collect(&rep, func(t *table) error {
		usersOf, err := inUse.now()
		if err != nil {
			return err
		}
		for _, e := range slices.Clone(t.Images) {
			// What was pulled by a digest alone is kept: the user asked for just it.
			if !all && !e.dangling() || len(usersOf(e.Digest)) > 0 {
				continue
			}
			if want != nil {
				if im, err := s.load(&e); err != nil || !want(im) {
					continue
				}
			}
			rep.Untagged = append(rep.Untagged, e.References...)
			rep.Deleted = append(rep.Deleted, e.Digest)
			t.remove(e.Digest)
		}
		return nil
	})
	return rep, err
}

// now calls f; nil stands for no workloads.
func (f InUse) now() (users func(digest.Digest) []string, err error) {
	if f == nil {
		return func(digest.Digest) []string { return nil }, nil
	}
	if users, err = f(); err != nil {
		return nil, fmt.Errorf("find out who was made from an image: %w", err)
	}
	return users, nil
}

func (t *table) remove(d digest.Digest) {
	t.Images = slices.DeleteFunc(t.Images, func(e tableImage) bool { return e.Digest == d })
}

// collect changes the table and then removes what neither an image nor an
// operation needs. Files leave their places under the lock by renames and are
// deleted after it, but for a disk that has no room even for the directory that
// they are moved to.
func (s *Store) collect(rep *Report, change func(*table) error) error {
	return s.collectOnly(rep, change, nil)
}

// collectOnly is collect for those files whose names only has; nil stands for all.
// change may be nil.
func (s *Store) collectOnly(rep *Report, change func(*table) error, only map[string]bool) (err error) {
	unlock, err := s.lock(syscall.LOCK_EX)
	if err != nil {
		return err
	}
	defer func() { unlock() }()
	var after *table
	if change == nil {
		after, err = s.readTable()
	} else {
		err = s.updateLocked(func(t *table) error { after = t; return change(t) })
	}
	if err != nil {
		*rep = Report{}
		return err
	}
	trash, err := s.begin()
	if noSpace(err) && os.Remove(s.path("index.reserve")) == nil {
		trash, err = s.begin()
	}
	if err != nil && !noSpace(err) {
		return err
	}
	defer func() {
		unlock()
		unlock = func() {}
		if trash != nil {
			err = errors.Join(err, trash.Close())
		}
		s.reserveAgain()
	}()
	keep, err := s.pinned()
	if err != nil {
		return err
	}
	for i := range after.Images {
		if err := s.mark(&after.Images[i], keep); err != nil {
			return fmt.Errorf("nothing was cleared away: %w", err)
		}
	}
	rep.Bytes, err = s.discardUnmarked(trash, keep, only)
	return err
}

// mark adds to keep all that an image needs: blobs, layers, chains and its disk.
func (s *Store) mark(e *tableImage, keep map[string]bool) error {
	im, err := s.load(e)
	if err != nil {
		return err
	}
	keep[e.Digest.Encoded()], keep[im.ID.Encoded()] = true, true
	for i, l := range im.Layers {
		keep[l.Digest.Encoded()], keep[l.DiffID.Encoded()] = true, true
		keep[chainID(im.Layers[:i+1]).Encoded()] = true
	}
	if len(im.Layers) > 0 {
		keep[diskID(im.Layers).Encoded()] = true
	}
	return nil
}

func (s *Store) discardUnmarked(trash *Op, keep, only map[string]bool) (int64, error) {
	var bytes int64
	for _, dir := range []string{"blobs/sha256", "layers", "mended", "disks"} {
		names, err := readNames(s.path(dir))
		if err != nil {
			return bytes, err
		}
		for _, n := range names {
			if keep[n] || only != nil && !only[n] {
				continue
			}
			bytes += s.sizeOf(dir, n)
			if err := trash.discard(s.path(dir, n)); err != nil {
				return bytes, err
			}
		}
	}
	return bytes, nil
}

func (s *Store) sizeOf(dir, name string) int64 {
	if dir == "disks" {
		return s.diskUsage(name)
	}
	if dir == "layers" {
		if d := digest.NewDigestFromEncoded(digest.SHA256, name); manifest.CheckDigest(d) == nil {
			m, _ := s.layerMeta(d)
			return m.Bytes
		}
		return 0
	}
	info, err := os.Lstat(s.path(dir, name))
	if err != nil || info.IsDir() {
		return 0
	}
	return info.Size()
}
