package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/seed-f5e3b97b/bulkhead/internal/engine/events"
	"github.com/seed-f5e3b97b/bulkhead/internal/engine/state"
	"github.com/seed-f5e3b97b/bulkhead/internal/image/extract"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/volume"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// A mount of type "volume" stays so in the recorded spec, where it keeps the
// volume from being removed. Right before each start it becomes a bind mount of
// the volume's directory, which is all that a boundary ever sees.

// VolumeRecord is everything the engine knows about one volume.
type VolumeRecord struct {
	volume.Volume
	Mountpoint string   // the directory on the host
	Users      []string // names of the workloads that have it, running or not
}

// CreateVolume makes a volume, or returns the one that has the name. An empty
// name stands for one of its own choice.
func (e *Engine) CreateVolume(_ context.Context, v volume.Volume) (volume.Volume, error) {
	if v.Name == "" {
		v.Name, v.Anonymous = volume.AnonymousName(), true
	}
	v, made, err := e.layout.Volumes().Create(v)
	if err == nil && made {
		e.Happened(events.Volume, "create", v.Name, nil)
	}
	return v, err
}

// Volume returns one volume. The error wraps volume.ErrNotFound, among others.
func (e *Engine) Volume(ctx context.Context, name string) (VolumeRecord, error) {
	v, err := e.layout.Volumes().Get(name)
	if err != nil {
		return VolumeRecord{}, err
	}
	users, err := e.volumeUsers(ctx)
	return VolumeRecord{v, e.layout.Volumes().Data(name), users[name]}, err
}

// Volumes returns all volumes in the order of their names. What is damaged is
// left out; the error names it.
func (e *Engine) Volumes(ctx context.Context) ([]VolumeRecord, error) {
	users, err := e.volumeUsers(ctx)
	if err != nil {
		return nil, err
	}
	all, err := e.layout.Volumes().List()
	records := make([]VolumeRecord, len(all))
	for i, v := range all {
		records[i] = VolumeRecord{v, e.layout.Volumes().Data(v.Name), users[v.Name]}
	}
	return records, err
}

// volumeUsers returns who has which volume.
func (e *Engine) volumeUsers(ctx context.Context) (map[string][]string, error) {
	records, err := e.List(ctx)
	if err != nil {
		return nil, err
	}
	users := map[string][]string{}
	for _, r := range records {
		for _, name := range state.VolumesOf(&r.Spec) {
			users[name] = append(users[name], r.Spec.Name)
		}
	}
	return users, nil
}

// volumeDirs returns where the volumes of a workload are, or would be.
func (e *Engine) volumeDirs(s *workload.Spec) map[string]string {
	var dirs map[string]string
	for _, name := range state.VolumesOf(s) {
		if dirs == nil {
			dirs = map[string]string{}
		}
		dirs[name] = e.layout.Volumes().Data(name)
	}
	return dirs
}

// VolumeUsage returns how many bytes of the disk a volume takes.
func (e *Engine) VolumeUsage(ctx context.Context, name string) (int64, error) {
	return e.layout.Volumes().Usage(ctx, name)
}

// RemoveVolume removes a volume and what is in it. One that a workload has,
// running or not, gives volume.ErrInUse.
func (e *Engine) RemoveVolume(_ context.Context, name string) error {
	err := e.layout.Volumes().Remove(name, func() ([]string, error) { return e.layout.VolumeUsers(name, "") })
	if err == nil {
		e.Happened(events.Volume, "destroy", name, nil)
	}
	return err
}

// PruneVolumes removes the volumes that no workload has and want accepts. It
// returns their names and how many bytes of the disk they took.
func (e *Engine) PruneVolumes(ctx context.Context, want func(volume.Volume) bool) (removed []string, bytes int64, err error) {
	all, err := e.layout.Volumes().List()
	e.warn(err)
	err = nil
	for _, v := range all {
		if !want(v) {
			continue
		}
		size, serr := e.VolumeUsage(ctx, v.Name)
		if serr != nil {
			err = errors.Join(err, serr)
			continue
		}
		rerr := e.RemoveVolume(ctx, v.Name)
		switch {
		case rerr == nil:
			removed, bytes = append(removed, v.Name), bytes+size
		case !errors.Is(rerr, volume.ErrInUse) && !errors.Is(rerr, volume.ErrNotFound):
			err = errors.Join(err, rerr)
		}
		if ctx.Err() != nil {
			return removed, bytes, ctx.Err()
		}
	}
	return removed, bytes, err
}

