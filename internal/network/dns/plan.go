package dns

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/network/dns/resolve"
)

// A helper is one of the two processes, before it runs.
type helper struct {
	name string
	args []string
	id   uint32 // user and group
	// network says that it stays in the network namespace of whoever starts it.
	network bool
	// leases is the descriptor of the directory that becomes its root, absent
	// where that is empty.
	leases int
	// own are the descriptors that it starts with, from 0 on.
	own     []int
	files   uint64 // RLIMIT_NOFILE
	filter  seccomp.Filter
	program int
	tasks   []int // files through which it joins its cgroups of v1
	cgroup  int   // the directory of the one of v2, absent where there is none

	statusRead, statusWrite int // how the children fare
	goRead, goWrite         int // the children wait here for the host
}

const absent = -2

// Limits of both processes. They write to nothing but the log of their last words.
const (
	maxLog     = 64 << 10 // bytes, RLIMIT_FSIZE
	maxThreads = 64       // RLIMIT_NPROC: of the Go runtime, which uses about ten
)

// safe are the attributes of the one mount that a helper sees.
const (
	safe = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC |
		unix.MOUNT_ATTR_NOSYMFOLLOW | unix.MOUNT_ATTR_NOATIME
	safeText = "MOUNT_ATTR_RDONLY|MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC|MOUNT_ATTR_NOSYMFOLLOW|MOUNT_ATTR_NOATIME"
)

// planner makes the launch program of one helper.
type planner struct {
	h    helper
	prog *launch.Program

	status, tell     launch.Slot
	program          launch.Slot
	goRead, goWrite  launch.Slot
	own              []launch.Slot
	tasks            []launch.Slot
	cgroup           launch.Slot
	stage, pid, root launch.Slot
}

// plan makes the launch program of a helper, which owns the descriptors.
func plan(h helper, lastCap int) (*planner, error) {
	p := &planner{h: h, prog: launch.New(h.name)}
	p.given()
	p.planStage()
	p.planLimits()
	p.planRoot()
	p.planHelper(lastCap)
	if err := p.prog.Build(); err != nil {
		p.prog.Close()
		return nil, err
	}
	return p, nil
}

func (p *planner) given() {
	g := p.prog
	p.status = g.Given("status", p.h.statusRead, "the children tell here how they fare")
	p.tell = g.Given("tell", p.h.statusWrite, "their end of it")
	g.Status(p.status, p.tell)
	g.Keep(p.status)
	p.goRead = g.Given("go", p.h.goRead, "the children wait here for the host")
	p.goWrite = g.Given("let_go", p.h.goWrite, "the host's end of it")
	p.program = g.Given("program", p.h.program, "bulkhead-dns")
	seen := map[int]launch.Slot{}
	for i, fd := range p.h.own {
		s, ok := seen[fd]
		if !ok {
			s = g.Given("own"+strconv.Itoa(i), fd, "what it starts with")
			if fd >= 0 {
				seen[fd] = s
			}
		}
		p.own = append(p.own, s)
	}
	for i, fd := range p.h.tasks {
		p.tasks = append(p.tasks, g.Given("tasks"+strconv.Itoa(i), fd, "a cgroup to join"))
	}
	if p.h.cgroup != absent {
		p.cgroup = g.Given("cgroup", p.h.cgroup, "the cgroup to be born in")
	}
	p.planTree()
}

