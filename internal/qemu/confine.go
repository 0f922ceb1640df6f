package qemu

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// inputs are what a program takes from the running system. Descriptors are -1
// in a program that is only printed.
type inputs struct {
	binds          []bind
	lastCapability int
	hardFiles      uint64 // RLIMIT_NOFILE, the hard one; 0 if unknown
	largest        int64  // bytes of the largest disk that may be written to
	unknown        bool   // there are disks whose size is not known yet
	filter         seccomp.Filter
	about          string // the filter, for people

	statusRead, statusWrite int
	null, stderr            int     // QEMU's standard streams
	fds                     []named // its descriptors from 3 on
	boot                    int     // a tmpfs with copies of the kernel and the initramfs; only for a machine that boots
	goRead, goWrite         int     // a pipe, where RAM is a file
	initramfs               bool    // whether there is one
	tasks                   []named // of cgroup v1
	cgroup                  named   // v2 directory; no name when there is none
}

type named struct {
	name string
	fd   int
	why  string
}

// planner makes the launch program of one QEMU.
type planner struct {
	cfg  Config
	in   inputs
	prog *launch.Program

	status, tell launch.Slot
	stage, child launch.Slot
	pidfd        launch.Slot
	root, boot   launch.Slot
	null, stderr launch.Slot
	fds, tasks   []launch.Slot
	cgroup       launch.Slot

	// Where RAM is a file: who has what the filter notifies of, and the pipe that
	// QEMU's process waits at until the supervisor has it.
	listener    launch.Slot
	goOn, letGo launch.Slot
}

// maxOpen is RLIMIT_NOFILE of QEMU: its own descriptors, those of disks that
// are put in while others are taken out, and room.
const maxOpen = 1024

// maxThreads is RLIMIT_NPROC: virtual processors, 64 workers of the disks, and room.
const maxThreads = 512

// plan makes the whole program. The descriptors belong to the program.
func plan(cfg Config, in inputs) (*planner, error) {
	p := &planner{cfg: cfg, in: in, prog: launch.New("qemu")}
	p.given()
	p.planStage()
	p.planRoot()
	p.planDevice()
	g := p.prog
	g.Do(launch.Init, launch.Fchdir, "", launch.Use(p.root))
	g.Do(launch.Init, launch.PivotRoot, "this root is all that QEMU sees", launch.Str("."), launch.Str("."))
	g.Do(launch.Init, launch.Umount2, "the host's files are gone from it", launch.Str("."), launch.Flag(unix.MNT_DETACH, "MNT_DETACH"))
	g.Do(launch.Init, launch.Chdir, "", launch.Str("/"))
	p.planDescriptors()
	p.planLimits()
	p.planPrivileges()
	p.planExec()
	if err := g.Build(); err != nil {
		g.Close()
		return nil, err
	}
	return p, nil
}

func (p *planner) given() {
	g := p.prog
	p.status = g.Given("status", p.in.statusRead, "children tell here how they fare")
	p.tell = g.Given("tell", p.in.statusWrite, "their end of it")
	g.Status(p.status, p.tell)
	g.Keep(p.status)
	p.null = g.Given("null", p.in.null, "/dev/null: QEMU's standard input")
	p.stderr = g.Given("stderr", p.in.stderr, "a pipe that keeps what QEMU says")
	for _, d := range p.in.fds {
		p.fds = append(p.fds, g.Given(d.name, d.fd, d.why))
	}
	if p.cfg.State == nil {
		p.boot = g.Given("boot", p.in.boot, "a tmpfs with copies of the guest's kernel and initramfs, attached nowhere yet")
	}
	if p.in.filter.Listener {
		p.goOn = g.Given("go_read", p.in.goRead, "QEMU's process waits here")
		p.letGo = g.Given("go_write", p.in.goWrite, "and goes on by this")
	}
	for _, t := range p.in.tasks {
		p.tasks = append(p.tasks, g.Given("tasks", t.fd, t.name))
	}
	if p.in.cgroup.name != "" {
		p.cgroup = g.Given("cgroup", p.in.cgroup.fd, p.in.cgroup.name)
	}
}

