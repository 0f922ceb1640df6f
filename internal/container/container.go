package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/launch"
	"github.com/seed-f5e3b97b/bulkhead/internal/trace"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// Container is a container that Create made or Open found.
//
//	Create ──▶ waiting at the start FIFO ──Start──▶ running ──▶ ended
type Container struct {
	State
	// Terminal is the person's side of the first process's terminal, nil without
	// one. It is the caller's to close.
	Terminal *os.File

	dir     string
	mu      sync.RWMutex // of pidfd: signals may come while Close closes it, and its number is another file's next
	pidfd   int
	running *launch.Running // nil when another process created the container
	status  *os.File        // the host's end of the status pipe
	late    *planner        // of a container of Config.Late, until SetProgram
}

// The files in a container's directory.
const (
	startFIFO  = "start"  // exists until the container is started, or has no reader from then on
	statusFIFO = "status" // carries the failure of execve to whoever starts it
	stateFile  = "container.json"
)

// Create makes a container up to, not including, the first instruction of its
// program, which Start lets run. On error nothing is left behind. An error of
// the program that performed the work is a *launch.StepError; one that wraps
// workload.ErrCommandNotFound or workload.ErrNotExecutable is about the
// program to run.
func Create(ctx context.Context, cfg Config) (*Container, error) {
	looking := trace.Step(ctx, "machine looked at")
	defer looking.End()
	f, err := readFacts()
	if err != nil {
		return nil, err
	}
	p, err := newPlanner(&cfg, f)
	if err != nil {
		return nil, err
	}
	c := &Container{dir: cfg.Dir, pidfd: -1}
	if cfg.Late {
		p.late, err = launch.NewLate()
	}
	looking.End()
	if err == nil {
		err = c.create(ctx, &cfg, p)
	}
	if err != nil {
		p.release()
		return nil, err
	}
	if cfg.Late {
		c.late = p
	} else {
		p.release()
	}
	return c, nil
}

func (c *Container) create(ctx context.Context, cfg *Config, p *planner) (err error) {
	planning := trace.Step(ctx, "launch program planned")
	defer planning.End()
	io, err := makePipes(cfg.Dir) // first: it fails where there is a container already
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			c.forget()
		}
	}()
	if cfg.Layers != nil {
		for _, d := range []string{rootDirectory, layersDirectory} {
			if err := os.Mkdir(filepath.Join(cfg.Dir, d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				io.close()
				return err
			}
		}
	}
	if err := p.plan(io); err != nil {
		p.prog.Close()
		return err
	}
	settle := func() error { return nil }
	if cfg.Cgroup != nil {
		if settle, err = cfg.Cgroup.RoomFor(makers); err != nil {
			p.prog.Close()
			return err
		}
	}
	planning.End()
	performing, running := trace.Begin(ctx, "launch program performed")
	r, err := p.prog.Run(performing, launch.Options{Child: p.first, Detached: cfg.Detached})
	running.End()
	if err != nil {
		return errors.Join(explain(err), settle())
	}
	c.running, c.pidfd = r, r.Value(p.pidfd)
	c.status = os.NewFile(uintptr(r.Value(p.status)), "status")
	if p.terminal != 0 {
		c.Terminal = os.NewFile(uintptr(r.Value(p.terminal)), "terminal")
	}
	c.State = State{
		ID: cfg.ID, Pid: r.Pid(), Bundle: cfg.Bundle, Created: time.Now().UTC(), Root: p.rootPath, AfterStart: p.prog.Failures(p.start),
		KillAll: !p.ns.fresh(specs.PIDNamespace),
	}
	if cfg.Cgroup != nil {
		c.Cgroup = cfg.Cgroup.Path()
	}
	for t, own := range p.ns.types {
		if own {
			c.Namespaces |= uint64(namespaceFlags[t].flag)
		}
	}
	// The first process waits to be started, and nobody can start it yet.
	if err = settle(); err == nil {
		err = c.finish()
	}
	if err != nil {
		c.kill()
	}
	return err
}

// makers is how many processes are in the cgroup while a container is made: the
// stage and the first process that it forks.
const makers = 2

