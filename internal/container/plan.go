package container

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// planner builds the program that creates one container.
type planner struct {
	cfg   *Config
	spec  *specs.Spec
	facts facts
	prog  *launch.Program
	ids   idMap
	ns    namespaces
	view  view
	proc  process

	late *launch.Late // with Config.Late, and
	home string       // what HOME will be in the environment that comes

	dry    bool     // the program is only to be printed: what the engine makes first need not exist
	held   []int    // descriptors that planning opened for looking
	masked []string // paths that are masked, resolved

	// Slots of the program.
	status, tell launch.Slot // status pipe
	goRead, goAt launch.Slot // pipe by which the host lets a child go on
	start        launch.Slot // FIFO that start writes to
	stage, first launch.Slot // process IDs
	told, early  launch.Message
	pidfd        launch.Slot
	userns       launch.Slot
	cgroupDir    launch.Slot
	tasks        []launch.Slot
	root         launch.Slot
	umask        launch.Slot // the caller's, for its hooks
	terminal     launch.Slot // master
	slave        launch.Slot
	mounts       []*plannedMount
	unmapped     map[launch.Slot]bool // directories of an ID-mapped volume, opened without the map
	nodes        launch.Slot          // file system of device nodes, 0 before the first
	bound        int                  // how many are in it
	copied       *copier              // what fills file systems, nil before the first
	rootPath     string               // where the root is attached on the host before the pivot
}

// newPlanner checks the parts of the specification that concern the whole.
func newPlanner(cfg *Config, f facts) (*planner, error) {
	s := cfg.Spec
	if s.Linux == nil || s.Process == nil || (s.Root == nil && cfg.Layers == nil) {
		return nil, errors.New("the runtime configuration needs process, root and linux")
	}
	if err := checkCounts(cfg); err != nil {
		return nil, err
	}
	p := &planner{cfg: cfg, spec: s, facts: f, prog: launch.New("create")}
	var err error
	if p.ns, err = planNamespaces(s); err != nil {
		return nil, err
	}
	switch p.ns.user {
	case newUserNamespace:
		p.ids = idMap{s.Linux.UIDMappings, s.Linux.GIDMappings}
		if err := checkMappings("uidMappings", p.ids.uids); err != nil {
			return nil, err
		}
		if err := checkMappings("gidMappings", p.ids.gids); err != nil {
			return nil, err
		}
	case joinedUserNamespace:
		if p.ids, err = readIDMap(p.ns.paths[specs.UserNamespace], s.Linux); err != nil {
			return nil, err
		}
	default:
		if len(s.Linux.UIDMappings)+len(s.Linux.GIDMappings) > 0 {
			return nil, errors.New("ID mappings need a user namespace")
		}
	}
	return p, nil
}

// maxListed bounds lists whose entries take a descriptor, a mount or a look
// through all mounts each. A program has about as many slots; without a bound
// of their own, a hostile specification costs the square of its size.
const maxListed = 2000

// checkCounts refuses what would take too long to be found too much.
func checkCounts(cfg *Config) error {
	s := cfg.Spec
	for _, l := range []struct {
		what string
		n    int
	}{
		{"mounts", len(s.Mounts)}, {"devices", len(s.Linux.Devices)}, {"maskedPaths", len(s.Linux.MaskedPaths)},
		{"readonlyPaths", len(s.Linux.ReadonlyPaths)}, {"sysctls", len(s.Linux.Sysctl)}, {"rlimits", len(s.Process.Rlimits)},
		{"descriptors to preserve", cfg.PreserveFDs},
	} {
		if l.n > maxListed {
			return fmt.Errorf("%d %s: at most %d are possible", l.n, l.what, maxListed)
		}
	}
	if cfg.PreserveFDs < 0 {
		return fmt.Errorf("%d descriptors to preserve", cfg.PreserveFDs)
	}
	return nil
}

