package container

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// mapNamespace returns a descriptor of a user namespace with the given maps.
// A mount with maps of its own refers to it (mount_setattr(2),
// MOUNT_ATTR_IDMAP); no process stays in it.
//
//	host ── clone(CLONE_NEWUSER) ──▶ child: waits, exits
//	host: writes the maps, opens the child's ns/user, lets it go
func mapNamespace(uids, gids []specs.LinuxIDMapping) (int, error) {
	io, err := makeExecPipes()
	if err != nil {
		return -1, err
	}
	g := launch.New("ID map of a mount")
	status := g.Given("status", io.statusRead, "the child tells here how it fares")
	tell := g.Given("tell", io.statusWrite, "its end of it")
	goRead := g.Given("go", io.goRead, "the host lets the child go on")
	goWrite := g.Given("let_go", io.goWrite, "its own end of it")
	g.Status(status, tell)
	child, ns := g.Slot("child"), g.Slot("userns")
	g.Fork(launch.Host, launch.Stage, unix.CLONE_NEWUSER, "CLONE_NEWUSER", child, 0, "a user namespace for the map")
	// It must not hold the host's end of the pipe: if the host dies, it ends.
	g.CloseOthers(launch.Stage, "nothing but the pipe to wait at", launch.Use(tell), launch.Use(goRead))
	writeProc(g, child, "uid_map", mapText(uids), "users of the mount")
	writeProc(g, child, "gid_map", mapText(gids), "groups of the mount")
	g.Do(launch.Host, launch.Openat, "the map", launch.AtCWD(), launch.Pathf("/proc/%d/ns/user", child),
		launch.Flag(unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"), launch.Int(0)).ToFD(ns)
	g.Keep(ns)
	g.Do(launch.Host, launch.Write, "the child may go", launch.Use(goWrite), launch.Str("."), launch.Int(1)).Wanting(1)
	g.Do(launch.Stage, launch.Read, "until the host says so", launch.Use(goRead), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
	g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
	g.Do(launch.Host, launch.Wait4, "", launch.Use(child), launch.Null(), launch.Int(0), launch.Null())
	if err := g.Build(); err != nil {
		g.Close()
		return -1, err
	}
	r, err := g.Run(context.Background(), launch.Options{Child: child, Detached: true})
	if err != nil {
		return -1, fmt.Errorf("make the ID map of the mount: %w", err)
	}
	return r.Value(ns), nil
}

// planIDMap shifts the owners of a mount: by the container's map, or by one of
// its own.
func (p *planner) planIDMap(m *plannedMount) error {
	userns, name, why := p.userns, "userns", "its owners shifted into the container's range"
	if m.ownMap {
		fd := -1 // of a program that will not run
		if !p.dry {
			var err error
			if fd, err = mapNamespace(m.spec.UIDMappings, m.spec.GIDMappings); err != nil {
				return err
			}
		}
		name = "idmap"
		userns = p.prog.Given(name, fd, "user namespace that holds the map of "+m.dest)
		why = "its owners shifted by its own map"
	}
	b := launch.U64(unix.MOUNT_ATTR_IDMAP, 0, 0, 0)
	flags := emptyPath
	if m.opts.idmapRec {
		flags = emptyRecursive
	}
	p.prog.Do(launch.Host, launch.MountSetattr, why, launch.Use(m.slot), launch.Str(""), flags,
		launch.Patched(b, 24, userns, "{attr_set=MOUNT_ATTR_IDMAP, userns_fd=$"+name+"}"), launch.Int(len(b)))
	return nil
}
