package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/fsuid"
)

// Stage is a mount namespace in which everything lies ready that a runtime which
// is not ours makes a container from: there the workload's own directory is
// StageDir, with the root file system in it and a place for each bind mount, its
// owners shifted and its attributes in force already. On the host's own mounts
// nothing of it appears, and when its last descriptor is closed and its last
// process has ended, nothing of it is left.
type Stage struct {
	// Namespace is the mount namespace, Root the root file system by itself, and
	// Tree the same with everything mounted in it; nil unless asked for.
	Namespace, Root, Tree *os.File
	// Mounts are those of the specification, with bind sources as they are called
	// in the namespace.
	Mounts []specs.Mount
}

// StageDir is where the workload's directory is in a stage: a path that is short,
// always the same and on every machine. What the host has there is covered.
const StageDir = "/run"

// StageRoot is where the root file system is in a stage.
const StageRoot = StageDir + "/root"

// stagedDirectory holds the places of bind mounts, treeDirectory the whole tree.
const (
	stagedDirectory = "mounts"
	treeDirectory   = "tree"
)

// StageConfig is what MakeStage needs.
type StageConfig struct {
	Dir    string // the workload's own, mode 0700
	Layers Layers
	// UIDs and GIDs shift the owners of the layers and of mounts with the option
	// "idmap"; none leave them.
	UIDs, GIDs []specs.LinuxIDMapping
	Mounts     []specs.Mount
	// Tree asks for Stage.Tree. Mounts of type tmpfs whose Options have "staged" are
	// made in the stage, too, and become bind mounts, so that they are part of it.
	Tree bool
	// ReadOnly has the root of Tree be read-only, as the workload's is to be. What is
	// mounted in it is as its own options say.
	ReadOnly bool
	// Below asks for a bind mount of its own for each mount below the source of one,
	// for a runtime that may not take them along.
	Below bool
	// Hide is a mount point of the host that is not shown in the stage, "" for none.
	Hide string
}

// StagedOption marks a tmpfs of StageConfig.Tree.
const StagedOption = "staged"

// stager plans the program that makes a stage.
type stager struct {
	*planner
	cfg    StageConfig
	tree   launch.Slot
	places []place
	out    []specs.Mount
}

// place is a mount that waits in the stage.
type place struct {
	dest, name string
	slot       launch.Slot
	file       bool
}

// MakeStage makes a stage. On error nothing is left but directories in cfg.Dir.
func MakeStage(ctx context.Context, cfg StageConfig) (*Stage, error) {
	f, err := readFacts()
	if err != nil {
		return nil, err
	}
	s, ns, err := newStager(cfg, f, false)
	if err != nil {
		return nil, err
	}
	r, err := s.prog.Run(context.WithoutCancel(ctx), launch.Options{Detached: true})
	if err != nil {
		return nil, explain(err)
	}
	take := func(slot launch.Slot, name string) *os.File { return os.NewFile(uintptr(r.Value(slot)), name) }
	out := &Stage{Namespace: take(ns, "mount namespace"), Root: take(s.root, "root"), Mounts: s.out}
	if cfg.Tree {
		out.Tree = take(s.tree, "tree")
	}
	return out, nil
}

// Close lets go of the stage. Processes in it go on.
func (s *Stage) Close() {
	for _, f := range []*os.File{s.Namespace, s.Root, s.Tree} {
		if f != nil {
			f.Close()
		}
	}
}

// Enter moves the calling thread into the stage: it must be locked, and end
// afterwards.
func (s *Stage) Enter() error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	return os.NewSyscallError("setns", unix.Setns(int(s.Namespace.Fd()), unix.CLONE_NEWNS))
}

// WriteStage prints the program that MakeStage would run.
func WriteStage(w io.Writer, cfg StageConfig) error {
	f, err := readFacts()
	if err != nil {
		return err
	}
	s, _, err := newStager(cfg, f, true)
	if err != nil {
		return err
	}
	defer s.prog.Close()
	_, err = s.prog.WriteTo(w)
	return err
}