// release closes what planning opened for looking.
func (p *planner) release() {
	if p.late != nil {
		p.late.Close()
	}
	for _, fd := range p.held {
		unix.Close(fd)
	}
	p.held = nil
}

// timeOffsets is what the kernel reads from timens_offsets (time_namespaces(7)).
func timeOffsets(m map[string]specs.LinuxTimeOffset) string {
	var b strings.Builder
	for _, clock := range []string{"monotonic", "boottime"} {
		if o, ok := m[clock]; ok {
			fmt.Fprintf(&b, "%s %d %d\n", clock, o.Secs, o.Nanosecs)
		}
	}
	return b.String()
}

// pipes are the channels between host and children, made before the program.
type pipes struct {
	statusRead, statusWrite int
	goRead, goWrite         int
	start                   int // -1: the first process does not wait to be started
}

// plan makes the whole program. The pipes belong to the program afterwards,
// also when planning fails.
func (p *planner) plan(io pipes) (err error) {
	g := p.prog
	p.status = g.Given("status", io.statusRead, "children tell here how they fare")
	p.tell = g.Given("tell", io.statusWrite, "their end of it")
	p.goRead = g.Given("go", io.goRead, "the host lets a waiting child go on")
	p.goAt = g.Given("let_go", io.goWrite, "its own end of it")
	if io.start >= 0 {
		p.start = g.Given("start", io.start, "FIFO: one byte starts the container's program")
	}
	g.Status(p.status, p.tell)
	g.Keep(p.status)
	p.stage, p.first = g.Slot("stage"), g.Slot("init")
	if err := p.planCgroup(); err != nil {
		return err
	}
	if err := p.openJoined(); err != nil {
		return err
	}
	if err := p.lookAtRoot(); err != nil {
		return err
	}
	if err := p.sortMounts(); err != nil {
		return err
	}
	if err := p.prepareProcess(); err != nil {
		return err
	}

	// The host's thread gets a mount namespace of its own.
	g.Phase("mount namespace")
	g.Do(launch.Host, launch.Unshare, "mount namespace A, owned by the initial user namespace",
		launch.Flag(unix.CLONE_FS|unix.CLONE_NEWNS, "CLONE_FS|CLONE_NEWNS"))
	p.planHostPropagation()
	if err := p.planTerminal(); err != nil {
		return err
	}
	g.Phase("clone, user namespace")
	p.planStage()
	g.Phase("root file system")
	if err := p.planRoot(); err != nil {
		return err
	}
	g.Phase("namespaces, first process forked")
	if err := p.planMeeting(); err != nil {
		return err
	}
	g.Phase("mounts")
	if err := p.planMounts(); err != nil {
		return err
	}
	g.Phase("privileges, filter")
	if err := p.planProcess(); err != nil {
		return err
	}
	return g.Build()
}

// planCgroup takes the descriptors by which the child joins its cgroup.
func (p *planner) planCgroup() error {
	if p.cfg.Cgroup == nil {
		return nil
	}
	if p.dry {
		p.tasks, p.cgroupDir = describeCgroup(p.prog, p.cfg.Cgroup)
		return nil
	}
	var err error
	p.tasks, p.cgroupDir, err = giveCgroup(p.prog, p.cfg.Cgroup, nil)
	return err
}

// describeCgroup is giveCgroup for a cgroup that need not exist.
func describeCgroup(g *launch.Program, m *cgroup.Manager) (tasks []launch.Slot, dir launch.Slot) {
	paths := m.Paths()
	for i, name := range slices.Sorted(maps.Keys(paths)) {
		if name == "" {
			dir = g.Given("cgroup", -1, paths[name])
			continue
		}
		tasks = append(tasks, g.Given("tasks"+itoa(i), -1, paths[name]+"/tasks"))
	}
	return tasks, dir
}

