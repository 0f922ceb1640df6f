package fileserver

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/fileserver/serve"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// descriptors are what the program is made from. The program owns them.
type descriptors struct {
	statusRead, statusWrite int // how the children fare
	goRead, goWrite         int // the children wait here for the host
	program                 int // bulkhead-fileserver
	source                  int // O_PATH
	stream, errors          int // the helper's ends
	tasks                   []int
}

// fileName is the name under which the helper sees a source that is a file.
const fileName = "volume"

// capabilities of the helper, in its own user namespace: they reach files
// whose owner and group that namespace maps, and no others.
var capabilities = []struct {
	number int
	name   string
}{
	{unix.CAP_CHOWN, "CAP_CHOWN"},               // new files get the owner that the guest says
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE"}, // the guest's kernel has checked the permissions of its users
	{unix.CAP_FOWNER, "CAP_FOWNER"},             // chmod, utimes and the like of anybody's files
	{unix.CAP_FSETID, "CAP_FSETID"},             // chmod keeps the setgid bit of a group that root is not in
}

// safe are the attributes of every mount that the helper sees.
const (
	safe     = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSYMFOLLOW
	safeText = "MOUNT_ATTR_NOSUID|MOUNT_ATTR_NODEV|MOUNT_ATTR_NOEXEC|MOUNT_ATTR_NOSYMFOLLOW"
)

