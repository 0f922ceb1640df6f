package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/seccomp"
	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// ExecConfig is what Exec needs.
type ExecConfig struct {
	Process *specs.Process
	// Program is the path to execute, Process.Args[0] where empty. A hook's
	// first argument need not be its path.
	Program string
	// WhilePaused executes in a paused container too: the process then stops
	// when it joins the cgroup, before its program runs, and so does Exec.
	WhilePaused bool
	// Cgroup is where the process runs; nil is the container's own cgroup.
	Cgroup *cgroup.Manager
	// User is looked up in the container as Config.User is.
	User string
	// Seccomp is the container's filter.
	Seccomp     *specs.LinuxSeccomp
	Personality *specs.LinuxPersonality
	// MemoryPolicy is the container's.
	MemoryPolicy *specs.LinuxMemoryPolicy
	// The rest is as in Config.
	Stdio          [3]*os.File
	PreserveFDs    int
	KillWithParent bool
	NoNewKeyring   bool
	Detached       bool
	ReportDenied   func(seccomp.Denied)
	Listener       func(fd *os.File, pid int) error
}

// execPlanner builds the program that runs a process in a container.
type execPlanner struct {
	cfg   *ExecConfig
	facts facts
	c     *Container
	prog  *launch.Program
	ids   idMap
	view  view
	proc  process
	held  []int
	alive int // pidfd of the container's first process, the program's to close

	status, tell, goRead, goAt, target, mounts, stage, first, pidfd, cgroupDir, master launch.Slot
	tasks                                                                              []launch.Slot
}

// Exec runs another process in the container and returns once its program
// runs. Errors are those of Create and Start.
func (c *Container) Exec(ctx context.Context, cfg ExecConfig) (*Process, error) {
	if s := c.Status(); s != workload.Running && s != workload.Created {
		return nil, workload.ErrNotRunning
	}
	// Its own: that of the container and that of the program may be closed by
	// the time something fails.
	c.mu.RLock()
	alive, err := unix.FcntlInt(uintptr(c.pidfd), unix.F_DUPFD_CLOEXEC, 3)
	c.mu.RUnlock()
	if err != nil {
		return nil, workload.ErrNotRunning // closed meanwhile
	}
	defer unix.Close(alive)
	p := &execPlanner{cfg: &cfg, facts: execFacts(), c: c, prog: launch.New("exec")}
	defer p.release()
	if err := p.plan(); err != nil {
		p.prog.Close()
		return nil, gone(alive, err)
	}
	r, err := p.prog.Run(ctx, launch.Options{Child: p.first, Detached: cfg.Detached})
	if err != nil {
		// Whatever step it was: the container may have ended in the middle.
		return nil, gone(alive, err)
	}
	proc := &Process{pid: r.Pid(), pidfd: r.Value(p.pidfd), running: r}
	status := os.NewFile(uintptr(r.Value(p.status)), "status")
	defer status.Close()
	if p.master != 0 {
		proc.terminal = os.NewFile(uintptr(r.Value(p.master)), "terminal")
	}
	if err := execError(proc.outcome(ctx, status, p.prog.Failure)); err != nil {
		unix.PidfdSendSignal(proc.pidfd, unix.SIGKILL, nil, 0)
		proc.reap()
		proc.Close()
		if proc.terminal != nil {
			proc.terminal.Close()
		}
		return nil, gone(alive, err)
	}
	return proc, nil
}

func (p *execPlanner) release() {
	for _, fd := range p.held {
		unix.Close(fd)
	}
}