// giveCgroup gives a program the descriptors by which a child joins a cgroup.
// inner, which it closes, replaces the cgroup's v2 directory unless it is nil.
func giveCgroup(g *launch.Program, m *cgroup.Manager, inner *os.File) (tasks []launch.Slot, dir launch.Slot, err error) {
	files, dirFile, err := m.Join()
	if err != nil {
		inner.Close() // nil is fine
		return nil, 0, err
	}
	if inner != nil {
		dirFile.Close()
		dirFile = inner
	}
	for i, f := range files {
		name := f.Name()
		fd, err := takeFD(f)
		if err != nil {
			return nil, 0, err
		}
		tasks = append(tasks, g.Given("tasks"+itoa(i), fd, name))
	}
	if dirFile != nil {
		name := dirFile.Name()
		fd, err := takeFD(dirFile)
		if err != nil {
			return nil, 0, err
		}
		dir = g.Given("cgroup", fd, name)
	}
	return tasks, dir, nil
}

// joinTasks joins the cgroup v1 hierarchies, each by one write.
func joinTasks(g *launch.Program, tasks []launch.Slot) {
	for i, t := range tasks {
		why := ""
		if i == 0 {
			why = "join the cgroups, one hierarchy after the other"
		}
		g.Do(launch.Stage, launch.Write, why, launch.Use(t), launch.Str("0"), launch.Int(1))
	}
}

// notDumpable closes a child's memory, program and descriptors to the workload
// (ptrace(2), access mode checking; CVE-2019-5736). A change of user or group
// resets the flag to fs.suid_dumpable, which is 1 on some machines: do it again
// after each, and before there is a process ID inside.
func notDumpable(g *launch.Program, a launch.Actor, why string) {
	g.Do(a, launch.Prctl, why,
		launch.Flag(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), launch.Int(0), launch.Int(0), launch.Int(0), launch.Int(0))
}

// takeFD duplicates the descriptor of f, close-on-exec, and closes f.
func takeFD(f *os.File) (int, error) {
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return -1, os.NewSyscallError("fcntl", err)
	}
	return fd, nil
}

// openJoined opens the namespaces that the container joins.
func (p *planner) openJoined() error {
	for i := range p.ns.join {
		j := &p.ns.join[i]
		fd, err := unix.Open(j.path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("join the %s namespace: %w", j.kind, &os.PathError{Op: "open", Path: j.path, Err: err})
		}
		j.slot = p.prog.Given("join_"+string(j.kind), fd, j.path)
		if j.kind == specs.UserNamespace {
			p.userns = j.slot
		}
	}
	return nil
}

// planHostPropagation cuts mount namespace A off from the host's.
func (p *planner) planHostPropagation() {
	flags, text := uintptr(unix.MS_REC|unix.MS_PRIVATE), "MS_REC|MS_PRIVATE"
	why := "nothing mounted here appears on the host, or the other way round"
	switch p.spec.Linux.RootfsPropagation {
	case "slave", "rslave", "shared", "rshared":
		flags, text = unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"
		why = "nothing mounted here appears on the host"
	}
	for _, m := range p.mounts {
		if m.opts.propagation&(unix.MS_SHARED|unix.MS_SLAVE) != 0 && flags&unix.MS_PRIVATE != 0 {
			flags, text = unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"
			why = "nothing mounted here appears on the host"
		}
	}
	p.prog.Do(launch.Host, launch.Mount, why, launch.Null(), launch.Str("/"), launch.Null(), launch.Flag(flags, text), launch.Null())
}

