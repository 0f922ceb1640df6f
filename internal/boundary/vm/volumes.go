package vm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// The names of volumes that are held in a template, by their mounts' index: they say
// whether it is a directory or a file, and belong to what the template is for.
const heldFile, heldDirectory = "file-", "directory-"

// heldVolumes returns the mounts of a workload for nobody, who has volumes of that
// kind at these places, whatever is shown there, and the volumes' names. ok is false
// where making the workload takes what is in one: another mount's place, the list of
// users, the working directory.
func heldVolumes(mounts []workload.Mount, cwd string) (out []workload.Mount, names map[int]string, ok bool) {
	for n, m := range mounts {
		if m.Type == "tmpfs" {
			out = append(out, m)
			continue
		}
		needed := []string{"/etc/passwd", "/etc/group", path.Join(cwd, "anything")}
		if path.Clean(cwd) == path.Clean(m.Target) { // which can be entered as it is
			needed = needed[:2]
		}
		for _, other := range mounts {
			needed = append(needed, path.Dir(path.Clean(other.Target)))
		}
		if slices.ContainsFunc(needed, func(name string) bool { return name == path.Clean(m.Target) || below(name, m.Target) }) {
			return nil, nil, false
		}
		kind := heldDirectory
		if m.Type == "bind" {
			fi, err := os.Stat(m.Source)
			switch {
			case err == nil && !fi.IsDir():
				kind = heldFile
			case err != nil && !(errors.Is(err, fs.ErrNotExist) && m.CreateSource):
				return nil, nil, false
			}
		}
		if !stays(m) {
			return nil, nil, false
		}
		if names == nil {
			names = map[int]string{}
		}
		names[n] = kind + strconv.Itoa(n)
		out = append(out, workload.Mount{Type: "bind", Target: m.Target, ReadOnly: m.ReadOnly, NoExec: m.NoExec, Recursive: m.Recursive})
	}
	return out, names, true
}

// below tells whether a path lies below another.
func below(name, dir string) bool {
	return strings.HasPrefix(name, strings.TrimSuffix(path.Clean(dir), "/")+"/")
}

// stays tells whether nothing that is mounted later appears on the other side.
func stays(m workload.Mount) bool {
	return m.Propagation == "" || m.Propagation == "private" || m.Propagation == "rprivate"
}

// holdVolumes has a guest mount the volumes of a workload for nobody.
func holdVolumes(ctx context.Context, c *client.Client, like protocol.Create) error {
	for _, name := range like.Volumes {
		if err := c.HoldVolume(ctx, name, strings.HasPrefix(name, heldFile)); err != nil {
			return err
		}
	}
	return nil
}

// serveVolumes starts a file server for each bind mount of s and lets the agent
// mount it, or serve with it what is held under the name that held has for the
// mount's index. It returns the volumes' names by the mounts' index. idBase is the first
// of the workload's IDs in the guest: 0 where it has all of them.
func (r *remains) serveVolumes(ctx context.Context, s workload.Spec, p boundary.Prepared, c *client.Client, idBase uint32, held map[int]string) (map[int]string, error) {
	names := map[int]string{}
	// The guest may not be done with those of the workload's last life.
	life := strings.ToLower(rand.Text())[:8]
	for n, m := range s.Mounts {
		if m.Type != "bind" {
			continue
		}
		if !stays(m) {
			return nil, &sourceError{fmt.Errorf("%w: mount %s: propagation %s does not reach into a virtual machine", workload.ErrUnsupported, m.Target, m.Propagation)}
		}
		if err := makeSource(m); err != nil {
			return nil, &sourceError{err}
		}
		serving := trace.Step(ctx, "file server started")
		v, err := fileserver.Start(ctx, fileserver.Config{
			Program: p.Machine.FileServer, Source: m.Source, ReadOnly: m.ReadOnly,
			IDBase: idBase, IDCount: p.IDCount, Recursive: m.Recursive,
			Cgroups: slices.Collect(maps.Values(r.cgroup.Paths())),
		})
		serving.End()
		if err != nil {
			return nil, &sourceError{fmt.Errorf("mount source %s: %w", m.Source, err)}
		}
		r.volumes = append(r.volumes, v)
		name, ok := held[n]
		if !ok {
			name = string(s.ID[:16]) + "-" + life + "-" + strconv.Itoa(n)
		}
		attaching := trace.Step(ctx, "volume attached")
		err = within(ctx, answerTimeout, func(ctx context.Context) error {
			_, err := c.AttachVolume(ctx, name, v.File(), func(stream io.ReadWriteCloser) { protocol.Relay(stream, v.Conn()) })
			return err
		})
		attaching.End()
		if err != nil {
			return nil, fmt.Errorf("mount source %s: %w", m.Source, r.blame(err))
		}
		names[n] = name
	}
	return names, nil
}

// sourceError is about the host's side of a volume, whatever machine it is for.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// makeSource makes a missing directory that -v names, as Docker does.
func makeSource(m workload.Mount) error {
	if _, err := os.Stat(m.Source); !errors.Is(err, fs.ErrNotExist) || !m.CreateSource {
		return err
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("mount source: %w", err)
	}
	return nil
}