// planTree makes the mount that becomes the root, while the thread is in the
// mount namespace that the leases are in.
func (p *planner) planTree() {
	g := p.prog
	p.root = g.Slot("root")
	if p.h.leases == absent {
		fs := g.Slot("tmpfs")
		g.Do(launch.Host, launch.Fsopen, "a root with nothing in it", launch.Str("tmpfs"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).ToFD(fs)
		g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), launch.Flag(unix.FSCONFIG_SET_STRING, "FSCONFIG_SET_STRING"), launch.Str("mode"), launch.Str("555"), launch.Int(0))
		g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), launch.Flag(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"), launch.Null(), launch.Null(), launch.Int(0))
		g.Do(launch.Host, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"), launch.Flag(safe, safeText)).ToFD(p.root)
		return
	}
	leases := g.Given("leases", p.h.leases, "the directory of leases")
	empty := launch.Flag(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")
	g.Do(launch.Host, launch.OpenTree, "the leases, and nothing above them", launch.Use(leases), launch.Str(""),
		launch.Flag(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH, "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH")).ToFD(p.root)
	b := launch.U64(safe, unix.MOUNT_ATTR__ATIME, unix.MS_PRIVATE, 0)
	g.Do(launch.Host, launch.MountSetattr, "to be read, and nothing else", launch.Use(p.root), launch.Str(""), empty,
		launch.Buf(b, "{attr_set="+safeText+", attr_clr=MOUNT_ATTR__ATIME, propagation=MS_PRIVATE}"), launch.Int(len(b)))
}

// planStage is the first child: it joins the cgroups, makes the namespaces, and
// forks the process that becomes the helper.
func (p *planner) planStage() {
	g := p.prog
	g.Do(launch.Host, launch.Unshare, "mounts that only this thread and its children see", launch.Flag(unix.CLONE_FS|unix.CLONE_NEWNS, "CLONE_FS|CLONE_NEWNS"))
	g.Do(launch.Host, launch.Mount, "and that nobody else ever will", launch.Null(), launch.Str("/"), launch.Null(),
		launch.Flag(unix.MS_REC|unix.MS_PRIVATE, "MS_REC|MS_PRIVATE"), launch.Null())
	p.stage, p.pid = g.Slot("stage"), g.Slot("pid")
	g.Fork(launch.Host, launch.Stage, 0, "0", p.stage, p.cgroup, "a child to make the namespaces")
	keep := []launch.Arg{launch.Use(p.tell), launch.Use(p.goRead), launch.Use(p.program)}
	for _, s := range append(p.own, p.tasks...) {
		keep = append(keep, launch.Use(s))
	}
	g.CloseOthers(launch.Stage, "no other descriptor reaches the helper", keep...)
	p.notDumpable(launch.Stage, "a copy of our memory, for nobody to read")
	for _, t := range p.tasks {
		g.Do(launch.Stage, launch.Write, "join a cgroup", launch.Use(t), launch.Str("0"), launch.Int(1))
	}
	g.Do(launch.Stage, launch.Unshare, "no privilege over anything outside", launch.Flag(unix.CLONE_NEWUSER, "CLONE_NEWUSER"))
	g.Await(g.Tell(launch.Stage, 0, "ID maps wanted"), 0, "the user namespace is made")
	ids := fmt.Sprintf("%d %d 1\n", p.h.id, p.h.id)
	for _, name := range []string{"uid_map", "gid_map"} {
		fd := g.Slot(name)
		g.Do(launch.Host, launch.Openat, "the only ID in it", launch.AtCWD(), launch.Pathf("/proc/%d/"+name, p.stage),
			launch.Flag(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"), launch.Int(0)).ToFD(fd)
		g.Do(launch.Host, launch.Write, "", launch.Use(fd), launch.Str(ids), launch.Int(len(ids))).Wanting(len(ids))
	}
	p.letGo(launch.Stage)
	id := launch.Int(int(p.h.id))
	g.Do(launch.Stage, launch.Setgroups, "no group of the caller", launch.Int(0), launch.Null())
	g.Do(launch.Stage, launch.Setresgid, "", id, id, id)
	g.Do(launch.Stage, launch.Setresuid, "a user that owns nothing", id, id, id)
	p.notDumpable(launch.Stage, "again: the change of user made it what fs.suid_dumpable says")
	flags, text := uintptr(unix.CLONE_NEWPID|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP), "CLONE_NEWPID|CLONE_NEWIPC|CLONE_NEWUTS|CLONE_NEWCGROUP"
	why := "no other process, no queue of the host's"
	if !p.h.network {
		flags, text, why = flags|unix.CLONE_NEWNET, text+"|CLONE_NEWNET", why+", no network"
	}
	g.Do(launch.Stage, launch.Unshare, why, launch.Flag(flags, text))
	g.Fork(launch.Stage, launch.Init, unix.CLONE_PARENT, "CLONE_PARENT", p.pid, 0, "the helper, a child of the host")
	told := g.Tell(launch.Stage, p.pid, "its process ID")
	g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
	g.Await(told, p.pid, "the helper exists")
	g.Do(launch.Host, launch.Wait4, "", launch.Use(p.stage), launch.Null(), launch.Int(0), launch.Null())
}

// letGo makes a child wait for the host, and end when that is gone.
func (p *planner) letGo(a launch.Actor) {
	p.prog.Do(launch.Host, launch.Write, "the "+a.String()+" may go on", launch.Use(p.goWrite), launch.Str("."), launch.Int(1)).Wanting(1)
	p.prog.Do(a, launch.Read, "until the host says so", launch.Use(p.goRead), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
}

func (p *planner) prctl(a launch.Actor, why string, op int, text string, arg launch.Arg) {
	p.prog.Do(a, launch.Prctl, why, launch.Flag(uintptr(op), text), arg, launch.Int(0), launch.Int(0), launch.Int(0))
}

func (p *planner) notDumpable(a launch.Actor, why string) {
	p.prctl(a, why, unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE", launch.Int(0))
}

func (p *planner) planLimits() {
	for _, l := range []struct {
		number int
		name   string
		max    uint64
	}{
		{unix.RLIMIT_NOFILE, "RLIMIT_NOFILE", p.h.files},
		{unix.RLIMIT_NPROC, "RLIMIT_NPROC", maxThreads},
		{unix.RLIMIT_FSIZE, "RLIMIT_FSIZE", maxLog},
		{unix.RLIMIT_CORE, "RLIMIT_CORE", 0},
		{unix.RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", 0},
		{unix.RLIMIT_MSGQUEUE, "RLIMIT_MSGQUEUE", 0},
	} {
		p.prog.Do(launch.Host, launch.Prlimit64, "", launch.Use(p.pid), launch.Flag(uintptr(l.number), l.name),
			launch.Buf(launch.U64(l.max, l.max), fmt.Sprintf("{%d, %d}", l.max, l.max)), launch.Null())
	}
}

func (p *planner) planRoot() {
	g := p.prog
	g.Do(launch.Host, launch.MoveMount, "over the host's files", launch.Use(p.root), launch.Str(""), launch.AtCWD(), launch.Str("/"),
		launch.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"))
	g.Do(launch.Host, launch.Fchdir, "", launch.Use(p.root))
	g.Do(launch.Host, launch.PivotRoot, "it becomes /, for the helper too", launch.Str("."), launch.Str("."))
	g.Do(launch.Host, launch.Umount2, "the host's files are gone", launch.Str("."), launch.Flag(unix.MNT_DETACH, "MNT_DETACH"))
}

// planHelper is the future helper. It is to outlive whoever starts it, so there
// is no parent-death signal.
func (p *planner) planHelper(lastCap int) {
	g := p.prog
	p.letGo(launch.Init)
	g.Do(launch.Init, launch.Setsid, "")
	g.Do(launch.Init, launch.RtSigprocmask, "no signal of the caller's stays blocked", launch.Flag(unix.SIG_SETMASK, "SIG_SETMASK"),
		launch.Buf(make([]byte, 8), "[]"), launch.Null(), launch.Int(8))
	g.Do(launch.Init, launch.Chdir, "", launch.Str("/"))
	g.Do(launch.Init, launch.Unshare, "a copy of the mount for its own user namespace: locked", launch.Flag(unix.CLONE_NEWNS, "CLONE_NEWNS"))
	g.Do(launch.Init, launch.Sethostname, "", launch.Str(hostname), launch.Int(len(hostname)))
	for n, from := range p.own {
		g.Do(launch.Init, launch.Dup3, "", launch.Use(from), launch.Int(n), launch.Int(0))
	}
	why := "capabilities that it can never have"
	for n := 0; n <= lastCap; n++ {
		p.prctl(launch.Init, why, unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP", launch.Int(n))
		why = ""
	}
	header := make([]byte, 8) // struct __user_cap_header_struct: version 3, this thread
	binary.NativeEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	g.Do(launch.Init, launch.Capset, "no capability", launch.Buf(header, "{_LINUX_CAPABILITY_VERSION_3, 0}"), launch.Buf(make([]byte, 24), "{none}"))
	p.prctl(launch.Init, "", unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT", launch.Flag(unix.PR_CAP_AMBIENT_CLEAR_ALL, "PR_CAP_AMBIENT_CLEAR_ALL"))
	p.prctl(launch.Init, "the first pages of Go's heap would be huge ones, of 2 MiB", unix.PR_SET_THP_DISABLE, "PR_SET_THP_DISABLE", launch.Int(1))
	p.prctl(launch.Init, "", unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", launch.Int(1))
	g.Do(launch.Init, launch.Seccomp, "", launch.Flag(unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"), launch.Int(0),
		launch.SockFprog(p.h.filter.Bytes(), fmt.Sprintf("{%d instructions}", len(p.h.filter.Insns))))
	g.Do(launch.Init, launch.Execveat, "the program, which has no path here", launch.Use(p.program), launch.Str(""),
		launch.Strs(p.h.args), launch.Strs(nil), launch.Flag(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH"))
}

const hostname = "dns"

// resolver and dialer are the two helpers; their descriptors are filled in when
// there are some.
func (c Config) resolver() (h helper, err error) {
	h = helper{name: "resolver", id: c.IDBase, files: resolve.MaxFiles}
	h.args = []string{"bulkhead-dns", "resolve", "--network", c.Network, "--sockets", strconv.Itoa(len(c.Listen)), "--upstream", strconv.Itoa(len(c.Upstream))}
	if c.Peers != "" {
		h.args = append(h.args, "--peers")
	}
	if c.Own {
		h.args = append(h.args, "--own")
	}
	if c.public() {
		h.args = append(h.args, "--public")
	}
	h.args = append(h.args, "--")
	for _, s := range c.Subnets {
		h.args = append(h.args, s.String())
	}
	h.filter, err = resolverFilter()
	return h, err
}

func (c Config) dialer() (h helper, err error) {
	h = helper{name: "dialer", id: c.IDBase + 1, files: 64, network: true, leases: absent}
	h.args = []string{"bulkhead-dns", "dial"}
	if c.Own {
		h.args = append(h.args, "--own")
	}
	for _, u := range c.Upstream {
		h.args = append(h.args, u.String())
	}
	h.filter, err = dialerFilter(c.Own)
	return h, err
}