// nameVolumes names the anonymous volumes of a new workload, before anything is
// written down. It returns the names of those that have one, from the workload that
// they were made for.
func nameVolumes(s *workload.Spec) (borrowed []string) {
	for i, m := range s.Mounts {
		switch {
		case m.Type != "volume":
		case m.Source == "":
			s.Mounts = slices.Clone(s.Mounts) // the caller's
			s.Mounts[i].Source, s.Mounts[i].Anonymous = volume.AnonymousName(), true
		case m.Anonymous:
			borrowed = append(borrowed, m.Source)
		}
	}
	return borrowed
}

// makeVolumes makes the volumes of a new workload that do not exist, and puts
// the image's content into those that are fresh. The spec is written by now, so
// nobody removes them.
func (e *Engine) makeVolumes(ctx context.Context, s *workload.Spec, p *prepared) error {
	names := state.VolumesOf(s)
	if len(names) > 0 {
		defer trace.Step(ctx, "volumes made, filled").End()
	}
	for _, name := range p.borrowed {
		// The other workload may have ended since, and taken it along.
		if _, err := e.layout.Volumes().Get(name); err != nil {
			return err
		}
	}
	for _, name := range names {
		_, made, err := e.layout.Volumes().Create(volume.Volume{Name: name, Anonymous: state.Anonymous(s, name)})
		if err != nil {
			return err
		}
		if made {
			p.volumes = append(p.volumes, name)
			e.Happened(events.Volume, "create", name, nil)
		}
		state.Did("create: volume made")
	}
	budget := extract.DefaultBudget()
	for _, m := range s.Mounts {
		if m.Type != "volume" || m.NoCopy {
			continue
		}
		err := e.layout.Volumes().Fill(ctx, m.Source, func(dir *os.File) (bool, error) {
			layers, release, err := e.layersOf(ctx, s, p)
			if err != nil {
				return false, err
			}
			defer release()
			return extract.Dir(ctx, layers, m.Target, dir, budget)
		})
		if err != nil {
			return fmt.Errorf("put the content of the image at %s into volume %s: %w", m.Target, m.Source, err)
		}
		state.Did("create: volume filled")
	}
	return nil
}

// layersOf returns the image's unpacked layers, also where the workload's root
// is made of something else.
func (e *Engine) layersOf(ctx context.Context, s *workload.Spec, p *prepared) ([]string, func(), error) {
	if p.state.Machine == nil {
		return p.state.Layers, func() {}, nil
	}
	layers, release, err := e.cfg.Images.Layers(ctx, s.Image)
	return layers.Dirs, release, err
}

// dropVolumes removes the volumes that were made for a workload that did not
// come to be, but for those that another has taken up meanwhile.
func (e *Engine) dropVolumes(p *prepared) error {
	var err error
	for _, name := range p.volumes {
		rerr := e.RemoveVolume(context.Background(), name)
		if rerr != nil && !errors.Is(rerr, volume.ErrInUse) && !errors.Is(rerr, volume.ErrNotFound) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// resolveVolumes returns the spec that a boundary is given: each volume is a
// bind mount. The error wraps volume.ErrNotFound or ErrDamaged.
func (e *Engine) resolveVolumes(ctx context.Context, s *workload.Spec) (workload.Spec, error) {
	out := *s
	out.Mounts = slices.Clone(s.Mounts)
	for i, m := range out.Mounts {
		if m.Type != "volume" {
			continue
		}
		dir, err := e.layout.Volumes().Ready(ctx, m.Source)
		if err != nil {
			return out, fmt.Errorf("mount at %s: %w", m.Target, err)
		}
		out.Mounts[i] = boundVolume(m, dir)
	}
	return out, nil
}

// boundVolume is a volume as a bind mount. Nothing is mounted below a volume.
func boundVolume(m workload.Mount, dir string) workload.Mount {
	m.Type, m.Source, m.Recursive, m.NoCopy = "bind", dir, false, false
	return m
}

// explainVolumes is resolveVolumes for a workload that is not to be made.
func (e *Engine) explainVolumes(s workload.Spec) workload.Spec {
	s.Mounts = slices.Clone(s.Mounts)
	for i, m := range s.Mounts {
		if m.Type == "volume" {
			name := m.Source
			if name == "" {
				name = "ANONYMOUS"
			}
			s.Mounts[i] = boundVolume(m, e.layout.Volumes().Data(name))
			s.Mounts[i].CreateSource = true // create would make it
		}
	}
	return s
}