// emptyPath and the like print as in the manual.
var (
	emptyPath      = launch.Flag(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")
	emptyRecursive = launch.Flag(unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, "AT_EMPTY_PATH|AT_RECURSIVE")
	maxDescriptors = uint64(serve.MaxHandles + serve.MaxDirectories + 64)
)

// planned is a program with the slots that its caller wants.
type planned struct {
	*launch.Program
	first, pidfd launch.Slot
}

// plan makes the launch program of a helper: its root directory is the volume
// and nothing else, it is in namespaces of its own, also of users, and it can
// make no system call but those of the filter.
func plan(cfg Config, file bool, fds descriptors, lastCap int, bpf seccomp.Filter) (*planned, error) {
	g := launch.New("file server")
	p := &planned{Program: g}
	status := g.Given("status", fds.statusRead, "the children tell here how they fare")
	tell := g.Given("tell", fds.statusWrite, "their end of it")
	goRead := g.Given("go", fds.goRead, "the children wait here for the host")
	goWrite := g.Given("let_go", fds.goWrite, "the host's end of it")
	program := g.Given("program", fds.program, "bulkhead-fileserver")
	source := g.Given("source", fds.source, "the source of the volume")
	stream := g.Given("stream", fds.stream, "the helper's end of the stream of requests")
	errors := g.Given("errors", fds.errors, "where it says why it ends")
	g.Status(status, tell)
	keep := []launch.Arg{launch.Use(tell), launch.Use(goRead), launch.Use(program), launch.Use(stream), launch.Use(errors)}
	var tasks []launch.Slot
	for i, fd := range fds.tasks {
		t := g.Given("tasks"+strconv.Itoa(i), fd, "a cgroup to join")
		tasks = append(tasks, t)
		keep = append(keep, launch.Use(t))
	}
	letGo := func(a launch.Actor) {
		g.Do(launch.Host, launch.Write, "the "+a.String()+" may go on", launch.Use(goWrite), launch.Str("."), launch.Int(1)).Wanting(1)
		g.Do(a, launch.Read, "until the host says so", launch.Use(goRead), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
	}
	prctl := func(a launch.Actor, why string, op int, opText string, arg launch.Arg) {
		g.Do(a, launch.Prctl, why, launch.Flag(uintptr(op), opText), arg, launch.Int(0), launch.Int(0), launch.Int(0))
	}

	tree := p.planTree(cfg, source)
	g.Do(launch.Host, launch.Unshare, "mounts that only this thread and its children see",
		launch.Flag(unix.CLONE_FS|unix.CLONE_NEWNS, "CLONE_FS|CLONE_NEWNS"))
	g.Do(launch.Host, launch.Mount, "and that nobody else ever will", launch.Null(), launch.Str("/"), launch.Null(),
		launch.Flag(unix.MS_REC|unix.MS_PRIVATE, "MS_REC|MS_PRIVATE"), launch.Null())

	// The stage: cgroups, user namespace, then the others as its root.
	stage := g.Slot("stage")
	g.Fork(launch.Host, launch.Stage, 0, "0", stage, 0, "a child to make the namespaces")
	g.CloseOthers(launch.Stage, "no other descriptor reaches the helper", keep...)
	notDumpable := func(a launch.Actor, why string) {
		prctl(a, why, unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE", launch.Int(0))
	}
	notDumpable(launch.Stage, "a copy of our memory, for nobody to read")
	for _, t := range tasks {
		g.Do(launch.Stage, launch.Write, "join a cgroup", launch.Use(t), launch.Str("0"), launch.Int(1))
	}
	g.Do(launch.Stage, launch.Unshare, "capabilities that count for the volume's owners only", launch.Flag(unix.CLONE_NEWUSER, "CLONE_NEWUSER"))
	g.Await(g.Tell(launch.Stage, 0, "ID maps wanted"), 0, "the user namespace is made")
	ids := fmt.Sprintf("0 0 %d\n", cfg.IDCount)
	for _, name := range []string{"uid_map", "gid_map"} {
		fd := g.Slot(name)
		g.Do(launch.Host, launch.Openat, "IDs that may own files of the volume", launch.AtCWD(), launch.Pathf("/proc/%d/"+name, stage),
			launch.Flag(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"), launch.Int(0)).ToFD(fd)
		g.Do(launch.Host, launch.Write, "", launch.Use(fd), launch.Str(ids), launch.Int(len(ids))).Wanting(len(ids))
	}
	letGo(launch.Stage)
	g.Do(launch.Stage, launch.Setgroups, "no group of the caller", launch.Int(0), launch.Null())
	g.Do(launch.Stage, launch.Setresgid, "", launch.Int(0), launch.Int(0), launch.Int(0))
	g.Do(launch.Stage, launch.Setresuid, "root of the user namespace", launch.Int(0), launch.Int(0), launch.Int(0))
	notDumpable(launch.Stage, "again: the change of user made it what fs.suid_dumpable says")
	g.Do(launch.Stage, launch.Unshare, "no other process, no network, no queue of the host's",
		launch.Flag(unix.CLONE_NEWPID|unix.CLONE_NEWNET|unix.CLONE_NEWIPC|unix.CLONE_NEWUTS|unix.CLONE_NEWCGROUP,
			"CLONE_NEWPID|CLONE_NEWNET|CLONE_NEWIPC|CLONE_NEWUTS|CLONE_NEWCGROUP"))
	p.first = g.Slot("pid")
	g.Fork(launch.Stage, launch.Init, unix.CLONE_PARENT, "CLONE_PARENT", p.first, 0, "the helper, a child of the host")
	told := g.Tell(launch.Stage, p.first, "its process ID")
	g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
	g.Await(told, p.first, "the helper exists")
	g.Do(launch.Host, launch.Wait4, "", launch.Use(stage), launch.Null(), launch.Int(0), launch.Null())
	p.pidfd = g.Slot("pidfd")
	g.Do(launch.Host, launch.PidfdOpen, "to end it by", launch.Use(p.first), launch.Int(0)).ToFD(p.pidfd)
	g.Keep(p.pidfd)
	for _, l := range []struct {
		number int
		name   string
		max    uint64
	}{{unix.RLIMIT_NOFILE, "RLIMIT_NOFILE", maxDescriptors}, {unix.RLIMIT_CORE, "RLIMIT_CORE", 0}} {
		g.Do(launch.Host, launch.Prlimit64, "", launch.Use(p.first), launch.Flag(uintptr(l.number), l.name),
			launch.Buf(launch.U64(l.max, l.max), fmt.Sprintf("{%d, %d}", l.max, l.max)), launch.Null())
	}

	p.planRoot(file, tree)

	// The helper.
	letGo(launch.Init)
	prctl(launch.Init, "ends with whoever started it", unix.PR_SET_PDEATHSIG, "PR_SET_PDEATHSIG", launch.Flag(uintptr(unix.SIGKILL), "SIGKILL"))
	g.Do(launch.Init, launch.Setsid, "")
	g.Do(launch.Init, launch.RtSigprocmask, "no signal of the caller's stays blocked", launch.Flag(unix.SIG_SETMASK, "SIG_SETMASK"), launch.Buf(make([]byte, 8), "[]"), launch.Null(), launch.Int(8))
	g.Do(launch.Init, launch.Chdir, "", launch.Str("/"))
	g.Do(launch.Init, launch.Unshare, "a copy of the mounts for its own user namespace: every one of them locked", launch.Flag(unix.CLONE_NEWNS, "CLONE_NEWNS"))
	g.Do(launch.Init, launch.Sethostname, "", launch.Str("volume"), launch.Int(len("volume")))
	for n, from := range []launch.Slot{stream, stream, errors} {
		g.Do(launch.Init, launch.Dup3, "", launch.Use(from), launch.Int(n), launch.Int(0))
	}
	p.planPrivileges(lastCap)
	g.Do(launch.Init, launch.Seccomp, "", launch.Flag(unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"), launch.Int(0),
		launch.SockFprog(bpf.Bytes(), fmt.Sprintf("{%d instructions}", len(bpf.Insns))))
	g.Do(launch.Init, launch.Execveat, "the helper's program, which has no path here", launch.Use(program), launch.Str(""),
		launch.Strs(arguments(cfg, file)), launch.Strs(nil), emptyPath)
	return p, g.Build()
}

// planTree makes the mount of the volume, while the thread is in the mount
// namespace that the source is in.
func (p *planned) planTree(cfg Config, source launch.Slot) launch.Slot {
	g := p.Program
	attrs := uint64(safe)
	text := safeText
	if cfg.ReadOnly {
		attrs |= unix.MOUNT_ATTR_RDONLY
		text += "|MOUNT_ATTR_RDONLY"
	}
	clone, cloneText := uintptr(unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH), "OPEN_TREE_CLONE|OPEN_TREE_CLOEXEC|AT_EMPTY_PATH"
	if cfg.Recursive {
		clone, cloneText = clone|unix.AT_RECURSIVE, cloneText+"|AT_RECURSIVE"
	}
	tree := g.Slot("tree")
	g.Do(launch.Host, launch.OpenTree, "the volume, and nothing above it", launch.Use(source), launch.Str(""), launch.Flag(clone, cloneText)).ToFD(tree)
	b := launch.U64(attrs, 0, unix.MS_PRIVATE, 0)
	g.Do(launch.Host, launch.MountSetattr, "no link in it is followed, nothing in it is a device or a program", launch.Use(tree), launch.Str(""), emptyRecursive,
		launch.Buf(b, "{attr_set="+text+", propagation=MS_PRIVATE}"), launch.Int(len(b)))
	return tree
}

// planRoot makes the volume the root directory. A file has a directory of its
// own around it, which is empty but for the file and read-only.
func (p *planned) planRoot(file bool, tree launch.Slot) {
	g := p.Program
	attach := func(m launch.Slot, at, why string) {
		g.Do(launch.Host, launch.MoveMount, why, launch.Use(m), launch.Str(""), launch.AtCWD(), launch.Str(at), launch.Flag(unix.MOVE_MOUNT_F_EMPTY_PATH, "MOVE_MOUNT_F_EMPTY_PATH"))
	}
	root := tree
	if file {
		fs := g.Slot("tmpfs")
		root = g.Slot("root")
		g.Do(launch.Host, launch.Fsopen, "a directory around the file", launch.Str("tmpfs"), launch.Flag(unix.FSOPEN_CLOEXEC, "FSOPEN_CLOEXEC")).ToFD(fs)
		g.Do(launch.Host, launch.Fsconfig, "", launch.Use(fs), launch.Flag(unix.FSCONFIG_CMD_CREATE, "FSCONFIG_CMD_CREATE"), launch.Null(), launch.Null(), launch.Int(0))
		g.Do(launch.Host, launch.Fsmount, "", launch.Use(fs), launch.Flag(unix.FSMOUNT_CLOEXEC, "FSMOUNT_CLOEXEC"),
			launch.Flag(safe, safeText)).ToFD(root)
		g.Do(launch.Host, launch.Mknodat, "where the file goes", launch.Use(root), launch.Str(fileName), launch.Flag(unix.S_IFREG, "S_IFREG"), launch.Int(0))
	}
	attach(root, "/", "over the host's files")
	g.Do(launch.Host, launch.Fchdir, "", launch.Use(root))
	g.Do(launch.Host, launch.PivotRoot, "it becomes /, for the helper too", launch.Str("."), launch.Str("."))
	g.Do(launch.Host, launch.Umount2, "the host's files are gone", launch.Str("."), launch.Flag(unix.MNT_DETACH, "MNT_DETACH"))
	if file {
		attach(tree, fileName, "the file")
		b := launch.U64(unix.MOUNT_ATTR_RDONLY, 0, 0, 0)
		g.Do(launch.Host, launch.MountSetattr, "nothing can be made beside it", launch.Use(root), launch.Str(""), emptyPath,
			launch.Buf(b, "{attr_set=MOUNT_ATTR_RDONLY}"), launch.Int(len(b)))
	}
}

// planPrivileges leaves the few capabilities, for good.
func (p *planned) planPrivileges(last int) {
	var set uint64
	names := ""
	for i, c := range capabilities {
		set |= 1 << c.number
		if i > 0 {
			names += "|"
		}
		names += c.name
	}
	prctl := func(why string, op int, opText string, arg launch.Arg) {
		p.Do(launch.Init, launch.Prctl, why, launch.Flag(uintptr(op), opText), arg, launch.Int(0), launch.Int(0), launch.Int(0))
	}
	why := "capabilities that it can never have"
	for n := 0; n <= last; n++ {
		if set&(1<<n) == 0 {
			prctl(why, unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP", launch.Int(n))
			why = ""
		}
	}
	header := make([]byte, 8) // struct __user_cap_header_struct: version 3, this thread
	binary.NativeEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	data := make([]byte, 24)
	for half := range 2 {
		for i, s := range []uint64{set, set, 0} { // effective, permitted, inheritable
			binary.NativeEndian.PutUint32(data[12*half+4*i:], uint32(s>>(32*half)))
		}
	}
	p.Do(launch.Init, launch.Capset, "what it needs to keep owners and modes", launch.Buf(header, "{_LINUX_CAPABILITY_VERSION_3, 0}"),
		launch.Buf(data, "{effective="+names+", permitted=the same, inheritable=0}"))
	prctl("the first pages of Go's heap would be huge ones, of 2 MiB", unix.PR_SET_THP_DISABLE, "PR_SET_THP_DISABLE", launch.Int(1))
	prctl("", unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", launch.Int(1))
}

func arguments(cfg Config, file bool) []string {
	args := []string{"bulkhead-fileserver", "--id-base", strconv.FormatUint(uint64(cfg.IDBase), 10), "--id-count", strconv.FormatUint(uint64(cfg.IDCount), 10)}
	if cfg.ReadOnly {
		args = append(args, "--read-only")
	}
	if file {
		args = append(args, "--file", fileName)
	}
	return args
}

// openTasks opens the file through which a process joins a cgroup: with v1 one
// that takes a thread, which is cheaper (see cgroups(7)).
func openTasks(dir string) (int, error) {
	fd, err := unix.Open(filepath.Join(dir, "tasks"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		fd, err = unix.Open(filepath.Join(dir, "cgroup.procs"), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return -1, &os.PathError{Op: "open cgroup", Path: dir, Err: err}
	}
	return fd, nil
}
