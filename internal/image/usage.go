package image

import (
	"errors"

	"github.com/opencontainers/go-digest"
)

// Usage says what images take on the disk. What several share counts once in the
// totals: a layer, as it came and unpacked, a disk for virtual machines.
type Usage struct {
	Images []ImageUsage
	Bytes  int64 // of all images together
	// Active counts the images that a workload was made from, Reclaimable the
	// bytes that nothing but the others needs.
	Active      int
	Reclaimable int64
}

// ImageUsage is what one image takes: Shared bytes that others need too, Unique
// ones that go with it.
type ImageUsage struct {
	Image
	Shared, Unique int64
	Users          []string // workloads that were made from it
}

// Usage measures all images. What is damaged is left out; the error names it.
func (s *Store) Usage(inUse InUse) (Usage, error) {
	list, damaged := s.List()
	if damaged != nil && !errors.Is(damaged, ErrDamaged) {
		return Usage{}, damaged
	}
	usersOf, err := inUse.now()
	if err != nil {
		return Usage{}, err
	}
	sizes := map[digest.Digest]int64{} // of each part
	count := map[digest.Digest]int{}   // images that need it
	active := map[digest.Digest]bool{} // an active image needs it
	var u Usage
	for _, im := range list {
		iu := ImageUsage{Image: im, Users: usersOf(im.Digest)}
		if len(iu.Users) > 0 {
			u.Active++
		}
		for id, size := range im.parts() {
			sizes[id] = size
			count[id]++
			active[id] = active[id] || len(iu.Users) > 0
		}
		u.Images = append(u.Images, iu)
	}
	for i := range u.Images {
		iu := &u.Images[i]
		for id, size := range iu.parts() {
			if count[id] > 1 {
				iu.Shared += size
			} else {
				iu.Unique += size
			}
		}
	}
	for id, size := range sizes {
		u.Bytes += size
		if !active[id] {
			u.Reclaimable += size
		}
	}
	return u, damaged
}

// parts are the sizes of what an image consists of on the disk, by what
// identifies each.
func (im Image) parts() map[digest.Digest]int64 {
	documents := im.Size
	parts := map[digest.Digest]int64{}
	for _, l := range im.Layers {
		documents -= l.Size
		parts[l.Digest] = l.Size
		// Plain layers have one digest for both forms.
		parts["unpacked:"+l.DiffID] = l.Unpacked
	}
	parts[im.Digest] = documents
	if len(im.Layers) > 0 {
		parts["disk:"+diskID(im.Layers)] = im.VMDisk
	}
	return parts
}
