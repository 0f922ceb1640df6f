package state

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Volumes are the volumes of this root. A workload's spec, from before the
// volume is made until the workload is gone, is what keeps a volume.
func (l Layout) Volumes() *volume.Store { return volume.Open(l.Root) }

// VolumeUsers names the workloads, running or not, that have a volume, but for
// one. A workload whose spec cannot be read may have any.
func (l Layout) VolumeUsers(name string, but workload.ID) ([]string, error) {
	all, err := l.All()
	if err != nil {
		return nil, err
	}
	var users []string
	for _, id := range all {
		if id == but {
			continue
		}
		spec, err := l.ReadSpec(id)
		switch {
		case errors.Is(err, os.ErrNotExist): // it has none yet, or is gone
		case err != nil:
			users = append(users, fmt.Sprintf("workload %s, whose record cannot be read", id.Short()))
		case slices.Contains(VolumesOf(spec), name):
			users = append(users, "workload "+spec.Name)
		}
	}
	slices.Sort(users)
	return users, nil
}

// VolumesOf returns the names of the volumes that a workload has.
func VolumesOf(s *workload.Spec) []string {
	var names []string
	for _, m := range s.Mounts {
		if m.Type == "volume" && m.Source != "" && !slices.Contains(names, m.Source) {
			names = append(names, m.Source)
		}
	}
	return names
}

// Anonymous reports whether a workload has a volume as an anonymous one.
func Anonymous(s *workload.Spec, name string) bool {
	return slices.ContainsFunc(s.Mounts, func(m workload.Mount) bool {
		return m.Type == "volume" && m.Source == name && m.Anonymous
	})
}

// DropVolumes removes the anonymous volumes of a workload that is about to be
// removed, as far as no other has them. It comes before the removal, so that
// whoever finds a removal half done does it again.
func (l Layout) DropVolumes(id workload.ID) error {
	spec, err := l.ReadSpec(id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range VolumesOf(spec) {
		if _, err := l.Volumes().Get(name); err != nil {
			continue // gone, or damaged: then it stays to be looked at
		}
		if !Anonymous(spec, name) {
			err = errors.Join(err, l.Volumes().Clear(name))
			continue
		}
		rerr := l.Volumes().Remove(name, func() ([]string, error) { return l.VolumeUsers(name, id) })
		if rerr == nil {
			// What cannot be recorded was done all the same.
			_ = l.Events().Append(events.Event{Type: events.Volume, Action: "destroy", ID: name})
		}
		if rerr != nil && !errors.Is(rerr, volume.ErrInUse) && !errors.Is(rerr, volume.ErrNotFound) {
			err = errors.Join(err, rerr)
		}
	}
	Did("remove: volumes removed")
	return err
}
