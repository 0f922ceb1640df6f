package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/client"
	"github.com/seed-f5e3b97b/bulkhead/internal/guest/protocol"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// serveVolumes starts a file server for each bind mount of s and lets the agent
// mount it. It returns the volumes' names by the mounts' index. idBase is the first
// of the workload's IDs in the guest: 0 where it has all of them.
func (r *remains) serveVolumes(ctx context.Context, s workload.Spec, p boundary.Prepared, c *client.Client, idBase uint32) (map[int]string, error) {
	names := map[int]string{}
	for n, m := range s.Mounts {
		if m.Type != "bind" {
			continue
		}
		if m.Propagation != "" && m.Propagation != "private" && m.Propagation != "rprivate" {
			return nil, fmt.Errorf("%w: mount %s: propagation %s does not reach into a virtual machine", workload.ErrUnsupported, m.Target, m.Propagation)
		}
		if err := makeSource(m); err != nil {
			return nil, err
		}
		serving := trace.Step(ctx, "file server started")
		v, err := fileserver.Start(ctx, fileserver.Config{
			Program: p.Machine.FileServer, Source: m.Source, ReadOnly: m.ReadOnly,
			IDBase: idBase, IDCount: p.IDCount, Recursive: m.Recursive,
			Cgroups: slices.Collect(maps.Values(r.cgroup.Paths())),
		})
		serving.End()
		if err != nil {
			return nil, fmt.Errorf("mount source %s: %w", m.Source, err)
		}
		r.volumes = append(r.volumes, v)
		name := string(s.ID[:16]) + "-" + strconv.Itoa(n)
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