func newStager(cfg StageConfig, f facts, dry bool) (_ *stager, ns launch.Slot, err error) {
	if len(cfg.Layers.Lower) == 0 {
		return nil, 0, errors.New("the image has no layers")
	}
	if len(cfg.Mounts) > maxListed {
		return nil, 0, fmt.Errorf("%d mounts: at most %d are possible", len(cfg.Mounts), maxListed)
	}
	s := &stager{cfg: cfg, planner: &planner{
		cfg: &Config{Dir: cfg.Dir, Layers: &cfg.Layers}, spec: &specs.Spec{Linux: &specs.Linux{}}, facts: f, prog: launch.New("stage"),
		ids: idMap{cfg.UIDs, cfg.GIDs}, dry: dry, rootPath: filepath.Join(cfg.Dir, rootDirectory),
	}}
	defer func() {
		if err != nil {
			s.prog.Close()
		}
	}()
	ns, err = s.plan()
	return s, ns, err
}

func (s *stager) plan() (ns launch.Slot, err error) {
	g := s.prog
	if err := s.makeDirectories(); err != nil {
		return 0, err
	}
	if s.ids.active() {
		fd := -1 // of a program that will not run
		if !s.dry {
			if fd, err = mapNamespace(s.cfg.UIDs, s.cfg.GIDs); err != nil {
				return 0, err
			}
		}
		s.userns = g.Given("userns", fd, "user namespace that holds the workload's map")
	}
	g.Phase("mount namespace")
	g.Do(launch.Host, launch.Unshare, "a mount namespace for the runtime, owned by the initial user namespace",
		launch.Flag(unix.CLONE_FS|unix.CLONE_NEWNS, "CLONE_FS|CLONE_NEWNS"))
	g.Do(launch.Host, launch.Mount, "nothing mounted here appears on the host, or the other way round", launch.Null(), launch.Str("/"), launch.Null(),
		launch.Flag(unix.MS_REC|unix.MS_PRIVATE, "MS_REC|MS_PRIVATE"), launch.Null())
	if s.cfg.Hide != "" {
		g.Do(launch.Host, launch.Umount2, "not for the runtime to see", launch.Str(s.cfg.Hide), launch.Flag(unix.MNT_DETACH, "MNT_DETACH"))
	}
	g.Phase("root file system")
	if err := s.planRoot(); err != nil {
		return 0, err
	}
	g.Keep(s.root)
	g.Phase("mounts")
	for _, m := range s.cfg.Mounts {
		if err := s.planPlace(m); err != nil {
			return 0, fmt.Errorf("mount at %q: %w", m.Destination, err)
		}
	}
	if s.cfg.Tree {
		s.planTree()
	}
	if s.cfg.Below {
		s.planBelow()
	}
	dir, ns := g.Slot("dir"), g.Slot("mounts")
	g.Do(launch.Host, launch.OpenTree, "all of this", launch.AtCWD(), launch.Str(s.cfg.Dir), cloneTreeRec).ToFD(dir)
	g.Do(launch.Host, launch.MoveMount, "under a short name, the same for every workload", launch.Use(dir), launch.Str(""), launch.AtCWD(), launch.Str(StageDir), moveFrom)
	g.Do(launch.Host, launch.Openat, "for the runtime to enter", launch.AtCWD(), launch.Str("/proc/thread-self/ns/mnt"),
		launch.Flag(unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"), launch.Int(0)).ToFD(ns)
	g.Keep(ns)
	return ns, g.Build()
}

// makeDirectories makes where things are mounted.
func (s *stager) makeDirectories() error {
	if s.dry {
		return nil
	}
	for _, d := range []string{rootDirectory, layersDirectory, stagedDirectory, treeDirectory} {
		if err := os.Mkdir(filepath.Join(s.cfg.Dir, d), 0o711); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// planPlace prepares one mount of the specification, unless it is the runtime's
// to make.
func (s *stager) planPlace(m specs.Mount) error {
	o, err := parseMountOptions(m.Options)
	if err != nil {
		return err
	}
	tmpfs := m.Type == "tmpfs" && slices.Contains(o.data, StagedOption)
	if !o.bind && !tmpfs {
		s.out = append(s.out, m)
		return nil
	}
	if o.propagation != 0 && o.propagation&unix.MS_PRIVATE == 0 {
		return errors.New("a runtime of its own takes part in no mounts of the host: its propagation can be private only")
	}
	g := s.prog
	pl := place{dest: path.Clean("/" + m.Destination), name: filepath.Join(s.cfg.Dir, stagedDirectory, strconv.Itoa(len(s.places)))}
	if tmpfs {
		o.ofNewFS()
		pl.slot = s.planTmpfs(o)
	} else if pl.slot, pl.file, err = s.planSource(m, o); err != nil {
		return err
	}
	if err := s.makePlace(pl); err != nil {
		return err
	}
	g.Do(launch.Host, launch.MoveMount, "", launch.Use(pl.slot), launch.Str(""), launch.AtCWD(), launch.Str(pl.name), moveFrom)
	s.places = append(s.places, pl)
	m.Type, m.Source = "bind", pl.staged()
	m.Options = stagedOptions(m.Options, tmpfs)
	s.out = append(s.out, m)
	return nil
}

// stagedOptions are those that a runtime is asked for once the mount is made:
// what every runtime knows.
func stagedOptions(options []string, tmpfs bool) []string {
	out := []string{"rbind", "rprivate"} // whatever is mounted below cannot be left out in a user namespace
	for _, o := range options {
		switch o {
		case "ro", "nosuid", "nodev", "noexec":
			out = append(out, o)
		}
	}
	if tmpfs && !slices.Contains(out, "nodev") {
		out = append(out, "nodev")
	}
	return out
}

// planSource clones the source of a bind mount.
func (s *stager) planSource(m specs.Mount, o mountOptions) (slot launch.Slot, file bool, err error) {
	g := s.prog
	fi, err := os.Stat(m.Source)
	switch {
	case err == nil:
		file = !fi.IsDir()
	case !s.dry:
		return 0, false, fmt.Errorf("source: %w", err)
	}
	slot = g.Slot(path.Clean("/" + m.Destination))
	clone := cloneTree
	if o.recursive {
		clone = cloneTreeRec
	}
	g.Do(launch.Host, launch.OpenTree, m.Destination, launch.AtCWD(), launch.Str(m.Source), clone).ToFD(slot)
	if o.idmap && s.ids.active() {
		s.setAttr(slot, attrs{set: unix.MOUNT_ATTR_IDMAP}, 0, o.idmapRec, "its owners shifted into the workload's range")
	}
	if !o.attrs.empty() {
		s.setAttr(slot, o.attrs, 0, false, "")
	}
	if !o.recAttrs.empty() {
		s.setAttr(slot, o.recAttrs, 0, true, "with all below")
	}
	return slot, file, nil
}

// planTmpfs makes a file system in memory that belongs to the workload's root.
func (s *stager) planTmpfs(o mountOptions) launch.Slot {
	g := s.prog
	fs, slot := g.Slot("tmpfs"), g.Slot("memory")
	g.Do(launch.Host, launch.Fsopen, "in memory, charged to the workload", launch.Str("tmpfs"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).ToFD(fs)
	if owner, err := s.ids.uid(0); err == nil && s.ids.active() {
		s.fsOption(fs, "uid", strconv.FormatUint(uint64(owner), 10))
		s.fsOption(fs, "gid", strconv.FormatUint(uint64(owner), 10))
	}
	for _, d := range o.data {
		if key, value, ok := cutOption(d); ok {
			s.fsOption(fs, key, value)
		}
	}
	g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsCreate, launch.Null(), launch.Null(), launch.Int(0))
	g.Do(launch.Host, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"),
		launch.Flag(unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID, "MOUNT_ATTR_NODEV|MOUNT_ATTR_NOSUID")).ToFD(slot)
	if a := (attrs{o.attrs.set &^ (unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOSUID), 0}); !a.empty() {
		s.setAttr(slot, a, 0, false, "")
	}
	return slot
}

// cutOption takes an option of a tmpfs apart; StagedOption is none.
func cutOption(o string) (key, value string, ok bool) {
	for i := range len(o) {
		if o[i] == '=' {
			return o[:i], o[i+1:], true
		}
	}
	return o, "", false
}

func (s *stager) makePlace(pl place) error {
	if s.dry {
		return nil
	}
	if !pl.file {
		return os.Mkdir(pl.name, 0o700)
	}
	f, err := os.OpenFile(pl.name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// planTree mounts everything where it belongs in a second view of the root: what
// the workload sees, for files that are copied in and out.
func (s *stager) planTree() {
	g := s.prog
	at := filepath.Join(s.cfg.Dir, treeDirectory)
	s.tree = g.Slot("tree")
	g.Do(launch.Host, launch.OpenTree, "the tree that files are copied in and out of", launch.AtCWD(), launch.Str(s.rootPath), cloneTree).ToFD(s.tree)
	g.Do(launch.Host, launch.MoveMount, "", launch.Use(s.tree), launch.Str(""), launch.AtCWD(), launch.Str(at), moveFrom)
	g.Keep(s.tree)
	owner := -1
	if id, err := s.ids.uid(0); err == nil && s.ids.active() {
		owner = int(id)
	}
	for _, dir := range s.kernelTrees() {
		s.planCover(dir, owner)
	}
	for n, pl := range s.places {
		holder := holderOf(s.places[:n], pl.dest)
		if slices.ContainsFunc(s.kernelTrees(), func(dir string) bool { return strings.HasPrefix(pl.dest, dir+"/") }) {
			continue
		}
		from := g.Slot("below")
		g.Do(launch.Host, launch.OpenTree, pl.dest, launch.AtCWD(), launch.Str(pl.name), cloneTreeRec).ToFD(from)
		g.Go("mount it there", func(value func(launch.Slot) int) error {
			if err := staysInside(value(s.tree), holder, pl.dest); err != nil {
				return err
			}
			err := mountInside(value(s.tree), value(from), pl, owner)
			if errors.Is(err, unix.EROFS) {
				return fmt.Errorf("%s does not exist in the volume at %s, which is read-only", pl.dest, holder)
			}
			return err
		}, s.tree, from)
	}
	if s.cfg.ReadOnly {
		s.setAttr(s.tree, attrs{set: unix.MOUNT_ATTR_RDONLY}, 0, false, "nor does a copy write what the workload may not")
	}
}

// kernelTrees are where the workload has file systems that the runtime makes, such as
// /proc, without those that lie in them.
func (s *stager) kernelTrees() []string {
	var out []string
	for _, m := range s.out {
		dest := path.Clean("/" + m.Destination)
		if m.Type != "bind" && !slices.ContainsFunc(out, func(dir string) bool { return strings.HasPrefix(dest, dir+"/") }) {
			out = append(out, dest)
		}
	}
	return out
}

// planCover mounts a devpts of its own in the place of what the runtime makes
// inside: a file system that has nothing in it, and is known as the kernel's.
func (s *stager) planCover(dir string, owner int) {
	g := s.prog
	fs, slot := g.Slot("cover"), g.Slot("covered")
	g.Do(launch.Host, launch.Fsopen, "what is "+dir+" inside cannot be reached from here", launch.Str("devpts"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).ToFD(fs)
	if owner >= 0 {
		s.fsOption(fs, "uid", strconv.Itoa(owner))
	}
	g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), fsCreate, launch.Null(), launch.Null(), launch.Int(0))
	g.Do(launch.Host, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"),
		launch.Flag(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV, "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NODEV")).ToFD(slot)
	g.Go("mount it there", func(value func(launch.Slot) int) error {
		return mountInside(value(s.tree), value(slot), place{dest: dir}, owner)
	}, s.tree, slot)
}

// holderOf finds the mount, of those that are there, in which a path lies; "" is the
// root.
func holderOf(there []place, dest string) (holder string) {
	for _, p := range there {
		if strings.HasPrefix(dest, p.dest+"/") && len(p.dest) > len(holder) {
			holder = p.dest
		}
	}
	return holder
}

// staysInside refuses a path in a volume that a link of the volume's leads out of it:
// whoever shares the volume chose that link.
func staysInside(root int, holder, dest string) error {
	if holder == "" {
		return nil
	}
	_, volume, err := mountAt(root, holder)
	for err == nil {
		var mount uint64
		var found bool
		if found, mount, err = mountAt(root, dest); found && mount != volume {
			return fmt.Errorf("the mount %q has a link that leads out of it: %s", holder, dest)
		}
		if found {
			return nil
		}
		dest = path.Dir(dest)
	}
	return err
}

// mountAt tells which mount a path is in, if it exists.
func mountAt(root int, name string) (found bool, mount uint64, err error) {
	fd, err := at.InRoot(root, name, true)
	if errors.Is(err, os.ErrNotExist) {
		return false, 0, nil
	}
	if err != nil {
		return false, 0, err
	}
	defer at.Close(fd)
	_, mount, err = at.StatMount(fd)
	return true, mount, err
}

func mountInside(root, from int, pl place, owner int) error {
	to, err := mountPoint(root, pl.dest, !pl.file, owner)
	if err != nil {
		return fmt.Errorf("mount point %s: %w", pl.dest, err)
	}
	defer at.Close(to)
	return os.NewSyscallError("move_mount", unix.MoveMount(from, "", to, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH))
}

// mountPoint opens a path inside of a root directory, whose links are followed
// as inside, and makes what of it is missing.
func mountPoint(root int, name string, dir bool, owner int) (int, error) {
	fd, err := at.InRoot(root, name, true)
	if !errors.Is(err, os.ErrNotExist) || path.Clean(name) == "/" {
		return fd, err
	}
	parent, err := mountPoint(root, path.Dir(name), true, owner)
	if err != nil {
		return -1, err
	}
	defer at.Close(parent)
	base := path.Base(name)
	create := func() error { return makeMountPoint(parent, base, dir) }
	if owner >= 0 {
		// Also in a volume whose owners are shifted, where the host's root has no ID.
		err = fsuid.Do(owner, owner, create)
	} else {
		err = create()
	}
	if err != nil {
		return -1, &os.PathError{Op: "create", Path: name, Err: err}
	}
	return at.InRoot(root, name, true)
}

func makeMountPoint(parent int, base string, dir bool) error {
	if dir {
		return unix.Mkdirat(parent, base, 0o755)
	}
	fd, err := unix.Openat(parent, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// Account completes a process whose runtime takes numbers only: who, "user[:group]"
// by name or number, is looked up in the account files below root, and HOME is
// added to its environment where it is missing. IDs that l maps to none of the
// host's are refused: not every runtime does so, and files would be given to
// whoever has the host's ID.
func Account(root *os.File, l *specs.Linux, p *specs.Process, who string) error {
	v := view{}
	v.mount("/", dirTree{int(root.Fd()), root.Name()})
	c := process{spec: p, env: p.Env, ids: idMap{l.UIDMappings, l.GIDMappings}}
	if err := c.findUser(&v, who); err != nil {
		return err
	}
	p.User.UID, p.User.GID, p.User.AdditionalGids, p.Env = c.uid, c.gid, c.groups, c.env
	return nil
}