// explain says what a person can do about the error of a step, where the
// kernel's error number alone does not say.
func explain(err error) error {
	var step *launch.StepError
	if !errors.As(err, &step) {
		return err
	}
	switch {
	case step.Call == launch.MountSetattr && errors.Is(err, unix.EINVAL) && strings.Contains(step.Step, "MOUNT_ATTR_IDMAP"):
		_, name, _ := strings.Cut(step.Step, "($") // the slot is named after the mount
		name, _, _ = strings.Cut(name, ",")
		return &explained{fmt.Sprintf("the mount %q, or one below it, is of a file system that cannot be ID-mapped on this kernel; without a user namespace it can be used as it is", name),
			errors.Join(workload.ErrUnsupported, err)}
	case step.Call == launch.Prlimit64 && errors.Is(err, unix.EPERM):
		return &explained{"a hard limit on resources cannot be raised without CAP_SYS_RESOURCE", err}
	case step.Call == launch.Write && strings.Contains(step.Step, "$oom_score_adj") && errors.Is(err, unix.EACCES):
		return &explained{"the out-of-memory score cannot be lowered without CAP_SYS_RESOURCE", err}
	case step.Call == launch.Unshare && errors.Is(err, unix.ENOSPC):
		return &explained{"too many namespaces (user.max_*_namespaces in /proc/sys)", err}
	case step.Call == launch.Openat && errors.Is(err, unix.ENOENT) && strings.Contains(step.Step, `"/proc/sys/`):
		_, name, _ := strings.Cut(step.Step, `"/proc/sys/`)
		name, _, _ = strings.Cut(name, `"`)
		return &explained{fmt.Sprintf("there is no kernel parameter %q here", name), err}
	}
	return err
}

// explained is one sentence for a person. The step that failed is beneath it.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

// finish writes the state file.
func (c *Container) finish() (err error) {
	if c.PidStart, err = processStart(c.Pid); err != nil {
		return err
	}
	return c.save(c.dir)
}

// kill ends a container whose creation failed late.
func (c *Container) kill() {
	unix.PidfdSendSignal(c.pidfd, unix.SIGKILL, nil, 0)
	(&Process{pid: c.Pid, pidfd: c.pidfd}).reap()
}

// forget releases the descriptors of a failed Create and removes what it made.
func (c *Container) forget() {
	c.Close()
	if c.Terminal != nil {
		c.Terminal.Close()
	}
	for _, name := range []string{startFIFO, statusFIFO, stateFile, rootDirectory, layersDirectory} {
		os.Remove(filepath.Join(c.dir, name))
	}
}

// Close releases the descriptors of c. The container goes on.
func (c *Container) Close() {
	if c.late != nil {
		c.late.release()
		c.late = nil
	}
	c.mu.Lock()
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
	c.mu.Unlock()
	if c.status != nil {
		c.status.Close()
		c.status = nil
	}
}

// makePipes makes the channels between host and children. The status pipe and
// the start pipe are FIFOs, so that another process can start the container
// and learn how that went.
func makePipes(dir string) (p pipes, err error) {
	p = pipes{-1, -1, -1, -1, -1}
	status, start := filepath.Join(dir, statusFIFO), filepath.Join(dir, startFIFO)
	var made []string
	defer func() {
		if err != nil {
			p.close()
			for _, name := range made {
				os.Remove(name)
			}
		}
	}()
	for _, name := range []string{status, start} {
		if err := unix.Mkfifo(name, 0o600); err != nil {
			return p, &os.PathError{Op: "mkfifo", Path: name, Err: err}
		}
		made = append(made, name)
	}
	if p.statusRead, err = openFD(status, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
		return p, err
	}
	if p.statusWrite, err = openFD(status, unix.O_WRONLY); err != nil {
		return p, err
	}
	if err := unix.SetNonblock(p.statusRead, false); err != nil {
		return p, os.NewSyscallError("fcntl", err)
	}
	// Reading and writing: the waiting process must not see an end of file.
	if p.start, err = openFD(start, unix.O_RDWR); err != nil {
		return p, err
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return p, os.NewSyscallError("pipe2", err)
	}
	p.goRead, p.goWrite = fds[0], fds[1]
	return p, nil
}

