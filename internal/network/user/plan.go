package user

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sort"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// process is one before it runs.
type process struct {
	path string
	args []string
	id   uint32 // user and group
	// enters says that it makes a tap device in namespaces that it enters.
	enters bool
	files  []*os.File // its descriptors from 3 on; the caller's
	cgroup *cgroup.Manager
}

// farFD is where descriptors lie before they are copied to where they belong.
const farFD = 64

// descriptors of a program; -1 where it is only printed.
type descriptors struct {
	statusRead, statusWrite int
	null, said              int
	files, tasks            []int
	dir                     int // of cgroup v2, absent if there is none
}

const absent = -2

// launchProcess starts a process and returns what it says.
func launchProcess(ctx context.Context, p process) (*os.File, error) {
	d, said, err := p.open()
	if err != nil {
		return nil, err
	}
	prog, child, err := p.plan(d, lastCapability())
	if err != nil {
		said.Close()
		return nil, err
	}
	// Not detached: this process reaps it for as long as it lives itself.
	if _, err := prog.Run(ctx, launch.Options{Child: child}); err != nil {
		said.Close()
		return nil, fmt.Errorf("start %s: %w", p.path, err)
	}
	return said, nil
}

// open opens what a program needs, which owns it then.
func (p process) open() (d descriptors, said *os.File, err error) {
	var all []int
	far := func(fd int) int {
		n, e := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, farFD)
		if e != nil {
			err = errors.Join(err, os.NewSyscallError("fcntl(F_DUPFD_CLOEXEC)", e))
			return -1
		}
		all = append(all, n)
		return n
	}
	take := func(f *os.File) int { // and close it
		defer f.Close()
		return far(int(f.Fd()))
	}
	defer func() {
		if err != nil {
			for _, fd := range all {
				unix.Close(fd)
			}
			if said != nil {
				said.Close()
			}
		}
	}()
	var status, words [2]int
	// Whoever reads a process's words may be slow: what does not fit is lost, and
	// holds up no packet.
	if err = errors.Join(unix.Pipe2(status[:], unix.O_CLOEXEC), unix.Pipe2(words[:], unix.O_CLOEXEC|unix.O_NONBLOCK)); err != nil {
		return d, nil, os.NewSyscallError("pipe2", err)
	}
	d.statusRead, d.statusWrite = take(os.NewFile(uintptr(status[0]), "status")), take(os.NewFile(uintptr(status[1]), "status"))
	said = os.NewFile(uintptr(words[0]), "words")
	d.said = far(words[1])
	unix.Close(words[1])
	null, nerr := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if nerr != nil {
		return d, said, errors.Join(err, nerr)
	}
	d.null = take(null)
	for _, f := range p.files {
		d.files = append(d.files, far(int(f.Fd())))
	}
	tasks, dir, jerr := p.cgroup.Join()
	if jerr != nil {
		return d, said, errors.Join(err, jerr)
	}
	for _, t := range tasks {
		d.tasks = append(d.tasks, take(t))
	}
	d.dir = absent
	if dir != nil {
		d.dir = take(dir)
	}
	return d, said, err
}

// capabilities with which a process begins.
const (
	bindPorts = 1 << unix.CAP_NET_BIND_SERVICE
	enterNS   = 1 << unix.CAP_SYS_ADMIN
)

func (p process) capabilities() (set uint32, text string, each []int) {
	if p.enters {
		return bindPorts | enterNS, "CAP_NET_BIND_SERVICE|CAP_SYS_ADMIN", []int{unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_ADMIN}
	}
	return bindPorts, "CAP_NET_BIND_SERVICE", []int{unix.CAP_NET_BIND_SERVICE}
}