// planStage is the first child: it joins the cgroup, makes or joins the
// namespaces, and forks the future first process.
func (p *planner) planStage() {
	g := p.prog
	g.Fork(launch.Host, launch.Stage, 0, "0", p.stage, p.cgroupDir, "a child to make the namespaces")
	g.CloseOthers(launch.Stage, "no other descriptor of ours reaches the container (CVE-2024-21626)", p.inherited()...)
	notDumpable(g, launch.Stage, "our memory is not for the workload to read")
	joinTasks(g, p.tasks)
	// While it is the host's root: a namespace that the host's user namespace
	// owns, such as a network that was prepared, is closed to any other root.
	p.planJoins()
	p.planUserNamespace()
	if p.ns.new != 0 {
		g.Do(launch.Stage, launch.Unshare, "the container's own view of processes, network, names and limits",
			launch.Flag(p.ns.new, flagNames(p.ns.new)))
	}
	if p.ns.new&unix.CLONE_NEWTIME != 0 && len(p.spec.Linux.TimeOffsets) > 0 {
		g.Await(g.Tell(launch.Stage, 0, "time namespace made"), 0, "time namespace made")
		p.writeProc(p.stage, "timens_offsets", timeOffsets(p.spec.Linux.TimeOffsets), "offsets of its clocks")
		p.letGo(launch.Stage)
	}
	g.Fork(launch.Stage, launch.Init, unix.CLONE_PARENT, "CLONE_PARENT", p.first, 0, "the future first process, a child of the host")
	p.told = g.Tell(launch.Stage, p.first, "its process ID")
	g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
}

// planJoins joins namespaces that exist.
func (p *planner) planJoins() {
	for _, j := range p.ns.join {
		if j.kind != specs.UserNamespace {
			p.prog.Do(launch.Stage, launch.Setns, "join the "+string(j.kind)+" namespace", launch.Use(j.slot),
				launch.Flag(j.flag, namespaceFlags[j.kind].name))
		}
	}
}

// inherited are the descriptors that the children need.
func (p *planner) inherited() []launch.Arg {
	keep := []launch.Arg{launch.Use(p.tell), launch.Use(p.goRead)}
	for n := range 3 + p.cfg.PreserveFDs {
		keep = append(keep, launch.FD(n))
	}
	if p.start != 0 {
		keep = append(keep, launch.Use(p.start))
	}
	for _, s := range p.tasks {
		keep = append(keep, launch.Use(s))
	}
	for _, j := range p.ns.join {
		keep = append(keep, launch.Use(j.slot))
	}
	if p.slave != 0 {
		keep = append(keep, launch.Use(p.slave))
	}
	for _, s := range p.proc.stdio {
		if s != 0 {
			keep = append(keep, launch.Use(s))
		}
	}
	return keep
}

// planUserNamespace makes or joins the user namespace and becomes its root.
func (p *planner) planUserNamespace() {
	g := p.prog
	switch p.ns.user {
	case noUserNamespace:
		return
	case joinedUserNamespace:
		g.Do(launch.Stage, launch.Setns, "join the user namespace", launch.Use(p.userns), launch.Flag(unix.CLONE_NEWUSER, "CLONE_NEWUSER"))
	case newUserNamespace:
		g.Do(launch.Stage, launch.Unshare, "root inside becomes nobody outside", launch.Flag(unix.CLONE_NEWUSER, "CLONE_NEWUSER"))
		g.Await(g.Tell(launch.Stage, 0, "ID maps wanted"), 0, "the user namespace is made")
		p.writeProc(p.stage, "uid_map", mapText(p.ids.uids), "users inside are these of the host")
		p.writeProc(p.stage, "gid_map", mapText(p.ids.gids), "groups inside are these of the host")
		p.userns = g.Slot("userns")
		g.Do(launch.Host, launch.Openat, "the ID map for layers and volumes", launch.AtCWD(), launch.Pathf("/proc/%d/ns/user", p.stage),
			launch.Flag(unix.O_RDONLY|unix.O_CLOEXEC, "O_RDONLY|O_CLOEXEC"), launch.Int(0)).ToFD(p.userns)
		p.letGo(launch.Stage)
	}
	becomeRoot(g, launch.Stage)
}