func (p *execPlanner) plan() error {
	g := p.prog
	io, err := makeExecPipes()
	if err != nil {
		return err
	}
	p.status = g.Given("status", io.statusRead, "children tell here how they fare")
	p.tell = g.Given("tell", io.statusWrite, "their end of it")
	p.goRead = g.Given("go", io.goRead, "the host lets the process go on")
	p.goAt = g.Given("let_go", io.goWrite, "its own end of it")
	g.Status(p.status, p.tell)
	g.Keep(p.status)
	if err := p.lookAt(); err != nil {
		return err
	}
	if err := p.prepare(); err != nil {
		return err
	}
	if err := p.planCgroup(); err != nil {
		return err
	}
	if err := p.planTerminal(); err != nil {
		return err
	}
	if err := p.planJoin(); err != nil {
		return err
	}
	if err := planLimits(g, p.proc.facts, p.cfg.Process, p.first, p.affinity().Final); err != nil {
		return err
	}
	g.Do(launch.Host, launch.Write, "the process may go on", launch.Use(p.goAt), launch.Str("."), launch.Int(1)).Wanting(1)
	p.proc.planSession(g)
	g.Do(launch.Init, launch.Read, "until the host says so", launch.Use(p.goRead), launch.Buf(make([]byte, 1), "buf"), launch.Int(1)).Wanting(1)
	g.Do(launch.Init, launch.Setns, "the container's files", launch.Use(p.mounts), launch.Flag(unix.CLONE_NEWNS, "CLONE_NEWNS"))
	if err := planMemoryPolicy(g, p.cfg.MemoryPolicy); err != nil {
		return err
	}
	if p.cfg.Personality != nil {
		if err := planPersonality(g, &specs.Linux{Personality: p.cfg.Personality}); err != nil {
			return err
		}
	}
	p.proc.first, p.proc.pidfd, p.proc.letGo, p.proc.goOn = p.first, p.pidfd, p.goAt, p.goRead
	if err := p.proc.plan(g); err != nil {
		return err
	}
	return g.Build()
}

// affinity is where the process may run before and after it joins the cgroup.
func (p *execPlanner) affinity() specs.CPUAffinity {
	if a := p.cfg.Process.ExecCPUAffinity; a != nil {
		return *a
	}
	return specs.CPUAffinity{}
}

func makeExecPipes() (p pipes, err error) {
	var a, b [2]int
	if err := unix.Pipe2(a[:], unix.O_CLOEXEC); err != nil {
		return p, os.NewSyscallError("pipe2", err)
	}
	if err := unix.Pipe2(b[:], unix.O_CLOEXEC); err != nil {
		unix.Close(a[0])
		unix.Close(a[1])
		return p, os.NewSyscallError("pipe2", err)
	}
	return pipes{statusRead: a[0], statusWrite: a[1], goRead: b[0], goWrite: b[1], start: -1}, nil
}

// lookAt opens the container's process and its root directory.
func (p *execPlanner) lookAt() error {
	p.c.mu.RLock()
	pidfd := p.c.pidfd
	fd, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 3)
	p.c.mu.RUnlock()
	if pidfd < 0 {
		return workload.ErrNotRunning // closed meanwhile
	}
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	p.alive = fd
	p.target = p.prog.Given("container", fd, "pidfd of its first process")
	dir := "/proc/" + itoa(p.c.Pid)
	// By its file, not by the pidfd: that asks for ptrace access, which nobody in
	// the container's user namespace has to a process that waits to be started.
	if fd, err = unix.Open(dir+"/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return gone(p.alive, &os.PathError{Op: "open", Path: dir + "/ns/mnt", Err: err})
	}
	p.mounts = p.prog.Given("mounts", fd, "its mount namespace")
	root, err := unix.Open(dir+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return gone(p.alive, &os.PathError{Op: "open", Path: dir + "/root", Err: err})
	}
	p.held = append(p.held, root)
	p.view.mount("/", dirTree{root, dir + "/root"})
	if p.c.Namespaces&unix.CLONE_NEWUSER != 0 {
		if p.ids.uids, err = readMap(dir + "/uid_map"); err == nil {
			p.ids.gids, err = readMap(dir + "/gid_map")
		}
	}
	return gone(p.alive, err)
}

// gone replaces an error, or the lack of one, when the process has ended: what
// was read may then be another process's.
func gone(pidfd int, err error) error {
	wait := 0
	if err != nil && !errors.Is(err, workload.ErrCommandNotFound) && !errors.Is(err, workload.ErrNotExecutable) {
		// A first process that is exiting loses its namespaces, and ends all
		// others in them, before it has ended itself.
		wait = 100
	}
	if endedWithin(pidfd, wait) {
		return workload.ErrNotRunning
	}
	return err
}