func (p pipes) close() {
	for _, fd := range []int{p.statusRead, p.statusWrite, p.goRead, p.goWrite, p.start} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func openFD(name string, flags int) (int, error) {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// Start lets the container's program run and returns when it does, which it may
// do later when ctx is done first, as for who freezes it meanwhile. The error
// wraps workload.ErrRunning when it was started before, and
// workload.ErrCommandNotFound or workload.ErrNotExecutable when the kernel
// could not execute it.
func (c *Container) Start(ctx context.Context) error {
	if c.late != nil {
		return errors.New("start a container without a program")
	}
	name := filepath.Join(c.dir, startFIFO)
	fd, err := openFD(name, unix.O_WRONLY|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return workload.ErrRunning
	case errors.Is(err, unix.ENXIO) && c.Status() == workload.Running:
		return workload.ErrRunning
	case errors.Is(err, unix.ENXIO):
		return workload.ErrNotRunning
	case err != nil:
		return err
	}
	defer unix.Close(fd)
	status := c.status
	if status == nil {
		// Without waiting for a writer: the first process may just have ended.
		sfd, err := openFD(filepath.Join(c.dir, statusFIFO), unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return err
		}
		status = os.NewFile(uintptr(sfd), "status")
	}
	c.status = nil
	defer status.Close()
	// In this order, so that a start that is killed in between leaves no container
	// that looks started and waits for ever. Whoever removes the FIFO has started it.
	if _, err := unix.Write(fd, []byte{1}); err != nil {
		return &os.PathError{Op: "write", Path: name, Err: err}
	}
	if err := os.Remove(name); err != nil {
		return workload.ErrRunning
	}
	return execError(c.outcome(ctx, int(status.Fd())))
}

// outcome waits until the first process runs its program, as launch.Outcome does.
func (c *Container) outcome(ctx context.Context, status int) error {
	if err := unix.SetNonblock(status, true); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	for {
		err := launch.Outcome(status, c.failure)
		if err != unix.EAGAIN { //nolint:errorlint // that a step failed with is not meant
			return err
		}
		if err := waitReadable(ctx, status); err != nil {
			return fmt.Errorf("wait for the container's program to run: %w", err)
		}
	}
}

// execError says in words a shell would use why a program did not run.
func execError(err error) error {
	var step *launch.StepError
	if !errors.As(err, &step) || step.Call != launch.Execve {
		return err
	}
	kind := workload.ErrNotExecutable
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		kind = workload.ErrCommandNotFound
	}
	program, unquoted := strconv.Unquote(step.What)
	if unquoted != nil { // cut short for printing
		program = step.What
	}
	return &execFailure{program, kind, step.Errno}
}

// execFailure says what the kernel said, and is what the caller branches on.
type execFailure struct {
	program string
	kind    error
	errno   syscall.Errno
}

func (e *execFailure) Error() string {
	what := e.errno.Error()
	if e.errno == unix.E2BIG {
		what = "its arguments and environment are longer than the kernel takes"
	}
	if strconv.Quote(e.program) != `"`+e.program+`"` {
		return fmt.Sprintf("exec %q: %s", e.program, what)
	}
	return "exec " + e.program + ": " + what
}

func (e *execFailure) Unwrap() []error { return []error{e.kind, e.errno} }

// failure makes the error of a step that failed after the container was
// started, maybe by another process than the one that made the program.
func (c *Container) failure(index, errno uint64) error {
	s, ok := c.AfterStart[index]
	if !ok {
		return fmt.Errorf("step %d of the launch program: %w", index, syscall.Errno(errno))
	}
	return s.Error(syscall.Errno(errno))
}

// Wait waits for the first process. It is for the process that created the
// container, not detached.
func (c *Container) Wait(ctx context.Context) (workload.Exit, error) { return wait(ctx, c.running) }

// Signal sends sig to the first process. The error wraps
// workload.ErrNotRunning when it has ended.
func (c *Container) Signal(sig syscall.Signal) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return signal(c.pidfd, sig)
}

// WriteProgram prints the program that Create would run. The container's
// cgroup, writable layer and files of the engine's need not exist.
func WriteProgram(w io.Writer, cfg Config) error {
	f, err := readFacts()
	if err != nil {
		return err
	}
	p, err := newPlanner(&cfg, f)
	if err != nil {
		return err
	}
	defer p.release()
	defer p.prog.Close()
	p.dry = true
	if err := p.plan(pipes{-1, -1, -1, -1, 0}); err != nil {
		return err
	}
	_, err = p.prog.WriteTo(w)
	return err
}
