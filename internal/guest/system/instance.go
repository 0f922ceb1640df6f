package system

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/seed-f5e3b97b/bulkhead/internal/boundary"
	"github.com/seed-f5e3b97b/bulkhead/internal/container"
	"github.com/seed-f5e3b97b/bulkhead/internal/container/cgroup"
	"github.com/seed-f5e3b97b/bulkhead/internal/sys/at"
	"github.com/seed-f5e3b97b/bulkhead/internal/workload"
)

// instance is the system. Its first process is PID 1, which the agent cannot
// wait for: how it ends comes from the program that its shutdown runs last.
type instance struct {
	b       *Boundary
	spec    workload.Spec
	dir     string
	root    string
	cgroup  *cgroup.Manager
	console *console
	end     *os.File // the FIFO that says how it ends
	exec    *container.Container
	*boundary.Tree

	mu      sync.Mutex
	started bool
	waiting map[syscall.Signal]bool // signals that the init is not ready for

	ended chan struct{} // closed when exit is settled
	exit  workload.Exit
}

var (
	_ boundary.Instance = (*instance)(nil)
	_ boundary.Lister   = (*instance)(nil)
	_ boundary.Files    = (*instance)(nil)
)

// RebootCode is the exit code of a system that was asked to reboot rather than
// to power off: that of systemd-nspawn(1) for the same.
const RebootCode = 133

// Start makes PID 1 the system's init.
func (i *instance) Start(context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.started {
		return workload.ErrRunning
	}
	args := i.spec.Process.Args
	err := i.b.Machine.SwitchRoot(i.root, args[0], args, environment(i.spec.Process.Env))
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%w: %w", workload.ErrCommandNotFound, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ENOEXEC):
		return fmt.Errorf("%w: %w", workload.ErrNotExecutable, err)
	case err != nil:
		return err
	}
	i.started = true
	// The system has its own view of these mounts. What the agent kept would
	// keep them in use after their end.
	if err := unix.Unmount(i.root, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the system's root: %w", err)
	}
	go i.console.copy()
	go i.awaitEnd()
	return nil
}

// awaitEnd reads how the system ends. Whoever is root in the system can write
// that too, and ends the workload by it, as poweroff does.
func (i *instance) awaitEnd() {
	verb, err := bufio.NewReaderSize(i.end, 64).ReadSlice('\n')
	exit := workload.Exit{}
	switch string(verb) {
	case "reboot\n", "kexec\n":
		exit.Code = RebootCode
	}
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		exit = workload.Exit{Code: 255, Error: fmt.Sprintf("read how the system ended: %v", err)}
	}
	exit.At = time.Now()
	i.b.Machine.SystemOver()
	i.console.finish()
	i.exit = exit
	close(i.ended)
}

// openRoot opens the root directory of the system, of which this process has a
// mount until it runs.
func (i *instance) openRoot() (int, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.started {
		return at.LookPath("/proc/1/root", true)
	}
	return at.LookPath(i.root, true)
}

// Wait returns how the system ended.
func (i *instance) Wait(ctx context.Context) (workload.Exit, error) {
	select {
	case <-i.ended:
		return i.exit, nil
	case <-ctx.Done():
		return workload.Exit{}, ctx.Err()
	}
}

// Terminal is nil: the console is output only.
func (*instance) Terminal() boundary.Terminal { return nil }

// PID is 1.
func (*instance) PID() int { return 1 }

// Processes lists the processes of the guest but the agent and the kernel's
// threads, which have no program.
func (i *instance) Processes(context.Context) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if _, err := os.Readlink("/proc/" + e.Name() + "/exe"); err != nil {
			continue
		}
		out = append(out, pid)
	}
	return out, nil
}

// Exec runs a process in the system's mounts, as its root would: with every
// capability and without a filter.
func (i *instance) Exec(ctx context.Context, p workload.Process, stdio boundary.Stdio) (boundary.Process, error) {
	i.mu.Lock()
	started := i.started
	i.mu.Unlock()
	if !started {
		return nil, workload.ErrNotRunning
	}
	proc, err := i.exec.Exec(ctx, container.ExecConfig{
		Process: process(p), User: p.User, KillWithParent: true,
		Stdio: [3]*os.File{stdio.In, stdio.Out, stdio.Err},
	})
	if err != nil {
		return nil, err
	}
	t, err := boundary.TerminalOf(proc.Terminal())
	if err != nil {
		proc.Signal(syscall.SIGKILL)
		proc.Wait(ctx)
		proc.Close()
		return nil, err
	}
	return &executed{p: proc, terminal: t}, nil
}

// process is p in the words of the runtime spec.
func process(p workload.Process) *specs.Process {
	caps := container.KnownCapabilities()
	expendable := 0 // the agent's own score would be inherited
	out := &specs.Process{
		Terminal: p.Terminal, Args: p.Args, Env: p.Env, Cwd: p.Cwd, OOMScoreAdj: &expendable,
		Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		User:         specs.User{AdditionalGids: p.Groups},
	}
	if out.Cwd == "" {
		out.Cwd = "/"
	}
	if p.Rows > 0 && p.Cols > 0 {
		out.ConsoleSize = &specs.Box{Height: uint(p.Rows), Width: uint(p.Cols)}
	}
	for _, l := range p.Rlimits {
		out.Rlimits = append(out.Rlimits, specs.POSIXRlimit{Type: l.Type, Soft: l.Soft, Hard: l.Hard})
	}
	return out
}

// Delete undoes Create. A system that runs ends with its machine only.
func (i *instance) Delete(context.Context) error {
	i.Tree.Close()
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.started {
		return i.undo()
	}
	select {
	case <-i.ended:
	default:
		i.b.Machine.PowerOff()
	}
	return nil
}

// undo takes down what Create made of a system that never ran.
func (i *instance) undo() error {
	var err error
	if e := unix.Unmount(i.root, unix.MNT_DETACH); e != nil && e != unix.EINVAL && e != unix.ENOENT {
		err = &os.PathError{Op: "unmount", Path: i.root, Err: e}
	}
	if i.console != nil {
		i.console.close()
	}
	if i.end != nil {
		i.end.Close()
	}
	if i.exec != nil {
		i.exec.Close()
	}
	if i.cgroup != nil {
		err = errors.Join(err, i.cgroup.Destroy(context.Background()))
	}
	if e := os.Remove(i.root); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	i.b.made = false
	return err
}