// plan makes the launch program. The descriptors belong to it.
func (p process) plan(d descriptors, lastCap int) (_ *launch.Program, child launch.Slot, err error) {
	g := launch.New("user-network")
	status := g.Given("status", d.statusRead, "the child tells here how it fares")
	tell := g.Given("tell", d.statusWrite, "its end of it")
	g.Status(status, tell)
	null := g.Given("null", d.null, "/dev/null")
	said := g.Given("said", d.said, "what it says, as long as somebody listens")
	own := []launch.Slot{null, null, said}
	for i, fd := range d.files {
		own = append(own, g.Given("file"+strconv.Itoa(i), fd, p.name(i)))
	}
	var tasks []launch.Slot
	for i, fd := range d.tasks {
		tasks = append(tasks, g.Given("tasks"+strconv.Itoa(i), fd, "a cgroup to join"))
	}
	var dir launch.Slot
	if d.dir != absent {
		dir = g.Given("cgroup", d.dir, "the cgroup to begin in")
	}
	p.planMounts(g)
	child = g.Slot("process")
	g.Fork(launch.Host, launch.Init, 0, "0", child, dir, "the future process")
	keep := []launch.Arg{launch.Use(tell)}
	for _, s := range append(own, tasks...) {
		keep = append(keep, launch.Use(s))
	}
	g.CloseOthers(launch.Init, "no other descriptor reaches it", keep...)
	for _, t := range tasks {
		g.Do(launch.Init, launch.Write, "join a cgroup", launch.Use(t), launch.Str("0"), launch.Int(1))
	}
	g.Do(launch.Init, launch.Setsid, "")
	g.Do(launch.Init, launch.RtSigprocmask, "no signal of the caller's stays blocked", launch.Flag(unix.SIG_SETMASK, "SIG_SETMASK"),
		launch.Buf(make([]byte, 8), "[]"), launch.Null(), launch.Int(8))
	if !p.enters { // pasta does that itself, and fails where it is done
		g.Do(launch.Init, launch.RtSigaction, "it goes on when nobody hears it any more", launch.Flag(uintptr(unix.SIGPIPE), "SIGPIPE"),
			launch.Buf(launch.U64(1, 0, 0, 0), "{SIG_IGN}"), launch.Null(), launch.Int(8))
	}
	g.Do(launch.Init, launch.Chdir, "", launch.Str("/"))
	for n, s := range own {
		g.Do(launch.Init, launch.Dup3, "", launch.Use(s), launch.Int(n), launch.Int(0))
	}
	g.Do(launch.Init, launch.CloseRange, "nothing but these", launch.Int(len(own)), launch.Flag(1<<32-1, "~0"),
		launch.Flag(unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC"))
	zero := launch.U64(0, 0)
	g.Do(launch.Init, launch.Prlimit64, "packets are in no file", launch.Int(0), launch.Flag(unix.RLIMIT_CORE, "RLIMIT_CORE"), launch.Buf(zero, "{0, 0}"), launch.Null())
	p.planPrivileges(g, lastCap)
	ready := g.Tell(launch.Init, 0, "prepared")
	g.Do(launch.Init, launch.Execve, "it confines itself further", launch.Str(p.path), launch.Strs(p.args), launch.Strs([]string{"PATH=/usr/bin:/bin", "LC_ALL=C"}))
	g.Await(ready, 0, "the process is prepared")
	if err := g.Build(); err != nil {
		g.Close()
		return nil, 0, err
	}
	return g, child, nil
}

func (p process) name(i int) string {
	switch {
	case !p.enters:
		return "the stream of frames"
	case i == fdUserNS-3:
		return "the container's user namespace"
	}
	return "the container's network namespace"
}

// planMounts lets a process that makes a tap device open /dev/net/tun, whoever may
// on the host: it could not do anything with it there.
func (p process) planMounts(g *launch.Program) {
	if !p.enters {
		return
	}
	g.Do(launch.Host, launch.Unshare, "mounts that only this thread and its child see", launch.Flag(unix.CLONE_FS|unix.CLONE_NEWNS, "CLONE_FS|CLONE_NEWNS"))
	g.Do(launch.Host, launch.Mount, "and that nobody else ever will", launch.Null(), launch.Str("/"), launch.Null(),
		launch.Flag(unix.MS_REC|unix.MS_PRIVATE, "MS_REC|MS_PRIVATE"), launch.Null())
	g.Do(launch.Host, launch.Umask, "modes are as written", launch.Int(0))
	g.Do(launch.Host, launch.Mount, "a directory for one device", launch.Str("bulkhead"), launch.Str("/dev/net"), launch.Str("tmpfs"),
		launch.Flag(unix.MS_NOSUID|unix.MS_NOEXEC, "MS_NOSUID|MS_NOEXEC"), launch.Str("mode=755,size=4k"))
	g.Do(launch.Host, launch.Mknodat, "", launch.AtCWD(), launch.Str("/dev/net/tun"), launch.Flag(unix.S_IFCHR|0o666, "S_IFCHR|0666"),
		launch.Flag(uintptr(unix.Mkdev(10, 200)), "makedev(10, 200)"))
}

// planPrivileges leaves the process a user of its own and the one or two
// capabilities that it begins with. There is no parent-death signal: it outlives
// whoever starts it.
func (p process) planPrivileges(g *launch.Program, lastCap int) {
	prctl := func(why string, op int, text string, arg ...launch.Arg) {
		for len(arg) < 4 {
			arg = append(arg, launch.Int(0))
		}
		g.Do(launch.Init, launch.Prctl, why, append([]launch.Arg{launch.Flag(uintptr(op), text)}, arg...)...)
	}
	set, text, each := p.capabilities()
	why := "capabilities that it can never have"
	for n := range lastCap + 1 {
		if n < 32 && set&(1<<n) != 0 {
			continue
		}
		prctl(why, unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP", launch.Int(n))
		why = ""
	}
	prctl("the change of user takes none away", unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS", launch.Int(1))
	id := launch.Int(int(p.id))
	g.Do(launch.Init, launch.Setgroups, "no group of the caller", launch.Int(0), launch.Null())
	g.Do(launch.Init, launch.Setresgid, "", id, id, id)
	g.Do(launch.Init, launch.Setresuid, "a user that owns nothing", id, id, id)
	header := make([]byte, 8) // struct __user_cap_header_struct: version 3, this thread
	binary.NativeEndian.PutUint32(header, unix.LINUX_CAPABILITY_VERSION_3)
	caps := make([]byte, 24)
	for i := range 3 { // effective, permitted, inheritable
		binary.NativeEndian.PutUint32(caps[4*i:], set)
	}
	g.Do(launch.Init, launch.Capset, "what it begins with", launch.Buf(header, "{_LINUX_CAPABILITY_VERSION_3, 0}"), launch.Buf(caps, "{"+text+"}"))
	for _, n := range each {
		prctl("kept over execve", unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT", launch.Flag(unix.PR_CAP_AMBIENT_RAISE, "PR_CAP_AMBIENT_RAISE"), launch.Int(n))
	}
	prctl("no program gains privileges by being executed", unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS", launch.Int(1))
}

// lastCapability is the highest that the kernel knows.
func lastCapability() int {
	return sort.Search(64, func(n int) bool {
		_, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0)
		return err != nil
	}) - 1
}
