package container

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/apparmor"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
)

// process is what a process of the runtime spec comes to: numbers, not names.
type process struct {
	spec     *specs.Process
	facts    facts
	ids      idMap
	uid, gid uint32
	groups   []uint32
	env      []string
	program  string       // path inside
	late     *launch.Late // instead of program, arguments and env, of a container of Config.Late
	cwd      string       // where spec.Cwd leads with all mounts in place, "" for unknown
	wd       launch.Slot  // its descriptor
	filter   seccomp.Filter
	original seccomp.Filter // before its refusals were turned into reports
	dry      bool           // only to be printed
	about    string         // the filter, for people, when dry
	stdio    [3]launch.Slot // descriptors to put at 0, 1, 2; 0 leaves what is there
	terminal launch.Slot    // instead of stdio
	start    launch.Slot    // FIFO to wait at, 0 for none
	tell     launch.Slot
	keyring  string // name of its session keyring, "" to keep the caller's
	killed   bool   // with its parent
	preserve int    // descriptors above 2
	profile  string // of AppArmor, to be asked for; "" for none
	apparmor launch.Slot
	// Of a seccomp listener: who takes it, give or report, and by which process.
	give         func(listener *os.File, pid int) error
	report       func(seccomp.Denied)
	first, pidfd launch.Slot
	letGo, goOn  launch.Slot // of a process that nobody starts: the pipe that it waits at
}

// planLimits sets what only the host may set on a child: resource limits that
// may be raised, the out-of-memory score, scheduling.
// cpus are the processors to run on, empty for all.
func planLimits(g *launch.Program, f facts, spec *specs.Process, pid launch.Slot, cpus string) error {
	if spec.OOMScoreAdj != nil {
		n := *spec.OOMScoreAdj
		if n < -1000 || n > 1000 {
			return fmt.Errorf("oomScoreAdj %d: want -1000 to 1000", n)
		}
		writeProc(g, pid, "oom_score_adj", itoa(n), "how soon it is killed when memory runs out")
	}
	limits := spec.Rlimits
	if !hasLimit(limits, "RLIMIT_NOFILE") && f.hardFiles != 0 {
		// The Go runtime raised our own soft limit, which execve(2) inherits.
		limits = append(limits[:len(limits):len(limits)], specs.POSIXRlimit{Type: "RLIMIT_NOFILE", Soft: f.softFiles, Hard: f.hardFiles})
	}
	for _, l := range limits {
		n, ok := rlimits[l.Type]
		if !ok {
			return fmt.Errorf("unknown resource limit %q", l.Type)
		}
		if l.Soft > l.Hard {
			return fmt.Errorf("%s: soft limit %d is above the hard limit %d", l.Type, l.Soft, l.Hard)
		}
		b := launch.U64(l.Soft, l.Hard)
		g.Do(launch.Host, launch.Prlimit64, "", launch.Use(pid), launch.Flag(uintptr(n), l.Type),
			launch.Buf(b, "{"+limitText(l.Soft)+", "+limitText(l.Hard)+"}"), launch.Null())
	}
	// Before the scheduler: a SCHED_DEADLINE process may not be bound.
	if err := planAffinity(g, pid, cpus); err != nil {
		return err
	}
	return planScheduling(g, spec, pid)
}

func limitText(n uint64) string {
	if n == unix.RLIM_INFINITY {
		return "RLIM_INFINITY"
	}
	return fmt.Sprint(n)
}

func hasLimit(list []specs.POSIXRlimit, name string) bool {
	for _, l := range list {
		if l.Type == name {
			return true
		}
	}
	return false
}

var rlimits = map[string]int{
	"RLIMIT_AS": unix.RLIMIT_AS, "RLIMIT_CORE": unix.RLIMIT_CORE, "RLIMIT_CPU": unix.RLIMIT_CPU, "RLIMIT_DATA": unix.RLIMIT_DATA,
	"RLIMIT_FSIZE": unix.RLIMIT_FSIZE, "RLIMIT_LOCKS": unix.RLIMIT_LOCKS, "RLIMIT_MEMLOCK": unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE": unix.RLIMIT_MSGQUEUE, "RLIMIT_NICE": unix.RLIMIT_NICE, "RLIMIT_NOFILE": unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC": unix.RLIMIT_NPROC, "RLIMIT_RSS": unix.RLIMIT_RSS, "RLIMIT_RTPRIO": unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME": unix.RLIMIT_RTTIME, "RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING, "RLIMIT_STACK": unix.RLIMIT_STACK,
}