// planStage is the first child: it joins the cgroup, makes the namespaces and
// forks the process that becomes QEMU.
func (p *planner) planStage() {
	g := p.prog
	p.stage, p.child = g.Slot("stage"), g.Slot("qemu")
	g.Fork(launch.Host, launch.Stage, 0, "0", p.stage, p.cgroup, "a child to make the namespaces")
	keep := []launch.Arg{launch.Use(p.tell), launch.Use(p.null), launch.Use(p.stderr)}
	if p.cfg.State == nil {
		keep = append(keep, launch.Use(p.boot))
	}
	if p.in.filter.Listener {
		keep = append(keep, launch.Use(p.goOn))
	}
	for _, s := range slices.Concat(p.fds, p.tasks) {
		keep = append(keep, launch.Use(s))
	}
	g.CloseOthers(launch.Stage, "no other descriptor of ours reaches QEMU", keep...)
	p.prctl(launch.Stage, "our memory is nobody's to read", unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE", launch.Int(0))
	for i, t := range p.tasks {
		why := ""
		if i == 0 {
			why = "join the cgroups, one hierarchy after the other"
		}
		g.Do(launch.Stage, launch.Write, why, launch.Use(t), launch.Str("0"), launch.Int(1))
	}
	g.Do(launch.Stage, launch.Unshare, "mounts, processes, network, names of its own; there is no network in it but a loopback that is down",
		launch.Flag(unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP,
			"CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWIPC|CLONE_NEWUTS|CLONE_NEWCGROUP"))
	g.Fork(launch.Stage, launch.Init, unix.CLONE_PARENT, "CLONE_PARENT", p.child, 0, "the future QEMU, a child of the host")
	told := g.Tell(launch.Stage, p.child, "its process ID")
	g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
	g.Await(told, p.child, "QEMU's process exists")
	g.Do(launch.Host, launch.Wait4, "", launch.Use(p.stage), launch.Null(), launch.Int(0), launch.Null())
	p.pidfd = g.Slot("pidfd")
	g.Do(launch.Host, launch.PidfdOpen, "", launch.Use(p.child), launch.Int(0)).ToFD(p.pidfd)
	g.Keep(p.pidfd)
}

// planRoot makes a root of single files.
func (p *planner) planRoot() {
	g := p.prog
	g.Do(launch.Init, launch.Setsid, "")
	g.Do(launch.Init, launch.Mount, "nothing mounted here appears on the host, or the other way round", launch.Null(), launch.Str("/"), launch.Null(),
		launch.Flag(unix.MS_REC|unix.MS_PRIVATE, "MS_REC|MS_PRIVATE"), launch.Null())
	g.Do(launch.Init, launch.Umask, "modes are as written", launch.Int(0))
	var boot []bootFile
	if p.cfg.State == nil {
		boot = p.bootFiles()
	}
	p.root = p.tmpfs("root", "mount points only, read-only in the end", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV")
	g.Do(launch.Init, launch.MoveMount, "in this mount namespace only", launch.Use(p.root), launch.Str(""), launch.AtCWD(), launch.Str(p.cfg.Dir),
		launch.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"))
	made := map[string]bool{".": true}
	if p.cfg.Accel == KVM {
		p.mkdir("dev", made)
	}
	for _, b := range p.in.binds {
		m := g.Slot("file")
		p.mountPoint(b.to, made)
		g.Do(launch.Init, launch.OpenTree, "", launch.AtCWD(), launch.Str(b.from),
			launch.Flag(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC")).To(m)
		p.attach(m, b.to)
	}
	for _, b := range boot {
		p.mountPoint(b.to, made)
		p.attach(b.mount, b.to)
	}
	attr := launch.U64(unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0, unix.MS_PRIVATE, 0)
	g.Do(launch.Init, launch.MountSetattr, "everything in it is read-only, and nothing in it follows the host's mounts", launch.Use(p.root), launch.Str(""),
		launch.Flag(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "AT_EMPTY_PATH|AT_RECURSIVE"),
		launch.Buf(attr, "{attr_set=MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV, propagation=MS_PRIVATE}"), launch.Int(len(attr)))
}

// bootFile is a mount of a file that QEMU boots.
type bootFile struct {
	mount launch.Slot
	to    string
}

// bootFiles makes mounts of the copies of kernel and initramfs. Only what is
// attached can be cloned, so their file system is attached first, to where
// QEMU's root covers it. It goes with the rest of the host's files. The clones
// become read-only; the supervisor keeps its own way to write.
func (p *planner) bootFiles() (files []bootFile) {
	g := p.prog
	g.Do(launch.Init, launch.MoveMount, "in this mount namespace only, and soon covered", launch.Use(p.boot), launch.Str(""), launch.AtCWD(),
		launch.Str(p.cfg.Dir), launch.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"))
	names := []string{bootKernel}
	if p.in.initramfs {
		names = append(names, bootInitramfs)
	}
	for _, name := range names {
		f := bootFile{mount: g.Slot(name), to: "/" + name}
		g.Do(launch.Init, launch.OpenTree, "a mount of this one file", launch.Use(p.boot), launch.Str(name),
			launch.Flag(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC")).To(f.mount)
		files = append(files, f)
	}
	g.Do(launch.Init, launch.Close, "", launch.Use(p.boot))
	return files
}

// planDevice makes /dev/kvm, the only device there can be. Its owner is QEMU,
// so no group of the host's is needed.
func (p *planner) planDevice() {
	if p.cfg.Accel != KVM {
		return
	}
	g := p.prog
	dev := p.tmpfs("dev", "the one device", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NOEXEC")
	g.Do(launch.Init, launch.Mknodat, "the processor's virtualization", launch.Use(dev), launch.Str("kvm"), launch.Flag(unix.S_IFCHR|0o600, "S_IFCHR|0600"),
		launch.Flag(uintptr(unix.Mkdev(10, 232)), "makedev(10, 232)"))
	g.Do(launch.Init, launch.Fchownat, "", launch.Use(dev), launch.Str("kvm"), launch.Int(int(p.cfg.IDBase)), launch.Int(int(p.cfg.IDBase)),
		launch.Flag(unix.AT_SYMLINK_NOFOLLOW, "AT_SYMLINK_NOFOLLOW"))
	attr := launch.U64(unix.MOUNT_ATTR_RDONLY, 0, 0, 0)
	g.Do(launch.Init, launch.MountSetattr, "", launch.Use(dev), launch.Str(""), launch.Flag(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"),
		launch.Buf(attr, "{attr_set=MOUNT_ATTR_RDONLY}"), launch.Int(len(attr)))
	p.attach(dev, "/dev")
}

func (p *planner) tmpfs(name, why string, attr uintptr, attrText string) launch.Slot {
	g := p.prog
	fs, m := g.Slot("fs"), g.Slot(name)
	g.Do(launch.Init, launch.Fsopen, why, launch.Str("tmpfs"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).To(fs)
	for _, o := range [][2]string{{"source", "bulkhead"}, {"size", "64k"}, {"nr_inodes", "512"}, {"mode", "755"}} {
		g.Do(launch.Init, launch.Fsconfig, "", launch.Use(fs), launch.Flag(unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING"), launch.Str(o[0]), launch.Str(o[1]), launch.Int(0))
	}
	g.Do(launch.Init, launch.Fsconfig, "", launch.Use(fs), launch.Flag(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"), launch.Null(), launch.Null(), launch.Int(0))
	g.Do(launch.Init, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"), launch.Flag(attr, attrText)).To(m)
	g.Do(launch.Init, launch.Close, "", launch.Use(fs))
	return m
}

// mountPoint makes an empty file in the root, and the directories above it.
func (p *planner) mountPoint(at string, made map[string]bool) {
	p.mkdir(path.Dir(at[1:]), made)
	p.prog.Do(launch.Init, launch.Mknodat, "", launch.Use(p.root), launch.Str(at[1:]), launch.Flag(unix.S_IFREG|0o444, "S_IFREG|0444"), launch.Int(0))
}

func (p *planner) mkdir(dir string, made map[string]bool) {
	if made[dir] {
		return
	}
	p.mkdir(path.Dir(dir), made)
	made[dir] = true
	p.prog.Do(launch.Init, launch.Mkdirat, "", launch.Use(p.root), launch.Str(dir), launch.Flag(0o755, "0755"))
}

func (p *planner) attach(m launch.Slot, at string) {
	p.prog.Do(launch.Init, launch.MoveMount, "", launch.Use(m), launch.Str(""), launch.Use(p.root), launch.Str(at[1:]),
		launch.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"))
	p.prog.Do(launch.Init, launch.Close, "", launch.Use(m))
}

// planDescriptors puts QEMU's descriptors where its command says. The host has
// them at numbers far above, so none is overwritten before it is copied.
func (p *planner) planDescriptors() {
	g := p.prog
	for n, s := range slices.Concat([]launch.Slot{p.null, p.stderr, p.stderr}, p.fds) {
		why := "its standard streams"
		if n > 2 {
			why = p.in.fds[n-3].name
		}
		g.Do(launch.Init, launch.Dup3, why, launch.Use(s), launch.Int(n), launch.Int(0))
	}
	g.Do(launch.Init, launch.CloseRange, "nothing but these", launch.Int(3+len(p.fds)), launch.Flag(1<<32-1, "~0"),
		launch.Flag(unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC"))
}

func (p *planner) planLimits() {
	files := uint64(maxOpen)
	if p.in.hardFiles != 0 {
		files = min(files, p.in.hardFiles)
	}
	for _, l := range []struct {
		name string
		n    int
		max  uint64
	}{
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0}, // the guest's memory is no file of the host's
		// The disks are files that it may write to: none can be made to grow until
		// the host's disk is full.
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, uint64(p.in.largest)},
		{"RLIMIT_NOFILE", unix.RLIMIT_NOFILE, files},
		{"RLIMIT_NPROC", unix.RLIMIT_NPROC, maxThreads},
		{"RLIMIT_MEMLOCK", unix.RLIMIT_MEMLOCK, 0},
		{"RLIMIT_MSGQUEUE", unix.RLIMIT_MSGQUEUE, 0},
	} {
		text := fmt.Sprintf("{%d, %d}", l.max, l.max)
		if l.n == unix.RLIMIT_FSIZE && p.in.unknown {
			text = "{the size of the largest disk that it may write to}"
		}
		p.prog.Do(launch.Init, launch.Prlimit64, "", launch.Int(0), launch.Flag(uintptr(l.n), l.name),
			launch.Buf(launch.U64(l.max, l.max), text), launch.Null())
	}
}

// planPrivileges drops every privilege there is. The dumpable flag does not
// outlive execve(2); that QEMU's memory is not read follows from its user, which
// no other process has.
func (p *planner) planPrivileges() {
	g := p.prog
	why := "capabilities that no program can regain"
	for n := 0; n <= p.in.lastCapability; n++ {
		p.prctl(launch.Init, why, unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP", launch.Int(n))
		why = ""
	}
	id := launch.Int(int(p.cfg.IDBase))
	g.Do(launch.Init, launch.RtSigprocmask, "no signal of the caller's stays blocked", launch.Flag(unix.SIG_SETMASK, "SIG_SETMASK"),
		launch.Buf(make([]byte, 8), "[]"), launch.Null(), launch.Int(8))
	g.Do(launch.Init, launch.Setgroups, "no group", launch.Int(0), launch.Null())
	g.Do(launch.Init, launch.Setresgid, "", id, id, id)
	g.Do(launch.Init, launch.Setresuid, "a user that owns nothing", id, id, id)
	p.prctl(launch.Init, "again: the change of user made it what fs.suid_dumpable says", unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE", launch.Int(0))
	header := make([]byte, 8) // struct __user_cap_header_struct: version 3, this thread
	binary.NativeEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	g.Do(launch.Init, launch.Capset, "no capability", launch.Buf(header, "{_LINUX_CAPABILITY_VERSION_3, 0}"), launch.Buf(make([]byte, 24), "{none}"))
	p.prctl(launch.Init, "none passes over execve by itself", unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT", launch.Flag(unix.PR_CAP_AMBIENT_CLEAR_ALL, "PR_CAP_AMBIENT_CLEAR_ALL"))
	p.prctl(launch.Init, "ends with its supervisor", unix.PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG", launch.Flag(uintptr(unix.SIGKILL), "SIGKILL"))
	p.prctl(launch.Init, "no program gains privileges by being executed", unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", launch.Int(1))
}

func (p *planner) prctl(a launch.Actor, why string, op int, text string, arg launch.Arg) {
	p.prog.Do(a, launch.Prctl, why, launch.Flag(uintptr(op), text), arg, launch.Int(0), launch.Int(0), launch.Int(0))
}

// planExec ends QEMU's preparation. The message before it fails when the
// supervisor died before the parent-death signal was armed: nobody else reads
// the pipe.
func (p *planner) planExec() {
	g := p.prog
	ready := g.Tell(launch.Init, 0, "ready, and the supervisor is there to hear it")
	filter := g.Do(launch.Init, launch.Seccomp, p.in.about, launch.Flag(unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"),
		launch.Flag(uintptr(p.in.filter.Flags), fmt.Sprintf("%#x", p.in.filter.Flags)),
		launch.SockFprog(p.in.filter.Bytes(), fmt.Sprintf("{%d instructions}", len(p.in.filter.Insns))))
	if p.in.filter.Listener {
		p.planListener(filter)
	}
	g.Do(launch.Init, launch.Execve, "QEMU", launch.Str(pathBinary), launch.Strs(Command(p.cfg)).Printed("[the command]"), launch.Strs(environment))
	g.Await(ready, 0, "QEMU's process is confined")
}

// planListener has the supervisor take the descriptor by which it opens files
// for QEMU. Execve closes it, so QEMU never has it.
func (p *planner) planListener(filter *launch.Step) {
	g := p.prog
	theirs, number := g.Slot("listener"), g.Slot("listener_number")
	filter.To(theirs)
	g.AwaitValue(g.Tell(launch.Init, theirs, "the listener's descriptor"), number, "the listener's descriptor")
	p.listener = g.Slot("taken_listener")
	g.Do(launch.Host, launch.PidfdGetfd, "what QEMU opens to write, the supervisor opens in its place", launch.Use(p.pidfd), launch.Use(number), launch.Int(0)).ToFD(p.listener)
	g.Keep(p.listener)
	g.Do(launch.Host, launch.Write, "QEMU's process may go on", launch.Use(p.letGo), launch.Str("."), launch.Int(1)).Wanting(1)
	g.Do(launch.Init, launch.Read, "until the supervisor says so", launch.Use(p.goOn), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
}

// environment is all that QEMU gets. One arena of malloc(3) for all threads, see
// mallopt(3), M_ARENA_MAX: what the tables of addresses of a virtual processor
// leave behind when they change their size serves others, which is 1 to 2 MB.
var environment = []string{
	"LD_LIBRARY_PATH=" + pathLibraries, "QEMU_MODULE_DIR=" + pathModules, "LC_ALL=C", "TZ=UTC0", "HOME=/", "MALLOC_ARENA_MAX=1",
}