func (p *execPlanner) prepare() error {
	c, cfg := &p.proc, p.cfg
	*c = process{spec: cfg.Process, facts: p.facts, ids: p.ids, env: cfg.Process.Env, tell: p.tell, killed: cfg.KillWithParent, preserve: cfg.PreserveFDs,
		give: cfg.Listener, report: cfg.ReportDenied}
	if err := checkProcess(cfg.Process, false); err != nil {
		return err
	}
	if err := c.findProfile(); err != nil {
		return err
	}
	if !cfg.NoNewKeyring {
		c.keyring = "_ses." + p.c.ID
	}
	if err := c.findUser(&p.view, cfg.User); err != nil {
		return err
	}
	if err := p.findCwd(); err != nil {
		return err
	}
	err := c.setFilter(cfg.Seccomp)
	if err != nil {
		return err
	}
	program := *cfg.Process
	if cfg.Program != "" {
		program.Args = []string{cfg.Program}
	}
	if c.program, err = p.view.findProgram(&program, c.env); err != nil {
		return err
	}
	if cfg.Process.Terminal {
		return nil
	}
	return c.takeStdio(p.prog, cfg.Stdio)
}

// findCwd looks where the process's working directory is. What cannot be looked at is
// the kernel's to say.
func (p *execPlanner) findCwd() error {
	loc, err := p.view.resolve(p.cfg.Process.Cwd)
	switch {
	case errors.Is(err, unix.ENOTDIR), err == nil && len(loc.missing) == 0 && !loc.mode.IsDir():
		return fmt.Errorf("working directory %q: %w", p.cfg.Process.Cwd, unix.ENOTDIR)
	case err == nil && len(loc.missing) > 0:
		return fmt.Errorf("working directory %q: %w", p.cfg.Process.Cwd, unix.ENOENT)
	case err == nil:
		p.proc.cwd = loc.path
	}
	return nil
}

func (p *execPlanner) planCgroup() error {
	m, err := p.c.Cgroups()
	if m == nil || err != nil {
		return err
	}
	frozen, err := m.Frozen()
	if err != nil {
		return err
	}
	if frozen && !p.cfg.WhilePaused {
		return errors.New("the container is paused")
	}
	if p.cfg.Cgroup != nil {
		m = p.cfg.Cgroup
	}
	dir, err := p.innerCgroup(m)
	if err != nil {
		return err
	}
	p.tasks, p.cgroupDir, err = giveCgroup(p.prog, m, dir)
	return err
}

// innerCgroup opens the v2 cgroup of the container's first process when the
// container's own takes no processes any more: with controllers enabled for
// its children (cgroups(7), "no internal processes"), as an init system inside
// does, a clone into it is EBUSY. It lies below, so every limit holds. nil is
// the usual case.
func (p *execPlanner) innerCgroup(m *cgroup.Manager) (*os.File, error) {
	dir := m.Paths()[""]
	if dir == "" || p.cfg.Cgroup != nil {
		return nil, nil
	}
	enabled, err := os.ReadFile(dir + "/cgroup.subtree_control")
	if err != nil {
		return nil, gone(p.alive, err)
	}
	if len(bytes.TrimSpace(enabled)) == 0 {
		return nil, nil
	}
	member, err := os.ReadFile("/proc/" + itoa(p.c.Pid) + "/cgroup")
	if ended(p.alive) {
		return nil, workload.ErrNotRunning
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(member)) {
		at, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		inner, below := strings.CutPrefix(at, m.Path()+"/")
		if !below {
			return nil, nil // not in a cgroup of its own there
		}
		base, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: dir, Err: err}
		}
		defer unix.Close(base)
		how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: beneath.Resolve | unix.RESOLVE_NO_XDEV}
		fd, err := unix.Openat2(base, inner, &how)
		if err != nil {
			return nil, &os.PathError{Op: "openat2", Path: dir + "/" + inner, Err: err}
		}
		return os.NewFile(uintptr(fd), dir+"/"+inner), nil
	}
	return nil, nil
}

// planTerminal opens a terminal of the container's devpts. The container may
// have put anything at that path, so what is there is looked at before it is
// opened for use.
func (p *execPlanner) planTerminal() error {
	if !p.cfg.Process.Terminal {
		return nil
	}
	master, slave, err := openTerminal(p.held[0])
	if err != nil {
		return fmt.Errorf("open a terminal in the container: %w", err)
	}
	p.master = p.prog.Given("terminal", master, "/dev/pts/ptmx of the container, seen to be one")
	p.prog.Keep(p.master)
	p.proc.terminal = p.prog.Given("tty", slave, "its other side, TIOCGPTPEER")
	uid, err := p.ids.uid(p.proc.uid)
	if err != nil {
		return err
	}
	if err := unix.Fchown(slave, int(uid), -1); err != nil {
		return os.NewSyscallError("fchown", err)
	}
	if s := p.cfg.Process.ConsoleSize; s != nil {
		return unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(s.Height), Col: uint16(s.Width)})
	}
	return nil
}