// ending are the signals whose default action ends a process (signal(7)),
// without those that the kernel raises for a fault of the process itself, which
// end the first process of a pid namespace too, and the real-time ones.
var ending = []unix.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGTERM,
	unix.SIGSTKFLT, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGVTALRM, unix.SIGPROF, unix.SIGIO, unix.SIGPWR,
}

// planEnding lets a signal end a container that is created and not started. The
// kernel keeps signals without a handler from the first process of a pid
// namespace (pid_namespaces(7)), so until its program runs it has one.
func (p *planner) planEnding() {
	if !p.ns.fresh(specs.PIDNamespace) {
		return
	}
	action := launch.EndingAction()
	for i, sig := range ending {
		why := ""
		if i == 0 {
			why = "until its program runs, signals end it like any other process"
		}
		p.prog.Do(launch.Init, launch.RtSigaction, why, launch.Flag(uintptr(sig), signalName(sig)), launch.Buf(action, "{exit}"), launch.Null(), launch.Int(8))
	}
}

// planNames sets the names of the UTS namespace, the session keyring and the
// loopback interface: all that the first process does while the host mounts.
func (p *planner) planNames() {
	g, s := p.prog, p.spec
	if s.Hostname != "" {
		g.Do(launch.Init, launch.Sethostname, "", launch.Str(s.Hostname), launch.Int(len(s.Hostname)))
	}
	if s.Domainname != "" {
		g.Do(launch.Init, launch.Setdomainname, "", launch.Str(s.Domainname), launch.Int(len(s.Domainname)))
	}
	if p.ns.fresh(specs.NetworkNamespace) {
		sock := g.Slot("socket")
		g.Do(launch.Init, launch.Socket, "loopback up", launch.Flag(unix.AF_INET, "AF_INET"), launch.Flag(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"), launch.Int(0)).To(sock)
		req := make([]byte, 40) // struct ifreq, netdevice(7)
		copy(req, "lo")
		binary.NativeEndian.PutUint16(req[16:], unix.IFF_UP|unix.IFF_RUNNING)
		g.Do(launch.Init, launch.Ioctl, "", launch.Use(sock), launch.Flag(unix.SIOCSIFFLAGS, "SIOCSIFFLAGS"), launch.Buf(req, `{"lo", IFF_UP|IFF_RUNNING}`))
		g.Do(launch.Init, launch.Close, "", launch.Use(sock))
	}
}

// prepareProcess turns names into numbers and takes the standard streams.
func (p *planner) prepareProcess() error {
	c, s := &p.proc, p.spec
	*c = process{spec: s.Process, facts: p.facts, dry: p.dry, ids: p.ids, env: s.Process.Env, late: p.late, start: p.start, tell: p.tell,
		killed: p.cfg.KillWithParent, preserve: p.cfg.PreserveFDs, give: p.cfg.Listener, report: p.cfg.ReportDenied}
	if err := checkProcess(s.Process, p.cfg.Late); err != nil {
		return err
	}
	if err := c.findProfile(); err != nil {
		return err
	}
	if !p.cfg.NoNewKeyring {
		c.keyring = "_ses." + p.cfg.ID
	}
	if err := c.findUser(&p.view, p.cfg.User); err != nil {
		return err
	}
	if err := c.setFilter(s.Linux.Seccomp); err != nil {
		return err
	}
	if s.Process.Terminal {
		return nil
	}
	return c.takeStdio(p.prog, p.cfg.Stdio)
}

// setFilter compiles the process's seccomp filter. With report, denied calls
// go to a listener of ours.
func (c *process) setFilter(s *specs.LinuxSeccomp) (err error) {
	if s == nil {
		return nil
	}
	if c.filter, err = seccomp.Compile(s); err != nil {
		return err
	}
	c.original = c.filter
	if c.dry {
		if c.about, err = seccomp.Summary(s); err != nil {
			return err
		}
	}
	if c.report != nil {
		c.filter, err = c.filter.Notifying()
		return err
	}
	if !c.filter.Listener {
		return nil
	}
	if c.give == nil {
		return errors.New("seccomp: the filter asks a listener (SCMP_ACT_NOTIFY), and there is none")
	}
	return seccomp.CheckListener(s)
}

// findUser settles user, groups and HOME. who, when set, is looked up;
// otherwise the specification's numbers hold.
func (c *process) findUser(v *view, who string) error {
	c.uid, c.gid, c.groups = c.spec.User.UID, c.spec.User.GID, c.spec.User.AdditionalGids
	if who != "" {
		a, err := v.findUser(who)
		if err != nil {
			return err
		}
		c.uid, c.gid = a.uid, a.gid
		c.groups = append(a.groups, c.groups...)
	}
	if _, err := c.ids.uid(c.uid); err != nil {
		return err
	}
	for _, g := range append([]uint32{c.gid}, c.groups...) {
		if _, err := c.ids.gid(g); err != nil {
			return err
		}
	}
	c.env = v.withHome(c.env, c.uid)
	return nil
}

// findProfile settles the AppArmor profile to ask for.
func (c *process) findProfile() (err error) {
	c.profile, err = apparmor.Host{}.ExecProfile(c.spec.ApparmorProfile)
	return err
}

// planProcess adds the steps of the first process.
func (p *planner) planProcess() error {
	var err error
	if p.late != nil {
		p.home = p.view.homeOf(p.proc.uid)
	} else if p.proc.program, err = p.view.findProgram(p.spec.Process, p.proc.env); err != nil {
		return err
	}
	if err := planPersonality(p.prog, p.spec.Linux); err != nil {
		return err
	}
	if err := planMemoryPolicy(p.prog, p.spec.Linux.MemoryPolicy); err != nil {
		return err
	}
	p.prog.Do(launch.Init, launch.Chdir, "", launch.Str("/"))
	if p.ns.user != noUserNamespace {
		p.prog.Do(launch.Init, launch.Unshare, "a copy of the mounts for its own user namespace: every one of them locked",
			launch.Flag(unix.CLONE_NEWNS, "CLONE_NEWNS"))
		p.planShared()
	}
	p.proc.first, p.proc.pidfd = p.first, p.pidfd
	return p.proc.plan(p.prog)
}

// planShared makes mounts shared again that were asked to be: a copy of the
// mounts for another user namespace only receives from them. What is mounted
// in the copy then propagates within it, never back.
func (p *planner) planShared() {
	for _, m := range p.mounts {
		if m.opts.propagation&unix.MS_SHARED == 0 {
			continue
		}
		p.prog.Do(launch.Init, launch.Mount, "shared, among the container's own mount namespaces", launch.Null(), launch.Str(m.at), launch.Null(),
			launch.Flag(uintptr(m.opts.propagation), propagationName(m.opts.propagation)), launch.Null())
	}
}

// plan adds everything between a process's arrival in its namespaces and its
// program: terminal, limits on itself, privileges, filter, execve.
func (c *process) plan(g *launch.Program) error {
	caps, err := c.capabilities()
	if err != nil {
		return err
	}
	c.planStdio(g)
	mask := 0o022
	if c.spec.User.Umask != nil {
		mask = int(*c.spec.User.Umask & 0o777)
	}
	g.Do(launch.Init, launch.Umask, "", launch.Flag(uintptr(mask), fmt.Sprintf("%#o", mask)))
	// A working directory that only root inside may enter is entered first, one
	// that only the user may enter afterwards.
	c.wd = g.Slot("wd")
	c.openCwd(g, "/", "where it stays if root may not enter its working directory")
	c.openCwd(g, c.spec.Cwd, "its working directory, not by a link to a descriptor (CVE-2024-21626)").Tolerating(unix.EACCES)
	g.Do(launch.Init, launch.Fchdir, "enter it", launch.Use(c.wd)).Tolerating(unix.EACCES)
	g.Do(launch.Init, launch.CloseRange, "nothing but its own descriptors", launch.Int(3+c.preserve), launch.Flag(1<<32-1, "~0"),
		launch.Flag(unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC"))
	if len(c.filter.Insns) > 0 && !c.spec.NoNewPrivileges {
		c.planFilter(g, "installed while privileged, for want of no_new_privs")
	}
	c.planPrivileges(g, caps)
	c.planCwd(g)
	if c.filter.Listener && c.spec.NoNewPrivileges {
		c.planFilter(g, "")
	}
	if c.start != 0 {
		ready := g.Tell(launch.Init, 0, "ready")
		g.Await(ready, 0, "the first process is ready")
		g.Do(launch.Init, launch.Read, "until started", launch.Use(c.start), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
	}
	if c.apparmor != 0 {
		text := string(apparmor.ExecLabel(c.profile))
		g.Do(launch.Init, launch.Write, "the AppArmor profile of the program", launch.Use(c.apparmor), launch.Str(text), launch.Int(len(text))).Wanting(len(text))
	}
	if len(c.filter.Insns) > 0 && c.spec.NoNewPrivileges && !c.filter.Listener {
		c.planFilter(g, "as late as possible")
	}
	path, args, env := launch.Str(c.program), launch.Strs(c.spec.Args), envArg(c.env)
	if c.late != nil {
		path, args, env = c.late.Args()
	}
	g.Do(launch.Init, launch.Execve, "the program", path, args, env)
	return nil
}

// planCwd enters the working directory again with the process's own rights. A
// directory that these do not open is kept from the first time, and then looked
// at: the process must not find itself anywhere else (CVE-2024-21626).
//
// A filter that is in force already may know chdir(2) only. Then a magic link
// that was not there the first time, and a directory that the caller handed in
// on purpose, are what it takes to be misled.
func (c *process) planCwd(g *launch.Program) {
	var opened, entered *launch.Step
	const why = "its working directory, with its own rights"
	if len(c.filter.Insns) > 0 && !c.spec.NoNewPrivileges {
		opened = g.Do(launch.Init, launch.Chdir, why, launch.Str(c.spec.Cwd))
		entered = opened
	} else {
		opened = c.openCwd(g, c.spec.Cwd, why)
		entered = g.Do(launch.Init, launch.Fchdir, "enter it", launch.Use(c.wd))
	}
	if c.cwd == "" || c.cwd == "/" {
		return
	}
	opened.Tolerating(unix.EACCES)
	if entered != opened {
		entered.Tolerating(unix.EACCES)
	}
	n := len(c.cwd) + 1
	g.Do(launch.Init, launch.Getcwd, "it is there, whichever rights led to it", launch.Buf(make([]byte, n), "buf"), launch.Int(n)).Wanting(n)
}

// openCwd opens a directory to enter. Symbolic links are followed, the magic
// ones of /proc are not: those lead to wherever a descriptor does, out of the
// root too.
func (c *process) openCwd(g *launch.Program, dir, why string) *launch.Step {
	how := launch.U64(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS)
	return g.Do(launch.Init, launch.Openat2, why, launch.AtCWD(), launch.Str(dir),
		launch.Buf(how, "{O_PATH|O_DIRECTORY|O_CLOEXEC, RESOLVE_NO_MAGICLINKS}"), launch.Int(len(how))).To(c.wd)
}

func envArg(env []string) launch.Arg {
	a := launch.Strs(env)
	return a.Printed(fmt.Sprintf("[%d variables]", len(env)))
}

// planSession starts a session, a keyring and the parent-death signal.
func (c *process) planSession(g *launch.Program) {
	g.Do(launch.Init, launch.Setsid, "")
	for i, sig := range c.facts.ignored {
		why := ""
		if i == 0 {
			why = "execve keeps what is ignored: the container begins with the defaults"
		}
		g.Do(launch.Init, launch.RtSigaction, why, launch.Flag(uintptr(sig), signalName(sig)), launch.Buf(make([]byte, 32), "{SIG_DFL}"), launch.Null(), launch.Int(8))
	}
	if c.facts.blocked {
		g.Do(launch.Init, launch.RtSigprocmask, "no signal of the caller's stays blocked", launch.Flag(unix.SIG_SETMASK, "SIG_SETMASK"), launch.Buf(make([]byte, 8), "[]"), launch.Null(), launch.Int(8))
	}
	if c.keyring != "" {
		g.Do(launch.Init, launch.Keyctl, "no keys of the host's session", launch.Flag(unix.KEYCTL_JOIN_SESSION_KEYRING, "KEYCTL_JOIN_SESSION_KEYRING"),
			launch.Str(c.keyring)).Tolerating(unix.ENOSYS)
	}
	if c.profile != "" {
		c.apparmor = g.Slot("apparmor")
		g.Do(launch.Init, launch.Openat, "while /proc is the host's (CVE-2025-52881)", launch.AtCWD(), launch.Str(apparmor.ExecFile),
			launch.Flag(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"), launch.Int(0)).To(c.apparmor)
	}
}

func (c *process) planStdio(g *launch.Program) {
	if c.terminal != 0 {
		g.Do(launch.Init, launch.Ioctl, "its controlling terminal", launch.Use(c.terminal), launch.Flag(unix.TIOCSCTTY, "TIOCSCTTY"), launch.Int(0))
		for n := range 3 {
			g.Do(launch.Init, launch.Dup3, "", launch.Use(c.terminal), launch.Int(n), launch.Int(0))
		}
		return
	}
	for n, s := range c.stdio {
		if s != 0 {
			g.Do(launch.Init, launch.Dup3, "", launch.Use(s), launch.Int(n), launch.Int(0))
		}
	}
}

func (c *process) planFilter(g *launch.Program, why string) {
	if c.about != "" {
		if why != "" {
			why = ": " + why
		}
		why = c.about + why
	}
	step := g.Do(launch.Init, launch.Seccomp, why, launch.Flag(unix.SECCOMP_SET_MODE_FILTER, "SECCOMP_SET_MODE_FILTER"),
		launch.Flag(uintptr(c.filter.Flags), fmt.Sprintf("%#x", c.filter.Flags)),
		launch.SockFprog(c.filter.Bytes(), fmt.Sprintf("{%d instructions}", len(c.filter.Insns))))
	if c.filter.Listener {
		listener := g.Slot("listener")
		step.To(listener)
		c.planListener(g, listener)
	}
}

// planListener hands the listener over at once: the calls that follow may be such as
// wait for its answer. A process that nobody starts waits until it is taken, as
// execve closes it.
func (c *process) planListener(g *launch.Program, listener launch.Slot) {
	number, taken := g.Slot("listener_number"), g.Slot("taken_listener")
	g.AwaitValue(g.Tell(launch.Init, listener, "the listener's descriptor"), number, "the listener's descriptor")
	g.Do(launch.Host, launch.PidfdGetfd, "the listener, before execve closes it", launch.Use(c.pidfd), launch.Use(number), launch.Int(0)).ToFD(taken)
	g.Go("give the seccomp listener to whoever answers", func(value func(launch.Slot) int) error {
		fd, err := unix.FcntlInt(uintptr(value(taken)), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return os.NewSyscallError("fcntl", err)
		}
		// The host's thread is in the container's files by now: use another.
		done := make(chan error)
		go func() { done <- c.serve(os.NewFile(uintptr(fd), "seccomp listener"), value(c.first)) }()
		return <-done
	}, taken)
	if c.letGo != 0 {
		g.Do(launch.Host, launch.Write, "the process may go on", launch.Use(c.letGo), launch.Str("."), launch.Int(1)).Wanting(1)
		g.Do(launch.Init, launch.Read, "until the host says so", launch.Use(c.goOn), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
	}
}

// checkProcess checks a process; late says that its program comes later.
func checkProcess(s *specs.Process, late bool) error {
	switch {
	case s == nil:
		return errors.New("no process")
	case !late && (len(s.Args) == 0 || s.Args[0] == ""):
		return errors.New("no program to run: args are empty")
	case s.SelinuxLabel != "" && !selinuxEnabled():
		return fmt.Errorf("SELinux label %q is asked for, but SELinux is not enabled on this host", s.SelinuxLabel)
	case s.SelinuxLabel != "":
		return errors.New("SELinux labels are not supported yet")
	}
	for _, e := range s.Env {
		if strings.IndexByte(e, 0) >= 0 {
			return fmt.Errorf("environment variable %q holds a NUL byte", e)
		}
	}
	return nil
}

func selinuxEnabled() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/selinux", &st) == nil && st.Type == unix.SELINUX_MAGIC
}