// becomeRoot takes ID 0 of the namespace the actor is in. It comes before the
// namespaces that record their creator, or their files belong to nobody.
func becomeRoot(g *launch.Program, a launch.Actor) {
	g.Do(a, launch.Setgroups, "no group of the caller", launch.Int(0), launch.Null())
	g.Do(a, launch.Setresgid, "", launch.Int(0), launch.Int(0), launch.Int(0))
	g.Do(a, launch.Setresuid, "root of the new user namespace", launch.Int(0), launch.Int(0), launch.Int(0))
	notDumpable(g, a, "again: the change of user made it what fs.suid_dumpable says")
}

// writeProc writes a file of a child's directory in the host's /proc.
func (p *planner) writeProc(pid launch.Slot, file, text, why string) {
	writeProc(p.prog, pid, file, text, why)
}

func writeProc(g *launch.Program, pid launch.Slot, file, text, why string) {
	fd := g.Slot(filepath.Base(file))
	g.Do(launch.Host, launch.Openat, why, launch.AtCWD(), launch.Pathf("/proc/%d/"+file, pid),
		launch.Flag(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"), launch.Int(0)).ToFD(fd)
	g.Do(launch.Host, launch.Write, "", launch.Use(fd), launch.Str(text), launch.Int(len(text))).Wanting(len(text))
}

// letGo lets a child go on that reads from the go pipe.
func (p *planner) letGo(a launch.Actor) {
	p.prog.Do(launch.Host, launch.Write, "the "+a.String()+" may go on", launch.Use(p.goAt), launch.Str("."), launch.Int(1)).Wanting(1)
	p.prog.Do(a, launch.Read, "until the host says so", launch.Use(p.goRead), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
}

// planMeeting is where the host learns of the first process and enters the
// namespaces whose contents it is about to mount.
func (p *planner) planMeeting() error {
	g := p.prog
	p.proc.planSession(g)
	p.planEnding()
	p.planNames()
	p.planSysctls()
	p.early = g.Tell(launch.Init, 0, "done with the host's /proc")
	g.Await(p.told, p.first, "the first process exists")
	g.Do(launch.Host, launch.Wait4, "", launch.Use(p.stage), launch.Null(), launch.Int(0), launch.Null())
	p.pidfd = g.Slot("pidfd")
	g.Do(launch.Host, launch.PidfdOpen, "", launch.Use(p.first), launch.Int(0)).ToFD(p.pidfd)
	g.Keep(p.pidfd)
	if err := planLimits(g, p.facts, p.spec.Process, p.first, ""); err != nil {
		return err
	}
	flags := uintptr(0)
	for _, t := range []specs.LinuxNamespaceType{specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.CgroupNamespace} {
		if p.ns.types[t] {
			flags |= namespaceFlags[t].flag
		}
	}
	if flags != 0 {
		g.Do(launch.Host, launch.Setns, "so that sysfs, mqueue and cgroup show the container's", launch.Use(p.pidfd), launch.Flag(flags, flagNames(flags)))
	}
	return nil
}

// planSysctls writes kernel parameters of the namespaces that the first process
// is in. It does that as root of its user namespace, whose the parameters of
// IPC and mqueue are, while /proc/sys is still the host's own.
func (p *planner) planSysctls() {
	for _, kv := range sortedSysctls(p.spec.Linux.Sysctl) {
		fd := p.prog.Slot("sysctl")
		p.prog.Do(launch.Init, launch.Openat, "kernel parameter of the container's namespaces", launch.AtCWD(),
			launch.Str(kv.path), launch.Flag(unix.O_WRONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW, "O_WRONLY|O_CLOEXEC|O_NOFOLLOW"), launch.Int(0)).To(fd)
		p.prog.Do(launch.Init, launch.Write, kv.key, launch.Use(fd), launch.Str(kv.value), launch.Int(len(kv.value))).Wanting(len(kv.value))
		p.prog.Do(launch.Init, launch.Close, "", launch.Use(fd))
	}
}
