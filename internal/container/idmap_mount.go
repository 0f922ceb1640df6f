package container

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// helper is a small program of its own: a child that enters a user namespace
// and waits there while the host looks at it. No other process is executed.
//
//	host ── clone ──▶ child: enters, says so, waits, exits
//	host: does what it came for with /proc/CHILD, lets the child go
type helper struct {
	*launch.Program
	child launch.Slot
}

// newHelper begins the program. flags are those of the child's clone; enter
// adds steps of the host and returns a descriptor that the child needs.
func newHelper(name string, flags uintptr, flagText string, enter func(g *launch.Program) launch.Slot) (*helper, func() (*launch.Running, error), error) {
	io, err := makeExecPipes()
	if err != nil {
		return nil, nil, err
	}
	g := launch.New(name)
	status := g.Given("status", io.statusRead, "the child tells here how it fares")
	tell := g.Given("tell", io.statusWrite, "its end of it")
	goRead := g.Given("go", io.goRead, "the host lets the child go on")
	goWrite := g.Given("let_go", io.goWrite, "its own end of it")
	g.Status(status, tell)
	h := &helper{g, g.Slot("child")}
	keep := []launch.Arg{launch.Use(tell), launch.Use(goRead)}
	if enter != nil {
		keep = append(keep, launch.Use(enter(g)))
	}
	g.Fork(launch.Host, launch.Stage, flags, flagText, h.child, 0, "a child in the user namespace")
	// It must not hold the host's end of the pipe: if the host dies, it ends.
	g.CloseOthers(launch.Stage, "nothing but the pipe to wait at", keep...)
	return h, func() (*launch.Running, error) {
		g.Do(launch.Host, launch.Write, "the child may go", launch.Use(goWrite), launch.Str("."), launch.Int(1)).Wanting(1)
		g.Do(launch.Stage, launch.Read, "until the host says so", launch.Use(goRead), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
		g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
		g.Do(launch.Host, launch.Wait4, "", launch.Use(h.child), launch.Null(), launch.Int(0), launch.Null())
		if err := g.Build(); err != nil {
			g.Close()
			return nil, err
		}
		return g.Run(context.Background(), launch.Options{Child: h.child, Detached: true})
	}, nil
}

// mapNamespace returns a descriptor of a user namespace with the given maps.
// A mount with maps of its own refers to it (mount_setattr(2),
// MOUNT_ATTR_IDMAP); no process stays in it.
func mapNamespace(uids, gids []specs.LinuxIDMapping) (int, error) {
	h, run, err := newHelper("ID map of a mount", unix.CLONE_NEWUSER, "CLONE_NEWUSER", nil)
	if err != nil {
		return -1, err
	}
	ns := h.Slot("userns")
	writeProc(h.Program, h.child, "uid_map", mapText(uids), "users of the mount")
	writeProc(h.Program, h.child, "gid_map", mapText(gids), "groups of the mount")
	h.Do(launch.Host, launch.Openat, "the map", launch.AtCWD(), launch.Pathf("/proc/%d/ns/user", h.child),
		launch.Flag(unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"), launch.Int(0)).ToFD(ns)
	h.Keep(ns)
	r, err := run()
	if err != nil {
		return -1, fmt.Errorf("make the ID map of the mount: %w", err)
	}
	return r.Value(ns), nil
}

// mapsOf reads the maps of a user namespace that only a path names, such as a
// bind mount of it: a child enters it and shows them.
func mapsOf(nsPath string) (m idMap, err error) {
	var ns launch.Slot
	h, run, err := newHelper("maps of a user namespace", 0, "0", func(g *launch.Program) launch.Slot {
		ns = g.Slot("userns")
		g.Do(launch.Host, launch.Openat, "the user namespace to join", launch.AtCWD(), launch.Str(nsPath),
			launch.Flag(unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"), launch.Int(0)).ToFD(ns)
		return ns
	})
	if err != nil {
		return m, err
	}
	h.Do(launch.Stage, launch.Setns, "enter it", launch.Use(ns), launch.Flag(unix.CLONE_NEWUSER, "CLONE_NEWUSER"))
	h.Await(h.Tell(launch.Stage, 0, "entered"), 0, "the child has entered")
	h.Go("read its maps", func(value func(launch.Slot) int) (err error) {
		dir := "/proc/" + itoa(value(h.child))
		if m.uids, err = readMap(dir + "/uid_map"); err == nil {
			m.gids, err = readMap(dir + "/gid_map")
		}
		return err
	})
	if _, err := run(); err != nil {
		return idMap{}, fmt.Errorf("find the ID mappings of the user namespace %s: %w", nsPath, err)
	}
	return m, nil
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