// openTerminal makes a terminal in the devpts below root.
func openTerminal(root int) (master, slave int, err error) {
	how := beneath
	fd, err := unix.Openat2(root, "dev/pts/ptmx", &how)
	if err != nil {
		return -1, -1, &os.PathError{Op: "openat2", Path: "/dev/pts/ptmx", Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, -1, os.NewSyscallError("fstat", err)
	}
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return -1, -1, os.NewSyscallError("fstatfs", err)
	}
	if fs.Type != unix.DEVPTS_SUPER_MAGIC || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) {
		return -1, -1, errors.New("/dev/pts/ptmx is not a terminal multiplexer")
	}
	if master, err = unix.Open("/proc/self/fd/"+itoa(fd), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err != nil {
		return -1, -1, &os.PathError{Op: "open", Path: "/dev/pts/ptmx", Err: err}
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(master)
		return -1, -1, os.NewSyscallError("ioctl TIOCSPTLCK", err)
	}
	n, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		unix.Close(master)
		return -1, -1, os.NewSyscallError("ioctl TIOCGPTPEER", e)
	}
	return master, int(n), nil
}

// planJoin is the first child, which joins the cgroup and all namespaces but
// the mount namespace, and the fork of the process in them.
func (p *execPlanner) planJoin() error {
	g := p.prog
	p.stage, p.first, p.pidfd = g.Slot("stage"), g.Slot("init"), g.Slot("pidfd")
	keep := []launch.Arg{launch.Use(p.tell), launch.Use(p.goRead), launch.Use(p.target), launch.Use(p.mounts)}
	for n := range 3 + p.cfg.PreserveFDs {
		keep = append(keep, launch.FD(n))
	}
	for _, s := range append(append([]launch.Slot{p.proc.terminal}, p.proc.stdio[:]...), p.tasks...) {
		if s != 0 {
			keep = append(keep, launch.Use(s))
		}
	}
	g.Fork(launch.Host, launch.Stage, 0, "0", p.stage, p.cgroupDir, "a child to join the namespaces")
	g.CloseOthers(launch.Stage, "no other descriptor of ours reaches the container (CVE-2024-21626)", keep...)
	notDumpable(g, launch.Stage, "our memory is not for the workload to read")
	if initial := p.affinity().Initial; initial != "" {
		if err := planInitialAffinity(g, launch.Stage, initial); err != nil {
			return err
		}
	}
	joinTasks(g, p.tasks)
	if flags := uintptr(p.c.Namespaces &^ unix.CLONE_NEWNS); flags != 0 {
		g.Do(launch.Stage, launch.Setns, "the container's namespaces, all at once", launch.Use(p.target), launch.Flag(flags, flagNames(flags)))
	}
	if p.ids.active() {
		becomeRoot(g, launch.Stage)
	}
	g.Fork(launch.Stage, launch.Init, unix.CLONE_PARENT, "CLONE_PARENT", p.first, 0, "the process, a child of the host")
	told := g.Tell(launch.Stage, p.first, "its process ID")
	g.Do(launch.Stage, launch.ExitGroup, "", launch.Int(0))
	g.Await(told, p.first, "the process exists")
	g.Do(launch.Host, launch.Wait4, "", launch.Use(p.stage), launch.Null(), launch.Int(0), launch.Null())
	g.Do(launch.Host, launch.PidfdOpen, "", launch.Use(p.first), launch.Int(0)).ToFD(p.pidfd)
	g.Keep(p.pidfd)
	return nil
}

// Adopt returns a container that is not one: a process which somebody else
// made, with a mount namespace of its own and no other. It is for Exec, whose
// processes join that and the cgroup. dir is any directory without a container.
func Adopt(id string, pid int, dir, cgroup string) (*Container, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	return &Container{State: State{ID: id, Pid: pid, Cgroup: cgroup, Namespaces: unix.CLONE_NEWNS}, dir: dir, pidfd: fd}, nil
}
