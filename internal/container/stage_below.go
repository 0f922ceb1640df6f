package container

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/moby/sys/mountinfo"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
)

// planBelow has whatever is mounted below the source of a bind mount asked for by
// itself. The option "rbind" asks for it already, but crun before 1.9 clones such a
// source without what is below when the workload has a user namespace, and says
// nothing.
func (s *stager) planBelow() {
	s.prog.Go("a mount of its own for each below a volume, which not every runtime takes along", func(func(launch.Slot) int) error {
		for _, pl := range s.places {
			if pl.file {
				continue
			}
			below, err := mountsBelow(pl)
			if err != nil {
				return fmt.Errorf("mounts below %s: %w", pl.dest, err)
			}
			own := slices.IndexFunc(s.out, func(m specs.Mount) bool { return m.Source == pl.staged() })
			s.out = slices.Insert(s.out, own+1, below...)
			if len(s.out) > maxListed {
				return fmt.Errorf("%d mounts with those below %s: at most %d are possible", len(s.out), pl.dest, maxListed)
			}
		}
		return nil
	})
}

// mountsBelow lists, parents first, the mounts that can be seen below a place of
// the calling thread's mount namespace.
func mountsBelow(pl place) ([]specs.Mount, error) {
	resolved, err := filepath.EvalSymlinks(pl.name) // as the kernel calls it
	if err != nil {
		return nil, err
	}
	table, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(m.Mountpoint, resolved+"/"), false
	})
	if err != nil {
		return nil, err
	}
	var out []specs.Mount
	for _, m := range table {
		seen, err := isSeen(m)
		if err != nil {
			return nil, err
		}
		if !seen {
			continue
		}
		rest := strings.TrimPrefix(m.Mountpoint, resolved)
		if !utf8.ValidString(rest) {
			return nil, fmt.Errorf("%q has bytes that no runtime can be told, as they are not UTF-8", rest)
		}
		out = append(out, specs.Mount{
			Destination: path.Join(pl.dest, rest), Type: "bind", Source: pl.staged() + rest,
			Options: stagedOptions(strings.Split(m.Options, ","), false),
		})
	}
	slices.SortFunc(out, func(a, b specs.Mount) int { return strings.Compare(a.Source, b.Source) })
	return out, nil
}

// isSeen tells whether a mount's own root is what is found under its name, and not
// what another one covers it by.
func isSeen(m *mountinfo.Info) (bool, error) {
	fd, err := at.Look(unix.AT_FDCWD, m.Mountpoint)
	if errors.Is(err, os.ErrNotExist) { // mounted on what was removed
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer at.Close(fd)
	_, mount, err := at.StatMount(fd)
	return err == nil && mount == uint64(m.ID), err
}

// staged is what a place is called in the stage.
func (pl place) staged() string {
	return path.Join(StageDir, stagedDirectory, filepath.Base(pl.name))
}
